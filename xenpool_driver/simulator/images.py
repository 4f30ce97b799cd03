# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What is on disk: databases as they were when they were last written.

A coordinator writes its database every few minutes, members fetch copies.
An :class:`Image` is such a file. It shares the records that have not changed
with the image before it, so that taking one is cheap.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import random
import typing

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import database

SUBJECTS = 'subjects'
"""What of a database's side table is on disk."""


@dataclasses.dataclass(frozen=True)
class Image:
    """A database at rest: immutable, without sessions and tasks.

    :param generation: the database's at that moment.
    :param subjects: the directory users who may log in.
    """

    generation: int
    records: database.Records
    subjects: collections.abc.Mapping[str, typing.Any] = dataclasses.field(
        default_factory=dict
    )


def take(db: database.Database, previous: Image | None = None) -> Image:
    """Return ``db`` as it is now.

    :param previous: an older image of the same database, to share with.
    """
    with db.lock:
        if previous is not None and previous.generation == db.generation:
            return previous
        records: database.Records = {}
        for table in db.tables():
            if table.cls not in database.VOLATILE:
                records[table.cls] = _rows(table, previous)
        subjects = dict(db.side.get(SUBJECTS, {}))
        return Image(db.generation, records, subjects)


def _rows(
    table: database.Table, previous: Image | None
) -> dict[str, database.Record]:
    if previous is None:
        return {ref: dict(row.record) for ref, row in table.rows.items()}
    known = previous.records.get(table.cls, {})
    if table.modified <= previous.generation:
        return known
    return {
        ref: known[ref]
        if row.modified <= previous.generation and ref in known
        else dict(row.record)
        for ref, row in table.rows.items()
    }


def restore(
    image: Image, clock: clock_module.Clock, rng: random.Random
) -> database.Database:
    """Return a database that starts where ``image`` was taken.

    References stay, generations go on, current_operations are forgotten as
    a restart of the toolstack forgets them.
    """
    db = database.Database(clock, rng)
    with db.lock:
        db.generation = image.generation + 1
        if image.subjects:
            db.side[SUBJECTS] = dict(image.subjects)
        for cls, rows in image.records.items():
            table = db.table(cls)
            table.modified = db.generation
            for ref, record in rows.items():
                copy = dict(record)
                if copy.get('current_operations'):
                    copy['current_operations'] = {}
                table.add(ref, database.Row(copy, db.generation))
    return db
