# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Whether the master of a pool is gone, by what its members and it say.

Members of a dead master name it for ever, and so does the member that shall
be promoted. A master is taken for dead when most members say so. Of a pool of
two nobody is left to agree; there, a person says that the master is off, and
whatever can contradict is asked.
"""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses
import shlex

from oslo_log import log

from xenpool_driver import exceptions, operation, store
from xenpool_driver.verbs import common

LOG = log.getLogger(__name__)

DATABASE_SILENCE = 20.0
"""Seconds for which a member must not answer a call that needs the pool's
database. A member passes such a call on to its master. While that is dead the
call hangs (recorded)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vote:
    """What the members say.

    :ivar members: all of them, by compute host name.
    :ivar agreeing: those that answer to a login of their own and name the
        same dead master, or took its role in part only.
    :ivar able: those that answer to a login of their own, the dead master
        left out.
    :ivar dead: the address that they name.
    :ivar broken: whether a change of master broke off half-way, so that
        nobody is dead.
    """

    members: tuple[str, ...]
    agreeing: tuple[str, ...]
    able: tuple[str, ...]
    dead: str
    broken: bool


def ask(
    site: operation.Site,
    row: store.Aggregate,
    is_broken: collections.abc.Callable[[str], bool],
) -> Vote:
    """Ask every member for its master.

    After a change of master that broke off half-way nobody is dead, and
    members name whom they happen to: it is enough that most are there.

    :param is_broken: says whether a host took the role of master in part.
    """
    members = sorted(common.members(row))
    views = common.member_views(site, members)
    broken = [
        host
        for host, view in views.items()
        if view is None and is_broken(host)
    ]
    named = [view for view in views.values() if view]
    dead = max(set(named), key=named.count) if named else ''
    gone = '' if broken else site.connections.name_at(dead) or ''
    voters = [
        host
        for host, view in views.items()
        if (view and (broken or view == dead)) or host in broken
    ]
    others = [host for host in members if host != gone]
    able = who_answers(site, others)
    return Vote(
        members=tuple(members),
        agreeing=tuple(host for host in voters if host in able),
        able=tuple(able),
        dead=dead,
        broken=bool(broken),
    )


def who_answers(
    site: operation.Site, hosts: collections.abc.Sequence[str]
) -> list[str]:
    """Return the hosts that a login to themselves proves to be there."""

    def answers(host: str) -> bool:
        try:
            with_host = site.connections.local_client(host)
            with_host.is_in_emergency_mode()
        except exceptions.XapiError as error:
            LOG.warning('%s has no say: %s', host, error)
            return False
        return True

    if not hosts:
        return []
    with concurrent.futures.ThreadPoolExecutor(len(hosts)) as pool:
        found = zip(hosts, pool.map(answers, hosts), strict=True)
        return [host for host, there in found if there]


def objection(
    vote: Vote, row: store.Aggregate, host: str, master_is_off: bool
) -> str:
    """Return why the vote does not let a host be promoted; '' if it does.

    :param host: the one that shall be promoted.
    :param master_is_off: a person has switched the master off: only those
        that can vote are counted.
    """
    voters = vote.able if master_is_off else vote.members
    if not vote.agreeing or len(vote.agreeing) * 2 <= len(voters):
        silent = sorted(set(vote.members) - set(vote.agreeing))
        told = (
            f"no majority: {len(vote.agreeing)} of {len(voters)} members "
            f"answer and name the same dead master; these do not: "
            f"{', '.join(silent) or 'none'}"
        )
        if master_is_off or host not in vote.agreeing:
            return told
        return (
            f"{told}; if the master at {vote.dead} is switched off: "
            f"xenpool aggregate recover {shlex.quote(row.name)} --promote "
            f"{host} --the-master-is-off"
        )
    if host not in vote.agreeing:
        return f"host '{host}' does not name {vote.dead} as its master"
    return ''


def who_has_a_database(
    site: operation.Site, hosts: collections.abc.Sequence[str]
) -> list[str]:
    """Return the members whose master is alive, whoever it is.

    Each is asked for what only the pool's database knows, over a login to
    itself. Nothing else tells: without a master, too, a member says that it
    is no emergency and that all is well (recorded).
    """

    def reads(host: str) -> bool:
        try:
            door = site.connections.local_client(host)
            door.read('pool.get_all', timeout=DATABASE_SILENCE)
        except exceptions.XapiError as error:
            LOG.debug('%s: %s', host, error)
            return False
        return True

    if not hosts:
        return []
    with concurrent.futures.ThreadPoolExecutor(len(hosts)) as pool:
        found = zip(hosts, pool.map(reads, hosts), strict=True)
        return [host for host, there in found if there]
