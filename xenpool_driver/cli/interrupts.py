# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What SIGINT (Ctrl-C) and SIGTERM do to a command that changes a pool.

The first one stops nothing: XAPI goes on with what it was told anyway. The
second one ends the process at once.
"""

from __future__ import annotations

import collections.abc
import contextlib
import os
import queue
import shlex
import signal
import threading
import typing

if typing.TYPE_CHECKING:
    from xenpool_driver.cli.workbench import Workbench

SIGNALS = {signal.SIGINT: 'Ctrl-C', signal.SIGTERM: 'SIGTERM'}
"""The signals, and what a person calls them."""

SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a program."""


class Watch:
    """Answers signals in a thread of its own.

    A signal handler runs between any two steps of the main thread, which may
    hold a lock. So it only puts the signal into a queue.

    :param workbench: knows the request's operation.
    :param aggregate: the aggregate, as it was typed.
    :param is_remote: whether a service on the bus carries the request out.
    :param tell: prints a line on stderr.
    """

    def __init__(
        self,
        workbench: Workbench,
        aggregate: str,
        is_remote: bool,
        tell: collections.abc.Callable[[str], None],
    ) -> None:
        self._workbench = workbench
        self._aggregate = aggregate
        self._is_remote = is_remote
        self._tell = tell
        self._signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def put(self, number: int | None) -> None:
        """Take note of a signal; None: there will be no more."""
        self._signals.put(number)

    def listen(self) -> None:
        """Answer signals until there are no more."""
        first = self._signals.get()
        if first is None:
            return
        told = threading.Thread(
            target=lambda: self._tell(self._going_on(first)), daemon=True
        )
        told.start()  # a database that hangs must not delay the second one
        second = self._signals.get()
        if second is not None:
            self._tell(self._left(second))
            os._exit(SIGNALLED + second)

    def _going_on(self, number: int) -> str:
        """Return what the first signal is answered with."""
        name = SIGNALS[signal.Signals(number)]
        return (
            f"xenpool: {name}: the request for {self._aggregate} goes on, "
            f"since a pool that is left half-way must be settled; this "
            f"command waits for its end. Follow it: {self._follow()}. A "
            f"second {name} leaves at once"
        )

    def _follow(self) -> str:
        """Return the command that shows the request's operation."""
        mine = self._workbench.context.request_id
        try:
            running = self._workbench.store.running_operations(None)
        except Exception:  # the request itself will say what is wrong
            running = []
        for each in running:
            if each.request_id == mine:
                return f"xenpool operation show {each.uuid}"
        return 'xenpool operation list --running'

    def _left(self, number: int) -> str:
        """Return what the second signal is answered with."""
        name = shlex.quote(self._aggregate)
        if self._is_remote:
            return (
                'xenpool: left before the end; the service goes on with the '
                'request. See what becomes of it: xenpool operation list '
                f"--aggregate {name}"
            )
        return (
            'xenpool: left before the end; what was begun is not settled. '
            f"Settle it: xenpool aggregate recover {name}"
        )


@contextlib.contextmanager
def answered(watch: Watch) -> collections.abc.Iterator[None]:
    """Let signals be answered inside; outside they do what they did.

    Only the main thread of a process can say what a signal does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda number, _: watch.put(number))
        for number in SIGNALS
    }
    threading.Thread(target=watch.listen, daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        watch.put(None)
