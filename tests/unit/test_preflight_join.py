# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Each rule of a join, broken alone."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from tests.unit import raw_pools
from xenpool_driver import exceptions, model, snapshot
from xenpool_driver.preflight import join, offline
from xenpool_driver.preflight.join import own_rules, xapi_rules
from xenpool_driver.xapi import records

Raw = raw_pools.Raw
only, host, add = raw_pools.only, raw_pools.host, raw_pools.add

Break = typing.Callable[[Raw, Raw], object]


def judge(joiner: Raw, pool: Raw, **options: typing.Any) -> model.Report:
    return join.check(
        raw_pools.parse(joiner), raw_pools.parse(pool), **options
    )


def of(report: model.Report, check: str) -> list[model.Finding]:
    return [f for f in report.findings if f.check == check]


def severities(report: model.Report, check: str) -> set[str]:
    return {finding.severity.value for finding in of(report, check)}


def set_version(raw: Raw, key: str, value: str | None) -> Raw:
    version = host(raw)[1]['software_version']
    version.pop(key, None)
    if value is not None:
        version[key] = value
    return raw


def add_member(raw: Raw, name: str, live: bool = True, **more: object) -> str:
    metrics = add(raw, 'host_metrics', name, live=live)
    _, pattern = host(raw)
    return add(
        raw,
        'host',
        name,
        **{
            **{k: v for k, v in pattern.items() if k != 'uuid'},
            'name_label': name,
            'hostname': name,
            'address': f"127.0.1.{len(raw['host'])}",
            'metrics': metrics,
            **more,
        },
    )


def add_cluster(raw: Raw, vlan: str, address: str = '') -> None:
    pif = raw_pools.only(raw, 'PIF')
    ref = add(
        raw,
        'PIF',
        'cluster',
        **{
            **{k: v for k, v in pif.items() if k != 'uuid'},
            'VLAN': vlan,
            'management': False,
            'IP': address,
            'device': 'eth1',
            'network': add(
                raw, 'network', 'cluster', bridge='xenbr1', MTU='1500'
            ),
        },
    )
    cluster = add(raw, 'Cluster', 'c', pool_auto_join=True)
    add(
        raw,
        'Cluster_host',
        'c',
        PIF=ref,
        cluster=cluster,
        host=host(raw)[0],
        enabled=True,
    )


def add_cert(raw: Raw, label: str, /, **fields: object) -> str:
    return add(
        raw,
        'Certificate',
        label,
        **{'type': 'ca', 'name': '', 'host': 'OpaqueRef:NULL', **fields},
    )


def add_link(raw: Raw, cls: str, **fields: str) -> None:
    pif = only(raw, 'PIF')
    ref = add(
        raw,
        'PIF',
        cls,
        **{
            **{k: v for k, v in pif.items() if k != 'uuid'},
            'device': 'eth0',
            'management': False,
            'physical': False,
            'VLAN': '10',
        },
    )
    add(raw, cls, 'one', **dict.fromkeys(fields.values(), ref))


RULES: dict[str, tuple[Break, tuple[str, ...]]] = {
    '7.1-1 no pooling': (
        lambda j, p: only(j, 'pool')['restrictions'].update(
            restrict_pooling='true'
        ),
        ('LICENCE_RESTRICTION',),
    ),
    '1 pool size': (
        lambda j, p: (
            only(j, 'pool')['restrictions'].update(restrict_pool_size='true'),
            add_member(p, 'two'),
            add_member(p, 'three'),
        ),
        ('LICENCE_RESTRICTION', 'Pool_size'),
    ),
    '2 no management': (
        lambda j, p: only(j, 'PIF').update(management=False),
        ('HOST_STILL_BOOTING',),
    ),
    '3 HA on the joiner': (
        lambda j, p: only(j, 'pool').update(ha_enabled=True),
        ('HA_IS_ENABLED',),
    ),
    '4 cluster on the joiner': (
        lambda j, p: add_cluster(j, '-1'),
        ('CLUSTERING_ENABLED', 'OpaqueRef:Cluster_host-c'),
    ),
    '5 cluster on a VLAN': (
        lambda j, p: add_cluster(p, '77'),
        (
            'POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK',
            '77',
        ),
    ),
    '5b no address for the cluster': (
        lambda j, p: add_cluster(p, '-1', '127.1.0.1'),
        ('POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK',),
    ),
    '6 HA in the pool': (
        lambda j, p: only(p, 'pool').update(ha_enabled=True),
        ('HA_IS_ENABLED',),
    ),
    '8 other hosts': (
        lambda j, p: add_member(j, 'other'),
        ('JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS',),
    ),
    '9 running VM': (
        lambda j, p: add(
            j, 'VM', 'web', power_state='Running', name_label='web'
        ),
        ('JOINING_HOST_CANNOT_HAVE_RUNNING_VMS',),
    ),
    '9 driver domain': (
        lambda j, p: add(
            j,
            'VM',
            'driver',
            power_state='Running',
            is_control_domain=True,
            resident_on=host(j)[0],
        ),
        ('JOINING_HOST_CANNOT_HAVE_RUNNING_VMS',),
    ),
    '10 busy template': (
        lambda j, p: add(
            j,
            'VM',
            'template',
            is_a_template=True,
            current_operations={'OpaqueRef:task': 'clone'},
        ),
        ('JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS',),
    ),
    '12 brand': (
        lambda j, p: set_version(p, 'product_brand', 'XCP-ng'),
        ('HOSTS_NOT_COMPATIBLE',),
    ),
    '13 git id': (
        lambda j, p: set_version(p, 'git_id', 'abc'),
        ('HOSTS_NOT_HOMOGENEOUS', 'Software version differs'),
    ),
    '13b no vendor': (
        lambda j, p: only(p, 'pool').update(cpu_info={}),
        ('INTERNAL_ERROR', 'Not_found'),
    ),
    '14 shared SR': (
        lambda j, p: raw_pools.add_sr(j, 'nfs', [], shared=True),
        ('JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS',),
    ),
    '15 bond': (
        lambda j, p: add_link(j, 'Bond', a='master'),
        ('POOL_JOINING_HOST_HAS_BONDS',),
    ),
    '16 tunnel': (
        lambda j, p: add_link(j, 'tunnel', a='access_PIF'),
        ('POOL_JOINING_HOST_HAS_TUNNELS',),
    ),
    '17 SR-IOV': (
        lambda j, p: add_link(j, 'network_sriov', a='logical_PIF'),
        ('POOL_JOINING_HOST_HAS_NETWORK_SRIOVS',),
    ),
    '18 VLAN': (
        lambda j, p: add_link(j, 'VLAN', a='untagged_PIF'),
        ('POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS',),
    ),
    '19 pool tagged': (
        lambda j, p: only(p, 'PIF').update(VLAN='42'),
        ('POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH', '-1', '42'),
    ),
    '19 pool without management': (
        lambda j, p: only(p, 'PIF').update(management=False),
        ('INTERNAL_ERROR', 'Not_found'),
    ),
    '20 directory': (
        lambda j, p: host(p)[1].update(external_auth_type='AD'),
        ('POOL_JOINING_EXTERNAL_AUTH_MISMATCH',),
    ),
    '21 unknown edition of the pool': (
        lambda j, p: (
            host(j)[1].update(edition='xcp-ng'),
            host(p)[1].update(edition='enterprise'),
        ),
        (
            'LICENSE_HOST_POOL_MISMATCH',
            'Edition "enterprise" from pool is not known to v6d.',
        ),
    ),
    '21 unknown edition of the joiner': (
        lambda j, p: (
            host(j)[1].update(edition='enterprise'),
            host(p)[1].update(edition='xcp-ng'),
        ),
        (
            'LICENSE_HOST_POOL_MISMATCH',
            'Edition "enterprise" from pool is not known to v6d.',
        ),
    ),
    '22 no backend means bridge': (
        lambda j, p: set_version(p, 'network_backend', None),
        ('OPERATION_NOT_ALLOWED', 'Network backends differ'),
    ),
    '22b SDN controller': (
        lambda j, p: add(j, 'SDN_controller', 'one', address='127.9.9.9'),
        ('OPERATION_NOT_ALLOWED', 'SDN controller differs'),
    ),
    '23 API major': (
        lambda j, p: host(j)[1].update(API_version_major='3'),
        ('POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION', '3.23', '2.23'),
    ),
    '24 no schema on either': (
        lambda j, p: (
            set_version(j, 'db_schema', None),
            set_version(p, 'db_schema', None),
        ),
        ('POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA', '', ''),
    ),
    '25 update of the pool': (
        lambda j, p: host(p)[1].update(
            updates=[add(p, 'pool_update', 'u', enforce_homogeneity=True)]
        ),
        (
            'HOSTS_NOT_HOMOGENEOUS',
            'Updates on local host xapi2 and pool host xapi1 differ',
        ),
    ),
    '26 address type': (
        lambda j, p: only(p, 'PIF').update(primary_address_type='IPv6'),
        ('OPERATION_NOT_ALLOWED', 'Primary address type differs'),
    ),
    '27 NBD': (
        lambda j, p: (
            add(j, 'network', 'n', purpose=['insecure_nbd'], bridge='xapi7'),
            add(p, 'network', 'n', purpose=['nbd'], bridge='xapi7'),
        ),
        (
            'OPERATION_NOT_ALLOWED',
            'Incompatible network purposes: nbd and insecure_nbd',
        ),
    ),
    '28 TLS off in the pool': (
        lambda j, p: only(p, 'pool').update(tls_verification_enabled=False),
        ('POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH',),
    ),
    '30 purposes overlap': (
        lambda j, p: (
            add_cert(
                j,
                't',
                type='pinned',
                fingerprint_sha256='AA',
                purpose=['licensing', 'ldaps'],
            ),
            add_cert(p, 'u', fingerprint_sha256='AA', purpose=['ldaps']),
        ),
        (
            'POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT',
            'OpaqueRef:Certificate-u',
            'OpaqueRef:Certificate-t',
        ),
    ),
    '33b features weaker': (
        lambda j, p: (
            add(j, 'SM', 'nfs', type='nfs', features={'VDI_CLONE': '1'}),
            add(p, 'SM', 'nfs', type='nfs', features={'VDI_CLONE': '2'}),
        ),
        (
            'POOL_JOINING_SM_FEATURES_INCOMPATIBLE',
            'OpaqueRef:SM-nfs',
            'OpaqueRef:SM-nfs',
        ),
    ),
    '33 two drivers of one type': (
        lambda j, p: (
            add(j, 'SM', 'a', type='nfs'),
            add(j, 'SM', 'b', type='nfs'),
            add(p, 'SM', 'c', type='nfs'),
        ),
        ('POOL_JOINING_SM_FEATURES_INCOMPATIBLE', 'OpaqueRef:SM-c', ''),
    ),
    'secret rotation': (
        lambda j, p: only(p, 'pool').update(is_psr_pending=True),
        ('POOL_SECRET_ROTATION_PENDING',),
    ),
}


@pytest.mark.parametrize('name', RULES)
def test_rule_broken_alone(name: str) -> None:
    joiner, pool = raw_pools.pair()
    spoil, expected = RULES[name]
    spoil(joiner, pool)
    report = judge(joiner, pool)
    assert report.first_refusal == expected
    predicting = [f for f in report.failures if f.predicts == expected]
    assert all(f.message and f.remedy for f in predicting)


ALLOWED: dict[str, Break] = {
    'nothing': lambda j, p: None,
    'a halted VM': lambda j, p: add(j, 'VM', 'web', power_state='Halted'),
    'the tools SR': lambda j, p: add(
        j, 'SR', 'tools', shared=True, is_tools_sr=True
    ),
    'an old tools SR': lambda j, p: add(
        j, 'SR', 't', shared=True, other_config={'xenserver_tools_sr': 'true'}
    ),
    'a VLAN that carries management': lambda j, p: add(
        j, 'VLAN', 'm', untagged_PIF=next(iter(j['PIF']))
    ),
    'service names differ in case': lambda j, p: (
        host(j)[1].update(
            external_auth_type='AD', external_auth_service_name='A.B'
        ),
        host(p)[1].update(
            external_auth_type='AD', external_auth_service_name='a.b'
        ),
    ),
    'an update without homogeneity': lambda j, p: host(j)[1].update(
        updates=[add(j, 'pool_update', 'u', enforce_homogeneity=False)]
    ),
    'an SDN controller of the pool only': lambda j, p: add(
        p, 'SDN_controller', 'one', address='127.9.9.9'
    ),
    'purposes apart': lambda j, p: (
        add_cert(j, 't', fingerprint_sha256='AA', purpose=['licensing']),
        add_cert(p, 'u', fingerprint_sha256='AA', purpose=['ldaps']),
    ),
    'purposes none against one': lambda j, p: (
        add_cert(j, 't', fingerprint_sha256='AA', purpose=[]),
        add_cert(p, 'u', fingerprint_sha256='AA', purpose=['ldaps']),
    ),
    'stronger drivers': lambda j, p: (
        add(j, 'SM', 'a', type='nfs', features={'A': '2', 'B': '1'}),
        add(p, 'SM', 'b', type='nfs', features={'A': '1'}),
    ),
    'licence of the pool': lambda j, p: only(p, 'pool')['restrictions'].update(
        restrict_pooling='true'
    ),
}


@pytest.mark.parametrize('name', ALLOWED)
def test_what_xapi_allows_is_not_refused(name: str) -> None:
    joiner, pool = raw_pools.pair()
    ALLOWED[name](joiner, pool)
    report = judge(joiner, pool)
    assert report.failures == ()
    assert report.first_refusal is None


def test_names_of_checks_are_unique() -> None:
    names = [check.name for check in join.CHECKS]
    assert len(names) == len(set(names))
    assert all(check.rule for check in xapi_rules.CHECKS)
    assert not any(check.rule for check in own_rules.CHECKS)


def test_every_check_has_its_say() -> None:
    report = judge(*raw_pools.pair())
    assert [f.check for f in report.findings] == [c.name for c in join.CHECKS]


@pytest.mark.parametrize('check', join.CHECKS, ids=lambda check: check.name)
def test_unread_class_is_unknown_never_a_pass(check: typing.Any) -> None:
    for need in check.needs:
        joiner, pool = raw_pools.pair()
        side, _, cls = need.partition('.')
        raw = joiner if side == 'joiner' else pool
        if cls in ('Bond', 'VLAN', 'tunnel', 'network_sriov'):
            del raw['PIF']
        del raw[cls]
        whose = raw_pools.parse(
            raw, unreadable={cls: 'RBAC_PERMISSION_DENIED'}
        )
        other = raw_pools.parse(pool if raw is joiner else joiner)
        sides = (whose, other) if raw is joiner else (other, whose)
        (finding,) = of(join.check(*sides), check.name)
        assert finding.severity is model.Severity.UNKNOWN
        assert cls in finding.message or 'PIF' in finding.message


def test_force_turns_exactly_its_rules_into_warnings() -> None:
    joiner, pool = raw_pools.pair()
    set_version(joiner, 'xapi', '9.9')
    host(joiner)[1]['cpu_info']['vendor'] = 'AuthenticAMD'
    plain, forced = judge(joiner, pool), judge(joiner, pool, force=True)
    assert plain.first_refusal == (
        'HOSTS_NOT_HOMOGENEOUS',
        'Software version differs',
    )
    assert {f.check for f in plain.failures} == {'homogeneous', 'cpu-vendor'}
    assert all(f.force_passes for f in plain.failures)
    assert forced.failures == ()
    assert forced.first_refusal is None
    assert severities(forced, 'homogeneous') == {'warn'}
    for check in ('homogeneous', 'cpu-vendor'):
        (before,), (after,) = of(plain, check), of(forced, check)
        assert '--force' in before.remedy
        assert after.remedy and '--force' not in after.remedy


def _drop_newer_fields(joiner: Raw, pool: Raw) -> None:
    for raw in (joiner, pool):
        del only(raw, 'pool')['ext_auth_cache_enabled']
        del host(raw)[1]['ssh_enabled']
        del host(raw)[1]['last_software_update']


def _say_an_old_version(joiner: Raw, pool: Raw) -> None:
    for raw in (joiner, pool):
        set_version(raw, 'xapi_build', '1.249.41')


@pytest.mark.parametrize('spoil', [_drop_newer_fields, _say_an_old_version])
def test_old_servers_do_not_ask_what_they_never_learned(spoil: Break) -> None:
    joiner, pool = raw_pools.pair()
    spoil(joiner, pool)
    host(joiner)[1]['pending_guidances'] = ['reboot_host']
    add(pool, 'SM', 'nfs', type='nfs')
    add_cluster(pool, '77')
    set_version(joiner, 'xapi', '9.9')
    report = judge(joiner, pool)
    assert report.first_refusal is None
    for check in ('joiner-guidances', 'storage-drivers', 'cluster-vlan'):
        assert severities(report, check) == {'warn'}
    assert severities(report, 'homogeneous') == {'pass'}


def test_one_code_with_two_causes_says_which() -> None:
    joiner, pool = raw_pools.pair()
    only(joiner, 'pool')['ha_enabled'] = True
    only(pool, 'pool')['ha_enabled'] = True
    messages = [
        f.message
        for f in judge(joiner, pool).failures
        if f.predicts == ('HA_IS_ENABLED',)
    ]
    assert messages == [
        'HA is enabled on the joiner xapi2',
        'HA is enabled on the pool xapi1',
    ]


def test_objects_at_fault_have_names_and_uuids() -> None:
    joiner, pool = raw_pools.pair()
    add(joiner, 'VM', 'web', power_state='Running', name_label='web 1')
    (finding,) = judge(joiner, pool).failures
    assert finding.objects == (model.ObjectRef('VM', 'uuid-VM-web', 'web 1'),)
    assert 'xe vm-shutdown uuid=uuid-VM-web' in finding.remedy
    assert finding.to_dict()['objects'] == [
        {'class': 'VM', 'uuid': 'uuid-VM-web', 'name': 'web 1'}
    ]


def test_dead_member_is_our_own_refusal() -> None:
    joiner, pool = raw_pools.pair()
    add_member(pool, 'dead', live=False)
    report = judge(joiner, pool)
    assert [f.check for f in report.failures] == ['members-live']
    assert report.first_refusal is None
    uuid = pool['host']['OpaqueRef:host-dead']['uuid']
    assert judge(joiner, pool, joining=[uuid]).failures == ()


def test_unreachable_member_is_our_own_refusal() -> None:
    joiner, pool = raw_pools.pair()
    add_member(pool, 'far')
    live = join.LiveFacts(unreachable={'uuid-host-far': 'timed out'})
    (finding,) = judge(joiner, pool, live=live).failures
    assert 'timed out' in finding.message


def test_members_that_nobody_knows_of_are_unknown() -> None:
    joiner, pool = raw_pools.pair()
    pool['host_metrics'].clear()
    assert severities(judge(joiner, pool), 'members-live') == {'unknown'}


def test_other_aggregate_owns_the_pool() -> None:
    joiner, pool = raw_pools.pair()
    only(pool, 'pool')['other_config'][model.OWNER_KEY] = 'theirs'
    ours = judge(joiner, pool, aggregate_uuid='theirs')
    assert ours.failures == ()
    (finding,) = judge(joiner, pool, aggregate_uuid='mine').failures
    assert finding.check == 'owner'
    assert 'theirs' in finding.message
    assert severities(judge(joiner, pool), 'owner') == {'warn'}


def test_sixty_four_hosts_and_no_more() -> None:
    joiner, pool = raw_pools.pair()
    for number in range(62):
        add_member(pool, f"n{number}", address=f"127.0.2.{number}")
    assert judge(joiner, pool).failures == ()
    add_member(pool, 'last')
    assert [f.check for f in judge(joiner, pool).failures] == ['pool-size']


def batch_of(
    joiner: Raw, *names: str, **fields: object
) -> list[snapshot.PoolSnapshot]:
    found: list[snapshot.PoolSnapshot] = []
    for name in names:
        raw, _ = raw_pools.pair()
        raw_host = host(raw)[1]
        raw_host.update(
            uuid=f"uuid-{name}", hostname=name, name_label=name, **fields
        )
        raw_host['address'] = f"127.0.3.{len(found) + 1}"
        found.append(raw_pools.parse(raw))
    return found


def test_batch_counts_against_the_licence() -> None:
    joiner, pool = raw_pools.pair()
    only(joiner, 'pool')['restrictions']['restrict_pool_size'] = 'true'
    assert judge(joiner, pool).failures == ()
    assert judge(joiner, pool, batch=batch_of(joiner, 'a')).failures == ()
    report = judge(joiner, pool, batch=batch_of(joiner, 'a', 'b'))
    assert [f.check for f in report.failures] == ['licence-pool-size']
    assert report.first_refusal is None


def test_same_host_twice_in_a_batch() -> None:
    joiner, pool = raw_pools.pair()
    report = judge(joiner, pool, batch=[raw_pools.parse(joiner)])
    assert 'duplicate-in-batch' in {f.check for f in report.failures}


def test_level_after_all_joins_counts() -> None:
    joiner, pool = raw_pools.pair()
    weak = {
        **host(joiner)[1]['cpu_info'],
        'features_hvm_host': '00000001-00000000-00000000-00000000',
    }
    report = judge(joiner, pool, batch=batch_of(joiner, 'weak', cpu_info=weak))
    assert severities(report, 'cpu-level') == {'pass'}
    host(joiner)[1]['cpu_info']['features_hvm_host'] = (
        'ffffffff-f6b83203-2991cbf5-00000123'
    )
    report = judge(joiner, pool)
    assert 'levelled down' in of(report, 'cpu-level')[0].message
    host(joiner)[1]['cpu_info'] = weak
    (finding,) = of(judge(joiner, pool), 'cpu-level')
    assert 'fewer processor features' in finding.message


def test_duplicates_are_found() -> None:
    joiner, pool = raw_pools.pair()
    me = host(joiner)[1]
    add_member(pool, 'twin', uuid=me['uuid'])
    assert 'duplicate-uuid' in {f.check for f in judge(joiner, pool).failures}
    joiner, pool = raw_pools.pair()
    me = host(joiner)[1]
    add_member(pool, 'left', live=False, uuid=me['uuid'], address='')
    report = judge(joiner, pool)
    assert report.failures == ()
    assert severities(report, 'duplicate-uuid') == {'warn'}
    joiner, pool = raw_pools.pair()
    host(pool)[1].update(
        hostname=host(joiner)[1]['hostname'],
        address=host(joiner)[1]['address'],
    )
    report = judge(joiner, pool)
    assert severities(report, 'duplicate-name') == {'warn'}
    assert [f.check for f in report.failures] == ['duplicate-address']


def test_a_copied_installation_is_no_member() -> None:
    """The host uuid of the master, or of a member, at another address."""
    joiner, pool = raw_pools.pair()
    host(joiner)[1]['uuid'] = host(pool)[1]['uuid']
    only(joiner, 'pool')['uuid'] = only(pool, 'pool')['uuid']
    report = judge(joiner, pool, host_uuid=host(joiner)[1]['uuid'])
    assert report.first_refusal == (
        'OPERATION_NOT_ALLOWED',
        'Host cannot become slave of itself',
    )
    assert any('copied installation' in f.message for f in report.failures)
    joiner, pool = raw_pools.pair()
    add_member(pool, 'twin', uuid=host(joiner)[1]['uuid'])
    [finding] = of(judge(joiner, pool), 'duplicate-uuid')
    assert 'copied installation' in finding.message
    assert finding.remedy.startswith('install anew ')


def test_an_equal_pool_uuid_is_no_membership() -> None:
    joiner, pool = raw_pools.pair()
    only(joiner, 'pool')['uuid'] = only(pool, 'pool')['uuid']
    report = judge(joiner, pool, host_uuid=host(joiner)[1]['uuid'])
    assert report.failures == ()
    assert severities(report, 'same-pool-uuid') == {'warn'}
    add_member(joiner, 'other')
    report = judge(joiner, pool, host_uuid=host(joiner)[1]['uuid'])
    assert report.first_refusal == (
        'JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS',
    )
    assert any(
        'another copy of this pool' in f.message for f in report.failures
    )


def test_an_older_installation_of_the_joiner() -> None:
    """One finding, though name and address are those of a dead member."""
    joiner, pool = raw_pools.pair()
    me = host(joiner)[1]
    add_member(
        pool,
        'old',
        live=False,
        address=me['address'],
        hostname=me['hostname'],
        name_label=me['name_label'],
    )
    report = judge(joiner, pool)
    assert [f.check for f in report.failures] == ['old-record']
    assert severities(report, 'duplicate-name') == {'pass'}
    assert 'xe host-forget uuid=' in report.failures[0].remedy


@pytest.mark.parametrize('name', ['', 'oldname'])
def test_an_older_installation_that_is_taken_for_alive(name: str) -> None:
    """For ten minutes it is. From records alone nobody can tell, so neither
    another name nor another address is advised."""
    joiner, pool = raw_pools.pair()
    me = host(joiner)[1]
    add_member(
        pool,
        'old',
        live=True,
        address=me['address'],
        hostname=name or me['hostname'],
        name_label=name or me['name_label'],
        iscsi_iqn=me.get('iscsi_iqn', ''),
        other_config=dict(me['other_config']),
    )

    report = judge(joiner, pool)
    asked = judge(joiner, pool, live=join.LiveFacts(unreachable={}))

    [finding] = [f for f in report.findings if f.severity.rank > 1]
    assert finding.check == 'old-record'
    assert 'takes' in finding.message
    assert 'for alive, as it does for ten minutes' in finding.message
    assert 'xe host-forget uuid=' in finding.remedy
    assert 'duplicate-address' in {f.check for f in asked.failures}


def test_clocks_are_compared() -> None:
    joiner, pool = map(raw_pools.parse, raw_pools.pair())
    assert severities(join.check(joiner, pool), 'clocks') == {'unknown'}
    ahead = dataclasses.replace(joiner, clock_offset=30.0)
    other = dataclasses.replace(pool, clock_offset=-0.5)
    (finding,) = of(join.check(ahead, other), 'clocks')
    assert finding.severity is model.Severity.WARN
    assert '30.5 s ahead of' in finding.message
    level = dataclasses.replace(joiner, clock_offset=0.5)
    assert severities(join.check(level, other), 'clocks') == {'pass'}


def test_live_facts_decide_what_records_cannot() -> None:
    joiner, pool = raw_pools.pair()
    refused = ('SESSION_AUTHENTICATION_FAILED', 'root', 'no')
    report = judge(joiner, pool, live=join.LiveFacts(pool_login=refused))
    assert report.first_refusal == refused
    fine = judge(
        joiner, pool, live=join.LiveFacts(pool_login=(), joiner_login=())
    )
    assert severities(fine, 'pool-login') == {'pass'}
    assert severities(fine, 'joiner-login') == {'pass'}


def test_editions_are_ranked_by_the_daemon() -> None:
    joiner, pool = raw_pools.pair()
    host(joiner)[1].update(edition='free', editions=['free', 'per-socket'])
    host(pool)[1].update(edition='per-socket')
    assert severities(judge(joiner, pool), 'licence-edition') == {'unknown'}
    ranked = join.LiveFacts(edition_orders={'free': 0, 'per-socket': 1})
    assert judge(joiner, pool, live=ranked).first_refusal == (
        'LICENSE_HOST_POOL_MISMATCH',
        'host edition = "free"',
        'pool edition = "per-socket"',
    )
    equal = join.LiveFacts(edition_orders={'free': 0, 'per-socket': 0})
    assert judge(joiner, pool, live=equal).failures == ()


def test_address_of_a_member_is_refused_as_xapi_refuses_it() -> None:
    joiner, pool = raw_pools.pair()
    ref = add_member(pool, 'member')
    report = judge(joiner, pool, address=pool['host'][ref]['address'])
    assert report.first_refusal == ('HOST_IS_SLAVE', host(pool)[1]['address'])


def test_another_host_answers_at_the_address() -> None:
    joiner, pool = raw_pools.pair()
    live = join.LiveFacts(answering_uuid='somebody')
    assert [f.check for f in judge(joiner, pool, live=live).failures] == [
        'pool-address'
    ]


def test_joining_itself() -> None:
    joiner, _ = raw_pools.pair()
    report = judge(joiner, joiner)
    assert report.first_refusal == (
        'OPERATION_NOT_ALLOWED',
        'Host cannot become slave of itself',
    )
    add_member(joiner, 'other')
    assert judge(joiner, joiner).first_refusal == (
        'OPERATION_NOT_ALLOWED',
        'Host is already part of a pool',
    )


def test_member_already_is_no_refusal() -> None:
    raw = raw_pools.three()
    uuid = host(raw, master=False)[1]['uuid']
    report = judge(raw, raw, host_uuid=uuid)
    assert report.worst is model.Severity.PASS
    assert 'already a member' in report.findings[0].message


def test_member_of_another_pool_is_refused() -> None:
    raw = raw_pools.three()
    _, pool = raw_pools.pair()
    uuid = host(raw, master=False)[1]['uuid']
    report = judge(raw, pool, host_uuid=uuid)
    assert report.first_refusal == ('HOST_IS_SLAVE', host(raw)[1]['address'])


def test_shared_storage_that_the_joiner_cannot_reach() -> None:
    joiner, pool = raw_pools.pair()
    raw_pools.add_sr(pool, 'nfs', [host(pool)[0]], shared=True)
    check = 'shared-storage-reachable'
    assert severities(judge(joiner, pool), check) == {'pass'}
    only(joiner, 'PIF')['netmask'] = '255.255.255.255'
    (finding,) = of(judge(joiner, pool), check)
    assert finding.severity is model.Severity.WARN
    assert 'nfs' in finding.message
    network = pool['network'][only(pool, 'PIF')['network']]
    assert network['name_label'] in finding.message
    only(pool, 'PBD')['device_config'] = {'SCSIid': '3600'}
    assert severities(judge(joiner, pool), check) == {'unknown'}


def test_wiring_is_compared() -> None:
    joiner, pool = raw_pools.pair()
    only(joiner, 'PIF')['MTU'] = '9000'
    only(joiner, 'PIF')['device'] = 'eth5'
    report = judge(joiner, pool)
    assert report.failures == ()
    assert severities(report, 'nic-names') == {'warn'}
    assert severities(report, 'mtu') == {'warn'}


def test_vlans_and_bonds_of_the_pool_need_their_nics() -> None:
    joiner, pool = raw_pools.pair()
    nic = only(pool, 'PIF')
    common = {k: v for k, v in nic.items() if k != 'uuid'}
    add(
        pool,
        'PIF',
        'v',
        **{
            **common,
            'device': 'eth7',
            'VLAN': '12',
            'physical': False,
            'management': False,
            'VLAN_master_of': 'OpaqueRef:VLAN-v',
        },
    )
    slave = add(
        pool,
        'PIF',
        's',
        **{**common, 'device': 'eth8', 'management': False},
    )
    add(pool, 'Bond', 'b', slaves=[slave])
    report = judge(joiner, pool)
    assert 'VLAN 12' in of(report, 'pool-vlans')[0].message
    assert 'eth8' in of(report, 'pool-bonds')[0].message


def test_certificates_that_end() -> None:
    joiner, pool = raw_pools.pair()
    for cert in joiner['Certificate'].values():
        cert['not_after'] = '20260101T00:00:00Z'
        cert['not_before'] = '20250101T00:00:00Z'
    report = judge(joiner, pool, now=1767225600.0 - 86400)
    assert of(report, 'certificate-dates')[0].message.endswith(' in 1 day')
    report = judge(joiner, pool, now=1767225601.0)
    assert 'has expired' in of(report, 'certificate-dates')[0].message


def test_certificates_are_judged_by_the_clocks_of_the_hosts() -> None:
    joiner, pool = raw_pools.pair()
    for raw in (joiner, pool):
        for cert in raw['Certificate'].values():
            cert['not_before'] = '20260101T00:00:00Z'
            cert['not_after'] = '20360101T00:00:00Z'
    early = 1767225600.0 - 86400  # by our clock; theirs is two days ahead
    report = join.check(
        raw_pools.parse(joiner, clock_offset=172800.0),
        raw_pools.parse(pool, clock_offset=172800.0),
        now=early,
    )
    assert severities(report, 'certificate-dates') == {'pass'}
    report = join.check(
        raw_pools.parse(joiner, clock_offset=0.0),
        raw_pools.parse(pool, clock_offset=172800.0),
        now=early,
    )
    name = host(joiner)[1]['name_label']
    found = of(report, 'certificate-dates')
    assert found
    for finding in found:
        assert f"of {name} is not valid yet" in finding.message


def test_operations_of_the_pool() -> None:
    joiner, pool = raw_pools.pair()
    operations = only(pool, 'pool')['current_operations']
    operations['OpaqueRef:t'] = 'eject'
    assert severities(judge(joiner, pool), 'pool-operations') == {'warn'}
    operations['OpaqueRef:t'] = 'designate_new_master'
    assert severities(judge(joiner, pool), 'pool-operations') == {'fail'}


def test_passthrough_and_packs_and_space() -> None:
    joiner, pool = raw_pools.pair()
    add(joiner, 'VM', 'gpu', other_config={'pci': '0/0000:04:00.0'})
    set_version(joiner, 'acme:driver', 'driver, version 1, build 2')
    sr = raw_pools.add_sr(joiner, 'full', [host(joiner)[0]])
    joiner['SR'][sr]['physical_utilisation'] = '999'
    host(joiner)[1]['enabled'] = False
    report = judge(joiner, pool)
    assert report.failures == ()
    for check in (
        'pci-passthrough',
        'supplemental-packs',
        'storage-space',
        'joiner-enabled',
    ):
        assert severities(report, check) == {'warn'}, check


def test_remedies_name_only_what_the_command_line_finds() -> None:
    """``select_vms`` leaves out control domains, templates and snapshots."""
    joiner, pool = raw_pools.pair()
    add(
        joiner,
        'VM',
        'driver',
        name_label='driver',
        power_state='Running',
        is_control_domain=True,
    )
    add(joiner, 'VM', 'vgpu', attached_PCIs=['OpaqueRef:pci'])
    for side in (joiner, pool):
        add(side, 'VM', 'mine', is_a_template=True)
        add(side, 'VM', 'old', is_a_template=True, is_a_snapshot=True)
    findings = judge(joiner, pool).findings
    told = {one.check: one.remedy for one in findings if one.message}
    remedies = ' '.join(told.values())
    assert 'vm-shutdown' not in remedies
    assert 'from inside, on their consoles: driver' in remedies
    assert 'param-key=pci' not in remedies
    assert 'vm-export' not in remedies
    assert 'xe template-export template-uuid=uuid-VM-mine file' in remedies
    assert (
        'xe snapshot-export-to-template snapshot-uuid=uuid-VM-old file'
        in remedies
    )


def test_a_left_over_domain_is_destroyed_through_the_aggregate() -> None:
    """XAPI's own command line destroys no control domain."""
    joiner, pool = raw_pools.pair()
    _, me = host(joiner)
    own = joiner['VM'][me['control_domain']]
    pool['VM']['OpaqueRef:left'] = {
        **own,
        'power_state': 'Halted',
        'resident_on': 'OpaqueRef:NULL',
    }
    parsed = raw_pools.parse(pool)
    for aggregate in ('', 'rack 1'):
        seen = parsed.called({}, aggregate) if aggregate else parsed
        report = join.check(raw_pools.parse(joiner), seen)
        [found] = of(report, 'left-over-domain')
        audit = f"aggregate audit {parsed.name} --fix"
        if aggregate:
            assert found.remedy == "xenpool aggregate audit 'rack 1' --fix"
        else:
            assert found.remedy.startswith(
                f"xenpool aggregate adopt {parsed.name} --from "
            )
            assert found.remedy.endswith(audit)


def test_a_recorded_address_that_is_old_is_written_down_anew() -> None:
    """``host-management-reconfigure`` does nothing with the interface that
    is the management already (``xapi_host.ml``)."""
    joiner, pool = raw_pools.pair()
    host(pool)[1]['address'] = '192.0.2.77'
    told = [
        one.remedy
        for one in judge(joiner, pool).findings
        if 'its management interface has' in one.message
    ]
    assert [remedy.partition(': ')[2] for remedy in told] == [
        'xe-toolstack-restart'
    ]


def test_offline_without_a_pool_knows_little_and_says_so() -> None:
    joiner, _ = raw_pools.pair()
    report = offline.judge(joiner, None, parse=records.snapshot)
    assert report.first_refusal is None
    assert report.failures == ()
    assert severities(report, 'pool-ha') == {'unknown'}
    assert severities(report, 'joiner-ha') == {'pass'}


@pytest.mark.parametrize('side', ['joiner', 'pool'])
@pytest.mark.parametrize(
    'wrong', [[], {'VM': {}}, {'pool': {}}, 'text', {'pool': {'r': {}}}]
)
def test_offline_names_the_side_that_is_malformed(
    side: str, wrong: object
) -> None:
    sides: dict[str, object] = dict(
        zip(('joiner', 'pool'), raw_pools.pair(), strict=True)
    )
    sides[side] = wrong
    with pytest.raises(
        exceptions.ConfigurationError, match=f"records of the {side}"
    ):
        offline.judge(sides['joiner'], sides['pool'], parse=records.snapshot)


def test_offline_needs_the_hosts() -> None:
    joiner, pool = raw_pools.pair()
    del joiner['host']
    with pytest.raises(exceptions.ConfigurationError, match='class host'):
        offline.judge(joiner, pool, parse=records.snapshot)
