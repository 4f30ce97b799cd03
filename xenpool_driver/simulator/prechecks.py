# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What pool.join asserts before it touches anything, in XAPI's order.

One small function per assert of ``pre_join_checks`` (xapi_pool.ml), each
raising the error that XAPI raises. Two of them assert two things and raise
for the first. The identifiers count from 1 as they stand in
:data:`CHECKS`; a release that lacks a check names it in its profile.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from xenpool_driver.simulator import database, errors, profiles

Record = dict[str, typing.Any]

RESTRICTED_POOL_SIZE = 3
"""Hosts in a pool without the Pool_size feature."""


@dataclasses.dataclass(frozen=True)
class Sides:
    """The two databases that the checks compare.

    :param local: the joiner's, the one that it serves before it joins.
    :param remote: the coordinator's.
    :param uuid: of the joiner.
    :param profile: the joiner's release: it is the one that checks.
    """

    local: database.Database
    remote: database.Database
    uuid: str
    profile: profiles.Profile = profiles.CURRENT

    @property
    def me(self) -> str:
        """The joiner's reference in its own database."""
        return self.local.by_uuid('host', self.uuid)

    @property
    def my_host(self) -> Record:
        """The joiner's own record."""
        return self.local.get('host', self.me)

    @property
    def my_pool(self) -> Record:
        """The joiner's pool of one."""
        return only_pool(self.local)

    @property
    def pool(self) -> Record:
        """The pool to join."""
        return only_pool(self.remote)

    @property
    def coordinator(self) -> str:
        """The coordinator's reference in its database."""
        return str(self.pool['master'])

    @property
    def coordinator_host(self) -> Record:
        """The coordinator's record."""
        return self.remote.get('host', self.coordinator)

    @property
    def my_management(self) -> Record:
        """The joiner's management interface."""
        return management_pif(self.local, self.me)

    @property
    def pool_management(self) -> Record:
        """The coordinator's management interface."""
        return management_pif(self.remote, self.coordinator)


def only_pool(db: database.Database) -> Record:
    """Return the pool record of ``db``."""
    pools = db.all('pool')
    if not pools:
        raise errors.internal_error('Remote host does not belong to a pool.')
    return next(iter(pools.values()))


def management_pif(db: database.Database, host: str) -> Record:
    """Return the management interface of ``host``.

    :raises ApiError: INTERNAL_ERROR Not_found without one.
    """
    for pif in db.all('PIF').values():
        if pif['management'] and pif['host'] == host:
            return pif
    raise errors.internal_error('Not_found')


def feature(pool: Record, restriction: str) -> bool:
    """Tell whether a licence allows what ``restrict_*`` would forbid.

    A restriction that is not listed counts as forbidden (features.ml).
    """
    return bool(pool['restrictions'].get(restriction) == 'false')


def pool_size_unrestricted(sides: Sides) -> None:
    """The licence must allow one more host."""
    if feature(sides.my_pool, 'restrict_pool_size'):
        return
    if len(sides.remote.all('host')) >= RESTRICTED_POOL_SIZE:
        raise errors.ApiError('LICENCE_RESTRICTION', 'Pool_size')


def management_interface_exists(sides: Sides) -> None:
    """The joiner's first boot must be over."""
    pifs = sides.local.all('PIF').values()
    if not any(p['management'] and p['host'] == sides.me for p in pifs):
        raise errors.ApiError('HOST_STILL_BOOTING')


def ha_off_on_me(sides: Sides) -> None:
    """The joiner must not have HA."""
    if sides.my_pool['ha_enabled']:
        raise errors.ApiError('HA_IS_ENABLED')


def clustering_off_on_me(sides: Sides) -> None:
    """The joiner must not be in a cluster."""
    for ref, record in sides.local.all('Cluster_host').items():
        if record['host'] == sides.me and record['enabled']:
            raise errors.ApiError('CLUSTERING_ENABLED', ref)


def one_ip_on_cluster_network(sides: Sides) -> None:
    """The joiner needs one address where the pool's cluster talks."""
    remote = sides.remote
    for cluster_host in remote.all('Cluster_host').values():
        cluster = remote.get('Cluster', cluster_host['cluster'])
        if cluster['pool_auto_join'] and cluster_host['PIF'] != errors.NULL:
            _check_cluster_pif(sides, cluster_host['PIF'])
        return


def _check_cluster_pif(sides: Sides, ref: str) -> None:
    pif = sides.remote.get('PIF', ref)
    if pif['VLAN'] > 0 and not pif['management']:
        raise errors.ApiError(
            'POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK',
            str(pif['VLAN']),
        )
    bridges = _cluster_bridges(sides.remote, ref, pif)
    local = sides.local
    mine = [
        p
        for p in local.all('PIF').values()
        if p['host'] == sides.me
        and p['IP']
        and local.get('network', p['network'])['bridge'] in bridges
    ]
    if len(mine) != 1:
        raise errors.ApiError(
            'POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK'
        )


def _cluster_bridges(
    remote: database.Database, ref: str, pif: Record
) -> set[str]:
    """Return the bridges under a cluster's interface, or its slaves."""
    pifs = [ref]
    if pif['bond_master_of']:
        bonds = [remote.get('Bond', bond) for bond in pif['bond_master_of']]
        pifs = [slave for bond in bonds for slave in bond['slaves']]
    networks = [remote.get('PIF', p)['network'] for p in pifs]
    return {remote.get('network', n)['bridge'] for n in networks}


def ha_off_on_pool(sides: Sides) -> None:
    """The pool must not have HA."""
    if sides.pool['ha_enabled']:
        raise errors.ApiError('HA_IS_ENABLED')


def not_joining_myself(sides: Sides) -> None:
    """The coordinator must be another host."""
    if sides.coordinator_host['uuid'] != sides.uuid:
        return
    if len(sides.local.all('host')) > 1:
        raise errors.operation_not_allowed('Host is already part of a pool')
    raise errors.operation_not_allowed('Host cannot become slave of itself')


def no_other_hosts(sides: Sides) -> None:
    """The joiner must be alone in its pool."""
    if len(sides.local.all('host')) > 1:
        raise errors.ApiError('JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS')


def is_domain_zero(db: database.Database, ref: str, vm: Record) -> bool:
    """Tell whether ``vm`` is the control domain that its host names."""
    hosts = db.all('host')
    host = hosts.get(vm['resident_on'])
    if not vm['is_control_domain'] or host is None:
        return False
    return bool(host['control_domain'] == ref)


def no_running_vms(sides: Sides) -> None:
    """No guest may run; suspended and paused ones pass."""
    for ref, vm in sides.local.all('VM').items():
        if vm['power_state'] != 'Running':
            continue
        if not is_domain_zero(sides.local, ref, vm):
            raise errors.ApiError('JOINING_HOST_CANNOT_HAVE_RUNNING_VMS')


def no_vm_operations(sides: Sides) -> None:
    """Nothing may be under way on any VM, templates and dom0 included."""
    for vm in sides.local.all('VM').values():
        if vm['current_operations']:
            raise errors.ApiError(
                'JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS'
            )


def no_pending_guidance(sides: Sides) -> None:
    """Neither the joiner nor the coordinator may owe a restart."""
    code = 'HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY'
    if sides.my_host['pending_guidances']:
        raise errors.ApiError(code, sides.me)
    if sides.coordinator_host['pending_guidances']:
        raise errors.ApiError(code, sides.coordinator)


def compatibility_name(software: collections.abc.Mapping[str, str]) -> str:
    """Return what tells the makes apart: the brand, else the platform."""
    brand = software.get('product_brand', software.get('platform_name'))
    return '' if brand is None else str(brand)


def hosts_compatible(sides: Sides) -> None:
    """Platform and make must be the same, whatever force says."""
    mine = sides.my_host['software_version']
    master = sides.coordinator_host['software_version']
    if mine.get('platform_version') != master.get(
        'platform_version'
    ) or compatibility_name(mine) != compatibility_name(master):
        raise errors.ApiError('HOSTS_NOT_COMPATIBLE')


def hosts_homogeneous(sides: Sides) -> None:
    """Version and CPU vendor must be the same; force skips this."""
    mine = sides.my_host['software_version']
    master = sides.coordinator_host['software_version']
    if _build(sides.profile, mine) != _build(sides.profile, master):
        raise errors.ApiError(
            'HOSTS_NOT_HOMOGENEOUS', 'Software version differs'
        )
    my_vendor = sides.my_host['cpu_info'].get('vendor')
    pool_vendor = sides.pool['cpu_info'].get('vendor')
    if my_vendor is None or pool_vendor is None:
        raise errors.internal_error('Not_found')
    if my_vendor != pool_vendor:
        raise errors.ApiError('HOSTS_NOT_HOMOGENEOUS', 'CPUs differ')


def _build(
    profile: profiles.Profile, software: collections.abc.Mapping[str, str]
) -> tuple[str, str, str, bool]:
    return (
        software.get(profile.homogeneity_key, ''),
        compatibility_name(software),
        software.get('git_id', ''),
        'xs:linux' in software,
    )


def no_shared_srs(sides: Sides) -> None:
    """The joiner must not bring shared storage."""
    for sr in sides.local.all('SR').values():
        if sr['shared'] and not sr['is_tools_sr']:
            raise errors.ApiError('JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS')


def no_bonds(sides: Sides) -> None:
    """The joiner must not have bonds."""
    if sides.local.all('Bond'):
        raise errors.ApiError('POOL_JOINING_HOST_HAS_BONDS')


def no_tunnels(sides: Sides) -> None:
    """The joiner must not have tunnels."""
    if sides.local.all('tunnel'):
        raise errors.ApiError('POOL_JOINING_HOST_HAS_TUNNELS')


def no_network_sriovs(sides: Sides) -> None:
    """The joiner must not have SR-IOV networks."""
    if sides.local.all('network_sriov'):
        raise errors.ApiError('POOL_JOINING_HOST_HAS_NETWORK_SRIOVS')


def no_non_management_vlans(sides: Sides) -> None:
    """A VLAN is in the way unless its own interface is the management's."""
    for vlan in sides.local.all('VLAN').values():
        if not sides.local.get('PIF', vlan['untagged_PIF'])['management']:
            raise errors.ApiError('POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS')


def management_vlans_equal(sides: Sides) -> None:
    """Both sides' management must carry the same tag."""
    mine = sides.my_management['VLAN']
    theirs = sides.pool_management['VLAN']
    if mine != theirs:
        raise errors.ApiError(
            'POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH',
            str(mine),
            str(theirs),
        )


def external_auth_matches(sides: Sides) -> None:
    """Both sides must use the same directory."""
    mine, theirs = sides.my_host, sides.coordinator_host
    name = 'external_auth_service_name'
    if (
        mine['external_auth_type'] != theirs['external_auth_type']
        or mine[name].lower() != theirs[name].lower()
    ):
        raise errors.ApiError('POOL_JOINING_EXTERNAL_AUTH_MISMATCH')


def editions_match(sides: Sides) -> None:
    """The joiner's licence must rank as the pool's lowest does.

    The editions that the licence daemon knows are those that the joiner's
    record lists, the poorest first; without any there is no daemon.
    """
    mine = sides.my_host['edition']
    pool = [h['edition'] for h in sides.remote.all('host').values()]
    if all(edition == mine for edition in pool):
        return
    known = list(sides.my_host['editions'])
    if not known:
        raise errors.ApiError(
            'V6D_FAILURE',
            f'The pool uses v6d. Pool edition list = [{"; ".join(pool)}]',
        )
    lowest = min(pool, key=lambda edition: _rank(known, edition))
    if _rank(known, lowest) != _rank(known, mine):
        raise errors.ApiError(
            'LICENSE_HOST_POOL_MISMATCH',
            f'host edition = "{mine}"',
            f'pool edition = "{lowest}"',
        )


def _rank(known: list[str], edition: str) -> int:
    if edition not in known:
        raise errors.ApiError(
            'LICENSE_HOST_POOL_MISMATCH',
            f'Edition "{edition}" from pool is not known to v6d.',
        )
    return known.index(edition)


def vswitch_homogeneous(sides: Sides) -> None:
    """Both sides must switch packets alike, under the same controller.

    XAPI asks the joiner's network daemon; its record stands in for that.
    """
    mine = sides.my_host['software_version'].get('network_backend', 'bridge')
    software = sides.coordinator_host['software_version']
    if mine != software.get('network_backend', 'bridge'):
        raise errors.operation_not_allowed('Network backends differ')
    if mine != 'openvswitch':
        return
    controllers = list(sides.local.all('SDN_controller').values())
    theirs = list(sides.remote.all('SDN_controller').values())
    if not controllers:
        return
    same = bool(theirs) and all(
        controllers[0][field] == theirs[0][field]
        for field in ('protocol', 'address', 'port')
    )
    if not same:
        raise errors.operation_not_allowed('SDN controller differs')


def api_version_matches(sides: Sides) -> None:
    """Both sides must speak the same version of the API."""
    mine, theirs = (
        f'{host["API_version_major"]}.{host["API_version_minor"]}'
        for host in (sides.my_host, sides.coordinator_host)
    )
    if mine != theirs:
        raise errors.ApiError(
            'POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION', mine, theirs
        )


def db_schema_matches(sides: Sides) -> None:
    """Both sides must have the same, known, schema."""
    mine, theirs = (
        host['software_version'].get('db_schema', '')
        for host in (sides.my_host, sides.coordinator_host)
    )
    if not mine or not theirs or mine != theirs:
        raise errors.ApiError(
            'POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA', mine, theirs
        )


def updates_homogeneous(sides: Sides) -> None:
    """Updates that insist on it must be on both joiner and coordinator."""
    mine = _enforced(sides.local, sides.my_host)
    theirs = _enforced(sides.remote, sides.coordinator_host)
    if mine != theirs:
        raise errors.ApiError(
            'HOSTS_NOT_HOMOGENEOUS',
            f'Updates on local host {sides.my_host["name_label"]} and pool'
            f' host {sides.coordinator_host["name_label"]} differ',
        )


def _enforced(db: database.Database, host: Record) -> set[str]:
    updates = [db.get('pool_update', ref) for ref in host['updates']]
    return {u['uuid'] for u in updates if u['enforce_homogeneity']}


def address_types_match(sides: Sides) -> None:
    """Both managements must use IPv4, or both IPv6."""
    field = 'primary_address_type'
    if sides.my_management[field] != sides.pool_management[field]:
        raise errors.operation_not_allowed('Primary address type differs')


def network_purposes_compatible(sides: Sides) -> None:
    """NBD must be secure on both sides, or insecure on both."""
    mine, theirs = _nbd(sides.local), _nbd(sides.remote)
    if mine and theirs and mine != theirs:
        raise errors.operation_not_allowed(
            'Incompatible network purposes: nbd and insecure_nbd'
        )


def _nbd(db: database.Database) -> str | None:
    for network in db.all('network').values():
        for purpose in network['purpose']:
            if purpose in {'nbd', 'insecure_nbd'}:
                return str(purpose)
    return None


def tls_verification_matches(sides: Sides) -> None:
    """Both sides must verify certificates, or neither."""
    field = 'tls_verification_enabled'
    if sides.my_pool[field] != sides.pool[field]:
        raise errors.ApiError('POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH')


def legacy_certificates_compatible(sides: Sides) -> None:
    """A name must mean the same certificate on both sides."""
    mine, theirs = _named(sides.local), _named(sides.remote)
    clashes = [
        name for name in mine if theirs.get(name, mine[name]) != mine[name]
    ]
    if clashes:
        raise errors.ApiError(
            'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT',
            *sorted(clashes, reverse=True),
        )


def _named(db: database.Database) -> dict[str, str]:
    return {
        c['name']: c['fingerprint_sha256']
        for c in db.all('Certificate').values()
        if c['type'] == 'ca' and c['name']
    }


def trusted_certificates_compatible(sides: Sides) -> None:
    """A certificate's purposes must be the same, or have none in common."""
    mine, theirs = _unnamed(sides.local), _unnamed(sides.remote)
    for fingerprint in sorted(mine.keys() & theirs.keys()):
        my_ref, my_purposes = mine[fingerprint]
        their_ref, their_purposes = theirs[fingerprint]
        if my_purposes != their_purposes and my_purposes & their_purposes:
            raise errors.ApiError(
                'POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT',
                their_ref,
                my_ref,
            )


def _unnamed(db: database.Database) -> dict[str, tuple[str, set[str]]]:
    return {
        c['fingerprint_sha256']: (ref, set(c['purpose']))
        for ref, c in db.all('Certificate').items()
        if c['type'] in {'ca', 'pinned'} and not c['name']
    }


def _not_updating(pool: Record) -> None:
    if 'apply_updates' in pool['current_operations'].values():
        raise errors.ApiError('NOT_SUPPORTED_DURING_UPGRADE')


def not_updating_me(sides: Sides) -> None:
    """No updates may be going on to the joiner."""
    _not_updating(sides.my_pool)


def not_updating_pool(sides: Sides) -> None:
    """No updates may be going on to the pool."""
    _not_updating(sides.pool)


def sm_features_compatible(sides: Sides) -> None:
    """The joiner must drive storage at least as well as the pool.

    The pool's drivers are visited one by one, each first for presence, then
    for features (recorded).
    """
    code = 'POOL_JOINING_SM_FEATURES_INCOMPATIBLE'
    for ref, driver in sides.remote.all('SM').items():
        mine = [
            (my_ref, mine)
            for my_ref, mine in sides.local.all('SM').items()
            if mine['type'] == driver['type']
        ]
        if len(mine) != 1:
            raise errors.ApiError(code, ref, '')
        my_ref, my_driver = mine[0]
        for name, version in driver['features'].items():
            if my_driver['features'].get(name, -1) < version:
                raise errors.ApiError(code, ref, my_ref)


Check = collections.abc.Callable[[Sides], None]

CHECKS: tuple[tuple[str, Check], ...] = (
    ('1', pool_size_unrestricted),
    ('2', management_interface_exists),
    ('3', ha_off_on_me),
    ('4', clustering_off_on_me),
    ('5', one_ip_on_cluster_network),
    ('6', ha_off_on_pool),
    ('7', not_joining_myself),
    ('8', no_other_hosts),
    ('9', no_running_vms),
    ('10', no_vm_operations),
    ('11', no_pending_guidance),
    ('12', hosts_compatible),
    ('13', hosts_homogeneous),
    ('14', no_shared_srs),
    ('15', no_bonds),
    ('16', no_tunnels),
    ('17', no_network_sriovs),
    ('18', no_non_management_vlans),
    ('19', management_vlans_equal),
    ('20', external_auth_matches),
    ('21', editions_match),
    ('22', vswitch_homogeneous),
    ('23', api_version_matches),
    ('24', db_schema_matches),
    ('25', updates_homogeneous),
    ('26', address_types_match),
    ('27', network_purposes_compatible),
    ('28', tls_verification_matches),
    ('29', legacy_certificates_compatible),
    ('30', trusted_certificates_compatible),
    ('31', not_updating_me),
    ('32', not_updating_pool),
    ('33', sm_features_compatible),
)
"""Identifier and function of every check, in the order of execution."""

SKIPPED_BY_FORCE = frozenset({'13'})
"""What pool.join_force does not check."""


def checks_of(
    profile: profiles.Profile, force: bool
) -> collections.abc.Iterator[Check]:
    """Yield the checks that a joiner of ``profile`` makes, in order."""
    for identifier, check in CHECKS:
        if force and identifier in SKIPPED_BY_FORCE:
            continue
        if identifier not in profile.unknown_checks:
            yield check


def run(
    sides: Sides,
    force: bool,
    pause: collections.abc.Callable[[], None] = lambda: None,
) -> None:
    """Make all checks.

    :param pause: called before each: what the check takes.
    :raises ApiError: the first refusal.
    """
    for check in checks_of(sides.profile, force):
        pause()
        check(sides)
