# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver takes hosts out of pools, on mocked XenAPI sessions."""

from __future__ import annotations

import collections.abc
import pathlib
import typing

import pytest

from tests.unit import mocked_calls, mocked_pool, raw_pools, spoilers
from xenpool_driver import driver, exceptions, pool_states

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


def keep_disk(world: mocked_pool.World, host: str) -> None:
    """Let a member's own disks hold something."""
    raw = world[host].raw
    local = raw_pools.add_sr(raw, f"local-{host}", [world[host].ref])
    raw_pools.add(
        raw,
        'VDI',
        'data',
        SR=local,
        name_label='data',
        type='user',
        virtual_size='100',
        physical_utilisation='100',
        managed=True,
        missing=False,
        is_a_snapshot=False,
    )


def test_a_member_is_ejected(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    ref = world['xen03'].ref

    plugin.remove_from_aggregate(None, row, 'xen03')

    assert row.hosts == ['xen01', 'xen02']
    assert 'xen03' not in row.metadata
    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert row.state == pool_states.ACTIVE
    world['xen01'].api.Async.pool.eject.assert_called_once_with(ref)
    assert world.changes() == ['xen01 Async.pool.eject']
    assert mocked_pool.stories(plugin, row)[-1] == (
        'eject',
        'xen03',
        'succeeded',
    )
    assert mocked_pool.phases(plugin, row) == ['begun', 'eject', 'succeeded']
    assert not world['xen03'].alive  # it boots; nobody asked to wait


def test_who_waits_sees_the_host_as_a_pool_of_its_own(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)

    plugin.remove_from_aggregate(None, row, 'xen03', wait=True)

    assert world['xen03'].alive
    assert world['xen03'].master is world['xen03']
    assert 'first boot' in mocked_pool.phases(plugin, row)


def test_a_host_that_does_not_come_back_in_time_has_left_all_the_same(
    world: mocked_pool.World, tmp_path: pathlib.Path
) -> None:
    plugin = world.driver(tmp_path, first_boot_timeout=5)
    row = mocked_pool.formed(world, plugin)

    with pytest.raises(exceptions.AggregateError, match='afterwards'):
        plugin.remove_from_aggregate(None, row, 'xen03', wait=True)

    assert row.hosts == ['xen01', 'xen02']
    assert 'xen03' not in row.metadata
    plugin.close()


def test_ha_comes_back_although_the_host_does_not_come_back(
    world: mocked_pool.World, tmp_path: pathlib.Path
) -> None:
    plugin = world.driver(tmp_path, first_boot_timeout=5)
    row = mocked_pool.formed(world, plugin)
    world['xen01'].pool.update(ha_enabled=True)

    with pytest.raises(exceptions.AggregateError, match='not back'):
        plugin.remove_from_aggregate(
            None, row, 'xen03', wait=True, suspend_ha=True
        )

    assert world['xen01'].pool['ha_enabled']
    plugin.close()


def test_a_host_is_enabled_again_as_soon_as_the_master_answers(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world.failing['Async.pool.eject'] = ['HOST_HAS_RESIDENT_VMS']
    enable = world["xen01"].api.Async.host.enable
    enabling = enable.side_effect
    booting = [mocked_pool.failure('HOST_STILL_BOOTING')]

    def answer(*args: str) -> object:
        if booting:
            raise booting.pop()
        return enabling(*args)

    enable.side_effect = answer

    with pytest.raises(exceptions.AggregateError) as caught:
        plugin.remove_from_aggregate(None, row, 'xen03', drain=True)

    assert 'HOST_STILL_BOOTING' not in str(caught.value)
    assert world['xen01'].raw['host'][world['xen03'].ref]['enabled']


def test_a_host_that_is_gone_is_removed_without_a_change(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Somebody has ejected it behind the aggregate's back."""
    row = mocked_pool.formed(world, plugin)
    world['xen01'].api.Async.pool.eject(world['xen03'].ref)
    world.forget_calls()

    plugin.remove_from_aggregate(None, row, 'xen03')

    assert row.hosts == ['xen01', 'xen02']
    assert 'xen03' not in row.metadata
    assert world.changes() == []
    assert mocked_pool.stories(plugin, row)[-1] == (
        'eject',
        'xen03',
        'succeeded',
    )


@pytest.mark.parametrize(
    ('host', 'spoil', 'words'),
    [
        ('xen01', lambda world: None, 'xen01 is the master'),
        ('xen09', lambda world: None, "'xen09' is not in the aggregate"),
        (
            'xen03',
            lambda world: spoilers.run_guest(world, 'xen03'),
            'busy',
        ),
        ('xen03', lambda world: keep_disk(world, 'xen03'), 'local-xen03'),
        (
            'xen03',
            lambda world: world['xen01'].pool.update(ha_enabled=True),
            'HA',
        ),
        (
            'xen03',
            lambda world: [host.die() for host in world.hosts],
            'no master found',
        ),
    ],
    ids=[
        'master of others',
        'no member',
        'running guest',
        'own disks',
        'HA',
        'nobody answers',
    ],
)
def test_a_host_that_cannot_leave_stays(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    host: str,
    spoil: Spoil,
    words: str,
) -> None:
    row = mocked_pool.formed(world, plugin)
    spoil(world)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateActionDelete, match=words):
        plugin.remove_from_aggregate(None, row, host)

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_disks_are_wiped_only_when_that_is_allowed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    keep_disk(world, 'xen03')
    report = plugin.check_removal(None, row, 'xen03')
    assert any('local-xen03' in each.message for each in report.findings)

    plugin.remove_from_aggregate(None, row, 'xen03', allow_data_loss=True)

    assert world.changes() == ['xen01 Async.pool.eject']


def test_the_site_may_allow_data_loss(
    world: mocked_pool.World, tmp_path: pathlib.Path
) -> None:
    plugin = world.driver(tmp_path, allow_data_loss=True)
    row = mocked_pool.formed(world, plugin)
    keep_disk(world, 'xen03')

    plugin.remove_from_aggregate(None, row, 'xen03')

    assert row.hosts == ['xen01', 'xen02']
    plugin.close()


@pytest.mark.parametrize('late', [False, True], ids=['call', 'task'])
def test_an_eject_that_xapi_refuses_has_failed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, late: bool
) -> None:
    row = mocked_pool.formed(world, plugin)
    if late:
        world.failing['Async.pool.eject'] = ['CLUSTER_HOST_IS_LAST', 'x']
    else:
        ejecting = world['xen01'].api.Async.pool.eject
        ejecting.side_effect = mocked_pool.failure('CLUSTER_HOST_IS_LAST', 'x')
    members = dict(row.metadata)

    with pytest.raises(exceptions.AggregateError, match='CLUSTER_HOST_IS'):
        plugin.remove_from_aggregate(None, row, 'xen03')

    assert row.hosts == ['xen01', 'xen02', 'xen03']
    assert row.metadata == {**members, pool_states.FAILED_REQUESTS: '1'}
    assert mocked_pool.stories(plugin, row)[-1] == (
        'eject',
        'xen03',
        'undone',
    )


def test_an_eject_without_an_answer_is_looked_after_not_repeated(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world.lose_answer('xen01', 'Async.pool.eject')

    plugin.remove_from_aggregate(None, row, 'xen03')

    assert row.hosts == ['xen01', 'xen02']
    assert world.changes() == ['xen01 Async.pool.eject']


def test_a_record_that_is_left_behind_is_said_to_be(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """The host has left; the master lost the last step of its eject."""
    row = mocked_pool.formed(world, plugin)
    three = world['xen03']

    def leave(ref: str) -> str:
        three.record['enabled'] = three.metrics['live'] = False
        three.raw, three.master = three.fresh(), three
        raise ConnectionResetError(104, 'reset')

    world['xen01'].api.Async.pool.eject.side_effect = leave

    with pytest.raises(exceptions.AggregateError, match='left behind.*forget'):
        plugin.remove_from_aggregate(None, row, 'xen03')

    assert row.hosts == ['xen01', 'xen02', 'xen03']


def test_the_master_leaves_when_the_request_names_its_successor(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)

    plugin.remove_from_aggregate(None, row, 'xen01', successor='xen02')

    assert row.hosts == ['xen02', 'xen03']
    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert 'xen01' not in row.metadata
    assert world.changes() == [
        'xen01 Async.pool.designate_new_master',
        'xen02 Async.pool.eject',
    ]


@pytest.mark.parametrize(
    ('successor', 'words'),
    [
        ('xen01', 'master of the pool'),
        ('xen09', "'xen09' is not in the aggregate"),
    ],
)
def test_a_successor_that_cannot_be_one_is_refused(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    successor: str,
    words: str,
) -> None:
    row = mocked_pool.formed(world, plugin)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateActionDelete, match=words):
        plugin.remove_from_aggregate(None, row, 'xen01', successor=successor)

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (
            lambda world: keep_disk(world, 'xen01'),
            'local storage local-xen01 .* would be wiped',
        ),
        (
            lambda world: spoilers.run_guest(world, 'xen01'),
            'virtual machines are on .*: busy',
        ),
    ],
    ids=['disks', 'guest'],
)
def test_a_removal_that_will_be_refused_moves_no_master(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    spoil: Spoil,
    words: str,
) -> None:
    row = mocked_pool.formed(world, plugin)
    spoil(world)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(
        exceptions.InvalidAggregateActionDelete, match=words
    ) as caught:
        plugin.remove_from_aggregate(None, row, 'xen01', successor='xen02')

    assert 'is the master' not in caught.value.reason
    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_a_removal_is_looked_at_with_the_hand_over_before_it(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    before = mocked_pool.frozen(world, plugin, row)

    fine = plugin.check_removal(None, row, 'xen01', successor='xen02')
    nobody = plugin.check_removal(None, row, 'xen01', successor='xen09')
    assert mocked_pool.frozen(world, plugin, row) == before
    world['xen03'].die()
    short = plugin.check_removal(None, row, 'xen01', successor='xen02')

    assert fine.failures == ()
    assert [f.message for f in nobody.failures][0] == (
        "host 'xen09' is not in the aggregate"
    )
    assert 'members-live' in [f.check for f in short.failures]
    assert world.changes() == []


def test_a_removal_that_is_refused_after_all_tells_who_is_the_master(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Somebody starts a machine while the mastership moves."""
    row = mocked_pool.formed(world, plugin)
    designate = world['xen01'].api.Async.pool.designate_new_master
    carry_out = designate.side_effect

    def start_and_carry_out(*args: typing.Any) -> typing.Any:
        spoilers.run_guest(world, 'xen01')
        return carry_out(*args)

    designate.side_effect = start_and_carry_out

    with pytest.raises(
        exceptions.AggregateError,
        match="'xen02' is the master now, .* removal was refused: .*busy",
    ):
        plugin.remove_from_aggregate(None, row, 'xen01', successor='xen02')

    assert row.hosts == ['xen01', 'xen02', 'xen03']
    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert world.changes() == ['xen01 Async.pool.designate_new_master']


def test_a_removal_whose_hand_over_fails_names_who_was_not_removed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    designate = world['xen01'].api.Async.pool.designate_new_master
    designate.side_effect = mocked_calls.failure('HOST_OFFLINE', 'x')

    with pytest.raises(
        exceptions.AggregateError,
        match="xen01 was not removed, since 'xen02' was to be the master",
    ):
        plugin.remove_from_aggregate(None, row, 'xen01', successor='xen02')

    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert row.hosts == ['xen01', 'xen02', 'xen03']


# Draining


def test_a_host_is_drained_before_it_leaves(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    spoilers.run_guest(world, 'xen03')

    plugin.remove_from_aggregate(None, row, 'xen03', drain=True)

    assert world.changes() == [
        'xen01 Async.host.disable',
        'xen01 Async.host.evacuate',
        'xen01 Async.pool.eject',
    ]
    assert row.hosts == ['xen01', 'xen02']


def test_what_cannot_move_is_refused_before_the_host_is_disabled(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    spoilers.run_guest(world, 'xen03')
    raw_pools.add(world['xen01'].raw, 'SR', 'nfs', name_label='shelf')
    before = mocked_pool.frozen(world, plugin, row)
    blockers = world['xen01'].api.host.get_vms_which_prevent_evacuation
    blockers.side_effect = lambda _: {
        'OpaqueRef:guest': [
            'VM_REQUIRES_SR',
            'OpaqueRef:guest',
            'OpaqueRef:SR-nfs',
        ]
    }

    with pytest.raises(
        exceptions.InvalidAggregateActionDelete,
        match=r'busy .* on shelf, which .* not see \(VM_REQUIRES_SR\)',
    ):
        plugin.remove_from_aggregate(None, row, 'xen03', drain=True)

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


@pytest.mark.parametrize('keep', [False, True], ids=['enabled', 'disabled'])
def test_a_host_that_cannot_be_drained_works_on(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, keep: bool
) -> None:
    """XAPI refuses a move that it called possible a moment ago."""
    row = mocked_pool.formed(world, plugin)
    spoilers.run_guest(world, 'xen03')
    world['xen01'].api.Async.host.evacuate.side_effect = mocked_calls.failure(
        'VM_REQUIRES_SR', 'OpaqueRef:guest', 'nfs'
    )

    with pytest.raises(exceptions.AggregateError, match='VM_REQUIRES_SR'):
        plugin.remove_from_aggregate(
            None, row, 'xen03', drain=True, keep_disabled=keep
        )

    assert world['xen03'].record['enabled'] is not keep
    assert 'xen01 Async.pool.eject' not in world.changes()
    assert row.hosts == ['xen01', 'xen02', 'xen03']


# The dead


def test_a_dead_member_is_forgotten_when_asked(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen03'].die()

    plugin.remove_from_aggregate(None, row, 'xen03', forget=True)

    assert row.hosts == ['xen01', 'xen02']
    assert 'xen03' not in row.metadata
    assert world.changes() == ['xen01 Async.host.destroy']
    assert mocked_pool.stories(plugin, row)[-1] == (
        'forget',
        'xen03',
        'succeeded',
    )

    with pytest.raises(
        exceptions.InvalidAggregateActionDelete, match='is not in'
    ):
        plugin.remove_from_aggregate(None, row, 'xen03', forget=True)


def test_who_answers_is_not_forgotten(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(
        exceptions.InvalidAggregateActionDelete,
        match="'xen03' answers, so it is not dead",
    ):
        plugin.remove_from_aggregate(None, row, 'xen03', forget=True)

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_the_coordinator_has_the_last_word_about_death(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """A refusal by XAPI is no failure, and is not counted as one."""
    row = mocked_pool.formed(world, plugin)
    world['xen03'].alive = False  # the master has not noticed
    metadata = dict(row.metadata)

    with pytest.raises(
        exceptions.InvalidAggregateActionDelete, match='HOST_IS_LIVE'
    ):
        plugin.remove_from_aggregate(None, row, 'xen03', forget=True)

    assert row.metadata == metadata
    assert row.hosts == ['xen01', 'xen02', 'xen03']
    assert mocked_pool.stories(plugin, row)[-1] == (
        'forget',
        'xen03',
        'refused',
    )


# The last host


def test_the_last_host_keeps_its_pool_without_name_and_stamp(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)

    plugin.remove_from_aggregate(None, row, 'xen01')

    assert row.hosts == []
    assert row.metadata == {
        pool_states.POOL_FLAG: 'true',
        pool_states.STATE: pool_states.ACTIVE,
        pool_states.FAILED_REQUESTS: '0',
    }
    assert world.changes() == [
        'xen01 pool.set_name_label',
        'xen01 pool.remove_from_other_config',
    ]
    assert world['xen01'].pool['name_label'] == ''
    assert pool_states.OWNER_KEY not in world['xen01'].pool['other_config']


@pytest.mark.parametrize('drain', [False, True])
def test_the_last_host_loses_no_disk(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, drain: bool
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    keep_disk(world, 'xen01')
    spoilers.run_guest(world, 'xen01')

    plugin.remove_from_aggregate(None, row, 'xen01', drain=drain)

    assert row.hosts == []
    assert 'xen01 Async.pool.eject' not in world.changes()


def test_a_pool_that_is_not_ours_any_more_is_left_without_a_change(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    spoilers.stamp(world, 'xen01')

    plugin.remove_from_aggregate(None, row, 'xen01')

    assert row.hosts == []
    assert world.changes() == []
    assert world['xen01'].pool['name_label'] == 'rack1'


def test_a_dead_last_host_is_forgotten_when_asked(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    with pytest.raises(
        exceptions.InvalidAggregateActionDelete, match='is not dead'
    ):
        plugin.remove_from_aggregate(None, row, 'xen01', forget=True)
    world['xen01'].die()

    plugin.remove_from_aggregate(None, row, 'xen01', forget=True)

    assert row.hosts == []
    assert world.changes() == []


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda world: spoilers.crowd(world, 'xen01'), 'xen98'),
        (lambda world: world['xen01'].die(), 'refuses the connection'),
    ],
    ids=['unknown members', 'dead'],
)
def test_a_last_host_that_cannot_be_cleared_stays(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    spoil: Spoil,
    words: str,
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    spoil(world)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateActionDelete, match=words):
        plugin.remove_from_aggregate(None, row, 'xen01')

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_a_clearing_that_fails_can_be_repeated(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    removing = world['xen01'].api.pool.remove_from_other_config
    removes = removing.side_effect
    removing.side_effect = mocked_pool.failure('RBAC_PERMISSION_DENIED', 'x')

    with pytest.raises(exceptions.AggregateError, match='RBAC_PERMISSION'):
        plugin.remove_from_aggregate(None, row, 'xen01')

    assert row.hosts == ['xen01']
    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert row.metadata[pool_states.FAILED_REQUESTS] == '1'

    removing.side_effect = removes
    plugin.remove_from_aggregate(None, row, 'xen01')
    assert row.hosts == []
    assert row.metadata[pool_states.FAILED_REQUESTS] == '0'


# The aggregate itself


def test_an_empty_aggregate_is_dismissed_without_xapi(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    plugin.remove_from_aggregate(None, row, 'xen01')
    world.forget_calls()

    plugin.dismiss_aggregate(None, row)

    assert row.state == pool_states.DISMISSED
    assert row.deleted_at is not None
    assert world.calls() == []
    requests: list[tuple[str, typing.Callable[[], object]]] = [
        ('add', lambda: plugin.add_to_aggregate(None, row, 'xen01')),
        ('rm', lambda: plugin.remove_from_aggregate(None, row, 'xen01')),
        ('set', lambda: plugin.set_aggregate_master(None, row, 'xen01')),
        ('del', lambda: plugin.dismiss_aggregate(None, row)),
    ]
    for name, request in requests:
        with pytest.raises(
            exceptions.InvalidAggregateAction, match='aggregate deleted'
        ):
            request()
        assert world.calls() == [], name


def test_an_aggregate_with_hosts_is_not_dismissed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(
        exceptions.InvalidAggregateActionDelete, match='xen01, xen02'
    ):
        plugin.dismiss_aggregate(None, row)

    assert mocked_pool.frozen(world, plugin, row) == before


def test_an_aggregate_that_never_had_a_host(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.aggregate(plugin)
    with pytest.raises(
        exceptions.InvalidAggregateActionDelete, match='no hosts to remove'
    ):
        plugin.remove_from_aggregate(None, row, 'xen01')

    plugin.dismiss_aggregate(None, row)

    assert row.state == pool_states.DISMISSED
    assert world.calls() == []


def test_an_aggregate_in_error_is_emptied_and_stays_in_error(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    row.update_metadata({pool_states.STATE: pool_states.ERROR})

    plugin.remove_from_aggregate(None, row, 'xen02')
    plugin.remove_from_aggregate(None, row, 'xen01')

    assert (row.state, row.hosts) == (pool_states.ERROR, [])
    assert pool_states.OWNER_KEY not in world['xen01'].pool['other_config']
    plugin.dismiss_aggregate(None, row)
    assert row.state == pool_states.DISMISSED
