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
    identity,
    model,
    operation,
    pool_states,
    reconcile,
    snapshot,
    store,
)
from xenpool_driver.preflight import master as master_rules
from xenpool_driver.verbs import common, ha, passwords, sight, voting
from xenpool_driver.xapi import client
from xenpool_driver.xapi import passwords as xapi_passwords

LOG = log.getLogger(__name__)

Observation = reconcile.Observation

CALLED = ('designate', 'restart')
"""The phases of a change of master that stand for what XAPI was told."""

BROKEN = 'HOST_BROKEN'
"""What a host says that took the role of master in part only."""

SILENCE = 30.0
"""Seconds for which a master must keep silent to count as dead: its
toolstack may only be restarting."""


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

    def _left_out(self) -> str:
        """Say who does not follow the new master, or is not at work."""
        told = [
            *(f"{host} does not answer" for host in self._silent),
            *(
                f"{host} takes {view or 'itself'} for the master"
                for host, view in self._astray.items()
            ),
            *(f"{host} is not live and enabled yet" for host in self._unwell),
        ]
        return f", but {', '.join(told)}" if told else ''

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
        report = self.reached(
            lambda: master_rules.check(
                master.snapshot(*snapshot.MASTER_CLASSES, with_clock=False),
                self.uuid,
                suspend_ha=self.suspend_ha,
                unreachable=common.unreachable(
                    self.site, self.row, master, max_age=0.0
                ),
                emergency=self._emergency(logins),
                designated_at=self._last_designated(),
                now=self.site.clock.time(),
            )
        )
        # The new master must let us in: it will be the one to be asked.
        told = passwords.findings(self.row, logins, {self.host})
        report = dataclasses.replace(
            report, findings=(*report.findings, *told)
        )
        self.refuse_failures(report)
        passwords.tell(self.name, report.findings)

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
            journal.changes(self.coordinator()).designate(self.uuid),
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


class Promote(Mastership):
    """The master is dead: a member takes over, because a person says so."""

    kind = 'promote'
    request = pool_states.RECOVER  # an error must not strand the pool
    action = 'recover_aggregate'
    refusals = frozenset({'HA_IS_ENABLED'})  # HA elects a master itself

    dead = ''
    absent: collections.abc.Sequence[str] = ()  # could not vote

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
        *,
        master_is_off: bool = False,
    ) -> None:
        super().__init__(site, row, host)
        self.master_is_off = master_is_off

    def voters(self) -> list[str]:
        gone = {self.dead, *self.absent}
        return [host for host in super().voters() if host not in gone]

    def prepare(self) -> None:
        """Refuse unless the master is gone and most members say the same.

        :raises InvalidAggregateActionUpdate: the master answers, HA is on,
            or too few members name the dead master.
        """
        super().prepare()
        self._refuse_living_master()
        found = passwords.check(self.site, self.row, self.voters())
        passwords.tell(self.name, passwords.findings(self.row, found))
        vote = voting.ask(self.site, self.row, self.is_broken)
        objection = voting.objection(
            vote, self.row, self.host, self.master_is_off
        )
        if objection:
            self.refuse(objection)
        if not vote.broken:
            self.dead = self.site.connections.name_at(vote.dead) or ''
        present = {self.dead, *vote.able}
        self.absent = [host for host in vote.members if host not in present]
        self.address = self.site.connections.access(self.host).address
        since = self.site.clock.monotonic()
        if self.master_is_off:
            self._refuse_present_machine()
            self._refuse_database(vote)
        self._refuse_master_that_returns(since)
        if self.master_is_off:
            self._refuse_present_machine()

    def _refuse_present_machine(self) -> None:
        """Refuse while the machine that is said to be off is on.

        :raises InvalidAggregateActionUpdate: it is.
        """
        if not self.dead:
            return
        shown = self.site.connections.presence(self.dead)
        if shown:
            again = common.typed(
                'aggregate',
                'recover',
                self.name,
                '--promote',
                self.host,
                '--the-master-is-off',
            )
            self.refuse(
                f"{self.dead} is not off: its address {shown}; switch it "
                f"off, then: {again}"
            )

    def _refuse_database(self, vote: voting.Vote) -> None:
        """Refuse while a member reaches the pool's database: somebody is the
        master then.

        :raises InvalidAggregateActionUpdate: one does.
        """
        self.listener(
            self.host,
            f"waiting up to {voting.DATABASE_SILENCE:.0f} s for a database "
            f"that must not answer",
            None,
        )
        found = voting.who_has_a_database(self.site, vote.able)
        if found:
            self.refuse(
                f"the pool has a master: {', '.join(found)} can read its "
                f"database; see: "
                f"{common.typed('aggregate', 'audit', self.name)}"
            )

    def _refuse_master_that_returns(self, since: float) -> None:
        """Look for the master once more, for as long as a restart takes.

        :param since: for how long it has been silent, by the clock.
        :raises InvalidAggregateActionUpdate: it answers.
        """
        clock = self.site.clock
        waiting = (
            f"waiting {SILENCE:.0f} s on purpose: "
            f"{self.dead or 'the master'} may only be restarting"
        )
        LOG.info('%s: %s', self.name, waiting)
        while True:
            waited = clock.monotonic() - since
            self.listener(self.host, waiting, min(1.0, waited / SILENCE))
            clock.sleep(self.site.conf.xenpool.poll_interval)
            self._refuse_living_master(quiet=True)
            if waited >= SILENCE:
                return

    def _refuse_living_master(self, quiet: bool = False) -> None:
        """Refuse while anybody is the master, or the dead one answers.

        Who is it need not be whom members name: somebody may have promoted
        another one meanwhile.

        :param quiet: whether to log nothing of whom does not answer.
        :raises InvalidAggregateActionUpdate: somebody is, or it does.
        """
        try:
            where = self._who_serves(quiet) or self._dead_that_answers()
        except exceptions.XapiError as error:
            self.refuse(f"the master answers: {error}")
        if where:
            command = common.typed(
                'aggregate', 'set', 'master', self.name, self.host
            )
            self.refuse(
                f"the master answers at {where}: use set master: {command}"
            )

    def _who_serves(self, quiet: bool) -> str:
        """Return the address of a host that serves the pool, or ''.

        :raises XapiRefused: there is one, which refuses our login.
        """
        self.forget_coordinator()
        try:
            return common.find_master(self.site, self.row, quiet).address
        except (exceptions.XapiUnavailable, exceptions.NotPoolMaster):
            return ''

    def _dead_that_answers(self) -> str:
        """Return the name of the dead master if it answers, else ''.

        A machine that was installed anew at its address, or serves another
        pool, is not the master.
        """
        if not self.dead:
            return ''
        found = sight.one(self.site, self.row, None, self.dead)
        return '' if found.who in identity.GONE else self.dead

    def intent(self) -> dict[str, typing.Any]:
        return {
            **super().intent(),
            'dead': self.dead,
            'absent': list(self.absent),
        }

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        super().restore(details)
        self.dead = details['dead']
        self.absent = details.get('absent', ())

    def act(self, journal: operation.Journal) -> None:
        journal.phase(
            'promote', 'emergency_transition_to_master', promoting=True
        )
        # A toolstack that looks for its master restarts: log in anew.
        self.site.connections.invalidate(self.host)
        journal.local_changes(
            self.site.connections.local_client(self.host)
        ).emergency_transition_to_master()
        self.site.connections.invalidate(self.host)
        self._recover_members(journal, self._await_master(journal))

    def go_on(self, journal: operation.Journal) -> None:
        """Recover the members, if the promotion itself is seen to be done.

        Nobody is promoted here: what the dead worker had made sure of may
        no longer hold.
        """
        if not journal.details.get('promoting'):
            return
        self.sign_in()
        try:
            master = self._await_master(journal, self.patience)
        except exceptions.NotPoolMaster:
            return
        if self._are_lost(journal, master):
            self._recover_members(journal, master)

    def _recover_members(
        self, journal: operation.Journal, master: client.Client
    ) -> None:
        """Tell the members of their new master; if no call was made, again.

        :raises XapiError: they cannot be told.
        """
        try:
            self._tell_members(journal, master)
        except exceptions.XapiUnavailable as error:
            LOG.warning('%s; trying once more', error)
            self._tell_members(journal, self._await_master(journal))

    def _tell_members(
        self, journal: operation.Journal, master: client.Client
    ) -> None:
        journal.phase('recover members', recovering=True)
        client.wait(
            journal.changes(master).recover_slaves(),
            self.site.clock,
            self.timeout,
            self.site.conf.xenpool.poll_interval,
            lambda fraction: journal.progress('recover', fraction),
        )

    def _are_lost(
        self, journal: operation.Journal, master: client.Client
    ) -> bool:
        """Say whether members still have to be told of the new master.

        One that was told restarts some ten seconds later. One that the
        master's copy of the database does not know will not be told.
        """
        clock = self.site.clock
        known = {record.uuid for record in master.hosts()}
        members = common.members(self.row)
        wait = self.patience if journal.details.get('recovering') else 0.0
        deadline = clock.monotonic() + wait
        while True:
            journal.still_ours()
            views = common.member_views(self.site, self.voters())
            lost = [
                host
                for host, view in views.items()
                if view
                and not self.follows(host, view)
                and members[host] in known
            ]
            if not lost or clock.monotonic() >= deadline:
                return bool(lost)
            clock.sleep(self.site.conf.xenpool.poll_interval)

    def _await_master(
        self, journal: operation.Journal, patience: float | None = None
    ) -> client.Client:
        """Return the promoted host's client once it answers as master.

        :param patience: seconds for which it may say that it is a member;
            None: no less than it may keep silent.
        :raises NotPoolMaster: it is still a member.
        :raises XapiError: it does not let us in in time. What it refuses
            while it restarts says nothing of what becomes of it.
        """
        clock = self.site.clock
        began = clock.monotonic()
        patience = self.timeout if patience is None else patience
        while True:
            journal.still_ours()
            waited = clock.monotonic() - began
            try:
                return self.site.connections.client(self.host)
            except exceptions.NotPoolMaster:
                if waited >= patience:
                    raise
            except exceptions.XapiError:
                if waited >= self.timeout:
                    raise
            clock.sleep(self.site.conf.xenpool.poll_interval)

    def afterwards(
        self, journal: operation.Journal, settlement: reconcile.Settlement
    ) -> None:
        super().afterwards(journal, settlement)
        if settlement.outcome == 'succeeded' and self.dead:
            self.findings = (*self._stranded(), *self._unasked())
            for finding in self.findings:
                journal.phase(finding.check, finding.message)

    def _unasked(self) -> tuple[model.Finding, ...]:
        """Return the members that do not know of their new master."""
        return tuple(
            model.Finding(
                'member-views',
                model.Severity.WARN,
                f"{host} does not answer, so it does not know that "
                f"{self.host} is the master now",
                f"switch on {host}, then: "
                f"{common.typed('aggregate', 'audit', self.name)}",
            )
            for host in self.absent
        )

    def _stranded(self) -> tuple[model.Finding, ...]:
        """Return the virtual machines that are recorded on the dead host.

        Whether they run there still only a person can know; two that write
        to one disk destroy it. So nothing is done about them.
        """
        check = 'stranded'
        try:
            pool = self.coordinator().snapshot(
                'pool', 'host', 'VM', with_clock=False
            )
        except exceptions.XapiError as error:
            message = f"the virtual machines on {self.dead} are not known"
            return (
                model.Finding(
                    check, model.Severity.UNKNOWN, f"{message}: {error}"
                ),
            )
        dead = pool.host_by_uuid(self.row.metadata.get(self.dead, ''))
        return tuple(
            model.Finding(
                check,
                model.Severity.WARN,
                f"{vm.name} ({vm.uuid}) is recorded as "
                f"{vm.power_state.lower()} on {self.dead}, which is dead",
                f"make sure that {self.dead} is off, then: xe "
                f"vm-reset-powerstate uuid={vm.uuid} --force",
            )
            for vm in pool.vms.values()
            if dead is not None
            and vm.resident_on == dead.ref
            and vm.power_state != 'Halted'
            and not pool.is_domain_zero(vm)
        )
