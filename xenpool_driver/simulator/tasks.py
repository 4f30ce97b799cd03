# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Tasks: what shows the progress of calls, and what clients create.

The order of writes is XAPI's (``taskHelper.ml``): the status comes last, so
that who watches it finds the rest in place.
"""

from __future__ import annotations

import typing

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import (
    database,
    errors,
    registry,
    values,
)

PENDING, SUCCESS, FAILURE, CANCELLED = (
    'pending',
    'success',
    'failure',
    'cancelled',
)
COMPLETED = (SUCCESS, FAILURE, CANCELLED)
TASK_CANCELLED = 'TASK_CANCELLED'

KEPT_FINISHED = 3900.0
"""Simulated seconds that a finished task is kept (db_gc_util.ml)."""

KEPT_PENDING = 24 * 3600.0
"""Simulated seconds after which a pending task that stands still goes."""

KEPT_TASKS = 200
"""Above so many tasks the oldest finished ones go early."""


def create(
    db: database.Database,
    label: str,
    *,
    description: str = '',
    resident_on: str = errors.NULL,
    session: str | None = None,
    subtask_of: str = errors.NULL,
) -> str:
    """Add a pending task.

    :param session: the session that owns it, None for nobody's.
    :returns: its reference.
    """
    fields = {
        'name_label': label,
        'name_description': description,
        'created': db.clock.iso(),
        'finished': clock_module.EPOCH_ISO,
        'status': PENDING,
        'resident_on': resident_on,
        'progress': 0.0,
        'type': '<none/>',
        'subtask_of': subtask_of,
        'backtrace': '()',
    }
    with db.lock:
        ref = db.create('task', fields)
        owners(db)[ref] = session
        record = None if session is None else db.find('session', session)
        if record is not None and session is not None:
            db.set('session', session, tasks=[ref, *record['tasks']])
        return ref


def owners(db: database.Database) -> dict[str, str | None]:
    """Return which session owns which task (a hidden field in XAPI)."""
    owned: dict[str, str | None] = db.side.setdefault('task owners', {})
    return owned


def _pending(db: database.Database, ref: str) -> bool:
    record = db.find('task', ref)
    return record is not None and record['status'] == PENDING


def complete(db: database.Database, ref: str, result: str) -> None:
    """Let a task succeed; one that is not pending stays as it is.

    :param result: the ``<value>`` that the call returned.
    """
    with db.lock:
        if not _pending(db, ref):
            return
        db.set('task', ref, allowed_operations=[], finished=db.clock.iso())
        db.set('task', ref, progress=1.0)
        db.set('task', ref, result=result)
        db.set('task', ref, status=SUCCESS)
        _destroy_if_asked(db, ref)


def fail(db: database.Database, ref: str, error: errors.ApiError) -> None:
    """Let a task fail; one that is not pending stays as it is."""
    with db.lock:
        if not _pending(db, ref):
            return
        cancelled = error.code == TASK_CANCELLED
        db.set('task', ref, progress=1.0)
        if not cancelled:
            db.set('task', ref, error_info=error.details)
        db.set('task', ref, finished=db.clock.iso())
        db.set('task', ref, allowed_operations=[])
        db.set('task', ref, status=CANCELLED if cancelled else FAILURE)
        _destroy_if_asked(db, ref)


def _destroy_if_asked(db: database.Database, ref: str) -> None:
    if 'destroy' in db.get('task', ref)['current_operations'].values():
        delete(db, ref)


def delete(db: database.Database, ref: str) -> None:
    """Remove a task, if it is still there."""
    with db.lock:
        session = owners(db).pop(ref, None)
        if db.find('task', ref) is not None:
            db.delete('task', ref)
        record = None if session is None else db.find('session', session)
        if record is not None and session is not None:
            kept = [task for task in record['tasks'] if task != ref]
            db.set('session', session, tasks=kept)


def is_cancelling(db: database.Database, ref: str) -> bool:
    """Tell whether somebody asked for the end of a task."""
    record = db.find('task', ref)
    return (
        record is not None
        and 'cancel' in record['current_operations'].values()
    )


def collect_garbage(db: database.Database) -> None:
    """Remove tasks as XAPI's pass every 30 s does (db_gc_util.ml)."""
    now = db.clock.now()
    seen: dict[str, float] = db.side.setdefault('task progress', {})
    with db.lock:
        finished: list[tuple[float, str]] = []
        for ref, record in db.all('task').items():
            if record['status'] in COMPLETED:
                finished.append(
                    (clock_module.from_iso(record['finished']), ref)
                )
            elif _stands_still(record, seen.get(ref), now):
                delete(db, ref)
            else:
                seen[ref] = record['progress']
        finished.sort()
        surplus = len(db.refs('task')) - KEPT_TASKS
        for index, (when, ref) in enumerate(finished):
            if index < surplus or now - when > KEPT_FINISHED:
                delete(db, ref)
        for ref in set(seen) - set(db.refs('task')):
            del seen[ref]


def _stands_still(
    record: database.Record, before: float | None, now: float
) -> bool:
    created = clock_module.from_iso(record['created'])
    return now - created > KEPT_PENDING and before == record['progress']


def _assert_own(call: registry.Call, ref: str) -> None:
    """Refuse what only the owner of a task, or an operator, may do."""
    call.db.row('task', ref)
    if call.is_local_session or call.session['is_local_superuser']:
        return
    owner = owners(call.db).get(ref)
    session = None if owner is None else call.db.find('session', owner)
    mine = call.session['auth_user_sid']
    if session is not None and session['auth_user_sid'] == mine:
        return
    call.assert_permission('task.destroy/any', ('pool-admin', 'pool-operator'))


@registry.message('task.create')
def _create(call: registry.Call, label: str, description: str) -> str:
    values.check_storable([label, description])
    return create(
        call.db,
        label,
        description=description,
        resident_on=call.here,
        session=None if call.is_local_session else call.session_ref,
    )


@registry.message('task.destroy')
def _destroy(call: registry.Call, ref: str) -> None:
    with call.db.lock:
        _assert_own(call, ref)
        if call.db.get('task', ref)['status'] in COMPLETED:
            delete(call.db, ref)
        else:
            call.db.put_in_map(
                'task', ref, 'current_operations', 'task', 'destroy'
            )


@registry.message('task.cancel')
def _cancel(call: registry.Call, ref: str) -> None:
    with call.db.lock:
        _assert_own(call, ref)
        operations = {call.db.new_ref(): 'cancel'}
        call.db.set('task', ref, current_operations=operations)
    call.db.wake()


def _field_setter(name: str) -> None:
    def answer(call: registry.Call, ref: str, value: typing.Any) -> None:
        with call.db.lock:
            _assert_own(call, ref)
            values.check_storable(value)
            call.db.set('task', ref, **{name: value})

    registry.message(f'task.set_{name}')(answer)


for _name in ('status', 'progress', 'result', 'error_info', 'resident_on'):
    _field_setter(_name)
_field_setter('other_config')


@registry.message('task.add_to_other_config')
def _add_to_other_config(
    call: registry.Call, ref: str, key: str, value: str
) -> None:
    _assert_own(call, ref)
    values.check_storable([key, value])
    call.db.add_to_map('task', ref, 'other_config', key, value)


@registry.message('task.remove_from_other_config')
def _remove_from_other_config(call: registry.Call, ref: str, key: str) -> None:
    _assert_own(call, ref)
    call.db.remove_from_map('task', ref, 'other_config', key)
