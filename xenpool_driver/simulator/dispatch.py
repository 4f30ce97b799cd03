# Licensed under the Apache License, Version 2.0; see LICENSE.
"""From a method's name and parameters to its answer, in XAPI's order.

Emergency gate; the method; the number of its parameters; their types; the
session; asynchronous or not; then, inside the task, the roles and the call
itself (``api_server.ml``, the generated ``server.ml``, ``session_check.ml``,
``server_helpers.ml``).
"""

from __future__ import annotations

import collections.abc
import functools
import logging
import random
import threading
import typing

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import (
    database,
    datamodel,
    errors,
    faults,
    generic,
    objects,
    rbac,
    registry,
    roles,
    rows,
    sessions,
    tasks,
    values,
)
from xenpool_driver.simulator import event_queue as _event_queue
from xenpool_driver.simulator import events as _events
from xenpool_driver.simulator import messages as _messages

__all__ = ['GateRefusal', 'Call', 'coverage', 'execute', 'REGISTERING']

LOG = logging.getLogger(__name__)

REGISTERING = (
    _event_queue,
    _events,
    _messages,
    objects,
    roles,
    sessions,
    tasks,
)
"""The engine's own messages register when these are imported."""

LIST_METHODS = 'system.listMethods'
ASYNC, INTERNAL_ASYNC = 'Async.', 'InternalAsync.'
_NO_TASK = ('task', 'event')
"""Classes whose calls make no task (datamodel.ml, no_task_id_for)."""

_STRING = datamodel.Type('string')
_TASK_REF = datamodel.Type('ref', name='task')
_STRINGS = datamodel.Type('set', of=_STRING)


class GateRefusal(Exception):
    """A call was refused before it was dispatched.

    :ivar error: why; it is written differently than other refusals.
    """

    def __init__(self, error: errors.ApiError) -> None:
        super().__init__(error.code)
        self.error = error


class Call:
    """A call as the message that answers it sees it (``registry.Call``).

    :param opened: the record of the caller's session when the call was
        accepted. What has begun goes on when the session ends (recorded).
    """

    def __init__(
        self,
        machine: typing.Any,
        name: str,
        args: list[typing.Any],
        session_ref: str | None,
        opened: database.Record | None = None,
    ) -> None:
        self.machine = machine
        self.name = name
        self.args = args
        self.session_ref = session_ref
        self.task: str | None = None
        self._opened = opened or {}

    @property
    def db(self) -> database.Database:
        """The database that the machine serves.

        :raises faults.Drop: when it cannot be reached any more.
        """
        db = self.machine.db
        if db is None:
            raise faults.Drop
        found: database.Database = db
        return found

    @property
    def clock(self) -> clock_module.Clock:
        """The simulated time."""
        clock: clock_module.Clock = self.machine.clock
        return clock

    @property
    def rng(self) -> random.Random:
        """The seeded source of all randomness."""
        rng: random.Random = self.machine.world.rng
        return rng

    @property
    def session(self) -> database.Record:
        """The record of the caller's session, empty for a local one."""
        return self._opened

    @property
    def originator(self) -> str:
        """What the session's owner called itself."""
        return str(self.session.get('originator', ''))

    @property
    def here(self) -> str:
        """The reference of the host that answers, NULL if it has none."""
        hosts = self.db.table('host').by_uuid
        return hosts.get(self.machine.uuid, errors.NULL)

    @property
    def is_local_session(self) -> bool:
        """Whether the session is of slave_local_login*."""
        return self.session_ref in self.machine.local_sessions

    @property
    def is_pool_session(self) -> bool:
        """Whether the caller knows the pool secret."""
        return bool(self.session.get('pool', False))

    def progress(self, fraction: float) -> None:
        """Show 0..1 as the task's progress."""
        self._set_task(progress=fraction)

    def set_cancellable(self, cancellable: bool = True) -> None:
        """Show ``cancel`` among the task's allowed operations, or not."""
        self._set_task(allowed_operations=['cancel'] if cancellable else [])

    def _set_task(self, **fields: typing.Any) -> None:
        if self.task is None:
            return
        with self.db.lock:
            if self.db.find('task', self.task) is not None:
                self.db.set('task', self.task, **fields)

    def check_cancelled(self) -> None:
        """Raise TASK_CANCELLED when the task was cancelled."""
        if self.task is not None and tasks.is_cancelling(self.db, self.task):
            raise errors.ApiError(tasks.TASK_CANCELLED, self.task)

    def assert_permission(
        self, permission: str, roles: collections.abc.Collection[str]
    ) -> None:
        """Raise RBAC_PERMISSION_DENIED unless the session has it."""
        session = self.session
        if not session or session['is_local_superuser']:
            return
        if permission in session['rbac_permissions']:
            return
        raise errors.ApiError(
            'RBAC_PERMISSION_DENIED',
            permission,
            'No permission in user session. (Roles with this permission: '
            f'{rbac.told(roles)})',
        )


class Method:
    """What is needed to answer one message, looked up once."""

    def __init__(self, message: datamodel.Message) -> None:
        self.message = message
        self.name = message.wire_name
        self.removed = message.lifecycle == 'removed'
        self.makes_task = message.async_ and message.cls not in _NO_TASK
        self.expected = _expected(message)
        self._required = [
            param.type
            for param in message.params
            if param.default is datamodel.MISSING
        ]
        self._defaults = [
            param
            for param in message.params
            if param.default is not datamodel.MISSING
        ]
        self._derived = generic.handler(message) or generic.not_simulated(
            message
        )

    def check_count(self, params: list[typing.Any]) -> None:
        """Refuse a wrong number of parameters.

        A message with defaults takes any surplus; the session counts for
        nothing, so that a call without any parameter has "-1".

        :raises ApiError: MESSAGE_PARAMETER_COUNT_MISMATCH.
        """
        session = 1 if self.message.session else 0
        received = len(params) - session
        required = len(self._required)
        if received == required or (self._defaults and received > required):
            return
        raise errors.ApiError(
            'MESSAGE_PARAMETER_COUNT_MISMATCH',
            self.name,
            str(self.expected),
            str(received),
        )

    def coerce(self, params: list[typing.Any]) -> list[typing.Any]:
        """Return the arguments; absent ones get their defaults."""
        args = [
            values.coerce(kind, value)
            for kind, value in zip(self._required, params, strict=False)
        ]
        extra = params[len(self._required) :]
        for index, param in enumerate(self._defaults):
            if index < len(extra):
                args.append(values.coerce(param.type, extra[index]))
            else:
                args.append(param.default)
        return args

    def run(self, call: Call) -> typing.Any:
        """Check the roles, then answer."""
        demand = rbac.demand(self.message, call.args)
        if call.session_ref is not None and demand is not None:
            call.assert_permission(*demand)
        registered = registry.lookup(self.name)
        if registered is None:
            return self._derived(call, *call.args)
        return registered.function(call, *call.args)

    def needs_db(self) -> bool:
        """Whether the call waits for the database."""
        registered = registry.lookup(self.name)
        return registered is None or registered.needs_db


def _expected(message: datamodel.Message) -> int:
    """Return how many parameters XAPI says it expects.

    A constructor takes one struct, but XAPI counts the fields in it that
    have no default (gen_server.ml).
    """
    if message.origin != 'ctor':
        return message.required
    fields = datamodel.load().classes[message.cls].fields.values()
    return sum(
        field.default is datamodel.MISSING
        for field in fields
        if field.qualifier != 'DynamicRO' and field.name != 'uuid'
    )


@functools.cache
def _method(name: str) -> Method | None:
    """Return the method called ``class.message`` or ``class_message``."""
    model = datamodel.load()
    name = model.aliases.get(name, name)
    message = model.messages.get(name)
    if message is None:
        hidden = generic.where_messages()
        dotted = name.replace('_', '.', 1)
        message = hidden.get(name) or hidden.get(dotted)
    return None if message is None else Method(message)


@functools.cache
def _all_names() -> list[str]:
    return list(datamodel.load().messages)


def coverage() -> dict[str, str]:
    """Return, for each published message, how it is answered.

    By hand ('simulated'), from the data model ('derived'), not at all
    ('not simulated', NOT_IMPLEMENTED) or with MESSAGE_REMOVED ('removed').
    """
    out = {}
    for name, message in datamodel.load().messages.items():
        if message.lifecycle == 'removed':
            out[name] = 'removed'
        elif registry.lookup(name) is not None:
            out[name] = 'simulated'
        elif generic.handler(message) is not None:
            out[name] = 'derived'
        else:
            out[name] = 'not simulated'
    return out


def execute(
    machine: typing.Any, name: str, params: list[typing.Any]
) -> rows.Result:
    """Answer a call.

    :param machine: the machine that got it.
    :param name: the method, as it came.
    :param params: its parameters, as decoded.
    :raises GateRefusal: when it was refused before it was dispatched.
    :raises ApiError: when it is refused.
    :raises faults.Drop: when the caller gets no answer.
    :raises faults.Garbage: when the caller gets nonsense.
    """
    first = params[0] if params else None
    has_local = isinstance(first, str) and first in machine.local_sessions
    try:
        machine.gate(name, has_local)
        _check_texts(params)
    except errors.ApiError as error:
        raise GateRefusal(error) from None
    except clock_module.Stopped:
        raise faults.Drop from None
    try:
        return _dispatch(machine, name, params)
    except clock_module.Stopped:
        raise faults.Drop from None


def _check_texts(params: list[typing.Any]) -> None:
    """Refuse texts that are no UTF-8 (they hold lone surrogates).

    :raises ApiError: INVALID_VALUE.
    """
    for param in params:
        if isinstance(param, str) and param.isascii():
            continue
        shown = values.dump(param)
        try:
            shown.encode()
        except UnicodeEncodeError:
            raise errors.ApiError(
                'INVALID_VALUE', 'Invalid UTF-8 string in parameter', shown
            ) from None


def _split(name: str) -> tuple[str, str]:
    for prefix in (ASYNC, INTERNAL_ASYNC):
        if name.startswith(prefix):
            return prefix, name[len(prefix) :]
    return '', name


def _dispatch(
    machine: typing.Any, label: str, params: list[typing.Any]
) -> rows.Result:
    prefix, name = _split(label)
    method = _method(name)
    if method is None:
        return _unknown(machine, name, params)
    message = method.message
    method.check_count(params)
    if message.session:
        session: str | None = values.coerce(_STRING, params[0])
        params = params[1:]
    else:
        session = None
    if method.removed:
        _check_session(machine, method, session)
        raise errors.ApiError('MESSAGE_REMOVED')
    args = method.coerce(params)
    opened = _check_session(machine, method, session)
    if prefix and not message.async_:
        raise errors.ApiError(
            'Fault', f'No async mode for this operation (rpc: {name})'
        )
    call = Call(machine, method.name, args, session, opened)
    if prefix:
        return _run_async(method, call, label)
    return _run(method, call, label)


def _unknown(
    machine: typing.Any, name: str, params: list[typing.Any]
) -> rows.Result:
    """Answer a method that is none; a session is still checked first."""
    if name == LIST_METHODS:
        return rows.Result(_STRINGS, _all_names())
    if params:
        session = values.coerce(_STRING, params[0])
        _check_session(machine, None, session)
    if name.partition('.')[0] in datamodel.load().removed_classes:
        raise errors.ApiError('MESSAGE_REMOVED')
    raise errors.ApiError('MESSAGE_METHOD_UNKNOWN', name)


def _check_session(
    machine: typing.Any, method: Method | None, session: str | None
) -> database.Record | None:
    """Tell whether ``session`` is good here (session_check.ml).

    :returns: its record as it is now; None for a local session, and for none.
    :raises ApiError: SESSION_INVALID, HOST_IS_SLAVE, INTERNAL_ERROR.
    """
    if session is None or session in machine.local_sessions:
        if method is None or method.needs_db():
            machine.hang_db()
        return None
    machine.hang_db()
    db: database.Database | None = machine.db
    if db is None:
        raise faults.Drop
    row = db.table('session').rows.get(session)
    if row is None:
        raise errors.session_invalid(session)
    member = machine.role[0] == 'slave'
    if not row.record['pool']:
        _check_ordinary(db, method, member)
    if not member:
        sessions.touch(db, row, session)
    return row.record


def _check_ordinary(
    db: database.Database, method: Method | None, member: bool
) -> None:
    """Refuse what only holders of the pool's secret may do."""
    if method is not None and method.message.pool_internal:
        raise errors.internal_error(
            f'Internal API "{method.name}" call attempted with non-pool '
            '(external) session'
        )
    if member:
        raise errors.host_is_slave(_master_address(db))


def _master_address(db: database.Database) -> str:
    for pool in db.all('pool').values():
        return str(db.get('host', pool['master'])['address'])
    raise faults.Drop


def _run(method: Method, call: Call, label: str) -> rows.Result:
    """Answer while the caller waits."""
    call.machine.faults.before(call)
    db: database.Database | None = None
    if method.makes_task and method.needs_db():
        db = call.db
        call.task = _new_task(call, label)
    try:
        result = rows.Result(method.message.result, _guarded(method, call))
    finally:
        if db is not None and call.task is not None:
            tasks.delete(db, call.task)
    call.machine.faults.after(call)
    return result


def _new_task(call: Call, label: str) -> str:
    session = None if call.is_local_session else call.session_ref
    return tasks.create(call.db, label, resident_on=call.here, session=session)


def _guarded(method: Method, call: Call) -> typing.Any:
    """Answer; what nobody foresaw becomes INTERNAL_ERROR, and is logged."""
    try:
        return method.run(call)
    except (errors.ApiError, faults.Drop, faults.Garbage):
        raise
    except clock_module.Stopped:
        raise faults.Drop from None
    except Exception as error:
        LOG.exception('%s failed in the simulator', call.name)
        raise errors.internal_error(repr(error)) from error


def _run_async(method: Method, call: Call, label: str) -> rows.Result:
    """Answer with a task, and do the work in a thread of its own."""
    refused: errors.ApiError | None = None
    try:
        call.machine.faults.before(call)
    except errors.ApiError as error:
        refused = error
    call.task = _new_task(call, label)
    threading.Thread(
        target=_work,
        args=(method, call, call.db, refused),
        name=label,
        daemon=True,
    ).start()
    call.machine.faults.after(call)
    return rows.Result(_TASK_REF, call.task)


def _work(
    method: Method,
    call: Call,
    db: database.Database,
    refused: errors.ApiError | None,
) -> None:
    """Do the work of an asynchronous call and settle its task.

    When the toolstack ends meanwhile, the task is gone with it.
    """
    task = call.task or ''
    try:
        if refused is not None:
            raise refused
        result = rows.Result(method.message.result, _guarded(method, call))
        tasks.complete(db, task, result.xml())
    except errors.ApiError as error:
        tasks.fail(db, task, error)
    except (faults.Drop, faults.Garbage):
        LOG.info('%s ended without an outcome', call.name)
