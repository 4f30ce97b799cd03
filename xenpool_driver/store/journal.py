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
from xenpool_driver.store import records, schema, statements, texts

BEGUN = 'begun'
"""The phase of an operation that has announced nothing yet."""

TAKEN_OVER = 'taken-over'
"""The line of the story that tells of a new owner; it is no phase."""

LONGEST_LEASE = 86400.0
"""Seconds that a lease can have; a stored one that is longer counts as this.
"""


def running(
    connection: sa.Connection, aggregate_uuid: str | None
) -> list[records.Operation]:
    """Return the operations that have no end, oldest first.

    :param aggregate_uuid: of this aggregate only.
    """
    query = statements.OPERATIONS_RUNNING
    if aggregate_uuid is not None:
        query = statements.OPERATIONS_RUNNING_HERE
    return _found(connection, query, aggregate_uuid, {})


def newest(
    connection: sa.Connection, aggregate_uuid: str | None, limit: int
) -> list[records.Operation]:
    """Return at most so many operations, newest first.

    :param aggregate_uuid: of this aggregate only.
    """
    query = statements.OPERATIONS_NEWEST
    if aggregate_uuid is not None:
        query = statements.OPERATIONS_NEWEST_HERE
    return _found(connection, query, aggregate_uuid, {'the_limit': limit})


def _found(
    connection: sa.Connection,
    query: sa.Select[typing.Any],
    aggregate_uuid: str | None,
    values: dict[str, typing.Any],
) -> list[records.Operation]:
    if aggregate_uuid is not None:
        values['the_aggregate'] = texts.canonical_uuid(aggregate_uuid)
    return [_operation(row) for row in connection.execute(query, values)]


def insert(connection: sa.Connection, operation: records.Operation) -> None:
    """Insert an operation and the first line of its story.

    :raises InvalidText: one of its texts cannot be stored.
    """
    for what in ('kind', 'host', 'owner', 'request_id'):
        text = getattr(operation, what)
        if text is not None:
            texts.line(what.replace('_', ' '), text)
    values = vars(operation) | {'details': _packed(operation.details)}
    connection.execute(statements.OPERATION_INSERT, values)
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
    row = connection.execute(
        statements.OPERATION_LOCKED, {'the_uuid': uuid}
    ).first()
    if row is None:
        raise exceptions.OperationNotFound(f"there is no operation '{uuid}'")
    return _operation(row)


def save(connection: sa.Connection, operation: records.Operation) -> None:
    """Write an operation that this transaction has locked."""
    values = vars(operation) | {'details': _packed(operation.details)}
    connection.execute(
        statements.OPERATION_UPDATE, {'the_uuid': operation.uuid, **values}
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
    mine = {'the_uuid': operation.uuid}
    last = connection.scalar(statements.LAST_LINE, mine)
    connection.execute(
        statements.LINE_INSERT,
        {
            'operation_uuid': operation.uuid,
            'seq': (last or 0) + 1,
            'phase': texts.line('phase', phase),
            'at': at,
            'note': texts.prose(note),
            'owner': operation.owner,
            'epoch': operation.epoch,
        },
    )


def story(connection: sa.Connection, uuid: str) -> list[records.Phase]:
    """Return every line of an operation's story, oldest first."""
    return [
        records.Phase(
            seq=row.seq,
            phase=row.phase,
            at=row.at,
            note=row.note,
            owner=row.owner,
            epoch=row.epoch,
        )
        for row in connection.execute(statements.STORY, {'the_uuid': uuid})
    ]


def find(connection: sa.Connection, ident: str) -> records.Operation:
    """Return the operation with this uuid, or whose uuid begins so.

    :raises OperationNotFound: there is none, or more than one.
    """
    text = texts.prose(ident).lower()[: schema.UUID.length or 36]
    found = []
    if text == ident.lower() and text:
        begins = schema.OPERATIONS.c.uuid.startswith(text, autoescape=True)
        query = statements.OPERATIONS_NEWEST.where(begins)
        found = _found(connection, query, None, {'the_limit': 3})
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
    # nan and inf as well: older releases let them be configured
    if not values['lease'] <= LONGEST_LEASE:
        values['lease'] = LONGEST_LEASE
    return records.Operation(**values)


def _packed(details: collections.abc.Mapping[str, typing.Any]) -> str:
    # ASCII only: whatever XAPI says, each database can hold it.
    return json.dumps(details, sort_keys=True)
