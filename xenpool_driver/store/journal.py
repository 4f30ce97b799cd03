# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Operations and their phases, inside of a transaction.

An operation belongs to who holds its epoch. Every write locks the row and
compares the epoch first (:func:`hold`), so that a worker whose operation was
taken over, be it frozen, slow or cut off, can no longer write.
"""

from __future__ import annotations

import collections.abc
import json
import typing

import sqlalchemy as sa

from xenpool_driver import exceptions
from xenpool_driver.store import records, schema, texts

O = schema.OPERATIONS  # noqa: E741
F = schema.PHASES

BEGUN = 'begun'
"""The phase of an operation that has announced nothing yet."""

TAKEN_OVER = 'taken-over'
"""The line of the story that tells of a new owner; it is no phase."""


def fetch(
    connection: sa.Connection,
    condition: sa.ColumnElement[bool],
    newest: int | None = None,
) -> list[records.Operation]:
    """Return the operations that meet the condition, oldest first.

    :param newest: return so many at most, newest first.
    """
    query = sa.select(O).where(condition)
    if newest is None:
        query = query.order_by(O.c.id)
    else:
        query = query.order_by(O.c.id.desc()).limit(newest)
    return [_operation(row) for row in connection.execute(query)]


def running(aggregate_uuid: str | None) -> sa.ColumnElement[bool]:
    """Return the condition of having no end (in this aggregate)."""
    return O.c.ended_at.is_(None) & of_aggregate(aggregate_uuid)


def of_aggregate(aggregate_uuid: str | None) -> sa.ColumnElement[bool]:
    """Return the condition of belonging to this aggregate; None: any."""
    if aggregate_uuid is None:
        return sa.true()
    return O.c.aggregate_uuid == texts.canonical_uuid(aggregate_uuid)


def insert(connection: sa.Connection, operation: records.Operation) -> None:
    """Insert an operation and the first line of its story.

    :raises InvalidText: one of its texts cannot be stored.
    """
    for what in ('kind', 'host', 'owner', 'request_id'):
        text = getattr(operation, what)
        if text is not None:
            texts.line(what.replace('_', ' '), text)
    values = vars(operation) | {'details': _packed(operation.details)}
    connection.execute(sa.insert(O).values(**values))
    tell(connection, operation, BEGUN, operation.started_at, '')


def hold(
    connection: sa.Connection, mine: records.Operation
) -> records.Operation:
    """Lock an operation until the transaction ends, then return it.

    :param mine: the operation as its worker knows it.
    :raises LeaseLost: it has ended, or another worker took it over.
    """
    now = lock(connection, mine.uuid)
    story = f"{now.kind} operation {now.uuid}"
    if now.epoch != mine.epoch:
        raise exceptions.LeaseLost(
            f"{story} was taken over by {now.owner} (epoch {now.epoch}; "
            f"{mine.owner} held epoch {mine.epoch})"
        )
    if not now.running:
        raise exceptions.LeaseLost(f"{story} has ended: {now.outcome}")
    return now


def lock(connection: sa.Connection, uuid: str) -> records.Operation:
    """Lock an operation, whoever holds it, then return it.

    :raises OperationNotFound: there is none.
    """
    query = sa.select(O).where(O.c.uuid == uuid).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise exceptions.OperationNotFound(f"there is no operation '{uuid}'")
    return _operation(row)


def save(connection: sa.Connection, operation: records.Operation) -> None:
    """Write an operation that this transaction has locked."""
    values = vars(operation) | {'details': _packed(operation.details)}
    connection.execute(
        sa.update(O).where(O.c.uuid == operation.uuid).values(**values)
    )


def tell(
    connection: sa.Connection,
    operation: records.Operation,
    phase: str,
    at: float,
    note: str,
) -> None:
    """Append a line to an operation's story.

    :param operation: locked, or inserted, by this transaction.
    """
    mine = F.c.operation_uuid == operation.uuid
    last = connection.scalar(sa.select(sa.func.max(F.c.seq)).where(mine))
    connection.execute(
        sa.insert(F).values(
            operation_uuid=operation.uuid,
            seq=(last or 0) + 1,
            phase=texts.line('phase', phase),
            at=at,
            note=texts.prose(note),
            owner=operation.owner,
            epoch=operation.epoch,
        )
    )


def story(connection: sa.Connection, uuid: str) -> list[records.Phase]:
    """Return every line of an operation's story, oldest first."""
    query = sa.select(F).where(F.c.operation_uuid == uuid).order_by(F.c.seq)
    return [
        records.Phase(
            seq=row.seq,
            phase=row.phase,
            at=row.at,
            note=row.note,
            owner=row.owner,
            epoch=row.epoch,
        )
        for row in connection.execute(query)
    ]


def find(connection: sa.Connection, ident: str) -> records.Operation:
    """Return the operation with this uuid, or whose uuid begins so.

    :raises OperationNotFound: there is none, or more than one.
    """
    text = texts.prose(ident).lower()[: schema.UUID.length or 36]
    found = []
    if text == ident.lower() and text:
        condition = O.c.uuid.startswith(text, autoescape=True)
        found = fetch(connection, condition, newest=3)
    if len(found) > 1:
        raise exceptions.OperationNotFound(
            f"'{ident}' could be any of the operations "
            f"{', '.join(operation.uuid for operation in found)}"
            f"; give more of the uuid"
        )
    if not found:
        raise exceptions.OperationNotFound(f"there is no operation '{ident}'")
    return found[0]


def _operation(row: sa.Row[typing.Any]) -> records.Operation:
    values = dict(row._mapping)
    del values['id']
    values['details'] = json.loads(values['details'])
    return records.Operation(**values)


def _packed(details: collections.abc.Mapping[str, typing.Any]) -> str:
    # ASCII only: whatever XAPI says, each database can hold it.
    return json.dumps(details, sort_keys=True)
