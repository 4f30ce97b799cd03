# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The store itself, and its half that keeps the journal: each method is one
transaction."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing
import uuid as uuids

import sqlalchemy as sa

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions, sharing
from xenpool_driver.store import (
    aggregates,
    engine,
    journal,
    location,
    migration,
    records,
    sent,
    shelf,
    texts,
)

Admit = collections.abc.Callable[
    [records.Aggregate, list[records.Operation]], records.Changes
]
Begun = tuple[records.Operation, records.Aggregate]
Settle = collections.abc.Callable[[records.Aggregate], records.Changes]

ROUNDING = 1.0
"""Seconds by which two looks at one clock may seem to go back."""


class Store(shelf.Shelf, sent.SentRequests):
    """Aggregates and the journal of operations, in one database.

    Safe to be used by many threads, and by many processes with a store each.

    :param url: an SQLAlchemy URL; None means the default SQLite file.
    :param busy_timeout: seconds to wait for a lock of another worker.
    :param clock: tells the time of what is recorded of aggregates. For an
        SQLite file it is also the database's clock.
    :param lease_clock: tells the time of the journal, leases included; None:
        the database's own clock. A worker's clock never does: one that is a
        day ahead would hold an aggregate for a day.
    :param create: whether an SQLite file is created where there is none.
    :raises ConfigurationError: the URL makes no sense.
    :raises NoDatabase: there is no SQLite file, and none may be created.
    :raises StoreError: the database cannot be used.
    :raises DatabaseVersionMismatch: its schema is not the code's.
    """

    def __init__(
        self,
        url: str | None = None,
        busy_timeout: float = 30.0,
        clock: clocks.Clock = clocks.SYSTEM,
        lease_clock: clocks.Clock | None = None,
        create: bool = True,
    ) -> None:
        database = engine.take(url, busy_timeout, clock, lease_clock)
        try:
            migration.ensure(database, create)
        except BaseException:
            database.close()
            raise
        super().__init__(database, clock)

    def __repr__(self) -> str:
        return f"<Store {self._database.shown}>"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, unless others use this store."""
        if _SHARED.give_back(self):
            self._database.close()

    def begin(
        self,
        aggregate_uuid: str,
        kind: str,
        host: str | None,
        owner: str,
        lease: float,
        details: collections.abc.Mapping[str, typing.Any] | None,
        admit: Admit,
        request_id: str | None = None,
        sent_request: str | None = None,
    ) -> Begun:
        """Begin an operation, and move the aggregate, in one transaction.

        :param lease: seconds for which a renewal holds.
        :param details: what who takes over must know; goes into JSON.
        :param admit: is given the aggregate and its running operations, as
            nobody else can change them until this is over. It returns what
            to write, or raises, and nothing is written. It may be called
            more than once.
        :param sent_request: uuid of the request, if it came over the bus.
        :raises AggregateNotFound: there is none, or it is dismissed and
            ``admit`` let that pass.
        :raises RequestDropped: its caller does not wait any more.
        :raises AggregateHostExists: a host to add is in another pool.
        """
        draft = records.Operation(
            uuid=str(uuids.uuid4()),
            aggregate_uuid=aggregate_uuid,
            kind=kind,
            host=host,
            phase=journal.BEGUN,
            owner=owner,
            epoch=1,
            lease=lease,
            lease_expires=0.0,
            started_at=0.0,
            details=dict(details or {}),
            request_id=request_id,
        )
        operation, row = self._database.write(
            lambda connection: self._begin(
                connection, draft, admit, sent_request
            )
        )
        return operation, self._bound(row)

    def _begin(
        self,
        connection: sa.Connection,
        draft: records.Operation,
        admit: Admit,
        sent_request: str | None,
    ) -> Begun:
        row = aggregates.lock(connection, draft.aggregate_uuid)
        others = journal.running(connection, row.uuid)
        changes = admit(self._bound(row), others)
        if row.deleted_at is not None:
            raise exceptions.AggregateNotFound(f"aggregate {row} is deleted")
        now = self._database.time(connection)
        row = aggregates.apply(connection, row, changes, now)
        operation = dataclasses.replace(
            draft,
            aggregate_uuid=row.uuid,
            lease_expires=now + draft.lease,
            started_at=now,
        )
        journal.insert(connection, operation)
        if sent_request is not None:
            sent.begin(connection, sent_request, operation)
        return operation, row

    def phase(
        self,
        operation: records.Operation,
        phase: str,
        note: str = '',
        details: collections.abc.Mapping[str, typing.Any] | None = None,
    ) -> records.Operation:
        """Write down what is about to happen; extend the lease.

        :param details: merged into the operation's.
        :raises LeaseLost: the operation is not this worker's any more.
        """

        def work(connection: sa.Connection) -> records.Operation:
            held = journal.hold(connection, operation)
            now = self._database.time(connection)
            new = dataclasses.replace(
                held,
                phase=phase,
                details={**held.details, **(details or {})},
                lease_expires=now + held.lease,
            )
            journal.tell(connection, new, phase, now, note)
            journal.save(connection, new)
            return new

        return self._database.write(work)

    def remember(
        self,
        operation: records.Operation,
        details: collections.abc.Mapping[str, typing.Any],
    ) -> records.Operation:
        """Write down what who takes over must know; extend the lease.

        :param details: merged into the operation's.
        :raises LeaseLost: the operation is not this worker's any more.
        """

        def work(connection: sa.Connection) -> records.Operation:
            held = journal.hold(connection, operation)
            new = dataclasses.replace(
                held,
                details={**held.details, **details},
                lease_expires=self._database.time(connection) + held.lease,
            )
            journal.save(connection, new)
            return new

        return self._database.write(work)

    def renew(
        self, operation: records.Operation, lease: float
    ) -> records.Operation:
        """Extend the lease to ``lease`` seconds from now.

        :raises LeaseLost: the operation is not this worker's any more.
        """

        def work(connection: sa.Connection) -> records.Operation:
            held = journal.hold(connection, operation)
            now = self._database.time(connection)
            new = dataclasses.replace(
                held, lease=lease, lease_expires=now + lease
            )
            journal.save(connection, new)
            return new

        return self._database.write(work)

    def finish(
        self,
        operation: records.Operation,
        outcome: str,
        error: str | None = None,
        settle: Settle | records.Changes | None = None,
    ) -> records.Aggregate:
        """End an operation, and move the aggregate, in one transaction.

        :param outcome: for example ``succeeded``.
        :param error: why it did not.
        :param settle: what to write to the aggregate, or a function that is
            given it as nobody else can change it. It may be called more than
            once.
        :raises LeaseLost: the operation is not this worker's any more.
        """

        def work(connection: sa.Connection) -> records.Aggregate:
            # The same order of locks as in begin().
            row = aggregates.lock(connection, operation.aggregate_uuid)
            held = journal.hold(connection, operation)
            changes = settle(self._bound(row)) if callable(settle) else settle
            now = self._database.time(connection)
            if changes:
                row = aggregates.apply(connection, row, changes, now)
            reason = None if error is None else texts.prose(error)
            journal.tell(connection, held, outcome, now, reason or '')
            journal.save(
                connection,
                dataclasses.replace(
                    held, ended_at=now, outcome=outcome, error=reason
                ),
            )
            return row

        return self._bound(self._database.write(work))

    def take_over(
        self,
        operation_uuid: str,
        owner: str,
        lease: float,
        force: bool = False,
    ) -> records.Operation:
        """Become the owner of an operation whose lease has run out.

        :param force: also before it has: its worker is known to be dead.
        :raises LeaseLost: its worker still holds it, or it has ended.
        :raises OperationNotFound: there is none.
        """

        def work(connection: sa.Connection) -> records.Operation:
            found = journal.lock(connection, operation_uuid)
            now = self._database.time(connection)
            _refuse_taking(found, now, force)
            new = dataclasses.replace(
                found,
                owner=texts.line('owner', owner),
                epoch=found.epoch + 1,
                lease=lease,
                lease_expires=now + lease,
            )
            journal.tell(
                connection,
                new,
                journal.TAKEN_OVER,
                now,
                f"from {found.owner}, in phase {found.phase}",
            )
            journal.save(connection, new)
            return new

        return self._database.write(work)

    def running_operations(
        self, aggregate_uuid: str | None = None
    ) -> list[records.Operation]:
        """Return the operations that have no end, oldest first."""
        return self._database.read(
            lambda connection: journal.running(connection, aggregate_uuid)
        )

    def expired_operations(
        self, aggregate_uuid: str | None = None
    ) -> list[records.Operation]:
        """Return those whose worker is dead or cut off, oldest first.

        A lease that would last longer than when it was renewed comes from
        another clock, or from before the clock was set back. It is
        shortened: from now on it lasts as long as if it were renewed now.
        """
        now, found = self._database.read(
            lambda connection: (
                self._database.time(connection),
                journal.running(connection, aggregate_uuid),
            )
        )
        for operation in found:
            if _overlong(operation, now):
                self._shorten(operation)
        return [operation for operation in found if operation.expired(now)]

    def lease_time(self) -> float:
        """Return seconds since 1970 by the clock that ends leases."""
        return self._database.read(self._database.time)

    def _shorten(self, operation: records.Operation) -> None:
        """Let an overlong lease last no longer than a renewal would."""

        def work(connection: sa.Connection) -> None:
            found = journal.lock(connection, operation.uuid)
            now = self._database.time(connection)
            if found.running and _overlong(found, now):
                new = dataclasses.replace(
                    found, lease_expires=now + found.lease
                )
                journal.save(connection, new)

        self._database.write(work)

    def get_operation(self, ident: str) -> records.Operation:
        """Return the operation with this uuid, or whose uuid begins so.

        :raises OperationNotFound: there is none, or more than one.
        """
        return self._database.read(
            lambda connection: journal.find(connection, ident)
        )

    def list_operations(
        self, aggregate_uuid: str | None = None, limit: int = 100
    ) -> list[records.Operation]:
        """Return operations, newest first.

        :param limit: at most so many.
        """
        return self._database.read(
            lambda connection: journal.newest(
                connection, aggregate_uuid, limit
            )
        )

    def phases(self, operation_uuid: str) -> list[records.Phase]:
        """Return an operation's story, oldest line first."""
        return self._database.read(
            lambda connection: journal.story(connection, operation_uuid)
        )


_SHARED: sharing.Shared[Store] = sharing.Shared()


def take(
    url: str | None,
    busy_timeout: float,
    clock: clocks.Clock,
    create: bool,
) -> Store:
    """Return this process's one store in a database; close it when done.

    The parameters, and what is raised: as for :class:`Store`.
    """
    return _SHARED.take(
        (location.place(location.parse(url)), busy_timeout, clock),
        lambda: Store(url, busy_timeout, clock, create=create),
    )


def _overlong(operation: records.Operation, now: float) -> bool:
    """Say whether no renewal by the clock that shows ``now`` can have given
    the operation so long a lease."""
    # written so that it holds for nan as well
    return not operation.lease_expires <= now + operation.lease + ROUNDING


def _refuse_taking(
    operation: records.Operation, now: float, force: bool
) -> None:
    story = f"{operation.kind} operation {operation.uuid}"
    if not operation.running:
        raise exceptions.LeaseLost(f"{story} has ended: {operation.outcome}")
    if not force and not operation.expired(now):
        raise exceptions.LeaseLost(
            f"{story} is held by {operation.owner} for another "
            f"{operation.lease_expires - now:.0f} s"
        )
