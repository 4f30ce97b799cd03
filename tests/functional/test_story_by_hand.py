# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The demonstration's story typed by hand, against ``xenpool simulator run``.

After each command the aggregate's metadata and what plain XenAPI sessions
see are compared with what they should be.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import subprocess
import sys
import typing

import pytest
import XenAPI

from tests.functional import driver_lab
from xenpool_driver import conf as config
from xenpool_driver import pool_states, simulator, store

XENPOOL = (sys.executable, '-m', 'xenpool_driver.cli.main')
PATIENCE = 60.0


@dataclasses.dataclass(frozen=True)
class Child:
    """A simulator in a process of its own."""

    hosts: list[simulator.Host]
    ca_file: pathlib.Path


@contextlib.contextmanager
def simulated(
    directory: pathlib.Path,
) -> collections.abc.Iterator[Child]:
    """Run the command until the end of the test, then end it by SIGTERM."""
    words = ('simulator', 'run', '--hosts', '3', '--time-scale', '60')
    process = subprocess.Popen(
        [
            *(*XENPOOL, *words, '--state-dir', str(directory)),
            *('--address', driver_lab.address()),
            *('--port', '0', '--http-port', '0'),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        hosts = []
        for line in process.stdout:
            first, *rest = line.split()
            if first == 'ready':
                break
            name, url, uuid = rest
            address = url.removeprefix('https://').partition(':')[0]
            hosts.append(simulator.Host(name, address, url, '', uuid))
        yield Child(hosts, directory / 'ca.pem')
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@dataclasses.dataclass
class Desk:
    """Where the commands are typed."""

    child: Child
    path: pathlib.Path

    def __call__(self, *words: str) -> None:
        """Type one command; it succeeds."""
        done = subprocess.run(
            [*XENPOOL, '--config-file', str(self.path), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert driver_lab.PASSWORD not in done.stdout + done.stderr

    def expect(self, state: str, master: str = '', *others: str) -> None:
        """Compare metadata and XAPI with what they should say.

        :param state: the aggregate's.
        :param master: the pool's; none when there is no pool.
        :param others: the other members.
        """
        with contextlib.closing(
            store.open_store(config.load([str(self.path)]))
        ) as database:
            row = database.get_aggregate('prod', dismissed=True)
        members = [master, *others] if master else []
        uuids = {host.name: host.uuid for host in self.child.hosts}
        assert row.state == state
        assert sorted(row.hosts) == sorted(members)
        assert row.metadata.get(pool_states.MASTER, '') == master
        assert {
            name: row.metadata[name] for name in uuids if name in row.metadata
        } == {name: uuids[name] for name in members}
        wanted = {
            driver_lab.Pool(name, frozenset({name}), '', '')
            for name in uuids
            if name not in members
        }
        if master:
            wanted.add(
                driver_lab.Pool(master, frozenset(members), 'prod', row.uuid)
            )
        assert set(driver_lab.pools(self.child)) == wanted
        self.expect_work()

    def expect_work(self) -> None:
        """Make sure that each member of each pool is live and enabled."""
        for host in self.child.hosts:
            with (
                contextlib.suppress(XenAPI.Failure),
                driver_lab.session(self.child, host) as api,
            ):
                metrics = api.host_metrics.get_all_records()
                for record in api.host.get_all_records().values():
                    assert record['enabled'], record['name_label']
                    assert metrics[record['metrics']]['live']


@pytest.fixture
def xenpool(
    tmp_path: pathlib.Path,
) -> collections.abc.Iterator[typing.Any]:
    with simulated(tmp_path / 'state') as child:
        yield Desk(child, driver_lab.configuration(child, tmp_path))


@pytest.mark.slow
def test_each_command_leads_where_it_should(xenpool: Desk) -> None:
    aggregate = 'aggregate'
    remove = (aggregate, 'remove', 'host', 'prod')
    xenpool(aggregate, 'create', 'prod')
    xenpool.expect('created')

    xenpool(aggregate, 'add', 'host', 'prod', 'xen01')
    xenpool.expect('active', 'xen01')

    xenpool(aggregate, 'add', 'host', 'prod', 'xen02', 'xen03')
    xenpool.expect('active', 'xen01', 'xen02', 'xen03')

    xenpool(aggregate, 'set', 'master', 'prod', 'xen02')
    xenpool.expect('active', 'xen02', 'xen01', 'xen03')

    xenpool(*remove, 'xen03', '--yes', '--wait')
    xenpool.expect('active', 'xen02', 'xen01')

    xenpool(*remove, 'xen01', '--yes', '--wait')
    xenpool.expect('active', 'xen02')

    xenpool(*remove, 'xen02', '--yes')
    xenpool.expect('active')

    xenpool(aggregate, 'delete', 'prod')
    xenpool.expect('dismissed')
