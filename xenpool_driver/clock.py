# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Time as an input: whoever waits is given a clock, so that tests own it."""

from __future__ import annotations

import time
import typing

NEVER = 'never'
"""A moment that no calendar has."""


def moment(seconds: float) -> str:
    """Return a moment for people and programs, in UTC, as ISO 8601.

    :param seconds: since 1970. Some that an older release stored lie
        beyond all calendars: they are :data:`NEVER`.
    """
    import datetime  # takes time, and few commands need it

    try:
        found = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return NEVER
    return found.isoformat(timespec='seconds').replace('+00:00', 'Z')


class Clock(typing.Protocol):
    """What the rest of the package knows of time."""

    def time(self) -> float:
        """Return seconds since 1970, UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def boottime(self) -> float:
        """Return seconds that never go back and count while suspended.

        A virtual machine that is paused does not count them: compare with
        :meth:`time`, too.
        """

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """Return seconds since 1970, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return seconds that never go back and count while suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        time.sleep(seconds)


SYSTEM: Clock = SystemClock()
