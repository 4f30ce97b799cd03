# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Everything that can go wrong at one call that a host answers."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import threading
import typing

from tests.matrix import stage
from xenpool_driver.simulator import errors, faults, lifecycle, mishaps

ABSENCE = 25.0
"""Simulated seconds for which a host that comes back is away."""

SOON = 0.7
"""Simulated seconds after which something happens that was not expected."""

DELAY = 1.3 * stage.READ_TIMEOUT * stage.SCALE
"""Simulated seconds that a call is late: nobody waits so long."""

Act = collections.abc.Callable[[stage.Machine], None]


class Point(typing.NamedTuple):
    """A call: the n-th of a method that a host answers.

    :ivar host: its name.
    :ivar method: ``class.method``.
    :ivar number: from 1.
    """

    host: str
    method: str
    number: int

    def __str__(self) -> str:
        return f'{self.method} @{self.host} #{self.number}'


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong.

    :ivar name: for the reader.
    :ivar before: is done instead of the call, or ahead of it.
    :ivar after: is done when the call was carried out.
    :ivar deadly: whether the host never comes back.
    :ivar aftermath: simulated seconds in which it may still take effect when
        the request is over.
    """

    name: str
    before: Act | None = None
    after: Act | None = None
    deadly: bool = False
    aftermath: float = 2 * SOON


def _refuse(code: str, *params: str) -> Act:
    def act(_: stage.Machine) -> None:
        raise errors.ApiError(code, *params)

    return act


def _drop(_: stage.Machine) -> None:
    raise faults.Drop


def _garble(_: stage.Machine) -> None:
    raise faults.Garbage(b'<garbage')


def _delay(target: stage.Machine) -> None:
    target.clock.sleep(DELAY)


def _cut_power(target: stage.Machine) -> None:
    """Let the machine die with its database on disk.

    What a toolstack that dies had not written yet is lost, up to minutes of
    a pool's life; no client can know of that, nor do anything about it.
    """
    lifecycle.flush(target)
    mishaps.kill(target)


def _kill_toolstack(target: stage.Machine) -> None:
    lifecycle.flush(target)
    mishaps.kill_toolstack(target)


def _die(target: stage.Machine) -> None:
    _cut_power(target)
    raise faults.Drop


def _faint(target: stage.Machine) -> None:
    _cut_power(target)
    target.clock.call_later(ABSENCE, _wake, target)
    raise faults.Drop


def _wake(target: stage.Machine) -> None:
    if not target.powered:
        mishaps.power_on(target)


def _crash(target: stage.Machine) -> None:
    _kill_toolstack(target)
    raise faults.Drop


def _crash_soon(target: stage.Machine) -> None:
    target.clock.call_later(SOON, _kill_toolstack, target)


def _restart(target: stage.Machine) -> None:
    mishaps.restart_toolstack(target)
    raise faults.Drop


FAULTS = (
    Fault('refused', before=_refuse('OPERATION_NOT_ALLOWED', 'a test')),
    Fault('internal error', before=_refuse('INTERNAL_ERROR', 'a test')),
    Fault('lost before', before=_drop),
    Fault('lost after', after=_drop),
    Fault('late', before=_delay, aftermath=DELAY),
    Fault('garbage', after=_garble),
    Fault('host dies before', before=_die, deadly=True),
    Fault('host dies after', after=_die, deadly=True),
    Fault('host faints before', before=_faint),
    Fault('host faints after', after=_faint),
    Fault('toolstack killed before', before=_crash),
    Fault('toolstack killed after', after=_crash),
    Fault('toolstack killed soon', after=_crash_soon),
    Fault('toolstack restarts before', before=_restart),
    Fault('toolstack restarts after', after=_restart),
    Fault('sessions expire', after=mishaps.expire_sessions),
)
"""Each at each call."""

BY_NAME = {fault.name: fault for fault in FAULTS}
"""All of them, by name: processes pass names to each other."""


class Saboteur:
    """Counts the calls that each host answers, and spoils one of them.

    :param where: the site.
    :param point: the call to spoil; None: none.
    :param fault: what goes wrong there.
    """

    def __init__(
        self,
        where: stage.Stage,
        point: Point | None = None,
        fault: Fault | None = None,
    ) -> None:
        self._point = point
        self._fault = fault
        self._lock = threading.Lock()
        self._counts: collections.Counter[tuple[str, str]] = (
            collections.Counter()
        )
        self.points: list[Point] = []
        self.struck = False
        for target in where.machines.values():
            gate: typing.Any = _Gate(self, target, target.faults)
            target.faults = gate

    def disarm(self) -> None:
        """Spoil nothing any more."""
        with self._lock:
            self._point = None

    def strike(self, target: stage.Machine, method: str) -> Fault | None:
        """Count a call; return what goes wrong with it."""
        with self._lock:
            self._counts[target.name, method] += 1
            number = self._counts[target.name, method]
            point = Point(target.name, method, number)
            self.points.append(point)
            if point != self._point:
                return None
            self.struck = True
        return self._fault


class _Gate:
    """The faults of a machine, with the saboteur's before and behind them."""

    def __init__(
        self,
        saboteur: Saboteur,
        target: stage.Machine,
        inner: faults.MachineFaults,
    ) -> None:
        self._saboteur = saboteur
        self._target = target
        self._inner = inner

    def before(self, call: typing.Any) -> None:
        """Ahead of a call's execution."""
        call.fault = None  # a refusal may end this before the inner one acts
        call.mischief = self._saboteur.strike(self._target, call.name)
        if call.mischief is not None and call.mischief.before is not None:
            call.mischief.before(self._target)
        self._inner.before(call)

    def after(self, call: typing.Any) -> None:
        """Behind a call's execution."""
        self._inner.after(call)
        if call.mischief is not None and call.mischief.after is not None:
            call.mischief.after(self._target)
