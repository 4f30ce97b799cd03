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


def dismissed(plugin: driver.XenAPIPoolDriver, name: str = 'gone') -> str:
    """Return the uuid of an aggregate that is dismissed."""
    row = mocked_pool.aggregate(plugin, name)
    plugin.dismiss_aggregate(None, row)
    return row.uuid


def owned_by(world: mocked_pool.World, host: str, stamp: str) -> None:
    """Let a host's pool carry a stamp."""
    world[host].pool['other_config'][pool_states.OWNER_KEY] = stamp


def test_a_released_pool_is_adopted_again(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 3)
    row.update_metadata({pool_states.STATE: pool_states.ERROR})
    plugin.release_aggregate(None, row)
    again = mocked_pool.aggregate(plugin)

    plugin.adopt_aggregate(None, again, 'xen02')

    assert sorted(again.hosts) == ['xen01', 'xen02', 'xen03']
    assert again.state == pool_states.ACTIVE
    stamp = world['xen01'].pool['other_config'][pool_states.OWNER_KEY]
    assert stamp == again.uuid


def test_the_stamp_of_a_dismissed_aggregate_is_replaced(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    spoilers.pool_of_three(world)
    owned_by(world, 'xen01', dismissed(plugin))
    row = mocked_pool.aggregate(plugin, 'rack9')

    plugin.adopt_aggregate(None, row, 'xen02')

    assert row.state == pool_states.ACTIVE
    stamp = world['xen01'].pool['other_config'][pool_states.OWNER_KEY]
    assert stamp == row.uuid
    assert mocked_pool.phases(plugin, row) == [
        'begun',
        'replace stamp',
        'stamp',
        'name',
        'succeeded',
    ]


def test_the_stamp_of_a_living_aggregate_names_it_and_the_way(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    mocked_pool.formed(world, plugin, 2)
    row = mocked_pool.aggregate(plugin, 'rack9')

    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match="aggregate 'rack1'"
    ) as caught:
        plugin.adopt_aggregate(None, row, 'xen02')

    assert caught.value.report is not None
    [finding] = caught.value.report.failures
    assert finding.remedy == 'xenpool aggregate release rack1'


def test_the_stamp_of_another_controller_is_replaced_only_if_it_is_named(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    spoilers.pool_of_three(world)
    spoilers.stamp(world, 'xen01')
    row = mocked_pool.aggregate(plugin, 'rack9')
    for named in (None, row.uuid):
        with pytest.raises(
            exceptions.InvalidAggregateActionAdd, match='another controller'
        ) as caught:
            plugin.adopt_aggregate(None, row, 'xen02', replace_stamp=named)
        assert caught.value.report is not None
        [finding] = caught.value.report.failures
        assert finding.remedy.endswith(
            f": xenpool aggregate adopt rack9 --from xen02 --replace-stamp "
            f"{spoilers.STRANGER}"
        )
    assert world.changes() == []

    plugin.adopt_aggregate(None, row, 'xen02', replace_stamp=spoilers.STRANGER)

    assert row.state == pool_states.ACTIVE
    stamp = world['xen01'].pool['other_config'][pool_states.OWNER_KEY]
    assert stamp == row.uuid


def test_a_living_aggregates_stamp_is_not_replaced_by_naming_it(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    owner = mocked_pool.formed(world, plugin, 2)
    row = mocked_pool.aggregate(plugin, 'rack9')

    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match="aggregate 'rack1'"
    ):
        plugin.adopt_aggregate(None, row, 'xen02', replace_stamp=owner.uuid)


def test_a_replacement_that_died_half_way_is_finished(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    tmp_path: pathlib.Path,
) -> None:
    spoilers.pool_of_three(world)
    owned_by(world, 'xen01', dismissed(plugin))
    row = mocked_pool.aggregate(plugin, 'rack9')
    dying = world.driver(tmp_path)
    adding = world['xen01'].api.pool.add_to_other_config
    add, adding.side_effect = adding.side_effect, KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        dying.adopt_aggregate(None, row, 'xen02')
    dying.close()
    adding.side_effect = add
    world.clock.sleep(61)

    plugin.recover_aggregate(None, row)

    assert row.state == pool_states.ACTIVE
    stamp = world['xen01'].pool['other_config'][pool_states.OWNER_KEY]
    assert stamp == row.uuid


def test_a_host_with_a_dismissed_aggregates_stamp_is_free(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    old = dismissed(plugin)
    for host in ('xen01', 'xen02'):
        owned_by(world, host, old)
    row = mocked_pool.aggregate(plugin)

    plugin.add_to_aggregate(None, row, 'xen01')
    plugin.add_to_aggregate(None, row, 'xen02')

    assert row.hosts == ['xen01', 'xen02']
    stamp = world['xen01'].pool['other_config'][pool_states.OWNER_KEY]
    assert stamp == row.uuid
