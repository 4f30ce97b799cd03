# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What must hold when all workers have done, beside what always must."""

from __future__ import annotations

import collections
import collections.abc
import itertools

from tests.model import judge
from tests.workers import yard as yards
from xenpool_driver import pool_states, store


def at_any_time(yard: yards.Yard) -> list[str]:
    """Return what must not be, not even while everybody works."""
    return [
        *judge.places(yard.store.list_aggregates()),
        *judge.shared_hosts(judge.pools(yard)),
    ]


def in_the_end(yard: yards.Yard) -> list[str]:
    """Return what must not be when everything is recovered and audited."""
    rows = yard.store.list_aggregates()
    return [
        *at_any_time(yard),
        *judge.lifecycle(yard),
        *judge.counts(yard),
        *judge.twice(yard),
        *judge.unfinished(yard),
        *judge.masters(yard, rows),
        *overlaps(yard.operations()),
        *disagreements(yard, rows),
    ]


def overlaps(
    operations: collections.abc.Iterable[store.Operation],
) -> list[str]:
    """Return the operations that ran at the same time and must not.

    In one aggregate, joins of different hosts may overlap, and nothing else.
    """
    by_aggregate: dict[str, list[store.Operation]] = collections.defaultdict(
        list
    )
    for one in operations:
        by_aggregate[one.aggregate_uuid].append(one)
    return [
        f'{one.kind} of {one.host} ({one.started_at} to {one.ended_at}) and '
        f'{other.kind} of {other.host} (from {other.started_at}) overlap'
        for group in by_aggregate.values()
        for one, other in itertools.combinations(group, 2)
        if one.ended_at is None or other.started_at < one.ended_at
        if not _may_overlap(one, other)
    ]


def _may_overlap(one: store.Operation, other: store.Operation) -> bool:
    return one.kind == other.kind == 'join' and one.host != other.host


def joins_at_once(
    operations: collections.abc.Sequence[store.Operation],
) -> int:
    """Return how many pairs of joins of one aggregate did overlap."""
    return sum(
        one.aggregate_uuid == other.aggregate_uuid
        and one.kind == other.kind == 'join'
        and other.started_at < (one.ended_at or 0.0)
        for one, other in itertools.combinations(operations, 2)
    )


def disagreements(
    yard: yards.Yard, rows: collections.abc.Sequence[store.Aggregate]
) -> list[str]:
    """Return where aggregates and pools say different things."""
    pools = judge.pools(yard)
    owners = {row.uuid for row in rows}
    complaints = [
        f'the pool of {pool.master} belongs to {pool.stamp}, which is none'
        for pool in pools
        if pool.stamp and pool.stamp not in owners
    ]
    complaints += [
        f'{pool.master} has {sorted(pool.members)} and belongs to nobody'
        for pool in pools
        if not pool.stamp and len(pool.members) > 1
    ]
    for row in rows:
        mine = [pool for pool in pools if pool.stamp == row.uuid]
        complaints += _disagreements_of(yard, row, mine)
    return complaints


def _disagreements_of(
    yard: yards.Yard, row: store.Aggregate, mine: list[judge.Pool]
) -> list[str]:
    """Return where an aggregate says anything else than its own pools."""
    told = {
        'hosts': set(row.hosts),
        'uuids': pool_states.host_uuids(
            row.metadata, [one.name for one in yard.machines]
        ),
        'master': row.metadata.get(pool_states.MASTER),
        'pool': row.metadata.get(pool_states.POOL_UUID),
    }
    truth: dict[str, object] = {
        'hosts': {host for pool in mine for host in pool.members},
        'uuids': {
            host: yard.host(host).uuid
            for pool in mine
            for host in pool.members
        },
        'master': None,
        'pool': None,
    }
    for pool in mine:
        truth |= {'master': pool.master, 'pool': pool.uuid}
    return [
        f'{row.name}: {key}: aggregate {told[key]}, pool {truth[key]}'
        for key in told
        if told[key] != truth[key]
    ]


def unwell(yard: yards.Yard) -> list[str]:
    """Return the hosts that are down, or disabled in their pool."""
    names = {one.uuid: one.name for one in yard.machines}
    complaints = [
        f'{one.name} is not up' for one in yard.machines if not one.powered
    ]
    for one in yard.machines:
        db = one.db
        for record in () if db is None else db.all('host').values():
            if not record['enabled']:
                name = names[record['uuid']]
                complaints.append(f'{one.name} has {name} disabled')
    return complaints
