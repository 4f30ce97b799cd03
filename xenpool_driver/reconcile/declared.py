# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What an aggregate says of itself."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import typing

from xenpool_driver import model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """What an aggregate says of itself.

    :ivar uuid: its uuid.
    :ivar name: its name.
    :ivar hosts: the compute host names, in order of addition.
    :ivar uuids: ``{compute host: XenServer uuid}`` of those that have one.
    :ivar master: the compute host name of the master, or ''.
    :ivar pool_uuid: the uuid of the pool, or ''.
    :ivar state: its state, or ''.
    :ivar ha: how HA was (``sr_uuids``, ``configuration``, ``tolerance``)
        before it could not be switched on again; None where it is as it was.
    :ivar failed: how many requests in a row have failed.
    """

    uuid: str
    name: str
    hosts: tuple[str, ...]
    uuids: collections.abc.Mapping[str, str]
    master: str = ''
    pool_uuid: str = ''
    state: str = ''
    failed: int = 0
    ha: collections.abc.Mapping[str, typing.Any] | None = None

    @classmethod
    def of(cls, aggregate: model.AggregateLike) -> Declared:
        """Return what any aggregate of Nova's shape says."""
        metadata = aggregate.metadata
        return cls(
            uuid=aggregate.uuid,
            name=aggregate.name,
            hosts=tuple(aggregate.hosts),
            uuids={
                host: metadata[host]
                for host in aggregate.hosts
                if host in metadata
            },
            master=metadata.get(model.MASTER_KEY) or '',
            pool_uuid=metadata.get(model.POOL_UUID_KEY) or '',
            state=metadata.get(model.STATE_KEY) or '',
            ha=_ha(metadata.get(model.HA_KEY)),
            failed=int(metadata.get(model.FAILED_KEY) or 0),
        )

    def host_of(self, uuid: str) -> str | None:
        """Return the compute host name of a XenServer uuid."""
        for host, known in self.uuids.items():
            if known == uuid:
                return host
        return None


def _ha(text: str | None) -> collections.abc.Mapping[str, typing.Any] | None:
    """Return what the aggregate says of HA; nothing where it is no such."""
    try:
        found = json.loads(text or 'null')
    except ValueError:
        return None
    known = {'sr_uuids', 'configuration', 'tolerance'}
    return found if isinstance(found, dict) and known <= set(found) else None
