# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A pool that another controller has taken over is not changed any more."""

from __future__ import annotations

import collections.abc
import pathlib
import typing

import pytest

from tests.unit import mocked_pool, spoilers
from xenpool_driver import driver, exceptions, pool_states, store

Request = collections.abc.Callable[
    [driver.XenAPIPoolDriver, store.Aggregate], object
]

RELEASE = 'xenpool aggregate release rack1'

REQUESTS: dict[str, Request] = {
    'add': lambda d, row: d.add_to_aggregate(None, row, 'xen04'),
    'set master': lambda d, row: d.set_aggregate_master(None, row, 'xen02'),
    'rename': lambda d, row: d.rename_aggregate(None, row, 'hijack'),
    'eject': lambda d, row: d.remove_from_aggregate(
        None, row, 'xen03', allow_data_loss=True
    ),
    'drain': lambda d, row: d.remove_from_aggregate(
        None, row, 'xen03', allow_data_loss=True, drain=True
    ),
    'hand over': lambda d, row: d.remove_from_aggregate(
        None, row, 'xen01', allow_data_loss=True, successor='xen02'
    ),
    'HA': lambda d, row: d.set_aggregate_master(
        None, row, 'xen02', suspend_ha=True
    ),
    'forget': lambda d, row: d.remove_from_aggregate(
        None, row, 'xen03', forget=True
    ),
}
"""What changes a pool."""


@pytest.fixture
def world() -> mocked_pool.World:
    return mocked_pool.World(4)


@pytest.fixture
def plugin(
    world: mocked_pool.World, tmp_path: pathlib.Path
) -> collections.abc.Iterator[driver.XenAPIPoolDriver]:
    found = world.driver(tmp_path)
    yield found
    found.close()


def formed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, request: str
) -> store.Aggregate:
    row = mocked_pool.formed(world, plugin, 3)
    if request == 'forget':
        world['xen03'].die()
    world['xen01'].pool['ha_enabled'] = request == 'HA'
    return row


@pytest.mark.parametrize('request_name', REQUESTS)
def test_it_is_refused(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    request_name: str,
) -> None:
    row = formed(world, plugin, request_name)
    spoilers.stamp(world, 'xen01')
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateAction) as refused:
        REQUESTS[request_name](plugin, row)

    report = refused.value.report
    assert report is not None
    told = {each.check: each for each in report.failures}
    assert told['owner'].remedy == RELEASE
    assert spoilers.STRANGER in told['owner'].message
    assert world.changes() == []
    assert mocked_pool.frozen(world, plugin, row) == before


@pytest.mark.parametrize('request_name', REQUESTS)
def test_it_is_refused_when_it_is_taken_over_in_the_last_moment(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    monkeypatch: pytest.MonkeyPatch,
    request_name: str,
) -> None:
    row = formed(world, plugin, request_name)
    known = (row.name, list(row.hosts), dict(row.metadata))
    begin = plugin.site.store.begin

    def taken_over(*args: typing.Any) -> typing.Any:
        begun = begin(*args)
        spoilers.stamp(world, 'xen01')
        return begun

    monkeypatch.setattr(plugin.site.store, 'begin', taken_over)

    with pytest.raises(
        exceptions.InvalidAggregateAction, match=f"no host: {RELEASE}"
    ):
        REQUESTS[request_name](plugin, row)

    assert world.changes() == []
    row.refresh()
    assert (row.name, row.hosts, row.metadata) == known
    assert mocked_pool.stories(plugin, row)[-1][2] == 'refused'


def test_an_eject_stops_when_the_pool_is_taken_over_while_guests_move(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 3)
    evacuate = world['xen01'].api.Async.host.evacuate
    moves = evacuate.side_effect

    def taken_over(*args: typing.Any) -> typing.Any:
        spoilers.stamp(world, 'xen01')
        return moves(*args)

    evacuate.side_effect = taken_over

    with pytest.raises(exceptions.AggregateError, match=RELEASE):
        REQUESTS['drain'](plugin, row)

    assert world.changes() == [
        'xen01 Async.host.disable',
        'xen01 Async.host.evacuate',
    ]


def test_a_promotion_goes_no_further_than_to_see_whose_the_pool_is(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 3)
    spoilers.stamp(world, 'xen01')
    world['xen01'].die()

    with pytest.raises(exceptions.AggregateError, match=RELEASE) as failed:
        plugin.recover_aggregate(None, row, promote='xen02')

    assert 'the master has moved to xen02' in failed.value.reason
    assert world.changes() == ['xen02 pool.emergency_transition_to_master']


def test_nobody_is_promoted_where_the_other_controller_has_a_master(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 3)
    spoilers.stamp(world, 'xen01')

    with pytest.raises(exceptions.InvalidAggregateAction) as refused:
        plugin.recover_aggregate(None, row, promote='xen02')

    assert refused.value.report is not None
    assert [each.remedy for each in refused.value.report.failures] == [RELEASE]
    assert world.changes() == []


def test_it_can_be_let_go(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 3)
    spoilers.stamp(world, 'xen01')

    report = plugin.audit_aggregate(None, row)
    assert any(RELEASE in each.remedy for each in report.failures)
    plugin.release_aggregate(None, row)

    assert world.changes() == []
    assert row.state == pool_states.DISMISSED
