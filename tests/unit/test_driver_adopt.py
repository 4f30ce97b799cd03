# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver takes over pools, and leaves alone what is none."""

from __future__ import annotations

import collections.abc
import pathlib

import pytest

from tests.unit import mocked_pool, spoilers
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


@pytest.mark.parametrize('by', ['xen01', 'xen02'])
def test_a_pool_is_adopted_as_it_stands(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, by: str
) -> None:
    spoilers.pool_of_three(world)
    row = mocked_pool.aggregate(plugin, 'rack9')

    plugin.adopt_aggregate(None, row, by)

    assert sorted(row.hosts) == ['xen01', 'xen02', 'xen03']
    assert row.state == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert {name: row.metadata[name] for name in row.hosts} == {
        host.name: host.uuid for host in world.hosts
    }
    assert world.changes() == [
        'xen01 pool.add_to_other_config',
        'xen01 pool.set_name_label',
    ]
    assert world['xen01'].pool['name_label'] == 'rack9'
    assert mocked_pool.stories(plugin, row) == [('adopt', by, 'succeeded')]


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (
            lambda world: spoilers.stamp(world, 'xen01'),
            spoilers.STRANGER,
        ),
        (
            lambda world: spoilers.crowd(world, 'xen01'),
            r'xen98 \(192.0.2.98\)',
        ),
        (lambda world: world['xen02'].die(), 'refuses the connection'),
    ],
    ids=['stamped', 'stranger', 'dead'],
)
def test_a_pool_that_cannot_be_adopted_is_left_alone(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    spoil: Spoil,
    words: str,
) -> None:
    spoilers.pool_of_three(world)
    row = mocked_pool.aggregate(plugin, 'rack9')
    spoil(world)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateActionAdd, match=words):
        plugin.adopt_aggregate(None, row, 'xen02')

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_only_a_new_aggregate_adopts(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='only a new aggregate'
    ):
        plugin.adopt_aggregate(None, row, 'xen02')

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_an_adoption_that_fails_gives_all_members_back(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    spoilers.pool_of_three(world)
    row = mocked_pool.aggregate(plugin, 'rack9')
    stamping = world['xen01'].api.pool.add_to_other_config
    stamping.side_effect = mocked_pool.failure('RBAC_PERMISSION_DENIED', 'x')

    with pytest.raises(exceptions.AggregateError, match='RBAC_PERMISSION'):
        plugin.adopt_aggregate(None, row, 'xen01')

    assert (row.state, row.hosts) == (pool_states.ERROR, [])
    for name in ('xen01', 'xen02', 'xen03', pool_states.MASTER):
        assert name not in row.metadata


def test_an_aggregate_without_the_flag_is_left_alone(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = plugin.site.store.create_aggregate('plain', {'ssd': 'true'})
    before = mocked_pool.frozen(world, plugin, row)

    plugin.add_to_aggregate(None, row, 'xen01')
    plugin.remove_from_aggregate(None, row, 'xen01')
    plugin.set_aggregate_master(None, row, 'xen01')
    plugin.adopt_aggregate(None, row, 'xen01')
    plugin.dismiss_aggregate(None, row)
    plugin.undo_aggregate_operation(None, print, row, 'xen01')
    for report in (
        plugin.check_host(None, row, 'xen01'),
        plugin.check_removal(None, row, 'xen01'),
        plugin.audit_aggregate(None, row, fix=True),
        plugin.recover_aggregate(None, row, promote='xen01'),
    ):
        assert report.findings == ()

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.calls() == []
