# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A worker that kills itself at a given point of a request.

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
from xenpool_driver import exceptions
from xenpool_driver.store import core
from xenpool_driver.xapi import session

BEFORE = 'before'
AFTER = 'after'

WRITES = ('begin', 'phase', 'finish', 'take_over')
"""The methods of the store that write to the journal."""

CHANGES = ('change',)
"""The methods of a session that change something."""

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
        return not self.name.startswith((*CHANGES, *WRITES))


class Fuse(typing.NamedTuple):
    """Where a worker dies.

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
    """

    def __init__(self, fuse: Fuse | None) -> None:
        self._fuse = fuse
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
        if self._fuse == (point, BEFORE):
            die()
        try:
            return act()
        finally:
            if self._fuse == (point, AFTER):
                die()

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


def arm(bomb: Bomb, reads: bool) -> None:
    """Make journal writes and calls to XAPI points.

    :param reads: also the calls that change nothing.
    """
    for method in WRITES:
        bomb.wrap(core.Store, method, functools.partial(_write_name, method))
    for method in (*CHANGES, *(READS if reads else ())):
        bomb.wrap(
            session.HostSession,
            method,
            functools.partial(_call_name, method),
        )


def _write_name(method: str, *args: typing.Any, **_: typing.Any) -> str:
    subject = args[2] if method != 'take_over' else ''
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
) -> None:
    """Make the request of a scenario; the body of the process.

    :param recover: recover the aggregate instead, as a second worker.
    :param fuse: where to die, or None.
    :param reads: whether reads are points, too.
    :param pipe: takes the :class:`Report`.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    driver, database = stage.open_driver(
        conf_file, stage.LATER if recover else 0.0
    )
    row = database.get_aggregate(scenarios.AGGREGATE, dismissed=True)
    bomb = Bomb(fuse)
    arm(bomb, reads)
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
