# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The simulated world: machines, the network between them, its failures.

The world knows who can reach whom. Machines ask it for each other by
address, as they would ask a network; nothing in the simulator passes a
machine's database around behind its back.
"""

from __future__ import annotations

import collections.abc
import logging
import random
import threading
import typing
import uuid as uuid_module

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import (
    errors,
    faults,
    machine,
    timings,
)

LOG = logging.getLogger(__name__)

STANDARD_PORTS = {machine.HTTP: 80, machine.HTTPS: 443}

POLL = 0.5
"""Real seconds after which a waiting call looks again by itself."""


Answers = collections.abc.Callable[[machine.Machine, machine.Machine], bool]
"""Whether the second machine answers the first one."""


class Sockets(typing.Protocol):
    """What the world needs of the server that listens for its machines."""

    def open(self, target: machine.Machine, kind: str) -> None:
        """Let the sockets of ``kind`` accept connections."""

    def close(self, target: machine.Machine, kind: str | None = None) -> None:
        """Refuse connections, and cut those that are open."""

    def silence(self, target: machine.Machine, kind: str) -> None:
        """Accept connections, and answer nothing; cut those that are open."""


class NoSockets:
    """A world without sockets: for tests that only watch the clock."""

    def open(self, target: machine.Machine, kind: str) -> None:
        """Do nothing."""

    def close(self, target: machine.Machine, kind: str | None = None) -> None:
        """Do nothing."""

    def silence(self, target: machine.Machine, kind: str) -> None:
        """Do nothing."""


class World:
    """Machines and the network between them.

    :param clock: the simulated time.
    :param sockets: the server that listens for the machines.
    :param seed: decides all that is random.
    :param durations: how long things take.
    :param ports: where all machines listen, by kind of socket.
    """

    def __init__(
        self,
        clock: clock_module.Clock,
        sockets: Sockets | None = None,
        seed: int | None = None,
        durations: timings.Timings = timings.DEFAULT,
        ports: collections.abc.Mapping[str, int] = STANDARD_PORTS,
    ) -> None:
        self.clock = clock
        self.sockets: Sockets = NoSockets() if sockets is None else sockets
        self.rng = random.Random(seed)  # noqa: S311
        self.timings = durations
        self._ports = dict(ports)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.machines: list[machine.Machine] = []
        self.faults = faults.Faults(clock, self.rng.random)
        self._addresses: dict[str, machine.Machine] = {}
        self._cuts: set[frozenset[str]] = set()

    def port(self, kind: str) -> int:
        """Return where all machines listen with sockets of ``kind``."""
        return self._ports[kind]

    # -- who is there ----------------------------------------------------

    def new_uuid(self) -> str:
        """Return a uuid that the seed decides."""
        return str(uuid_module.UUID(int=self.rng.getrandbits(128)))

    def add(self, target: machine.Machine) -> None:
        """Place ``target`` in the world.

        :raises ValueError: when its name or address is taken.
        """
        with self.lock:
            if target.address in self._addresses:
                raise ValueError(f'address {target.address} is taken')
            if any(target.name == other.name for other in self.machines):
                raise ValueError(f'host name {target.name} is taken')
            self.machines.append(target)
            self._addresses[target.address] = target

    def machine_at(self, address: str) -> machine.Machine | None:
        """Return the machine at ``address``, which may be a host name."""
        found = self._addresses.get(address)
        if found is not None:
            return found
        for candidate in self.machines:
            if candidate.name == address:
                return candidate
        return None

    def named(self, ident: str) -> machine.Machine:
        """Return the machine called ``ident``, or with that address or uuid.

        :raises ValueError: when there is none.
        """
        for candidate in self.machines:
            if ident in (candidate.name, candidate.address, candidate.uuid):
                return candidate
        raise ValueError(f'no host {ident!r} in the simulated world')

    def by_uuid(
        self, uuid: str, source: machine.Machine | None = None
    ) -> machine.Machine | None:
        """Return the machine whose host has ``uuid``.

        :param source: who asks: of several with that uuid, the one of its
            pool is meant.
        """
        found = [m for m in self.machines if m.uuid == uuid]
        if len(found) > 1 and source is not None:
            found.sort(key=lambda m: m.secret != source.secret)
        return found[0] if found else None

    # -- who reaches whom ------------------------------------------------

    def reachable(
        self, source: machine.Machine, target: machine.Machine
    ) -> bool:
        """Tell whether ``source`` would get an answer from ``target``."""
        if target.process is None or target.process.ended or target.frozen:
            return False
        return source is target or not self.is_cut(source, target)

    def takes_calls(
        self, source: machine.Machine, target: machine.Machine
    ) -> bool:
        """Tell whether ``target`` would do what ``source`` forwards to it.

        In emergency mode it does not (recorded: a member that is stuck).
        """
        process = target.process
        if process is None or process.emergency is not None:
            return False
        return self.reachable(source, target)

    def is_cut(self, one: machine.Machine, other: machine.Machine) -> bool:
        """Tell whether nothing passes between two machines."""
        return frozenset((one.name, other.name)) in self._cuts

    def cut(self, one: machine.Machine, other: machine.Machine) -> None:
        """Let nothing pass between two machines any more."""
        with self.lock:
            self._cuts.add(frozenset((one.name, other.name)))
            self.changed.notify_all()

    def isolate(self, target: machine.Machine) -> None:
        """Cut ``target`` off from all other machines."""
        for other in self.machines:
            if other is not target:
                self.cut(target, other)

    def heal(self, target: machine.Machine | None = None) -> None:
        """Undo the cuts around ``target``, or all."""
        with self.lock:
            if target is None:
                self._cuts.clear()
            else:
                self._cuts = {c for c in self._cuts if target.name not in c}
            self.changed.notify_all()

    def coordinator_of(
        self, member: machine.Machine
    ) -> machine.Process | None:
        """Return the process that serves ``member``'s database, if any."""
        target = self.machine_at(member.role[1])
        if target is None or not target.is_master:
            return None
        if not self.reachable(member, target):
            return None
        same = target.running_secret == member.running_secret
        return target.process if same else None

    def members_of(self, master: machine.Machine) -> list[machine.Machine]:
        """Return the running members that ``master`` reaches."""
        return [
            other
            for other in self.machines
            if other is not master
            and self.reachable(master, other)
            and other.role == (machine.SLAVE, master.address)
            and other.running_secret == master.running_secret
        ]

    # -- calls between machines ------------------------------------------

    def forward(self, source: machine.Machine, host: str) -> machine.Machine:
        """Return the machine of ``host``, to do there what was asked here.

        As a coordinator forwards calls (message_forwarding.ml): a host that
        counts as dead is refused at once; one that does not answer although
        it counts as alive keeps the caller waiting (recorded).

        :param host: the reference in the coordinator's database.
        :raises ApiError: HOST_OFFLINE, CANNOT_CONTACT_HOST.
        """
        db = source.db
        if db is None:
            raise faults.Drop
        record = db.get('host', host)
        metrics = db.find('host_metrics', record['metrics'])
        target = self.by_uuid(record['uuid'], source)
        if target is source:
            return source
        if metrics is None or not metrics['live']:
            raise errors.ApiError('HOST_OFFLINE', host)
        if target is None or not self.takes_calls(source, target):
            self.await_peer(source, target, self.takes_calls)
        if target is None or not self.takes_calls(source, target):
            raise errors.ApiError('CANNOT_CONTACT_HOST', host)
        return target

    def await_peer(
        self,
        source: machine.Machine,
        target: machine.Machine | None,
        answers: Answers | None = None,
    ) -> None:
        """Wait until ``target`` answers, or a forwarded call gives up.

        :param answers: tells whether it does; None: :meth:`reachable`.
        :raises Drop: when the toolstack that waits ends meanwhile.
        """
        answers = answers or self.reachable
        process = source.process
        deadline = self.clock.now() + self.timings.forward_timeout
        timer = self.clock.call_later(
            self.timings.forward_timeout, self.notify
        )
        self.wait_for(
            lambda: (
                self.clock.now() >= deadline
                or source.process is not process
                or (target is not None and answers(source, target))
            )
        )
        timer.cancel()
        if source.process is not process:
            raise faults.Drop

    # -- waiting for each other --------------------------------------------

    def notify(self) -> None:
        """Let everybody in :meth:`wait_for` look again."""
        with self.lock:
            self.changed.notify_all()

    def wait_for(self, predicate: collections.abc.Callable[[], bool]) -> None:
        """Return when ``predicate`` holds.

        :raises Stopped: when the clock is stopped meanwhile.
        """
        if predicate():
            return
        with self.changed:
            while not predicate():
                if self.clock.stopped:
                    raise clock_module.Stopped
                self.changed.wait(POLL)

    def wait_until(
        self, predicate: collections.abc.Callable[[], bool], seconds: float
    ) -> bool:
        """Wait for ``predicate`` for at most ``seconds`` (simulated)."""
        deadline = self.clock.now() + seconds
        timer = self.clock.call_later(seconds, self.notify)
        self.wait_for(lambda: predicate() or self.clock.now() >= deadline)
        timer.cancel()
        return predicate()
