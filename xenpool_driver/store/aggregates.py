# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Aggregates, their hosts and their metadata, inside of a transaction.

Whoever writes has locked the aggregate's row first (:func:`lock`): that
orders all writers of one aggregate. What must hold between aggregates (names,
a host in one pool only) is looked up for a clear message and held by unique
constraints.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing

import sqlalchemy as sa

from xenpool_driver import exceptions, pool_states
from xenpool_driver.store import records, schema, statements, texts

H = schema.HOSTS

_MAX_ID = 2**31 - 1
"""The highest id that the column holds; more would be an error to ask for."""

_SLICE = 10_000
"""How many ids a statement may name; each database has a limit."""


def fetch(
    connection: sa.Connection,
    query: sa.Select[typing.Any],
    **values: typing.Any,
) -> list[records.Aggregate]:
    """Return the aggregates that a query finds, in its order, unbound.

    More questions are asked: from one snapshot, or of locked rows.

    :param query: selects whole rows (``statements``).
    :param values: its parameters.
    """
    rows = connection.execute(query, values)
    return _filled(connection, [_aggregate(row) for row in rows])


def find(
    connection: sa.Connection, ident: str | int, dismissed: bool
) -> records.Aggregate:
    """Return the aggregate that has this uuid, id or name.

    A uuid wins over an id and a name. Of dismissed ones with the same name it
    is the latest, and only when none lives.

    :param dismissed: find dismissed ones too.
    :raises AggregateNotFound: there is none, or more than one.
    """
    found = _named(connection, ident)
    exact = [a for a in found if a.uuid == texts.canonical_uuid(str(ident))]
    live = [a for a in exact or found if a.deleted_at is None]
    gone = [a for a in exact or found if a.deleted_at is not None]
    if len(live) > 1:
        raise exceptions.AggregateNotFound(
            f"'{ident}' could be any of the aggregates "
            f"{' and '.join(str(a) for a in live)}; give the uuid"
        )
    if live:
        return live[0]
    if gone and dismissed:
        return gone[-1]
    if gone:
        raise exceptions.AggregateNotFound(f"aggregate {gone[-1]} is deleted")
    raise exceptions.AggregateNotFound(f"there is no aggregate '{ident}'")


def lock(connection: sa.Connection, uuid: str) -> records.Aggregate:
    """Lock an aggregate until the transaction ends, then return it.

    A dismissed one, too.

    :raises AggregateNotFound: there is none.
    """
    found = fetch(
        connection,
        statements.AGGREGATE_LOCKED,
        the_uuid=texts.canonical_uuid(uuid),
    )
    if not found:
        raise exceptions.AggregateNotFound(f"there is no aggregate '{uuid}'")
    return found[0]


def exists(connection: sa.Connection, uuid: str) -> bool:
    """Say whether there is an aggregate, dismissed or not."""
    row = connection.execute(statements.AGGREGATE, {'the_uuid': uuid})
    return row.first() is not None


def insert(
    connection: sa.Connection,
    uuid: str,
    name: str,
    now: float,
    foreign: bool = False,
) -> records.Aggregate:
    """Insert an aggregate without hosts and metadata.

    :param foreign: another service owns it, and the uniqueness of its name.
    :raises AggregateNameExists: another aggregate has the name, or the uuid.
    """
    if not foreign:
        _refuse_name(connection, name, uuid)
        if exists(connection, uuid):
            raise exceptions.AggregateNameExists(
                f"there is an aggregate with the uuid {uuid} already"
            )
    connection.execute(
        statements.AGGREGATE_INSERT,
        {
            'uuid': uuid,
            'name': name,
            'live_name': None if foreign else name,
            'tracked': foreign,
            'generation': 1,
            'created_at': now,
        },
    )
    return fetch(connection, statements.AGGREGATE, the_uuid=uuid)[0]


def discard(connection: sa.Connection, row: records.Aggregate) -> bool:
    """Delete an aggregate of which nothing has become; say whether it was.

    One that has hosts or operations stays, and one of which a request is
    under way. Requests on the bus that have ended go with it.
    """
    requests, pairs = schema.REQUESTS, schema.PAIRS
    operations, table = schema.OPERATIONS, schema.AGGREGATES
    under_way = sa.select(requests.c.id).where(
        requests.c.aggregate_uuid == row.uuid,
        requests.c.ended_at.is_(None),
        requests.c.withdrawn_at.is_(None),
    )
    begun = sa.select(operations.c.id).where(
        operations.c.aggregate_uuid == row.uuid
    )
    if row.hosts or any(
        connection.execute(query).first() for query in (under_way, begun)
    ):
        return False
    for statement in (
        sa.delete(requests).where(requests.c.aggregate_uuid == row.uuid),
        sa.delete(pairs).where(pairs.c.aggregate_id == row.id),
        sa.delete(table).where(table.c.id == row.id),
    ):
        connection.execute(statement)
    return True


def apply(
    connection: sa.Connection,
    old: records.Aggregate,
    changes: records.Changes,
    now: float,
) -> records.Aggregate:
    """Write changes to an aggregate that this transaction has locked.

    The generation grows by one, even when nothing else changes.

    :param old: the aggregate as it was read under the lock.
    :returns: the aggregate as it is then.
    :raises AggregateNotFound: it is dismissed: nothing changes any more.
    :raises InvalidAggregateActionDelete: dismissed while hosts remain.
    """
    if old.deleted_at is not None and changes:
        raise exceptions.AggregateNotFound(f"aggregate {old} is deleted")
    _check(changes, old.tracked)
    new = _changed(old, changes, now)
    if changes.dismiss and new.hosts:
        raise exceptions.InvalidAggregateActionDelete(
            old.name, f"it still has the hosts {', '.join(new.hosts)}"
        )
    if new.name != old.name and not new.tracked:
        _refuse_name(connection, new.name, new.uuid)
    _write_hosts(connection, old, new, now)
    _write_metadata(connection, old, new)
    _write_row(connection, old, new)
    return new


def refuse_stale(old: records.Aggregate, generation: int) -> None:
    """Refuse to write over what the writer has not read.

    :param old: the aggregate as it was read under the lock.
    :param generation: the one that the writer read.
    :raises StaleAggregate: they differ.
    """
    if old.generation != generation:
        raise exceptions.StaleAggregate(
            f"aggregate {old} was changed meanwhile: it is at generation "
            f"{old.generation}, the change is based on {generation}"
        )


def _aggregate(row: sa.Row[typing.Any]) -> records.Aggregate:
    return records.Aggregate(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        hosts=[],
        metadata={},
        generation=row.generation,
        created_at=row.created_at,
        deleted_at=row.deleted_at,
        tracked=row.tracked,
    )


def _filled(
    connection: sa.Connection, found: list[records.Aggregate]
) -> list[records.Aggregate]:
    """Return the aggregates with their hosts and their metadata."""
    by_id = {aggregate.id: aggregate for aggregate in found}
    for begin in range(0, len(found), _SLICE):
        some = {'the_ids': list(by_id)[begin : begin + _SLICE]}
        for ident, host in connection.execute(statements.HOSTS, some):
            by_id[ident].hosts.append(host)
        for ident, key, value in connection.execute(statements.PAIRS, some):
            by_id[ident].metadata[key] = value
    for aggregate in found:
        # In Python: databases sort texts each in its own way.
        aggregate.metadata = dict(sorted(aggregate.metadata.items()))
    return found


def _named(
    connection: sa.Connection, ident: str | int
) -> list[records.Aggregate]:
    """Return what is called ``ident`` in one way or other, by id."""
    text = str(ident)
    number = int(text) if text.isascii() and text.isdigit() else 0
    by_id = {'the_id': number} if 0 < number <= _MAX_ID else {}
    if isinstance(ident, int):
        query, by_text = statements.AGGREGATES_BY_ID, {}
    elif len(text) > texts.MAX_LENGTH or '\0' in text:
        return []
    else:
        by_text = {'the_uuid': texts.canonical_uuid(text), 'the_text': text}
        query = statements.AGGREGATES_BY_TEXT
        if by_id:
            query = statements.AGGREGATES_BY_EITHER
    if not by_id and not by_text:
        return []
    return fetch(connection, query, **by_id, **by_text)


def _refuse_name(connection: sa.Connection, name: str, uuid: str) -> None:
    values = {'the_name': name, 'the_uuid': uuid}
    owner = connection.scalar(statements.NAME_OWNER, values)
    if owner is not None:
        raise exceptions.AggregateNameExists(
            f"there is an aggregate '{name}' ({owner}) already"
        )


def _check(changes: records.Changes, foreign: bool) -> None:
    """Check every text before the first is written.

    :raises InvalidText: one cannot be stored.
    """
    if changes.name is not None:
        texts.aggregate_name(changes.name, foreign)
    for host in changes.add_hosts:
        texts.line('host name', host)
    for key, value in changes.metadata.items():
        if value is not None:
            texts.line('metadata key', key)
            texts.value(f"metadata value of '{key}'", value)


def _changed(
    old: records.Aggregate, changes: records.Changes, now: float
) -> records.Aggregate:
    """Return what ``old`` becomes. Pure."""
    hosts = [host for host in old.hosts if host not in changes.remove_hosts]
    added = [host for host in changes.add_hosts if host not in hosts]
    metadata = {**old.metadata, **changes.metadata}
    return dataclasses.replace(
        old,
        name=old.name if changes.name is None else changes.name,
        hosts=hosts + list(dict.fromkeys(added)),
        metadata={
            key: value
            for key, value in sorted(metadata.items())
            if value is not None
        },
        generation=old.generation + 1,
        deleted_at=now if changes.dismiss else old.deleted_at,
    )


def _write_hosts(
    connection: sa.Connection,
    old: records.Aggregate,
    new: records.Aggregate,
    now: float,
) -> None:
    """Bring the host rows, and their claim to be in one pool, up to date.

    :raises AggregateHostExists: a host is in another pool's aggregate.
    """
    kept = [host for host in old.hosts if host in new.hosts]
    gone = [host for host in old.hosts if host not in new.hosts]
    # One that is removed and added in one write comes last.
    if kept != new.hosts[: len(kept)]:
        gone, kept = list(old.hosts), []
    added = new.hosts[len(kept) :]
    is_pool = pool_states.is_hv_pool(new.metadata)
    was_pool = pool_states.is_hv_pool(old.metadata)
    mine = {'the_id': old.id}
    if gone:
        connection.execute(
            statements.HOSTS_DELETE, {**mine, 'the_hosts': gone}
        )
    if is_pool:
        _refuse_hosts(connection, added if was_pool else new.hosts, old.id)
    if kept and was_pool != is_pool:
        claim = H.c.host if is_pool else sa.null()
        connection.execute(
            sa.update(H)
            .where(H.c.aggregate_id == old.id)
            .values(pool_host=claim)
        )
    if added:
        last = connection.scalar(statements.LAST_POSITION, mine)
        connection.execute(
            statements.HOSTS_INSERT,
            [
                {
                    'aggregate_id': old.id,
                    'host': host,
                    'position': (last or 0) + added.index(host) + 1,
                    'pool_host': host if is_pool else None,
                    'added_at': now,
                }
                # Always in one order, so that two do not wait for each other.
                for host in sorted(added)
            ],
        )


def _refuse_hosts(
    connection: sa.Connection,
    hosts: collections.abc.Collection[str],
    aggregate_id: int,
) -> None:
    if not hosts:
        return
    values = {'the_hosts': list(hosts), 'the_id': aggregate_id}
    row = connection.execute(statements.HOSTS_ELSEWHERE, values).first()
    if row:
        raise exceptions.AggregateHostExists(
            f"host '{row.host}' is in the pool aggregate '{row.name}' "
            f"({row.uuid}) already"
        )


def _write_metadata(
    connection: sa.Connection,
    old: records.Aggregate,
    new: records.Aggregate,
) -> None:
    mine = {'the_id': old.id}
    gone = [key for key in old.metadata if key not in new.metadata]
    if gone:
        connection.execute(statements.PAIRS_DELETE, {**mine, 'the_keys': gone})
    for key, value in new.metadata.items():
        if key not in old.metadata:
            connection.execute(
                statements.PAIR_INSERT,
                {'aggregate_id': old.id, 'key': key, 'value': value},
            )
        elif old.metadata[key] != value:
            connection.execute(
                statements.PAIR_UPDATE,
                {**mine, 'the_key': key, 'value': value},
            )


def _write_row(
    connection: sa.Connection,
    old: records.Aggregate,
    new: records.Aggregate,
) -> None:
    """Write the aggregate's own row if it is still what was read."""
    nameless = new.tracked or new.deleted_at is not None
    written = connection.execute(
        statements.AGGREGATE_UPDATE,
        {
            'the_id': old.id,
            'the_generation': old.generation,
            'name': new.name,
            'live_name': None if nameless else new.name,
            'generation': new.generation,
            'deleted_at': new.deleted_at,
        },
    )
    if written.rowcount != 1:
        raise exceptions.StaleAggregate(
            f"aggregate {old} is no longer at generation {old.generation}, "
            f"so that generation {new.generation} cannot follow"
        )
