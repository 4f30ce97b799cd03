# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A fresh simulated site for each cell of a matrix.

A :class:`Stage` is a simulation with a pool in it, a database that says what
the aggregate is, and a configuration that knows both. Nothing is left over
from one cell to the next, and building one takes some hundredths of a
second: certificates and the empty database are kept.
"""

from __future__ import annotations

import collections.abc
import itertools
import os
import pathlib
import shutil
import threading
import time
import typing

import yaml

from tests.matrix import scenarios
from xenpool_driver import conf as config
from xenpool_driver import driver, pool_states, simulator, store
from xenpool_driver.simulator import machine, startup

Machine = machine.Machine

SCALE = 30.0
"""Simulated seconds per real second."""

READ_TIMEOUT = 2.0
"""Real seconds that a host has to answer."""

LEASE = 60.0
"""Seconds that a dead worker's lease would hold."""

LATER, LATEST = 2 * LEASE, 4 * LEASE
"""Seconds by which the calendars of a second and a third worker are ahead:
to each the lease of the one before has run out."""

_BLOCKS = itertools.count()


class FastClock:
    """Time for a driver: waits pass as they do for the simulated hosts.

    :param ahead: seconds by which its calendar is ahead of ours, so that a
        lease which was given a moment ago has run out.
    """

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def time(self) -> float:
        """Return seconds since 1970, by a calendar that is ahead."""
        return time.time() + self.ahead

    def monotonic(self) -> float:
        """Return simulated seconds."""
        return time.monotonic() * SCALE

    def boottime(self) -> float:
        """Return seconds that leases count, ahead like the calendar."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.ahead

    def sleep(self, seconds: float) -> None:
        """Let simulated seconds pass."""
        time.sleep(seconds / SCALE)


def open_driver(
    path: str, ahead: float = 0.0
) -> tuple[driver.XenAPIPoolDriver, store.Store]:
    """Return a new worker's driver, and its store.

    :param path: the configuration file.
    :param ahead: see :class:`FastClock`.
    """
    conf = config.load([path])
    clock = FastClock(ahead)
    database = store.open_store(conf, clock=clock)
    return (
        driver.XenAPIPoolDriver(conf=conf, database=database, time=clock),
        database,
    )


class Kept:
    """What the stages of a run share.

    :param directory: where it is kept.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.certificates = directory / 'certificates'
        self.database = directory / 'empty.db'
        store.migrate(f'sqlite:///{self.database}')
        self._numbers = itertools.count(1)
        self._stopping: list[threading.Thread] = []

    def new_directory(self) -> pathlib.Path:
        """Return an empty directory for a stage."""
        path = self.directory / f'{next(self._numbers):05}'
        path.mkdir()
        return path

    def stop(self, simulation: simulator.Simulation) -> None:
        """End a simulation without waiting for it."""
        thread = threading.Thread(target=simulation.stop)
        thread.start()
        self._stopping.append(thread)
        self._stopping = [one for one in self._stopping if one.is_alive()]

    def close(self) -> None:
        """Wait until everything has ended."""
        for thread in self._stopping:
            thread.join()


def addresses(count: int) -> list[str]:
    """Return addresses that no other stage has just now."""
    second, third = divmod(os.getpid() % 10000, 250)
    first = 1 + next(_BLOCKS) % 30 * 8
    return [
        f'127.{110 + second}.{third}.{first + number}'
        for number in range(count)
    ]


class Stage:
    """A simulated site, with an aggregate that is declared in a database.

    :param scenario: what stands on it.
    :param kept: what all stages share.
    :param options: of the driver, beside the usual ones.
    :param database: the URL of an empty store; None: a file of its own.
    """

    def __init__(
        self,
        scenario: scenarios.Scenario,
        kept: Kept,
        options: collections.abc.Mapping[str, typing.Any] | None = None,
        database: str | None = None,
    ) -> None:
        self.scenario = scenario
        self._options = options or {}
        self._kept = kept
        self.directory = kept.new_directory()
        tree = scenario.tree()
        places = iter(addresses(8))
        for host in scenarios.hosts_of(tree):
            host['address'] = next(places)
        topology = self.directory / 'topology.yaml'
        topology.write_text(yaml.safe_dump(tree))
        self.simulation = simulator.Simulation(
            topology_file=topology,
            http_port=None,
            state_dir=kept.certificates,
            time_scale=SCALE,
            seed=1,
        )
        self.conf_file = self.directory / 'xenpool.conf'
        self.journal_file = self.directory / 'journal.db'
        self._database = database or f'sqlite:///{self.journal_file}'

    def __enter__(self) -> Stage:
        self.simulation.start()
        try:
            self._write_configuration()
            shutil.copy(self._kept.database, self.journal_file)
            self.pool_uuid = self._find_pool()
            self.store = store.open_store(config.load([str(self.conf_file)]))
            self.aggregate = self._declare()
            self.scenario.prepare(self)
        except BaseException:
            self._kept.stop(self.simulation)
            raise
        self.simulation.faults.executed.clear()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.store.close()
        self._kept.stop(self.simulation)
        shutil.rmtree(self.directory)

    def machine(self, name: str) -> Machine:
        """Return a machine by its name."""
        return self.simulation.named(name)

    @property
    def machines(self) -> dict[str, Machine]:
        """The machines, by name."""
        return {one.name: one for one in self.simulation.world.machines}

    def _write_configuration(self) -> None:
        options: dict[str, typing.Any] = {
            'poll_interval': 2.0,
            'probe_timeout': READ_TIMEOUT,
            'lease_duration': LEASE,
            'join_timeout': 200.0,
            'eject_timeout': 100.0,
            'master_change_timeout': 200.0,
            **self._options,
        }
        lines = [
            '[DEFAULT]',
            f"enabled_hosts = {','.join(self.machines)}",
            '[xenpool]',
            *(f'{key} = {value}' for key, value in options.items()),
            '[database]',
            f'connection = {self._database}',
        ]
        for host in self.simulation.hosts:
            lines += [
                f'[{host.name}]',
                f'connection_url = {host.url}',
                'connection_password = xenroot',
                f'ca_file = {self.simulation.ca_file}',
                f'connect_timeout = {READ_TIMEOUT}',
                f'read_timeout = {READ_TIMEOUT}',
            ]
        self.conf_file.write_text('\n'.join(lines))

    def _find_pool(self) -> str:
        """Return the uuid of the pool that the scenario is about."""
        first = (*self.scenario.pool, *self.scenario.free)[0]
        db = self.machine(first).db
        assert db is not None
        [pool] = db.all('pool').values()
        return str(pool['uuid'])

    def _declare(self) -> store.Aggregate:
        """Write the aggregate down as if it had always been so."""
        scenario = self.scenario
        metadata = {
            pool_states.POOL_FLAG: 'true',
            pool_states.STATE: scenario.state,
        }
        if scenario.members:
            metadata |= {
                pool_states.MASTER: scenario.members[0],
                pool_states.POOL_UUID: self.pool_uuid,
                **{host: self.machine(host).uuid for host in scenario.members},
            }
        row = self.store.create_aggregate(
            scenarios.NAME, metadata, scenarios.AGGREGATE
        )
        changes = store.Changes(add_hosts=scenario.members)
        return self.store.change(row.uuid, row.generation, changes)

    def await_return(self, name: str) -> None:
        """Wait until a machine that went down for a while is up again.

        :raises AssertionError: it is not in twenty seconds.
        """
        deadline = time.monotonic() + 20
        while not self.machine(name).powered:
            assert time.monotonic() < deadline, f'{name} stays away'
            time.sleep(0.02)

    def await_quiet(self) -> None:
        """Wait until every powered machine has started and no fuse burns.

        :raises AssertionError: they do not in twenty seconds.
        """
        deadline = time.monotonic() + 20
        while restless := [
            one.name
            for one in self.machines.values()
            if one.powered and not _is_quiet(one)
        ]:
            assert time.monotonic() < deadline, f'no rest: {restless}'
            time.sleep(0.02)


def _is_quiet(target: Machine) -> bool:
    process = target.process
    if process is None or process.fuse is not None:
        return False
    if process.role.kind == machine.SLAVE and not process.ready:
        # A member whose master is dead waits for ever; one whose master does
        # not know it, or restarted in its fuse, restarts for ever.
        master = target.world.machine_at(process.role.address)
        lost = master is None or not master.powered
        return lost or startup.is_forgotten(target) or startup.is_stuck(target)
    return process.ready or process.role.kind == machine.BROKEN
