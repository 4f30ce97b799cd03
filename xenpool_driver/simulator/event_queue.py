# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The old way to hear of changes: event.register and event.next.

Where event.from reads the database, these are fed from a queue: every change
that somebody registered for, one by one, with the object as it was then
(``xapi_event.ml``, module Next). A queue that grows too long forgets its
oldest events; who had not heard of them is told EVENTS_LOST, once.
"""

from __future__ import annotations

import collections
import collections.abc
import typing

from xenpool_driver.simulator import (
    database,
    errors,
    events,
    registry,
    rows,
    sessions,
    wire_json,
)

LIMIT = 10_000_000
"""Bytes of events, written as JSON, that are kept (xapi_event.ml)."""

QUEUE = 'event queue'
"""What a database remembers it as; a restart of the toolstack forgets it."""

Event = dict[str, typing.Any]


class Registration:
    """What one session asked to hear of.

    :ivar heard: the number of the first event that it was not told of.
    :ivar is_local: whether it is a local session, which is in no table.
    """

    def __init__(self, heard: int, is_local: bool) -> None:
        self.heard = heard
        self.is_local = is_local
        self.wanted: events.Subscriptions = ()

    def wants(self, event: Event) -> bool:
        """Tell whether ``event`` was asked for."""
        table, ref = event['class'], event['ref']
        return any(wanted.matches(table, ref) for wanted in self.wanted)


class Queue:
    """What happened, as long as anybody may still ask for it.

    :param db: whose changes it notes; it is to be used under its lock.
    :ivar next_id: the number of the next event; only what somebody
        registered for gets one.
    :ivar forgotten: the highest number of an event that had to go.
    """

    def __init__(self, db: database.Database) -> None:
        self._db = db
        self._events: collections.deque[tuple[int, int, Event]] = (
            collections.deque()
        )
        self._size = 0
        self.next_id = 0
        self.forgotten = -1
        self.registrations: dict[str, Registration] = {}

    def registration(self, call: registry.Call) -> Registration:
        """Return the caller's, a new and empty one if need be."""
        return self.registrations.setdefault(
            call.session_ref or '',
            Registration(self.next_id, call.is_local_session),
        )

    def forget_sessions(self) -> None:
        """Drop what sessions that have ended had registered for."""
        for session, registration in list(self.registrations.items()):
            gone = self._db.find('session', session) is None
            if gone and not registration.is_local:
                del self.registrations[session]

    def note(
        self, operation: str, cls: str, ref: str, row: database.Row
    ) -> None:
        """Take down what happened to a row, when anybody wants to know."""
        if cls.lower() not in self._db.model.event_classes:
            return
        kept = database.Row(dict(row.record), row.created)
        change = events.Change(operation, cls, ref, self.next_id, kept)
        event = events.event_of(change, f'{int(self._db.clock.now())}.')
        if not any(r.wants(event) for r in self.registrations.values()):
            return
        size = len(wire_json.event_json(event))
        self._events.append((self.next_id, size, event))
        self._size += size
        self.next_id += 1
        if self._size > LIMIT:
            self._forget()

    def _forget(self) -> None:
        while self._events and self._size >= LIMIT:
            self.forgotten, size, _ = self._events.popleft()
            self._size -= size

    def take(self, registration: Registration) -> list[Event]:
        """Return what a session has not heard of, and note that it has.

        :raises ApiError: EVENTS_LOST when some of it had to go.
        """
        since, registration.heard = registration.heard, self.next_id
        if since < self.next_id and self.forgotten >= since:
            raise errors.ApiError('EVENTS_LOST')
        return [
            event
            for number, _, event in self._events
            if number >= since and registration.wants(event)
        ]


def queue(db: database.Database) -> Queue:
    """Return the queue of a database; it notes from now on."""
    with db.lock:
        found: Queue | None = db.side.get(QUEUE)
        if found is None:
            found = db.side[QUEUE] = Queue(db)
            db.witness = found.note
        return found


def heartbeat(db: database.Database) -> None:
    """Let all who listen to the pool hear something (xapi_event.ml)."""
    with db.lock:
        found: Queue | None = db.side.get(QUEUE)
        if found is None:
            return
        found.forget_sessions()
        for ref in db.refs('pool'):
            found.note(events.MOD, 'pool', ref, db.row('pool', ref))
        db.tick()


def _parse_all(
    texts: collections.abc.Iterable[str],
) -> events.Subscriptions:
    return tuple(events.Subscription.parse(text) for text in texts)


@registry.message('event.register')
def _register(call: registry.Call, classes: list[str]) -> None:
    with call.db.lock:
        mine = queue(call.db).registration(call)
        mine.wanted = _parse_all(classes) + mine.wanted


@registry.message('event.unregister')
def _unregister(call: registry.Call, classes: list[str]) -> None:
    gone = _parse_all(classes)
    with call.db.lock:
        mine = queue(call.db).registration(call)
        mine.wanted = tuple(s for s in mine.wanted if s not in gone)


@registry.message('event.next')
def _next(call: registry.Call) -> rows.EventList:
    db = call.db
    session = call.session_ref or ''
    waiter = events.Waiter(call, db.clock.now() + events.FOR_EVER * 365)
    mine = queue(db).registrations.get(session)
    if mine is None:
        raise errors.ApiError(
            'SESSION_NOT_REGISTERED', sessions.track_id(session)
        )
    while True:
        with db.lock:
            waiter.check()
            told = queue(db).take(mine)
            generation = db.generation
        if told:
            return rows.EventList(told)
        waiter.wait(generation)


@registry.message('event.get_current_id')
def _get_current_id(call: registry.Call) -> int:
    with call.db.lock:
        return queue(call.db).next_id
