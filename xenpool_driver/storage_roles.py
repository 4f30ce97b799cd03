# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Which storage a pool and its hosts use by default, and what could be.

XAPI lets these fields point to storage that is gone: nothing sets them anew
when an eject or ``SR.forget`` takes it away. Pure.
"""

from __future__ import annotations

import collections.abc

from xenpool_driver import objects, snapshot

_Roles = collections.abc.Mapping[str, tuple[str, str]]

_POOL_ROLES: _Roles = {
    'default_sr': ('default SR', 'default-SR'),
    'suspend_image_sr': ('SR for suspend images', 'suspend-image-SR'),
    'crash_dump_sr': ('SR for crash dumps', 'crash-dump-SR'),
}
"""field of the pool -> (what it is, parameter of pool-param-set)"""

_HOST_ROLES: _Roles = {
    'suspend_image_sr': ('SR for suspend images', 'suspend-image-sr-uuid'),
    'crash_dump_sr': ('SR for crash dumps', 'crash-dump-sr-uuid'),
}
"""field of a host -> (what it is, parameter of host-param-set)"""


def pointers(
    pool: snapshot.PoolSnapshot,
    concerns: collections.abc.Callable[[str], bool],
) -> collections.abc.Iterator[
    tuple[objects.Record, str, collections.abc.Mapping[str, str]]
]:
    """Return what of a pool and its hosts points to some SRs.

    :param concerns: says of a reference whether it is one of them.
    :returns: (pool or host, how it is called, ``{what the SR is to it:
        parameter of xe that sets it}``).
    """
    owners: list[tuple[objects.Record, str, _Roles]] = [
        (host, f"the host {host.name}", _HOST_ROLES)
        for host in pool.hosts.values()
    ]
    if pool.pool is not None:
        owners.insert(0, (pool.pool, f"the pool {pool.name}", _POOL_ROLES))
    for owner, name, table in owners:
        found = {
            what: parameter
            for field, (what, parameter) in table.items()
            if (ref := getattr(owner, field)) and concerns(ref)
        }
        if found:
            yield owner, name, found


def pointing(
    owner: objects.Record,
    parameters: collections.abc.Iterable[str],
    target: objects.Storage | None,
) -> str:
    """Return what to type to let a pool or a host point to other storage.

    :param owner: the pool or the host.
    :param parameters: that the command for the owner takes.
    :param target: the storage; None: to none.
    """
    command = 'pool' if isinstance(owner, objects.Pool) else 'host'
    value = target.uuid if target else ''
    return ' '.join(
        [
            f"xe {command}-param-set uuid={owner.uuid}",
            *(f"{parameter}={value}" for parameter in parameters),
        ]
    )


def refuge(
    pool: snapshot.PoolSnapshot, leaving: str = '', size: int = 0
) -> objects.Storage | None:
    """Return shared storage for what needs another place, if there is any.

    :param pool: the pool's records.
    :param leaving: reference of the host that leaves; '' when none does.
    :param size: bytes that it must have space for.
    """
    for sr in pool.srs.values():
        stays = any(
            pbd.host != leaving and pbd.currently_attached
            for pbd in pool.pbds_of_sr(sr)
        )
        if not (sr.shared and stays) or sr.is_tools_sr or sr.type == 'iso':
            continue
        if sr.content_type == 'iso':
            continue
        if sr.physical_size <= 0 or (
            sr.physical_size - sr.physical_utilisation >= size
        ):
            return sr
    return None
