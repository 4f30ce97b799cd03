# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The table of XAPI's error codes: what each lets conclude, and the remedy.

It holds the codes that login, join, eject, designate, evacuation, HA and the
recovery calls can raise (``xapi_pool.ml``, ``xapi_host.ml``,
``api_errors.ml``). A code that is not here counts as a refusal: XAPI gave a
definite answer.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import re

from xenpool_driver import exceptions

Kind = (
    type[exceptions.XapiRefused]
    | type[exceptions.NotPoolMaster]
    | type[exceptions.XapiUnavailable]
    | type[exceptions.XapiOutcomeUnknown]
)


@dataclasses.dataclass(frozen=True)
class Code:
    """What one error code means.

    :ivar remedy: one line on what to do about it; ``{host}`` stands for the
        host that answered (:meth:`told`).
    :ivar reading: our error when a login or a read meets it.
    :ivar changing: our error when a call that changes something meets it.
    """

    remedy: str
    reading: Kind = exceptions.XapiRefused
    changing: Kind = exceptions.XapiRefused

    def told(self, host: str) -> str:
        """Return the remedy for the answer of a host.

        :param host: what the user calls the host that answered.
        """
        return self.remedy.replace('{host}', host or 'it')


def _rows(
    remedies: dict[str, str],
    reading: Kind = exceptions.XapiRefused,
    changing: Kind = exceptions.XapiRefused,
) -> dict[str, Code]:
    return {
        code: Code(remedy, reading, changing)
        for code, remedy in remedies.items()
    }


_SESSION = {
    'SESSION_AUTHENTICATION_FAILED': 'check connection_username and '
    'connection_password; in the file $$ stands for $ (\\$ behind a '
    'backslash), and quotes and blanks around a value are taken off: put a '
    'password that has them into quotes, as in "\'it\'"; after a join the '
    'password is that of the pool',
    'SESSION_AUTHORIZATION_FAILED': 'give the user the role pool-operator, '
    'or log in as root',
    'RBAC_PERMISSION_DENIED': 'give the user the role pool-operator, or log '
    'in as root',
    'PERMISSION_DENIED': 'log in as root',
    'USER_IS_NOT_LOCAL_SUPERUSER': 'log in as root',
    'SESSION_NOT_REGISTERED': 'use event.from instead of event.next',
}

_CALL = {
    'HANDLE_INVALID': 'the object is gone or belongs to another pool: '
    'repeat the request',
    'UUID_INVALID': 'no object of this pool has the uuid: repeat the request',
    'INVALID_VALUE': 'correct the value',
    'VALUE_NOT_SUPPORTED': 'correct the value',
    'FIELD_TYPE_ERROR': 'correct the value',
    'MAP_DUPLICATE_KEY': 'remove the key first',
    'DB_UNIQUENESS_CONSTRAINT_VIOLATION': 'choose another value',
    'MESSAGE_METHOD_UNKNOWN': 'the host is too old for this call: update it',
    'MESSAGE_PARAMETER_COUNT_MISMATCH': 'the host is too old or too new for '
    'this call: update it',
    'MESSAGE_DEPRECATED': 'the host no longer supports this call',
    'MESSAGE_REMOVED': 'the host no longer supports this call',
    'NOT_IMPLEMENTED': 'the host does not support this call',
    'FEATURE_RESTRICTED': 'the licence lacks the feature: assign one that '
    'has it',
    'OPERATION_NOT_ALLOWED': 'remove the reason that is given, then try again',
    'OPERATION_BLOCKED': "remove the operation from the object's "
    'blocked_operations',
}

_JOIN_STATE = {
    'JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS': 'eject the other hosts '
    "of the joining host's pool first",
    'JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS': 'detach and forget the shared '
    'SRs of the joining host',
    'JOINING_HOST_CANNOT_HAVE_RUNNING_VMS': 'shut down the virtual machines '
    'of the joining host',
    'JOINING_HOST_CANNOT_HAVE_RUNNING_OR_SUSPENDED_VMS': 'shut down the '
    'virtual machines of the joining host',
    'JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS': 'wait until the '
    "operations on the joining host's virtual machines have ended",
    'JOINING_HOST_CONNECTION_FAILED': 'check that the joining host reaches '
    'port 443 of the master',
    'JOINING_HOST_SERVICE_FAILED': "check the master's toolstack, then try "
    'again',
    'HOSTS_NOT_COMPATIBLE': 'install the same product version on both hosts',
    'HOSTS_NOT_HOMOGENEOUS': 'install the same updates on both hosts; CPUs of '
    'different vendors cannot share a pool',
    'HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY': 'carry out the pending '
    'action of the update (reboot or toolstack restart) first',
    'CLUSTERING_ENABLED': 'take the joining host out of its cluster first',
    'CLUSTERING_DISABLED': 'enable the cluster host first',
    'CLUSTER_HOST_IS_LAST': 'destroy the cluster first',
    'NOT_SUPPORTED_DURING_UPGRADE': 'finish the upgrade or the update first',
    'RESTORE_INCOMPATIBLE_VERSION': 'install the same version on both hosts',
}

_JOIN_RULES = {
    'POOL_JOINING_EXTERNAL_AUTH_MISMATCH': 'configure the same external '
    'authentication on both sides',
    'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT': 'uninstall or rename the CA '
    'certificates of the same name on one side',
    'POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT': 'give the certificate '
    'the same purposes on both sides',
    'POOL_JOINING_HOST_HAS_BONDS': 'remove the bonds of the joining host; it '
    'takes those of the pool over',
    'POOL_JOINING_HOST_HAS_NETWORK_SRIOVS': 'disable network SR-IOV on the '
    'joining host',
    'POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS': 'remove the VLANs of the '
    'joining host; it takes those of the pool over',
    'POOL_JOINING_HOST_HAS_TUNNELS': 'remove the tunnels of the joining host',
    'POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH': 'put the management '
    'interface of both sides on the same VLAN',
    'POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK': 'give '
    'the joining host exactly one address on the cluster network',
    'POOL_JOINING_HOST_MUST_HAVE_PHYSICAL_MANAGEMENT_NIC': 'put management on '
    'a physical interface',
    'POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION': 'install the same version '
    'on both hosts',
    'POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA': 'install the same version '
    'on both hosts',
    'POOL_JOINING_HOST_MUST_HAVE_SAME_PRODUCT_VERSION': 'install the same '
    'version on both hosts',
    'POOL_JOINING_HOST_MUST_ONLY_HAVE_PHYSICAL_PIFS': 'remove bonds, VLANs '
    'and tunnels of the joining host',
    'POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH': 'on the side where '
    'it is off, type: xe pool-enable-tls-verification (a host that was just '
    'installed or ejected does it by itself at the end of its first boot)',
    'POOL_JOINING_MASTER_CERTIFICATE_NOT_IN_POOL_BUNDLE': 'refresh the '
    'certificate of the master; the command is told by: xenpool aggregate '
    'audit',
    'POOL_JOINING_POOL_BUNDLE_EMPTY_AFTER_IMPORT': "check the disk space of "
    'the joining host',
    'POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK': "move the "
    "pool's cluster off the VLAN, or the management interface onto it",
    'POOL_JOINING_SM_FEATURES_INCOMPATIBLE': "install the pool's storage "
    'drivers on the joining host, in the same version',
    'SSL_VERIFY_ERROR': 'check the certificates of the pool',
    'TLS_CONNECTION_FAILED': 'check that the host reaches the address',
    'ILLEGAL_IN_FIPS_MODE': 'not available in this mode',
}

_LICENCE = {
    'LICENCE_RESTRICTION': 'assign a licence that has the feature; without '
    'one a pool holds three hosts',
    'LICENSE_DOES_NOT_SUPPORT_POOLING': 'assign a licence that has pooling',
    'LICENSE_DOES_NOT_SUPPORT_XHA': 'assign a licence that has HA',
    'LICENSE_HOST_POOL_MISMATCH': 'assign the same edition to both sides',
    'LICENSE_EXPIRED': 'renew the licence',
    'LICENSE_CHECKOUT_ERROR': 'check the licence server',
    'LICENSE_PROCESSING_ERROR': 'check the licence',
    'V6D_FAILURE': "check the joining host's licence daemon",
}

_BUSY = {
    'OTHER_OPERATION_IN_PROGRESS': 'wait until the other operation has ended; '
    'see on {host}: xe task-list',
    'HA_ENABLE_IN_PROGRESS': 'wait until HA is enabled',
    'HA_DISABLE_IN_PROGRESS': 'wait until HA is disabled',
    'CLUSTER_CREATE_IN_PROGRESS': 'wait until the cluster is created',
    'DESIGNATE_NEW_MASTER_IN_PROGRESS': 'wait until the master has changed',
    'TLS_VERIFICATION_ENABLE_IN_PROGRESS': 'wait until TLS verification is '
    'enabled',
    'CONFIGURE_REPOSITORIES_IN_PROGRESS': 'wait until it is done',
    'SYNC_UPDATES_IN_PROGRESS': 'wait until the updates are synchronised',
    'SYNC_BUNDLE_IN_PROGRESS': 'wait until the updates are synchronised',
    'APPLY_UPDATES_IN_PROGRESS': 'wait until the updates are applied',
    'GET_UPDATES_IN_PROGRESS': 'wait until the updates are listed',
    'CERT_REFRESH_IN_PROGRESS': 'wait until the certificates are refreshed',
    'POOL_SECRET_ROTATION_PENDING': 'finish the rotation of the pool secret '
    'first; on {host}: xe pool-secret-rotate',
    'HOST_EVACUATE_IN_PROGRESS': 'wait until the evacuation has ended',
    'HOST_IN_USE': 'wait until the host is not in use',
}

_HA = {
    'HA_IS_ENABLED': 'disable HA first, on the master of the pool where it is '
    'on: xe pool-ha-disable; or repeat the request with --suspend-ha',
    'HA_NOT_ENABLED': 'HA is off already',
    'HA_NOT_INSTALLED': 'install the HA pack',
    'HA_ABORT_NEW_MASTER': 'wait ten minutes: a host holds another proposal '
    'for a master',
    'HA_FAILED_TO_FORM_LIVESET': 'check network and heartbeat SR of every '
    'host',
    'HA_HOST_CANNOT_SEE_PEERS': 'check the network between the hosts',
    'HA_HOST_IS_ARMED': 'disable HA first',
    'HA_LOST_STATEFILE': 'restore access to the heartbeat SR',
    'HA_NO_PLAN': 'lower ha_host_failures_to_tolerate',
    'HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN': 'lower '
    'ha_host_failures_to_tolerate, or unprotect virtual machines',
    'HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED': 'move the protected '
    'virtual machine to a shared network',
    'HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED': 'move the disks of the '
    'protected virtual machine to a shared SR',
    'HA_TOO_FEW_HOSTS': 'HA needs more hosts',
    'CANNOT_CREATE_STATE_FILE': 'give the pool a shared SR with room for the '
    'state file',
    'REQUIRED_PIF_IS_UNPLUGGED': 'plug the interface first',
    'INCOMPATIBLE_CLUSTER_STACK_ACTIVE': 'use the cluster stack that is '
    'active',
}

_HOST = {
    'HOST_OFFLINE': 'start the host; if it is dead for good, forget it '
    '(--forget)',
    'HOST_NOT_LIVE': 'start the host',
    'HOST_IS_LIVE': 'the host still answers: remove it without --forget',
    'HOST_HAS_RESIDENT_VMS': 'virtual machines are recorded as running on the '
    'host; see on {host}: xe vm-list params=uuid,name-label,resident-on',
    'HOST_CANNOT_DESTROY_SELF': 'ask another host: this one is the master',
    'HOST_DISABLED': 'enable the host first; which one it is, is told on '
    '{host} by: xe host-list enabled=false',
    'HOST_DISABLED_INDEFINITELY': 'enable the host by hand',
    'HOST_DISABLED_UNTIL_REBOOT': 'reboot the host first',
    'HOST_NOT_DISABLED': 'disable the host first',
    'HOST_POWER_ON_MODE_DISABLED': 'start the host by hand',
    'HOST_EVACUATION_IS_REQUIRED': 'evacuate the host first',
    'HOST_NAME_INVALID': 'choose another name',
    'HOST_CANNOT_READ_METRICS': 'try again later',
    'NOT_IN_EMERGENCY_MODE': 'the host is not in emergency mode: it needs no '
    'recovery',
    'SLAVE_REQUIRES_MANAGEMENT_INTERFACE': 'a member needs its management '
    'interface',
    'DEFAULT_SR_NOT_FOUND': 'set the default SR of the pool; the uuids are '
    'told on {host} by: xe sr-list',
    'PIF_NOT_PRESENT': 'the host lacks an interface on the network',
}

_EVACUATE = {
    'CANNOT_EVACUATE_HOST': 'free the host from what is named',
    'NO_HOSTS_AVAILABLE': 'no other host can take the virtual machine: shut '
    'it down, or make room',
    'HOST_NOT_ENOUGH_FREE_MEMORY': 'shut the virtual machine down, or make '
    'room on another host',
    'HOST_EVACUATE_VM_NOT_HA_PROTECTED': 'protect the virtual machine, or '
    'shut it down',
    'VM_REQUIRES_SR': 'shut the virtual machine down: its disks are local',
    'VM_REQUIRES_NETWORK': 'shut the virtual machine down: no other host has '
    'its network',
    'VM_REQUIRES_VDI': 'shut the virtual machine down',
    'VM_HAS_PCI_ATTACHED': 'shut the virtual machine down: it has a device '
    'of the host',
    'VM_HAS_SRIOV_VIF': 'shut the virtual machine down: it has a device of '
    'the host',
    'VM_HAS_VGPU': 'shut the virtual machine down: it has a device of the '
    'host',
    'VM_MISSING_PV_DRIVERS': 'install the guest tools, or shut the virtual '
    'machine down',
    'VM_LACKS_FEATURE': 'install the guest tools, or shut the virtual '
    'machine down',
    'VM_BAD_POWER_STATE': 'look at the power state of the virtual machine; on '
    '{host}: xe vm-list params=uuid,name-label,power-state',
    'VM_IS_TEMPLATE': 'name a virtual machine, not a template',
    'VM_HOST_INCOMPATIBLE_VERSION': 'update the other hosts first',
    'VM_HOST_INCOMPATIBLE_VERSION_MIGRATE': 'update the other hosts first',
    'VM_INCOMPATIBLE_WITH_THIS_HOST': 'shut the virtual machine down: the '
    'CPU of the other host lacks features',
    'VM_MIGRATE_FAILED': 'look at the log of both hosts',
    'VM_HVM_REQUIRED': 'start it on a host with hardware virtualisation',
    'BOOTLOADER_FAILED': "check the virtual machine's boot disk",
    'UNKNOWN_BOOTLOADER': "check the virtual machine's bootloader",
}

_STORAGE = {
    'SR_BACKEND_FAILURE': 'look at the storage of the host: something may be '
    'unplugged already',
    'SR_DEVICE_IN_USE': 'free the disks of the SR first; see on {host}: xe '
    'vbd-list currently-attached=true',
    'SR_HAS_PBD': 'unplug the SR first',
    'SR_HAS_NO_PBDS': 'plug the SR first',
    'SR_NOT_EMPTY': 'empty the SR first',
    'SR_NOT_SHARABLE': 'the SR cannot be shared',
    'VDI_IN_USE': 'free the disk first',
    'PBD_EXISTS': 'the SR is attached already',
    'CLUSTERED_SR_DEGRADED': 'wait until the cluster is whole again',
    'AUTH_SERVICE_ERROR': 'check the directory service',
    'AUTH_DISABLE_FAILED': 'disable external authentication by hand first',
    'POOL_AUTH_DISABLE_FAILED': 'disable external authentication by hand '
    'first',
}

_EMERGENCY = {
    'HOST_STILL_BOOTING': 'its toolstack is starting, or looks for its '
    'master: wait',
    'HOST_HAS_NO_MANAGEMENT_IP': 'its management interface has no address '
    'yet: wait, or repair its network',
    'HOST_IN_EMERGENCY_MODE': 'it does not find its master: wait, or recover '
    'the pool',
    'HOST_ITS_OWN_SLAVE': 'it believes to be its own member; on {host}: xe '
    'pool-emergency-transition-to-master',
    'HOST_MASTER_CANNOT_TALK_BACK': 'its master cannot reach it: repair the '
    'network between them',
    'HOST_UNKNOWN_TO_MASTER': 'its master has no record of it, it was '
    'forgotten; on {host}: xe pool-emergency-transition-to-master; or '
    'reinstall it',
    'HOST_XAPI_VERSION_HIGHER_THAN_COORDINATOR': 'update the master first',
    'HOST_BROKEN': 'a change of master broke off half-way; what to do is '
    'told by: xenpool aggregate audit',
    'HA_HOST_CANNOT_ACCESS_STATEFILE': 'restore access to the heartbeat SR',
    'HA_HEARTBEAT_DAEMON_STARTUP_FAILED': 'look at the HA log of the host',
    'HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED': 'disable and enable HA again',
    'HA_SHOULD_BE_FENCED': 'HA is about to restart the host: wait',
    'TOO_MANY_PENDING_TASKS': 'the toolstack is overloaded: wait',
}

_UNSURE = {
    'CANNOT_CONTACT_HOST': 'the master cannot reach the host: check it and '
    'the network',
    'TASK_CANCELLED': 'somebody cancelled the task: look how far it came',
    'OPERATION_PARTIALLY_FAILED': 'look how far it came',
}

CODES: collections.abc.Mapping[str, Code] = {
    **_rows(_SESSION),
    **_rows(_CALL),
    **_rows(_JOIN_STATE),
    **_rows(_JOIN_RULES),
    **_rows(_LICENCE),
    **_rows(_BUSY),
    **_rows(_HA),
    **_rows(_HOST),
    **_rows(_EVACUATE),
    **_rows(_STORAGE),
    **_rows(
        _EMERGENCY, exceptions.XapiUnavailable, exceptions.XapiUnavailable
    ),
    **_rows(
        _UNSURE, exceptions.XapiUnavailable, exceptions.XapiOutcomeUnknown
    ),
    'HOST_IS_SLAVE': Code(
        'ask the master',
        exceptions.NotPoolMaster,
        exceptions.NotPoolMaster,
    ),
    'SESSION_INVALID': Code(
        'the toolstack restarted, or ended the session: log in again',
        exceptions.XapiUnavailable,
        exceptions.XapiUnavailable,
    ),
    'INTERNAL_ERROR': Code(
        'look at /var/log/xensource.log of {host}',
        exceptions.XapiRefused,
        exceptions.XapiOutcomeUnknown,
    ),
}
"""Code -> what it means. ``SR_BACKEND_FAILURE`` stands for its numbered
relatives too."""

HARMLESS_INTERNAL_ERRORS = re.compile(
    r"""^(?:
      Xapi_pool\.Cannot_eject_master    # the first thing that an eject tests
    | Connection\ failed:               # a join that never reached the master
    | Failure\("?\\?"Expected\          # an argument of the wrong type
    | Failure\("?\\?"Unknown\ tag       # an argument outside its enumeration
    | Internal\ API\                    # a call reserved to hosts
    )""",
    re.VERBOSE,
)
"""Texts of INTERNAL_ERROR that arise before anything is changed
(``xapi_pool.ml``, and as recorded)."""

_SAFE_INTERNAL = Code(CODES['INTERNAL_ERROR'].remedy, exceptions.XapiRefused)
_UNKNOWN = Code('look at /var/log/xensource.log of {host}')
"""A code that the table lacks."""


def find(code: str, params: collections.abc.Sequence[str] = ()) -> Code:
    """Return the row for a code.

    :param code: the code, as XAPI sent it.
    :param params: its parameters; some codes mean different things.
    """
    text = params[0] if params else ''
    if code == 'INTERNAL_ERROR' and HARMLESS_INTERNAL_ERRORS.match(text):
        return _SAFE_INTERNAL
    if code.startswith('SR_BACKEND_FAILURE'):
        return CODES['SR_BACKEND_FAILURE']
    return CODES.get(code, _UNKNOWN)
