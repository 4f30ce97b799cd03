# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Random calls: parameters of every published message, wrong and right.

What is drawn is symbolic: a reference is "the third VM of whoever is asked",
made a real one when the call is made.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import json
import logging
import re
import types
import typing
import unittest.mock

from hypothesis import strategies as st

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
    values,
    verbs,
)

REGISTERED = verbs.MODULES
"""Importing these is what makes their messages known."""

PASSWORD = 'xenroot'
PATIENCE = 9000.0
"""Simulated seconds that a caller waits; XAPI itself gives up after two
hours where it waits for an operation on the pool."""

Value = typing.Any

# -- worlds in which waiting callers do not stop the test -------------------


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


# -- what is drawn ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ref:
    """A reference to be looked up: the n-th of a class."""

    cls: str
    number: int

    def real(self, db: database.Database | None) -> str:
        """Return it, NULL when there is none."""
        rows = [] if db is None else _refs(db, self.cls)
        return rows[self.number % len(rows)] if rows else errors.NULL


@dataclasses.dataclass(frozen=True)
class Uuid:
    """A uuid to be looked up: that of the n-th of a class."""

    cls: str
    number: int

    def real(self, db: database.Database | None) -> str:
        """Return it, a wrong one when there is none."""
        ref = Ref(self.cls, self.number).real(db)
        found = None if db is None else db.find(self.cls, ref)
        return 'no-uuid' if found is None else str(found.get('uuid', ref))


def _refs(db: database.Database, cls: str) -> list[str]:
    try:
        return db.refs(cls)
    except errors.ApiError:  # of a class without a table
        return []


def real(value: Value, db: database.Database | None) -> Value:
    """Return what was drawn, with its references looked up."""
    if isinstance(value, (Ref, Uuid)):
        return value.real(db)
    if isinstance(value, list):
        return [real(item, db) for item in value]
    if isinstance(value, dict):
        return {key: real(item, db) for key, item in value.items()}
    return value


TEXTS = st.one_of(
    st.sampled_from(
        [
            '',
            'true',
            'key',
            'OpaqueRef:NULL',
            'OpaqueRef:none',
            '127.90.11.1',
            '127.90.11.4',
            'root',
            PASSWORD,
            '\x01',
            '\ud800',
            'é',
            '5',
            '-1',
            'pool/a/b',
            '*',
            '(1',
            'field "uuid"="x"',
            '00000000000000000001,00000000000000000001',
        ]
    ),
    st.text(max_size=8),
)

INTS = st.one_of(
    st.integers(-2, 70),
    st.sampled_from([2**31, 2**63 - 1, -(2**63), 2**63, 2**80]),
)

NUMBERS = st.one_of(
    INTS, st.floats(), st.floats(0, 100), st.integers(0, 9).map(str)
)

ANYTHING: st.SearchStrategy[Value] = st.recursive(
    st.one_of(
        TEXTS,
        NUMBERS,
        st.booleans(),
        st.none(),
        st.builds(values.DateTime, TEXTS),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ),
    max_leaves=6,
)

NUMBER = st.integers(0, 9)


def mostly(
    good: st.SearchStrategy[Value],
    *bad: st.SearchStrategy[Value],
    times: int = 15,
) -> st.SearchStrategy[Value]:
    """Return ``good``, one time in ``times`` another.

    A strategy that is named twice counts once for hypothesis.
    """
    others = st.one_of(*bad)
    return st.integers(0, times - 1).flatmap(
        lambda number: others if number == times - 1 else good
    )


def right(kind: datamodel.Type) -> st.SearchStrategy[Value]:
    """Return values of a type, as callers write them."""
    model = datamodel.load()
    if kind.kind == 'ref':
        cls = kind.name if kind.name in model.classes else 'host'
        return st.builds(Ref, st.just(cls), NUMBER)
    if kind.kind == 'enum':
        known = sorted(model.enums.get(kind.name, {'none'}))
        return st.sampled_from(known)
    if kind.kind == 'set' and kind.of is not None:
        return st.lists(value_of(kind.of), max_size=3)
    if kind.kind == 'map':
        key, item = datamodel.map_types(kind)
        return st.dictionaries(
            st.text(max_size=4) if key.kind != 'int' else INTS.map(str),
            value_of(item),
            max_size=3,
        )
    if kind.kind == 'record':
        return _record(kind.name)
    if kind.kind == 'option' and kind.of is not None:
        return st.one_of(st.none(), value_of(kind.of))
    return _SIMPLE.get(kind.kind, TEXTS)


def _record(cls: str) -> st.SearchStrategy[Value]:
    known = datamodel.load().classes.get(cls)
    fields = {} if known is None else known.fields
    return st.fixed_dictionaries(
        {},
        optional={name: value_of(f.type) for name, f in fields.items()},
    )


_SIMPLE: dict[str, st.SearchStrategy[Value]] = {
    'int': st.one_of(INTS, INTS.map(str)),
    'float': NUMBERS,
    'bool': st.booleans(),
    'datetime': st.sampled_from(
        ['20260101T00:00:00Z', values.DateTime('20260101T00:00:00Z'), 'x']
    ),
}


def value_of(kind: datamodel.Type) -> st.SearchStrategy[Value]:
    """Return values of a type, now and then of another."""
    return mostly(st.deferred(lambda: right(kind)), ANYTHING, times=25)


@dataclasses.dataclass(frozen=True)
class Call:
    """A call to be made.

    :ivar host: the position of who is asked.
    :ivar session: right, local, wrong, none (no first parameter) or any.
    :ivar pause: simulated seconds that pass behind it.
    """

    host: int
    method: str
    params: tuple[Value, ...]
    session: str
    pause: float


ADDRESSES = st.sampled_from(
    ['127.90.11.1', '127.90.11.1', '127.90.11.2', '127.90.11.4', '127.9.9.9']
)
BY_NAME: dict[str, st.SearchStrategy[Value]] = {
    'master_address': ADDRESSES,
    'address': ADDRESSES,
    'master_username': st.just('root'),
    'uname': st.just('root'),
    'master_password': st.just(PASSWORD),
    'pwd': st.just(PASSWORD),
    'timeout': st.floats(-1, 100),
    'token': st.sampled_from(['', '00000000000000000001,0', 'x']),
    'classes': st.lists(
        st.sampled_from(['*', 'host', 'pool', 'task', 'VM', 'nonsense']),
        max_size=3,
    ),
}
"""What callers mean by parameters of these names."""


def _params(message: datamodel.Message) -> st.SearchStrategy[Value]:
    each = [
        mostly(BY_NAME[param.name], value_of(param.type))
        if param.name in BY_NAME
        else value_of(param.type)
        for param in message.params
    ]
    if each and message.name == 'get_by_uuid':
        looked_up = st.builds(Uuid, st.just(message.cls), NUMBER)
        each = [mostly(looked_up, each[0])]
    exact = st.tuples(*each)
    return mostly(
        exact,
        st.lists(ANYTHING, max_size=4).map(tuple),
        exact.map(lambda params: params[:-1]),
        st.tuples(exact, ANYTHING).map(lambda both: (*both[0], both[1])),
    )


VERBS = (
    'pool.join',
    'pool.join_force',
    'pool.eject',
    'pool.designate_new_master',
    'pool.emergency_transition_to_master',
    'pool.emergency_reset_master',
    'pool.recover_slaves',
    'pool.enable_ha',
    'pool.disable_ha',
    'pool.sync_database',
    'pool.management_reconfigure',
    'pool.set_default_SR',
    'host.disable',
    'host.enable',
    'host.evacuate',
    'host.reboot',
    'host.shutdown',
    'host.destroy',
    'host.declare_dead',
    'host.restart_agent',
    'host.get_vms_which_prevent_evacuation',
    'host.get_servertime',
    'host.management_reconfigure',
    'VM.start',
    'VM.start_on',
    'VM.clean_shutdown',
    'VM.hard_shutdown',
    'VM.pool_migrate',
    'VM.suspend',
    'VM.destroy',
    'PBD.plug',
    'PBD.unplug',
    'PBD.destroy',
    'SR.forget',
    'SR.introduce',
    'PIF.forget',
    'PIF.reconfigure_ip',
    'event.from',
    'event.register',
    'event.next',
    'session.logout',
    'session.login_with_password',
    'session.slave_local_login_with_password',
    'task.create',
    'task.cancel',
    'task.destroy',
)
"""What a world suffers most from."""


def _call(name: str) -> st.SearchStrategy[Call]:
    message = datamodel.load().messages[name]
    alias = name.replace('.', '_', 1)
    return st.builds(
        Call,
        host=st.sampled_from([0, 0, 0, 0, 1, 2, 3, 3]),
        method=st.sampled_from(
            [name] * 6 + [f"Async.{name}"] * 3 + [alias, name.upper()]
        ),
        params=_params(message),
        session=st.sampled_from(
            ['right'] * 12 + ['local', 'local', 'wrong', 'none', 'any']
        ),
        pause=st.sampled_from([0.0, 0.0, 1.0, 13.0, 40.0]),
    )


def calls() -> st.SearchStrategy[Call]:
    """Return calls of every published message."""
    messages = datamodel.load().messages
    known = [name for name in VERBS if name in messages]
    names = st.one_of(
        st.sampled_from(sorted(messages)), st.sampled_from(known)
    )
    return names.flatmap(_call)


# -- what is made of it -----------------------------------------------------


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


class Caller:
    """Makes calls to the hosts of a world.

    :param where: the world.
    """

    def __init__(self, where: FuzzWorld) -> None:
        self._world = where
        self._sessions: dict[tuple[str, str], tuple[typing.Any, str]] = {}

    def make(self, call: Call) -> None:
        """Make a call; assert that the answer is one of XAPI's."""
        target = self._world.machines[call.host % len(self._world.machines)]
        process = target.process
        if process is not None:
            params = [real(value, target.db) for value in call.params]
            try:
                first = self._session(target, call.session)
                answer(target, call.method, [*first, *params])
            except GaveUp:
                assert _may_wait(target, call.method), call
            except faults.Drop:
                assert process.ended, (call, 'no answer')
        self._world.clock.advance(call.pause)

    def _session(self, target: machine.Machine, kind: str) -> list[str]:
        """Return the first parameter, if there is to be one."""
        if kind in ('none', 'any'):
            return []
        if kind == 'wrong':
            return ['OpaqueRef:wrong']
        key = (target.name, kind)
        process, session = self._sessions.get(key, (None, ''))
        if process is not target.process:  # the last one died with its own
            verb = 'slave_local_login' if kind == 'local' else 'login'
            found = answer(
                target,
                f"session.{verb}_with_password",
                ['root', target.password],
            )
            process, session = target.process, found or 'OpaqueRef:refused'
            self._sessions[key] = process, session
        return [session]


def _may_wait(target: machine.Machine, method: str) -> bool:
    """Tell whether a caller of XAPI's, too, would have hung up in the end.

    Who waits for an event, for a database that is gone, for a member that is
    dead or for the end of another operation does so for hours.
    """
    waits = method.partition('.')[0] == 'event' or 'event' in method.lower()
    gone = target.db is None or target.frozen
    where = target.world
    dead = any(not m.powered or m.process is None for m in where.machines)
    return waits or gone or dead


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
