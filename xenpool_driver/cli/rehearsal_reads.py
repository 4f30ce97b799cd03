# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a rehearsal reads of the real hosts. It logs in, reads, logs out."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses
import typing

from xenpool_driver import exceptions, operation, pool_states, snapshot, store
from xenpool_driver.verbs import common
from xenpool_driver.xapi import client, connections

CLASSES = (
    *snapshot.DUMP_CLASSES,
    'PIF_metrics',
    'VM_metrics',
    'VIF',
    'console',
    'host_cpu',
)
"""A dump's classes, and what else a simulator makes use of. Never secrets."""

READERS = 8
"""How many hosts are read at the same time."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """The records of one real pool.

    :ivar uuid: the pool's.
    :ivar read_from: the compute host that was asked for its master.
    :ivar records: what was read.
    """

    uuid: str
    read_from: str
    records: client.Records

    @property
    def hosts(self) -> list[dict[str, typing.Any]]:
        """The records of its hosts."""
        return list(self.records.get('host', {}).values())


@dataclasses.dataclass
class Reading:
    """All that was read.

    :ivar pools: the pools, by uuid; the aggregate's own comes first.
    :ivar uuids: XenServer uuid and pool uuid of each compute host.
    :ivar unreadable: why a host could not be read, by compute host.
    :ivar silent: compute hosts of members that do not answer.
    """

    pools: dict[str, Pool] = dataclasses.field(default_factory=dict)
    uuids: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    unreadable: dict[str, exceptions.XapiError] = dataclasses.field(
        default_factory=dict
    )
    silent: frozenset[str] = frozenset()

    @property
    def gaps(self) -> dict[str, str]:
        """What no pool's records hold, by pool and class: why."""
        return {
            f"{cls} of {pool.read_from}": why
            for pool in self.pools.values()
            for cls, why in pool.records.unreadable.items()
        }


def read(
    site: operation.Site,
    row: store.Aggregate,
    joiners: collections.abc.Sequence[str],
) -> Reading:
    """Read the pool of the aggregate, and each joiner.

    :param row: the aggregate.
    :param joiners: compute hosts outside of it that are concerned.
    :raises XapiError: the aggregate's pool cannot be read.
    """
    found = Reading()
    members = common.members(row)
    if row.metadata.get(pool_states.MASTER) and members:
        master = common.find_master(site, row).door
        pool = _pool(master, master.name)
        found.pools[pool.uuid] = pool
        views = common.member_views(site, sorted(members))
        found.silent = frozenset(
            host for host, view in views.items() if view is None
        )
        known = {str(host['uuid']) for host in pool.hosts}
        for host, uuid in members.items():
            if uuid in known:
                found.uuids[host] = (uuid, pool.uuid)
    others = [
        host
        for host in dict.fromkeys((*row.hosts, *joiners))
        if host not in found.uuids
    ]
    with concurrent.futures.ThreadPoolExecutor(READERS) as readers:
        outcomes = readers.map(lambda host: _outsider(site, host), others)
        for host, outcome in zip(others, outcomes, strict=True):
            _note(found, host, outcome)
    return found


def _pool(door: client.Client, asked: str) -> Pool:
    """Return the records of a master's pool."""
    return Pool(door.pool().uuid, asked, door.records(*CLASSES))


_Outcome = tuple[str, Pool] | exceptions.XapiError


def _outsider(site: operation.Site, host: str) -> _Outcome:
    """Return uuid and pool of a host that the aggregate's pool lacks."""
    doors: connections.Connections = site.connections
    try:
        try:
            door = doors.client(host)
            return door.this_host()[1], _pool(door, host)
        except exceptions.NotPoolMaster:
            pool = _pool(doors.coordinator_of(host), host)
    except exceptions.XapiError as error:
        return error
    address = doors.access(host).address
    for record in pool.hosts:
        if record['address'] == address:
            return str(record['uuid']), pool
    return exceptions.XapiUnavailable(
        f"its pool has no record of a host at {address}", host
    )


def _note(found: Reading, host: str, outcome: _Outcome) -> None:
    """Take up what came of reading a host."""
    if isinstance(outcome, exceptions.XapiError):
        found.unreadable[host] = outcome
        return
    uuid, pool = outcome
    found.pools.setdefault(pool.uuid, pool)
    found.uuids[host] = (uuid, pool.uuid)
