# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What of an aggregate must change for it to be true; XAPI is not touched."""

from __future__ import annotations

import collections.abc
import dataclasses

from xenpool_driver import model, objects, snapshot
from xenpool_driver.reconcile import declared as declarations


@dataclasses.dataclass(frozen=True)
class Fixes:
    """What must change.

    :ivar metadata: keys and their values; None deletes a key.
    :ivar add_hosts: members of the pool that the aggregate does not list.
    :ivar remove_hosts: hosts that are no members of the pool.
    :ivar told: the same for a reader, a line each.
    """

    metadata: collections.abc.Mapping[str, str | None] = dataclasses.field(
        default_factory=dict
    )
    add_hosts: tuple[str, ...] = ()
    remove_hosts: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.told)


def fixes(
    declared: declarations.Declared,
    pool: snapshot.PoolSnapshot,
    placed: collections.abc.Mapping[str, str] | None = None,
) -> Fixes:
    """Return what must change for the aggregate to be true.

    A pool that does not carry our stamp is not ours to believe: all that it
    proves is that hosts which were never seen to be members are none.

    :param declared: what the aggregate says.
    :param pool: the records of its pool; of one that has no pool yet, the
        records of what its first host belongs to.
    :param placed: ``{compute host: XenServer uuid}`` of the members of the
        pool whose address the configuration knows.
    """
    if pool.pool is None or pool.coordinator is None:
        return Fixes()
    if pool.pool.other_config.get(model.OWNER_KEY) == declared.uuid:
        return _Fixing(declared).follow(pool, placed or {})
    if not declared.uuids and not declared.pool_uuid:
        return _Fixing(declared).give_up()
    return Fixes()


def master_fix(
    declared: declarations.Declared, pool: snapshot.PoolSnapshot
) -> Fixes:
    """Return what must change for the master alone to be true.

    :param declared: what the aggregate says.
    :param pool: pool and hosts of its pool; another pool proves nothing.
    """
    if pool.pool is None or pool.pool.uuid != declared.pool_uuid:
        return Fixes()
    if pool.pool.other_config.get(model.OWNER_KEY) != declared.uuid:
        return Fixes()
    return _Fixing(declared).follow_master(pool)


class _Fixing:
    """The aggregate, as it becomes true step by step.

    :param declared: what it says.
    """

    def __init__(self, declared: declarations.Declared) -> None:
        self._declared = declared
        self._uuids = dict(declared.uuids)
        self._metadata: dict[str, str | None] = {}
        self._added: list[str] = []
        self._removed: list[str] = []
        self._told: list[str] = []

    def follow(
        self,
        pool: snapshot.PoolSnapshot,
        placed: collections.abc.Mapping[str, str],
    ) -> Fixes:
        """Say what the pool says."""
        for host in self._declared.hosts:
            self._follow_host(host, pool, placed)
        known = set(self._uuids.values())
        for host, uuid in placed.items():
            if uuid not in known and not _is_residue(pool, uuid):
                self._added.append(host)
                self._record(host, uuid, 'is added: the pool has it')
        self._follow_master(pool)
        self._follow_uuid(pool)
        self._follow_ha(pool)
        return self._done()

    def follow_master(self, pool: snapshot.PoolSnapshot) -> Fixes:
        """Say who is the master, and nothing else."""
        self._follow_master(pool)
        return self._done()

    def _follow_host(
        self,
        host: str,
        pool: snapshot.PoolSnapshot,
        placed: collections.abc.Mapping[str, str],
    ) -> None:
        uuid = self._uuids.get(host)
        if uuid is None and host in placed:
            self._record(host, placed[host], 'is a member, which is recorded')
        elif uuid is None or pool.host_by_uuid(uuid) is None:
            self._remove(host)

    def _follow_master(self, pool: snapshot.PoolSnapshot) -> None:
        if pool.coordinator is None:
            return
        master = self._host_of(pool.coordinator)
        if master is not None and master != self._declared.master:
            self._metadata[model.MASTER_KEY] = master
            self._told.append(f"'{master}' is recorded as the master")

    def _follow_uuid(self, pool: snapshot.PoolSnapshot) -> None:
        if pool.pool and pool.pool.uuid != self._declared.pool_uuid:
            self._metadata[model.POOL_UUID_KEY] = pool.pool.uuid
            self._told.append(f"the pool is recorded as {pool.pool.uuid}")

    def _follow_ha(self, pool: snapshot.PoolSnapshot) -> None:
        saved = self._declared.ha
        if saved is None or pool.pool is None or not pool.pool.ha_enabled:
            return
        if pool.pool.ha_host_failures_to_tolerate == saved['tolerance']:
            self._metadata[model.HA_KEY] = None
            self._told.append('HA is on again as it was, which is recorded')

    def give_up(self) -> Fixes:
        """Have no hosts: the pool was never set up."""
        for host in self._declared.hosts:
            self._remove(host)
        return self._done()

    def _host_of(self, record: objects.Host) -> str | None:
        for host, uuid in self._uuids.items():
            if uuid == record.uuid:
                return host
        return None

    def _record(self, host: str, uuid: str, why: str) -> None:
        self._uuids[host] = self._metadata[host] = uuid
        self._told.append(f"'{host}' {why}")

    def _remove(self, host: str) -> None:
        self._removed.append(host)
        if self._uuids.pop(host, None) is not None:
            self._metadata[host] = None
        self._told.append(f"'{host}' is removed: it is not in the pool")

    def _done(self) -> Fixes:
        return Fixes(
            self._metadata,
            tuple(self._added),
            tuple(self._removed),
            tuple(self._told),
        )


def _is_residue(pool: snapshot.PoolSnapshot, uuid: str) -> bool:
    """Say whether a record is what a failed join left behind."""
    record = pool.host_by_uuid(uuid)
    return (
        record is not None
        and not record.enabled
        and pool.is_live(record) is False
    )
