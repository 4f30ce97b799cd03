# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The first schema: aggregates, hosts, metadata, operations, phases.

Frozen: it says what the tables were when it was released, whatever
``schema.py`` says today. Each step can be repeated, since MariaDB commits
each one by itself and the upgrade may die in between.
"""

from __future__ import annotations

import typing

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None

LINE = sa.String(255)
UUID = sa.String(36)
SECONDS: sa.Double[float] = sa.Double()
LONG = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql')

OPTIONS: dict[str, typing.Any] = {
    'if_not_exists': True,
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    'mysql_collate': 'utf8mb4_bin',
}
NUMBERED = {**OPTIONS, 'sqlite_autoincrement': True}


def upgrade() -> None:
    """Create every table."""
    _aggregates()
    _hosts()
    _metadata()
    _operations()
    _phases()


def _aggregates() -> None:
    op.create_table(
        'xenpool_aggregates',
        sa.Column('id', sa.Integer, autoincrement=True, nullable=False),
        sa.Column('uuid', UUID, nullable=False),
        sa.Column('name', LINE, nullable=False),
        sa.Column('live_name', LINE),
        sa.Column('tracked', sa.Boolean, nullable=False),
        sa.Column('generation', sa.Integer, nullable=False),
        sa.Column('created_at', SECONDS, nullable=False),
        sa.Column('deleted_at', SECONDS),
        sa.PrimaryKeyConstraint('id', name='pk_xenpool_aggregates'),
        sa.UniqueConstraint('uuid', name='uq_xenpool_aggregates_uuid'),
        sa.UniqueConstraint(
            'live_name', name='uq_xenpool_aggregates_live_name'
        ),
        **NUMBERED,
    )


def _hosts() -> None:
    op.create_table(
        'xenpool_hosts',
        sa.Column('aggregate_id', sa.Integer, nullable=False),
        sa.Column('host', LINE, nullable=False),
        sa.Column('position', sa.Integer, nullable=False),
        sa.Column('pool_host', LINE),
        sa.Column('added_at', SECONDS, nullable=False),
        sa.PrimaryKeyConstraint(
            'aggregate_id', 'host', name='pk_xenpool_hosts'
        ),
        sa.ForeignKeyConstraint(
            ['aggregate_id'],
            ['xenpool_aggregates.id'],
            name='fk_xenpool_hosts_aggregate_id',
        ),
        sa.UniqueConstraint('pool_host', name='uq_xenpool_hosts_pool_host'),
        **OPTIONS,
    )


def _metadata() -> None:
    op.create_table(
        'xenpool_metadata',
        sa.Column('aggregate_id', sa.Integer, nullable=False),
        sa.Column('key', LINE, nullable=False),
        sa.Column('value', LINE, nullable=False),
        sa.PrimaryKeyConstraint(
            'aggregate_id', 'key', name='pk_xenpool_metadata'
        ),
        sa.ForeignKeyConstraint(
            ['aggregate_id'],
            ['xenpool_aggregates.id'],
            name='fk_xenpool_metadata_aggregate_id',
        ),
        **OPTIONS,
    )


def _operations() -> None:
    op.create_table(
        'xenpool_operations',
        sa.Column('id', sa.Integer, autoincrement=True, nullable=False),
        sa.Column('uuid', UUID, nullable=False),
        sa.Column('aggregate_uuid', UUID, nullable=False),
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
        sa.PrimaryKeyConstraint('id', name='pk_xenpool_operations'),
        sa.ForeignKeyConstraint(
            ['aggregate_uuid'],
            ['xenpool_aggregates.uuid'],
            name='fk_xenpool_operations_aggregate_uuid',
        ),
        sa.UniqueConstraint('uuid', name='uq_xenpool_operations_uuid'),
        **NUMBERED,
    )
    _index('xenpool_operations', 'aggregate_uuid', 'ended_at')
    _index('xenpool_operations', 'ended_at')


def _phases() -> None:
    op.create_table(
        'xenpool_phases',
        sa.Column('operation_uuid', UUID, nullable=False),
        sa.Column('seq', sa.Integer, autoincrement=False, nullable=False),
        sa.Column('phase', LINE, nullable=False),
        sa.Column('at', SECONDS, nullable=False),
        sa.Column('note', LONG, nullable=False),
        sa.Column('owner', LINE, nullable=False),
        sa.Column('epoch', sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint(
            'operation_uuid', 'seq', name='pk_xenpool_phases'
        ),
        sa.ForeignKeyConstraint(
            ['operation_uuid'],
            ['xenpool_operations.uuid'],
            name='fk_xenpool_phases_operation_uuid',
        ),
        **OPTIONS,
    )


def _index(table: str, *columns: str) -> None:
    """Create an index unless it is there (MySQL cannot say that itself)."""
    name = f"ix_{table}_{'_'.join(columns)}"
    found = sa.inspect(op.get_bind()).get_indexes(table)
    if name not in {index['name'] for index in found}:
        op.create_index(name, table, list(columns))
