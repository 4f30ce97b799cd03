# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Many threads of control in one thread, in simulated time.

Whoever sleeps or waits gives way to the others; time passes only when nobody
has anything else to do. What would be threads are greenlets, so two runs are
the same to the last event, and a second costs nothing.
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import functools
import heapq
import itertools
import queue
import sys
import threading
import types
import typing
import unittest.mock

import greenlet  # type: ignore[import-untyped]

from xenpool_driver.simulator import clock, world

START = 1_800_000_000.0

Predicate = collections.abc.Callable[[], bool]


class Task(greenlet.greenlet):  # type: ignore[misc]
    """A thread of control.

    :ivar owner: whose it is: a child's is its parent's.
    :ivar tag: what it works for: likewise.
    :ivar locals: what is its own.
    """

    def __init__(
        self,
        run: collections.abc.Callable[[], object],
        parent: greenlet.greenlet,
        owner: typing.Any,
        tag: str | None,
    ) -> None:
        super().__init__(run, parent)
        self.owner = owner
        self.tag = tag
        self.locals: dict[int, dict[str, typing.Any]] = {}


class Hub(clock.Clock):
    """The clock of everything, and what decides who runs.

    The hub itself is the thread that made it. It does not wait; it lets time
    pass (:meth:`advance`, :meth:`run_until`).

    :ivar failures: what nobody caught, where nobody waits for it.
    """

    def __init__(self) -> None:
        super().__init__(scale=0, start=START)
        self.failures: list[BaseException] = []
        self.ends: tuple[type[BaseException], ...] = (greenlet.GreenletExit,)
        self._main = greenlet.getcurrent()
        self._time = START
        self._queue: list[tuple[float, int, clock.Timer]] = []
        self._number = itertools.count()
        self._parked: dict[Task, None] = {}
        self._tasks: dict[Task, None] = {}

    # -- time ------------------------------------------------------------

    def now(self) -> float:
        return self._time

    def time(self) -> float:
        """Return seconds since 1970, as ``xenpool_driver.clock``."""
        return self._time

    def monotonic(self) -> float:
        """Return seconds that never go back, as ``xenpool_driver.clock``."""
        return self._time

    def boottime(self) -> float:
        """Return the same, as ``xenpool_driver.clock``."""
        return self._time

    def call_later(
        self,
        seconds: float,
        function: collections.abc.Callable[..., object],
        *args: typing.Any,
    ) -> clock.Timer:
        timer = clock.Timer(self._time + seconds, function, args)
        heapq.heappush(self._queue, (timer.due, next(self._number), timer))
        return timer

    # -- for tasks -------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        deadline = self._time + seconds
        self.wait_for(lambda: self._time >= deadline, seconds)

    def wait_for(
        self, predicate: Predicate, seconds: float | None = None
    ) -> bool:
        """Return whether ``predicate`` holds, at the latest in ``seconds``."""
        deadline = None if seconds is None else self._time + seconds
        timer = None
        try:
            while not predicate():
                if deadline is not None and self._time >= deadline:
                    return False
                if deadline is not None and timer is None:
                    timer = self.call_later(seconds or 0.0, _nothing)
                self._park()
            return True
        finally:
            if timer is not None:
                timer.cancel()

    def spawn(
        self,
        function: collections.abc.Callable[[], object],
        owner: typing.Any = None,
    ) -> Task:
        """Run ``function`` as a task of its own, from now on.

        :param owner: whose it is; None: whose the caller is.
        """
        here = greenlet.getcurrent()
        if owner is None:
            owner = getattr(here, 'owner', None)
        tag = getattr(here, 'tag', None)
        task = Task(lambda: self._carry(function), self._main, owner, tag)
        self._tasks[task] = None
        self.call_later(0.0, self._resume, task)
        return task

    def _carry(self, function: collections.abc.Callable[[], object]) -> None:
        try:
            function()
        except self.ends:
            return
        except BaseException as error:  # noqa: BLE001 - told by the judge
            self.failures.append(error)

    def _park(self) -> None:
        here = greenlet.getcurrent()
        if not isinstance(here, Task):
            raise AssertionError('the hub cannot wait')
        self._parked[here] = None
        self._main.switch()

    # -- for the hub -----------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that happens meanwhile."""
        self.run_until(lambda: False, seconds)

    def run_until(self, predicate: Predicate, seconds: float) -> bool:
        """Let time pass until ``predicate`` holds, ``seconds`` at most.

        :returns: whether it does.
        """
        deadline = self._time + seconds
        while not predicate():
            if not self._queue or self._queue[0][0] > deadline:
                self._time = max(self._time, deadline)
                self._wake_all()
                return predicate()
            due, _, timer = heapq.heappop(self._queue)
            if timer.cancelled:
                continue
            self._time = max(self._time, due)
            timer.fire()
            self._wake_all()
        return True

    def throw(self, task: Task, error: BaseException) -> None:
        """Let a task fail where it waits."""
        self._parked.pop(task, None)
        if not task:  # it has not run yet, or not any more
            task.throw(greenlet.GreenletExit)
        else:
            task.throw(error)
        self._forget(task)

    def tasks_of(self, owner: typing.Any) -> list[Task]:
        """Return the tasks of an owner that have no end yet."""
        return [task for task in self._tasks if task.owner is owner]

    def close(self) -> None:
        """End everything."""
        for _ in range(10):
            for task in list(self._tasks):
                self.throw(task, greenlet.GreenletExit())
        self._queue.clear()

    def _resume(self, task: Task) -> None:
        if not task.dead:
            task.switch()
        self._forget(task)

    def _forget(self, task: Task) -> None:
        if task.dead:
            self._tasks.pop(task, None)

    def _wake_all(self) -> None:
        """Let everybody who waits look again, until nobody gets on."""
        while True:
            before = list(self._parked)
            for task in before:
                if self._parked.pop(task, True) is None:
                    self._resume(task)
            if all(task in self._parked for task in before):
                return


def _nothing() -> None:
    """Let time come to a point where somebody looks again."""


class World(world.World):
    """A world whose machines wait as tasks of its hub.

    :ivar booting: told of each call that a host refuses since it starts.
    """

    clock: Hub
    booting: collections.abc.Callable[[str], None]

    def wait_for(self, predicate: Predicate) -> None:
        self.clock.wait_for(predicate)


# -- what the code under test takes for threads ---------------------------


class Thread:
    """As ``threading.Thread``."""

    hub: typing.ClassVar[Hub]

    def __init__(
        self,
        target: collections.abc.Callable[..., object],
        name: str = '',
        args: tuple[typing.Any, ...] = (),
        daemon: bool = False,
    ) -> None:
        self.name = name
        self.daemon = daemon
        self._target = target
        self._args = args
        self._task: Task | None = None

    def start(self) -> None:
        self._task = self.hub.spawn(lambda: self._target(*self._args))

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.dead

    def join(self, timeout: float | None = None) -> None:
        self.hub.wait_for(lambda: not self.is_alive(), timeout)


class Event:
    """As ``threading.Event``."""

    hub: typing.ClassVar[Hub]

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, timeout: float | None = None) -> bool:
        return self.hub.wait_for(self.is_set, timeout)


class Lock:
    """As ``threading.Lock``."""

    hub: typing.ClassVar[Hub]

    def __init__(self) -> None:
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        patience = None if timeout < 0 else timeout
        if not self.hub.wait_for(
            lambda: not self._held, patience if blocking else 0.0
        ):
            return False
        self._held = True
        return True

    def release(self) -> None:
        self._held = False

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class Local:
    """As ``threading.local``."""

    def __getattr__(self, name: str) -> typing.Any:
        try:
            return self._mine()[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: typing.Any) -> None:
        self._mine()[name] = value

    def _mine(self) -> dict[str, typing.Any]:
        here = greenlet.getcurrent()
        if not isinstance(here, Task):
            raise AssertionError('the hub has nothing of its own')
        return here.locals.setdefault(id(self), {})


class SimpleQueue:
    """As ``queue.SimpleQueue``."""

    hub: typing.ClassVar[Hub]

    def __init__(self) -> None:
        self._items: collections.deque[typing.Any] = collections.deque()

    def __class_getitem__(cls, item: object) -> type[SimpleQueue]:
        return cls

    def put(self, item: typing.Any) -> None:
        self._items.append(item)

    def get(self, timeout: float | None = None) -> typing.Any:
        if not self.hub.wait_for(lambda: bool(self._items), timeout):
            raise queue.Empty
        return self._items.popleft()


class Executor:
    """As ``concurrent.futures.ThreadPoolExecutor``."""

    hub: typing.ClassVar[Hub]

    def __init__(self, workers: int) -> None:
        self._free = workers

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def map(
        self,
        function: collections.abc.Callable[[typing.Any], typing.Any],
        items: collections.abc.Iterable[typing.Any],
    ) -> list[typing.Any]:
        results: dict[int, typing.Any] = {}
        errors: dict[int, BaseException] = {}

        def work(number: int, item: typing.Any) -> None:
            self.hub.wait_for(lambda: self._free > 0)
            self._free -= 1
            try:
                results[number] = function(item)
            except BaseException as error:  # noqa: BLE001 - raised below
                errors[number] = error
            finally:
                self._free += 1

        tasks = [
            self.hub.spawn(functools.partial(work, number, item))
            for number, item in enumerate(items)
        ]
        self.hub.wait_for(lambda: all(task.dead for task in tasks))
        if errors:
            raise errors[min(errors)]
        return [results[number] for number in sorted(results)]


def _stand_ins(hub: Hub) -> dict[str, types.SimpleNamespace]:
    """Return what stands in for modules of the standard library."""
    own = {
        kind.__name__: type(kind.__name__, (kind,), {'hub': hub})
        for kind in (Thread, Event, Lock, SimpleQueue, Executor)
    }
    return {
        'threading': types.SimpleNamespace(
            Thread=own['Thread'],
            Event=own['Event'],
            Lock=own['Lock'],
            local=Local,
            TIMEOUT_MAX=threading.TIMEOUT_MAX,
        ),
        'queue': types.SimpleNamespace(
            SimpleQueue=own['SimpleQueue'],
            Queue=own['SimpleQueue'],
            Empty=queue.Empty,
        ),
        'time': types.SimpleNamespace(monotonic=hub.monotonic),
        'concurrent': types.SimpleNamespace(
            futures=types.SimpleNamespace(ThreadPoolExecutor=own['Executor'])
        ),
    }


def _is_concerned(name: str) -> bool:
    """Say whether a module works in simulated time."""
    return name in {
        'xenpool_driver.compute.aggregates',
        'xenpool_driver.simulator.dispatch',
    } or (
        name.startswith('xenpool_driver.')
        and not name.startswith(
            (
                'xenpool_driver.cli',
                'xenpool_driver.clock',
                'xenpool_driver.compute',
                'xenpool_driver.simulator',
            )
        )
    )


@contextlib.contextmanager
def patched(hub: Hub) -> collections.abc.Iterator[None]:
    """Let the code under test take the tasks of ``hub`` for threads."""
    stand_ins = _stand_ins(hub)
    with contextlib.ExitStack() as stack:
        for name, module in sorted(sys.modules.items()):
            for library, stand_in in stand_ins.items():
                if _is_concerned(name) and hasattr(module, library):
                    stack.enter_context(
                        unittest.mock.patch.object(module, library, stand_in)
                    )
        yield
