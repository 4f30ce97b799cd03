# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Verbs that write what a pool is called, and whose it is."""

from __future__ import annotations

import collections.abc
import typing

from xenpool_driver import (
    exceptions,
    objects,
    operation,
    pool_states,
    reconcile,
    store,
)
from xenpool_driver.verbs import common, sight, stamps

Observation = reconcile.Observation


class Rename(common.PoolVerb):
    """The aggregate is renamed, and its pool with it.

    :param new_name: the name; checked by the store.
    """

    kind = 'rename'
    request = pool_states.SET_MASTER  # wherever the pool may be changed
    action = 'rename'
    refused = exceptions.InvalidAggregateActionUpdate
    goal = Observation.RENAMED
    repeatable = True  # whether the pool has the name, it shows itself

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
        *,
        new_name: str = '',
    ) -> None:
        super().__init__(site, row, host)
        self.new_name = new_name
        self.old_name = row.name
        self._is_named = False

    @property
    def name(self) -> str:
        """The name before: it stays when the request is refused."""
        return self.old_name

    def prepare(self) -> None:
        """Find the pool.

        :raises InvalidAggregateActionUpdate: nobody answers.
        :raises AggregateNameExists: another aggregate has the name.
        """
        try:
            other = self.site.store.get_aggregate(self.new_name)
        except exceptions.AggregateNotFound:
            other = self.row
        if other.uuid != self.row.uuid:
            raise exceptions.AggregateNameExists(
                f"aggregate name '{self.new_name}' is in use"
            )
        pool = self.reached(lambda: self.coordinator().pool())
        self._is_named = pool.name_label == self.new_name

    def intent(self) -> dict[str, typing.Any]:
        return {'new_name': self.new_name, 'old_name': self.old_name}

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        self.new_name = details['new_name']
        self.old_name = details.get('old_name', self.new_name)

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        return store.Changes(name=self.new_name)

    def act(self, journal: operation.Journal) -> None:
        if self._is_named:
            journal.phase('observe', 'the pool has the name already')
            return
        journal.phase('name', self.new_name)
        self.changes(journal).set_pool_name(self.new_name)

    def observe(self) -> reconcile.Observation:
        try:
            named = self.coordinator().pool().name_label == self.new_name
        except exceptions.XapiError:
            self.forget_coordinator()
            raise
        return Observation.RENAMED if named else Observation.NOT_RENAMED

    @property
    def timeout(self) -> float:
        return float(self.site.conf.xenpool.probe_timeout)

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        metadata = self.master_correction()
        if settlement.outcome == 'refused':
            return store.Changes(metadata=metadata, name=self.old_name)
        return store.Changes(metadata=metadata)

    def remark(self, settlement: reconcile.Settlement) -> str:
        again = common.typed(
            'aggregate', 'set', self.new_name, '--name', self.new_name
        )
        return f"repeat it with: {again}"


class Restamp(common.PoolVerb):
    """The pool gets back the stamp of its aggregate.

    A member that is promoted may have a copy of the database from before the
    pool was stamped. Another controller would take the pool for free.
    """

    kind = 'stamp'
    request = pool_states.RECOVER  # an aggregate in error owns its pool, too
    action = 'stamp'
    refused = exceptions.InvalidAggregateActionUpdate
    goal = Observation.STAMPED
    repeatable = True
    counts = False  # nobody has asked for it

    def master(self) -> common.Master:
        """Return the master that most members follow.

        The recorded one may be a second master by now, whose copy of the
        database has the stamp.

        :raises XapiError: it cannot be found.
        """
        if self._master is None:
            found = common.find_master(self.site, self.row)
            door = sight.led(self.site, self.row, found.door).door
            if door is not found.door:
                found = common.identified(door, door.pool())
            self._master = found
        return self._master

    def prepare(self) -> None:
        """Make sure that the pool is ours, and nobody's by its stamp.

        :raises InvalidAggregateActionUpdate: it is not.
        """
        door = self.reached(self.coordinator)
        if not lacks_stamp(self.row, self.reached(door.pool), self.master()):
            self.refuse('its pool does not lack the stamp')

    def act(self, journal: operation.Journal) -> None:
        journal.phase('stamp')
        self.surely(
            journal,
            lambda: stamps.put(journal, self.coordinator(), self.row),
            lambda: self.observe() == Observation.STAMPED,
        )

    def observe(self) -> reconcile.Observation:
        try:
            stamp = stamps.stamp_of(self.coordinator().pool())
        except exceptions.XapiError:
            self.forget_coordinator()
            raise
        if stamp == self.row.uuid:
            return Observation.STAMPED
        return Observation.NOT_STAMPED

    @property
    def timeout(self) -> float:
        return float(self.site.conf.xenpool.probe_timeout)

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        return store.Changes(metadata=self.master_correction())


def lacks_stamp(
    row: store.Aggregate, pool: objects.Pool, master: common.Master
) -> bool:
    """Say whether a pool is the aggregate's, and carries no stamp.

    :param pool: the pool.
    :param master: its master.
    """
    return (
        row.state in (pool_states.ACTIVE, pool_states.ERROR)
        and pool.uuid == row.metadata.get(pool_states.POOL_UUID)
        and master.uuid in common.members(row).values()
        and not stamps.stamp_of(pool)
    )
