# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver lets pools go: no host is touched, whatever state it is in."""

from __future__ import annotations

import collections.abc
import pathlib
import typing

import pytest

from tests.unit import mocked_pool
from xenpool_driver import driver, exceptions, model, pool_states, store

UNSTAMPED = ['xen01 pool.remove_from_other_config']
"""All that a release changes."""

LEASE = 61.0
"""Seconds after which a lease of the default length has run out."""


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


def orphan(
    plugin: driver.XenAPIPoolDriver,
    row: store.Aggregate,
    **details: typing.Any,
) -> store.Operation:
    """Begin an eject whose worker dies at once."""
    operation, _ = plugin.site.store.begin(
        row.uuid,
        'eject',
        'xen02',
        'a dead worker',
        60.0,
        details,
        lambda *_: store.Changes(),
    )
    return operation


def gone(row: store.Aggregate) -> bool:
    """Say whether nothing of the pool is left in the aggregate."""
    return (
        row.state == pool_states.DISMISSED
        and row.deleted_at is not None
        and row.hosts == []
        and not {
            'xen01',
            'xen02',
            pool_states.MASTER,
            pool_states.POOL_UUID,
        }.intersection(row.metadata)
    )


@pytest.mark.parametrize('state', [pool_states.ACTIVE, pool_states.ERROR])
def test_a_pool_is_let_go_and_stays_as_it_is(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, state: str
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    row.update_metadata({pool_states.STATE: state})
    world.forget_calls()

    report = plugin.release_aggregate(None, row)

    assert gone(row)
    assert world.changes() == UNSTAMPED
    assert pool_states.OWNER_KEY not in world['xen01'].pool['other_config']
    assert world['xen01'].pool['name_label'] == 'rack1'
    assert len(world['xen01'].raw['host']) == 2
    assert report.worst is model.Severity.PASS
    assert mocked_pool.stories(plugin, row)[-1] == (
        'release',
        None,
        'succeeded',
    )


def test_released_once_more_is_released(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    plugin.release_aggregate(None, row)
    world.forget_calls()

    report = plugin.release_aggregate(None, row)

    assert world.changes() == []
    assert [each.message for each in report.findings] == [
        'the aggregate is dismissed already'
    ]


def test_a_dead_pool_is_let_go_and_told_to_keep_the_stamp(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    for host in world.hosts:
        host.die()
    before = world.clock.now

    report = plugin.release_aggregate(None, row)

    assert gone(row)
    [finding] = report.findings
    assert finding.severity is model.Severity.WARN
    assert 'keeps the stamp' in finding.message
    assert 'xen01' in finding.message
    assert finding.remedy == 'xenpool aggregate adopt rack1 --from xen01'
    assert world.clock.now - before < 60


def test_a_pool_whose_master_refuses_is_let_go(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    removing = world['xen01'].api.pool.remove_from_other_config
    removing.side_effect = mocked_pool.failure('RBAC_PERMISSION_DENIED', 'x')

    report = plugin.release_aggregate(None, row)

    assert gone(row)
    [finding] = report.findings
    assert finding.severity is model.Severity.WARN
    assert 'RBAC_PERMISSION_DENIED' in finding.message


def test_the_stamp_of_another_aggregate_is_left_alone(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    world['xen01'].pool['other_config'][pool_states.OWNER_KEY] = 'another'
    world.forget_calls()

    plugin.release_aggregate(None, row)

    assert gone(row)
    assert world.changes() == []


def test_what_a_dead_worker_left_ends_as_unknown(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    saved = {'sr_uuids': ['sr-1'], 'configuration': {}, 'tolerance': 1}
    left = orphan(plugin, row, ha=saved)
    world.clock.sleep(LEASE)
    world.forget_calls()

    report = plugin.release_aggregate(None, row)

    assert gone(row)
    assert world.changes() == UNSTAMPED
    ended = plugin.site.store.get_operation(left.uuid)
    assert ended.outcome == 'unknown'
    assert 'outcome unknown' in (ended.error or '')
    told = {each.check: each for each in report.findings}
    assert told['interrupted-operation'].remedy == (
        f"xenpool operation show {left.uuid}"
    )
    assert 'heartbeat-sr-uuids=sr-1' in told['ha'].remedy


def test_a_living_worker_is_not_disturbed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    orphan(plugin, row)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(
        exceptions.InvalidAggregateActionDelete,
        match='eject of xen02 in progress .* holds it until 20.*; if it has '
        'died, when that time is over: xenpool aggregate recover rack1',
    ):
        plugin.release_aggregate(None, row)

    assert mocked_pool.frozen(world, plugin, row) == before


def test_a_set_up_that_died_does_not_hold_its_aggregate(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.aggregate(plugin)
    plugin.site.store.begin(
        row.uuid,
        'set-up',
        'xen01',
        'a dead worker',
        60.0,
        {},
        lambda *_: store.Changes(
            {pool_states.STATE: pool_states.CHANGING}, ('xen01',)
        ),
    )
    for host in world.hosts:
        host.die()
    world.clock.sleep(LEASE)

    plugin.release_aggregate(None, row)

    assert gone(row)


def test_a_release_that_died_is_finished_by_the_heir(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    tmp_path: pathlib.Path,
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    dying = world.driver(tmp_path)
    removing = world['xen01'].api.pool.remove_from_other_config
    remove, removing.side_effect = removing.side_effect, KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        dying.release_aggregate(None, row)
    dying.close()
    removing.side_effect = remove
    world.clock.sleep(LEASE)

    report = plugin.recover_aggregate(None, row)

    assert gone(row)
    assert 'it is done' in report.findings[0].message
    assert pool_states.OWNER_KEY not in world['xen01'].pool['other_config']


def test_an_aggregate_that_was_only_asked_for_is_deleted_instead(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.aggregate(plugin)

    with pytest.raises(
        exceptions.InvalidAggregateActionDelete,
        match='no pool to release; xenpool aggregate delete rack1',
    ):
        plugin.release_aggregate(None, row)


class Foreign:
    """An aggregate of a foreign service, which only Nova's shape is known
    of."""

    def __init__(self, row: store.Aggregate) -> None:
        self.id = row.id
        self.uuid = row.uuid
        self.name = row.name
        self.hosts = list(row.hosts)
        self.metadata = dict(row.metadata)

    def update_metadata(self, metadata: dict[str, str | None]) -> None:
        for key, value in metadata.items():
            self.metadata.pop(key, None)
            if value is not None:
                self.metadata[key] = value

    def delete_host(self, host: str) -> None:
        self.hosts.remove(host)


def test_the_hosts_leave_a_foreign_services_aggregate(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    foreign = Foreign(mocked_pool.formed(world, plugin, 2))

    plugin.release_aggregate(None, foreign)

    assert foreign.hosts == []
    assert foreign.metadata[pool_states.STATE] == pool_states.DISMISSED
    assert not {'xen01', 'xen02', pool_states.MASTER} & set(foreign.metadata)


def test_a_failure_is_counted_and_the_way_out_is_named(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    ejecting = world['xen01'].api.Async.pool.eject
    ejecting.side_effect = mocked_pool.failure('RBAC_PERMISSION_DENIED', 'x')
    told = []
    for _ in range(3):
        with pytest.raises(exceptions.AggregateError) as caught:
            plugin.remove_from_aggregate(None, row, 'xen02')
        told.append(str(caught.value))

    assert 'failed request 1 of 3 in a row' in told[0]
    assert 'failed request 2 of 3 in a row' in told[1]
    assert 'xenpool aggregate release rack1' in told[2]
    with pytest.raises(
        exceptions.InvalidAggregateAction,
        match='aggregate in error; xenpool aggregate release rack1',
    ):
        plugin.set_aggregate_master(None, row, 'xen02')
