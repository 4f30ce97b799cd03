# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Events: what changed since a generation (``xapi_event.ml``).

``event.from`` reads the database: rows created, changed or deleted since the
token's generation, each row at most once, with its present state. The old
``event.next`` has a queue of its own (:mod:`.event_queue`).
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing

from xenpool_driver.simulator import (
    database,
    datamodel,
    errors,
    faults,
    registry,
    rows,
)

FOR_EVER = 24 * 3600.0
"""Simulated seconds that stand for a timeout that cannot be represented."""

LONGEST = 2**63 / 1e9
"""Seconds from which on a timeout cannot be represented."""

DELAY = 0.05
"""Simulated seconds before each look at the database."""

COUNTED = [
    'vdi_nbd_server_info',
    'user',
    'tunnel',
    'task',
    'subject',
    'sr_stat',
    'session',
    'secret',
    'role',
    'probe_result',
    'pool_update',
    'pool_patch',
    'pool',
    'network_sriov',
    'network',
    'message',
    'host_patch',
    'host_metrics',
    'host_crashdump',
    'host_cpu',
    'host',
    'event',
    'data_source',
    'crashdump',
    'console',
    'blob',
    'auth',
    'vusb',
    'vtpm',
    'vm_metrics',
    'vm_guest_metrics',
    'vm_group',
    'vm_appliance',
    'vmss',
    'vmpp',
    'vm',
    'vlan',
    'vif_metrics',
    'vif',
    'vgpu_type',
    'vgpu',
    'vdi',
    'vbd_metrics',
    'vbd',
    'usb_group',
    'sr',
    'sm',
    'sdn_controller',
    'repository',
    'rate_limit',
    'pvs_site',
    'pvs_server',
    'pvs_proxy',
    'pvs_cache_storage',
    'pusb',
    'pif_metrics',
    'pif',
    'pgpu',
    'pci',
    'pbd',
    'observer',
    'lvhd',
    'host_driver',
    'gpu_group',
    'feature',
    'driver_variant',
    'diagnostics',
    'dr_task',
    'cluster_host',
    'cluster',
    'certificate',
    'caller',
    'bond',
]
"""The tables of XAPI's database as valid_ref_counts lists them."""

ADD, MOD, DEL = 'add', 'mod', 'del'

_TOKEN = re.compile(r'([-+]?\d+),([-+]?\d+)')


@dataclasses.dataclass(frozen=True)
class Subscription:
    """One of the entries that a client wants to hear of.

    :ivar cls: a class in lower case, ``*`` for all.
    :ivar ref: one object of it, None for all.
    """

    cls: str
    ref: str | None = None

    @classmethod
    def parse(cls, text: str) -> Subscription:
        """Return what ``class`` or ``class/reference`` asks for."""
        name, slash, ref = text.partition('/')
        if text == '*':
            return cls('*')
        return cls(name.lower(), ref if slash else None)

    def matches(self, table: str, ref: str | None = None) -> bool:
        """Tell whether an object, or any of a table, is asked for."""
        if self.cls == '*' and self.ref is None:
            return True
        if self.cls != table:
            return False
        return ref is None or self.ref is None or self.ref == ref


Subscriptions = tuple[Subscription, ...]


class Change(typing.NamedTuple):
    """What happened to a row; ``time`` is the generation it happened at."""

    operation: str
    cls: str
    ref: str
    time: int
    row: database.Row | None


@dataclasses.dataclass
class Changes:
    """What happened since a generation.

    :ivar last: the generation that the next look begins at.
    :ivar message_last: the same for messages.
    """

    last: int
    message_last: int
    messages: list[Change]
    creates: list[Change]
    mods: list[Change]
    deletes: list[Change]

    def all(self) -> list[Change]:
        """Return them in XAPI's order."""
        return [*self.messages, *self.creates, *self.mods, *self.deletes]


def tables_of(
    db: database.Database, subscriptions: Subscriptions
) -> list[str]:
    """Return the classes whose events ``subscriptions`` ask for."""
    model = db.model
    return [
        cls.name
        for cls in model.classes.values()
        if cls.name.lower() in model.event_classes
        and any(s.matches(cls.name.lower()) for s in subscriptions)
    ]


def collect(
    db: database.Database,
    subscriptions: Subscriptions,
    since: int,
    messages_since: int,
) -> Changes:
    """Return what happened since a generation; hold the lock."""
    found = Changes(since, 0, [], [], [], [])
    for cls in tables_of(db, subscriptions):
        table = db.table(cls)
        if cls == 'message':
            _collect_messages(table, subscriptions, messages_since, found)
        elif table.modified > since:
            _collect_table(table, subscriptions, since, found)
    return found


def _wanted(subscriptions: Subscriptions, cls: str, ref: str) -> bool:
    lower = cls.lower()
    return any(s.matches(lower, ref) for s in subscriptions)


def _collect_table(
    table: database.Table,
    subscriptions: Subscriptions,
    since: int,
    found: Changes,
) -> None:
    cls = table.cls
    for ref in reversed(table.order()):
        row = table.rows[ref]
        if row.modified <= since or not _wanted(subscriptions, cls, ref):
            continue
        found.last = max(found.last, row.modified)
        if row.created > since:
            found.creates.append(Change(ADD, cls, ref, row.created, row))
        else:
            found.mods.append(Change(MOD, cls, ref, row.modified, row))
    for created, deleted, ref in reversed(table.deleted):
        if deleted <= since:
            break
        if _wanted(subscriptions, cls, ref):
            found.last = max(found.last, deleted)
            if created <= since:
                found.deletes.append(Change(DEL, cls, ref, deleted, None))


def _collect_messages(
    table: database.Table,
    subscriptions: Subscriptions,
    since: int,
    found: Changes,
) -> None:
    """Messages live outside XAPI's database: their events have no id."""
    newest = since
    for ref, row in table.rows.items():
        if row.created > since and _wanted(subscriptions, 'message', ref):
            newest = max(newest, row.created)
            found.messages.append(Change(ADD, 'message', ref, 0, row))
    for created, deleted, ref in table.deleted:
        if deleted > since and _wanted(subscriptions, 'message', ref):
            newest = max(newest, deleted)
            if created <= since:
                found.messages.append(Change(DEL, 'message', ref, 0, None))
    found.message_last = max(newest, 0)


def event_of(change: Change, timestamp: str = '0.0') -> dict[str, typing.Any]:
    """Return the event that tells of ``change``."""
    event: dict[str, typing.Any] = {
        'id': str(change.time),
        'timestamp': timestamp,
        'class': change.cls.lower(),
        'operation': change.operation,
        'ref': change.ref,
    }
    if change.row is not None:
        event['snapshot'] = rows.RowValue(change.cls, change.row)
    return event


def token_text(last: int, message_last: int) -> str:
    """Return the token that stands for these generations."""
    return f'{last:020d},{message_last:020d}'


def parse_token(token: str) -> tuple[int, int]:
    """Return the generations that ``token`` stands for.

    :raises ApiError: EVENT_FROM_TOKEN_PARSE_FAILURE [token].
    """
    if not token:
        return 0, 0
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise errors.ApiError('EVENT_FROM_TOKEN_PARSE_FAILURE', token)
    return int(match.group(1)), int(match.group(2))


def ref_counts(db: database.Database) -> dict[str, int]:
    """Return how many rows each table has, by its name in lower case."""
    classes = db.model.by_lower_case
    counts = dict.fromkeys(COUNTED, 0)
    for name in COUNTED:
        cls = classes.get(name)
        if cls is not None and cls.in_database:
            counts[name] = len(db.table(cls.name).rows)
    return counts


class Waiter:
    """A call that waits for changes, until its session or timeout ends."""

    def __init__(self, call: registry.Call, deadline: float) -> None:
        self._call = call
        self._db = call.db
        self._deadline = deadline

    def expired(self) -> bool:
        """Tell whether the timeout is over."""
        return self._db.clock.now() >= self._deadline

    def check(self) -> None:
        """Stop when the session, or the toolstack, has ended.

        :raises ApiError: SESSION_INVALID.
        :raises faults.Drop: when the toolstack has.
        """
        call = self._call
        session = call.session_ref or errors.NULL
        if call.machine.db is not self._db or self._db.clock.stopped:
            raise faults.Drop
        if session in call.machine.local_sessions:
            return
        if self._db.find('session', session) is None:
            raise errors.session_invalid(session)

    def wait(self, generation: int) -> None:
        """Wait for a change after ``generation``."""
        remaining = self._deadline - self._db.clock.now()
        self._db.wait(generation, max(0.0, remaining))
        self.check()


def _deadline(db: database.Database, timeout: float) -> float:
    usable = math.isfinite(timeout) and 0 <= timeout < LONGEST
    return db.clock.now() + (timeout if usable else FOR_EVER)


def _throttle(db: database.Database, subscriptions: Subscriptions) -> None:
    """Let changes gather for a moment, so that a burst is one answer."""
    only_tasks = all(s.cls == 'task' for s in subscriptions)
    if db.clock.scale > 0 and not (only_tasks and subscriptions):
        db.clock.sleep(DELAY)


def _refuse_members(call: registry.Call, wanted: Subscriptions) -> None:
    """Answer as a member does, which has no tables of its own (recorded)."""
    if call.machine.role[0] != 'slave':
        return
    for cls in tables_of(call.db, wanted):
        raise errors.ApiError('INTERNAL_ERROR', 'missing table', cls, '')


@registry.message('event.from')
def _from(
    call: registry.Call, classes: list[str], token: str, timeout: float
) -> dict[str, typing.Any]:
    db = call.db
    wanted = tuple(Subscription.parse(text) for text in classes)
    since, messages_since = parse_token(token)
    waiter = Waiter(call, _deadline(db, timeout))
    _throttle(db, wanted)
    _refuse_members(call, wanted)
    while True:
        with db.lock:
            waiter.check()
            found = collect(db, wanted, since, messages_since)
            events = [event_of(change) for change in found.all()]
            generation = db.generation
            if events or waiter.expired():
                return {
                    'events': events,
                    'valid_ref_counts': ref_counts(db),
                    'token': token_text(found.last, found.message_last),
                }
        since = found.last
        waiter.wait(generation)
        if not waiter.expired():
            _throttle(db, wanted)


@registry.message('event.inject')
def _inject(call: registry.Call, cls: str, ref: str) -> str:
    db = call.db
    with db.lock:
        known = cls in db.model.classes and db.class_of(ref) == cls
        if not known:
            raise errors.handle_invalid(cls, ref)
        generation = db.touch(cls, ref)
    return token_text(generation - 1, 0)


def classes_with_events() -> list[str]:
    """Return the classes that tell of their changes, in XAPI's order."""
    model = datamodel.load()
    return [
        cls.name
        for cls in model.classes.values()
        if cls.name.lower() in model.event_classes
    ]
