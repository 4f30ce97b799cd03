# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Workers that can be killed between any two steps, and freeze."""

from __future__ import annotations

import collections.abc
import contextlib
import typing

import greenlet  # type: ignore[import-untyped]

from tests.model import greens, wires
from xenpool_driver import driver, store
from xenpool_driver.store import core, shelf


class Killed(BaseException):
    """The worker is dead: whatever would still clean up must not."""


class Store(core.Store):
    """A worker's store; all workers of a site share one database.

    :param shared: the store whose database it is.
    :param hub: time.
    :param worker: who writes.
    """

    def __init__(
        self, shared: core.Store, hub: greens.Hub, worker: Worker
    ) -> None:
        shelf.Shelf.__init__(self, shared._database, hub)
        self._worker = worker

    def close(self) -> None:
        """Leave the database to the others."""

    def begin(self, *args: typing.Any, **kwargs: typing.Any) -> core.Begun:
        begun: core.Begun = self._worker.write(
            f'begin {args[1]}', lambda: core.Store.begin(self, *args, **kwargs)
        )
        _work_for(begun[0].uuid)
        return begun

    def take_over(
        self, *args: typing.Any, **kwargs: typing.Any
    ) -> store.Operation:
        taken: store.Operation = self._worker.write(
            'take over', lambda: core.Store.take_over(self, *args, **kwargs)
        )
        _work_for(taken.uuid)
        return taken

    def phase(
        self, operation: store.Operation, *args: typing.Any
    ) -> store.Operation:
        written: store.Operation = self._worker.write(
            f'phase {args[0]}',
            lambda: core.Store.phase(self, operation, *args),
        )
        return written

    def remember(
        self, operation: store.Operation, *args: typing.Any
    ) -> store.Operation:
        written: store.Operation = self._worker.write(
            'remember', lambda: core.Store.remember(self, operation, *args)
        )
        return written

    def finish(
        self, operation: store.Operation, *args: typing.Any
    ) -> store.Aggregate:
        row: store.Aggregate = self._worker.write(
            f'finish {args[0]}',
            lambda: core.Store.finish(self, operation, *args),
        )
        _work_for(None)
        return row

    def change(self, *args: typing.Any) -> store.Aggregate:
        row: store.Aggregate = self._worker.write(
            'change', lambda: core.Store.change(self, *args)
        )
        return row


def _work_for(operation: str | None) -> None:
    """Note for which operation this task works from now on."""
    here = greenlet.getcurrent()
    assert isinstance(here, greens.Task)
    here.tag = operation


class Worker:
    """A process that runs the driver.

    :param name: for messages.
    :param conf: the options.
    :param shared: the store whose database is used.
    :param where: the hosts.
    """

    def __init__(
        self,
        name: str,
        conf: typing.Any,
        shared: core.Store,
        where: greens.World,
    ) -> None:
        self.name = name
        self.is_dead = False
        self.is_frozen = False
        self.fuse: int | None = None
        self.points: list[str] = []
        self._hub = where.clock
        self.driver = driver.XenAPIPoolDriver(
            conf=conf,
            database=Store(shared, where.clock, self),
            session_factory=wires.Wires(where, self.call).session,
            time=_Clock(self, where.clock),
        )

    def __repr__(self) -> str:
        return f'<worker {self.name}>'

    def write(
        self, name: str, act: collections.abc.Callable[[], typing.Any]
    ) -> typing.Any:
        """Write to the journal, unless that is the end.

        A frozen worker waits before it writes: what it knows is old then.
        """
        self.wait_thawed()
        return self.call(name, act)

    def call(
        self, name: str, act: collections.abc.Callable[[], typing.Any]
    ) -> typing.Any:
        """Do something that a worker may be killed before, or after."""
        self._pass_by(f'before {name}')
        try:
            return act()
        finally:
            self._pass_by(f'after {name}')

    def wait_thawed(self) -> None:
        """Return when the worker is not frozen."""
        self._hub.wait_for(lambda: not self.is_frozen)

    def freeze(self, frozen: bool) -> None:
        """Let the worker stop, or go on."""
        self.is_frozen = frozen and not self.is_dead

    def kill(self) -> None:
        """Kill the worker, wherever it is; called by the hub."""
        self.is_dead = True
        self.is_frozen = False
        for task in self._hub.tasks_of(self):
            self._hub.throw(task, Killed())

    def _pass_by(self, point: str) -> None:
        if not self.is_dead:
            self.points.append(point)
            self._burn()
        if self.is_dead:
            raise Killed

    def _burn(self) -> None:
        if self.fuse is None:
            return
        self.fuse -= 1
        if self.fuse <= 0:
            self.is_dead = True
            # Its other threads die as soon as nobody runs.
            self._hub.call_later(0.0, self.kill)


class _Clock:
    """Time for one worker's driver."""

    def __init__(self, worker: Worker, hub: greens.Hub) -> None:
        self._worker = worker
        self._hub = hub

    def time(self) -> float:
        """Return seconds since 1970, UTC."""
        return self._hub.now()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._hub.now()

    def boottime(self) -> float:
        """Return the same."""
        return self._hub.now()

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass, or more: a frozen worker sleeps on."""
        self._hub.sleep(seconds)
        self._worker.wait_thawed()
        if self._worker.is_dead:
            raise Killed


class Request:
    """Something that was asked of a worker.

    :ivar outcome: how it ended: done, killed or the name of an error.
    :ivar error: what it raised, when it is over.
    """

    def __init__(
        self,
        worker: Worker,
        text: str,
        ask: collections.abc.Callable[[], object],
        hub: greens.Hub,
    ) -> None:
        self.worker = worker
        self.text = text
        self.is_over = False
        self.outcome = 'killed'
        self.error: Exception | None = None
        self.value: object = None
        self._ask = ask
        self.task = hub.spawn(self._run, owner=worker)

    def __repr__(self) -> str:
        return f'{self.text} by {self.worker.name}'

    def _run(self) -> None:
        with contextlib.suppress(Killed):
            try:
                self.value = self._ask()
                self.outcome = 'done'
            except Exception as error:  # noqa: BLE001 - for the judge
                self.error = error
                self.outcome = type(error).__name__
        self.is_over = True
