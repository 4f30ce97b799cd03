# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The tables as the code reads them; ``migrations/`` is how they came about.

The prefix keeps them apart in a database that is shared with others (Nova has
an ``aggregates`` of its own). Uniqueness "among those that still live" is a
nullable unique column, since NULLs never clash on any of the databases.
"""

from __future__ import annotations

import typing

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

REVISIONS = ('0001', '0002')
"""Every schema revision, oldest first (``migrations/versions``)."""

REVISION = REVISIONS[-1]
"""The revision that this code reads and writes."""

VERSION_TABLE = 'xenpool_version'

NAMING = {
    'pk': 'pk_%(table_name)s',
    'uq': 'uq_%(table_name)s_%(column_0_N_name)s',
    'ix': 'ix_%(table_name)s_%(column_0_N_name)s',
    'fk': 'fk_%(table_name)s_%(column_0_N_name)s',
}
"""How constraints are called, the same on each database."""

METADATA = sa.MetaData(naming_convention=NAMING)

LINE = sa.String(255)
UUID = sa.String(36)
SECONDS: sa.Double[float] = sa.Double()
LONG = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql')

_OPTIONS: dict[str, typing.Any] = {
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    # Names and keys differ in case, and no two of them are "equal enough".
    'mysql_collate': 'utf8mb4_bin',
}
# Ids are never used again, not even the highest one.
_NUMBERED = {**_OPTIONS, 'sqlite_autoincrement': True}

AGGREGATES = sa.Table(
    'xenpool_aggregates',
    METADATA,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', UUID, nullable=False),
    sa.Column('name', LINE, nullable=False),
    # The name while it must be unique: not dismissed, not a foreign one.
    sa.Column('live_name', LINE),
    sa.Column('tracked', sa.Boolean, nullable=False),
    sa.Column('generation', sa.Integer, nullable=False),
    sa.Column('created_at', SECONDS, nullable=False),
    sa.Column('deleted_at', SECONDS),
    sa.UniqueConstraint('uuid'),
    sa.UniqueConstraint('live_name'),
    **_NUMBERED,
)

HOSTS = sa.Table(
    'xenpool_hosts',
    METADATA,
    sa.Column(
        'aggregate_id',
        sa.Integer,
        sa.ForeignKey(AGGREGATES.c.id),
        primary_key=True,
    ),
    sa.Column('host', LINE, primary_key=True),
    # The order of addition.
    sa.Column('position', sa.Integer, nullable=False),
    # The host's name while its aggregate is a pool: one pool for each host.
    sa.Column('pool_host', LINE),
    sa.Column('added_at', SECONDS, nullable=False),
    sa.UniqueConstraint('pool_host'),
    **_OPTIONS,
)

PAIRS = sa.Table(
    'xenpool_metadata',
    METADATA,
    sa.Column(
        'aggregate_id',
        sa.Integer,
        sa.ForeignKey(AGGREGATES.c.id),
        primary_key=True,
    ),
    sa.Column('key', LINE, primary_key=True),
    sa.Column('value', LINE, nullable=False),
    **_OPTIONS,
)

OPERATIONS = sa.Table(
    'xenpool_operations',
    METADATA,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', UUID, nullable=False),
    sa.Column(
        'aggregate_uuid',
        UUID,
        sa.ForeignKey(AGGREGATES.c.uuid),
        nullable=False,
    ),
    sa.Column('kind', LINE, nullable=False),
    sa.Column('host', LINE),
    sa.Column('phase', LINE, nullable=False),
    sa.Column('owner', LINE, nullable=False),
    sa.Column('epoch', sa.Integer, nullable=False),
    sa.Column('lease', SECONDS, nullable=False),
    sa.Column('lease_expires', SECONDS, nullable=False),
    sa.Column('started_at', SECONDS, nullable=False),
    sa.Column('ended_at', SECONDS),
    sa.Column('outcome', LINE),
    sa.Column('error', LONG),
    sa.Column('details', LONG, nullable=False),
    sa.Column('request_id', LINE),
    sa.UniqueConstraint('uuid'),
    # Both questions that are asked: what runs here, what runs anywhere.
    sa.Index(
        'ix_xenpool_operations_aggregate_uuid_ended_at',
        'aggregate_uuid',
        'ended_at',
    ),
    sa.Index('ix_xenpool_operations_ended_at', 'ended_at'),
    **_NUMBERED,
)

PHASES = sa.Table(
    'xenpool_phases',
    METADATA,
    sa.Column(
        'operation_uuid',
        UUID,
        sa.ForeignKey(OPERATIONS.c.uuid),
        primary_key=True,
    ),
    sa.Column('seq', sa.Integer, primary_key=True, autoincrement=False),
    sa.Column('phase', LINE, nullable=False),
    sa.Column('at', SECONDS, nullable=False),
    sa.Column('note', LONG, nullable=False),
    sa.Column('owner', LINE, nullable=False),
    sa.Column('epoch', sa.Integer, nullable=False),
    **_OPTIONS,
)

REQUESTS = sa.Table(
    'xenpool_requests',
    METADATA,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', UUID, nullable=False),
    sa.Column(
        'aggregate_uuid',
        UUID,
        sa.ForeignKey(AGGREGATES.c.uuid),
        nullable=False,
    ),
    sa.Column('kind', LINE, nullable=False),
    sa.Column('host', LINE),
    sa.Column('request_id', LINE),
    sa.Column('sent_at', SECONDS, nullable=False),
    # Until when a service may take it.
    sa.Column('until', SECONDS, nullable=False),
    sa.Column('service', LINE),
    sa.Column('taken_at', SECONDS),
    # The last operation that it began.
    sa.Column('operation_uuid', UUID),
    sa.Column('withdrawn_at', SECONDS),
    sa.Column('ended_at', SECONDS),
    sa.Column('answer', LONG),
    sa.UniqueConstraint('uuid'),
    **_NUMBERED,
)
