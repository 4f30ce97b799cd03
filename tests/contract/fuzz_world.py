# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Worlds to be fuzzed, and who judges what they answer.

Waiting callers do not stop a test: time passes for them, and they hang up in
the end.
"""

from __future__ import annotations

import collections.abc
import contextlib
import json
import logging
import re
import types
import typing
import unittest.mock

from tests import manual_world
from xenpool_driver.simulator import (
    build,
    database,
    datamodel,
    dispatch,
    errors,
    faults,
    gc,
    machine,
    profiles,
    topology,
    verbs,
)

REGISTERED = verbs.MODULES
"""Importing these is what makes their messages known."""

PASSWORD = 'xenroot'
PATIENCE = 9000.0
"""Simulated seconds that a caller waits; XAPI itself gives up after two
hours where it waits for an operation on the pool."""

Value = typing.Any


class GaveUp(faults.Drop):
    """A caller waited long enough: a real one would have hung up."""


class FuzzWorld(manual_world.ManualWorld):
    """A world whose callers have patience, but not for ever."""

    def wait_for(self, predicate: collections.abc.Callable[[], bool]) -> None:
        started, step = self.clock.now(), manual_world.STEP
        while not predicate():
            if self.clock.now() - started > PATIENCE:
                raise GaveUp
            self.clock.advance(step)
            step = min(step * 1.2, 30.0)


class FuzzClock(manual_world.ManualClock):
    """A clock of which no caller can ask more than its patience."""

    def sleep(self, seconds: float) -> None:
        if seconds > PATIENCE:
            self.advance(PATIENCE)
            raise GaveUp
        self.advance(seconds)


def _wait(self: database.Database, generation: int, timeout: float) -> int:
    """Wait for a change by letting time pass (``Database.wait``)."""
    clock = self.clock
    deadline, started = clock.now() + timeout, clock.now()
    step = 0.5
    while self.generation <= generation and clock.now() < deadline:
        if clock.now() - started > PATIENCE:
            raise GaveUp
        clock.advance(min(step, deadline - clock.now()))
        step = min(step * 1.5, 60.0)
    return self.generation


class AtOnce:
    """A thread that does its work when it is started."""

    def __init__(
        self,
        target: collections.abc.Callable[..., object],
        args: tuple[typing.Any, ...] = (),
        **options: typing.Any,
    ) -> None:
        self._target, self._args = target, args

    def start(self) -> None:
        """Do the work."""
        self._target(*self._args)


@contextlib.contextmanager
def single_threaded() -> collections.abc.Iterator[None]:
    """Let asynchronous calls, and waiting ones, run in this thread."""
    threads = types.SimpleNamespace(Thread=AtOnce)
    with (
        unittest.mock.patch.object(dispatch, 'threading', threads),
        unittest.mock.patch.object(database.Database, 'wait', _wait),
    ):
        yield


TREE = {
    'hosts': ['alone'],
    'pools': [
        {
            'name': 'production',
            'hosts': ['xen01', 'xen02', 'xen03'],
            'srs': [
                {
                    'name': 'nfs',
                    'type': 'nfs',
                    'shared': True,
                    'device_config': {'server': '127.9.9.9'},
                }
            ],
            'networks': [{'name': 'internal'}],
            'vlans': [{'device': 'eth0', 'tag': 42}],
            'vms': [
                {
                    'name': 'web',
                    'host': 'xen02',
                    'power_state': 'Running',
                    'disks': [{'sr': 'nfs'}],
                    'networks': ['internal'],
                },
                {'name': 'db', 'host': 'xen01'},
            ],
        }
    ],
}


def world() -> FuzzWorld:
    """Return a pool of three, and a host of its own."""
    where = FuzzWorld(FuzzClock(), seed=1)
    topology.Builder(
        where, build.addresses('127.90.11.1'), PASSWORD, profiles.CURRENT
    ).build(TREE)
    gc.start(where)
    return where


# -- what is answered -------------------------------------------------------


class Complaints(logging.Handler):
    """Keeps what the simulator logs as its own mistakes."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(logging.Formatter().format(record))


@contextlib.contextmanager
def no_complaints() -> collections.abc.Iterator[None]:
    """Fail when the simulator logs a mistake of its own."""
    handler = Complaints()
    logger = logging.getLogger('xenpool_driver.simulator')
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not handler.records, handler.records[0]


PYTHON = re.compile(
    r"^\w*(Error|Exception|Iteration)\(|Traceback|object at 0x|<class '"
)
"""What only Python says."""


def check_refusal(details: collections.abc.Sequence[str]) -> None:
    """Assert that XAPI could have said this."""
    code, *params = details
    model = datamodel.load()
    assert code in model.errors or code in UNLISTED, details
    assert all(type(param) is str for param in details), details
    if code == 'INTERNAL_ERROR':
        assert not PYTHON.search(params[0]), details


UNLISTED = {
    'Fault',  # an asynchronous call of what has none: recorded
}
"""Codes that no list of XAPI's has, and that it answers."""


def answer(
    target: machine.Machine, method: str, params: list[Value]
) -> typing.Any:
    """Make a call, look at its answer in both encodings; return its value.

    None when it is refused.
    """
    try:
        result = dispatch.execute(target, method, params)
    except errors.ApiError as error:
        check_refusal(error.details)
        return None
    except dispatch.GateRefusal as refusal:
        check_refusal(refusal.error.details)
        return None
    assert result.xml().startswith('<value')
    shown = json.loads(result.json())
    assert is_of(result.type, shown), (method, shown)
    return result.value


def is_of(kind: datamodel.Type, value: Value) -> bool:
    """Tell whether a value decoded from JSON is of a type."""
    if kind.kind == 'bool':
        return isinstance(value, bool)
    if kind.kind in ('int', 'float'):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind.kind == 'set' and kind.of is not None:
        inner = kind.of
        return isinstance(value, list) and all(is_of(inner, v) for v in value)
    if kind.kind == 'map':
        inner = datamodel.map_types(kind)[1]
        return isinstance(value, dict) and all(
            is_of(inner, item) for item in value.values()
        )
    if kind.kind == 'record' and kind.name in datamodel.load().classes:
        fields = datamodel.load().classes[kind.name].fields
        return set(value) == set(fields) and all(
            is_of(fields[name].type, item) for name, item in value.items()
        )
    if kind.kind in ('record', 'batch', 'option'):
        return True
    return isinstance(value, str)
