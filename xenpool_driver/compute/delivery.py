# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What becomes of a request that was sent over the bus.

Each request that may change something is written down in the database before
it is sent (:mod:`xenpool_driver.store.sent`). A service takes it there before
it does anything, and writes its answer there. So whoever hears nothing more
finds out what became of it, and a service that was frozen, or starts later,
does nothing for a caller that was told to wait no more.
"""

from __future__ import annotations

import shlex
import typing

from oslo_log import log

from xenpool_driver import clock, exceptions, model, store

LOG = log.getLogger(__name__)

WATCH_SECONDS = 2.0
"""Pause between two looks at a request whose service is silent."""

Answer = dict[str, typing.Any]
"""What a service answers, as JSON values."""


class Sender:
    """Writes requests down, and finds out what became of them.

    :param database: the one that the services work with.
    :param wait: seconds for which a service may take a request.
    :param time: passes while a silent service's request is watched.
    """

    def __init__(
        self,
        database: store.Store,
        wait: float,
        time: clock.Clock = clock.SYSTEM,
    ) -> None:
        self._database = database
        self._wait = wait
        self._clock = time

    def send(
        self,
        context: typing.Any,
        method: str,
        aggregate: model.AggregateLike,
        host: str | None,
    ) -> str:
        """Write a request down before it is sent; return its uuid.

        A service that forwards a request hands the same one on.

        :param context: of the request; where it came over the bus, it says
            as which.
        :raises RequestDropped: it came over the bus, and nobody waits for it
            any more.
        :raises StoreError: it cannot be written down.
        """
        taken = getattr(context, 'sent_request', None)
        if taken:
            return self._database.pass_on_request(taken, self._wait).uuid
        request_id = getattr(context, 'request_id', None)
        return self._database.send_request(
            aggregate.uuid, method, host, request_id, self._wait
        ).uuid

    def withdraw(self, uuid: str) -> None:
        """Withdraw a request that nobody was there to take."""
        self._database.withdraw_request(uuid)

    def outcome(
        self, uuid: str, aggregate: model.AggregateLike, whom: str
    ) -> Answer:
        """Return the answer to a request whose service is silent.

        An operation that the request has begun is waited for while its
        worker keeps the lease.

        :param aggregate: of the request, for messages.
        :param whom: who was asked, for messages.
        :raises RequestWithdrawn: it was withdrawn; nothing happened.
        :raises ServiceLost: it was begun, and its worker is gone.
        :raises AggregateError: its operation has failed.
        """
        try:
            found = self._settled(uuid)
        except exceptions.StoreError as error:
            raise exceptions.ServiceLost(
                f"the compute service of {whom} stopped answering, and the "
                f"database does not say what became of the request: {error}; "
                f"look with: xenpool operation show {uuid}"
            ) from error
        if found.answer is not None:
            return found.answer
        if found.operation_uuid is None:
            raise exceptions.RequestWithdrawn(_not_begun(found, whom))
        operation = self._database.get_operation(found.operation_uuid)
        if operation.ended_at is not None and operation.host == found.host:
            return _ended(operation, aggregate)
        raise exceptions.ServiceLost(_half_done(operation, aggregate, whom))

    def _settled(self, uuid: str) -> store.SentRequest:
        """Return the request when it has an answer or was withdrawn."""
        while True:
            found = self._database.withdraw_request(uuid)
            if found.ended_at is not None or found.withdrawn_at is not None:
                return found
            self._clock.sleep(WATCH_SECONDS)


def _not_begun(found: store.SentRequest, whom: str) -> str:
    if found.taken_at is None:
        return (
            f"the compute service of {whom} did not take the request in time; "
            f"it was withdrawn, nothing happened: repeat it when the service "
            f"runs"
        )
    return (
        f"the compute service of {whom} ({found.service}) took the request "
        f"and stopped answering before it began anything; it was withdrawn, "
        f"nothing happened: repeat it when the service runs"
    )


def _ended(
    operation: store.Operation, aggregate: model.AggregateLike
) -> Answer:
    """Return the answer that the silent service owes.

    :raises AggregateError: the operation has failed.
    """
    if operation.outcome == 'succeeded':
        return {'result': None}
    raise exceptions.AggregateError(
        aggregate.name,
        f"{operation.kind} {operation.host or ''}".strip(),
        operation.error or operation.outcome or '',
    )


def _half_done(
    operation: store.Operation, aggregate: model.AggregateLike, whom: str
) -> str:
    story = f"{operation.kind} of '{operation.host or aggregate.name}'"
    if operation.ended_at is not None:
        return (
            f"the compute service of {whom} stopped answering: {story} has "
            f"ended ({operation.outcome}), what was to follow was withdrawn: "
            f"look with: xenpool operation show {operation.uuid}; then "
            f"repeat the request"
        )
    return (
        f"the compute service of {whom} stopped answering in the middle of "
        f"{story}; look with: xenpool operation show {operation.uuid}; "
        f"settle it with: xenpool aggregate recover "
        f"{shlex.quote(aggregate.name)}"
    )


class Receiver:
    """Takes requests that came over the bus.

    :param database: the one that the senders write to.
    :param name: of this service, for who looks a request up.
    """

    def __init__(self, database: store.Store, name: str) -> None:
        self._database = database
        self._name = name

    def take(self, context: typing.Any) -> None:
        """Take the request, if it was written down.

        :raises RequestDropped: nobody waits for it any more.
        :raises StoreError: the database cannot say.
        """
        uuid = getattr(context, 'sent_request', None)
        if uuid:
            self._database.take_request(uuid, self._name)

    def end(self, context: typing.Any, answer: Answer) -> None:
        """Write the answer down, for a caller that does not hear it."""
        uuid = getattr(context, 'sent_request', None)
        if not uuid:
            return
        try:
            self._database.end_request(uuid, answer)
        except exceptions.StoreError as error:
            LOG.error('The answer to request %s is not kept: %s', uuid, error)


JUDGED = 'judged'
"""The phase of a request that a service has taken and that has begun no
operation yet."""


def as_operation(found: store.SentRequest, now: float) -> store.Operation:
    """Return a request that began no operation as the journal shows it.

    :param now: the time by the database's clock.
    """
    ended, outcome, error = found.ended_at, None, None
    if found.answer is not None:
        outcome = 'succeeded'
        failure = found.answer.get('failure')
        if failure:
            refused = failure['class'].startswith('InvalidAggregateAction')
            outcome = 'refused' if refused else 'failed'
            error = failure['message']
    elif found.withdrawn_at is not None:
        ended, outcome = found.withdrawn_at, 'withdrawn'
    elif found.taken_at is None and now > found.until:
        ended, outcome = found.until, 'not taken'
    return store.Operation(
        uuid=found.uuid,
        aggregate_uuid=found.aggregate_uuid,
        kind=found.kind.replace('_aggregate', '').replace('_', ' '),
        host=found.host,
        phase='sent' if found.taken_at is None else JUDGED,
        owner=found.service or '',
        epoch=0,
        lease=found.until - found.sent_at,
        lease_expires=found.until,
        started_at=found.sent_at,
        ended_at=ended,
        outcome=outcome,
        error=error,
        request_id=found.request_id,
    )


def story(found: store.SentRequest) -> list[tuple[float, str, str]]:
    """Return what happened to a request: when, what, and by whom."""
    lines = [
        (found.sent_at, 'sent', ''),
        (found.taken_at, 'taken', f"by {found.service}"),
        (found.withdrawn_at, 'withdrawn', 'its caller heard nothing more'),
        (found.ended_at, 'answered', ''),
    ]
    return [(at, what, note) for at, what, note in lines if at is not None]
