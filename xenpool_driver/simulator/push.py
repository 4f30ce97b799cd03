# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A joiner's records on their way to the coordinator: kept, changed, lost.

XAPI calls it best effort: a record that cannot be created is skipped, and
the join goes on. The order and the fields are those of xapi_pool.ml
(update_non_vm_metadata) and import.ml (metadata import).
"""

from __future__ import annotations

import logging
import typing

from xenpool_driver.simulator import (
    database,
    defaults,
    errors,
    host_settings,
    machine,
    prechecks,
)

LOG = logging.getLogger(__name__)

Record = dict[str, typing.Any]

NULL = errors.NULL

RESERVED_BRIDGES = ('xen', 'xapi', 'vif', 'tap', 'eth')
"""Names that network.create leaves to the toolstack (xapi_network.ml)."""

LONGEST_BRIDGE = 15

DANGLING = 'Ref:2'
"""What an imported VM's NULL parent and snapshot_of become (recorded)."""

DOM0_OPERATIONS = (
    'destroy',
    'metadata_export',
    'changing_static_range',
    'changing_dynamic_range',
    'start_on',
    'start',
)
"""What an imported control domain allows: it is halted then, and nobody looks
again (recorded)."""

INTERNAL = 'is_host_internal_management_network'


class Push:
    """One joiner's records, going into a coordinator's database.

    :param joiner: the machine that joins.
    :param local: its database.
    :param remote: the coordinator's.
    """

    def __init__(
        self,
        joiner: machine.Machine,
        local: database.Database,
        remote: database.Database,
    ) -> None:
        self._joiner = joiner
        self._local = local
        self._remote = remote
        self._task = remote.new_ref()

    def run(self) -> None:
        """Move all that can be moved."""
        with self._remote.transaction():
            for cls, move in (
                ('host', self._host),
                ('SR', self._sr),
                ('PBD', self._pbd),
                ('VDI', self._vdi),
                ('network', self._network),
            ):
                for ref in self._local.refs(cls):
                    self._try(move, ref)
            for ref, pif in self._local.all('PIF').items():
                if pif['physical']:
                    self._try(self._pif, ref)
            self._try(self._management_vlan, self._my_management())
            self._vms()

    def _try(self, move: typing.Callable[[str], object], ref: str) -> None:
        """Move one record; a failure loses that record only."""
        try:
            move(ref)
        except errors.ApiError as error:
            LOG.info(
                'join of %s: %s is lost: %s',
                self._joiner.name,
                ref,
                error.details,
            )

    def _known(self, cls: str, record: Record) -> str | None:
        """Return the coordinator's object with the uuid of ``record``."""
        return self._remote.table(cls).by_uuid.get(record['uuid'])

    def _my_management(self) -> str:
        me = self._local.by_uuid('host', self._joiner.uuid)
        for ref, pif in self._local.all('PIF').items():
            if pif['management'] and pif['host'] == me:
                return ref
        return NULL

    # -- hosts and storage -------------------------------------------------

    def _host(self, ref: str) -> str:
        """host.create: what its parameters carry, and other_config."""
        record = self._local.get('host', ref)
        known = self._known('host', record)
        if known is not None:
            return known
        self._check_pool_size()
        carried = (
            'name_label',
            'hostname',
            'address',
            'external_auth_type',
            'external_auth_service_name',
            'external_auth_configuration',
            'license_params',
            'edition',
            'license_server',
            'chipset_info',
            'last_software_update',
            'last_update_hash',
            'ssh_enabled',
            'ssh_enabled_timeout',
            'ssh_expiry',
            'console_idle_timeout',
            'ssh_auto_mode',
            'secure_boot',
            'software_version',
            'https_only',
            'max_cstate',
            'ntp_mode',
            'ntp_custom_servers',
            'timezone',
            'numa_affinity_policy',
            'latest_synced_updates_applied',
            'pending_guidances_full',
            'pending_guidances_recommended',
            'other_config',
        )
        fields = {name: record[name] for name in carried if name in record}
        return self._create_host(record, fields)

    def _check_pool_size(self) -> None:
        pool = prechecks.only_pool(self._remote)
        if prechecks.feature(pool, 'restrict_pool_size'):
            return
        if len(self._remote.refs('host')) >= prechecks.RESTRICTED_POOL_SIZE:
            raise errors.ApiError('LICENCE_RESTRICTION', 'Pool_size')

    def _create_host(self, record: Record, fields: Record) -> str:
        metrics = self._remote.create(
            'host_metrics',
            {
                'live': False,
                'memory_total': self._joiner.hardware.memory,
                'last_updated': self._remote.clock.iso(),
            },
        )
        facts = defaults.host_facts(self._joiner)
        crash_dump = record['crash_dump_sr']
        pool = self._remote.get(
            'host', prechecks.only_pool(self._remote)['master']
        )
        host = self._remote.create(
            'host',
            {
                **facts,
                **fields,
                **{
                    name: pool[name]
                    for name in ('API_version_major', 'API_version_minor')
                },
                'cpu_info': dict(record['cpu_info']),
                'editions': list(record['editions']),
                'bios_strings': dict(record['bios_strings']),
                'name_description': 'Default install',
                'ssh_expiry': self._remote.clock.iso(),
                'enabled': False,
                'ssl_legacy': False,
                'metrics': metrics,
                'tls_verification_enabled': pool['tls_verification_enabled'],
            },
            uuid=record['uuid'],
        )
        if self._local.exists(crash_dump, 'SR'):
            sr = self._sr(crash_dump)
            self._remote.set(
                'host', host, crash_dump_sr=sr, suspend_image_sr=sr
            )
        for kind in ('host', 'host_internal'):
            self._certificate(record, host, kind)
        self._cpus(record, host)
        host_settings.follow(self._remote, host)
        return host

    def _certificate(self, record: Record, host: str, kind: str) -> None:
        """The same certificate under a new uuid (recorded)."""
        for ref in record['certificates']:
            mine = self._local.find('Certificate', ref)
            if mine is not None and mine['type'] == kind:
                fields = {k: v for k, v in mine.items() if k != 'uuid'}
                self._remote.create('Certificate', {**fields, 'host': host})

    def _cpus(self, record: Record, host: str) -> None:
        for ref in record['host_CPUs']:
            mine = self._local.find('host_cpu', ref)
            if mine is not None:
                fields = {k: v for k, v in mine.items() if k != 'uuid'}
                self._remote.create('host_cpu', {**fields, 'host': host})

    def _sr(self, ref: str) -> str:
        """SR.introduce: never shared; tags and sizes do not travel."""
        record = self._local.get('SR', ref)
        known = self._known('SR', record)
        if known is not None:
            return known
        if record['is_tools_sr']:
            for mine, theirs in self._remote.all('SR').items():
                if theirs['is_tools_sr']:
                    return mine
            raise errors.internal_error(
                f"can't find SR {record['uuid']} of tools iso"
            )
        carried = (
            'name_label',
            'name_description',
            'type',
            'content_type',
            'sm_config',
            'other_config',
            'physical_size',
            'physical_utilisation',
            'virtual_allocation',
        )
        return self._remote.create(
            'SR',
            {
                **{name: record[name] for name in carried},
                'shared': False,
                'allowed_operations': list(defaults.SR_OPERATIONS),
            },
            uuid=record['uuid'],
        )

    def _pbd(self, ref: str) -> str:
        """PBD.create: a new uuid, not plugged."""
        record = self._local.get('PBD', ref)
        known = self._known('PBD', record)
        if known is not None:
            return known
        return self._remote.create(
            'PBD',
            {
                'host': self._host(record['host']),
                'SR': self._sr(record['SR']),
                'device_config': dict(record['device_config']),
                'other_config': dict(record['other_config']),
            },
        )

    def _vdi(self, ref: str) -> str:
        """VDI.pool_introduce: the same uuid."""
        record = self._local.get('VDI', ref)
        sr = self._sr(record['SR'])
        known = self._known('VDI', record)
        if known is not None:
            return known
        lost = {
            'uuid',
            'SR',
            'VBDs',
            'crash_dumps',
            'current_operations',
            'tags',
            'blobs',
            'snapshots',
        }
        fields = {k: v for k, v in record.items() if k not in lost}
        return self._remote.create(
            'VDI', {**fields, 'SR': sr}, uuid=record['uuid']
        )

    # -- networks ----------------------------------------------------------

    def _network(self, ref: str) -> str:
        """Merge with the pool's network of the same bridge, or create."""
        record = self._local.get('network', ref)
        physical = any(
            self._local.get('PIF', pif)['physical']
            for pif in record['PIFs'][:1]
        )
        if not physical and record['other_config'].get(INTERNAL) != 'true':
            return self._internal_network(record)
        for theirs, network in self._remote.all('network').items():
            if network['bridge'] == record['bridge']:
                return theirs
        return self._create_network(record, purpose=record['purpose'])

    def _internal_network(self, record: Record) -> str:
        """network.create, which does not take the toolstack's own names."""
        bridge = record['bridge']
        if len(bridge) > LONGEST_BRIDGE or bridge.startswith(RESERVED_BRIDGES):
            raise errors.ApiError('INVALID_VALUE', 'bridge', bridge)
        if any(
            network['bridge'] == bridge
            for network in self._remote.all('network').values()
        ):
            raise errors.ApiError('BRIDGE_NAME_EXISTS', bridge)
        return self._create_network(record, tags=list(record['tags']))

    def _create_network(self, record: Record, **fields: typing.Any) -> str:
        carried = (
            'name_label',
            'name_description',
            'MTU',
            'other_config',
            'bridge',
            'managed',
        )
        return self._remote.create(
            'network',
            {**{name: record[name] for name in carried}, **fields},
        )

    def _pif(self, ref: str) -> str:
        """PIF.pool_introduce: a new uuid, configuration kept."""
        record = self._local.get('PIF', ref)
        host = self._host(record['host'])
        if record['VLAN'] != -1:
            network = self._pool_management_network()
        else:
            network = self._network(record['network'])
        for theirs, pif in self._remote.all('PIF').items():
            mine = (pif['host'], pif['device'], pif['VLAN'])
            if mine == (host, record['device'], record['VLAN']):
                return theirs
        carried = (
            'device',
            'MAC',
            'MTU',
            'VLAN',
            'physical',
            'ip_configuration_mode',
            'IP',
            'netmask',
            'gateway',
            'DNS',
            'management',
            'other_config',
            'disallow_unplug',
            'ipv6_configuration_mode',
            'IPv6',
            'ipv6_gateway',
            'primary_address_type',
            'managed',
            'properties',
            'currently_attached',
        )
        metrics = self._remote.create('PIF_metrics', {})
        return self._remote.create(
            'PIF',
            {
                **{name: record[name] for name in carried},
                'host': host,
                'network': network,
                'metrics': metrics,
            },
        )

    def _pool_management_network(self) -> str:
        pool = prechecks.only_pool(self._remote)
        pif = prechecks.management_pif(self._remote, pool['master'])
        return str(pif['network'])

    def _management_vlan(self, ref: str) -> None:
        """The VLAN under the management interface, when there is one."""
        pif = self._local.find('PIF', ref)
        if pif is None or pif['VLAN_master_of'] == NULL:
            return
        vlan = self._local.get('VLAN', pif['VLAN_master_of'])
        card = self._local.get('PIF', vlan['tagged_PIF'])
        host = self._host(card['host'])
        untagged = self._pif(ref)
        network = self._network(card['network'])
        tagged = next(
            (
                theirs
                for theirs, other in self._remote.all('PIF').items()
                if other['host'] == host and other['network'] == network
            ),
            NULL,
        )
        created = self._remote.create(
            'VLAN',
            {
                'tagged_PIF': tagged,
                'untagged_PIF': untagged,
                'tag': vlan['tag'],
                'other_config': dict(vlan['other_config']),
            },
        )
        self._remote.set('PIF', untagged, VLAN_master_of=created)

    # -- VMs ---------------------------------------------------------------

    def _vms(self) -> None:
        """The metadata import: all VMs or, when one cannot be, none."""
        mine = self._local.all('VM')
        if any(self._known('VM', vm) is not None for vm in mine.values()):
            LOG.info('join of %s: no VM is imported', self._joiner.name)
            return
        table: dict[str, str] = {}
        for ref, vm in mine.items():
            table[ref] = self._vm(vm)
        for ref, vm in mine.items():
            self._vm_links(vm, table, table[ref])

    def _template(self, vm: Record) -> str | None:
        """Return the pool's default template of that name, if any."""
        if not vm['is_default_template']:
            return None
        for ref, theirs in self._remote.all('VM').items():
            if theirs['name_label'] == vm['name_label']:
                return ref
        return None

    def _vm(self, vm: Record) -> str:
        known = self._template(vm)
        if known is not None:
            return known
        lost = {
            'uuid',
            'VIFs',
            'VBDs',
            'VUSBs',
            'VGPUs',
            'VTPMs',
            'consoles',
            'crash_dumps',
            'snapshots',
            'children',
            'attached_PCIs',
            'current_operations',
            'blobs',
            'groups',
            'domarch',
        }
        fields = {k: v for k, v in vm.items() if k not in lost}
        fields |= {
            'power_state': 'Halted',
            'suspend_VDI': NULL,
            'domid': -1,
            'is_default_template': False,
            'version': vm['version'] + 1,
            'appliance': NULL,
            'protection_policy': NULL,
            'other_config': {
                **vm['other_config'],
                'import_task': self._task,
                'mac_seed': vm['other_config'].get('mac_seed')
                or self._remote.new_uuid(),
            },
            'resident_on': self._moved_host(vm['resident_on']),
            'affinity': self._moved_host(vm['affinity']),
            'parent': DANGLING,
            'snapshot_of': DANGLING,
            'guest_metrics': NULL,
            'metrics': self._vm_metrics(vm),
            **self._imported(vm),
        }
        return self._remote.create('VM', fields, uuid=vm['uuid'])

    def _imported(self, vm: Record) -> Record:
        """Return what an import makes anew (import.ml, recorded)."""
        rng = self._remote.rng
        fields: Record = {}
        if vm['generation_id']:
            words = (rng.getrandbits(63), rng.getrandbits(63))
            fields['generation_id'] = ':'.join(map(str, words))
        if vm['domain_type'] == 'hvm' and not vm['is_a_template']:
            fields['platform'] = {
                'device-model': 'qemu-upstream-compat',
                **vm['platform'],
            }
        if vm['is_control_domain']:
            fields['allowed_operations'] = list(DOM0_OPERATIONS)
        return fields

    def _moved_host(self, ref: str) -> str:
        return self._host(ref) if self._local.exists(ref, 'host') else NULL

    def _vm_metrics(self, vm: Record) -> str:
        metrics = self._local.find('VM_metrics', vm['metrics'])
        fields = {} if metrics is None else dict(metrics)
        fields.pop('uuid', None)
        return self._remote.create('VM_metrics', fields)

    def _vm_links(self, vm: Record, table: dict[str, str], new: str) -> None:
        """Import what hangs on a VM, and its place among snapshots."""
        if self._template(vm) == new:
            return
        for name in ('parent', 'snapshot_of'):
            if vm[name] in table:
                self._remote.set('VM', new, **{name: table[vm[name]]})
        for ref in vm['VIFs']:
            self._vif(ref, new)
        for ref in vm['VBDs']:
            self._vbd(ref, new)
        if vm['power_state'] == 'Suspended':
            disk = self._moved_vdi(vm['suspend_VDI'])
            if disk != NULL:
                self._remote.set(
                    'VM', new, power_state='Suspended', suspend_VDI=disk
                )

    def _vif(self, ref: str, vm: str) -> None:
        record = self._local.find('VIF', ref)
        if record is None or self._known('VIF', record) is not None:
            return
        fields = {k: v for k, v in record.items() if k != 'uuid'}
        self._remote.create(
            'VIF',
            {
                **fields,
                'VM': vm,
                'network': self._vif_network(record['network']),
                'currently_attached': False,
                'MAC_autogenerated': False,
                'current_operations': {},
            },
            uuid=record['uuid'],
        )

    def _vif_network(self, ref: str) -> str:
        """Find a network by name, else by bridge, else create it."""
        record = self._local.find('network', ref)
        if record is None:
            return NULL
        networks = self._remote.all('network')
        for field in ('name_label', 'bridge'):
            for theirs, network in networks.items():
                if network[field] == record[field]:
                    return theirs
        created = self._create_network(record, tags=list(record['tags']))
        self._remote.put_in_map(
            'network', created, 'other_config', 'import_task', self._task
        )
        return created

    def _vbd(self, ref: str, vm: str) -> None:
        record = self._local.find('VBD', ref)
        if record is None or self._known('VBD', record) is not None:
            return
        fields = {k: v for k, v in record.items() if k != 'uuid'}
        self._remote.create(
            'VBD',
            {
                **fields,
                'VM': vm,
                'VDI': self._moved_vdi(record['VDI']),
                'currently_attached': False,
                'current_operations': {},
            },
            uuid=record['uuid'],
        )

    def _moved_vdi(self, ref: str) -> str:
        record = self._local.find('VDI', ref)
        known = None if record is None else self._known('VDI', record)
        return NULL if known is None else known
