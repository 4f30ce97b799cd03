# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Destroys what stuck joins leave behind: records of control domains.

``host.destroy`` leaves such a record (:mod:`xenpool_driver.domains`), and
XAPI's command line refuses to destroy any control domain (``vm_destroy`` of
``cli_operations.ml``). The call ``VM.destroy`` is refused only for the control
domain of a host that is there (``xapi_vm_lifecycle.ml``).
"""

from __future__ import annotations

import collections.abc
import functools
import typing

from xenpool_driver import (
    domains,
    exceptions,
    model,
    objects,
    operation,
    pool_states,
    reconcile,
    store,
)
from xenpool_driver.verbs import common, stamps
from xenpool_driver.xapi import client

Observation = reconcile.Observation

CHECK = 'left-over-domain'
"""The audit's check that finds such records."""


class DestroyDomains(common.PoolVerb):
    """Records of control domains whose hosts are no members are destroyed.

    Which ones these are is judged right before each call: the operation
    excludes every join of ours, but somebody else may let a host join.
    """

    kind = 'destroy-domains'
    request = pool_states.RECOVER  # an aggregate in error owns its pool, too
    action = 'destroy left-over control domains'
    refused = exceptions.InvalidAggregateActionUpdate
    goal = Observation.DESTROYED
    repeatable = True  # what is still there shows itself
    counts = False  # it changes nothing that a request is about

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
    ) -> None:
        super().__init__(site, row, host)
        self.uuids: list[str] = []

    def prepare(self) -> None:
        """Find the records.

        :raises InvalidAggregateActionUpdate: there are none, or the pool is
            not the aggregate's.
        """
        door = self.reached(self.coordinator)
        pool = self.reached(door.pool)
        if stamps.stamp_of(pool) != self.row.uuid:
            self.refuse('its pool does not carry its stamp')
        self.uuids = [vm.uuid for vm in self.reached(lambda: find(door))]
        if not self.uuids:
            self.refuse('its pool has no control domain that is left over')

    def intent(self) -> dict[str, typing.Any]:
        return {'domains': self.uuids}

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        self.uuids = details['domains']

    def act(self, journal: operation.Journal) -> None:
        journal.phase('destroy domains', ', '.join(self.uuids))
        for uuid in self.uuids:
            self.surely(
                journal,
                functools.partial(self._destroy, journal, uuid),
                functools.partial(self._is_gone, uuid),
            )

    def _destroy(self, journal: operation.Journal, uuid: str) -> None:
        """Destroy a record, if it is still left over."""
        door = self.coordinator()
        if any(vm.uuid == uuid for vm in find(door)):
            self.changes(journal).destroy_vm(uuid)

    def _is_gone(self, uuid: str) -> bool:
        """Say whether a record is destroyed."""
        return uuid not in self._left()

    def _left(self) -> set[str]:
        """Return which of the records are there."""
        known = {vm.uuid for vm in self.coordinator().control_domains()}
        return known.intersection(self.uuids)

    def observe(self) -> reconcile.Observation:
        try:
            left = self._left()
        except exceptions.XapiError:
            self.forget_coordinator()
            raise
        return Observation.NOT_DESTROYED if left else Observation.DESTROYED

    @property
    def timeout(self) -> float:
        return float(self.site.conf.xenpool.probe_timeout)

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        return store.Changes(metadata=self.master_correction())

    def remark(self, settlement: reconcile.Settlement) -> str:
        return f"repeat it with: {domains.destroying(self.name)}"


def find(door: client.Client) -> list[objects.Vm]:
    """Return the records that are left over for sure.

    A join makes the record of the host before that of its control domain, so
    the control domains are read first.

    :param door: the pool's master.
    :raises XapiError: they cannot be read.
    """
    found = door.control_domains()
    hosts = door.snapshot('pool', 'host', with_clock=False).hosts
    return domains.left_over(found, hosts.values())


def read(
    door: client.Client,
) -> tuple[collections.abc.Sequence[objects.Vm], str]:
    """Return a pool's control domains, and why they could not be read."""
    try:
        return door.control_domains(), ''
    except exceptions.XapiError as error:
        return (), str(error)


def destroy(
    site: operation.Site, row: store.Aggregate, door: client.Client
) -> list[model.Finding]:
    """Destroy the records of an aggregate's pool that are left over.

    :param row: is brought up to date.
    :param door: the pool's master.
    :returns: what was done, or why it was not; nothing for no such record.
    """
    try:
        if not find(door):
            return []
        verb = DestroyDomains(site, row, '')
        operation.perform(verb)
    except (
        exceptions.XapiError,
        exceptions.InvalidAggregateAction,
        exceptions.AggregateError,
    ) as error:
        return [
            model.Finding(
                CHECK,
                model.Severity.WARN,
                f"records of control domains that are left over were not "
                f"destroyed: {error}",
                domains.destroying(row.name),
            )
        ]
    row.refresh()
    return [
        model.Finding(
            CHECK,
            model.Severity.PASS,
            f"fixed: the record {uuid} of a control domain whose host is no "
            f"member is destroyed",
        )
        for uuid in verb.uuids
    ]
