# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Random calls: parameters of every published message, wrong and right.

What is drawn is symbolic: a reference is "the third VM of whoever is asked",
made a real one when the call is made.
"""

from __future__ import annotations

import dataclasses
import typing

from hypothesis import strategies as st

from tests.contract import fuzz_world
from xenpool_driver.simulator import (
    database,
    datamodel,
    errors,
    faults,
    machine,
    values,
)

Value = typing.Any


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
            fuzz_world.PASSWORD,
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
    'master_password': st.just(fuzz_world.PASSWORD),
    'pwd': st.just(fuzz_world.PASSWORD),
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
    'VLAN.create',
    'VLAN.destroy',
    'Bond.create',
    'Bond.destroy',
    'tunnel.create',
    'network.create',
    'network.add_purpose',
    'VM.add_to_other_config',
    'role.get_record',
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


class Caller:
    """Makes calls to the hosts of a world.

    :param where: the world.
    """

    def __init__(self, where: fuzz_world.FuzzWorld) -> None:
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
                fuzz_world.answer(target, call.method, [*first, *params])
            except fuzz_world.GaveUp:
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
            found = fuzz_world.answer(
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
