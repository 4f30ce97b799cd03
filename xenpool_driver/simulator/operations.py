# Licensed under the Apache License, Version 2.0; see LICENSE.
"""current_operations of the pool: who blocks whom, and who waits.

The rules are those of xapi_pool_helpers.ml: a blocking operation makes
others fail at once, a waiting one makes them wait for its end.
"""

from __future__ import annotations

import collections.abc
import contextlib
import typing

from xenpool_driver.simulator import database, errors, faults, machine

RETRIED = 'OTHER_OPERATION_IN_PROGRESS'
"""The refusal that XAPI itself tries again after."""

Record = dict[str, typing.Any]


def refusals(db: database.Database) -> dict[str, errors.ApiError]:
    """Return, for each pool operation that cannot start now, why not."""
    ref, pool = next(iter(db.all('pool').items()))
    model = db.model
    blocking = model.pool_blocking_operations
    waiting = model.pool_waiting_operations
    current: dict[str, str] = pool['current_operations']
    busy = next(
        ([op, task] for task, op in current.items() if op in waiting), []
    )
    other = errors.ApiError(RETRIED, 'pool', ref, *busy)
    for op, code in blocking.items():
        if op in current.values():
            in_progress = errors.ApiError(code)
            return {
                **dict.fromkeys(blocking, in_progress),
                **dict.fromkeys(waiting, other),
            }
    if busy:
        return dict.fromkeys([*blocking, *waiting], other)
    return _idle_refusals(db, pool)


def _idle_refusals(
    db: database.Database, pool: Record
) -> dict[str, errors.ApiError]:
    """Return what cannot start although nothing is under way."""
    refused: dict[str, errors.ApiError] = {}
    if pool['ha_enabled']:
        is_enabled = errors.ApiError('HA_IS_ENABLED')
        refused['ha_enable'] = is_enabled
        refused['tls_verification_enable'] = is_enabled
    else:
        refused['ha_disable'] = errors.ApiError('HA_NOT_ENABLED')
    if pool['other_config'].get('rolling_upgrade_in_progress'):
        upgrading = errors.ApiError('NOT_SUPPORTED_DURING_UPGRADE')
        refused.setdefault('cluster_create', upgrading)
        refused.setdefault('tls_verification_enable', upgrading)
    if db.all('Cluster'):
        exists = errors.ApiError('CLUSTER_ALREADY_EXISTS')
        refused.setdefault('cluster_create', exists)
    elif pool['ha_enabled']:
        stack = errors.ApiError(
            'INCOMPATIBLE_CLUSTER_STACK_ACTIVE', pool['ha_cluster_stack']
        )
        refused.setdefault('cluster_create', stack)
    return refused


def update_allowed(db: database.Database) -> None:
    """Recompute pool.allowed_operations."""
    refused = refusals(db)
    model = db.model
    allowed = [
        op
        for op in (
            *model.pool_blocking_operations,
            *sorted(model.pool_waiting_operations),
        )
        if op not in refused
    ]
    for ref, pool in db.all('pool').items():
        if set(pool['allowed_operations']) != set(allowed):
            db.set('pool', ref, allowed_operations=allowed)


def begin(db: database.Database, op: str, task: str) -> None:
    """Enter ``op`` in the pool's current operations.

    :raises ApiError: what stands in the way.
    """
    with db.lock:
        ref, pool = next(iter(db.all('pool').items()))
        if pool['is_psr_pending']:
            raise errors.ApiError('POOL_SECRET_ROTATION_PENDING')
        refused = refusals(db).get(op)
        if refused is not None:
            raise refused
        db.put_in_map('pool', ref, 'current_operations', task, op)
        update_allowed(db)


def end(db: database.Database, task: str) -> None:
    """Remove the operation of ``task`` from the current ones."""
    with db.lock:
        for ref in db.refs('pool'):
            db.remove_from_map('pool', ref, 'current_operations', task)
            update_allowed(db)


@contextlib.contextmanager
def pool_operation(
    target: machine.Machine,
    db: database.Database,
    op: str,
    task: str | None = None,
    check: collections.abc.Callable[[], None] = lambda: None,
) -> collections.abc.Iterator[None]:
    """Run the block as pool operation ``op``, waiting for its turn.

    :param task: the key in current_operations.
    :param check: called while waiting; may raise TASK_CANCELLED.
    :raises ApiError: what stands in the way, for good or for too long.
    :raises Drop: when the toolstack that waits ends meanwhile.
    """
    key = db.new_ref() if task is None else task
    world = target.world
    process = target.process
    deadline = target.clock.now() + world.timings.other_operation_retry

    def entered() -> bool:
        if target.process is not process:
            raise faults.Drop
        check()
        try:
            begin(db, op, key)
        except errors.ApiError as refusal:
            late = target.clock.now() >= deadline
            if refusal.code != RETRIED or late:
                raise
            return False
        return True

    world.wait_for(entered)
    try:
        yield
    finally:
        end(db, key)
        world.notify()


@contextlib.contextmanager
def object_operation(
    db: database.Database, cls: str, ref: str, op: str, task: str | None
) -> collections.abc.Iterator[None]:
    """Show ``op`` in the current operations of a host, VM or the like.

    A second operation on an object that is busy is not refused here: each
    message says itself what it cannot stand.
    """
    key = db.new_ref() if task is None else task
    db.put_in_map(cls, ref, 'current_operations', key, op)
    try:
        yield
    finally:
        if db.exists(ref, cls):
            db.remove_from_map(cls, ref, 'current_operations', key)
