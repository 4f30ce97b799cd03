# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The simulator's own time: it may run faster, stand still, or jump.

Everything in the simulator that waits, waits on a :class:`Clock`. Simulated
seconds are real seconds times the scale; :meth:`Clock.advance` jumps ahead
and wakes whoever was waiting for the time that was skipped.
"""

from __future__ import annotations

import collections.abc
import datetime
import heapq
import itertools
import logging
import math
import threading
import time
import typing

LOG = logging.getLogger(__name__)

EPOCH_ISO = '19700101T00:00:00Z'
"""How XAPI writes 'never'."""


class Stopped(Exception):
    """The clock was stopped: the simulator is going down."""


def to_iso(seconds: float) -> str:
    """Return ``seconds`` since 1970 as XAPI writes a date."""
    moment = datetime.datetime.fromtimestamp(int(seconds), tz=datetime.UTC)
    return moment.strftime('%Y%m%dT%H:%M:%SZ')


def from_iso(text: str) -> float:
    """Return seconds since 1970 of a date as XAPI writes it.

    :raises ValueError: for anything else.
    """
    moment = datetime.datetime.strptime(text, '%Y%m%dT%H:%M:%SZ')
    return moment.replace(tzinfo=datetime.UTC).timestamp()


def check_span(what: str, number: float) -> None:
    """Refuse what is no number from 0 on.

    :param what: it is called so in the refusal.
    :raises ValueError: for less than 0, infinity, and what is no number.
    """
    if not 0 <= number < math.inf:
        raise ValueError(f'{what} {number} is no number from 0 on')


class Timer:
    """A call that will be made; :meth:`cancel` prevents it."""

    def __init__(
        self,
        due: float,
        function: collections.abc.Callable[..., object],
        args: tuple[typing.Any, ...],
    ) -> None:
        self.due = due
        self._function = function
        self._args = args
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether the call was called off."""
        return self._cancelled

    def cancel(self) -> None:
        """Do not make the call; without effect once it was made."""
        self._cancelled = True

    def fire(self) -> None:
        """Make the call; its failure is logged, the clock goes on."""
        if self._cancelled:
            return
        try:
            self._function(*self._args)
        except Stopped:
            LOG.debug('A timer ended because the clock was stopped')
        except Exception:
            LOG.exception('A timer of the simulator failed')


class Clock:
    """Simulated time, in seconds since 1970.

    :param scale: simulated seconds per real second; 0: time stands still
        and moves by :meth:`advance` only.
    :param start: where simulated time begins; the present when not given.
    """

    def __init__(self, scale: float = 1.0, start: float | None = None) -> None:
        check_span('scale', scale)
        self._scale = scale
        self._base = time.time() if start is None else start
        self._real_base = time.monotonic()
        self._changed = threading.Condition()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._firing: float | None = None
        self._stopped = False

    @property
    def scale(self) -> float:
        """Simulated seconds per real second."""
        return self._scale

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    def now(self) -> float:
        """Return simulated seconds since 1970."""
        return self._base + self._scale * (time.monotonic() - self._real_base)

    def iso(self, seconds: float | None = None) -> str:
        """Return ``seconds``, or the present, as XAPI writes a date."""
        return to_iso(self.now() if seconds is None else seconds)

    def advance(self, seconds: float) -> None:
        """Jump ``seconds`` (simulated) ahead, waking whoever waited.

        Returns when all timers that were due by then have gone off, and
        those that they set.
        """
        check_span('advance', seconds)
        with self._changed:
            self._base += seconds
            until = self.now()
            self._changed.notify_all()
            if threading.current_thread() is not self._thread:
                self._changed.wait_for(lambda: self._is_quiet(until))

    def set_scale(self, scale: float) -> None:
        """From now on let time run ``scale`` times as fast as life."""
        check_span('scale', scale)
        with self._changed:
            self._base = self.now()
            self._real_base = time.monotonic()
            self._scale = scale
            self._changed.notify_all()

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` (simulated).

        :raises Stopped: when the clock is stopped meanwhile.
        """
        deadline = self.now() + seconds
        with self._changed:
            while not self._stopped and self.now() < deadline:
                self._wait_until(deadline)
            if self._stopped:
                raise Stopped

    def call_later(
        self,
        seconds: float,
        function: collections.abc.Callable[..., object],
        *args: typing.Any,
    ) -> Timer:
        """Call ``function`` after ``seconds`` (simulated).

        All timers share one thread: a call that takes long starts a thread
        of its own. What a timer sets in its turn counts from when the timer
        was due, so that a chain of them keeps its pace however time jumps.
        """
        start = self.now()
        if threading.current_thread() is self._thread:
            start = start if self._firing is None else self._firing
        timer = Timer(start + seconds, function, args)
        with self._changed:
            entry = (timer.due, next(self._order), timer)
            heapq.heappush(self._timers, entry)
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(
                    target=self._run, name='simulator-clock', daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
        return timer

    def stop(self) -> None:
        """End the timers and wake all sleepers with :class:`Stopped`."""
        with self._changed:
            self._stopped = True
            self._timers.clear()
            self._changed.notify_all()

    def _wait_until(self, deadline: float) -> None:
        """Wait, holding the condition, until ``deadline`` or a change."""
        if self._scale == 0:
            self._changed.wait()
        else:
            self._changed.wait((deadline - self.now()) / self._scale)

    def _run(self) -> None:
        """Make the calls that are due, in order, until stopped."""
        while (timer := self._next_timer()) is not None:
            timer.fire()

    def _is_quiet(self, until: float) -> bool:
        """Tell whether no timer is going off, or due ``until`` then."""
        if self._stopped or self._thread is None:
            return True
        due = bool(self._timers) and self._timers[0][0] <= until
        return self._firing is None and not due

    def _next_timer(self) -> Timer | None:
        with self._changed:
            if self._firing is not None:
                self._firing = None
                self._changed.notify_all()
            while not self._stopped:
                if not self._timers:
                    self._changed.wait()
                elif self._timers[0][0] <= self.now():
                    timer = heapq.heappop(self._timers)[2]
                    self._firing = timer.due
                    return timer
                else:
                    self._wait_until(self._timers[0][0])
        return None
