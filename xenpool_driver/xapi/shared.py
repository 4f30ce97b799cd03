# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Threads that want to read the same thing share one reading.

Of many joins under way, each reads the same pool before and after. Whoever
asks while a reading is under way cannot use it, since it may have seen the
past; but all who ask in that time can share the next one. So everybody gets
what was read, from beginning to end, after he asked, and never more than two
readings of a thing are wanted at a time.
"""

from __future__ import annotations

import collections.abc
import copy
import threading
import typing

T = typing.TypeVar('T')


class _Turn:
    """One reading, and what came of it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: typing.Any = None
        self.error: Exception | None = None
        self.broken = True  # until the reader says otherwise


class Readings:
    """The readings of one host."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[typing.Hashable, _Turn] = {}
        self._next: dict[typing.Hashable, _Turn] = {}
        self._last: dict[typing.Hashable, tuple[float, typing.Any]] = {}

    def recent(
        self,
        key: typing.Hashable,
        read: collections.abc.Callable[[], T],
        now: float,
        max_age: float,
    ) -> T:
        """Return what ``read`` returned lately, or returns now.

        :param key: as for :meth:`get`.
        :param read: as for :meth:`get`.
        :param now: seconds, by the caller's clock.
        :param max_age: seconds that the reading may be old.
        """
        with self._lock:
            taken, value = self._last.get(key, (float('-inf'), None))
        if now - taken >= max_age:
            value = self.get(key, read)
            with self._lock:
                self._last[key] = now, value
        return typing.cast(T, value)

    def get(
        self,
        key: typing.Hashable,
        read: collections.abc.Callable[[], T],
    ) -> T:
        """Return what ``read`` returns when it is called from now on.

        :param key: what is read; the same key, the same thing.
        :param read: reads it; what it returns is shared, so nobody may
            change it.
        """
        while True:
            with self._lock:
                before = self._running.get(key)
                turn = self._next.get(key)
                mine = turn is None
                if turn is None:
                    turn = _Turn()
                    place = self._running if before is None else self._next
                    place[key] = turn
            if mine:
                self._take(key, turn, before, read)
            else:
                turn.done.wait()
            if not turn.broken:
                return typing.cast(T, self._outcome(turn))

    def _take(
        self,
        key: typing.Hashable,
        turn: _Turn,
        before: _Turn | None,
        read: collections.abc.Callable[[], T],
    ) -> None:
        """Wait for the turn, then read, for all who share it."""
        try:
            if before is not None:
                before.done.wait()
                with self._lock:
                    self._next.pop(key)
                    self._running[key] = turn
            try:
                turn.value = read()
            except Exception as error:
                turn.error = error.with_traceback(None)
            turn.broken = False
        finally:
            with self._lock:
                for place in (self._running, self._next):
                    if place.get(key) is turn:
                        del place[key]
            turn.done.set()

    @staticmethod
    def _outcome(turn: _Turn) -> typing.Any:
        """Return the value, or raise a copy of the error.

        A copy: each thread adds its own traceback.
        """
        if turn.error is None:
            return turn.value
        raise copy.copy(turn.error)
