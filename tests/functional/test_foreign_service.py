# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver in a compute service of another maker, over real sockets."""

from __future__ import annotations

import collections.abc
import pathlib

import pytest

from tests.functional import driver_lab, nova, nova_exceptions
from xenpool_driver import base, driver, exceptions, pool_states, simulator
from xenpool_driver import conf as config


@pytest.fixture(scope='module')
def lab() -> collections.abc.Iterator[simulator.Simulation]:
    with driver_lab.simulation(3) as running:
        yield running


@pytest.fixture
def service(
    lab: simulator.Simulation, tmp_path: pathlib.Path
) -> collections.abc.Iterator[nova.Service]:
    """A service whose manager catches exceptions of its own."""
    path = driver_lab.configuration(lab, tmp_path, allow_data_loss=True)
    plugin = base.load_driver(
        config.load([str(path)]), service_exceptions=nova_exceptions
    )
    assert isinstance(plugin, driver.XenAPIPoolDriver)
    yield nova.Service(plugin, nova_exceptions)
    lab.faults.clear()
    plugin.close()


def state(service: nova.Service, ident: str) -> str | None:
    return service.read(ident).metadata.get(pool_states.STATE)


def empty(
    lab: simulator.Simulation, service: nova.Service, ident: str
) -> None:
    """Take all hosts out, the master last, and delete the aggregate."""
    row = service.read(ident)
    master = row.metadata.get(pool_states.MASTER)
    for host in sorted(row.hosts, key=lambda host: host == master):
        service.remove_host(ident, host)
        assert service.handle() == []
    service.delete(ident)
    driver_lab.settle(lab)


def test_the_life_of_a_pool_by_novas_calls(
    lab: simulator.Simulation, service: nova.Service
) -> None:
    one, two, three = (host.name for host in lab.hosts)
    uuids = {host.name: host.uuid for host in lab.hosts}
    ident = service.create('rack1', driver_lab.FLAGS)

    service.add_host(ident, one)
    assert service.handle() == []
    assert service.read(ident).metadata == {
        pool_states.POOL_FLAG: 'true',
        pool_states.STATE: pool_states.ACTIVE,
        pool_states.MASTER: one,
        pool_states.POOL_UUID: service.read(ident).metadata['pool_uuid'],
        pool_states.FAILED_REQUESTS: '0',
        one: uuids[one],
    }

    # Two casts in flight, each with a copy that is older than the other.
    service.add_host(ident, two)
    service.add_host(ident, three)
    assert service.handle() == []
    row = service.read(ident)
    assert row.hosts == [one, two, three]
    assert {host: row.metadata[host] for host in row.hosts} == uuids
    assert driver_lab.pool_of(lab, ident) == driver_lab.Pool(
        one, frozenset(row.hosts), 'rack1', ident
    )

    service.driver.set_aggregate_master(None, service.read(ident), two)
    assert service.read(ident).metadata[pool_states.MASTER] == two

    shrink(lab, service, ident)


def shrink(
    lab: simulator.Simulation, service: nova.Service, ident: str
) -> None:
    """Go on with three hosts, of which the second is the master."""
    one, two, three = (host.name for host in lab.hosts)
    # Nova's API has taken the master out before anybody could object.
    service.remove_host(ident, two)
    assert service.read(ident).hosts == [one, three]
    [error] = service.handle()
    assert isinstance(error, exceptions.InvalidAggregateActionDelete)
    row = service.read(ident)
    assert sorted(row.hosts) == [one, two, three]
    assert state(service, ident) == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == two

    service.remove_host(ident, three)
    assert service.handle() == []
    row = service.read(ident)
    assert three not in row.hosts
    assert three not in row.metadata
    driver_lab.settle(lab)
    assert driver_lab.pool_of(lab, ident) == driver_lab.Pool(
        two, frozenset((one, two)), 'rack1', ident
    )

    empty(lab, service, ident)
    assert driver_lab.pool_of(lab, ident) is None


def test_a_failed_add_is_taken_back_by_novas_manager(
    lab: simulator.Simulation, service: nova.Service
) -> None:
    one, two, _ = (host.name for host in lab.hosts)
    ident = service.create('rack2', driver_lab.FLAGS)
    service.add_host(ident, one)
    assert service.handle() == []
    lab.faults.refuse('pool.join', 'HOSTS_NOT_HOMOGENEOUS', 'x', times=1)

    service.add_host(ident, two)
    [error] = service.handle()

    assert isinstance(error, exceptions.AggregateError)
    row = service.read(ident)
    assert row.hosts == [one]
    assert two not in row.metadata
    assert row.metadata[pool_states.FAILED_REQUESTS] == '1'
    assert state(service, ident) == pool_states.ACTIVE
    empty(lab, service, ident)


def test_a_failed_remove_is_taken_back_by_novas_manager(
    lab: simulator.Simulation, service: nova.Service
) -> None:
    one, two, _ = (host.name for host in lab.hosts)
    ident = service.create('rack3', driver_lab.FLAGS)
    for host in (one, two):
        service.add_host(ident, host)
    assert service.handle() == []
    lab.faults.refuse('pool.eject', 'CLUSTER_HOST_IS_LAST', 'x', times=1)

    service.remove_host(ident, two)
    [error] = service.handle()

    assert isinstance(error, exceptions.AggregateError)
    row = service.read(ident)
    assert row.hosts == [one, two]
    assert row.metadata[two] == lab.hosts[1].uuid
    assert row.metadata[pool_states.FAILED_REQUESTS] == '1'
    empty(lab, service, ident)


def test_a_refused_add_leaves_no_host_behind(
    lab: simulator.Simulation, service: nova.Service
) -> None:
    """Nova's manager does not take it back: the driver does."""
    one, two, _ = (host.name for host in lab.hosts)
    first = service.create('rack4', driver_lab.FLAGS)
    service.add_host(first, one)
    assert service.handle() == []
    before = driver_lab.pools(lab)
    second = service.create('rack5', driver_lab.FLAGS)

    service.add_host(second, one)
    [error] = service.handle()

    assert isinstance(error, exceptions.InvalidAggregateActionAdd)
    assert service.read(second).hosts == []
    assert state(service, second) == pool_states.CREATED
    assert driver_lab.pools(lab) == before
    service.add_host(second, two)
    assert service.handle() == []
    empty(lab, service, second)
    empty(lab, service, first)


def test_a_stale_copy_opens_nothing_again(
    lab: simulator.Simulation, service: nova.Service
) -> None:
    """Two adds are cast before either is handled: both say ``created``."""
    one, two, _ = (host.name for host in lab.hosts)
    ident = service.create('rack6', driver_lab.FLAGS)
    service.add_host(ident, one)
    service.add_host(ident, two)
    [first, second] = service.casts
    assert second.aggregate.metadata[pool_states.STATE] == 'created'

    assert service.handle() == []

    row = service.read(ident)
    assert row.metadata[pool_states.STATE] == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == one
    # The stalest copy of all wipes nothing out, either.
    service.driver.audit_aggregate(None, first.aggregate, fix=True)
    assert service.read(ident).metadata == row.metadata
    empty(lab, service, ident)


def test_an_aggregate_that_is_no_pool_is_novas_own_business(
    lab: simulator.Simulation, service: nova.Service
) -> None:
    executed = lab.calls()
    ident = service.create('zone', {'availability_zone': 'a'})
    service.add_host(ident, 'xen01')
    service.remove_host(ident, 'xen01')

    assert service.handle() == []

    assert service.read(ident).metadata == {'availability_zone': 'a'}
    assert lab.calls() == executed


def test_a_flag_that_came_late_does_not_make_members(
    lab: simulator.Simulation, service: nova.Service
) -> None:
    """The hosts from before the flag are in no pool, and can be removed."""
    one, two, _ = (host.name for host in lab.hosts)
    ident = service.create('late', {})
    service.add_host(ident, one)
    assert service.handle() == []
    service.rows[ident].update_metadata({pool_states.POOL_FLAG: '1'})

    service.add_host(ident, two)
    assert service.handle() == []

    row = service.read(ident)
    assert row.metadata[pool_states.STATE] == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == two
    service.remove_host(ident, one)
    service.handle()
    assert service.read(ident).hosts == [two]
    empty(lab, service, ident)


@pytest.fixture
def newcomer(
    lab: simulator.Simulation, tmp_path: pathlib.Path
) -> collections.abc.Iterator[base.PoolDriver]:
    """A driver that has never heard of the service's aggregates."""
    own = tmp_path / 'newcomer'
    own.mkdir()
    path = driver_lab.configuration(lab, own, allow_data_loss=True)
    plugin = base.load_driver(
        config.load([str(path)]), service_exceptions=nova_exceptions
    )
    assert isinstance(plugin, driver.XenAPIPoolDriver)
    yield plugin
    plugin.close()


def half_known(
    lab: simulator.Simulation, service: nova.Service, known: str
) -> str:
    """Return an aggregate of three hosts as the ancestor's driver may have
    left it: without our keys and stamp, and with one host's uuid."""
    hosts = [host.name for host in lab.hosts]
    ident = service.create('inherited', driver_lab.FLAGS)
    for host in hosts:
        service.add_host(ident, host)
    assert service.handle() == []
    service.rows[ident].update_metadata(
        {
            pool_states.POOL_UUID: None,
            pool_states.FAILED_REQUESTS: None,
            **{host: None for host in hosts if host != known},
        }
    )
    with driver_lab.session(lab, lab.hosts[0]) as api:
        [pool] = api.pool.get_all()
        api.pool.remove_from_other_config(pool, pool_states.OWNER_KEY)
    return ident


def test_a_host_alone_with_its_uuid_is_not_the_last_one(
    lab: simulator.Simulation,
    service: nova.Service,
    newcomer: base.PoolDriver,
) -> None:
    one, two, three = (host.name for host in lab.hosts)
    uuids = {host.name: host.uuid for host in lab.hosts}
    ident = half_known(lab, service, two)
    service.driver = newcomer

    service.remove_host(ident, two)
    assert service.handle() == []

    row = service.read(ident)
    assert row.hosts == [one, three]
    known = {host: row.metadata.get(host) for host in uuids}
    assert known == {**uuids, two: None}
    assert row.metadata[pool_states.MASTER] == one
    driver_lab.settle(lab)
    found = {pool.members for pool in driver_lab.pools(lab)}
    assert found == {frozenset((one, three)), frozenset((two,))}
    service.remove_host(ident, one)
    [error] = service.handle()
    assert isinstance(error, exceptions.InvalidAggregateActionDelete)
    assert sorted(service.read(ident).hosts) == [one, three]
    empty(lab, service, ident)


def test_a_host_without_its_uuid_is_ejected_all_the_same(
    lab: simulator.Simulation,
    service: nova.Service,
    newcomer: base.PoolDriver,
) -> None:
    one, two, three = (host.name for host in lab.hosts)
    ident = half_known(lab, service, one)
    service.driver = newcomer

    service.remove_host(ident, three)
    assert service.handle() == []

    driver_lab.settle(lab)
    found = {pool.members for pool in driver_lab.pools(lab)}
    assert found == {frozenset((one, two)), frozenset((three,))}
    # Whom the API has written down only now is no member.
    service.add_host(ident, three)
    assert service.handle() == []
    assert sorted(service.read(ident).hosts) == [one, two, three]
    empty(lab, service, ident)


def test_a_host_that_is_added_to_a_half_known_pool_joins_it(
    lab: simulator.Simulation,
    service: nova.Service,
    newcomer: base.PoolDriver,
) -> None:
    one, two, three = (host.name for host in lab.hosts)
    ident = half_known(lab, service, one)
    service.remove_host(ident, three)
    assert service.handle() == []
    driver_lab.settle(lab)
    service.driver = newcomer

    service.add_host(ident, three)
    assert service.handle() == []

    row = service.read(ident)
    assert sorted(row.hosts) == [one, two, three]
    assert {host: row.metadata[host] for host in row.hosts} == {
        host.name: host.uuid for host in lab.hosts
    }
    assert driver_lab.pools(lab)[0].members == {one, two, three}
    empty(lab, service, ident)
