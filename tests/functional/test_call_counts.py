# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How many XAPI calls a verb may make; ``benchmarks/calls.py`` says why.

Each verb is made by a new driver. Logouts do not count, and a look that is
repeated while something goes on counts once.
"""

from __future__ import annotations

import collections.abc
import pathlib
import typing

import pytest

from tests.functional import cli_lab
from xenpool_driver import conf as config
from xenpool_driver import driver, simulator, store
from xenpool_driver.compute import aggregates, manager

POLLS = {
    'host.get_all_records_where': 2,  # a look that is repeated, and a last one
    'task.get_record': 1,
    'task.get_all_records': 1,
}

Act = collections.abc.Callable[[aggregates.AggregateAPI], object]


class Counter:
    """Makes requests, and counts what they ask of each host."""

    def __init__(self, lab: simulator.Simulation, path: pathlib.Path) -> None:
        self.lab = lab
        self.conf = config.load([str(cli_lab.write_config(path, lab))])

    def __call__(self, act: Act, repeated: bool = False) -> dict[str, int]:
        """Return the calls by host.

        :param repeated: whether everything may be a look that is repeated.
        """
        self.lab.faults.executed.clear()
        database = store.open_store(self.conf)
        found = driver.XenAPIPoolDriver(conf=self.conf, database=database)
        hosts = [host.name for host in self.lab.hosts]
        compute = manager.ComputeManager(dict.fromkeys(hosts, found))
        try:
            act(aggregates.AggregateAPI(self.conf, database, lambda: compute))
        finally:
            found.close()
        return {
            host: self._made(self.lab.calls(host), repeated) for host in hosts
        }

    def _made(
        self, calls: collections.abc.Mapping[str, int], repeated: bool
    ) -> int:
        return sum(
            1 if repeated else min(number, POLLS.get(method, number))
            for method, number in calls.items()
            if method not in ('session.logout', 'session.local_logout')
        )


@pytest.fixture
def count(tmp_path: pathlib.Path) -> collections.abc.Iterator[Counter]:
    with cli_lab.simulation(3) as lab:
        yield Counter(lab, tmp_path / 'xenpool.conf')


def _add(*hosts: str) -> Act:
    def act(api: aggregates.AggregateAPI) -> None:
        for host in hosts:
            (result,) = api.add_hosts(None, 'prod', [host])
            assert result.error is None, result.error

    return act


def _remove(host: str, **options: typing.Any) -> Act:
    return lambda api: api.remove_host(
        None, 'prod', host, allow_data_loss=True, **options
    )


def test_growing_pool(count: Counter) -> None:
    count(lambda api: api.create('prod'))

    set_up = count(_add('xen01'))
    check = count(lambda api: api.check_hosts(None, 'prod', ['xen02']))
    join = count(_add('xen02'))
    again = count(_add('xen02'))

    assert set_up == {'xen01': 24, 'xen02': 0, 'xen03': 0}
    assert max(check.values()) <= 16
    assert check == {'xen01': 16, 'xen02': 14, 'xen03': 0}
    assert join == {'xen01': 29, 'xen02': 20, 'xen03': 0}
    assert again == {'xen01': 25, 'xen02': 3, 'xen03': 0}


def test_many_joiners_ask_the_pool_no_more_than_one(count: Counter) -> None:
    count(lambda api: api.create('prod'))
    count(_add('xen01'))

    check = count(
        lambda api: api.check_hosts(None, 'prod', ['xen02', 'xen03'])
    )

    assert check == {'xen01': 16, 'xen02': 14, 'xen03': 14}


def test_standing_and_shrinking_pool(count: Counter) -> None:
    count(lambda api: api.create('prod'))
    count(_add('xen01', 'xen02', 'xen03'))

    audit = count(lambda api: api.audit(None, 'prod'))
    moved = count(
        lambda api: api.set_master(None, 'prod', 'xen02'), repeated=True
    )
    removed = count(_remove('xen01'))
    count(_remove('xen03'))
    last = count(_remove('xen02'))

    assert audit == {'xen01': 13, 'xen02': 2, 'xen03': 2}
    assert sum(moved.values()) <= 22
    assert removed == {'xen01': 2, 'xen02': 20, 'xen03': 0}
    assert last == {'xen01': 0, 'xen02': 12, 'xen03': 0}
