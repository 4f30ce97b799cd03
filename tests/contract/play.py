# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Simulated hosts, watched by many observers at once, as real ones were.

Observers are those of the recordings: each makes its call again every 0.22 s
and notes what comes of it. Time is simulated: a minute takes no time, and two
plays are the same to the last event.
"""

from __future__ import annotations

import collections.abc
import contextlib
import typing
import unittest.mock

from tests.model import greens
from xenpool_driver.simulator import (
    build,
    dispatch,
    errors,
    faults,
    gc,
    machine,
    profiles,
    rows,
    topology,
    verbs,
)

REGISTERED = verbs.MODULES
"""Importing these is what makes their messages known."""

PASSWORD = 'xenroot'
PERIOD = 0.22
GLANCE = 0.02
LATENCY = 0.004
PATIENCE = 20.0
"""Simulated seconds for which a caller with a timeout waits."""

HTTP, HTTPS = machine.HTTP, machine.HTTPS

Value = typing.Any


class Lost(Exception):
    """There is no answer: refused, cut or timeout."""


class Stage:
    """A world to be watched.

    :param pool: the hosts of the pool, the coordinator first.
    :param others: hosts of their own.
    """

    def __init__(
        self,
        hub: greens.Hub,
        pool: collections.abc.Sequence[str],
        others: collections.abc.Sequence[str] = (),
    ) -> None:
        self.hub = hub
        self.world = greens.World(hub, seed=1)
        tree: dict[str, typing.Any] = {
            'pools': [{'hosts': list(pool)}],
            'hosts': list(others),
        }
        topology.Builder(
            self.world,
            build.addresses('127.90.12.1'),
            PASSWORD,
            profiles.CURRENT,
        ).build(tree)
        self.zero = hub.now()
        self.seen: dict[str, list[tuple[float, Value]]] = {}
        self.brief: set[str] = set()
        self.operations: set[str] = set()
        self.before: list[collections.abc.Callable[[], object]] = []

    def __getitem__(self, name: str) -> machine.Machine:
        return self.world.named(name)

    def name_at(self, address: str) -> str:
        """Return the name of the host at an address."""
        found = self.world.machine_at(address)
        return address if found is None else found.name

    @property
    def now(self) -> float:
        """Seconds since the play's beginning."""
        return self.hub.now() - self.zero

    # -- calls -------------------------------------------------------------

    def ask(
        self,
        name: str,
        kind: str,
        method: str,
        *params: Value,
        patience: float | None = None,
    ) -> Value:
        """Make a call over a connection of its own.

        :raises Lost: there is no answer.
        :raises ApiError: it is refused.
        """
        target = self[name]
        self.hub.sleep(LATENCY)
        process = target.process
        accepts = target.front_end if kind == HTTPS else target.up(HTTP)
        if not accepts:
            raise Lost('refused')
        if process is None or kind not in process.sockets:
            raise Lost('cut')
        done: list[Value] = []
        self.hub.spawn(lambda: done.append(_serve(target, method, params)))
        in_time = self.hub.wait_for(
            lambda: bool(done) or kind not in process.sockets, patience
        )
        if not in_time:
            raise Lost('timeout')
        if not done or isinstance(done[0], faults.Drop):
            raise Lost('cut')
        if isinstance(done[0], Exception):
            raise done[0]
        return done[0]

    def login(self, name: str, kind: str = HTTPS, local: bool = False) -> str:
        """Log in; return the session."""
        verb = 'slave_local_login' if local else 'login'
        method = f"session.{verb}_with_password"
        return str(self.ask(name, kind, method, 'root', PASSWORD))

    # -- observers -----------------------------------------------------------

    def observe(
        self,
        name: str,
        look: collections.abc.Callable[[], Value],
        period: float = PERIOD,
    ) -> None:
        """Look again and again, and note what is seen when it changes."""
        seen = self.seen.setdefault(name, [])
        # They do not all look at the same moment.
        behind = 0.037 * len(self.seen) % period

        def loop() -> None:
            self.hub.sleep(behind)
            while True:
                began = self.now
                value = self.outcome(look)
                if not seen or seen[-1][1] != value:
                    seen.append((began, value))
                self.hub.sleep(max(0.02, began + period - self.now))

        self.hub.spawn(loop)

    def outcome(self, look: collections.abc.Callable[[], Value]) -> Value:
        """Return what a look sees, or in a word why it sees nothing."""
        try:
            return look()
        except Lost as lost:
            return str(lost)
        except errors.ApiError as error:
            return self.refusal(error.details)

    def refusal(self, details: collections.abc.Sequence[str]) -> str:
        """Return a refusal in a word or two."""
        code, *params = details
        if code == 'HOST_IS_SLAVE':
            return f"{code} {self.name_at(params[0])}"
        return f"{code} {params[0]}" if code == 'HANDLE_INVALID' else code

    def run(
        self, seconds: float, work: collections.abc.Callable[[], object]
    ) -> None:
        """Do something, ``seconds`` after the beginning."""

        def wait() -> None:
            self.hub.sleep(max(0.0, seconds - self.now))
            work()

        self.hub.spawn(wait)

    def watch_closely(self) -> None:
        """Note what is too short for observers: they look too seldom."""

        def loop() -> None:
            while True:
                for target in self.world.machines:
                    self._look_closely(target)
                self.hub.sleep(GLANCE)

        self.hub.spawn(loop)

    def _look_closely(self, target: machine.Machine) -> None:
        process = target.process
        if process is None:
            return
        if process.emergency is not None:
            self.brief |= {process.emergency.code, 'emergency'}
        if process.database is not None:
            for pool in process.database.all('pool').values():
                self.operations.update(pool['current_operations'].values())

    def note(self, name: str, value: Value) -> None:
        """Note something that is seen once."""
        self.seen.setdefault(name, []).append((self.now, value))


def _serve(
    target: machine.Machine, method: str, params: tuple[Value, ...]
) -> Value:
    try:
        result = dispatch.execute(target, method, list(params))
    except (errors.ApiError, faults.Drop) as error:
        return error
    except dispatch.GateRefusal as refusal:
        return refusal.error
    value = result.value
    if isinstance(value, rows.RowMap):
        return {ref: dict(row.record) for ref, row in value.rows}
    if isinstance(value, rows.RowValue):
        return dict(value.row.record)
    return value


@contextlib.contextmanager
def stage(
    pool: collections.abc.Sequence[str],
    others: collections.abc.Sequence[str] = (),
    *,
    gc_at: float = 15.0,
    settle: float = 1200.0,
) -> collections.abc.Iterator[Stage]:
    """Yield a stage whose hosts have been running for long.

    :param gc_at: when, after the beginning, the coordinators collect garbage.
    :param settle: how long they have been running.
    """
    hub = greens.Hub()
    thread = type('Thread', (greens.Thread,), {'hub': hub})
    threads = unittest.mock.Mock(Thread=thread)
    with unittest.mock.patch.object(dispatch, 'threading', threads):
        made = Stage(hub, pool, others)
        gc.start(made.world)
        interval = made.world.timings.gc_interval
        hub.advance(settle - settle % interval + interval - gc_at % interval)
        made.zero = hub.now()
        made.watch_closely()
        yield made
        assert not hub.failures, hub.failures
        hub.close()
