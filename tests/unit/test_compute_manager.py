# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The manager does what Nova's did, and undoes it as Nova's did."""

from __future__ import annotations

import collections.abc
import dataclasses
import logging
import pathlib

import pytest

from tests import paper_driver
from xenpool_driver import exceptions, requests, store
from xenpool_driver.compute import manager
from xenpool_driver.store import core


@dataclasses.dataclass
class ForeignAggregate:
    """An aggregate as Nova's manager hands it in."""

    id: int = 7
    uuid: str = '00000000-0000-4000-8000-000000000007'
    name: str = 'nova'
    hosts: list[str] = dataclasses.field(default_factory=list)
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    def update_metadata(self, metadata: dict[str, str | None]) -> None:
        raise AssertionError('the manager leaves metadata to the driver')

    def add_host(self, host: str) -> None:
        self.hosts.append(host)

    def delete_host(self, host: str) -> None:
        self.hosts.remove(host)


@pytest.fixture
def database(tmp_path: pathlib.Path) -> collections.abc.Iterator[store.Store]:
    with core.Store(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


@pytest.fixture
def driver(database: store.Store) -> paper_driver.PaperDriver:
    return paper_driver.PaperDriver(database)


@pytest.fixture
def compute(driver: paper_driver.PaperDriver) -> manager.ComputeManager:
    return manager.ComputeManager({'xen01': driver, 'xen02': driver})


@pytest.fixture
def prod(database: store.Store) -> store.Aggregate:
    return database.create_aggregate('prod', {'hypervisor_pool': 'true'})


def failed() -> exceptions.AggregateError:
    return exceptions.AggregateError('prod', 'add_to_aggregate', 'it broke')


def test_failed_add_takes_the_host_out_of_a_foreign_aggregate(
    compute: manager.ComputeManager, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['xen02'] = failed()
    foreign = ForeignAggregate(hosts=['xen01', 'xen02'])

    with pytest.raises(exceptions.AggregateError):
        compute.add_aggregate_host(None, foreign, 'xen02', requests.ADD_HOST)

    assert foreign.hosts == ['xen01']
    assert driver.undone == [('delete_host', 'xen02', True)]


def test_failed_removal_puts_the_host_back(
    compute: manager.ComputeManager, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['xen02'] = failed()
    foreign = ForeignAggregate(hosts=['xen01'])

    with pytest.raises(exceptions.AggregateError):
        compute.remove_aggregate_host(
            None, foreign, 'xen02', requests.REMOVE_HOST
        )

    assert foreign.hosts == ['xen01', 'xen02']
    assert driver.undone == [('add_host', 'xen02', True)]


def test_refused_removal_puts_the_host_back_and_is_no_failure(
    compute: manager.ComputeManager, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['xen02'] = exceptions.InvalidAggregateActionDelete(
        'prod', 'it is the master'
    )
    foreign = ForeignAggregate(hosts=['xen01'])

    with pytest.raises(exceptions.InvalidAggregateActionDelete):
        compute.remove_aggregate_host(
            None, foreign, 'xen02', requests.REMOVE_HOST
        )

    assert foreign.hosts == ['xen01', 'xen02']
    assert driver.undone == [('add_host', 'xen02', False)]


def test_refused_add_is_not_undone(
    compute: manager.ComputeManager, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['xen02'] = paper_driver.refused_add()

    with pytest.raises(exceptions.InvalidAggregateActionAdd):
        compute.add_aggregate_host(
            None, ForeignAggregate(), 'xen02', requests.ADD_HOST
        )

    assert driver.undone == []


def test_our_own_aggregate_is_only_read_anew(
    compute: manager.ComputeManager,
    driver: paper_driver.PaperDriver,
    database: store.Store,
    prod: store.Aggregate,
) -> None:
    driver.trouble['xen02'] = failed()
    database.change(
        prod.uuid, prod.generation, store.Changes(metadata={'rack': '1'})
    )

    with pytest.raises(exceptions.AggregateError):
        compute.add_aggregate_host(None, prod, 'xen02', requests.ADD_HOST)

    assert prod.hosts == []
    assert prod.metadata['rack'] == '1'
    assert driver.undone == [('delete_host', 'xen02', True)]


def test_a_failed_undo_does_not_hide_the_failure(
    compute: manager.ComputeManager,
    driver: paper_driver.PaperDriver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver.trouble.update(
        xen02=failed(),
        undo=exceptions.AggregateError('prod', 'undo', 'no bus'),
    )

    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(exceptions.AggregateError, match='it broke'),
    ):
        compute.add_aggregate_host(
            None, ForeignAggregate(), 'xen02', requests.ADD_HOST
        )

    assert 'delete_host of xen02 could not be undone' in caplog.text


def test_a_host_of_another_service_is_served_by_any_driver(
    compute: manager.ComputeManager,
    driver: paper_driver.PaperDriver,
    prod: store.Aggregate,
) -> None:
    slave_info = {'host': 'xen09', 'host_uuid': 'u-9'}

    compute.add_aggregate_host(
        None, prod, 'xen09', requests.ADD_HOST, slave_info
    )

    method, host, options = driver.calls[0]
    assert (method, host) == ('add_to_aggregate', 'xen09')
    assert options['slave_info'] == slave_info


def test_without_any_host_the_configuration_is_named(
    prod: store.Aggregate,
) -> None:
    empty = manager.ComputeManager({})

    with pytest.raises(exceptions.ConfigurationError, match='enabled_hosts'):
        empty.add_aggregate_host(None, prod, 'xen01', requests.ADD_HOST)
