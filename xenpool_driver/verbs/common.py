# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the verbs share: the way to the coordinator, and small readings."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses
import logging
import shlex
import typing

from oslo_log import log

from xenpool_driver import (
    exceptions,
    identity,
    model,
    objects,
    operation,
    pool_states,
    reconcile,
    snapshot,
    store,
)
from xenpool_driver.reconcile import cases
from xenpool_driver.verbs import ha, stamps
from xenpool_driver.xapi import changes as xapi_changes
from xenpool_driver.xapi import client

LOG = log.getLogger(__name__)

typed = cases.typed
"""Return a command of ours, as it is typed into a shell."""


def members(row: store.Aggregate) -> dict[str, str]:
    """Return ``{compute host: XenServer uuid}`` of the declared members."""
    return pool_states.host_uuids(row.metadata, row.hosts)


def is_master(row: store.Aggregate, host: str) -> bool:
    """Say whether the aggregate takes ``host`` for its master."""
    return row.metadata.get(pool_states.MASTER) == host


def is_last(row: store.Aggregate, host: str) -> bool:
    """Say whether ``host`` is the only host of the aggregate."""
    return row.hosts == [host]


@dataclasses.dataclass(frozen=True)
class Master:
    """The host that is the pool's master now.

    :ivar door: the way to it.
    :ivar ref: its reference.
    :ivar uuid: its XenServer uuid.
    :ivar address: its address, as XAPI itself has it.
    :ivar stamp: uuid of the aggregate that owns its pool; '' for none.
    """

    door: client.Client
    ref: str
    uuid: str
    address: str
    stamp: str = ''


def find_master(
    site: operation.Site, row: store.Aggregate, quiet: bool = False
) -> Master:
    """Return the host that is the pool's master now.

    The master that was recorded is asked first; if it is gone or serves
    another pool, all members are asked at the same time. Nobody is waited
    for longer than ``probe_timeout``: a dead machine keeps silent for ever.

    :param quiet: whether to warn of nothing: who asks again and again has
        been warned.
    :raises XapiError: no member names a master that answers.
    """
    known: dict[str, str | None] = dict(members(row))
    pool_uuid = row.metadata.get(pool_states.POOL_UUID)
    master = row.metadata.get(pool_states.MASTER)
    patience = site.conf.xenpool.probe_timeout
    level = logging.DEBUG if quiet else logging.WARNING
    if master in known:
        try:
            found = site.connections.coordinator_of(master, patience, known)
            with found.within(patience):
                pool = found.pool()
        except (exceptions.XapiUnavailable, exceptions.NotPoolMaster) as error:
            LOG.log(level, 'The master of %s: %s', row.name, error)
        else:
            if pool.uuid == pool_uuid:
                return identified(found, pool)
            LOG.log(level, '%s serves another pool than %s', master, row.name)
    try:
        found = site.connections.find_coordinator(known, pool_uuid)
    except exceptions.XapiUnavailable as error:
        command = shlex.join(('xenpool', 'aggregate', 'audit', row.name))
        raise exceptions.XapiUnavailable(
            f"{error}; the way out is told by: {command}"
        ) from error
    return identified(found, found.pool())


def identified(door: client.Client, pool: objects.Pool) -> Master:
    """Say which member a master is."""
    member = door.record(pool.master) if pool.master else None
    if member is None:
        raise exceptions.XapiUnavailable('has no record of itself', door.name)
    address = member.address or door.address
    return Master(
        door, member.ref, member.uuid, address, stamps.stamp_of(pool)
    )


def storage_plugged(seen: snapshot.PoolSnapshot, ref: str) -> bool:
    """Say whether a member sees the shared storage that its master sees.

    :param seen: the pool with its SRs and PBDs.
    :param ref: the member's reference.
    """
    return seen.pool is not None and not unplugged(seen, ref)


def unplugged(seen: snapshot.PoolSnapshot, ref: str) -> list[str]:
    """Return the names of the shared storage that a member lacks.

    A starting member makes a PBD for each shared SR that the master has one
    for, unless the pool's ``sync_create_pbds`` says ``nosync``
    (``create_storage.ml``), and plugs them all.

    :param seen: the pool with its SRs and PBDs.
    :param ref: the member's reference.
    """
    pool = seen.pool
    if pool is None:
        return []
    shared = {
        ref for ref, sr in seen.srs.items() if sr.shared and not sr.is_tools_sr
    }
    pbds = [pbd for pbd in seen.pbds.values() if pbd.sr in shared]
    if pool.other_config.get('sync_create_pbds') == 'nosync':
        lacking = {
            pbd.sr
            for pbd in pbds
            if pbd.host == ref and not pbd.currently_attached
        }
        return sorted(seen.srs[sr].name for sr in lacking if sr)

    def attached(host: str | None) -> set[str | None]:
        return {
            pbd.sr
            for pbd in pbds
            if pbd.host == host and pbd.currently_attached
        }

    lacking = attached(pool.master) - attached(ref)
    return sorted(seen.srs[sr].name for sr in lacking if sr)


def member_views(
    site: operation.Site,
    hosts: collections.abc.Sequence[str],
    max_age: float = 0.0,
) -> dict[str, str | None]:
    """Return whom each host takes for its master; all are asked at once.

    :param hosts: compute host names.
    :param max_age: seconds that an earlier answer may be old.
    :returns: ``{compute host: address}``, ``''`` for itself, None for no
        answer.
    """

    def ask(host: str) -> str | None:
        try:
            return site.connections.member_view(host)
        except exceptions.XapiError:
            return None

    views = {
        host: site.connections.known_view(host, max_age) for host in hosts
    }
    unknown = [host for host, view in views.items() if view is None]
    if unknown:
        with concurrent.futures.ThreadPoolExecutor(len(unknown)) as pool:
            views.update(zip(unknown, pool.map(ask, unknown), strict=True))
    return views


def answered(site: operation.Site, host: str) -> str:
    """Return what a host answers now, as a sentence.

    Nobody is waited for longer than ``probe_timeout``.

    :param host: the compute host name.
    """
    try:
        seen = site.connections.sight(host, read_own=False)
    except exceptions.ConfigurationError as error:
        return str(error)
    return f"{host} {identity.words(seen)}"


def answers(
    site: operation.Site, hosts: collections.abc.Sequence[str]
) -> dict[str, str]:
    """Return what each host answers now; all are asked at once.

    :param hosts: compute host names.
    :returns: ``{compute host: what it answers, as a sentence}``.
    """
    if not hosts:
        return {}
    with concurrent.futures.ThreadPoolExecutor(len(hosts)) as pool:
        told = pool.map(lambda host: answered(site, host), hosts)
        return dict(zip(hosts, told, strict=True))


IN_FLIGHT = 30.0
"""Seconds after which a small change that nobody answered and that does not
show was not made."""

RECENT = 10.0
"""Seconds for which an answer of a member counts in a precheck: of the many
joins of one request, each would otherwise ask each member again."""


class PoolVerb(operation.Verb):
    """A verb that works through the pool's master.

    :param suspend_ha: switch HA off around the operation.
    """

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
        *,
        suspend_ha: bool = False,
    ) -> None:
        super().__init__(site, row, host)
        self.suspend_ha = suspend_ha
        self._master: Master | None = None
        self.has_acted = False  # a change was let pass

    @property
    def name(self) -> str:
        """The aggregate's name, for messages."""
        return self.row.name

    def master(self) -> Master:
        """Return the pool's master, looking for it when it is not known.

        :raises XapiError: it cannot be found.
        """
        if self._master is None:
            self._master = find_master(self.site, self.row)
        return self._master

    def coordinator(self) -> client.Client:
        """Return the way to the pool's master.

        :raises XapiError: it cannot be found.
        """
        return self.master().door

    def forget_coordinator(self) -> None:
        """Look for the master anew the next time."""
        self._master = None

    def refuse(self, reason: str) -> typing.NoReturn:
        """Refuse the request.

        :raises InvalidAggregateAction: always.
        """
        raise self.refused(self.name, reason)

    def refuse_failures(self, report: model.Report) -> None:
        """Refuse the request if the report holds failures.

        :raises InvalidAggregateAction: with the whole report.
        """
        if not report.failures:
            return
        reasons = '; '.join(finding.message for finding in report.failures)
        raise self.refused(self.name, reasons, report)

    def reached(
        self, look: collections.abc.Callable[[], typing.Any]
    ) -> typing.Any:
        """Return what ``look`` returns; refuse if XAPI cannot be reached.

        Each verb finds the pool's master in this way before it begins, so
        this is where a pool of another aggregate is refused.

        :param look: reads from XAPI.
        :raises InvalidAggregateAction: nobody answers, a login fails, or
            the stamp of the pool names another aggregate.
        """
        try:
            found = look()
        except exceptions.XapiError as error:
            self.forget_coordinator()
            raise self.refused(self.name, str(error)) from error
        if self._master is not None:
            self.refuse_foreign(self._master)
        return found

    def foreign(self, stamp: str) -> model.Finding | None:
        """Return what forbids to change a pool that another aggregate owns.

        :param stamp: what the pool carries.
        :returns: the failure; None where no other aggregate owns it.
        """
        return stamps.foreign(self.site, self.row, stamp, self.name)

    def refuse_foreign(self, master: Master) -> None:
        """Refuse the request if another aggregate owns the pool.

        :param master: the pool's master.
        :raises InvalidAggregateAction: one does.
        """
        finding = self.foreign(master.stamp)
        if finding is not None:
            report = model.Report(self.host or self.name, (finding,))
            self.refuse_failures(report)

    def changes(self, journal: operation.Journal) -> xapi_changes.PoolChanges:
        """Return what may be changed through the pool's master now.

        :raises PoolNotOurs: another aggregate owns the pool.
        :raises XapiError: the master cannot be asked.
        """
        self.assert_ours()
        return journal.changes(self.coordinator())

    def assert_ours(self, door: client.Client | None = None) -> None:
        """Read the stamp once more, at the last moment before a change.

        Another controller may have taken the pool over since the request
        was judged. A change that comes next counts as made.

        :param door: the way to the pool's master, where that is not
            :meth:`coordinator`.
        :raises PoolNotOurs: another aggregate owns the pool.
        :raises XapiError: the master cannot be asked.
        """
        pool = (door or self.coordinator()).pool()
        stamp = stamps.stamp_of(pool)
        finding = self.foreign(stamp)
        if finding is not None:
            raise exceptions.PoolNotOurs(
                f"{finding.message}; the way out, which touches no host: "
                f"{finding.remedy}"
            )
        self.has_acted = True

    def is_refusal(self, failure: exceptions.XapiError) -> bool:
        if isinstance(failure, exceptions.PoolNotOurs):
            return not self.has_acted
        return super().is_refusal(failure)

    def surely(
        self,
        journal: operation.Journal,
        change: collections.abc.Callable[[], None],
        shows: collections.abc.Callable[[], bool],
    ) -> None:
        """Make a small change that takes effect at once.

        A host that is not there for a moment is waited for. A change that
        was sent and not answered is not sent again: it is looked for.

        :param change: makes it.
        :param shows: says whether XAPI shows it.
        :raises XapiError: it cannot be made, or is not seen.
        """
        clock = self.site.clock
        deadline = clock.monotonic() + operation.SIGHT
        unanswered: exceptions.XapiOutcomeUnknown | None = None
        while True:
            journal.still_ours()
            try:
                if unanswered is None:
                    change()
                    return
                if shows():
                    return
                if clock.monotonic() >= deadline:
                    raise unanswered
            except exceptions.XapiOutcomeUnknown as error:
                if unanswered is not None:
                    raise
                LOG.warning('%s; looking for it', error)
                unanswered = error
                deadline = clock.monotonic() + IN_FLIGHT
            except exceptions.XapiUnavailable:
                self.forget_coordinator()
                if clock.monotonic() >= deadline:
                    raise
            clock.sleep(self.site.conf.xenpool.poll_interval)

    def put_back(self, journal: operation.Journal) -> None:
        ha.restore(self, journal)

    def master_correction(self) -> dict[str, str | None]:
        """Return the metadata change if the master has moved unasked.

        Asks nobody: it is called inside a transaction.
        """
        if self._master is None:
            return {}
        for host, known in members(self.row).items():
            if known == self._master.uuid and not is_master(self.row, host):
                LOG.warning(
                    'The master of %s is %s now, not %s',
                    self.name,
                    host,
                    self.row.metadata.get(pool_states.MASTER),
                )
                return {pool_states.MASTER: host}
        return {}

    def membership(
        self, settlement: reconcile.Settlement, uuid: str | None
    ) -> store.Changes:
        """Return the changes that make the aggregate agree with the pool.

        :param settlement: says whether the host is a member now.
        :param uuid: the XenServer uuid of the host, if it is known.
        """
        if settlement.member is False:
            return store.Changes(
                metadata={self.host: None}, remove_hosts=(self.host,)
            )
        metadata = {self.host: uuid} if uuid else {}
        return store.Changes(metadata=metadata)
