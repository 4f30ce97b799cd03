# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Hosts, four aggregates, and what is known of them while workers work."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import pathlib
import threading
import typing

from tests import seen
from tests.functional import driver_lab
from tests.model import sites
from tests.workers import clock
from xenpool_driver import conf as config
from xenpool_driver import simulator, store
from xenpool_driver.simulator import errors, machine

AGGREGATES = ('rack1', 'rack2', 'rack3', 'rack4')
HOSTS = 14

OPTIONS: dict[str, typing.Any] = {
    'poll_interval': 2.0,
    'probe_timeout': 5.0,
    'join_timeout': 600.0,
    'eject_timeout': 600.0,
    'master_change_timeout': 600.0,
}


class Yard:
    """The hosts, and the database of the workers.

    The judge of the model (``tests/model/judge.py``) judges it as well.

    :ivar executed: the changing calls of each operation, by its uuid: the
        logins that they were made over name it.
    :param lab: the hosts.
    :param path: the workers' configuration.
    """

    def __init__(self, lab: simulator.Simulation, path: pathlib.Path) -> None:
        self._lab = lab
        self._lock = threading.Lock()
        self.executed: dict[str, collections.Counter[tuple[str, ...]]] = (
            collections.defaultdict(collections.Counter)
        )
        self.path = path
        self.store = store.open_store(config.load([str(path)]))
        lab.faults.witness = self._witness

    @property
    def machines(self) -> list[machine.Machine]:
        """The hosts."""
        return self._lab.world.machines

    def host(self, name: str) -> machine.Machine:
        """Return the host called ``name``."""
        return self._lab.named(name)

    def _witness(self, host: str, call: typing.Any) -> None:
        """Note who had a host carry out a call that changes something."""
        _, _, verb = call.name.partition('.')
        if call.name.startswith(sites.HOUSEKEEPING) or verb.startswith(
            sites.UNCHANGING
        ):
            return
        try:
            originator = call.originator
        except errors.ApiError:
            originator = ''
        operation = originator.partition('/')[2] or 'nobody'
        words = (call.name, *map(str, call.args), f'@{host}')
        with self._lock:
            self.executed[operation][words] += 1

    def operations(self) -> list[store.Operation]:
        """Return all operations, oldest first."""
        return self.store.list_operations(limit=1_000_000)[::-1]


@contextlib.contextmanager
def opened(
    url: str, directory: pathlib.Path, lease: float
) -> collections.abc.Iterator[Yard]:
    """Yield hosts that stand alone, and aggregates without any.

    :param url: of an empty database.
    :param lease: of the workers; seconds.
    """
    store.migrate(url)
    seen.install(url)
    with driver_lab.simulation(HOSTS, clock.SCALE) as lab:
        path = driver_lab.configuration(
            lab, directory, database=url, lease_duration=lease, **OPTIONS
        )
        yard = Yard(lab, path)
        for name in AGGREGATES:
            yard.store.create_aggregate(name, driver_lab.FLAGS)
        try:
            yield yard
        finally:
            yard.store.close()
