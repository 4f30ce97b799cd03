# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The SQL that every request runs, each statement made once.

To make a statement takes SQLAlchemy several times as long as to run it.
Parameters that are no column's new value are called ``the_...``.
"""

from __future__ import annotations

import typing

import sqlalchemy as sa

from xenpool_driver.store import schema

A = schema.AGGREGATES
H = schema.HOSTS
P = schema.PAIRS
O = schema.OPERATIONS  # noqa: E741
F = schema.PHASES


def _the(name: str) -> sa.BindParameter[typing.Any]:
    return sa.bindparam(f"the_{name}")


def _each(name: str) -> sa.BindParameter[typing.Any]:
    return sa.bindparam(f"the_{name}", expanding=True)


# The time, in seconds since 1970, by the clock of the server

TIME = {
    'postgresql': sa.text('SELECT extract(epoch FROM clock_timestamp())'),
    # UNIX_TIMESTAMP(...) would read the time in the session's time zone,
    # which has one hour twice in a year.
    'mysql': sa.text(
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
        ' / 1e6'
    ),
}

# Aggregates, by id where there may be more than one

_BY_UUID = sa.select(A).where(A.c.uuid == _the('uuid'))
_BY_ID = A.c.id == _the('id')
_BY_TEXT = (A.c.uuid == _the('uuid')) | (A.c.name == _the('text'))
_AGGREGATES = sa.select(A).order_by(A.c.id)

AGGREGATE = _BY_UUID
AGGREGATE_LOCKED = _BY_UUID.with_for_update()
AGGREGATE_OF_HOST = _AGGREGATES.where(
    A.c.id.in_(
        sa.select(H.c.aggregate_id).where(H.c.pool_host == _the('host'))
    )
)
AGGREGATES_ALL = _AGGREGATES
AGGREGATES_LIVE = _AGGREGATES.where(A.c.deleted_at.is_(None))
AGGREGATES_BY_ID = _AGGREGATES.where(_BY_ID)
AGGREGATES_BY_TEXT = _AGGREGATES.where(_BY_TEXT)
AGGREGATES_BY_EITHER = _AGGREGATES.where(_BY_TEXT | _BY_ID)

NAME_OWNER = sa.select(A.c.uuid).where(
    A.c.live_name == _the('name'), A.c.uuid != _the('uuid')
)
AGGREGATE_INSERT = sa.insert(A)
AGGREGATE_UPDATE = sa.update(A).where(
    A.c.id == _the('id'), A.c.generation == _the('generation')
)

# Their hosts

HOSTS = (
    sa.select(H.c.aggregate_id, H.c.host)
    .where(H.c.aggregate_id.in_(_each('ids')))
    .order_by(H.c.position)
)
HOSTS_ELSEWHERE = (
    sa.select(H.c.host, A.c.name, A.c.uuid)
    .join(A)
    .where(H.c.pool_host.in_(_each('hosts')), H.c.aggregate_id != _the('id'))
    .order_by(H.c.pool_host)
)
LAST_POSITION = sa.select(sa.func.max(H.c.position)).where(
    H.c.aggregate_id == _the('id')
)
HOSTS_INSERT = sa.insert(H)
HOSTS_DELETE = sa.delete(H).where(
    H.c.aggregate_id == _the('id'), H.c.host.in_(_each('hosts'))
)

# Their metadata

PAIRS = sa.select(P.c.aggregate_id, P.c.key, P.c.value).where(
    P.c.aggregate_id.in_(_each('ids'))
)
PAIR_INSERT = sa.insert(P)
PAIR_UPDATE = (
    sa.update(P)
    .where(P.c.aggregate_id == _the('id'), P.c.key == _the('key'))
    .values(value=sa.bindparam('value'))
)
PAIRS_DELETE = sa.delete(P).where(
    P.c.aggregate_id == _the('id'), P.c.key.in_(_each('keys'))
)

# Operations, oldest first unless newest are wanted

_OF_AGGREGATE = O.c.aggregate_uuid == _the('aggregate')
_RUNNING = sa.select(O).where(O.c.ended_at.is_(None)).order_by(O.c.id)
_NEWEST = sa.select(O).order_by(O.c.id.desc()).limit(_the('limit'))

OPERATION_LOCKED = (
    sa.select(O).where(O.c.uuid == _the('uuid')).with_for_update()
)
OPERATIONS_RUNNING = _RUNNING
OPERATIONS_RUNNING_HERE = _RUNNING.where(_OF_AGGREGATE)
OPERATIONS_NEWEST = _NEWEST
OPERATIONS_NEWEST_HERE = _NEWEST.where(_OF_AGGREGATE)
OPERATION_INSERT = sa.insert(O)
OPERATION_UPDATE = sa.update(O).where(O.c.uuid == _the('uuid'))

# Their stories

LAST_LINE = sa.select(sa.func.max(F.c.seq)).where(
    F.c.operation_uuid == _the('uuid')
)
STORY = (
    sa.select(F).where(F.c.operation_uuid == _the('uuid')).order_by(F.c.seq)
)
LINE_INSERT = sa.insert(F)
