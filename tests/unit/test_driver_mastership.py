# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver moves masterships, on mocked XenAPI sessions."""

from __future__ import annotations

import collections.abc
import pathlib

import pytest

from tests.unit import mocked_pool, spoilers
from xenpool_driver import driver, exceptions, model, pool_states, store

Spoil = collections.abc.Callable[[mocked_pool.World], object]


@pytest.fixture
def world() -> mocked_pool.World:
    return mocked_pool.World()


@pytest.fixture
def plugin(
    world: mocked_pool.World, tmp_path: pathlib.Path
) -> collections.abc.Iterator[driver.XenAPIPoolDriver]:
    found = world.driver(tmp_path)
    yield found
    found.close()


def test_a_member_becomes_the_master(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    heard: list[str] = []

    plugin.set_aggregate_master(
        None,
        row,
        'xen02',
        progress=lambda host, phase, fraction: heard.append(phase),
    )

    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert row.state == pool_states.ACTIVE
    assert row.hosts == ['xen01', 'xen02', 'xen03']
    assert [host.master.name for host in world.hosts] == ['xen02'] * 3
    world['xen01'].api.Async.pool.designate_new_master.assert_called_once_with(
        world['xen02'].ref
    )
    assert world.changes() == ['xen01 Async.pool.designate_new_master']
    assert mocked_pool.stories(plugin, row)[-1] == (
        'set-master',
        'xen02',
        'succeeded',
    )
    assert mocked_pool.phases(plugin, row) == [
        'begun',
        'designate',
        'restart',
        'succeeded',
    ]
    assert 'not moved' in heard  # the task was done long before


def test_the_present_master_is_set_without_a_change(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    metadata = dict(row.metadata)

    plugin.set_aggregate_master(None, row, 'xen01')

    assert row.metadata == metadata
    assert world.changes() == []
    assert mocked_pool.stories(plugin, row)[-1] == (
        'set-master',
        'xen01',
        'succeeded',
    )


def test_a_master_that_moved_unasked_is_only_recorded(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen01'].api.Async.pool.designate_new_master(world['xen02'].ref)
    world.clock.sleep(mocked_pool.FUSE)
    world.forget_calls()

    plugin.set_aggregate_master(None, row, 'xen02')

    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert world.changes() == []


@pytest.mark.parametrize(
    ('host', 'spoil', 'words'),
    [
        ('xen09', lambda world: None, "'xen09' is not in the aggregate"),
        (
            'xen02',
            lambda world: world['xen01'].pool.update(ha_enabled=True),
            'HA',
        ),
        ('xen02', lambda world: world['xen02'].die(), 'xen02'),
        ('xen02', lambda world: world['xen03'].die(), 'xen03'),
        (
            'xen02',
            lambda world: [host.die() for host in world.hosts],
            'no master found',
        ),
    ],
    ids=[
        'no member',
        'HA',
        'successor dead',
        'another dead',
        'all dead',
    ],
)
def test_a_master_that_cannot_change_stays(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    host: str,
    spoil: Spoil,
    words: str,
) -> None:
    row = mocked_pool.formed(world, plugin)
    spoil(world)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateActionUpdate, match=words):
        plugin.set_aggregate_master(None, row, host)

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


@pytest.mark.parametrize('late', [False, True], ids=['call', 'task'])
def test_a_change_that_xapi_refuses_has_failed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, late: bool
) -> None:
    row = mocked_pool.formed(world, plugin)
    code = 'HOST_NOT_ENOUGH_PCPUS'
    if late:
        world.failing['Async.pool.designate_new_master'] = [code]
    else:
        designating = world['xen01'].api.Async.pool.designate_new_master
        designating.side_effect = mocked_pool.failure(code)

    with pytest.raises(exceptions.AggregateError, match=code):
        plugin.set_aggregate_master(None, row, 'xen02')

    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert row.metadata[pool_states.FAILED_REQUESTS] == '1'
    assert mocked_pool.stories(plugin, row)[-1] == (
        'set-master',
        'xen02',
        'undone',
    )


def test_a_change_without_an_answer_is_looked_after_not_repeated(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world.lose_answer('xen01', 'Async.pool.designate_new_master')

    plugin.set_aggregate_master(None, row, 'xen02')

    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert world.changes() == ['xen01 Async.pool.designate_new_master']


def test_a_change_that_never_happens_is_undone(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    designating = world['xen01'].api.Async.pool.designate_new_master
    designating.side_effect = ConnectionResetError(104, 'reset')

    with pytest.raises(exceptions.AggregateError, match='has not moved'):
        plugin.set_aggregate_master(None, row, 'xen02')

    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert designating.call_count == 1


def test_a_member_that_does_not_follow_makes_a_failure(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world.clock.later(mocked_pool.FUSE, world['xen03'].die)

    before = world.clock.now

    with pytest.raises(
        exceptions.AggregateError, match='did not all name'
    ) as caught:
        plugin.set_aggregate_master(None, row, 'xen02')

    told = 'the master has moved to xen02, but xen03 does not answer'
    assert told in str(caught.value)
    assert row.metadata[pool_states.FAILED_REQUESTS] == '0'
    assert world.clock.now - before < 120
    assert row.state == pool_states.ACTIVE
    # XAPI has moved it all the same, and so must the aggregate.
    assert row.metadata[pool_states.MASTER] == 'xen02'


def test_a_dead_member_is_named_before_anything_is_asked_for(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen03'].record['name_label'] = 'rack 1, third from above'
    world['xen03'].die()
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(
        exceptions.InvalidAggregateActionUpdate,
        match=r'xen03 \(rack 1, third from above in XAPI\)',
    ) as caught:
        plugin.set_aggregate_master(None, row, 'xen02')

    assert caught.value.report is not None
    [finding] = [
        each
        for each in caught.value.report.failures
        if each.check == 'members-live'
    ]
    assert finding.remedy == (
        'switch on xen03, or, if it is gone for good: '
        'xenpool aggregate remove host rack1 xen03 --forget --yes'
    )
    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_who_settles_a_change_without_a_master_says_what_it_waits_for(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    row = mocked_pool.formed(world, plugin)
    details = {
        'host_uuid': world['xen02'].uuid,
        'address': world['xen02'].address,
        'suspend_ha': False,
    }
    plugin.site.store.begin(
        row.uuid,
        'set-master',
        'xen02',
        'a dead worker',
        60.0,
        details,
        lambda *_: store.Changes(),
    )
    for host in world.hosts:
        host.die()
    world.clock.sleep(61)
    heard = set()

    plugin.recover_aggregate(
        None,
        row,
        progress=lambda host, phase, _: heard.add((host, phase)),
    )

    assert ('xen02', 'not to be seen') in heard
    told = [record.getMessage() for record in caplog.records]
    [line] = [line for line in told if 'looking again' in line]
    assert line.startswith('set-master xen02: rack1: no member answers')


def test_the_next_change_counts_from_when_the_last_one_was_made(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world.clock.later(mocked_pool.FUSE, world['xen03'].die)
    with pytest.raises(exceptions.AggregateError):
        plugin.set_aggregate_master(None, row, 'xen02')
    late = world['xen03']
    late.alive = late.metrics['live'] = late.record['enabled'] = True
    late.master = world['xen02']

    # The wait for xen03 took longer than a master needs to settle.
    plugin.set_aggregate_master(None, row, 'xen01')

    assert row.metadata[pool_states.MASTER] == 'xen01'


def test_warnings_are_told_when_the_change_goes_on(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen02'].record['enabled'] = False

    plugin.set_aggregate_master(None, row, 'xen02')

    told = [record.getMessage() for record in caplog.records]
    assert any('is disabled (xe host-enable' in line for line in told)


def test_a_member_that_was_disabled_stays_so_and_keeps_nobody_waiting(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen03'].record['enabled'] = False

    plugin.set_aggregate_master(None, row, 'xen02')

    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert row.metadata[pool_states.FAILED_REQUESTS] == '0'
    assert not world['xen03'].record['enabled']


def test_ha_is_suspended_around_a_change_when_asked(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    spoilers.protect(world['xen01'])

    plugin.set_aggregate_master(None, row, 'xen02', suspend_ha=True)

    assert world.changes() == [
        'xen01 Async.pool.disable_ha',
        'xen01 Async.pool.designate_new_master',
        'xen02 Async.pool.enable_ha',
    ]
    assert world['xen02'].pool['ha_enabled']


# The master is dead


def test_a_member_is_promoted_when_a_person_says_so(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen01'].die()

    report = plugin.recover_aggregate(None, row, promote='xen02')

    assert not report.failures
    [left] = [each for each in report.findings if each.check == 'identity']
    assert left.severity is model.Severity.WARN
    assert "'xen01' was the master and is a member still" in left.message
    assert left.remedy.endswith('remove host rack1 xen01 --forget --yes')
    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert world['xen03'].master is world['xen02']
    assert world.changes() == [
        'xen02 pool.emergency_transition_to_master',
        'xen02 Async.pool.recover_slaves',
    ]
    assert mocked_pool.stories(plugin, row)[-1] == (
        'promote',
        'xen02',
        'succeeded',
    )


def test_nobody_is_promoted_unasked(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen01'].die()
    before = mocked_pool.frozen(world, plugin, row)

    plugin.recover_aggregate(None, row)
    report = plugin.audit_aggregate(None, row, fix=True)

    assert '--promote' in report.failures[0].remedy
    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def leave_alone(world: mocked_pool.World) -> None:
    world['xen01'].die()
    world['xen03'].die()


@pytest.mark.parametrize(
    ('host', 'spoil', 'words'),
    [
        ('xen02', lambda world: None, 'answers at 192.0.2.1: use set master'),
        ('xen09', lambda world: world['xen01'].die(), 'is not in'),
        ('xen01', lambda world: world['xen01'].die(), 'xen01'),
        ('xen02', leave_alone, 'no majority: 1 of 3.*xen01, xen03'),
    ],
    ids=['master lives', 'no member', 'the dead one', 'no majority'],
)
def test_a_promotion_that_could_split_the_pool_is_refused(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    host: str,
    spoil: Spoil,
    words: str,
) -> None:
    row = mocked_pool.formed(world, plugin)
    spoil(world)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateActionUpdate, match=words):
        plugin.recover_aggregate(None, row, promote=host)

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_a_host_that_ha_forbids_to_promote_is_not_a_failure(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen01'].die()
    promoting = world['xen02'].api.pool.emergency_transition_to_master
    promoting.side_effect = mocked_pool.failure('HA_IS_ENABLED')

    with pytest.raises(
        exceptions.InvalidAggregateActionUpdate, match='HA_IS_ENABLED'
    ):
        plugin.recover_aggregate(None, row, promote='xen02')

    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert row.metadata[pool_states.FAILED_REQUESTS] == '0'
