# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver sets a pool up with the first host, on mocked sessions."""

from __future__ import annotations

import collections.abc
import pathlib
import typing

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


def test_the_first_host_becomes_the_master(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.aggregate(plugin)

    plugin.add_to_aggregate(None, row, 'xen01')

    host = world['xen01']
    assert row.hosts == ['xen01']
    assert row.metadata == {
        pool_states.POOL_FLAG: 'true',
        pool_states.STATE: pool_states.ACTIVE,
        pool_states.MASTER: 'xen01',
        pool_states.POOL_UUID: host.pool['uuid'],
        pool_states.FAILED_REQUESTS: '0',
        'xen01': host.uuid,
    }
    [pool_ref] = host.raw['pool']
    host.api.pool.add_to_other_config.assert_called_once_with(
        pool_ref, pool_states.OWNER_KEY, row.uuid
    )
    host.api.pool.set_name_label.assert_called_once_with(pool_ref, 'rack1')
    assert world.changes() == [
        'xen01 pool.add_to_other_config',
        'xen01 pool.set_name_label',
    ]
    assert mocked_pool.stories(plugin, row) == [
        ('set-up', 'xen01', 'succeeded')
    ]
    assert mocked_pool.phases(plugin, row) == [
        'begun',
        'stamp',
        'name',
        'succeeded',
    ]


def test_the_state_is_changing_while_the_pool_is_set_up(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.aggregate(plugin)
    seen = []
    naming = world['xen01'].api.pool.set_name_label

    def look(ref: str, label: str) -> None:
        now = plugin.site.store.get_aggregate(row.uuid)
        seen.append((now.state, now.hosts, now.metadata.get('xen01')))
        requests: list[typing.Callable[[], object]] = [
            lambda: plugin.add_to_aggregate(None, row, 'xen02'),
            lambda: plugin.remove_from_aggregate(None, row, 'xen01'),
            lambda: plugin.set_aggregate_master(None, row, 'xen01'),
            lambda: plugin.dismiss_aggregate(None, row),
        ]
        for request in requests:
            with pytest.raises(
                exceptions.InvalidAggregateAction, match='setup in progress'
            ):
                request()
        world['xen01'].pool['name_label'] = label

    naming.side_effect = look

    plugin.add_to_aggregate(None, row, 'xen01')

    assert seen == [(pool_states.CHANGING, ['xen01'], None)]
    assert row.state == pool_states.ACTIVE


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (
            lambda world: spoilers.stamp(world, 'xen01'),
            f"belongs .* {spoilers.STRANGER}",
        ),
        (
            lambda world: spoilers.crowd(world, 'xen01'),
            'coordinator of a pool with',
        ),
        (
            lambda world: spoilers.enslave(world, 'xen01'),
            'pool member.*192.0.2.99',
        ),
        (lambda world: world['xen01'].die(), 'refuses the connection'),
        (
            lambda world: setattr(
                world['xen01'].api.login_with_password,
                'side_effect',
                mocked_pool.failure('SESSION_AUTHENTICATION_FAILED', 'root'),
            ),
            'SESSION_AUTHENTICATION_FAILED',
        ),
    ],
    ids=['stamped', 'master of others', 'member', 'dead', 'wrong password'],
)
def test_a_first_host_that_is_not_free_is_refused(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    spoil: Spoil,
    words: str,
) -> None:
    row = mocked_pool.aggregate(plugin)
    spoil(world)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateActionAdd, match=words):
        plugin.add_to_aggregate(None, row, 'xen01')

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_a_host_of_another_aggregate_is_refused(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    mocked_pool.formed(world, plugin, 2)
    row = mocked_pool.aggregate(plugin, 'rack2')
    before = mocked_pool.frozen(world, plugin, row)

    for host in ('xen01', 'xen02'):
        with pytest.raises(
            exceptions.InvalidAggregateActionAdd, match="'rack1' already"
        ):
            plugin.add_to_aggregate(None, row, host)

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_a_pool_that_cannot_be_named_is_an_error_that_can_be_left(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.aggregate(plugin)
    naming = world['xen01'].api.pool.set_name_label
    names = naming.side_effect
    naming.side_effect = mocked_pool.failure('RBAC_PERMISSION_DENIED', 'name')

    with pytest.raises(exceptions.AggregateError, match='RBAC_PERMISSION'):
        plugin.add_to_aggregate(None, row, 'xen01')

    assert row.state == pool_states.ERROR
    assert row.hosts == ['xen01']  # the pool carries our stamp
    assert row.metadata['xen01'] == world['xen01'].uuid
    assert mocked_pool.stories(plugin, row) == [('set-up', 'xen01', 'failed')]
    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='aggregate in error'
    ):
        plugin.add_to_aggregate(None, row, 'xen02')

    naming.side_effect = names
    plugin.remove_from_aggregate(None, row, 'xen01')
    assert (row.state, row.hosts) == (pool_states.ERROR, [])
    assert pool_states.OWNER_KEY not in world['xen01'].pool['other_config']
    plugin.dismiss_aggregate(None, row)
    assert row.state == pool_states.DISMISSED


def test_of_two_controllers_one_stamps_the_pool(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.aggregate(plugin)
    stamping = world['xen01'].api.pool.add_to_other_config
    stamps = stamping.side_effect

    def too_late(ref: str, key: str, value: str) -> None:
        spoilers.stamp(world, 'xen01')
        stamps(ref, key, value)

    stamping.side_effect = too_late

    with pytest.raises(exceptions.AggregateError, match='MAP_DUPLICATE_KEY'):
        plugin.add_to_aggregate(None, row, 'xen01')

    assert (row.state, row.hosts) == (pool_states.ERROR, [])
    assert pool_states.MASTER not in row.metadata
    assert 'xen01' not in row.metadata
    assert world['xen01'].pool['name_label'] == ''
    assert mocked_pool.stories(plugin, row) == [('set-up', 'xen01', 'undone')]


def test_a_lost_answer_to_the_naming_is_looked_after(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.aggregate(plugin)
    world.lose_answer('xen01', 'pool.set_name_label')

    plugin.add_to_aggregate(None, row, 'xen01')

    assert row.state == pool_states.ACTIVE
    assert world['xen01'].api.pool.set_name_label.call_count == 1


def test_an_emptied_aggregate_begins_again_with_any_host(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    plugin.remove_from_aggregate(None, row, 'xen01')
    assert row.state == pool_states.ACTIVE

    plugin.add_to_aggregate(None, row, 'xen02')

    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert row.metadata[pool_states.POOL_UUID] == world['xen02'].pool['uuid']
    assert 'xen01' not in row.metadata
    assert row.hosts == ['xen02']


def test_a_first_host_that_comes_second_is_refused(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Another host is set up while this one is being judged."""
    row = mocked_pool.aggregate(plugin)
    asked = world['xen02'].api.session.get_this_host
    answer = asked.side_effect

    def overtake(session: str) -> object:
        asked.side_effect = answer
        plugin.add_to_aggregate(None, row, 'xen01')
        return answer(session)

    asked.side_effect = overtake

    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='setup in progress'
    ):
        plugin.add_to_aggregate(None, row, 'xen02')

    assert row.hosts == ['xen01']
    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert [each for each in world.changes() if 'xen02' in each] == []
