# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver on simulated hosts that break off, die and come back."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses
import pathlib

import pytest

from tests.functional import driver_lab
from xenpool_driver import driver, exceptions, pool_states, simulator, store
from xenpool_driver.simulator import mishaps


@dataclasses.dataclass
class Bench:
    """Three hosts, a driver, and an aggregate."""

    lab: simulator.Simulation
    plugin: driver.XenAPIPoolDriver
    row: store.Aggregate

    def add(self, *hosts: str) -> None:
        for host in hosts:
            self.plugin.add_to_aggregate(None, self.row, host)

    def executed(self, method: str) -> int:
        """Return how often the hosts have carried a call out."""
        return self.lab.calls().get(method, 0)

    def pool(self) -> driver_lab.Pool | None:
        """Return the pool as XAPI shows it."""
        return driver_lab.pool_of(self.lab, self.row.uuid)


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> collections.abc.Iterator[Bench]:
    with driver_lab.simulation(3) as lab:
        path = driver_lab.configuration(lab, tmp_path, probe_timeout=2)
        plugin = driver_lab.make_driver(path)
        row = plugin.site.store.create_aggregate('rack1', driver_lab.FLAGS)
        yield Bench(lab, plugin, row)
        plugin.close()


def test_calls_whose_answers_get_lost_are_made_once(bench: Bench) -> None:
    bench.add('xen01')
    for method in (
        'pool.join',
        'pool.designate_new_master',
        'pool.eject',
    ):
        bench.lab.faults.drop(method, after=True)

    bench.add('xen02')
    assert bench.executed('pool.join') == 1
    bench.plugin.set_aggregate_master(None, bench.row, 'xen02')
    assert bench.executed('pool.designate_new_master') == 1
    assert bench.row.metadata[pool_states.MASTER] == 'xen02'
    bench.plugin.remove_from_aggregate(None, bench.row, 'xen01', wait=True)
    assert bench.executed('pool.eject') == 1

    assert bench.row.hosts == ['xen02']
    assert bench.row.metadata[pool_states.FAILED_REQUESTS] == '0'
    driver_lab.settle(bench.lab)
    assert bench.pool() == driver_lab.Pool(
        'xen02', frozenset({'xen02'}), 'rack1', bench.row.uuid
    )


def test_a_call_that_was_cut_off_on_its_way_is_not_made_again(
    bench: Bench,
) -> None:
    bench.add('xen01')
    bench.lab.faults.drop('pool.join')

    with pytest.raises(exceptions.AggregateError, match='not in the pool'):
        bench.add('xen02')

    assert bench.executed('pool.join') == 0
    assert bench.row.hosts == ['xen01']
    bench.add('xen02')
    assert bench.row.hosts == ['xen01', 'xen02']


def test_hosts_join_at_the_same_time(bench: Bench) -> None:
    bench.add('xen01')

    def add(host: str) -> None:
        row = bench.plugin.site.store.get_aggregate(bench.row.uuid)
        bench.plugin.add_to_aggregate(None, row, host)

    with concurrent.futures.ThreadPoolExecutor(2) as workers:
        list(workers.map(add, ['xen02', 'xen03']))

    assert bench.executed('pool.join') == 2
    assert bench.executed('pool.sync_database') in (1, 2)
    bench.row.refresh()
    assert bench.row.state == pool_states.ACTIVE
    assert bench.pool() == driver_lab.Pool(
        'xen01',
        frozenset({'xen01', 'xen02', 'xen03'}),
        'rack1',
        bench.row.uuid,
    )


def test_a_dead_master_is_replaced_and_forgotten(bench: Bench) -> None:
    bench.add('xen01', 'xen02', 'xen03')
    mishaps.kill(bench.lab.named('xen01'))

    report = bench.plugin.audit_aggregate(None, bench.row)
    assert '--promote' in report.failures[0].remedy
    bench.plugin.recover_aggregate(None, bench.row, promote='xen02')
    assert bench.row.metadata[pool_states.MASTER] == 'xen02'
    bench.plugin.remove_from_aggregate(None, bench.row, 'xen01', forget=True)

    assert sorted(bench.row.hosts) == ['xen02', 'xen03']
    assert bench.row.state == pool_states.ACTIVE
    audit = bench.plugin.audit_aggregate(None, bench.row)
    assert not audit.failures, audit.failures


def test_a_dead_member_blocks_a_change_of_master_until_it_is_forgotten(
    bench: Bench,
) -> None:
    bench.add('xen01', 'xen02', 'xen03')
    mishaps.kill(bench.lab.named('xen03'))

    with pytest.raises(exceptions.InvalidAggregateActionUpdate, match='xen03'):
        bench.plugin.set_aggregate_master(None, bench.row, 'xen02')
    bench.plugin.remove_from_aggregate(None, bench.row, 'xen03', forget=True)
    bench.plugin.set_aggregate_master(None, bench.row, 'xen02')

    assert bench.row.hosts == ['xen01', 'xen02']
    assert bench.row.metadata[pool_states.MASTER] == 'xen02'


def test_sessions_that_expire_are_made_anew(bench: Bench) -> None:
    bench.add('xen01', 'xen02')
    for each in bench.lab.world.machines:
        mishaps.expire_sessions(each)

    bench.plugin.remove_from_aggregate(None, bench.row, 'xen02')

    assert bench.row.hosts == ['xen01']
    assert bench.executed('pool.eject') == 1


def test_a_master_that_restarts_during_a_join_is_waited_for(
    bench: Bench,
) -> None:
    """It restarts when the joiner has its control domain, not before.

    Earlier the joiner would be stuck for ever (recorded).
    """
    bench.add('xen01')
    master = bench.lab.named('xen01')
    joiner = bench.lab.named('xen02')
    restarted: list[str] = []

    def has_its_domain() -> bool:
        db = master.db
        known = db and db.table('VM').by_uuid.get(joiner.hardware.dom0_uuid)
        return bool(
            db and known and db.get('VM', known)['power_state'] == 'Running'
        )

    def restart(host: str, phase: str, fraction: float | None) -> None:
        if phase == 'restart' and not restarted:
            restarted.append(host)
            bench.lab.world.wait_for(has_its_domain)
            mishaps.restart_toolstack(master)

    bench.plugin.add_to_aggregate(None, bench.row, 'xen02', progress=restart)

    assert restarted == ['xen02']
    assert bench.row.hosts == ['xen01', 'xen02']
    assert bench.executed('pool.join') == 1
