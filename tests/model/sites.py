# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Six hosts, two aggregates, two workers, without sockets and real time."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import logging
import pathlib
import shutil
import unittest.mock

import greenlet  # type: ignore[import-untyped]

from tests import seen
from tests.model import greens, workers
from xenpool_driver import conf as config
from xenpool_driver import pool_states, store
from xenpool_driver.simulator import (
    build,
    faults,
    gc,
    lifecycle,
    machine,
    verbs,
)
from xenpool_driver.store import core
from xenpool_driver.xapi import transport

REGISTERED = verbs.MODULES
"""Importing these is what makes their messages known."""

FIRST = '127.100.0.1'
HOSTS = tuple(f'xen{number:02}' for number in range(1, 7))
POOLS = ('rack1', 'rack2')
LEASE = 60.0

UNCHANGING = ('get_', 'has_', 'is_', 'local_', 'assert_')
"""How the names of calls begin that change nothing."""

_OPTIONS = {
    'poll_interval': 2.0,
    'probe_timeout': 3.0,
    'lease_duration': LEASE,
    'join_timeout': 150.0,
    'eject_timeout': 60.0,
    'first_boot_timeout': 100.0,
    'master_change_timeout': 120.0,
    'drain_timeout': 100.0,
}


class Kept:
    """What all sites of a run share.

    :param directory: for files.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.empty = directory / 'empty.db'
        self.used = directory / 'used.db'
        store.migrate(f'sqlite:///{self.empty}')
        seen.install(f'sqlite:///{self.empty}')
        path = directory / 'xenpool.conf'
        path.write_text(_configuration())
        self.conf = config.load([str(path)])


def _configuration() -> str:
    lines = ['[DEFAULT]', f"enabled_hosts = {','.join(HOSTS)}", '[xenpool]']
    lines += [f'{key} = {value}' for key, value in _OPTIONS.items()]
    for name, address in zip(HOSTS, build.addresses(FIRST), strict=False):
        lines += [
            f'[{name}]',
            f'connection_url = https://{address}',
            'connection_password = xenroot',
        ]
    return '\n'.join(lines)


def _no_tls(access: config.HostAccess) -> None:
    """Load no certificates: no bytes travel."""


class Complaints(logging.Handler):
    """Hears what the simulator logs as its own fault."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(self.format(record))


class Site:
    """A fresh site.

    :param kept: what all sites share.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._stack = contextlib.ExitStack()
        self.hub = greens.Hub()
        self.hub.ends += (workers.Killed,)
        self._stack.enter_context(greens.patched(self.hub))
        self._stack.enter_context(
            unittest.mock.patch.object(transport, 'tls_context', _no_tls)
        )
        self.complaints = Complaints()
        self._hear()
        self.world = greens.World(self.hub, seed=1)
        build.standalone(self.world, len(HOSTS), FIRST, 'xenroot')
        gc.start(self.world)
        shutil.copy(kept.empty, kept.used)
        self.store = core.Store(f'sqlite:///{kept.used}', clock=self.hub)
        self.executed: dict[str, collections.Counter[tuple[str, ...]]] = (
            collections.defaultdict(collections.Counter)
        )
        self.world.faults.witness = self._witness
        self.notes: list[str] = []
        self._count = 0
        self.workers = [self.hire(), self.hire()]

    def _hear(self) -> None:
        logger = logging.getLogger('xenpool_driver.simulator')
        logger.addHandler(self.complaints)
        self._stack.callback(logger.removeHandler, self.complaints)

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.is_dead = True
        self.hub.close()
        self.store.close()
        self._stack.close()

    def note(self, text: str) -> None:
        """Note what happens, for who reads of a failure."""
        self.notes.append(f'{self.hub.now() - greens.START:.1f} {text}')

    def hire(self) -> workers.Worker:
        """Return a new worker."""
        self._count += 1
        return workers.Worker(
            f'worker {self._count}', self._kept.conf, self.store, self.world
        )

    @property
    def machines(self) -> list[machine.Machine]:
        """The hosts."""
        return self.world.machines

    def host(self, name: str) -> machine.Machine:
        """Return the host called ``name``."""
        return self.world.named(name)

    def form(self, hosts: collections.abc.Sequence[str]) -> None:
        """Let hosts be a pool already, the first its master."""
        if not hosts:
            return
        master, *members = map(self.host, hosts)
        assert master.db is not None
        for member in members:
            lifecycle.exit_toolstack(member, restart=False)
        build.form_pool(master, master.db, members)
        lifecycle.flush(master)

    def create(self, name: str) -> store.Aggregate:
        """Return a new aggregate that shall become a pool."""
        return self.store.create_aggregate(
            name,
            {
                pool_states.POOL_FLAG: 'true',
                pool_states.STATE: pool_states.CREATED,
            },
        )

    def successor(self, one: machine.Machine) -> machine.Machine | None:
        """Return who was made the master of a pool instead of ``one``."""

        def votes(candidate: machine.Machine) -> int:
            role = machine.Role(machine.SLAVE, candidate.address)
            return sum(other.role_file == role for other in self.machines)

        rivals = [
            other
            for other in self.machines
            if other.role_file.kind == machine.MASTER
            and other.secret == one.secret
        ]
        if one.role_file.kind != machine.MASTER or len(rivals) < 2:
            return None
        best = max(rivals, key=votes)
        return None if best is one else best

    def may_return(self, one: machine.Machine) -> bool:
        """Say whether a host that is switched on does no harm.

        A replaced master that does not know its successor, because its copy
        of the database is older, would go on as if nothing had happened.
        """
        successor = self.successor(one)
        if successor is None or one.disk is None:
            return True
        known = one.disk.records['host'].values()
        return successor.uuid in {record['uuid'] for record in known}

    def _witness(self, host: str, call: faults.Call) -> None:
        """Note which operation had a host carry out a changing call."""
        _, _, verb = call.name.partition('.')
        if call.name.startswith('session.') or verb.startswith(UNCHANGING):
            return
        here = greenlet.getcurrent()
        tag = getattr(here, 'tag', None)
        if tag is None:
            tag = 'nobody'
        words = (call.name, *map(str, call.args))
        self.executed[tag][words] += 1
