# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Who answers at the address of a host. Pure.

An address proves nothing: the machine behind it may have been installed anew,
may be a copy of another one, or may have changed its pool. Nor does a pool's
uuid: a second master, a restored database and a copied disk have the same.
What decides is the host's uuid, the pool that it serves or names, and what the
pool's master knows of that uuid: whether it lists it, at which address, and
alive or dead.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import ipaddress

from xenpool_driver import objects, snapshot


class Who(enum.StrEnum):
    """What answers."""

    MEMBER = 'the member'
    LEFT = 'the member, which serves a pool of its own'
    """The host uuid is that of the member. The host was ejected, or its
    installation was restored from the time before its join."""
    LOST = 'a host that the pool does not know, and that names its master'
    """Its record was destroyed, or a join of it never reached the master."""
    ANEW = 'the same machine, installed anew'
    COPY = 'a copy of a member'
    """It has the host uuid of a member that lives at another address."""
    RIVAL = 'the master of a second pool with the same uuid'
    STRANGER = 'a host of another pool'
    ALONE = 'a host of its own'
    STARTING = 'a host that is starting'
    LOCKED = 'a host that does not let us in'
    NOBODY = 'nobody'


STARTING_CODES = frozenset(
    {
        'HOST_STILL_BOOTING',
        'HOST_HAS_NO_MANAGEMENT_IP',
        'HOST_UNKNOWN_TO_MASTER',
        'HOST_ITS_OWN_SLAVE',
        'HOST_MASTER_CANNOT_TALK_BACK',
        'HOST_BROKEN',
    }
)
"""Codes of a toolstack in emergency mode (``xapi_pool_transition.ml``)."""

GONE = frozenset({Who.LEFT, Who.ANEW, Who.STRANGER, Who.NOBODY})
"""Who answers where a member's record may be forgotten: not the member, and
nobody who takes itself for one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one login to the address of a host showed.

    :ivar master: the address that it names as its master, '' when it is a
        master itself, None when it told neither.
    :ivar named: the compute host whose address that is, or ''.
    :ivar code: XAPI's error code, where it refused; else ''.
    :ivar reason: why it told nothing, in words.
    :ivar untrusted: whether it showed a certificate that is not trusted.
    :ivar own: pool and hosts that it serves as a master; None where that
        was not read.
    """

    master: str | None = None
    named: str = ''
    code: str = ''
    reason: str = ''
    untrusted: bool = False
    own: snapshot.PoolSnapshot | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a pool, to tell its members by.

    :ivar pool_uuid: its uuid, or ''.
    :ivar members: ``{compute host: XenServer uuid}``.
    :ivar pool: pool, hosts and their metrics, from the master; None when no
        master is found.
    """

    pool_uuid: str = ''
    members: objects.Strings = dataclasses.field(default_factory=dict)
    pool: snapshot.PoolSnapshot | None = None

    def record(self, uuid: str) -> objects.Host | None:
        """Return the pool's record of a host uuid."""
        return self.pool.host_by_uuid(uuid) if self.pool and uuid else None

    def is_live(self, record: objects.Host | None) -> bool | None:
        """Say whether the pool's master takes a host for alive."""
        return self.pool.is_live(record) if self.pool and record else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identified:
    """Who answers at the address of a host.

    :ivar who: who it is.
    :ivar uuid: the host uuid of what answers; '' where it is not seen.
    :ivar record: the pool's record that is meant: of the member, or of the
        one that has the same uuid.
    :ivar others: for :attr:`Who.RIVAL` and :attr:`Who.STRANGER`, the other
        hosts that it serves, by name.
    :ivar seen: what it answered.
    """

    who: Who
    seen: Sighting
    uuid: str = ''
    record: objects.Host | None = None
    others: tuple[str, ...] = ()


def tell(seen: Sighting, known: Known, host: str = '') -> Identified:
    """Return who answers.

    :param seen: what a login showed.
    :param known: what is known of the pool.
    :param host: the compute host name, where it is a member's.
    """
    uuid = known.members.get(host, '')
    record = known.record(uuid)
    if seen.master is None:
        return Identified(who=_silent(seen), seen=seen, record=record)
    if seen.master:
        return _named(seen, known, uuid)
    if seen.own is None or seen.own.coordinator is None:
        return Identified(who=Who.MEMBER, seen=seen, uuid=uuid, record=record)
    return _served(seen, seen.own, known, uuid)


def tell_records(
    own: snapshot.PoolSnapshot, pool: snapshot.PoolSnapshot
) -> Identified:
    """Return who the master of one pool is to another pool.

    :param own: the records that it serves.
    :param pool: the records of the pool that it is compared with.
    """
    known = Known(pool_uuid=pool.pool.uuid if pool.pool else '', pool=pool)
    return _served(Sighting(master='', own=own), own, known, '')


def _silent(seen: Sighting) -> Who:
    """Say who it is that told nothing of its pool."""
    if seen.code in STARTING_CODES:
        return Who.STARTING
    return Who.LOCKED if seen.code or seen.untrusted else Who.NOBODY


def _named(seen: Sighting, known: Known, uuid: str) -> Identified:
    """Say who a member of some pool is; its own uuid is not to be seen."""
    record = known.record(uuid)
    if record and known.is_live(record) is not False:
        # Whom the master hears has the pool's secret, whomever it names.
        return Identified(who=Who.MEMBER, seen=seen, uuid=uuid, record=record)
    if not names_us(seen, known):
        return Identified(who=Who.STRANGER, seen=seen, record=record)
    if known.pool is None:
        return Identified(who=Who.MEMBER, seen=seen, uuid=uuid)
    successor = _at_the_same_address(known, record)
    if successor is not None:
        return Identified(
            who=Who.ANEW, seen=seen, uuid=successor.uuid, record=record
        )
    who = Who.LOST if record is None else Who.MEMBER
    return Identified(who=who, seen=seen, uuid=uuid, record=record)


def names_us(seen: Sighting, known: Known) -> bool:
    """Say whether the master that is named is, or was, ours."""
    if seen.named in known.members:
        return True
    master = known.pool.coordinator if known.pool else None
    return master is not None and same_address(
        master.address, seen.master or ''
    )


def _at_the_same_address(
    known: Known, old: objects.Host | None
) -> objects.Host | None:
    """Return the living member that has the address of a dead record."""
    if known.pool is None or old is None:
        return None
    for record in known.pool.hosts.values():
        if (
            record.uuid != old.uuid
            and same_address(record.address, old.address)
            and known.is_live(record)
        ):
            return record
    return None


def _served(
    seen: Sighting, own: snapshot.PoolSnapshot, known: Known, uuid: str
) -> Identified:
    """Say who the master of a pool is.

    :param own: the pool that it serves.
    :param uuid: the host uuid of the member that should answer, or ''.
    """
    me = own.coordinator
    if me is None or own.pool is None:
        return Identified(who=Who.LOCKED, seen=seen)
    record = known.record(me.uuid)
    others = tuple(
        host.name for host in own.hosts.values() if host.uuid != me.uuid
    )
    return Identified(
        who=_who_serves(own, me, known, uuid),
        seen=seen,
        uuid=me.uuid,
        record=record or known.record(uuid),
        others=others,
    )


def _who_serves(
    own: snapshot.PoolSnapshot,
    me: objects.Host,
    known: Known,
    uuid: str,
) -> Who:
    """Say who the master of a pool is, by what distinguishes it first."""
    same_pool = own.pool is not None and own.pool.uuid == known.pool_uuid
    record = known.record(me.uuid)
    if record and _lives_elsewhere(known, record, me):
        return Who.COPY
    master = known.pool.coordinator if known.pool else None
    if same_pool and master is not None and master.uuid == me.uuid:
        return Who.MEMBER
    alone = len(own.hosts) == 1
    if same_pool and (not alone or record is not None or uuid == me.uuid):
        return Who.RIVAL if known.pool else Who.MEMBER
    if not alone:
        return Who.STRANGER
    if record is not None or uuid == me.uuid:
        return Who.LEFT
    return Who.ANEW if uuid else Who.ALONE


def _lives_elsewhere(
    known: Known, record: objects.Host, me: objects.Host
) -> bool:
    """Say whether the member with this uuid is another machine.

    Both tell their own address. The master's own record is alive by itself.
    A host that was ejected has no address before its first boot.
    """
    master = known.pool.coordinator if known.pool else None
    alive = known.is_live(record) or (
        master is not None and master.ref == record.ref
    )
    return (
        bool(alive)
        and bool(me.address)
        and not same_address(record.address, me.address)
    )


def same_address(one: str, other: str) -> bool:
    """Say whether two addresses, written anyhow, are the same."""
    return one == other or normal(one) == normal(other)


def normal(address: str) -> str:
    """Return the one spelling of an address; of a name, lower case."""
    try:
        return str(ipaddress.ip_address(address.strip('[]')))
    except ValueError:
        return address.lower().rstrip('.')


def answer(found: Identified) -> str:
    """Return in a few words what was answered, for a sentence."""
    seen = found.seen
    if seen.master:
        return f"is a member of a pool whose master is at {seen.master}"
    if seen.master == '':
        return 'is a master'
    return seen.reason or seen.code or 'does not answer'


def said(found: Identified) -> str:
    """Return who answers, as the rest of a sentence about the host."""
    return _SAID[found.who](found)


_Words = collections.abc.Callable[[Identified], str]

_SAID: collections.abc.Mapping[Who, _Words] = {
    Who.MEMBER: lambda found: 'answers, so it is not dead',
    Who.LEFT: lambda found: 'serves a pool of its own already',
    Who.LOST: lambda found: 'is not known to the pool any more',
    Who.ANEW: lambda found: (
        f"was installed anew: the host that answers there is {found.uuid}"
    ),
    Who.COPY: lambda found: (
        'is not what answers at its address: that is a copy of it'
    ),
    Who.RIVAL: lambda found: (
        'is the master of a second copy of this pool'
        + (f", with {', '.join(found.others)}" if found.others else '')
    ),
    Who.STRANGER: lambda found: f"{answer(found)}, which is another pool",
    Who.ALONE: lambda found: 'serves a pool of its own already',
    Who.STARTING: lambda found: (
        f"answers {found.seen.code}: its toolstack is starting, or looks for "
        f"its master"
    ),
    Who.LOCKED: lambda found: f"does not let us in: {answer(found)}",
    Who.NOBODY: lambda found: f"does not answer ({answer(found)})",
}
"""What is said of each."""


def words(seen: Sighting) -> str:
    """Return what a host answered, as the rest of a sentence about it."""
    if seen.master:
        return f"names {seen.master} as its master"
    if seen.master == '':
        return 'answers as a master'
    if seen.untrusted:
        return f"does not let us in: {seen.reason}"
    if seen.code:
        return f"answers {seen.code}"
    return 'does not answer' + (f" ({seen.reason})" if seen.reason else '')


def followers(
    host: str, answers: collections.abc.Mapping[str, Identified]
) -> int:
    """Return how many members name a host as their master.

    Of two masters of one pool that one is the pool's which more members
    follow. Where as many follow the one as the other, nobody can tell.

    :param host: the compute host name of the master.
    :param answers: who answers at the address of each member.
    """
    named = [one.seen.named for one in answers.values()]
    return named.count(host) if host else 0


def by_who(
    found: collections.abc.Mapping[str, Identified], *whos: Who
) -> list[str]:
    """Return the hosts at whose address one of ``whos`` answers."""
    return [host for host, one in found.items() if one.who in whos]
