# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The store's half that keeps aggregates: each method is one transaction."""

from __future__ import annotations

import collections.abc
import dataclasses
import uuid as uuids

import sqlalchemy as sa

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions
from xenpool_driver.store import (
    aggregates,
    engine,
    records,
    statements,
    texts,
)


class Shelf:
    """Aggregates in a database.

    :param database: whose schema is the code's.
    :param clock: tells the time of everything recorded.
    """

    def __init__(self, database: engine.Database, clock: clocks.Clock) -> None:
        self.clock = clock
        self._database = database

    def create_aggregate(
        self,
        name: str,
        metadata: records.Metadata | None = None,
        uuid: str | None = None,
    ) -> records.Aggregate:
        """Create an aggregate.

        :param name: 1 to 255 characters; unique among those not dismissed.
        :param uuid: its uuid, or None for a new one.
        :raises AggregateNameExists: the name (or the uuid) is taken.
        :raises InvalidText: a name, key or value cannot be stored.
        """
        texts.aggregate_name(name)
        return self._create(uuid or str(uuids.uuid4()), name, metadata or {})

    def discard_aggregate(self, uuid: str) -> bool:
        """Take an aggregate back that was made for a request in vain.

        :returns: whether it is gone without a trace; one of which anything
            has become stays.
        :raises AggregateNotFound: there is none.
        """
        return self._database.write(
            lambda connection: aggregates.discard(
                connection, aggregates.lock(connection, uuid)
            )
        )

    def track_aggregate(
        self,
        uuid: str,
        name: str,
        metadata: records.Metadata,
        hosts: collections.abc.Sequence[str],
    ) -> records.Aggregate:
        """Return our row of a foreign service's aggregate.

        The first call inserts it as given. Later ones return it as it has
        become here, since ours is the truth of its state; only a new name is
        taken over.

        :raises AggregateHostExists: a host is in another pool aggregate.
        :raises InvalidText: a text cannot be stored.
        """
        texts.aggregate_name(name, foreign=True)
        ident = _uuid(uuid)

        def work(connection: sa.Connection) -> records.Aggregate:
            if not aggregates.exists(connection, ident):
                new = aggregates.insert(
                    connection, ident, name, self.clock.time(), foreign=True
                )
                changes = records.Changes(metadata, tuple(hosts))
                return self._apply_first(connection, new, changes)
            known = aggregates.lock(connection, ident)
            if known.name == name or known.deleted_at is not None:
                return known
            return aggregates.apply(
                connection,
                known,
                records.Changes(name=name),
                self.clock.time(),
            )

        return self._bound(self._database.write(work))

    def get_aggregate(
        self, ident: str | int, dismissed: bool = False
    ) -> records.Aggregate:
        """Return the aggregate with this uuid, id or name.

        :param dismissed: find dismissed ones too.
        :raises AggregateNotFound: there is none, or more than one.
        """
        return self._bound(
            self._database.read(
                lambda connection: aggregates.find(
                    connection, ident, dismissed
                )
            )
        )

    def list_aggregates(
        self, dismissed: bool = False
    ) -> list[records.Aggregate]:
        """Return all aggregates, by id.

        :param dismissed: dismissed ones too.
        """
        wanted = statements.AGGREGATES_LIVE
        if dismissed:
            wanted = statements.AGGREGATES_ALL
        found = self._database.read(
            lambda connection: aggregates.fetch(connection, wanted)
        )
        return [self._bound(aggregate) for aggregate in found]

    def aggregate_of_host(self, host: str) -> records.Aggregate | None:
        """Return the pool aggregate that the host is in, if any."""
        found = self._database.read(
            lambda connection: aggregates.fetch(
                connection, statements.AGGREGATE_OF_HOST, the_host=host
            )
        )
        return self._bound(found[0]) if found else None

    def change(
        self, uuid: str, generation: int, changes: records.Changes
    ) -> records.Aggregate:
        """Write changes if nobody wrote since ``generation``.

        :raises AggregateNotFound: there is none, or it is dismissed.
        :raises StaleAggregate: somebody did.
        """
        return self._bound(
            self._database.write(
                lambda connection: self._change(
                    connection, uuid, generation, changes
                )
            )
        )

    def update_metadata(
        self, uuid: str, generation: int, changes: records.MetadataChanges
    ) -> records.Aggregate:
        """Merge ``changes`` into the metadata; None deletes a key.

        :raises StaleAggregate: somebody wrote since ``generation``.
        """
        return self.change(uuid, generation, records.Changes(changes))

    def rename(
        self, uuid: str, generation: int, name: str
    ) -> records.Aggregate:
        """Give the aggregate another name.

        :raises AggregateNameExists: another one has it.
        :raises StaleAggregate: somebody wrote since ``generation``.
        """
        return self.change(uuid, generation, records.Changes(name=name))

    def _create(
        self, uuid: str, name: str, metadata: records.Metadata
    ) -> records.Aggregate:
        ident = _uuid(uuid)

        def work(connection: sa.Connection) -> records.Aggregate:
            new = aggregates.insert(connection, ident, name, self.clock.time())
            return self._apply_first(
                connection, new, records.Changes(metadata)
            )

        return self._bound(self._database.write(work))

    def _apply_first(
        self,
        connection: sa.Connection,
        new: records.Aggregate,
        changes: records.Changes,
    ) -> records.Aggregate:
        """Write what a new aggregate is born with, if anything."""
        if not changes:
            return new
        return aggregates.apply(connection, new, changes, self.clock.time())

    def _change(
        self,
        connection: sa.Connection,
        uuid: str,
        generation: int,
        changes: records.Changes,
    ) -> records.Aggregate:
        row = aggregates.lock(connection, uuid)
        if row.deleted_at is not None:
            raise exceptions.AggregateNotFound(f"aggregate {row} is deleted")
        aggregates.refuse_stale(row, generation)
        return aggregates.apply(connection, row, changes, self.clock.time())

    def _bound(self, aggregate: records.Aggregate) -> records.Aggregate:
        return dataclasses.replace(aggregate, _store=self)


def _uuid(uuid: str) -> str:
    """Return the uuid as it is stored.

    :raises InvalidText: it cannot be.
    """
    return texts.canonical_uuid(texts.line('aggregate uuid', uuid, longest=36))
