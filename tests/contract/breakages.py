# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What can be wrong between a host and the pool that it shall join.

Each breakage spoils one thing in the databases of two simulated hosts, so
that exactly one of XAPI's rules for joins is broken.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import random
import typing

from tests.contract import sides

Side = sides.Side

Break = collections.abc.Callable[[Side, Side, random.Random], object]


@dataclasses.dataclass(frozen=True)
class Breakage:
    """One thing that is wrong.

    :ivar code: what a join is refused with when nothing else is wrong.
    :ivar spoil: brings it about, on (joiner, pool, random).
    :ivar unasked: profiles, by name, whose joiners do not mind.
    """

    code: str
    spoil: Break
    unasked: frozenset[str] = frozenset()


OLD = frozenset({'xcp-ng-8.2'})
MIDDLE = frozenset({'xcp-ng-8.2', 'xcp-ng-8.3', 'xenserver-8'})


def _bond(side: Side) -> typing.Any:
    slave = side.add_pif('eth5')
    master = side.add_pif('bond0', physical=False)
    side.db.create(
        'Bond', {'master': master, 'primary_slave': slave, 'slaves': [slave]}
    )
    for ref, bond in side.db.all('Bond').items():
        side.db.set('PIF', bond['primary_slave'], bond_slave_of=ref)


def _vlan(side: Side, over: str, untagged: str, tag: int) -> typing.Any:
    vlan = side.db.create(
        'VLAN', {'tagged_PIF': over, 'untagged_PIF': untagged, 'tag': tag}
    )
    side.db.set('PIF', untagged, VLAN_master_of=vlan)


def _plain_vlan(side: Side, rng: random.Random) -> typing.Any:
    tag = rng.randrange(1, 4095)
    own = side.add_pif('eth0', VLAN=tag, physical=False)
    _vlan(side, side.management, own, tag)


def _management_vlan(side: Side, rng: random.Random) -> typing.Any:
    """The management itself is on a VLAN: allowed when the pool's is too."""
    tag = rng.randrange(1, 4095)
    card = side.add_pif('eth6')
    _vlan(side, card, side.management, tag)
    side.set_pif(VLAN=tag, physical=False)


def _tunnel(side: Side) -> typing.Any:
    access = side.add_pif('tunnel0', physical=False)
    side.db.create(
        'tunnel', {'access_PIF': access, 'transport_PIF': side.management}
    )


def _sriov(side: Side) -> typing.Any:
    logical = side.add_pif('eth4', physical=False)
    side.db.create(
        'network_sriov',
        {'physical_PIF': side.management, 'logical_PIF': logical},
    )


def _sdn(side: Side, address: str) -> typing.Any:
    side.db.create(
        'SDN_controller',
        {'protocol': 'ssl', 'address': address, 'port': 6632},
    )


def _purposes(joiner: Side, pool: Side) -> typing.Any:
    for side, purpose in ((joiner, 'nbd'), (pool, 'insecure_nbd')):
        side.db.set('network', side.db.refs('network')[0], purpose=[purpose])


def _members(pool: Side, count: int) -> typing.Any:
    while len(pool.db.refs('host')) < count:
        pool.add_host(f"member{len(pool.db.refs('host'))}")


def _editions(mine: str, theirs: str) -> Break:
    def spoil(joiner: Side, pool: Side, rng: random.Random) -> None:
        joiner.set_host(
            edition=mine, editions=['free', 'per-socket', 'premium']
        )
        for host in pool.db.refs('host'):
            pool.db.set('host', host, edition=theirs)

    return spoil


def _lowest_edition(
    joiner: Side, pool: Side, rng: random.Random
) -> typing.Any:
    """The pool has a better licence, but for one of its hosts."""
    _editions('premium', 'premium')(joiner, pool, rng)
    pool.db.set('host', pool.add_host('poor'), edition='free')


def _certificates(joiner: Side, pool: Side, names: int) -> typing.Any:
    for number in range(names):
        joiner.add_certificate(f"ca{number}.pem", f"AA:{number}")
        pool.add_certificate(f"ca{number}.pem", f"BB:{number}")


def _vendor(side: Side, vendor: str | None) -> typing.Any:
    info = {**side.record['cpu_info'], 'vendor': vendor}
    side.set_host(cpu_info={k: v for k, v in info.items() if v is not None})


def _no_tls(joiner: Side, pool: Side) -> typing.Any:
    joiner.set_pool(tls_verification_enabled=False)
    pool.set_pool(tls_verification_enabled=False)


def _two_drivers(joiner: Side, pool: Side) -> typing.Any:
    pool.add_driver('raw', {})
    joiner.add_driver('raw', {})
    joiner.add_driver('raw', {})


def _weak_driver(joiner: Side, pool: Side) -> typing.Any:
    pool.add_driver('gfs2', {'VDI_CREATE': 1, 'VDI_SNAPSHOT': 2})
    joiner.add_driver('gfs2', {'VDI_CREATE': 1, 'VDI_SNAPSHOT': 1})


def _platforms(joiner: Side, pool: Side) -> typing.Any:
    joiner.version(product_brand=None, platform_name='XCP')
    pool.version(product_brand=None, platform_name='other')


def _purpose_clash(joiner: Side, pool: Side) -> typing.Any:
    joiner.add_certificate('', 'CC:1', 'licensing', 'ldaps')
    pool.add_certificate('', 'CC:1', 'ldaps')


def _two_addresses(joiner: Side, pool: Side) -> typing.Any:
    pool.add_cluster(IP='127.9.1.1')
    bridge = 'br-eth8'
    for device in ('eth10', 'eth11'):
        pif = joiner.add_pif(device, IP=f"127.9.1.{device[3:]}")
        network = joiner.db.get('PIF', pif)['network']
        joiner.db.set('network', network, bridge=bridge)


def _is_busy(side: Side, vm: str) -> typing.Any:
    side.db.set('VM', vm, current_operations={'OpaqueRef:task': 'clone'})


_B = Breakage

BREAKAGES: dict[str, Breakage] = {
    '7.1 the licence restricts pooling': _B(
        'LICENCE_RESTRICTION',
        lambda j, p, r: j.licence('restrict_pooling', 'true'),
    ),
    '7.1 the licence does not tell of pooling': _B(
        'LICENCE_RESTRICTION',
        lambda j, p, r: j.licence('restrict_pooling', None),
    ),
    '1 pool size': _B(
        'LICENCE_RESTRICTION',
        lambda j, p, r: (
            j.licence('restrict_pool_size', 'true'),
            _members(p, 3),
        ),
    ),
    '2 no management': _B(
        'HOST_STILL_BOOTING', lambda j, p, r: j.set_pif(management=False)
    ),
    '3 HA on the joiner': _B(
        'HA_IS_ENABLED', lambda j, p, r: j.set_pool(ha_enabled=True)
    ),
    '4 cluster on the joiner': _B(
        'CLUSTERING_ENABLED', lambda j, p, r: j.add_cluster(IP='127.9.1.1')
    ),
    '5 cluster on a VLAN': _B(
        'POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK',
        lambda j, p, r: p.add_cluster(VLAN=r.randrange(1, 4095)),
        OLD,
    ),
    '5b no address for the cluster': _B(
        'POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK',
        lambda j, p, r: p.add_cluster(IP='127.9.1.1'),
        OLD,
    ),
    '5b two addresses for the cluster': _B(
        'POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK',
        lambda j, p, r: _two_addresses(j, p),
        OLD,
    ),
    '6 HA in the pool': _B(
        'HA_IS_ENABLED', lambda j, p, r: p.set_pool(ha_enabled=True)
    ),
    '8 other hosts': _B(
        'JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS',
        lambda j, p, r: j.add_host('other'),
    ),
    '9 a running guest': _B(
        'JOINING_HOST_CANNOT_HAVE_RUNNING_VMS',
        lambda j, p, r: j.add_guest('Running'),
    ),
    '9 a driver domain': _B(
        'JOINING_HOST_CANNOT_HAVE_RUNNING_VMS',
        lambda j, p, r: j.add_guest('Running', is_control_domain=True),
    ),
    '10 a busy template': _B(
        'JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS',
        lambda j, p, r: _is_busy(j, j.add_guest('Halted', is_a_template=True)),
    ),
    '10 a busy control domain': _B(
        'JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS',
        lambda j, p, r: _is_busy(j, j.control_domain()),
    ),
    '11 guidance on the joiner': _B(
        'HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY',
        lambda j, p, r: j.set_host(pending_guidances=['reboot_host']),
        OLD,
    ),
    '11b guidance on the coordinator': _B(
        'HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY',
        lambda j, p, r: p.set_host(pending_guidances=['restart_toolstack']),
        OLD,
    ),
    '12 platform version': _B(
        'HOSTS_NOT_COMPATIBLE',
        lambda j, p, r: p.version(platform_version='9.9.9'),
    ),
    '12 brand': _B(
        'HOSTS_NOT_COMPATIBLE',
        lambda j, p, r: p.version(product_brand='another'),
    ),
    '12 no brand, platforms differ': _B(
        'HOSTS_NOT_COMPATIBLE', lambda j, p, r: _platforms(j, p)
    ),
    '13 xapi': _B(
        'HOSTS_NOT_HOMOGENEOUS', lambda j, p, r: p.version(xapi='99.9'), OLD
    ),
    '13 git id': _B(
        'HOSTS_NOT_HOMOGENEOUS', lambda j, p, r: j.version(git_id='abc')
    ),
    '13 linux pack': _B(
        'HOSTS_NOT_HOMOGENEOUS',
        lambda j, p, r: j.version(**{'xs:linux': 'installed'}),
    ),
    '13b vendor': _B(
        'HOSTS_NOT_HOMOGENEOUS', lambda j, p, r: _vendor(j, 'AuthenticAMD')
    ),
    '13b no vendor': _B('INTERNAL_ERROR', lambda j, p, r: _vendor(j, None)),
    '13b no vendor of the pool': _B(
        'INTERNAL_ERROR', lambda j, p, r: p.set_pool(cpu_info={})
    ),
    '14 shared storage': _B(
        'JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS',
        lambda j, p, r: j.db.create(
            'SR', {'name_label': 'nfs', 'type': 'nfs', 'shared': True}
        ),
    ),
    '15 bond': _B('POOL_JOINING_HOST_HAS_BONDS', lambda j, p, r: _bond(j)),
    '16 tunnel': _B(
        'POOL_JOINING_HOST_HAS_TUNNELS', lambda j, p, r: _tunnel(j)
    ),
    '17 SR-IOV': _B(
        'POOL_JOINING_HOST_HAS_NETWORK_SRIOVS', lambda j, p, r: _sriov(j)
    ),
    '18 VLAN': _B(
        'POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS',
        lambda j, p, r: _plain_vlan(j, r),
    ),
    '19 the joiner is tagged': _B(
        'POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH',
        lambda j, p, r: _management_vlan(j, r),
    ),
    '19 the pool is tagged': _B(
        'POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH',
        lambda j, p, r: _management_vlan(p, r),
    ),
    '19 the pool has no management': _B(
        'INTERNAL_ERROR', lambda j, p, r: p.set_pif(management=False)
    ),
    '20 directory': _B(
        'POOL_JOINING_EXTERNAL_AUTH_MISMATCH',
        lambda j, p, r: p.set_host(
            external_auth_type='AD', external_auth_service_name='a.example'
        ),
    ),
    '20 service of the directory': _B(
        'POOL_JOINING_EXTERNAL_AUTH_MISMATCH',
        lambda j, p, r: [
            side.set_host(
                external_auth_type='AD', external_auth_service_name=name
            )
            for side, name in ((j, 'a.example'), (p, 'b.example'))
        ],
    ),
    '21 a poorer edition': _B(
        'LICENSE_HOST_POOL_MISMATCH', _editions('free', 'premium')
    ),
    '21 a better edition': _B(
        'LICENSE_HOST_POOL_MISMATCH', _editions('premium', 'free')
    ),
    '21 the poorest of the pool counts': _B(
        'LICENSE_HOST_POOL_MISMATCH', _lowest_edition
    ),
    '21 an unknown edition of the pool': _B(
        'LICENSE_HOST_POOL_MISMATCH', _editions('free', 'strange')
    ),
    '21 an unknown edition of the joiner': _B(
        'LICENSE_HOST_POOL_MISMATCH', _editions('strange', 'free')
    ),
    '22 backend': _B(
        'OPERATION_NOT_ALLOWED',
        lambda j, p, r: p.version(network_backend='bridge'),
    ),
    '22 no backend means bridge': _B(
        'OPERATION_NOT_ALLOWED',
        lambda j, p, r: j.version(network_backend=None),
    ),
    '22b an SDN controller': _B(
        'OPERATION_NOT_ALLOWED', lambda j, p, r: _sdn(j, '127.9.2.1')
    ),
    '22b another SDN controller': _B(
        'OPERATION_NOT_ALLOWED',
        lambda j, p, r: (_sdn(j, '127.9.2.1'), _sdn(p, '127.9.2.2')),
    ),
    '23 API version': _B(
        'POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION',
        lambda j, p, r: j.set_host(API_version_minor=99),
    ),
    '24 schema': _B(
        'POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA',
        lambda j, p, r: p.version(db_schema='5.1'),
    ),
    '24 no schema': _B(
        'POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA',
        lambda j, p, r: (j.version(db_schema=None), p.version(db_schema=None)),
    ),
    '25 an update of the joiner': _B(
        'HOSTS_NOT_HOMOGENEOUS', lambda j, p, r: j.add_update('hotfix')
    ),
    '25 an update of the coordinator': _B(
        'HOSTS_NOT_HOMOGENEOUS', lambda j, p, r: p.add_update('hotfix')
    ),
    '26 address type': _B(
        'OPERATION_NOT_ALLOWED',
        lambda j, p, r: p.set_pif(primary_address_type='IPv6'),
    ),
    '27 purposes of networks': _B(
        'OPERATION_NOT_ALLOWED', lambda j, p, r: _purposes(j, p)
    ),
    '28 TLS off on the joiner': _B(
        'POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH',
        lambda j, p, r: (
            j.set_pool(tls_verification_enabled=False),
            p.set_pool(tls_verification_enabled=True),
        ),
        OLD,
    ),
    '28 TLS off in the pool': _B(
        'POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH',
        lambda j, p, r: (
            j.set_pool(tls_verification_enabled=True),
            p.set_pool(tls_verification_enabled=False),
        ),
        OLD,
    ),
    '29 one name, two certificates': _B(
        'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT',
        lambda j, p, r: _certificates(j, p, 1),
        OLD,
    ),
    '29 three such names': _B(
        'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT',
        lambda j, p, r: _certificates(j, p, 3),
        OLD,
    ),
    '30 one certificate, overlapping purposes': _B(
        'POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT',
        lambda j, p, r: _purpose_clash(j, p),
        MIDDLE,
    ),
    '31 updates on the joiner': _B(
        'NOT_SUPPORTED_DURING_UPGRADE',
        lambda j, p, r: j.busy('apply_updates'),
        OLD,
    ),
    '32 updates in the pool': _B(
        'NOT_SUPPORTED_DURING_UPGRADE',
        lambda j, p, r: p.busy('apply_updates'),
        OLD,
    ),
    '33 a driver is missing': _B(
        'POOL_JOINING_SM_FEATURES_INCOMPATIBLE',
        lambda j, p, r: j.drop_driver(r),
        OLD,
    ),
    '33 two drivers of one type': _B(
        'POOL_JOINING_SM_FEATURES_INCOMPATIBLE',
        lambda j, p, r: _two_drivers(j, p),
        OLD,
    ),
    '33b a weaker driver': _B(
        'POOL_JOINING_SM_FEATURES_INCOMPATIBLE',
        lambda j, p, r: _weak_driver(j, p),
        OLD,
    ),
    '7.3 the secret is being changed': _B(
        'POOL_SECRET_ROTATION_PENDING',
        lambda j, p, r: p.set_pool(is_psr_pending=True),
        OLD,
    ),
    '7.3 TLS verification was never enabled': _B(
        'POOL_JOINING_MASTER_CERTIFICATE_NOT_IN_POOL_BUNDLE',
        lambda j, p, r: _no_tls(j, p),
        MIDDLE,
    ),
}
"""What is wrong -> how. The number is that of the rule it breaks."""

HARMLESS: dict[str, Break] = {
    'a halted guest': lambda j, p, r: j.add_guest('Halted'),
    'a paused guest': lambda j, p, r: j.add_guest('Paused'),
    'a suspended guest': lambda j, p, r: j.add_guest('Suspended'),
    'a running guest in the pool': lambda j, p, r: p.add_guest('Running'),
    'a local SR': lambda j, p, r: j.db.create(
        'SR', {'name_label': 'more', 'type': 'ext'}
    ),
    'an update without homogeneity': lambda j, p, r: j.add_update('x', False),
    'a cluster that hosts do not join': lambda j, p, r: p.add_cluster(False),
    'service names that differ in case': lambda j, p, r: [
        side.set_host(external_auth_type='AD', external_auth_service_name=name)
        for side, name in ((j, 'A.example'), (p, 'a.EXAMPLE'))
    ],
    "an SDN controller of the pool's": lambda j, p, r: _sdn(p, '127.9.2.3'),
    'one certificate, other purposes': lambda j, p, r: (
        j.add_certificate('', 'DD:1', 'licensing'),
        p.add_certificate('', 'DD:1', 'ldaps'),
    ),
    'one certificate, purposes in another order': lambda j, p, r: (
        j.add_certificate('', 'EE:1', 'licensing', 'ldaps'),
        p.add_certificate('', 'EE:1', 'ldaps', 'licensing'),
    ),
    'the same named certificate': lambda j, p, r: (
        j.add_certificate('same.pem', 'FF:1'),
        p.add_certificate('same.pem', 'FF:1'),
    ),
    'a stronger driver': lambda j, p, r: (
        j.add_driver('smb', {'VDI_CREATE': 2, 'VDI_CLONE': 1}),
        p.add_driver('smb', {'VDI_CREATE': 1}),
    ),
    'a driver of its own': lambda j, p, r: j.add_driver('own', {}),
    'a licence that restricts the pool': lambda j, p, r: p.licence(
        'restrict_pooling', 'true'
    ),
    'one purpose on both sides': lambda j, p, r: [
        side.set('network', side.db.refs('network')[0], purpose=['nbd'])
        for side in (j, p)
    ],
    'a restricted pool of two': lambda j, p, r: (
        j.licence('restrict_pool_size', 'true')
        if len(p.db.refs('host')) < 3
        else None
    ),
}
"""What looks wrong, and is not for XAPI."""
