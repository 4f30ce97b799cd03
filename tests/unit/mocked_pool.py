# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Hosts whose XenAPI sessions are mocks, with answers that fit together.

The driver gets the mocks through its ``session_factory``. Each host answers
from raw records as a real XAPI gave them; the few calls that change
something change these records, some at once and some when the clock has
gone on, in the order that was recorded. A test may replace any answer: it is
an ordinary mock, ``world['xen02'].api.Async.pool.join.side_effect = ...``.
"""

from __future__ import annotations

import collections.abc
import functools
import json
import pathlib
import re
import tempfile
import typing
import uuid
from unittest import mock

from tests.unit import mocked_calls, raw_pools
from xenpool_driver import conf as config
from xenpool_driver import driver, pool_states, store

SPREAD = 'xen01 Async.pool.sync_database'
"""The change that a join ends with: members get a copy of what is new."""

PASSWORD = mocked_calls.PASSWORD
FUSE = mocked_calls.FUSE

failure = mocked_calls.failure


_OPAQUE = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')

Record = dict[str, typing.Any]


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self._due: list[tuple[float, typing.Callable[[], object]]] = []

    def time(self) -> float:
        """Return seconds since 1970."""
        return self.now

    def monotonic(self) -> float:
        """Return seconds."""
        return self.now

    def boottime(self) -> float:
        """Return seconds."""
        return self.now

    def later(
        self, seconds: float, happen: typing.Callable[[], object]
    ) -> None:
        """Let something happen when ``seconds`` have passed."""
        self._due.append((self.now + seconds, happen))

    def sleep(self, seconds: float) -> None:
        """Let seconds pass, and happen what is due."""
        self.now += seconds
        due = [happen for when, happen in self._due if when <= self.now]
        self._due = [entry for entry in self._due if entry[0] > self.now]
        for happen in due:
            happen()


class Host:
    """A host and the mock of its session.

    :ivar raw: the records that it serves, or its master's.
    :ivar master: whom it takes for its master; itself when it is one.
    :ivar alive: whether it answers.
    """

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"xen{number:02}"
        self.address = f"192.0.2.{number}"
        self.alive = True
        self.master = self
        self.raw = self.fresh()
        self.uuid: str = raw_pools.host(self.raw)[1]['uuid']
        self.session = mock.Mock(name=self.name)
        self.session.handle = f"OpaqueRef:session-{self.name}"
        mocked_calls.script(self)

    @property
    def api(self) -> typing.Any:
        """The mock of ``session.xenapi``."""
        return self.session.xenapi

    @property
    def pool(self) -> Record:
        """The pool record."""
        return raw_pools.only(self.raw, 'pool')

    @property
    def ref(self) -> str:
        """The host's reference in its pool; '' when it has no record."""
        for ref, record in self.raw['host'].items():
            if record['uuid'] == self.uuid:
                return str(ref)
        return ''

    @property
    def record(self) -> Record:
        """The host's record in its pool."""
        return self.raw['host'][self.ref]

    @property
    def metrics(self) -> Record:
        """What its master last heard of it."""
        return self.raw['host_metrics'][self.record['metrics']]

    def fresh(self) -> raw_pools.Raw:
        """Return the records of a new pool of this host alone."""
        joiner, _ = raw_pools.pair()
        (record,) = joiner['host'].values()
        text = json.dumps(joiner).replace(record['address'], self.address)
        text = text.replace(f'"{record["hostname"]}"', f'"{self.name}"')
        raw: raw_pools.Raw = json.loads(
            _OPAQUE.sub(
                lambda found: str(
                    uuid.uuid5(uuid.NAMESPACE_OID, found[0] + self.name)
                ),
                text,
            )
        )
        raw_pools.only(raw, 'pool')['name_label'] = ''
        return raw

    def serve(self) -> None:
        """Let a call pass that only a master answers."""
        if not self.alive:
            raise ConnectionRefusedError(111, 'refused')
        if self.master is not self:
            raise mocked_calls.failure('HOST_IS_SLAVE', self.master.address)

    def die(self) -> None:
        """Answer no more; the master has noticed."""
        self.record['enabled'] = self.metrics['live'] = False
        self.alive = False


class World:
    """Stand-alone hosts ``xen01``, ``xen02``...

    :ivar clock: the time of the driver, and of what happens by itself.
    :ivar log: the mock that knows the order of all calls to all hosts.
    :ivar failing: ``{call: error}`` of calls whose task shall fail.
    """

    def __init__(self, hosts: int = 3) -> None:
        self.clock = Clock()
        self.failing: dict[str, list[str]] = {}
        self.log = mock.Mock()
        self.hosts = [Host(self, number + 1) for number in range(hosts)]
        for host in self.hosts:
            self.log.attach_mock(host.session, host.name)

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def at(self, address: str) -> Host:
        """Return the host at an address."""
        return next(host for host in self.hosts if host.address == address)

    def factory(self, url: str, transport: typing.Any) -> mock.Mock:
        """Be ``XenAPI.Session``."""
        return self.at(url.split('/')[2]).session

    def members(self, master: Host) -> list[Host]:
        """Return the hosts of a pool that have a record there."""
        return [host for host in self.hosts if host.raw is master.raw]

    def calls(self) -> list[tuple[str, str, tuple[typing.Any, ...]]]:
        """Return (host, method, arguments) of all calls, in order."""
        found = []
        for name, args, _ in self.log.mock_calls:
            host, _, method = name.partition('.')
            found.append((host, method.removeprefix('xenapi.'), args))
        return found

    def changes(self) -> list[str]:
        """Return the calls that change something: ``xen02 pool.join``."""
        return [
            f"{host} {method}"
            for host, method, _ in self.calls()
            if not _is_read(method)
        ]

    def forget_calls(self) -> None:
        """Begin a new record of calls."""
        self.log.reset_mock()

    def lose_answer(self, host: str, method: str) -> None:
        """Let calls be carried out and their answers get lost."""
        call = mocked_calls.found(self[host].api, method)
        does = call.side_effect

        def answer(*args: typing.Any) -> typing.NoReturn:
            does(*args)
            raise ConnectionResetError(104, 'reset')

        call.side_effect = answer

    def configure(
        self,
        directory: pathlib.Path,
        sections: collections.abc.Mapping[str, str] | None = None,
        **options: object,
    ) -> pathlib.Path:
        """Write a configuration for all hosts and return the file.

        :param sections: more lines, by section.
        :param options: options of ``[xenpool]``.
        """
        names = [host.name for host in self.hosts]
        lines = ['[DEFAULT]', f"enabled_hosts = {','.join(names)}"]
        lines += ['[database]', f"connection = sqlite:///{directory}/x.db"]
        lines += ['[xenpool]', *(f"{k} = {v}" for k, v in options.items())]
        for host in self.hosts:
            lines += [
                f"[{host.name}]",
                f"connection_url = http://{host.address}",
                f"connection_password = {PASSWORD}",
                (sections or {}).get(host.name, ''),
            ]
        path = directory / 'xenpool.conf'
        path.write_text('\n'.join(lines))
        if not (directory / 'x.db').exists():
            (directory / 'x.db').write_bytes(_new_database())
        return path

    def driver(
        self,
        directory: pathlib.Path,
        virtapi: typing.Any = None,
        sections: collections.abc.Mapping[str, str] | None = None,
        **options: object,
    ) -> driver.XenAPIPoolDriver:
        """Return a driver that meets these hosts.

        It has a store of its own, as a driver in another process has.
        """
        path = self.configure(directory, sections, **options)
        conf = config.load([str(path)])
        return driver.XenAPIPoolDriver(
            virtapi,
            conf,
            database=store.Store(conf.database.connection, clock=self.clock),
            session_factory=self.factory,
            time=self.clock,
        )


def aggregate(
    plugin: driver.XenAPIPoolDriver,
    name: str = 'rack1',
    **metadata: str,
) -> store.Aggregate:
    """Return a new pool aggregate of the driver's own store."""
    return plugin.site.store.create_aggregate(
        name,
        {
            pool_states.POOL_FLAG: 'true',
            pool_states.STATE: pool_states.CREATED,
            **metadata,
        },
    )


def formed(
    world: World, plugin: driver.XenAPIPoolDriver, hosts: int = 3
) -> store.Aggregate:
    """Return an aggregate of the first so many hosts; forget the calls."""
    row = aggregate(plugin)
    for host in world.hosts[:hosts]:
        plugin.add_to_aggregate(None, row, host.name)
    world.forget_calls()
    return row


def stories(
    plugin: driver.XenAPIPoolDriver, row: store.Aggregate
) -> list[tuple[str, str | None, str | None]]:
    """Return (kind, host, outcome) of an aggregate's operations, in order."""
    return [
        (entry.kind, entry.host, entry.outcome)
        for entry in reversed(plugin.site.store.list_operations(row.uuid))
    ]


def phases(plugin: driver.XenAPIPoolDriver, row: store.Aggregate) -> list[str]:
    """Return the phases of the latest operation."""
    [latest, *_] = plugin.site.store.list_operations(row.uuid)
    return [line.phase for line in plugin.site.store.phases(latest.uuid)]


def frozen(
    world: World, plugin: driver.XenAPIPoolDriver, row: store.Aggregate
) -> str:
    """Return all that a request may change, to be compared."""
    now = plugin.site.store.get_aggregate(row.uuid, dismissed=True)
    return json.dumps(
        [
            [now.name, now.hosts, now.metadata, now.generation],
            stories(plugin, row),
            [(host.raw, host.master.name) for host in world.hosts],
        ],
        sort_keys=True,
    )


@functools.cache
def _new_database() -> bytes:
    """Return an SQLite file with the code's schema; made only once."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / 'x.db'
        store.migrate(f"sqlite:///{path}")
        return path.read_bytes()


def _is_read(method: str) -> bool:
    *cls, last = method.split('.')
    if cls in (['session'], ['task']):
        return True
    return last.startswith(('get_', 'is_', 'local_assert')) or 'log' in last
