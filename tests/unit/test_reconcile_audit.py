# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit of an aggregate against its pool."""

from __future__ import annotations

import dataclasses
import types
import typing

import pytest

from tests.unit import raw_pools
from xenpool_driver import identity, model, reconcile, snapshot
from xenpool_driver.xapi import records

only, host, add = raw_pools.only, raw_pools.host, raw_pools.add

UUID = 'uuid-of-the-aggregate'

NULL = 'OpaqueRef:NULL'


def world() -> tuple[raw_pools.Raw, typing.Any, dict[str, str | None]]:
    """Return a pool, the aggregate that it is, and its members' views."""
    raw = raw_pools.three()
    pool = only(raw, 'pool')
    pool['name_label'] = 'prod'
    pool['other_config'][model.OWNER_KEY] = UUID
    names = {
        f"compute-{record['name_label']}": record['uuid']
        for record in raw['host'].values()
    }
    _, master = host(raw)
    leader = f"compute-{master['name_label']}"
    aggregate = types.SimpleNamespace(
        uuid=UUID,
        name='prod',
        hosts=list(names),
        metadata={
            **names,
            'hypervisor_pool': 'true',
            model.MASTER_KEY: leader,
            model.POOL_UUID_KEY: pool['uuid'],
        },
    )
    views: dict[str, str | None] = {
        name: '' if name == leader else master['address'] for name in names
    }
    return raw, aggregate, views


def audit(
    raw: raw_pools.Raw,
    aggregate: typing.Any,
    views: dict[str, str | None],
    **options: typing.Any,
) -> tuple[model.Finding, ...]:
    parsed = raw_pools.parse(raw, clock_offset=0.0)
    return reconcile.audit(
        reconcile.Declared.of(aggregate),
        parsed,
        answers(parsed, aggregate, views),
        **options,
    )


def answers(
    pool: snapshot.PoolSnapshot,
    aggregate: typing.Any,
    views: dict[str, str | None],
) -> dict[str, identity.Identified]:
    """Return who answers where members name these masters."""
    members = {
        name: aggregate.metadata[name]
        for name in aggregate.hosts
        if name in aggregate.metadata
    }
    uuid = pool.pool.uuid if pool.pool else ''
    known = identity.Known(pool_uuid=uuid, members=members, pool=pool)
    return {
        name: identity.tell(
            identity.Sighting(
                master=view,
                named='elsewhere' if view == '127.9.9.9' else '',
            ),
            known,
            name,
        )
        for name, view in views.items()
    }


def bad(
    found: tuple[model.Finding, ...],
) -> list[tuple[str, model.Severity]]:
    return [
        (f.check, f.severity)
        for f in found
        if f.severity is not model.Severity.PASS
    ]


def fixes(raw: raw_pools.Raw, aggregate: typing.Any) -> dict[str, typing.Any]:
    found = reconcile.find_fixes(
        reconcile.Declared.of(aggregate), raw_pools.parse(raw)
    )
    assert not (found.add_hosts or found.remove_hosts)
    return dict(found.metadata)


FAIL, WARN, UNKNOWN = (
    model.Severity.FAIL,
    model.Severity.WARN,
    model.Severity.UNKNOWN,
)


def test_pool_that_is_as_declared_passes() -> None:
    raw, aggregate, views = world()
    assert bad(audit(raw, aggregate, views)) == []
    assert fixes(raw, aggregate) == {}


def test_member_that_is_gone() -> None:
    raw, aggregate, views = world()
    ref, record = host(raw, master=False)
    del raw['host'][ref]
    raw['Certificate'] = {
        k: v for k, v in raw['Certificate'].items() if v['host'] != ref
    }
    (finding,) = [
        f for f in audit(raw, aggregate, views) if f.check == 'members'
    ]
    assert finding.severity is FAIL
    assert f"compute-{record['name_label']}" in finding.message
    assert 'xenpool aggregate' in finding.remedy


def test_member_that_nobody_declared() -> None:
    raw, aggregate, views = world()
    _, record = host(raw, master=False)
    name = f"compute-{record['name_label']}"
    aggregate.hosts.remove(name)
    del aggregate.metadata[name], views[name]
    assert bad(audit(raw, aggregate, views)) == [('members', FAIL)]
    joining = audit(raw, aggregate, views, joining=[record['uuid']])
    assert bad(joining) == []
    record['enabled'] = False
    raw['host_metrics'][record['metrics']]['live'] = False
    assert bad(audit(raw, aggregate, views)) == [('residue', WARN)]


def test_host_without_uuid() -> None:
    raw, aggregate, views = world()
    aggregate.hosts.append('late')
    assert bad(audit(raw, aggregate, views)) == [('members', FAIL)]


def test_master_has_moved() -> None:
    raw, aggregate, views = world()
    right = aggregate.metadata[model.MASTER_KEY]
    aggregate.metadata[model.MASTER_KEY] = 'compute-elsewhere'
    assert bad(audit(raw, aggregate, views)) == [('master', FAIL)]
    assert fixes(raw, aggregate) == {model.MASTER_KEY: right}


def test_pool_uuid_has_changed() -> None:
    raw, aggregate, views = world()
    aggregate.metadata[model.POOL_UUID_KEY] = 'old'
    assert bad(audit(raw, aggregate, views)) == [('pool-uuid', FAIL)]
    assert fixes(raw, aggregate) == {
        model.POOL_UUID_KEY: only(raw, 'pool')['uuid']
    }


def test_stamp() -> None:
    raw, aggregate, views = world()
    config = only(raw, 'pool')['other_config']
    del config[model.OWNER_KEY]
    assert bad(audit(raw, aggregate, views)) == [('owner', WARN)]
    config[model.OWNER_KEY] = 'somebody'
    assert bad(audit(raw, aggregate, views)) == [('owner', FAIL)]
    aggregate.metadata[model.MASTER_KEY] = 'wrong'
    assert fixes(raw, aggregate) == {}


def test_name() -> None:
    raw, aggregate, views = world()
    only(raw, 'pool')['name_label'] = 'other'
    assert bad(audit(raw, aggregate, views)) == [('name', WARN)]


def test_dead_and_disabled_members() -> None:
    raw, aggregate, views = world()
    _, record = host(raw, master=False)
    record['enabled'] = False
    assert bad(audit(raw, aggregate, views)) == [('live', WARN)]
    raw['host_metrics'][record['metrics']]['live'] = False
    assert bad(audit(raw, aggregate, views)) == [('live', FAIL)]
    del raw['host_metrics'][record['metrics']]
    assert bad(audit(raw, aggregate, views)) == [('live', UNKNOWN)]


@pytest.mark.parametrize(
    ('view', 'check'),
    [
        ('', 'member-views'),
        ('127.9.9.9', 'member-views'),
        (None, 'identity'),
    ],
)
def test_members_that_disagree(view: str | None, check: str) -> None:
    raw, aggregate, views = world()
    name = f"compute-{host(raw, master=False)[1]['name_label']}"
    views[name] = view
    found = audit(raw, aggregate, views)
    assert bad(found) == [(check, FAIL)]


def test_master_that_obeys_somebody_else() -> None:
    raw, aggregate, views = world()
    views[aggregate.metadata[model.MASTER_KEY]] = '127.9.9.9'
    assert bad(audit(raw, aggregate, views)) == [('member-views', FAIL)]


def test_versions_and_updates() -> None:
    raw, aggregate, views = world()
    _, record = host(raw, master=False)
    record['software_version']['platform_version'] = '3.3.0'
    assert bad(audit(raw, aggregate, views)) == [('versions', WARN)]
    record['software_version']['platform_version'] = '3.4.0'
    record['updates'] = [add(raw, 'pool_update', 'u', name_label='hotfix')]
    record['pending_guidances'] = ['reboot_host']
    assert bad(audit(raw, aggregate, views)) == [('updates', WARN)] * 2


def test_shared_storage() -> None:
    raw, aggregate, views = world()
    raw_pools.add_sr(raw, 'nfs', list(raw['host'])[:2], shared=True)
    assert bad(audit(raw, aggregate, views)) == [('shared-storage', WARN)]
    next(iter(raw['PBD'].values()))['currently_attached'] = False
    assert bad(audit(raw, aggregate, views)) == [('shared-storage', WARN)] * 2
    del raw['PBD']
    assert bad(audit(raw, aggregate, views)) == [
        ('shared-storage', UNKNOWN),
        ('local-storage', UNKNOWN),
        ('unconnected-storage', UNKNOWN),
        ('storage-roles', UNKNOWN),
    ]


def test_tls_and_ha() -> None:
    raw, aggregate, views = world()
    host(raw, master=False)[1]['tls_verification_enabled'] = False
    only(raw, 'pool').update(
        ha_enabled=True,
        ha_host_failures_to_tolerate='2',
        ha_plan_exists_for='1',
    )
    assert bad(audit(raw, aggregate, views)) == [('tls', WARN), ('ha', WARN)]


def test_clocks() -> None:
    raw, aggregate, views = world()
    declared = reconcile.Declared.of(aggregate)
    pool = raw_pools.parse(raw)
    names = list(aggregate.hosts)
    seen = answers(pool, aggregate, views)
    assert bad(reconcile.audit(declared, pool, seen)) == [('clocks', UNKNOWN)]
    ahead = dataclasses.replace(pool, clock_offset=9.0)
    (finding,) = [
        f
        for f in reconcile.audit(declared, ahead, seen)
        if f.check == 'clocks'
    ]
    assert 'this machine' in finding.message
    spread = {names[0]: -4.0, names[1]: 1.0, names[2]: None}
    found = audit(raw, aggregate, views, clocks=spread)
    assert [f.severity for f in found if f.check == 'clocks'][-1] is WARN


def test_certificates() -> None:
    raw, aggregate, views = world()
    cert = next(iter(raw['Certificate'].values()))
    cert['not_after'] = '20260101T00:00:00Z'
    end = 1767225600.0
    found = audit(raw, aggregate, views, now=end - 40 * 86400)
    assert bad(found) == []
    found = audit(raw, aggregate, views, now=end - 86400)
    assert bad(found) == [('certificates', WARN)]
    found = audit(raw, aggregate, views, now=end)
    assert bad(found) == [('certificates', FAIL)]
    cert['host'] = 'OpaqueRef:gone'
    assert bad(audit(raw, aggregate, views)) == [('residue', WARN)]


def test_unread_pool_is_unknown_everywhere() -> None:
    _, aggregate, views = world()
    found = reconcile.audit(
        reconcile.Declared.of(aggregate),
        records.snapshot({}, unreadable={'pool': 'RBAC', 'host': 'RBAC'}),
        {},
    )
    assert {f.severity for f in found} == {UNKNOWN}


SEEN = reconcile.Observation

SETTLED = {
    ('set-up', SEEN.SET_UP): ('succeeded', True),
    ('set-up', SEEN.HALF_SET_UP): ('failed', True),
    ('set-up', SEEN.NOT_SET_UP): ('undone', False),
    ('set-up', SEEN.UNKNOWN): ('failed', None),
    ('adopt', SEEN.SET_UP): ('succeeded', True),
    ('adopt', SEEN.HALF_SET_UP): ('failed', True),
    ('adopt', SEEN.NOT_SET_UP): ('undone', False),
    ('adopt', SEEN.UNKNOWN): ('failed', None),
    ('join', SEEN.JOINED): ('succeeded', True),
    ('join', SEEN.JOINING): ('failed', True),
    ('join', SEEN.STUCK): ('failed', True),
    ('join', SEEN.NOT_JOINED): ('undone', False),
    ('join', SEEN.UNCLAIMED): ('failed', False),
    ('join', SEEN.UNKNOWN): ('failed', True),
    ('eject', SEEN.EJECTED): ('succeeded', False),
    ('eject', SEEN.EJECTING): ('failed', True),
    ('eject', SEEN.LEAVING): ('failed', True),
    ('eject', SEEN.LEFT_BEHIND): ('failed', True),
    ('eject', SEEN.STILL_MEMBER): ('undone', True),
    ('eject', SEEN.UNKNOWN): ('failed', True),
    ('forget', SEEN.EJECTED): ('succeeded', False),
    ('forget', SEEN.STILL_MEMBER): ('undone', True),
    ('forget', SEEN.UNKNOWN): ('failed', True),
    ('clear', SEEN.CLEARED): ('succeeded', False),
    ('clear', SEEN.NOT_CLEARED): ('failed', True),
    ('clear', SEEN.UNKNOWN): ('failed', True),
    ('dismiss', SEEN.DISMISSED): ('succeeded', None),
    ('dismiss', SEEN.UNKNOWN): ('failed', None),
    ('release', SEEN.RELEASED): ('succeeded', None),
    ('release', SEEN.UNKNOWN): ('failed', None),
    ('stamp', SEEN.STAMPED): ('succeeded', None),
    ('stamp', SEEN.NOT_STAMPED): ('failed', None),
    ('stamp', SEEN.UNKNOWN): ('failed', None),
    ('destroy-domains', SEEN.DESTROYED): ('succeeded', None),
    ('destroy-domains', SEEN.NOT_DESTROYED): ('failed', None),
    ('destroy-domains', SEEN.UNKNOWN): ('failed', None),
    ('rename', SEEN.RENAMED): ('succeeded', None),
    ('rename', SEEN.NOT_RENAMED): ('failed', None),
    ('rename', SEEN.UNKNOWN): ('failed', None),
    ('set-master', SEEN.MOVED): ('succeeded', None),
    ('set-master', SEEN.MOVED_PARTLY): ('failed', None),
    ('set-master', SEEN.MOVING): ('failed', None),
    ('set-master', SEEN.NOT_MOVED): ('undone', None),
    ('set-master', SEEN.BROKEN): ('failed', None),
    ('set-master', SEEN.UNKNOWN): ('failed', None),
    ('promote', SEEN.MOVED): ('succeeded', None),
    ('promote', SEEN.MOVED_PARTLY): ('failed', None),
    ('promote', SEEN.MOVING): ('failed', None),
    ('promote', SEEN.NOT_MOVED): ('undone', None),
    ('promote', SEEN.BROKEN): ('failed', None),
    ('promote', SEEN.UNKNOWN): ('failed', None),
}
"""What is seen in the end -> the outcome, and whether the host is a member
afterwards (None: no business of the operation's, or not known)."""


def test_whatever_can_be_seen_is_settled() -> None:
    assert SETTLED.keys() == reconcile.SETTLEMENTS.keys()
    assert {seen for _, seen in SETTLED} == set(SEEN)


@pytest.mark.parametrize(
    ('kind', 'seen'),
    SETTLED,
    ids=[f"{kind}-{seen.name}" for kind, seen in SETTLED],
)
def test_what_is_seen_is_the_outcome(
    kind: str, seen: reconcile.Observation
) -> None:
    """Only what was asked for succeeds; all else has a reason."""
    found = reconcile.settle(kind, seen)
    assert (found.outcome, found.member) == SETTLED[kind, seen]
    assert bool(found.reason) == (found.outcome != 'succeeded')


def test_blindness_settles_every_kind_as_failed() -> None:
    kinds = {kind for kind, _ in reconcile.SETTLEMENTS}
    for kind in kinds:
        seen = reconcile.settle(kind, reconcile.Observation.UNKNOWN)
        assert seen.outcome == 'failed'
        goals = [
            s.outcome
            for (k, _), s in reconcile.SETTLEMENTS.items()
            if k == kind
        ]
        assert goals.count('succeeded') == 1


def test_observation_of_another_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        reconcile.settle('join', reconcile.Observation.EJECTED)


def test_default_storage_that_is_gone() -> None:
    raw, aggregate, views = world()
    pool = only(raw, 'pool')
    pool.update(default_SR='OpaqueRef:gone', suspend_image_SR='OpaqueRef:gone')
    (finding,) = [
        f for f in audit(raw, aggregate, views) if f.check == 'storage-roles'
    ]
    assert finding.severity is WARN
    assert 'the default SR and the SR for suspend images' in finding.message
    assert finding.remedy == (
        f"xe pool-param-set uuid={pool['uuid']} default-SR= suspend-image-SR="
    )
    raw_pools.add_sr(raw, 'nfs', list(raw['host']), shared=True)
    (finding,) = [
        f for f in audit(raw, aggregate, views) if f.check == 'storage-roles'
    ]
    assert 'default-SR=uuid-SR-nfs' in finding.remedy
    pool.update(default_SR='OpaqueRef:SR-nfs', suspend_image_SR=NULL)
    assert bad(audit(raw, aggregate, views)) == []


def test_local_storage_that_an_eject_left_unplugged() -> None:
    raw, aggregate, views = world()
    ref, record = host(raw, master=False)
    raw_pools.add_sr(raw, 'scratch', [ref])
    pbd = raw['PBD']['OpaqueRef:PBD-scratch-0']
    assert bad(audit(raw, aggregate, views)) == []
    pbd['currently_attached'] = False
    (finding,) = [
        f for f in audit(raw, aggregate, views) if f.check == 'local-storage'
    ]
    assert finding.severity is WARN
    assert 'scratch is not plugged on' in finding.message
    assert finding.remedy == f"xe pbd-plug uuid={pbd['uuid']}"
    joining = audit(raw, aggregate, views, joining=[record['uuid']])
    assert bad(joining) == []


def test_a_bond_that_a_member_did_not_make() -> None:
    raw, aggregate, views = world()
    raw.pop('Bond', None)  # an audit reads it off the interfaces
    nics = [
        next(pif for pif in raw['PIF'].values() if pif['host'] == ref)
        for ref in raw['host']
    ]
    for number, nic in enumerate(nics):
        second = {k: v for k, v in nic.items() if k != 'uuid'}
        second.update(device='eth1', management=False)
        add(raw, 'PIF', f"second-{number}", **second)
        nic['bond_slave_of'] = f"OpaqueRef:bond-{number}"
        bond = {**second, 'device': 'bond0', 'physical': False}
        raw['PIF'][f"OpaqueRef:PIF-second-{number}"]['bond_slave_of'] = (
            f"OpaqueRef:bond-{number}"
        )
        bond['network'] = 'OpaqueRef:bonded'
        bond['bond_master_of'] = [f"OpaqueRef:bond-{number}"]
        add(raw, 'PIF', f"bond-{number}", **bond)
    assert bad(audit(raw, aggregate, views)) == []
    ref, record = host(raw, master=False)
    for name, pif in list(raw['PIF'].items()):
        if pif['host'] == ref and pif['device'] == 'bond0':
            del raw['PIF'][name]
    (finding,) = [f for f in audit(raw, aggregate, views) if f.severity.rank]
    assert (finding.check, finding.severity) == ('bonds', WARN)
    assert "lacks bond0, the master's bond of eth0" in finding.message
    assert finding.remedy.endswith('xe-toolstack-restart')
    mine = [
        pif
        for pif in raw['PIF'].values()
        if pif['host'] == ref and pif['device'] in ('eth0', 'eth1')
    ]
    for pif in mine:
        pif.update(
            primary_address_type='IPv6',
            ip_configuration_mode='None',
            ipv6_configuration_mode='Static',
        )
    (other,) = [pif for pif in mine if not pif['management']]
    (finding,) = [f for f in audit(raw, aggregate, views) if f.severity.rank]
    assert finding.remedy.partition(': ')[2] == (
        f"xe pif-reconfigure-ipv6 uuid={other['uuid']} mode=none; "
        f"xe-toolstack-restart"
    )
    other.update(primary_address_type='IPv4', ipv6_configuration_mode='None')
    (finding,) = [f for f in audit(raw, aggregate, views) if f.severity.rank]
    assert finding.remedy.partition(': ')[2] == (
        f"xe pif-set-primary-address-type uuid={other['uuid']} "
        f"primary_address_type=IPv6; xe-toolstack-restart"
    )
    joining = audit(raw, aggregate, views, joining=[record['uuid']])
    assert bad(joining) == []


WHO = identity.Who

TOLD = {
    WHO.NOBODY: (FAIL, 'does not answer', 'switch on'),
    WHO.ANEW: (FAIL, 'was installed anew', '--forget --yes'),
    WHO.LEFT: (FAIL, 'serves a pool of its own', '--forget --yes'),
    WHO.LOST: (FAIL, 'has no record of it', 'audit prod --fix'),
    WHO.COPY: (FAIL, 'is a copy', 'switch off the copy'),
    WHO.RIVAL: (FAIL, 'second copy of this pool', 'emergency-reset-master'),
    WHO.STRANGER: (FAIL, 'which is another pool', 'correct connection_url'),
    WHO.STARTING: (WARN, 'answers HOST_STILL_BOOTING', 'wait a minute'),
    WHO.LOCKED: (FAIL, 'does not let us in', 'connection_password'),
}
"""Who answers at a member's address -> how bad, what is said, the remedy."""


@pytest.mark.parametrize('who', TOLD)
def test_who_is_no_member_is_told(who: identity.Who) -> None:
    raw, aggregate, views = world()
    pool = raw_pools.parse(raw, clock_offset=0.0)
    seen = answers(pool, aggregate, views)
    _, record = host(raw, master=False)
    name = f"compute-{record['name_label']}"
    code = 'HOST_STILL_BOOTING' if who is WHO.STARTING else ''
    seen[name] = identity.Identified(
        who=who,
        seen=identity.Sighting(code=code, reason='keeps silent'),
        record=pool.host_by_uuid(record['uuid']),
    )

    found = reconcile.audit(reconcile.Declared.of(aggregate), pool, seen)

    [finding] = [one for one in found if one.check == 'identity']
    severity, message, remedy = TOLD[who]
    assert finding.severity is severity
    assert name in finding.message
    assert message in finding.message
    assert remedy in finding.remedy
    # Nothing else is said of it: it is neither dead nor disabled.
    for check in ('live', 'member-views', 'members'):
        assert [f.severity for f in found if f.check == check] == [
            model.Severity.PASS
        ]


def test_every_kind_that_is_no_member_is_told() -> None:
    assert {*WHO} - {*TOLD} == {WHO.MEMBER, WHO.ALONE}


def test_operations_that_have_not_ended() -> None:
    raw, aggregate, views = world()
    running = reconcile.Pending(
        uuid='op-1',
        story='join of xen09',
        phase='restart',
        orphaned=False,
        owner='worker-1',
    )
    dead = dataclasses.replace(running, uuid='op-2', orphaned=True)

    found = audit(raw, aggregate, views, pending=[running, dead])

    goes_on, lies = [f for f in found if f.check == 'operations']
    assert goes_on.severity is UNKNOWN
    assert 'join of xen09 is in progress' in goes_on.message
    assert goes_on.remedy == 'xenpool operation show op-1'
    assert lies.severity is FAIL
    assert 'lies unfinished' in lies.message
    assert lies.remedy == 'xenpool aggregate recover prod'


def test_a_certificate_is_renewed_by_a_command_for_its_kind() -> None:
    """``host-refresh-server-certificate`` renews the internal one only."""
    raw, aggregate, views = world()
    cert = next(iter(raw['Certificate'].values()))
    cert['not_after'] = '20260101T00:00:00Z'
    uuid = raw['host'][cert['host']]['uuid']
    told = {}
    for kind in ('host', 'host_internal', 'ca', 'pinned'):
        cert['type'] = kind
        cert['name'] = ''
        if kind == 'ca':
            cert.update(host='OpaqueRef:NULL', name='our ca.pem')
        [found] = [
            one
            for one in audit(raw, aggregate, views, now=1767225600.0)
            if one.check == 'certificates'
        ]
        told[kind] = found.remedy
    assert told['host'].endswith(
        f": xe host-reset-server-certificate host={uuid}"
    )
    assert told['host_internal'].endswith(
        f": xe host-refresh-server-certificate host={uuid}"
    )
    assert told['pinned'].endswith(
        f": xe pool-uninstall-trusted-certificate "
        f"certificate-uuid={cert['uuid']}"
    )
    assert told['ca'].endswith(
        "xe pool-uninstall-ca-certificate name='our ca.pem'"
    )


def test_certificates_of_a_host_that_has_just_left() -> None:
    raw, aggregate, views = world()
    next(iter(raw['Certificate'].values()))['host'] = 'OpaqueRef:gone'
    assert bad(audit(raw, aggregate, views)) == [('residue', WARN)]
    assert bad(audit(raw, aggregate, views, left_lately=True)) == []


def test_a_foreign_aggregate_is_named() -> None:
    raw, aggregate, views = world()
    only(raw, 'pool')['other_config'][model.OWNER_KEY] = 'somebody'
    [finding] = [
        f
        for f in audit(raw, aggregate, views, owner='rack2')
        if f.check == 'owner'
    ]
    assert "'rack2' (somebody)" in finding.message


def test_a_foreign_pool_is_released_and_not_mended() -> None:
    """A fix would change nothing there."""
    raw, aggregate, views = world()
    only(raw, 'pool')['other_config'][model.OWNER_KEY] = 'somebody'
    lost = aggregate.hosts[-1]
    aggregate.hosts.remove(lost)
    del aggregate.metadata[lost]
    views.pop(lost)
    found = audit(raw, aggregate, views, placed=[])
    remedies = [each.remedy for each in found if each.check == 'members']
    assert remedies == ['xenpool aggregate release prod']


def waiting(master: str) -> identity.Identified:
    seen = identity.Sighting(master='127.0.0.1', named=master)
    return identity.Identified(who=WHO.MEMBER, seen=seen)


def other(who: identity.Who, **seen: typing.Any) -> identity.Identified:
    return identity.Identified(who=who, seen=identity.Sighting(**seen))


MASTERLESS = {
    'dead, two of three wait': (
        {'a': other(WHO.NOBODY), 'b': waiting('a'), 'c': waiting('a')},
        'switch on a, or, if it is gone for good: '
        'xenpool aggregate recover prod --promote b',
    ),
    'dead, one of two waits': (
        {'a': other(WHO.NOBODY), 'b': waiting('a')},
        'switch on a, or, if it is gone for good: switch off a, then: '
        'xenpool aggregate recover prod --promote b --the-master-is-off',
    ),
    'installed anew, two of three wait': (
        {'a': other(WHO.ANEW), 'b': waiting('a'), 'c': waiting('a')},
        'xenpool aggregate recover prod --promote b',
    ),
    'installed anew, one of two waits': (
        {'a': other(WHO.ANEW), 'b': waiting('a')},
        'switch off a, then: xenpool aggregate recover prod --promote b '
        '--the-master-is-off',
    ),
    'a wrong password': (
        {
            'a': other(WHO.LOCKED, code='SESSION_AUTHENTICATION_FAILED'),
            'b': waiting('a'),
            'c': waiting('a'),
        },
        'correct connection_username and connection_password in section [a]',
    ),
    'the master starts': (
        {'a': other(WHO.STARTING), 'b': waiting('a'), 'c': waiting('a')},
        'wait a minute, then: xenpool aggregate audit prod',
    ),
    'all dead': (
        {'a': other(WHO.NOBODY), 'b': other(WHO.NOBODY)},
        'switch on a, or, if the pool is gone for good: '
        'xenpool aggregate release prod',
    ),
    'all installed anew': (
        {'a': other(WHO.ANEW), 'b': other(WHO.ANEW)},
        'xenpool aggregate release prod',
    ),
}
"""What members answer -> the way out."""


@pytest.mark.parametrize('case', MASTERLESS)
def test_the_way_out_without_a_master(case: str) -> None:
    seen, remedy = MASTERLESS[case]
    declared = reconcile.Declared(
        uuid=UUID,
        name='prod',
        hosts=tuple(seen),
        uuids={name: f"uuid-{name}" for name in seen},
        master='a',
    )

    [finding] = reconcile.audit_masterless(declared, seen, 'nobody')

    assert finding.severity is FAIL
    assert finding.remedy == remedy
    assert all(f"{name}: " in finding.message for name in seen)


def test_an_aggregate_in_error_without_hosts() -> None:
    declared = reconcile.Declared(
        uuid=UUID, name='prod', hosts=(), uuids={}, state='error', failed=3
    )
    [finding] = reconcile.audit_masterless(declared, {}, 'nobody')
    assert '3 failed requests in a row' in finding.message
    assert finding.remedy == 'xenpool aggregate release prod'
