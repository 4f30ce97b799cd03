# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A wait that ends without what was waited for says what was seen last, and
what the host answered; on mocked XenAPI sessions."""

from __future__ import annotations

import collections.abc
import pathlib

import pytest

from tests.unit import mocked_calls, mocked_pool, spoilers
from xenpool_driver import driver, exceptions

BOOTING = 'HOST_STILL_BOOTING'


@pytest.fixture
def world() -> mocked_pool.World:
    return mocked_pool.World()


@pytest.fixture
def plugin(
    world: mocked_pool.World, tmp_path: pathlib.Path
) -> collections.abc.Iterator[driver.XenAPIPoolDriver]:
    found = world.driver(tmp_path, first_boot_timeout=5)
    yield found
    found.close()


def boot(host: mocked_pool.Host) -> None:
    """Let a host start, and never be ready."""
    api = host.api
    api.login_with_password.side_effect = mocked_calls.failure(BOOTING)


def told_by(act: collections.abc.Callable[[], object]) -> str:
    """Return what a request fails with."""
    with pytest.raises(exceptions.AggregateError) as caught:
        act()
    return str(caught.value)


def test_of_a_join(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    world.clock.later(mocked_pool.FUSE + 1, lambda: boot(world['xen02']))

    told = told_by(lambda: plugin.add_to_aggregate(None, row, 'xen02'))

    missing = 'missing: its own view of the master'
    assert f"{missing}; xen02 answers {BOOTING}" in told


def test_of_a_change_of_master(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world.clock.later(mocked_pool.FUSE, lambda: boot(world['xen03']))

    told = told_by(lambda: plugin.set_aggregate_master(None, row, 'xen02'))

    assert f"moved to xen02, but xen03 answers {BOOTING}" in told


def test_of_a_new_master_that_starts_for_ever(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world.clock.later(mocked_pool.FUSE, lambda: boot(world['xen02']))

    told = told_by(lambda: plugin.set_aggregate_master(None, row, 'xen02'))

    assert f"xen02 answers {BOOTING}" in told


def test_of_a_host_that_leaves(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    world.clock.later(1, lambda: boot(world['xen03']))

    told = told_by(
        lambda: plugin.remove_from_aggregate(None, row, 'xen03', wait=True)
    )

    assert f"not back as a pool of its own yet (xen03 answers {BOOTING})" in (
        told
    )


def test_of_a_switch_of_ha(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    spoilers.protect(world['xen01'])
    pool = world['xen01'].pool
    disabling = world['xen01'].api.Async.pool.disable_ha
    disable = disabling.side_effect

    def and_begin(*args: str) -> object:
        pool['current_operations'] = {'OpaqueRef:task': 'ha_enable'}
        return disable(*args)

    disabling.side_effect = and_begin

    told = told_by(
        lambda: plugin.add_to_aggregate(None, row, 'xen02', suspend_ha=True)
    )

    assert 'after 300 s: the pool shows ha_enable, and HA is off' in told
