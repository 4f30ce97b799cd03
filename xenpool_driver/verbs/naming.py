# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The verb that gives aggregate and pool another name."""

from __future__ import annotations

import collections.abc
import typing

from xenpool_driver import (
    exceptions,
    operation,
    pool_states,
    reconcile,
    store,
)
from xenpool_driver.verbs import common

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
        self.reached(self.master)

    def intent(self) -> dict[str, typing.Any]:
        return {'new_name': self.new_name}

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        self.new_name = details['new_name']

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        return store.Changes(name=self.new_name)

    def act(self, journal: operation.Journal) -> None:
        journal.phase('name', self.new_name)
        self.coordinator().set_pool_name(self.new_name)

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
        return store.Changes(metadata=self.master_correction())
