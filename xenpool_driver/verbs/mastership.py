# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Verbs that move the mastership: set master, promote."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing

from oslo_log import log

from xenpool_driver import (
    exceptions,
    operation,
    pool_states,
    reconcile,
    snapshot,
    store,
)
from xenpool_driver.preflight import master as master_rules
from xenpool_driver.verbs import common, ha, passwords, sight
from xenpool_driver.xapi import client
from xenpool_driver.xapi import passwords as xapi_passwords

LOG = log.getLogger(__name__)

Observation = reconcile.Observation

CALLED = ('designate', 'restart')
"""The phases of a change of master that stand for what XAPI was told."""

UNSETTLED = frozenset(
    {Observation.MOVING, Observation.MOVED_PARTLY, Observation.UNKNOWN}
)
"""What members show that have not all come to an end."""

BROKEN = 'HOST_BROKEN'
"""What a host says that took the role of master in part only."""


class Mastership(common.PoolVerb):
    """What set master and promote have in common: everybody must agree."""

    request: typing.ClassVar[str] = pool_states.SET_MASTER
    refused: typing.ClassVar[type[exceptions.InvalidAggregateAction]] = (
        exceptions.InvalidAggregateActionUpdate
    )
    goal = Observation.MOVED
    verdicts = frozenset(
        {
            Observation.NOT_MOVED,
            Observation.BROKEN,
            Observation.MOVED_PARTLY,
        }
    )
    patience = 30.0  # the call succeeds ten seconds before anything moves

    uuid = ''
    address = ''
    idle: collections.abc.Sequence[str] = ()  # disabled before, and after
    _serves = False
    _silent: collections.abc.Sequence[str] = ()
    _astray: collections.abc.Mapping[str, str] = types.MappingProxyType({})
    _unwell: collections.abc.Sequence[str] = ()
    _answers: collections.abc.Mapping[str, str] = types.MappingProxyType({})

    def prepare(self) -> None:
        """Refuse a host that is no member.

        :raises InvalidAggregateAction: it is not.
        """
        if self.host not in self.row.hosts:
            self.refuse(f"host '{self.host}' is not in the aggregate")
        self.uuid = self.row.metadata.get(self.host, '')
        if not self.uuid:
            self.refuse(
                f"host '{self.host}' was never seen to be a member; see: "
                f"xenpool aggregate audit"
            )

    def intent(self) -> dict[str, typing.Any]:
        return {
            'host_uuid': self.uuid,
            'address': self.address,
            'suspend_ha': self.suspend_ha,
            'idle': list(self.idle),
        }

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        self.uuid = details['host_uuid']
        self.address = details['address']
        self.suspend_ha = details['suspend_ha']
        self.idle = details.get('idle', ())

    def go_on(self, journal: operation.Journal) -> None:
        self.sign_in()
        super().go_on(journal)

    def sign_in(self) -> None:
        """Find out which password each member takes, before it is asked."""
        passwords.check(self.site, self.row, self.voters())

    def voters(self) -> list[str]:
        """Return the compute hosts that must agree in the end."""
        return sorted(common.members(self.row))

    def follows(self, host: str, view: str | None) -> bool:
        """Say whether a host names the new master.

        :param view: what it says.
        """
        if host == self.host:
            return view == ''
        return bool(view) and (
            view == self.address
            or self.site.connections.name_at(view or '') == self.host
        )

    def observe(self) -> reconcile.Observation:
        views = common.member_views(self.site, self.voters())
        self._serves = views.get(self.host) == ''
        self._silent = [host for host, view in views.items() if view is None]
        self._astray = {
            host: view
            for host, view in views.items()
            if view is not None and not self.follows(host, view)
        }
        present = [host for host in views if host not in self._silent]
        if self._serves and not self._astray and self._are_well(present):
            silent = bool(self._silent)
            return Observation.MOVED_PARTLY if silent else Observation.MOVED
        if all(view is None for view in views.values()):
            raise exceptions.XapiUnavailable('no member answers', self.name)
        if views[self.host] is None:
            code = self._refusal(self.host)
            if code == BROKEN:
                return Observation.BROKEN
            if code == xapi_passwords.REFUSED_CODE:
                # It restarted, and has the pool's root password since.
                passwords.check(self.site, self.row, [self.host])
        if views[self.host] and not self._still_busy():
            return Observation.NOT_MOVED
        return Observation.MOVING

    def is_broken(self, host: str) -> bool:
        """Say whether a host took the role of master in part only."""
        return self._refusal(host) == BROKEN

    def _refusal(self, host: str) -> str:
        """Return the code with which a host refuses us; '' for none."""
        patience = self.site.conf.xenpool.probe_timeout
        try:
            self.site.connections.client(host, patience)
        except exceptions.XapiError as error:
            return error.code
        return ''

    def _are_well(self, hosts: collections.abc.Iterable[str]) -> bool:
        """Say whether the new master shows itself and members at work.

        A member that was disabled before stays so.

        :param hosts: the members.
        """
        try:
            master = self.site.connections.client(self.host)
            records = {record.uuid: record for record in master.hosts()}
            serves = master.pool().master == records[self.uuid].ref
        except (exceptions.XapiError, KeyError):
            return False
        members = common.members(self.row)
        self._unwell = [
            host
            for host in hosts
            if (record := records.get(members[host])) is None
            or not record.live
            or not (record.enabled or record.uuid in self.idle)
        ]
        return serves and not self._unwell

    def _still_busy(self) -> bool:
        """Say whether the old master is still about to hand over."""
        return False

    def patience_with(self, seen: reconcile.Observation) -> float:
        if seen == Observation.MOVED_PARTLY:
            return operation.SIGHT
        return self.patience

    def remark(self, settlement: reconcile.Settlement) -> str:
        if not self._serves:
            return ''
        return f"the master has moved to {self.host}{self._left_out()}"

    def last_seen(self, seen: reconcile.Observation) -> str:
        if seen not in UNSETTLED:
            return ''
        self._answers = common.answers(self.site, self._silent)
        # Where the master has moved, the remark says so first.
        return '' if self._serves else ', '.join(self._laggards())

    def _left_out(self) -> str:
        """Say who does not follow the new master, or is not at work."""
        told = self._laggards()
        return f", but {', '.join(told)}" if told else ''

    def _laggards(self) -> list[str]:
        """Return, for each member that is not as it should be, how it is."""
        return [
            *(
                self._answers.get(host, f"{host} does not answer")
                for host in self._silent
            ),
            *(
                f"{host} takes {view or 'itself'} for the master"
                for host, view in self._astray.items()
            ),
            *(f"{host} is not live and enabled yet" for host in self._unwell),
        ]

    @property
    def timeout(self) -> float:
        return float(self.site.conf.xenpool.master_change_timeout)

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        if self._serves:
            return store.Changes(metadata={pool_states.MASTER: self.host})
        return store.Changes(metadata=self.master_correction())

    def afterwards(
        self, journal: operation.Journal, settlement: reconcile.Settlement
    ) -> None:
        self.forget_coordinator()
        if not self._serves:
            self._look_for_master()
        elif settlement.outcome == 'failed':
            self.counts = False  # what was asked for is done all the same

    def _look_for_master(self) -> None:
        """Find out who else is the master, for :meth:`end_changes`."""
        try:
            self.master()
        except exceptions.XapiError as error:
            LOG.warning('%s has no master that answers: %s', self.name, error)


class SetMaster(Mastership):
    """The mastership is handed over: ``pool.designate_new_master``."""

    kind = 'set-master'
    action = 'set_aggregate_master'

    _is_master = False

    def prepare(self) -> None:
        super().prepare()
        present = self.reached(self.master)
        master = present.door
        record = self.reached(lambda: master.host(self.uuid))
        if record is None:
            self.refuse(f"host '{self.host}' is not in the pool")
        self.address = record.address
        self.idle = [
            member.uuid
            for member in self.reached(master.hosts)
            if not member.enabled
        ]
        self._is_master = present.uuid == self.uuid
        if self._is_master:
            return
        others = [host for host in self.voters() if host != master.name]
        logins = passwords.check(self.site, self.row, others)
        seen = self.reached(lambda: self._called(master))
        report = master_rules.check(
            seen,
            self.uuid,
            suspend_ha=self.suspend_ha,
            unreachable=sight.absent(
                self.site, self.row, seen, master.name, max_age=0.0
            ),
            emergency=self._emergency(logins),
            designated_at=self._last_designated(),
            now=self.site.clock.time(),
        )
        # The new master must let us in: it will be the one to be asked.
        told = passwords.findings(logins, {self.host})
        report = dataclasses.replace(
            report, findings=(*report.findings, *told)
        )
        self.refuse_failures(report)
        passwords.tell(self.name, report.findings)

    def _called(self, master: client.Client) -> snapshot.PoolSnapshot:
        """Return the pool, with the names that our commands take."""
        seen = master.snapshot(*snapshot.MASTER_CLASSES, with_clock=False)
        return seen.called(sight.names(self.row), self.name)

    def _emergency(
        self, logins: collections.abc.Mapping[str, xapi_passwords.Login]
    ) -> str:
        """Return why the new master could not work as one, by its own word.

        :param logins: what came of logins to the members.
        :returns: the code of its emergency; '' when there is none, or when
            it does not say.
        """
        login = logins.get(self.host)
        if login is None or not login.works:
            return ''
        try:
            self.site.connections.local_client(self.host).assert_healthy()
        except exceptions.XapiError as error:
            return error.code
        return ''

    def _last_designated(self) -> float | None:
        """Return when a change of master last broke off half-way, or None.

        It is the moment when the call was made. The wait for what came of it
        may have ended long after. One that succeeded was seen to be complete
        on every member, and one that is undone was seen not to have begun.
        """
        return max(
            (
                line.at
                for past in self.site.store.list_operations(self.row.uuid)
                if past.kind == self.kind and past.outcome == 'failed'
                for line in self.site.store.phases(past.uuid)
                if line.phase in CALLED
            ),
            default=None,
        )

    def act(self, journal: operation.Journal) -> None:
        if self._is_master:
            journal.phase('observe', 'the master already')
            return
        ha.suspend(self, journal)
        conf = self.site.conf.xenpool
        journal.phase('designate')
        client.wait(
            self.changes(journal).designate(self.uuid),
            self.site.clock,
            self.timeout,
            conf.poll_interval,
            lambda fraction: journal.progress('designate', fraction),
        )
        journal.phase('restart', 'every toolstack of the pool restarts')
        for host in self.row.hosts:
            self.site.connections.invalidate(host)
        self.forget_coordinator()

    def _still_busy(self) -> bool:
        try:
            return client.pending(
                self.coordinator(), 'pool.designate_new_master'
            )
        except exceptions.XapiError:
            self.forget_coordinator()
            return True


class HandOver(SetMaster):
    """The same on the way to the removal of the present master.

    :param removal: what comes next; both are judged before the first begins.
    """

    action = 'remove_from_aggregate'
    refused = exceptions.InvalidAggregateActionDelete

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
        *,
        suspend_ha: bool = False,
        removal: operation.Verb | None = None,
    ) -> None:
        super().__init__(site, row, host, suspend_ha=suspend_ha)
        self._removal = removal

    def prepare(self) -> None:
        """Refuse what either step would be refused for.

        :raises InvalidAggregateActionDelete: it is; nothing happened.
        """
        super().prepare()
        if self._removal is not None:
            operation.refuse_early(self._removal)
            self._removal.prepare()
