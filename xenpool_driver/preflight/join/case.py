# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a judgement about a join is based on."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import re
import typing

from xenpool_driver import identity, objects, snapshot
from xenpool_driver.preflight import check


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveFacts:
    """What no record shows, found out by asking; None: nobody asked.

    :ivar pool_login: what a login at the address that will be handed over,
        with the credentials that will be handed over, was answered: ``()``
        when it worked, else (code, params...).
    :ivar joiner_login: the same for the joiner.
    :ivar answering_uuid: the uuid of the host that answers at that address.
    :ivar edition_orders: ``{edition: rank}`` as the joiner's licence daemon
        knows them.
    :ivar unreachable: ``{uuid of a member: why it does not answer}``; empty
        when all of them answer.
    """

    pool_login: tuple[str, ...] | None = None
    joiner_login: tuple[str, ...] | None = None
    answering_uuid: str | None = None
    edition_orders: collections.abc.Mapping[str, int] | None = None
    unreachable: collections.abc.Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class JoinCase:
    """A host that shall join a pool.

    :ivar joiner: the joiner's records.
    :ivar pool: the records of the pool, from its coordinator.
    :ivar force: whether ``join_force`` will be called.
    :ivar aggregate_uuid: the aggregate that the host is added to, if any.
    :ivar batch: the other joiners of the same request.
    :ivar joining: uuids of hosts whose join is under way.
    :ivar address: the address that will be handed over, when it is known.
    :ivar now: seconds since 1970, or None.
    :ivar live: what was asked live.
    :ivar former: the host uuid that the aggregate has for the joiner, if it
        has one.
    :ivar owners: ``{aggregate uuid: its name}``, as far as they are known.
    """

    joiner: snapshot.PoolSnapshot
    pool: snapshot.PoolSnapshot
    force: bool = False
    aggregate_uuid: str | None = None
    batch: tuple[snapshot.PoolSnapshot, ...] = ()
    joining: frozenset[str] = frozenset()
    address: str | None = None
    now: float | None = None
    live: LiveFacts = dataclasses.field(default_factory=LiveFacts)
    former: str = ''
    owners: objects.Strings = dataclasses.field(default_factory=dict)

    def lacks(self, need: str) -> str | None:
        """Say why ``joiner.class`` or ``pool.class`` is not known."""
        side, _, cls = need.partition('.')
        records = self.joiner if side == 'joiner' else self.pool
        return records.lacks(cls)

    def asks(self, since: tuple[int, ...] | None, sign: str) -> bool:
        """Say whether the joiner's toolstack knows a rule; it is who asks.

        :param since: the version that knows it first.
        :param sign: ``class.field`` that such versions have. It decides
            where the version does not tell: some builds say 0.0.
        """
        host, pool = self.joiner.coordinator, self.joiner.pool
        if since is None or host is None or pool is None:
            return True
        version = _numbers(host.software_version.get('xapi_build', ''))
        if version[:2] > (0, 0):
            return version >= since
        cls, _, field = sign.partition('.')
        return field in (host.fields if cls == 'host' else pool.fields)

    @property
    def me(self) -> objects.Host:
        """The joiner's own host record (XAPI's ``get_localhost``)."""
        return _present(self.joiner.coordinator)

    @property
    def master(self) -> objects.Host:
        """The host record of the pool's coordinator."""
        return _present(self.pool.coordinator)

    @functools.cached_property
    def joiner_is(self) -> identity.Identified:
        """Who the joiner is to the pool."""
        return identity.tell_records(self.joiner, self.pool)

    @functools.cached_property
    def old_record(self) -> objects.Host | None:
        """The pool's record of an installation that the joiner replaces.

        No two hosts have one address: a dead record with the joiner's, or
        the one that the aggregate has for it, is of an older installation.
        The master takes a host for alive until it has been silent for ten
        minutes (``xapi_globs.ml``, ``host_assume_dead_interval``), so where
        no member was asked, the record of one that is alive may be it, too.
        """
        for host in self.pool.hosts.values():
            if host.uuid == self.me.uuid or not host.address:
                continue
            if identity.same_address(host.address, self.me.address) and (
                host.uuid == self.former
                or self.pool.is_live(host) is False
                or self._may_be_older(host)
            ):
                return host
        return None

    def _may_be_older(self, host: objects.Host) -> bool:
        """Say whether nobody asked what answers at a member's address."""
        return self.live.unreachable is None and (
            host is not self.pool.coordinator
        )

    @property
    def members(self) -> tuple[objects.Host, ...]:
        """The members of the pool that stay beside the joiner: all but the
        record of the installation that it replaces."""
        old = self.old_record
        return tuple(
            host for host in self.pool.hosts.values() if host is not old
        )

    @property
    def neighbours(self) -> tuple[objects.Host, ...]:
        """The hosts that must differ from the joiner: members, and those of
        the same request."""
        coming = [h for one in self.batch for h in one.hosts.values()]
        return tuple(
            host
            for host in (*self.members, *coming)
            if host.uuid != self.me.uuid
        )

    @property
    def my_pool(self) -> objects.Pool:
        """The joiner's pool record."""
        return _present(self.joiner.pool)

    @property
    def their_pool(self) -> objects.Pool:
        """The record of the pool to join."""
        return _present(self.pool.pool)


_T = typing.TypeVar("_T")


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version such as 26.4.0-1."""
    found = re.match('[0-9.]*', version)
    text = found.group() if found else ''
    return tuple(int(part) for part in text.split('.') if part)[:3]


def _present(record: _T | None) -> _T:
    if record is None:
        raise LookupError('a check does not declare what it needs')
    return record


Check = check.Check[JoinCase]

ME = ('joiner.pool', 'joiner.host')
"""Needed to know the joiner's own host record."""

MASTER = ('pool.pool', 'pool.host')
"""Needed to know the host record of the pool's coordinator."""
