# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Requests that were sent to a compute service over the bus.

Frozen, as :mod:`v0001_first`. Each step can be repeated.
"""

from __future__ import annotations

import typing

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = '0002'
down_revision = '0001'
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
    'sqlite_autoincrement': True,
}


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        'xenpool_requests',
        sa.Column('id', sa.Integer, autoincrement=True, nullable=False),
        sa.Column('uuid', UUID, nullable=False),
        sa.Column('aggregate_uuid', UUID, nullable=False),
        sa.Column('kind', LINE, nullable=False),
        sa.Column('host', LINE),
        sa.Column('request_id', LINE),
        sa.Column('sent_at', SECONDS, nullable=False),
        sa.Column('until', SECONDS, nullable=False),
        sa.Column('service', LINE),
        sa.Column('taken_at', SECONDS),
        sa.Column('operation_uuid', UUID),
        sa.Column('withdrawn_at', SECONDS),
        sa.Column('ended_at', SECONDS),
        sa.Column('answer', LONG),
        sa.PrimaryKeyConstraint('id', name='pk_xenpool_requests'),
        sa.UniqueConstraint('uuid', name='uq_xenpool_requests_uuid'),
        sa.ForeignKeyConstraint(
            ['aggregate_uuid'],
            ['xenpool_aggregates.uuid'],
            name='fk_xenpool_requests_aggregate_uuid',
        ),
        **OPTIONS,
    )
