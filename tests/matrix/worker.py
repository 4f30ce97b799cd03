# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A worker that kills itself, or stands still, at a given point of a request.

It is a process of its own, which wraps the store and the sessions of the
driver that it runs; the driver knows nothing of it.
"""

from __future__ import annotations

import collections
import collections.abc
import functools
import logging
import multiprocessing.connection
import os
import signal
import threading
import typing

from tests.matrix import scenarios, stage
from xenpool_driver import driver as plugin
from xenpool_driver import exceptions
from xenpool_driver.store import core
from xenpool_driver.xapi import changing, session, transport

BEFORE = 'before'
AFTER = 'after'

WRITES = ('begin', 'phase', 'remember', 'finish', 'take_over')
"""The methods of the store that write to the journal."""

CHANGES = ('change',)
"""The methods of a session that change something."""

BYTE = 'first byte'
"""What the points on an open connection begin with: before one the change
has not been permitted yet, after it nothing of it is sent yet."""

READS = ('read', 'read_own', 'read_all', '_log_in', 'logout')
"""The methods of a session that do not."""


class Point(typing.NamedTuple):
    """A write to the journal, or a call to XAPI.

    :ivar name: what is written, or called where.
    :ivar number: which one of that name, from 1.
    """

    name: str
    number: int

    def __str__(self) -> str:
        return f'{self.name} #{self.number}'

    @property
    def changes(self) -> bool:
        """Whether it is a call that changes something."""
        return self.name.startswith(CHANGES)

    @property
    def is_read(self) -> bool:
        """Whether it is a call that changes nothing."""
        return not self.name.startswith((*CHANGES, *WRITES, BYTE))


class Fuse(typing.NamedTuple):
    """Where a worker dies, or stands still.

    :ivar point: the point.
    :ivar moment: before or after it.
    """

    point: Point
    moment: str

    def __str__(self) -> str:
        return f'{self.moment} {self.point}'


class Bomb:
    """Counts points, and goes off at one of them.

    :param fuse: where; None: never.
    :param blow: what happens there.
    """

    def __init__(
        self, fuse: Fuse | None, blow: collections.abc.Callable[[], object]
    ) -> None:
        self._fuse = fuse
        self._blow = blow
        self._here = threading.local()
        self._lock = threading.Lock()
        self._counts: collections.Counter[str] = collections.Counter()
        self.points: list[Point] = []

    def pass_by(
        self, name: str, act: collections.abc.Callable[[], typing.Any]
    ) -> typing.Any:
        """Do something that is a point, unless that is the end."""
        with self._lock:
            self._counts[name] += 1
            point = Point(name, self._counts[name])
            self.points.append(point)
        if name.startswith(CHANGES):
            self._here.change = name
        if self._fuse == (point, BEFORE):
            self._blow()
        try:
            return act()
        finally:
            if self._fuse == (point, AFTER):
                self._blow()

    def name_byte(self, wire: transport.Transport) -> str:
        """Name what is sent next, if it is a change."""
        if getattr(wire._mode, 'may_send', None) is None:
            return ''
        return f'{BYTE} of {self._here.change}'

    def wrap(
        self,
        owner: type,
        method: str,
        name: collections.abc.Callable[..., str],
    ) -> None:
        """Make each call of a method a point.

        :param name: names it; '' where it does nothing.
        """
        original = getattr(owner, method)

        @functools.wraps(original)
        def wrapped(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
            told = name(*args, **kwargs)
            if not told:
                return original(*args, **kwargs)
            return self.pass_by(told, lambda: original(*args, **kwargs))

        setattr(owner, method, wrapped)


def die() -> typing.NoReturn:
    """End this process as a power cut would end it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError('killed and still here')


CLOCK, STOP = 'by its clock', 'by a signal'
"""How a worker stands still."""

FROZEN = 'frozen'
"""What a worker says before it stands still."""


def stand_still(
    driver: plugin.XenAPIPoolDriver,
    pipe: multiprocessing.connection.Connection,
) -> None:
    """Do nothing until told to go on, and find that much time has passed."""
    pipe.send(FROZEN)
    passed = pipe.recv()
    clock = driver.site.clock
    assert isinstance(clock, stage.FastClock)
    clock.ahead += passed


def stop(
    _: plugin.XenAPIPoolDriver,
    pipe: multiprocessing.connection.Connection,
) -> None:
    """Stop the whole process, until somebody lets it go on."""
    pipe.send(FROZEN)
    os.kill(os.getpid(), signal.SIGSTOP)


def arm(bomb: Bomb, reads: bool) -> None:
    """Make journal writes and calls to XAPI points.

    :param reads: also the calls that change nothing.
    """
    for method in WRITES:
        bomb.wrap(core.Store, method, functools.partial(_write_name, method))
    for method in (*CHANGES, *(READS if reads else ())):
        owner = (
            changing.ChangingSession
            if method in CHANGES
            else session.HostSession
        )
        bomb.wrap(owner, method, functools.partial(_call_name, method))


def arm_bytes(bomb: Bomb) -> None:
    """Make the last moment before a change is sent a point."""
    bomb.wrap(transport.Transport, 'assert_may_send', bomb.name_byte)


def _write_name(method: str, *args: typing.Any, **_: typing.Any) -> str:
    subject = args[2] if method != 'take_over' else ''
    if method == 'remember':
        subject = ' '.join(args[2])
    return f'{method} {subject}'.strip()


def _call_name(
    method: str, home: session.HostSession, *args: typing.Any, **_: typing.Any
) -> str:
    where = f'@{home.access.name}'
    if method == 'logout':
        return f'{method} {where}' if home._session is not None else ''
    return f"{method.strip('_')} {' '.join(map(str, args[:1]))} {where}"


class Report(typing.NamedTuple):
    """What a worker that came to the end of its request says.

    :ivar points: what it passed by, in order.
    :ivar error: what the request raised; '' if nothing.
    """

    points: list[Point]
    error: str


def run(
    conf_file: str,
    scenario: str,
    recover: bool,
    fuse: Fuse | None,
    reads: bool,
    pipe: multiprocessing.connection.Connection,
    freeze: str = '',
) -> None:
    """Make the request of a scenario; the body of the process.

    :param recover: recover the aggregate instead, as a second worker.
    :param fuse: where to die, or None.
    :param reads: whether reads are points, too.
    :param pipe: takes the :class:`Report`.
    :param freeze: how to stand still instead of dying; '' to die.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    driver, database = stage.open_driver(
        conf_file, stage.LATER if recover else 0.0
    )
    row = database.get_aggregate(scenarios.AGGREGATE, dismissed=True)
    still = {CLOCK: stand_still, STOP: stop}.get(freeze)
    blow = functools.partial(still, driver, pipe) if still else die
    bomb = Bomb(fuse, blow)
    arm(bomb, reads)
    if freeze:
        arm_bytes(bomb)
    error = ''
    try:
        if recover:
            driver.recover_aggregate(None, row)
        else:
            scenarios.SCENARIOS[scenario].request(driver, row)
    except exceptions.XenpoolError as failure:
        error = str(failure)
    pipe.send(Report(bomb.points, error))
    pipe.close()
