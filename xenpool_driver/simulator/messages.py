# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The class ``message``: what the pool tells its operators."""

from __future__ import annotations

import typing

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import (
    database,
    errors,
    registry,
    rows,
    values,
)

CLASSES = {'Host': 'host', 'Pool': 'pool'}
"""Classes that a message names differently than the database."""


def post(
    db: database.Database,
    name: str,
    priority: int,
    cls: str,
    obj_uuid: str,
    body: str,
) -> str:
    """Post a message about the object of ``cls`` with ``obj_uuid``.

    :returns: its reference.
    """
    fields = {
        'name': name,
        'priority': priority,
        'cls': cls,
        'obj_uuid': obj_uuid,
        'timestamp': db.clock.iso(),
        'body': body,
    }
    return db.create('message', fields)


@registry.message('message.create')
def _create(
    call: registry.Call,
    name: str,
    priority: int,
    cls: str,
    obj_uuid: str,
    body: str,
) -> str:
    values.check_storable([name, body])
    table = CLASSES.get(cls, cls)
    if table not in call.db.model.classes:
        raise errors.uuid_invalid(cls, obj_uuid)
    if obj_uuid not in call.db.table(table).by_uuid:
        raise errors.uuid_invalid(cls, obj_uuid)
    return post(call.db, name, priority, cls, obj_uuid, body)


@registry.message('message.destroy')
def _destroy(call: registry.Call, ref: str) -> None:
    call.db.delete('message', ref)


@registry.message('message.destroy_many')
def _destroy_many(call: registry.Call, refs: list[str]) -> None:
    for ref in refs:
        call.db.delete('message', ref)


def _since(
    db: database.Database, since: str, **fields: typing.Any
) -> rows.RowMap:
    start = clock_module.from_iso(since)
    with db.lock:
        table = db.table('message')
        found = [
            (ref, table.rows[ref])
            for ref in table.order()
            if clock_module.from_iso(table.rows[ref].record['timestamp'])
            > start
            and all(
                table.rows[ref].record[name] == value
                for name, value in fields.items()
            )
        ]
    return rows.RowMap('message', found)


@registry.message('message.get_since')
def _get_since(call: registry.Call, since: str) -> rows.RowMap:
    return _since(call.db, since)


@registry.message('message.get')
def _get(
    call: registry.Call, cls: str, obj_uuid: str, since: str
) -> rows.RowMap:
    return _since(call.db, since, cls=cls, obj_uuid=obj_uuid)
