# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A simulated world without sockets and without real time.

Everything happens in the test's own thread: sleeping and waiting advance the
clock, and timers fire while it passes them. Two runs are the same to the
last event.
"""

from __future__ import annotations

import collections.abc
import heapq
import itertools
import random
import typing

from xenpool_driver.simulator import build, clock, faults, machine, world

START = 1_800_000_000.0
STEP = 0.05


class ManualClock(clock.Clock):
    """A clock that moves only when somebody waits."""

    def __init__(self) -> None:
        super().__init__(scale=0, start=START)
        self._time = START
        self._queue: list[tuple[float, int, clock.Timer]] = []
        self._number = itertools.count()
        self.watchers: list[collections.abc.Callable[[float], None]] = []

    def now(self) -> float:
        return self._time

    def advance(self, seconds: float) -> None:
        deadline = self._time + seconds
        while self._queue and self._queue[0][0] <= deadline:
            due, _, timer = heapq.heappop(self._queue)
            self._time = max(self._time, due)
            timer.fire()
            self._look()
        self._time = max(self._time, deadline)
        self._look()

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def call_later(
        self,
        seconds: float,
        function: collections.abc.Callable[..., object],
        *args: typing.Any,
    ) -> clock.Timer:
        timer = clock.Timer(self._time + seconds, function, args)
        heapq.heappush(self._queue, (timer.due, next(self._number), timer))
        return timer

    def _look(self) -> None:
        for watcher in self.watchers:
            watcher(self._time - START)


class ManualWorld(world.World):
    """A world in which waiting advances the clock."""

    def wait_for(self, predicate: collections.abc.Callable[[], bool]) -> None:
        for _ in range(1_000_000):
            if predicate():
                return
            self.clock.advance(STEP)
        raise AssertionError('waited for what never comes')


class Call:
    """A call that some machine answers."""

    def __init__(self, target: machine.Machine, name: str = '') -> None:
        self.machine: typing.Any = target
        self.name = name
        self.args: collections.abc.Sequence[typing.Any] = []
        self.task: str | None = None
        self.session_ref: str | None = None
        self.originator = 'test'
        self.session: dict[str, typing.Any] = {}
        self.is_local_session = False
        self.is_pool_session = False
        self.shown: list[float] = []

    @property
    def db(self) -> typing.Any:
        if self.machine.db is None:
            raise faults.Drop
        return self.machine.db

    @property
    def clock(self) -> clock.Clock:
        return typing.cast(clock.Clock, self.machine.clock)

    @property
    def rng(self) -> random.Random:
        return typing.cast(random.Random, self.machine.rng)

    @property
    def here(self) -> str:
        return str(self.machine.me)

    def set_cancellable(self, cancellable: bool = True) -> None:
        return None

    def assert_permission(
        self, permission: str, roles: collections.abc.Iterable[str]
    ) -> None:
        return None

    def progress(self, fraction: float) -> None:
        self.shown.append(fraction)

    def check_cancelled(self) -> None:
        return None


def make(hosts: int = 3, **options: typing.Any) -> ManualWorld:
    """Return a world of stand-alone hosts."""
    where = ManualWorld(ManualClock(), seed=1, **options)
    build.standalone(where, hosts, '127.30.1.1', 'xenroot')
    return where


def state(target: machine.Machine) -> str:
    """Return what a client that logs in at ``target`` would meet."""
    process = target.process
    if process is None or not target.up(machine.HTTP):
        return 'down'
    if process.emergency is not None:
        return process.emergency.code
    kind, address = target.role
    said = 'master' if kind == machine.MASTER else f'{kind}:{address}'
    open_db = process.db_open and target.db is not None
    https = target.up(machine.HTTPS)
    return said + ('' if open_db else ' hangs') + ('' if https else ' no443')


def watch(
    where: ManualWorld, observe: collections.abc.Callable[[], str]
) -> list[tuple[float, str]]:
    """Return a list that grows by each change of what ``observe`` sees."""
    seen: list[tuple[float, str]] = []

    def look(now: float) -> None:
        value = observe()
        if not seen or seen[-1][1] != value:
            seen.append((round(now, 2), value))

    clock_ = typing.cast(ManualClock, where.clock)
    clock_.watchers.append(look)
    look(clock_.now() - START)
    return seen
