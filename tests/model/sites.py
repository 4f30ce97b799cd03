# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Six hosts, two aggregates, two workers, without sockets and real time."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import logging
import pathlib
import shutil
import sqlite3
import unittest.mock

import greenlet  # type: ignore[import-untyped]

from tests import seen
from tests.model import greens, judge, workers
from xenpool_driver import conf as config
from xenpool_driver import pool_states, store
from xenpool_driver.simulator import (
    build,
    database,
    dispatch,
    errors,
    faults,
    gc,
    images,
    lifecycle,
    machine,
    startup,
    topology_parts,
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

HOUSEKEEPING = ('session.', 'task.')
"""How the names of calls begin that change nothing of a pool."""

UNCHANGING = ('get_', 'has_', 'is_', 'local_', 'assert_')
"""How the names of calls begin that change nothing."""

RECORDED_ONLY = frozenset(
    {
        'host.destroy',
        'host.disable',
        'host.enable',
        'pool.add_to_other_config',
        'pool.remove_from_other_config',
        'pool.set_ha_host_failures_to_tolerate',
        'pool.set_name_label',
    }
)
"""What changes a pool's database and nothing else. A coordinator that loses
its power loses the database's last minutes (recorded), and with them these."""

SWITCHES = {'pool.disable_ha': False, 'pool.enable_ha': True}
"""What switches HA, and whether it is on then."""

OPERATOR = 'operator'
"""The tag of what a person does with a pool, past the driver."""

SHARED = 'nfs1'
"""The shared storage of a pool that stood before."""

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


@dataclasses.dataclass(frozen=True)
class Executed:
    """A changing call that a host carried out.

    :ivar method: its name.
    :ivar pool: uuid of the pool whose database was changed, or ''.
    :ivar generation: the database's, before.
    """

    method: str
    pool: str = ''
    generation: int = 0


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
        self._stack.enter_context(
            unittest.mock.patch.object(
                startup, 'load_database', self._load_database
            )
        )
        self._stack.enter_context(
            unittest.mock.patch.object(startup, 'find_rival', self._find_rival)
        )
        self.complaints = Complaints()
        self._hear()
        self.world = greens.World(self.hub, seed=1)
        build.standalone(self.world, len(HOSTS), FIRST, 'xenroot')
        gc.start(self.world)
        shutil.copy(kept.empty, kept.used)
        self._told = sqlite3.connect(kept.used)
        self._stack.callback(self._told.close)
        self.store = core.Store(f'sqlite:///{kept.used}', clock=self.hub)
        self._executed: dict[str, list[Executed]] = collections.defaultdict(
            list
        )
        self.made: dict[tuple[str | None, str], None] = {}
        self.promoted: list[str] = []
        self.ghosts: set[tuple[str, str]] = set()
        self._latest: dict[str, database.Database] = {}
        self.world.faults.witness = self._witness
        self.world.booting = self._booting
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

    def told(self) -> int:
        """Return how many changes the database has told of."""
        (number,) = self._told.execute('SELECT max(number) FROM seen')
        return int(number[0] or 0)

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
        """Let hosts be a pool already, the first its master.

        One of several has shared storage, and a guest on its second host.
        """
        if not hosts:
            return
        master, *members = map(self.host, hosts)
        assert master.db is not None
        for member in members:
            lifecycle.exit_toolstack(member, restart=False)
        db = master.db
        build.form_pool(master, db, members)
        if members:
            topology_parts.furnish(db, [master, *members], _furniture(hosts))
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

    def switch_ha_on(self, host: str) -> None:
        """Let a person switch HA on in a host's pool, if that can be."""
        target = self.host(host)
        if not target.is_master or target.db is None:
            return
        srs = [
            ref
            for ref, sr in target.db.all('SR').items()
            if sr['name_label'] == SHARED
        ]
        self._operate(target, 'pool.enable_ha', srs, {'timeout': '90'})

    def _operate(
        self, target: machine.Machine, method: str, *args: object
    ) -> None:
        """Let a person make a call, and see no matter what comes of it."""

        def work() -> None:
            here = greenlet.getcurrent()
            here.tag = OPERATOR
            words = ['root', target.password, '1.0', OPERATOR]
            with contextlib.suppress(
                errors.ApiError,
                dispatch.GateRefusal,
                faults.Drop,
                faults.Garbage,
            ):
                login = 'session.login_with_password'
                session = dispatch.execute(target, login, words).value
                dispatch.execute(target, method, [session, *args])

        task = self.hub.spawn(work, owner=target)
        self.hub.run_until(lambda: task.dead, 60.0)

    def successor(self, one: machine.Machine) -> machine.Machine | None:
        """Return who was made the master of a pool instead of ``one``.

        Who was promoted last is it, else whom most hosts follow.
        """

        def rank(candidate: machine.Machine) -> tuple[int, int]:
            role = machine.Role(machine.SLAVE, candidate.address)
            votes = sum(other.role_file == role for other in self.machines)
            last = len(self.promoted) - 1
            promoted = candidate.name in self.promoted
            when = (
                last - self.promoted[::-1].index(candidate.name)
                if promoted
                else -1
            )
            return when, votes

        rivals = [
            other
            for other in self.machines
            if other.role_file.kind == machine.MASTER
            and other.secret == one.secret
        ]
        if one.role_file.kind != machine.MASTER or len(rivals) < 2:
            return None
        best = max(rivals, key=rank)
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
        if call.name.startswith(HOUSEKEEPING) or verb.startswith(UNCHANGING):
            return
        if call.name == 'pool.emergency_transition_to_master':
            self.promoted.append(host)
        here = greenlet.getcurrent()
        tag = getattr(here, 'tag', None)
        if tag == OPERATOR:
            return
        self.made.setdefault((tag, call.name))
        if call.name == 'pool.recover_slaves':
            self._recovered_anew(tag)
        if call.name in SWITCHES:
            self._switched_anew(tag, call.name, self.host(host))
        done = Executed(call.name)
        db = self.host(host).db
        if db is not None:
            pool = _pool_uuid(db.all('pool'))
            done = Executed(call.name, pool, db.generation)
            self._latest[pool] = db
        self._executed['nobody' if tag is None else tag].append(done)

    def _recovered_anew(self, tag: str | None) -> None:
        """Take back that members were told of their master: one was not.

        It was off, or the toolstack that told them ended half-way.
        """
        found = {self.host(pool.master) for pool in judge.pools(self)}
        if any(self.successor(one) or self._strays(one) for one in found):
            calls = self._executed[tag or 'nobody']
            calls[:] = [
                one for one in calls if one.method != 'pool.recover_slaves'
            ]

    def _switched_anew(
        self, tag: str | None, method: str, target: machine.Machine
    ) -> None:
        """Take back that HA was switched: it came to nothing.

        A host died meanwhile, or the toolstack that switched it.
        """
        pools = target.db.all('pool').values() if target.db else ()
        if all(
            pool['ha_enabled'] != SWITCHES[method]
            and not pool['current_operations']
            for pool in pools
        ):
            calls = self._executed[tag or 'nobody']
            calls[:] = [one for one in calls if one.method != method]

    def _strays(self, master: machine.Machine) -> bool:
        """Say whether a member that the master knows follows another one."""
        known = master.db.table('host').by_uuid if master.db else {}
        return any(
            one.uuid in known
            and one is not master
            and one.secret == master.secret
            and one.role_file.address != master.address
            for one in self.machines
        )

    def _booting(self, method: str) -> None:
        """Take back that a call was carried out: nothing was."""
        here = greenlet.getcurrent()
        calls = self._executed[getattr(here, 'tag', None) or 'nobody']
        if calls and calls[-1].method == method:
            calls.pop()

    @property
    def executed(self) -> dict[str, collections.Counter[tuple[str, ...]]]:
        """Which changing calls the hosts carried out how often, by the
        operation that they were made for."""
        return {
            tag: collections.Counter((one.method,) for one in calls)
            for tag, calls in self._executed.items()
        }

    def living(
        self, found: collections.abc.Iterable[judge.Pool]
    ) -> list[judge.Pool]:
        """Return the pools without their ghosts.

        A ghost, which its former master lists again because it has lost the
        last minutes of its database, is not there for anybody else.
        """
        return [
            dataclasses.replace(
                pool,
                members=frozenset(
                    host
                    for host in pool.members
                    if not self._is_ghost(self.host(host), pool)
                ),
            )
            for pool in found
        ]

    def _is_ghost(self, one: machine.Machine, pool: judge.Pool) -> bool:
        follows = one.role[1] or one.address
        return (pool.uuid, one.uuid) in self.ghosts and follows != self.host(
            pool.master
        ).address

    def _find_rival(
        self, target: machine.Machine, db: database.Database
    ) -> machine.Machine | None:
        """Switch a replaced master off whose successor has died meanwhile.

        It would take over again; a person who brings it back watches it.
        """
        rival = _FIND(target, db)
        if rival is None and self.successor(target) is not None:
            self.note(f'{target.name} is switched off again')
            lifecycle.kill_machine(target)
        return rival

    def last_members(self, pool: str) -> set[str]:
        """Return the names of the hosts that a pool was last known to have.

        :param pool: its uuid.
        """
        db = self._latest.get(pool)
        uuids = {} if db is None else db.table('host').by_uuid
        return {one.name for one in self.machines if one.uuid in uuids}

    def _load_database(self, target: machine.Machine) -> database.Database:
        """Let a starting master read its disk; note what it has lost.

        What was done is undone then, and hosts that had left are listed
        again, as ghosts.
        """
        disk = target.disk
        db = _LOAD(target)
        if disk is not None:
            for calls in self._executed.values():
                calls[:] = [one for one in calls if not _is_lost(one, disk)]
            pool = _pool_uuid(disk.records['pool'])
            known = self._latest.get(pool, db).table('host').by_uuid
            self.ghosts.update(
                (pool, uuid)
                for uuid in db.table('host').by_uuid
                if uuid not in known
            )
            self._latest[pool] = db
        return db


_LOAD = startup.load_database
_FIND = startup.find_rival


def _pool_uuid(
    pools: collections.abc.Mapping[str, database.Record],
) -> str:
    return next((str(pool['uuid']) for pool in pools.values()), '')


def _is_lost(one: Executed, disk: images.Image) -> bool:
    """Say whether what a call did is not in a database on disk."""
    return (
        one.method in RECORDED_ONLY
        and one.pool == _pool_uuid(disk.records['pool'])
        and one.generation >= disk.generation
    )


def _furniture(
    hosts: collections.abc.Sequence[str],
) -> dict[str, object]:
    """Return what a pool has that stood before, as a topology tells it."""
    return {
        'srs': [{'name': SHARED, 'shared': True}],
        'vms': [
            {
                'name': f'guest of {hosts[0]}',
                'host': hosts[1],
                'power_state': 'Running',
                'disks': [{'sr': SHARED}],
            }
        ],
    }
