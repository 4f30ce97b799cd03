# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a process has once, however many of its parts use it."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import threading
import typing

T = typing.TypeVar('T')


@dataclasses.dataclass
class _Held(typing.Generic[T]):
    """A thing that is in use.

    :ivar users: how many have taken it and not given it back.
    """

    thing: T
    users: int = 0


class Shared(typing.Generic[T]):
    """Keeps one thing per key for as long as somebody uses it.

    A forked child begins with none. The things of its parent stay in memory
    there and are never closed: what a database client sends or unlocks when
    it closes would hit the parent's connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[collections.abc.Hashable, _Held[T]] = {}
        self._of_parents: list[object] = []
        os.register_at_fork(after_in_child=self._begin_anew)

    def take(
        self,
        key: collections.abc.Hashable,
        make: collections.abc.Callable[[], T],
    ) -> T:
        """Return the thing for a key; make it if nobody has it.

        Others that take one wait until it is made.

        :param key: equal for all who can use the same thing.
        :param make: called when there is none. What it raises is raised.
        """
        with self._lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = _Held(make())
            held.users += 1
            return held.thing

    def give_back(self, thing: T) -> bool:
        """End one use of a thing.

        :param thing: from :meth:`take`, or one that is not shared at all.
        :returns: whether nobody uses it any more, so that it can be closed.
        """
        with self._lock:
            for key, held in self._held.items():
                if held.thing is thing:
                    held.users -= 1
                    if held.users:
                        return False
                    del self._held[key]
                    return True
        return True

    def _begin_anew(self) -> None:
        """Be empty, in a forked child."""
        self._of_parents.append(self._held)
        self._lock = threading.Lock()
        self._held = {}
