# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The verb that puts a member in the place of a dead master."""

from __future__ import annotations

import collections.abc
import typing

from oslo_log import log

from xenpool_driver import (
    exceptions,
    identity,
    model,
    operation,
    pool_states,
    reconcile,
    store,
)
from xenpool_driver.verbs import (
    common,
    mastership,
    passwords,
    sight,
    voting,
)
from xenpool_driver.xapi import client

LOG = log.getLogger(__name__)

Observation = reconcile.Observation

SILENCE = 30.0
"""Seconds for which a master must keep silent to count as dead: its
toolstack may only be restarting."""


class Promote(mastership.Mastership):
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
        passwords.tell(self.name, passwords.findings(found))
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
        :raises InvalidAggregateActionUpdate: another aggregate owns the
            pool.
        """
        self.forget_coordinator()
        try:
            found = common.find_master(self.site, self.row, quiet)
        except (exceptions.XapiUnavailable, exceptions.NotPoolMaster):
            return ''
        self.refuse_foreign(found)
        return found.address

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
        # No master could be asked before: this is the first sight of the
        # stamp. Members of a pool that is not ours are not told.
        self.has_acted = True
        self.assert_ours(master)
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
        if settlement.outcome == 'succeeded':
            self.findings = self._left_to_do()
            for finding in self.findings:
                journal.phase(finding.check, finding.message)

    def _left_to_do(self) -> tuple[model.Finding, ...]:
        """Return what is still to be done about the pool, by a person."""
        try:
            found = self.foreign(self.master().stamp)
        except exceptions.XapiError as error:
            LOG.warning('%s: %s', self.name, error)
            found = None
        if found is not None:
            return (found,)
        if not self.dead:
            return ()
        return (*self._stranded(), self._still_member(), *self._unasked())

    def _still_member(self) -> model.Finding:
        """Say that the dead master has not left the pool."""
        removing = common.typed(
            'aggregate',
            'remove',
            'host',
            self.name,
            self.dead,
            '--forget',
            '--yes',
        )
        return model.Finding(
            'identity',
            model.Severity.WARN,
            f"'{self.dead}' was the master and is a member still; it does "
            f"not answer",
            f"switch on {self.dead}, or, if it is gone for good: {removing}",
        )

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
