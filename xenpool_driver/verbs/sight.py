# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Who answers at the addresses of hosts: asked for, then told apart."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses

from xenpool_driver import (
    exceptions,
    identity,
    objects,
    operation,
    pool_states,
    snapshot,
    store,
)
from xenpool_driver.verbs import common
from xenpool_driver.xapi import client

CLASSES = ('pool', 'host', 'host_metrics')
"""What of a pool tells who its members are."""


def known(
    row: store.Aggregate, pool: snapshot.PoolSnapshot | None
) -> identity.Known:
    """Return what is known of an aggregate's pool.

    :param pool: its pool, hosts and their metrics; None without a master.
    """
    return identity.Known(
        pool_uuid=row.metadata.get(pool_states.POOL_UUID) or '',
        members=common.members(row),
        pool=pool,
    )


def members(
    site: operation.Site,
    row: store.Aggregate,
    pool: snapshot.PoolSnapshot | None,
    master: str,
) -> dict[str, identity.Identified]:
    """Return who answers at the address of each member.

    All are asked at the same time. Nobody is waited for longer than
    ``probe_timeout``.

    :param pool: as for :func:`known`.
    :param master: the compute host name of the master, which has just shown
        what it serves; '' without one.
    """
    hosts = sorted(common.members(row))
    facts = known(row, pool)

    def look(host: str) -> identity.Identified:
        seen = _seen(site, host, host != master)
        return identity.tell(seen, facts, host)

    return dict(zip(hosts, at_once(look, hosts), strict=True))


def one(
    site: operation.Site,
    row: store.Aggregate,
    pool: snapshot.PoolSnapshot | None,
    host: str,
    uuid: str = '',
) -> identity.Identified:
    """Return who answers at the address of a host.

    :param pool: as for :func:`known`.
    :param uuid: its XenServer uuid, where the aggregate has none.
    """
    facts = known(row, pool)
    if uuid:
        facts = dataclasses.replace(
            facts, members={**facts.members, host: uuid}
        )
    return identity.tell(_seen(site, host), facts, host)


def _seen(
    site: operation.Site, host: str, read_own: bool = True
) -> identity.Sighting:
    try:
        return site.connections.sight(host, read_own)
    except exceptions.ConfigurationError as error:
        return identity.Sighting(code='NOT_CONFIGURED', reason=str(error))


@dataclasses.dataclass(frozen=True)
class Seen:
    """A pool as its master and all its members show it.

    :ivar door: the master.
    :ivar pool: its records.
    :ivar answers: who answers at the address of each member.
    """

    door: client.Client
    pool: snapshot.PoolSnapshot
    answers: collections.abc.Mapping[str, identity.Identified]


def led(
    site: operation.Site,
    row: store.Aggregate,
    found: client.Client,
    classes: collections.abc.Sequence[str] = CLASSES,
) -> Seen:
    """Return the pool of the master that most members follow.

    Whoever may follow a second master decides by this: the audit, and who
    puts back the stamp.

    :param found: the master that was found first.
    :param classes: what is read; :data:`CLASSES` at least.
    :raises XapiError: it cannot be read.
    """
    pool = found.snapshot(*classes)
    answers = members(site, row, pool, found.name)
    if rival := followed_more(row, pool, answers):
        found = site.connections.client(rival)
        pool = found.snapshot(*classes)
        answers = members(site, row, pool, found.name)
    return Seen(found, pool, answers)


def followed_more(
    row: store.Aggregate,
    pool: snapshot.PoolSnapshot,
    answers: collections.abc.Mapping[str, identity.Identified],
) -> str:
    """Return the second master of the pool that more members follow, or ''.

    :param pool: pool and hosts, from the master that was found first.
    :param answers: who answers at the address of each member.
    """
    leader = pool.coordinator.uuid if pool.coordinator else ''
    votes = identity.followers(names(row).get(leader, ''), answers)
    best = _challenger(answers)
    return best if best and identity.followers(best, answers) > votes else ''


def _challenger(
    answers: collections.abc.Mapping[str, identity.Identified],
) -> str:
    """Return the second master that most members follow, or ''."""
    return max(
        identity.by_who(answers, identity.Who.RIVAL),
        key=lambda host: identity.followers(host, answers),
        default='',
    )


@dataclasses.dataclass(frozen=True)
class Company:
    """What the members of a pool that a host shall join show.

    :ivar absent: ``{XenServer uuid: why}`` of those that do not answer, or
        at whose address somebody else does.
    :ivar rival: a second master of the pool that at least as many members
        follow as the master; '' without one.
    """

    absent: dict[str, str]
    rival: str = ''


def company(
    site: operation.Site,
    row: store.Aggregate,
    pool: snapshot.PoolSnapshot,
    master: str,
    max_age: float = common.RECENT,
) -> Company:
    """Return what the members of a pool show.

    :param pool: pool, hosts and their metrics, from the master.
    :param master: the compute host name of the master; it is not asked, as
        it has just answered.
    :param max_age: seconds that an earlier answer may be old.
    """
    members = common.members(row)
    hosts = sorted(host for host in members if host != master)
    views = common.member_views(site, hosts, max_age)
    reasons = {
        members[host]: 'it does not answer'
        for host, view in views.items()
        if view is None
    }
    leader = pool.coordinator.address if pool.coordinator else ''
    seen = {host: view for host, view in views.items() if view is not None}
    odd = [
        host
        for host, view in seen.items()
        if not identity.same_address(view, leader)
    ]
    found = dict(
        zip(
            odd,
            at_once(lambda host: one(site, row, pool, host), odd),
            strict=True,
        )
    )
    for host, who in found.items():
        if who.who is not identity.Who.MEMBER:
            reasons[members[host]] = f"it {identity.said(who)}"
    rival = _challenger(found)
    votes = len(seen) - len(odd)
    if rival and identity.followers(rival, found) < votes:
        rival = ''
    return Company(reasons, rival)


def absent(
    site: operation.Site,
    row: store.Aggregate,
    pool: snapshot.PoolSnapshot,
    master: str,
    max_age: float = common.RECENT,
) -> dict[str, str]:
    """Return ``{XenServer uuid: why}`` of the members that do not answer, or
    at whose address somebody else does.

    The parameters are those of :func:`company`.
    """
    return company(site, row, pool, master, max_age).absent


def at_once(
    look: collections.abc.Callable[[str], identity.Identified],
    hosts: collections.abc.Sequence[str],
) -> list[identity.Identified]:
    """Return what ``look`` returns for each host; all run at once."""
    if not hosts:
        return []
    with concurrent.futures.ThreadPoolExecutor(len(hosts)) as workers:
        return list(workers.map(look, hosts))


def names(
    row: store.Aggregate, placed: objects.Strings | None = None
) -> dict[str, str]:
    """Return ``{XenServer uuid: compute host name}``, for messages.

    :param placed: ``{compute host: XenServer uuid}`` of hosts that are not
        in the aggregate.
    """
    pairs = {**(placed or {}), **common.members(row)}
    return {uuid: host for host, uuid in pairs.items()}
