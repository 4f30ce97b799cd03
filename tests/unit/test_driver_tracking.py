# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver first hears of another service's aggregate, on mocked XenAPI
sessions. With real ones: ``tests/functional/test_foreign_service.py``."""

from __future__ import annotations

import pathlib

import pytest

from tests.functional import nova
from tests.unit import mocked_pool
from xenpool_driver import exceptions, pool_states

HOSTS = ['xen01', 'xen02']


def inherited(
    world: mocked_pool.World, service: nova.Service, state: str
) -> str:
    """Return an aggregate of two hosts, of which one has its uuid."""
    ident = service.create(
        'inherited',
        {
            pool_states.POOL_FLAG: 'true',
            pool_states.STATE: state,
            pool_states.MASTER: 'xen01',
            'xen01': world['xen01'].uuid,
        },
    )
    service.rows[ident].hosts = list(HOSTS)
    return ident


@pytest.mark.parametrize('state', [pool_states.ACTIVE, pool_states.ERROR])
def test_who_cannot_be_asked_for_counts_as_a_member(
    tmp_path: pathlib.Path, state: str
) -> None:
    world = mocked_pool.World()
    plugin = world.driver(tmp_path)
    service = nova.Service(plugin)
    ident = inherited(world, service, state)
    for host in HOSTS:
        world[host].die()

    service.remove_host(ident, 'xen01')
    [error] = service.handle()

    assert isinstance(
        error,
        exceptions.InvalidAggregateAction | exceptions.AggregateError,
    )
    assert sorted(service.read(ident).hosts) == HOSTS
    row = plugin.site.store.get_aggregate(ident)
    assert sorted(row.hosts) == HOSTS
    assert row.metadata['xen01'] == world['xen01'].uuid
    plugin.close()


def test_a_host_that_xapi_does_not_list_is_no_member(
    tmp_path: pathlib.Path,
) -> None:
    world = mocked_pool.World()
    plugin = world.driver(tmp_path)
    service = nova.Service(plugin)
    ident = inherited(world, service, pool_states.ACTIVE)

    report = plugin.audit_aggregate(None, service.read(ident))

    assert plugin.site.store.get_aggregate(ident).hosts == ['xen01']
    assert report.subject
    plugin.close()
