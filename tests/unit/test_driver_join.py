# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver lets further hosts join, on mocked XenAPI sessions."""

from __future__ import annotations

import collections.abc
import pathlib
import typing

import pytest

from tests.unit import mocked_pool, raw_pools, spoilers
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


def test_a_further_host_joins(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    heard: list[str] = []

    plugin.add_to_aggregate(
        None,
        row,
        'xen02',
        progress=lambda host, phase, fraction: heard.append(phase),
    )

    assert row.hosts == ['xen01', 'xen02']
    assert row.metadata['xen02'] == world['xen02'].uuid
    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert row.state == pool_states.ACTIVE
    world['xen02'].api.Async.pool.join.assert_called_once_with(
        world['xen01'].address, 'root', mocked_pool.PASSWORD
    )
    assert world.changes() == ['xen02 Async.pool.join', mocked_pool.SPREAD]
    assert mocked_pool.stories(plugin, row)[-1] == (
        'join',
        'xen02',
        'succeeded',
    )
    assert mocked_pool.phases(plugin, row) == [
        'begun',
        'join',
        'restart',
        'spread',
        'succeeded',
    ]
    assert heard[0] == 'join'
    assert 'joining' in heard
    assert heard[-1] == 'done'


def test_success_is_seen_not_assumed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """The task says success at once; the host is enabled much later."""
    row = mocked_pool.formed(world, plugin, 1)
    began = world.clock.now

    plugin.add_to_aggregate(None, row, 'xen02')

    assert world['xen02'].record['enabled']
    assert world.clock.now - began >= 2 * mocked_pool.FUSE


def test_join_force_is_asked_for_by_name(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)

    plugin.add_to_aggregate(None, row, 'xen02', force=True)

    assert world.changes() == [
        'xen02 Async.pool.join_force',
        mocked_pool.SPREAD,
    ]


@pytest.mark.parametrize('host', ['xen01', 'xen02'])
def test_a_member_joins_again_without_a_change(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, host: str
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    before = (row.hosts, row.metadata)

    plugin.add_to_aggregate(None, row, host)

    assert (row.hosts, row.metadata) == before
    assert world.changes() == []
    assert mocked_pool.stories(plugin, row)[-1] == ('join', host, 'succeeded')


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (
            lambda world: spoilers.stamp(world, 'xen02'),
            spoilers.STRANGER,
        ),
        (lambda world: spoilers.crowd(world, 'xen02'), 'xen98'),
        (
            lambda world: spoilers.enslave(world, 'xen02'),
            'member of another pool',
        ),
        (lambda world: spoilers.run_guest(world, 'xen02'), 'busy'),
        (lambda world: world['xen02'].die(), 'refuses the connection'),
        (lambda world: world['xen01'].die(), 'xen01: refuses the connection'),
        (lambda world: world['xen01'].pool.update(ha_enabled=True), 'HA'),
        (lambda world: world['xen02'].pool.update(ha_enabled=True), 'HA'),
        (
            lambda world: (
                world['xen02']
                .record['software_version']
                .update(product_version='7.0.0', platform_version='1.0.0')
            ),
            'version',
        ),
        (
            lambda world: (
                world['xen02'].record['cpu_info'].update(vendor='Transmeta')
            ),
            'Transmeta',
        ),
        (
            lambda world: raw_pools.add_sr(
                world['xen02'].raw, 'nfs1', [world['xen02'].ref], True
            ),
            'nfs1',
        ),
        (
            lambda world: world['xen02'].pool.update(
                tls_verification_enabled=False
            ),
            'TLS',
        ),
    ],
    ids=[
        'stamped',
        'master of others',
        'member elsewhere',
        'running guest',
        'joiner dead',
        'master dead',
        'HA of the pool',
        'HA of the joiner',
        'version',
        'CPU vendor',
        'shared SR',
        'TLS verification',
    ],
)
def test_a_join_that_cannot_go_well_is_refused(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    spoil: Spoil,
    words: str,
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    for host in world.hosts:
        host.pool['tls_verification_enabled'] = True
        host.record['tls_verification_enabled'] = True
    spoil(world)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.InvalidAggregateActionAdd, match=words):
        plugin.add_to_aggregate(None, row, 'xen02')

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_an_unknown_host_is_refused_by_name(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    before = mocked_pool.frozen(world, plugin, row)

    with pytest.raises(exceptions.ConfigurationError, match="'nobody'"):
        plugin.add_to_aggregate(None, row, 'nobody')

    assert mocked_pool.frozen(world, plugin, row) == before


@pytest.mark.parametrize('late', [False, True], ids=['call', 'task'])
def test_a_join_that_xapi_refuses_has_failed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, late: bool
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    code = 'POOL_JOINING_HOST_HAS_BONDS'
    told = f"{code}: remove the bonds of the joining host"
    if late:
        world.failing['Async.pool.join'] = [code]
    else:
        joining = world['xen02'].api.Async.pool.join
        joining.side_effect = mocked_pool.failure(code)

    with pytest.raises(exceptions.AggregateError, match=told):
        plugin.add_to_aggregate(None, row, 'xen02')

    assert row.hosts == ['xen01']
    assert 'xen02' not in row.metadata
    assert row.state == pool_states.ACTIVE
    assert row.metadata[pool_states.FAILED_REQUESTS] == '1'
    assert mocked_pool.stories(plugin, row)[-1] == ('join', 'xen02', 'undone')
    [entry, *_] = plugin.site.store.list_operations(row.uuid)
    assert told in (entry.error or '')


def test_failures_in_a_row_end_in_error_and_one_success_forgives_them(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    failing = {'Async.pool.join': ['INTERNAL_ERROR', 'oops']}

    def join(host: str) -> tuple[str, str]:
        try:
            plugin.add_to_aggregate(None, row, host)
        except exceptions.AggregateError as error:
            assert 'oops' in str(error)
        return row.state, row.metadata[pool_states.FAILED_REQUESTS]

    world.failing.update(failing)
    assert join('xen02') == (pool_states.ACTIVE, '1')
    assert join('xen03') == (pool_states.ACTIVE, '2')
    world.failing.clear()
    assert join('xen02') == (pool_states.ACTIVE, '0')
    world.failing.update(failing)
    assert join('xen03') == (pool_states.ACTIVE, '1')
    assert join('xen03') == (pool_states.ACTIVE, '2')
    assert join('xen03') == (pool_states.ERROR, '3')


def test_a_join_without_an_answer_is_looked_after_not_repeated(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    world.lose_answer('xen02', 'Async.pool.join')

    plugin.add_to_aggregate(None, row, 'xen02')

    assert row.hosts == ['xen01', 'xen02']
    assert row.metadata[pool_states.FAILED_REQUESTS] == '0'
    assert world.changes() == ['xen02 Async.pool.join', mocked_pool.SPREAD]


def test_a_join_that_was_never_sent_is_undone(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    joining = world['xen02'].api.Async.pool.join
    joining.side_effect = ConnectionRefusedError(111, 'refused')

    with pytest.raises(exceptions.AggregateError, match='refuses the conn'):
        plugin.add_to_aggregate(None, row, 'xen02')

    assert row.hosts == ['xen01']
    assert mocked_pool.stories(plugin, row)[-1] == ('join', 'xen02', 'undone')


def test_a_member_that_is_never_enabled_stays_one_and_can_be_healed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    joining = world['xen02'].api.Async.pool.join
    joins = joining.side_effect

    def hang(*args: typing.Any) -> typing.Any:
        task = joins(*args)
        world.clock.later(3 * mocked_pool.FUSE, disable)
        return task

    def disable() -> None:
        world['xen02'].record['enabled'] = False

    joining.side_effect = hang
    hosts = world['xen01'].api.host.get_all_records_where
    found = hosts.side_effect
    hosts.side_effect = lambda which: world['xen01'].raw['host']

    with pytest.raises(exceptions.AggregateError) as caught:
        plugin.add_to_aggregate(None, row, 'xen02')
    told = str(caught.value)
    assert 'not live, enabled' in told
    assert 'missing: enabled; xen02 names' in told
    assert f"see: xenpool aggregate audit {row.name}" in told

    assert row.hosts == ['xen01', 'xen02']
    assert row.metadata['xen02'] == world['xen02'].uuid
    assert row.metadata[pool_states.FAILED_REQUESTS] == '1'

    hosts.side_effect = found
    world['xen02'].record['enabled'] = True
    world.forget_calls()
    plugin.add_to_aggregate(None, row, 'xen02')
    assert row.metadata[pool_states.FAILED_REQUESTS] == '0'
    assert world.changes() == []


def test_a_master_that_moved_unasked_is_found_and_recorded(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    one, two = world['xen01'], world['xen02']
    one.master = two.master = two
    two.pool['master'] = two.ref

    plugin.add_to_aggregate(None, row, 'xen03')

    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert world['xen03'].api.Async.pool.join.call_args.args[0] == two.address


def test_ha_is_suspended_around_a_join_when_asked(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    spoilers.protect(world['xen01'])

    plugin.add_to_aggregate(None, row, 'xen02', suspend_ha=True)

    assert world.changes() == [
        'xen01 Async.pool.disable_ha',
        'xen02 Async.pool.join',
        mocked_pool.SPREAD,
        'xen01 Async.pool.enable_ha',
    ]
    world['xen01'].api.Async.pool.enable_ha.assert_called_once_with(
        ['OpaqueRef:SR-beat'], {'timeout': '60'}
    )
    assert world['xen01'].pool['ha_host_failures_to_tolerate'] == '1'


def test_ha_is_off_until_the_last_of_joins_that_overlap_has_ended(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    spoilers.protect(world['xen01'])
    joining = world['xen02'].api.Async.pool.join
    join = joining.side_effect

    def add_another_one(*args: str) -> object:
        other = plugin.site.store.get_aggregate(row.uuid)
        plugin.add_to_aggregate(None, other, 'xen03', suspend_ha=True)
        assert not world['xen01'].pool['ha_enabled']
        return join(*args)

    joining.side_effect = add_another_one

    plugin.add_to_aggregate(None, row, 'xen02', suspend_ha=True)

    assert sorted(row.hosts) == ['xen01', 'xen02', 'xen03']
    switches = [one for one in world.changes() if one.endswith('_ha')]
    assert switches == [
        'xen01 Async.pool.disable_ha',
        'xen01 Async.pool.enable_ha',
    ]
    world['xen01'].api.Async.pool.enable_ha.assert_called_once_with(
        ['OpaqueRef:SR-beat'], {'timeout': '60'}
    )


def test_the_tolerance_is_put_back_where_it_was_lost(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    spoilers.protect(world['xen01'])
    switch_off = world['xen01'].api.Async.pool.disable_ha.side_effect

    def forget(*args: typing.Any) -> typing.Any:
        world['xen01'].pool['ha_host_failures_to_tolerate'] = '0'
        return switch_off(*args)

    world['xen01'].api.Async.pool.disable_ha.side_effect = forget

    plugin.add_to_aggregate(None, row, 'xen02', suspend_ha=True)

    setter = world['xen01'].api.Async.pool.set_ha_host_failures_to_tolerate
    assert setter.call_args.args[1] == '1'


def test_ha_comes_back_after_a_failed_join_too(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    spoilers.protect(world['xen01'])
    world.failing['Async.pool.join'] = ['INTERNAL_ERROR', 'oops']

    with pytest.raises(exceptions.AggregateError, match='oops'):
        plugin.add_to_aggregate(None, row, 'xen02', suspend_ha=True)

    assert world['xen01'].pool['ha_enabled']
    assert row.hosts == ['xen01']
