# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Requests that were sent to a compute service over the bus.

Who sends a request writes it down first, with the time until which it waits
for a service to take it. A service takes it here before it does anything. Who
hears nothing more from the service withdraws it here. All three are
transactions on one row and go by the database's clock, so that they cannot
miss each other: a request that was withdrawn begins no operation, however
late the message or the service is.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import typing
import uuid as uuids

import sqlalchemy as sa

from xenpool_driver import exceptions
from xenpool_driver.store import (
    engine,
    journal,
    records,
    schema,
    texts,
)

R = schema.REQUESTS

_BY_UUID = sa.select(R).where(R.c.uuid == sa.bindparam('the_uuid'))
_LOCKED = _BY_UUID.with_for_update()
_INSERT = sa.insert(R)
_UPDATE = sa.update(R).where(R.c.uuid == sa.bindparam('the_uuid'))
_NEWEST = sa.select(R).order_by(R.c.id.desc())

Answer = collections.abc.Mapping[str, typing.Any]
"""What a service answered, as JSON values."""


class SentRequests:
    """The store's part that keeps them: each method is one transaction."""

    _database: engine.Database

    def send_request(
        self,
        aggregate_uuid: str,
        kind: str,
        host: str | None,
        request_id: str | None,
        wait: float,
    ) -> records.SentRequest:
        """Write down a request that is about to be sent.

        :param kind: the method of the service.
        :param host: the compute host concerned, if there is one.
        :param request_id: the caller's name for the request.
        :param wait: seconds for which a service may take it.
        """

        def work(connection: sa.Connection) -> records.SentRequest:
            now = self._database.time(connection)
            new = records.SentRequest(
                uuid=str(uuids.uuid4()),
                aggregate_uuid=texts.canonical_uuid(aggregate_uuid),
                kind=texts.line('kind', kind),
                host=host,
                request_id=request_id,
                sent_at=now,
                until=now + wait,
            )
            connection.execute(_INSERT, _values(new))
            return new

        return self._database.write(work)

    def pass_on_request(self, uuid: str, wait: float) -> records.SentRequest:
        """Let another service take a request that was taken here.

        :param wait: seconds for which it may.
        :raises RequestDropped: nobody waits for it any more.
        """

        def work(connection: sa.Connection) -> records.SentRequest:
            found = _lock(connection, uuid)
            _refuse_late(found)
            until = self._database.time(connection) + wait
            new = dataclasses.replace(
                found, until=until, service=None, taken_at=None
            )
            return _save(connection, new)

        return self._database.write(work)

    def take_request(self, uuid: str, service: str) -> records.SentRequest:
        """Take a request; only one who takes it gets it.

        :param service: the name of who takes it.
        :raises RequestDropped: nobody waits for it any more, or it was taken
            before.
        """

        def work(connection: sa.Connection) -> records.SentRequest:
            found = _lock(connection, uuid)
            _refuse_late(found)
            now = self._database.time(connection)
            if found.taken_at is not None:
                raise exceptions.RequestDropped(
                    f"request {uuid} was taken by {found.service} before"
                )
            if now > found.until:
                raise exceptions.RequestDropped(
                    f"request {uuid} came {now - found.until:.1f} s after "
                    f"its caller had stopped waiting"
                )
            name = texts.line('service', service)
            new = dataclasses.replace(found, service=name, taken_at=now)
            return _save(connection, new)

        return self._database.write(work)

    def end_request(self, uuid: str, answer: Answer) -> None:
        """Write down what a service answered; the first answer stays."""

        def work(connection: sa.Connection) -> None:
            found = _lock(connection, uuid)
            if found.ended_at is None:
                now = self._database.time(connection)
                new = dataclasses.replace(
                    found, ended_at=now, answer=dict(answer)
                )
                _save(connection, new)

        self._database.write(work)

    def withdraw_request(self, uuid: str) -> records.SentRequest:
        """Withdraw a request, unless it has an answer or is carried out.

        A request is carried out while an operation of it runs whose lease
        holds. That one ends, or its lease does.

        :returns: the request as it is now.
        """

        def work(connection: sa.Connection) -> records.SentRequest:
            found = _lock(connection, uuid)
            if found.ended_at is not None or found.withdrawn_at is not None:
                return found
            now = self._database.time(connection)
            if found.operation_uuid is not None:
                operation = journal.find(connection, found.operation_uuid)
                if operation.running and not operation.expired(now):
                    return found
            return _save(
                connection, dataclasses.replace(found, withdrawn_at=now)
            )

        return self._database.write(work)

    def get_request(self, ident: str) -> records.SentRequest:
        """Return the request with this uuid, or whose uuid begins so.

        :raises OperationNotFound: there is none, or more than one.
        """
        text = texts.prose(ident).lower()

        def work(connection: sa.Connection) -> list[records.SentRequest]:
            begins = R.c.uuid.startswith(text, autoescape=True)
            return _found(connection, _NEWEST.where(begins).limit(2))

        found = self._database.read(work) if text else []
        if len(found) != 1:
            raise exceptions.OperationNotFound(
                f"there is no operation '{ident}'"
            )
        return found[0]

    def list_requests(
        self, aggregate_uuid: str | None = None, limit: int = 100
    ) -> list[records.SentRequest]:
        """Return the requests that began no operation, newest first.

        :param aggregate_uuid: of this aggregate only.
        :param limit: at most so many.
        """
        query = _NEWEST.where(R.c.operation_uuid.is_(None)).limit(limit)
        if aggregate_uuid is not None:
            mine = texts.canonical_uuid(aggregate_uuid)
            query = query.where(R.c.aggregate_uuid == mine)
        return self._database.read(
            lambda connection: _found(connection, query)
        )


def begin(
    connection: sa.Connection, uuid: str, operation: records.Operation
) -> None:
    """Note that a request has begun an operation, in the same transaction.

    :raises RequestDropped: nobody waits for the request any more.
    """
    found = _lock(connection, uuid)
    _refuse_late(found)
    _save(
        connection,
        dataclasses.replace(found, operation_uuid=operation.uuid),
    )


def _refuse_late(found: records.SentRequest) -> None:
    if found.ended_at is not None or found.withdrawn_at is not None:
        raise exceptions.RequestDropped(
            f"request {found.uuid}: its caller has stopped waiting and was "
            f"told so"
        )


def _lock(connection: sa.Connection, uuid: str) -> records.SentRequest:
    row = connection.execute(_LOCKED, {'the_uuid': uuid}).first()
    if row is None:
        raise exceptions.RequestDropped(f"there is no request {uuid}")
    return _request(row)


def _save(
    connection: sa.Connection, new: records.SentRequest
) -> records.SentRequest:
    connection.execute(_UPDATE, {'the_uuid': new.uuid, **_values(new)})
    return new


def _found(
    connection: sa.Connection, query: sa.Select[typing.Any]
) -> list[records.SentRequest]:
    return [_request(row) for row in connection.execute(query)]


def _values(request: records.SentRequest) -> dict[str, typing.Any]:
    answer = None if request.answer is None else json.dumps(request.answer)
    return {**vars(request), 'answer': answer}


def _request(row: sa.Row[typing.Any]) -> records.SentRequest:
    values = dict(row._mapping)
    del values['id']
    if values['answer'] is not None:
        values['answer'] = json.loads(values['answer'])
    return records.SentRequest(**values)
