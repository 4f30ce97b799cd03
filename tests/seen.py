# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The database itself tells, in order, of each change that was committed.

Triggers write a line into the table ``seen`` whenever an aggregate's metadata
changes (``what`` is the key) and whenever an operation begins or ends.
"""

from __future__ import annotations

import collections.abc
import typing

import sqlalchemy as sa

METADATA = sa.MetaData()

SEEN = sa.Table(
    'seen',
    METADATA,
    sa.Column('number', sa.Integer, primary_key=True),
    sa.Column('aggregate', sa.String(36), nullable=False),
    sa.Column('what', sa.String(255), nullable=False),
    sa.Column('old', sa.String(255)),
    sa.Column('new', sa.String(255)),
)

_KEY = """INSERT INTO seen (aggregate, what, old, new)
SELECT uuid, {row}.{key}, {old}, {new} FROM xenpool_aggregates
WHERE id = {row}.aggregate_id"""

_OPERATION = """INSERT INTO seen (aggregate, what, old, new)
SELECT uuid, {what}, NEW.kind, NEW.outcome FROM xenpool_aggregates
WHERE uuid = NEW.aggregate_uuid{condition}"""

_TRIGGERS = (
    ('xenpool_metadata', 'INSERT', _KEY, {'row': 'NEW', 'old': 'NULL'}),
    ('xenpool_metadata', 'UPDATE', _KEY, {'row': 'NEW'}),
    ('xenpool_metadata', 'DELETE', _KEY, {'row': 'OLD', 'new': 'NULL'}),
    ('xenpool_operations', 'INSERT', _OPERATION, {'what': "'begin'"}),
    (
        'xenpool_operations',
        'UPDATE',
        _OPERATION,
        {'what': "'end'", 'condition': ' AND NEW.outcome IS NOT NULL'},
    ),
)

_DEFAULTS = {'old': 'OLD.value', 'new': 'NEW.value', 'condition': ''}

_FORMS = {
    'sqlite': 'CREATE TRIGGER {name} AFTER {event} ON {table} '
    'BEGIN {body}; END',
    'mysql': 'CREATE TRIGGER {name} AFTER {event} ON {table} '
    'FOR EACH ROW {body}',
    'postgresql': 'CREATE FUNCTION {name}() RETURNS trigger AS $$ '
    'BEGIN {body}; RETURN NULL; END $$ LANGUAGE plpgsql; '
    'CREATE TRIGGER {name} AFTER {event} ON {table} '
    'FOR EACH ROW EXECUTE FUNCTION {name}()',
}


def install(url: str) -> None:
    """Let a database that has our schema tell of each change.

    :param url: SQLAlchemy's.
    """
    engine = sa.create_engine(url)
    key = engine.dialect.identifier_preparer.quote('key')
    form = _FORMS[engine.dialect.name]
    with engine.begin() as connection:
        METADATA.create_all(connection)
        for table, event, body, words in _TRIGGERS:
            given = {**_DEFAULTS, 'key': key, **words}
            connection.exec_driver_sql(
                form.format(
                    name=f'seen_{table}_{event}'.lower(),
                    event=event,
                    table=table,
                    body=body.format(**given),
                )
            )
    engine.dispose()


def told(
    engine: sa.Engine,
) -> collections.abc.Sequence[sa.Row[typing.Any]]:
    """Return what the database has told, in order."""
    with engine.connect() as connection:
        return connection.execute(
            sa.select(SEEN).order_by(SEEN.c.number)
        ).all()
