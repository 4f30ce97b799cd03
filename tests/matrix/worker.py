# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A worker that kills itself at a given point of a request.

It is a process of its own, which wraps the store and the sessions of the
driver that it runs; the driver knows nothing of it.
"""

from __future__ import annotations

import collections.abc
import functools
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

READS = ('read', 'read_own', 'read_all', '_log_in')
"""The methods of a session that do not."""


class Bomb:
    """Counts points, and goes off at one of them.

    :param fuse: number of the point, from 1, and before or after it; None:
        never.
    """

    def __init__(self, fuse: tuple[int, str] | None) -> None:
        self._fuse = fuse
        self._lock = threading.Lock()
        self.points: list[str] = []

    def pass_by(
        self, name: str, act: collections.abc.Callable[[], typing.Any]
    ) -> typing.Any:
        """Do something that is a point, unless that is the end."""
        with self._lock:
            self.points.append(name)
            number = len(self.points)
        if self._fuse == (number, BEFORE):
            die()
        try:
            return act()
        finally:
            if self._fuse == (number, AFTER):
                die()

    def wrap(
        self,
        owner: type,
        method: str,
        name: collections.abc.Callable[..., str],
    ) -> None:
        """Make each call of a method a point."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def wrapped(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
            return self.pass_by(
                name(*args, **kwargs), lambda: original(*args, **kwargs)
            )

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
    what = args[0] if args else 'login'
    return f'{method} {what} @{home.access.name}'


class Report(typing.NamedTuple):
    """What a worker that came to the end of its request says.

    :ivar points: what it passed by, in order.
    :ivar error: what the request raised; '' if nothing.
    """

    points: list[str]
    error: str


def run(
    conf_file: str,
    scenario: str,
    recover: bool,
    fuse: tuple[int, str] | None,
    reads: bool,
    pipe: multiprocessing.connection.Connection,
) -> None:
    """Make the request of a scenario; the body of the process.

    :param recover: recover the aggregate instead, as a second worker.
    :param fuse: where to die, or None.
    :param reads: whether reads are points, too.
    :param pipe: takes the :class:`Report`.
    """
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
