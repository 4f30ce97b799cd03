# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a pool is called and whose it is: names and stamps that got lost."""

from __future__ import annotations

import collections.abc
import pathlib

import pytest

from tests.unit import mocked_pool, spoilers
from xenpool_driver import driver, exceptions, model, pool_states


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


def test_a_rename_that_failed_is_mended_by_its_repetition(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    naming = world['xen01'].api.pool.set_name_label
    name, naming.side_effect = (
        naming.side_effect,
        mocked_pool.failure('RBAC_PERMISSION_DENIED', 'x'),
    )
    with pytest.raises(
        exceptions.AggregateError,
        match="repeat it with: xenpool aggregate set 'my rack' --name 'my "
        "rack'",
    ):
        plugin.rename_aggregate(None, row, 'my rack')
    assert (row.name, world['xen01'].pool['name_label']) == (
        'my rack',
        'rack1',
    )
    naming.side_effect = name

    plugin.rename_aggregate(None, row, 'my rack')

    assert world['xen01'].pool['name_label'] == 'my rack'


def test_a_name_that_is_borne_already_is_not_given_again(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)

    plugin.rename_aggregate(None, row, 'rack1')

    assert world.changes() == []
    assert row.name == 'rack1'


@pytest.mark.parametrize('by', ['recover', 'audit'])
@pytest.mark.parametrize('state', [pool_states.ACTIVE, pool_states.ERROR])
def test_a_lost_stamp_is_put_back(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    by: str,
    state: str,
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    row.update_metadata(
        {pool_states.STATE: state, pool_states.FAILED_REQUESTS: '2'}
    )
    del world['xen01'].pool['other_config'][pool_states.OWNER_KEY]

    if by == 'recover':
        report = plugin.recover_aggregate(None, row)
    else:
        report = plugin.audit_aggregate(None, row, fix=True)

    assert world.changes() == ['xen01 pool.add_to_other_config']
    stamp = world['xen01'].pool['other_config'][pool_states.OWNER_KEY]
    assert stamp == row.uuid
    [told] = [
        each for each in report.findings if 'has it again' in each.message
    ]
    assert told.severity is model.Severity.PASS
    # Nobody has asked for it: it is no success of a request.
    assert row.metadata[pool_states.FAILED_REQUESTS] == '2'
    assert row.state == state


def test_a_stamp_that_cannot_be_put_back_is_told(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    del world['xen01'].pool['other_config'][pool_states.OWNER_KEY]
    adding = world['xen01'].api.pool.add_to_other_config
    adding.side_effect = mocked_pool.failure('RBAC_PERMISSION_DENIED', 'x')

    report = plugin.recover_aggregate(None, row)

    [told] = [each for each in report.findings if each.check == 'owner']
    assert told.severity is model.Severity.WARN
    assert 'RBAC_PERMISSION_DENIED' in told.message
    assert told.remedy == 'xenpool aggregate audit rack1 --fix'
    assert row.metadata[pool_states.FAILED_REQUESTS] == '0'


@pytest.mark.parametrize('by', ['recover', 'audit'])
def test_the_stamp_of_another_is_never_replaced_unasked(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, by: str
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    spoilers.stamp(world, 'xen01')

    if by == 'recover':
        plugin.recover_aggregate(None, row)
    else:
        plugin.audit_aggregate(None, row, fix=True)

    assert world.changes() == []


def test_another_pool_is_not_stamped(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    world['xen01'].raw = world['xen01'].fresh()
    world['xen01'].pool['uuid'] = spoilers.STRANGER

    plugin.recover_aggregate(None, row)

    assert world.changes() == []
