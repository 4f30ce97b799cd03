# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What became of a request whose service is silent, and what a late service
may still do."""

from __future__ import annotations

import collections.abc
import pathlib
import typing

import pytest

from xenpool_driver import exceptions, store
from xenpool_driver.compute import delivery
from xenpool_driver.store import core

WAIT = 10.0
LEASE = 60.0


class Context(typing.NamedTuple):
    """A context as a service gets it."""

    sent_request: str
    request_id: str = 'req-1'


class Clock:
    """Time that passes only while somebody sleeps.

    :ivar meanwhile: what happens during the next sleep.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: list[collections.abc.Callable[[], object]] = []

    def time(self) -> float:
        return self.now

    monotonic = time
    boottime = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(
    tmp_path: pathlib.Path, clock: Clock
) -> collections.abc.Iterator[store.Store]:
    url = f"sqlite:///{tmp_path}/store.db"
    with core.Store(url, clock=clock, lease_clock=clock) as opened:
        yield opened


@pytest.fixture
def prod(database: store.Store) -> store.Aggregate:
    return database.create_aggregate('prod', {'hypervisor_pool': 'true'})


@pytest.fixture
def sender(database: store.Store, clock: Clock) -> delivery.Sender:
    return delivery.Sender(database, WAIT, clock)


@pytest.fixture
def receiver(database: store.Store) -> delivery.Receiver:
    return delivery.Receiver(database, 'box:77')


def sent_to(
    sender: delivery.Sender, prod: store.Aggregate, host: str = 'xen02'
) -> Context:
    """Send a request; return the context with which it travels."""
    asked = Context('')
    return Context(sender.send(asked, 'add_aggregate_host', prod, host))


def begun(
    database: store.Store,
    prod: store.Aggregate,
    context: Context,
    host: str = 'xen02',
) -> store.Operation:
    """Begin the request's operation, as the driver does."""
    operation, _ = database.begin(
        prod.uuid,
        'join',
        host,
        'box:77',
        LEASE,
        {},
        lambda row, running: store.Changes(),
        context.request_id,
        context.sent_request,
    )
    return operation


def test_a_request_that_nobody_took_is_withdrawn(
    database: store.Store,
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
) -> None:
    context = sent_to(sender, prod)

    with pytest.raises(exceptions.ServiceUnavailable, match='did not take'):
        sender.outcome(context.sent_request, prod, "host 'xen02'")

    with pytest.raises(exceptions.RequestDropped, match='stopped waiting'):
        receiver.take(context)
    with pytest.raises(exceptions.RequestDropped):
        begun(database, prod, context)
    assert database.list_operations() == []


def test_a_request_is_taken_only_as_long_as_its_caller_waits(
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
    clock: Clock,
) -> None:
    """Also when the caller is dead and withdraws nothing."""
    context = sent_to(sender, prod)
    clock.now += WAIT + 3

    with pytest.raises(exceptions.RequestDropped, match=r'3\.0 s after'):
        receiver.take(context)


def test_a_request_is_taken_once(
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
) -> None:
    context = sent_to(sender, prod)
    receiver.take(context)

    with pytest.raises(exceptions.RequestDropped, match='taken by box:77'):
        receiver.take(context)


def test_a_service_that_was_frozen_while_it_judged_begins_nothing(
    database: store.Store,
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
) -> None:
    context = sent_to(sender, prod)
    receiver.take(context)

    with pytest.raises(exceptions.ServiceUnavailable) as told:
        sender.outcome(context.sent_request, prod, "host 'xen02'")

    assert 'nothing happened' in str(told.value)
    assert 'box:77' in str(told.value)
    with pytest.raises(exceptions.RequestDropped):
        begun(database, prod, context)
    assert database.list_operations() == []


def test_an_answer_that_was_not_heard_is_kept(
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
) -> None:
    context = sent_to(sender, prod)
    receiver.take(context)
    receiver.end(context, {'failure': {'class': 'AggregateError'}})
    receiver.end(context, {'result': 'a second answer'})

    assert sender.outcome(context.sent_request, prod, 'any host') == {
        'failure': {'class': 'AggregateError'}
    }


@pytest.mark.parametrize('outcome', ['succeeded', 'failed'])
def test_an_operation_is_followed_to_its_end(
    database: store.Store,
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
    clock: Clock,
    outcome: str,
) -> None:
    context = sent_to(sender, prod)
    receiver.take(context)
    operation = begun(database, prod, context)
    error = None if outcome == 'succeeded' else 'it did not boot'
    clock.meanwhile = [
        lambda: None,
        lambda: database.finish(operation, outcome, error),
    ]

    if outcome == 'succeeded':
        answer = sender.outcome(context.sent_request, prod, 'any host')
        assert answer == {'result': None}
    else:
        with pytest.raises(exceptions.AggregateError, match='did not boot'):
            sender.outcome(context.sent_request, prod, 'any host')


def test_a_worker_that_is_gone_is_told_with_the_way_out(
    database: store.Store,
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
    clock: Clock,
) -> None:
    context = sent_to(sender, prod)
    receiver.take(context)
    operation = begun(database, prod, context)
    before = clock.now

    with pytest.raises(exceptions.ServiceLost) as told:
        sender.outcome(context.sent_request, prod, 'any host')

    assert LEASE <= clock.now - before < LEASE + 2 * delivery.WATCH_SECONDS
    assert f"xenpool operation show {operation.uuid}" in str(told.value)
    assert 'xenpool aggregate recover prod' in str(told.value)


def test_what_was_to_follow_an_operation_is_withdrawn(
    database: store.Store,
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
) -> None:
    """The master was handed over, then the service froze."""
    context = sent_to(sender, prod, 'xen01')
    receiver.take(context)
    handover = begun(database, prod, context, 'xen02')
    database.finish(handover, 'succeeded')

    with pytest.raises(exceptions.ServiceLost, match="'xen02' has ended"):
        sender.outcome(context.sent_request, prod, 'any host')

    with pytest.raises(exceptions.RequestDropped):
        begun(database, prod, context, 'xen01')


def test_a_forwarded_request_is_the_same_request(
    database: store.Store,
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
    clock: Clock,
) -> None:
    """The service in a guest on the joiner goes down; the master's goes on."""
    context = sent_to(sender, prod)
    receiver.take(context)
    clock.now += 3600.0

    again = Context(sender.send(context, 'add_aggregate_host', prod, 'xen02'))

    assert again.sent_request == context.sent_request
    delivery.Receiver(database, 'master:1').take(again)
    found = database.get_request(context.sent_request[:13])
    assert found.service == 'master:1'
    clock.meanwhile = [
        lambda: delivery.Receiver(database, 'master:1').end(
            again, {'result': None}
        )
    ]
    begun(database, prod, again)
    assert sender.outcome(context.sent_request, prod, 'any host') == {
        'result': None
    }


def test_a_request_that_was_withdrawn_is_not_forwarded(
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
) -> None:
    context = sent_to(sender, prod)
    receiver.take(context)
    sender.withdraw(context.sent_request)

    with pytest.raises(exceptions.RequestDropped):
        sender.send(context, 'add_aggregate_host', prod, 'xen02')


def shown(database: store.Store, context: Context) -> tuple[str, str | None]:
    """Return phase and outcome, as the journal shows the request."""
    [found] = database.list_requests()
    assert found.uuid == context.sent_request
    seen = delivery.as_operation(found, database.lease_time())
    assert (seen.kind, seen.host) == ('add host', 'xen02')
    assert seen.running == (seen.outcome is None)
    return seen.phase, seen.outcome


def test_the_journal_shows_a_request_before_it_begins_an_operation(
    database: store.Store,
    sender: delivery.Sender,
    receiver: delivery.Receiver,
    prod: store.Aggregate,
    clock: Clock,
) -> None:
    context = sent_to(sender, prod)
    assert shown(database, context) == ('sent', None)
    clock.now += WAIT + 1
    assert shown(database, context) == ('sent', 'not taken')
    clock.now -= WAIT + 1

    receiver.take(context)
    assert shown(database, context) == ('judged', None)
    sender.withdraw(context.sent_request)
    assert shown(database, context) == ('judged', 'withdrawn')
    refusal = {'class': 'InvalidAggregateActionAdd', 'message': 'not now'}
    receiver.end(context, {'failure': refusal})
    assert shown(database, context) == ('judged', 'refused')

    again = sent_to(sender, prod, 'xen03')
    receiver.take(again)
    begun(database, prod, again, 'xen03')
    assert [each.uuid for each in database.list_requests()] == [
        context.sent_request
    ]


def test_a_database_that_is_silent_too_leaves_the_outcome_open(
    database: store.Store,
    sender: delivery.Sender,
    prod: store.Aggregate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = sent_to(sender, prod)

    def gone(_uuid: str) -> store.SentRequest:
        raise exceptions.StoreError('no route')

    monkeypatch.setattr(database, 'withdraw_request', gone)

    with pytest.raises(exceptions.ServiceLost) as told:
        sender.outcome(context.sent_request, prod, "host 'xen02'")

    words = f"xenpool operation show {context.sent_request}"
    assert words in str(told.value)
