# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A stage for rehearsals: simulated twins of real hosts, the real driver.

The stage lasts as long as its ``with`` block: a simulator that serves the
records that were read, a store that holds copies of the aggregates, and a
driver that works on both. Its clock is the simulator's, so that what takes
minutes in life takes seconds here and is still measured in minutes.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import secrets
import socket
import tempfile
import typing

from xenpool_driver import conf as config
from xenpool_driver import driver, exceptions, store
from xenpool_driver.cli import rehearsal_reads
from xenpool_driver.compute import aggregates, manager
from xenpool_driver.conf import numbers, options

if typing.TYPE_CHECKING:
    from oslo_config import cfg

    from xenpool_driver import simulator
    from xenpool_driver.simulator import clock as simulated_clock
    from xenpool_driver.simulator import faults, machine

TIME_SCALE = 20.0
"""Simulated seconds per second. Faster, and the machine's own speed would
show in the estimate."""

LEASE = float(numbers.DAY)
"""Simulated seconds, the most that a lease may last: nobody else works on
the stage."""

_OWN_OPTIONS = {'compute_driver', 'lease_duration'}

_READS = (
    'get_',
    'is_',
    'assert_',
    'local_assert_',
    'list_',
    'has_',
    'query_',
    'login',
)
_BOOKKEEPING = {'session', 'task', 'event', 'system'}
_SHOWN_ARGUMENTS = {'pool.join': 1, 'pool.join_force': 1}
"""How many arguments are shown where the others are credentials."""

_NOWHERE = 'https://127.255.255.254:1'
"""Where nobody answers."""

_stages = itertools.count(os.getpid())


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that changes something.

    :ivar at: simulated seconds since the request.
    :ivar host: the compute host that was asked.
    :ivar method: for example ``pool.join``.
    :ivar arguments: readable, without credentials.
    """

    at: float
    host: str
    method: str
    arguments: str

    def to_dict(self) -> dict[str, typing.Any]:
        """Return the machine-readable form."""
        return dataclasses.asdict(self) | {'at': round(self.at, 1)}


@dataclasses.dataclass(frozen=True)
class Step:
    """A phase of an operation, as the journal has it.

    :ivar at: simulated seconds since the request.
    """

    at: float
    host: str
    kind: str
    phase: str
    note: str

    def to_dict(self) -> dict[str, typing.Any]:
        """Return the machine-readable form."""
        return dataclasses.asdict(self) | {'at': round(self.at, 1)}


class Time:
    """The simulator's clock, as the driver knows clocks."""

    def __init__(self, clock: simulated_clock.Clock) -> None:
        self._clock = clock

    def time(self) -> float:
        """Return simulated seconds since 1970."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Return simulated seconds."""
        return self._clock.now()

    def boottime(self) -> float:
        """Return simulated seconds."""
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` (simulated) pass."""
        self._clock.sleep(seconds)


class Stage:
    """Simulated twins of real hosts, and the real driver.

    :ivar api: what a request is made to.
    :param simulated: the twins.
    :param conf: the configuration for them.
    :param database: the copies of the aggregates.
    :param names: compute host by the name of its twin.
    :param real: the real addresses, by compute host.
    """

    def __init__(
        self,
        simulated: simulator.Simulation,
        conf: cfg.ConfigOpts,
        database: store.Store,
        names: collections.abc.Mapping[str, str],
        real: collections.abc.Mapping[str, str],
    ) -> None:
        self._simulated = simulated
        self._database = database
        self._names = names
        self._real = real
        self._time = Time(simulated.clock)
        self._started = self._time.time()
        self._calls: list[Call] = []
        self._driver = driver.XenAPIPoolDriver(
            conf=conf, database=database, time=self._time
        )
        compute = manager.ComputeManager(
            dict.fromkeys(names.values(), self._driver)
        )
        self.api = aggregates.AggregateAPI(conf, database, lambda: compute)

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses of the real hosts, by those of their twins."""
        found = {}
        for target in self._simulated.world.machines:
            host = self._names.get(target.name)
            if host is not None:
                found[target.address] = self._real[host]
        # the longest first: one may be the beginning of another
        return dict(sorted(found.items(), key=lambda each: -len(each[0])))

    def knows(self, host: str) -> bool:
        """Say whether a compute host has a twin here."""
        return host in self._names.values()

    def begin(self) -> None:
        """Count the time, and write the calls down, from now on."""
        self._started = self._time.time()
        self._simulated.faults.witness = self._hear

    def close(self) -> None:
        """Log out of the twins."""
        self._driver.site.connections.close()

    @property
    def seconds(self) -> float:
        """Simulated seconds since :meth:`begin`."""
        return self._time.time() - self._started

    @property
    def calls(self) -> list[Call]:
        """The calls that changed something, in order."""
        return list(self._calls)

    def steps(self, aggregate_uuid: str) -> list[Step]:
        """Return the phases of all operations since :meth:`begin`."""
        found = [
            Step(
                phase.at - self._started,
                each.host or '',
                each.kind,
                phase.phase,
                phase.note,
            )
            for each in self._operations(aggregate_uuid)
            for phase in self._database.phases(each.uuid)
        ]
        return sorted(found, key=lambda step: step.at)

    def losses(self, aggregate_uuid: str) -> dict[str, list[typing.Any]]:
        """Return, by compute host, the findings of what joins lost."""
        return {
            each.host: each.details['losses']
            for each in self._operations(aggregate_uuid)
            if each.host and each.details.get('losses')
        }

    def _operations(self, aggregate_uuid: str) -> list[store.Operation]:
        found = self._database.list_operations(aggregate_uuid, limit=1000)
        return [op for op in found if op.started_at >= self._started]

    def _hear(self, name: str, call: faults.Call) -> None:
        """Write a call down if it changes something."""
        cls, _, method = call.name.partition('.')
        if cls in _BOOKKEEPING or method.startswith(_READS):
            return
        shown = call.args[: _SHOWN_ARGUMENTS.get(call.name)]
        target = self._simulated.named(name)
        words = [self._word(target, argument) for argument in shown]
        self._calls.append(
            Call(
                self.seconds,
                self._names.get(name, name),
                call.name,
                ', '.join(words),
            )
        )

    def _word(self, target: machine.Machine, argument: typing.Any) -> str:
        """Return a readable form of an argument."""
        if not isinstance(argument, str):
            return json.dumps(argument)
        addressed = self._simulated.world.machine_at(argument)
        if addressed is not None:
            return self._names.get(addressed.name, addressed.name)
        db = target.db
        cls = db.class_of(argument) if db is not None else None
        if db is None or cls is None:
            return argument
        record = db.get(cls, argument)
        for other in self._simulated.world.machines:
            if (cls, other.uuid) == ('host', record['uuid']):
                return self._names.get(other.name, other.name)
        label = record.get('name_label') or record.get('uuid') or argument
        return f"{cls} {label}"


@contextlib.contextmanager
def stage(
    conf: cfg.ConfigOpts,
    database: store.Store,
    row: store.Aggregate,
    reading: rehearsal_reads.Reading,
    scale: float,
) -> collections.abc.Iterator[Stage]:
    """Set a stage; clear it away afterwards.

    :param conf: the real configuration.
    :param database: the real store; it is only read.
    :param row: the aggregate that the rehearsal is about.
    :param reading: what was read of the real hosts.
    :param scale: simulated seconds per second.
    """
    with contextlib.ExitStack() as at_end:
        directory = pathlib.Path(
            at_end.enter_context(tempfile.TemporaryDirectory())
        )
        password = secrets.token_urlsafe(24)
        simulated = _simulator(directory, reading, password, scale)
        _start(simulated)
        at_end.callback(simulated.stop)
        twins = _twins(simulated, reading)
        for host in reading.silent & twins.keys():
            _kill(twins[host])
        staged = _configuration(
            directory, conf, row, simulated, twins, password
        )
        copy = store.open_store(staged, clock=Time(simulated.clock))
        at_end.callback(copy.close)
        _copy(database, copy, row)
        names = {target.name: host for host, target in twins.items()}
        real = {host: config.host_access(conf, host).address for host in twins}
        found = Stage(simulated, staged, copy, names, real)
        at_end.callback(found.close)
        yield found


def _simulator(
    directory: pathlib.Path,
    reading: rehearsal_reads.Reading,
    password: str,
    scale: float,
) -> simulator.Simulation:
    """Return a simulator of the pools that were read, not started."""
    from xenpool_driver import simulator

    records = directory / 'records'
    records.mkdir()
    for number, pool in enumerate(reading.pools.values()):
        path = records / f"{number:04}.json"
        path.write_text(json.dumps(dict(pool.records)), encoding='utf-8')
    address, port = _place()
    return simulator.Simulation(
        records=records,
        address=address,
        port=port,
        http_port=None,
        password=password,
        time_scale=scale,
        state_dir=directory / 'certificates',
        version_profile=_profile(reading),
    )


def _start(simulated: simulator.Simulation) -> None:
    """Let the twins listen.

    :raises XenpoolError: the records, or this machine, do not allow it.
    """
    from xenpool_driver.simulator import records_dir

    try:
        simulated.start()
    except (ValueError, records_dir.BadRecords, OSError) as error:
        raise exceptions.XenpoolError(
            f"the hosts cannot be simulated: {error}"
        ) from error


def _place() -> tuple[str, int]:
    """Return a loopback address and a port that nobody uses there."""
    number = next(_stages)
    address = f"127.{192 + number // 254 % 32}.{1 + number % 254}.1"
    with socket.socket() as sock:
        sock.bind((address, 0))
        return address, int(sock.getsockname()[1])


def _profile(reading: rehearsal_reads.Reading) -> str:
    """Return the newest release that is not newer than the hosts'."""
    from xenpool_driver.simulator import profiles

    known = sorted(profiles.PROFILES.values(), key=lambda each: each.api)
    versions = [
        (int(host['API_version_major']), int(host['API_version_minor']))
        for pool in reading.pools.values()
        for host in pool.hosts
    ]
    present = min(versions, default=known[-1].api)
    fitting = [each for each in known if each.api <= present] or known[:1]
    return fitting[-1].name


def _twins(
    simulated: simulator.Simulation, reading: rehearsal_reads.Reading
) -> dict[str, machine.Machine]:
    """Return the simulated twin of each compute host that was read."""
    by_place = {}
    for target in simulated.world.machines:
        if target.db is not None:
            (pool,) = target.db.all('pool').values()
            by_place[target.uuid, pool['uuid']] = target
    return {
        host: by_place[place]
        for host, place in reading.uuids.items()
        if place in by_place
    }


def _kill(twin: machine.Machine) -> None:
    """Switch the twin of a host off that does not answer."""
    from xenpool_driver.simulator import mishaps

    mishaps.kill(twin)


def _configuration(
    directory: pathlib.Path,
    conf: cfg.ConfigOpts,
    row: store.Aggregate,
    simulated: simulator.Simulation,
    twins: collections.abc.Mapping[str, machine.Machine],
    password: str,
) -> cfg.ConfigOpts:
    """Return the real configuration with the twins in the hosts' places.

    Members that could not be read stay silent: their place is empty.
    """
    urls = {host.name: host.url for host in simulated.hosts}
    lines = ['[DEFAULT]', f"enabled_hosts = {', '.join(twins)}", '[xenpool]']
    lines += [
        f"{opt.name} = {conf.xenpool[opt.dest]}"
        for opt in options.XENPOOL_OPTS
        if opt.name not in _OWN_OPTIONS
    ]
    lines += [f"lease_duration = {LEASE}", '[database]']
    lines.append(f"connection = sqlite:///{directory / 'rehearsal.db'}")
    for host in dict.fromkeys((*twins, *row.hosts)):
        twin = twins.get(host)
        url = urls[twin.name] if twin else _NOWHERE
        lines += [
            f"[{host}]",
            f"connection_url = {url}",
            f"connection_password = {password}",
            f"ca_file = {simulated.ca_file}",
        ]
        guest = config.host_access(conf, host).compute_vm_uuid
        if guest:
            lines.append(f"compute_vm_uuid = {guest}")
    path = directory / 'xenpool.conf'
    with open(path, 'w', encoding='utf-8', opener=_private) as stream:
        stream.write('\n'.join(lines) + '\n')
    return config.load([str(path)])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _copy(real: store.Store, copy: store.Store, row: store.Aggregate) -> None:
    """Copy the aggregates, and what runs on the one that is concerned."""
    for each in real.list_aggregates():
        copy.track_aggregate(each.uuid, each.name, each.metadata, each.hosts)
    for running in real.running_operations(row.uuid):
        copy.begin(
            row.uuid,
            running.kind,
            running.host,
            running.owner,
            LEASE,
            running.details,
            lambda row, others: store.Changes(),
        )
