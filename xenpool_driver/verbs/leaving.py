# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Verbs that make a pool smaller: eject, forget, clear, dismiss."""

from __future__ import annotations

import collections.abc
import dataclasses
import shlex
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
from xenpool_driver.preflight import eject as eject_rules
from xenpool_driver.preflight import evacuation
from xenpool_driver.preflight import forget as forget_rules
from xenpool_driver.verbs import common, guest, ha, passwords, sight
from xenpool_driver.xapi import client

LOG = log.getLogger(__name__)

Observation = reconcile.Observation

HELD_CLASSES = ('pool', 'host', 'PBD', 'VM')
"""What shows how far a host that is ejected has come."""


class Leaving(common.PoolVerb):
    """What eject and forget have in common: a member's record goes away."""

    request = pool_states.REMOVE
    action = 'remove_from_aggregate'
    refused = exceptions.InvalidAggregateActionDelete
    goal = Observation.EJECTED
    verdicts = frozenset({Observation.STILL_MEMBER, Observation.LEFT_BEHIND})

    uuid = ''
    _gone = False

    def prepare(self) -> None:
        """Refuse a host that is no member, or the master of others.

        :raises InvalidAggregateActionDelete: it is.
        """
        self.refuse_failures(self.judged())

    def judged(self) -> model.Report:
        """Return what speaks against it, and what would be lost.

        :raises InvalidAggregateActionDelete: nobody who could tell answers.
        """
        if self.host not in self.row.hosts and (
            self.host not in self.row.metadata
        ):
            stranger = model.Finding(
                'membership',
                model.Severity.FAIL,
                f"host '{self.host}' is not in the aggregate",
                shlex.join(('xenpool', 'aggregate', 'show', self.name)),
            )
            return model.Report(self.host, (stranger,))
        master = self.reached(self.coordinator)
        self.uuid = self.row.metadata.get(self.host, '')
        if not self.uuid:
            self.uuid = self.reached(self._uuid_by_address)
        self._gone = not self.uuid or (
            self.reached(lambda: master.host_ref(self.uuid)) is None
        )
        if self._gone:
            return model.Report(self.host)
        report: model.Report = self.reached(lambda: self.judge(master))
        return dataclasses.replace(report, subject=self.host)

    def judge(self, master: client.Client) -> model.Report:
        """Return what XAPI, or a person, would regret.

        :raises XapiError: it cannot be read.
        """
        return model.Report(self.host)

    def called(self, pool: snapshot.PoolSnapshot) -> snapshot.PoolSnapshot:
        """Return the pool with the names that our commands take."""
        return pool.called(
            {**sight.names(self.row), self.uuid: self.host}, self.row.name
        )

    def who_answers(self, pool: snapshot.PoolSnapshot) -> identity.Identified:
        """Return who answers at the address of the host."""
        return sight.one(self.site, self.row, pool, self.host, self.uuid)

    def _uuid_by_address(self) -> str:
        """Return the uuid of a member whose join was never recorded."""
        address = self.site.connections.access(self.host).address
        for record in self.coordinator().hosts():
            if record.address == address:
                return str(record.uuid)
        return ''

    def intent(self) -> dict[str, typing.Any]:
        return {'host_uuid': self.uuid, 'suspend_ha': self.suspend_ha}

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        self.uuid = details['host_uuid']
        self.suspend_ha = details['suspend_ha']

    def act(self, journal: operation.Journal) -> None:
        if self._gone:
            journal.phase('observe', 'not a member any more')
            return
        ha.suspend(self, journal)
        self.part(journal)

    def part(self, journal: operation.Journal) -> None:
        """Make the call that takes the record away."""

    def observe(self) -> reconcile.Observation:
        if not self.uuid:
            return Observation.EJECTED
        try:
            master = self.coordinator()
            if master.host_ref(self.uuid) is None:
                return Observation.EJECTED
            return self.observe_member(master)
        except exceptions.XapiError:
            self.forget_coordinator()
            raise

    def observe_member(self, master: client.Client) -> reconcile.Observation:
        """Say what goes on with a host that the master still lists."""
        return Observation.STILL_MEMBER

    def last_seen(self, seen: reconcile.Observation) -> str:
        if seen in (Observation.EJECTING, Observation.UNKNOWN):
            return common.answered(self.site, self.host)
        return ''

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        changes = self.membership(settlement, self.uuid)
        metadata = {**changes.metadata, **self.master_correction()}
        return store.Changes(
            metadata=metadata, remove_hosts=changes.remove_hosts
        )


class Eject(Leaving):
    """A living member leaves; its local disks are wiped.

    :param allow_data_loss: go on although local disks hold data.
    :param drain: first move the virtual machines away.
    :param keep_disabled: leave the host disabled if it stays a member.
    :param wait: wait until the host is back as a pool of its own.
    :param successor: compute host name of who will be the master by then; ''
        when the master does not change.
    """

    kind = 'eject'

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
        *,
        allow_data_loss: bool = False,
        drain: bool = False,
        keep_disabled: bool = False,
        wait: bool = False,
        suspend_ha: bool = False,
        successor: str = '',
    ) -> None:
        super().__init__(site, row, host, suspend_ha=suspend_ha)
        self.allow_data_loss = allow_data_loss
        self.drain = drain
        self.successor = successor
        self.keep_disabled = keep_disabled
        self.wait = wait
        self._told: tuple[model.Finding, ...] = ()
        self._held: frozenset[str] = frozenset()
        self._unanswered = False

    def judge(self, master: client.Client) -> model.Report:
        pool = self.called(
            master.snapshot(*snapshot.EJECT_CLASSES, with_clock=False)
        )
        self._held = _held(pool, self.uuid)
        found = self.who_answers(pool)
        stuck = None
        if found.who is identity.Who.MEMBER:
            stuck, pool = self._stuck(master, pool)
        report = eject_rules.check(
            pool,
            self.uuid,
            allow_data_loss=self.allow_data_loss,
            drain=self.drain,
            suspend_ha=self.suspend_ha,
            stuck=stuck,
            successor=self.row.metadata.get(self.successor, ''),
            found=found,
        )
        if found.who is identity.Who.MEMBER:
            self._told = self._login(master.name)
        return dataclasses.replace(
            report, findings=(*report.findings, *self._told)
        )

    def prepare(self) -> None:
        super().prepare()
        passwords.tell(self.name, self._told)

    def _login(self, master: str) -> tuple[model.Finding, ...]:
        """Return what is to be said of the login of the host that leaves.

        XAPI does not need it. To wait for the host's return does, and so
        does its compute service's guest.

        :param master: the host whose login has just worked.
        """
        if self.host == master:
            return ()
        guest_uuid = self.site.connections.access(self.host).compute_vm_uuid
        needed = {self.host} if self.wait or guest_uuid else ()
        found = passwords.check(self.site, self.row, [self.host])
        return passwords.findings(found, needed)

    def _stuck(
        self, master: client.Client, pool: snapshot.PoolSnapshot
    ) -> tuple[evacuation.Evacuation, snapshot.PoolSnapshot]:
        """Return what keeps virtual machines from moving away, and the pool
        with what is needed to name it."""
        errors = (
            master.vms_preventing_evacuation(self.uuid) if self.drain else {}
        )
        codes = {error[0] for error in errors.values() if error}
        if 'VM_REQUIRES_NETWORK' in codes:
            pool = self.called(
                master.snapshot(
                    *snapshot.EJECT_CLASSES, 'network', with_clock=False
                )
            )
        free = {}
        if 'HOST_NOT_ENOUGH_FREE_MEMORY' in codes:
            free = {
                host.ref: master.free_memory(host.uuid)
                for host in pool.hosts.values()
                if host.enabled and host.uuid != self.uuid
            }
        return evacuation.Evacuation(errors, free), pool

    def intent(self) -> dict[str, typing.Any]:
        return {
            **super().intent(),
            'drain': self.drain,
            'keep_disabled': self.keep_disabled,
            'wait': self.wait,
            'held': sorted(self._held),
        }

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        super().restore(details)
        self.drain = details['drain']
        self.keep_disabled = details['keep_disabled']
        self._held = frozenset(details.get('held', ()))
        self._unanswered = bool(details.get('ejecting'))

    def part(self, journal: operation.Journal) -> None:
        if self.drain:
            self._drain(journal)
        guest.stop(self.site, self.host, journal, self.assert_ours)
        journal.phase(
            'eject', 'from here on there is no way back', ejecting=True
        )
        try:
            task = self.changes(journal).eject(self.uuid)
            self._follow(task, journal, 'eject')
        except exceptions.XapiOutcomeUnknown:
            self._unanswered = True
            raise
        self.site.connections.invalidate(self.host)

    def _drain(self, journal: operation.Journal) -> None:
        """Disable the host and move its virtual machines away.

        What cannot move was found when the request was judged.

        :raises XapiRefused: a virtual machine cannot move after all.
        """
        master = self.coordinator()
        record = master.host(self.uuid)
        if record is None or record.enabled:  # else it was disabled before
            journal.phase('disable', disabled=True)
            self.surely(
                journal,
                lambda: self.changes(journal).disable_host(self.uuid),
                lambda: not self._is_enabled(),
            )
        journal.phase('evacuate')
        try:
            task = self.changes(journal).evacuate(self.uuid)
            self._follow(task, journal, 'evacuate')
        except exceptions.XapiOutcomeUnknown as error:
            LOG.warning('%s; waiting until nothing moves', error)
            self._await_moves(journal)

    def _await_moves(self, journal: operation.Journal) -> None:
        """Wait until no evacuation is under way.

        Whether all is gone is then for the eject to tell: XAPI refuses it
        while a virtual machine is there.

        :raises XapiError: the master is not to be seen.
        """
        clock = self.site.clock
        deadline = clock.monotonic() + self.site.conf.xenpool.drain_timeout
        while True:
            journal.still_ours()
            clock.sleep(self.site.conf.xenpool.poll_interval)
            busy = client.pending(self.coordinator(), 'host.evacuate')
            if not busy or clock.monotonic() >= deadline:
                return

    def _follow(
        self, task: client.Task, journal: operation.Journal, phase: str
    ) -> None:
        """Wait for a task of the master, and show its progress."""
        conf = self.site.conf.xenpool
        client.wait(
            task,
            self.site.clock,
            conf.drain_timeout if phase == 'evacuate' else self.timeout,
            conf.poll_interval,
            lambda fraction: journal.progress(phase, fraction),
        )

    def observe_member(self, master: client.Client) -> reconcile.Observation:
        if client.pending(master, 'pool.eject'):
            return Observation.EJECTING
        if self._is_alone():
            return Observation.LEFT_BEHIND
        now = master.snapshot(*HELD_CLASSES, with_clock=False)
        if self._held - _held(now, self.uuid):
            return Observation.LEAVING
        return Observation.STILL_MEMBER

    def patience_with(self, seen: reconcile.Observation) -> float:
        # The host itself carries the eject out. It goes on when the master
        # has lost the task, and what it does shows only after a while.
        if self._unanswered and seen is Observation.STILL_MEMBER:
            return common.IN_FLIGHT
        return super().patience_with(seen)

    def _is_alone(self) -> bool:
        """Say whether the host serves a pool of its own already."""
        try:
            door = self.site.connections.client(self.host)
            pool = door.pool()
        except exceptions.XapiError:
            return False
        return bool(pool.uuid != self.row.metadata.get(pool_states.POOL_UUID))

    @property
    def timeout(self) -> float:
        return float(self.site.conf.xenpool.eject_timeout)

    @property
    def longest(self) -> float:
        drain = float(self.site.conf.xenpool.drain_timeout)
        return drain if self.drain else self.timeout

    def afterwards(
        self, journal: operation.Journal, settlement: reconcile.Settlement
    ) -> None:
        stays = settlement.member is not False
        if stays:
            guest.start(self.site, self.host, journal, self.coordinator, True)
        disabled = journal.details.get('disabled')
        if stays and disabled and not self.keep_disabled:
            self._enable(journal)
        if not stays and self.wait:
            self._await_first_boot(journal)

    def _enable(self, journal: operation.Journal) -> None:
        """Let the host work again, unless that is done."""

        def enable() -> None:
            if not self._is_enabled():
                journal.phase('enable', 'the host stays a member')
                self.changes(journal).enable_host(self.uuid)

        self.surely(journal, enable, self._is_enabled)

    def _is_enabled(self) -> bool:
        """Say whether the master lets virtual machines start on the host."""
        record = self.coordinator().host(self.uuid)
        return record is None or record.enabled

    def _await_first_boot(self, journal: operation.Journal) -> None:
        """Wait until the host is back as a pool of its own.

        :raises XapiUnavailable: it is not, when the time is over.
        """
        journal.phase('first boot', 'the host reboots and wipes its disks')
        clock = self.site.clock
        deadline = (
            clock.monotonic() + self.site.conf.xenpool.first_boot_timeout
        )
        while not self._is_back():
            journal.still_ours()
            if clock.monotonic() >= deadline:
                last = common.answered(self.site, self.host)
                raise exceptions.XapiUnavailable(
                    f"has left the pool, but is not back as a pool of its "
                    f"own yet ({last})",
                    self.host,
                )
            clock.sleep(self.site.conf.xenpool.poll_interval)

    def _is_back(self) -> bool:
        """Say whether the host is enabled in a pool of its own."""
        if not self._is_alone():
            return False
        try:
            hosts = self.site.connections.client(self.host).hosts()
        except exceptions.XapiError:
            return False
        return len(hosts) == 1 and bool(hosts[0].enabled)


def _held(pool: snapshot.PoolSnapshot, uuid: str) -> frozenset[str]:
    """Return the uuids of what a host lets go of when it is ejected.

    It unplugs its storage and destroys its control domain's record before it
    wipes itself (``xapi_pool.ml``, ``eject_self``).

    :param pool: with the host's PBDs and the virtual machines.
    :param uuid: the host's.
    """
    host = pool.host_by_uuid(uuid)
    if host is None:
        return frozenset()
    held = {pbd.uuid for pbd in pool.pbds_of(host) if pbd.currently_attached}
    domain = pool.vms.get(host.control_domain or '')
    return frozenset(held | ({domain.uuid} if domain else set()))


class Forget(Leaving):
    """A dead member's record is destroyed; the machine is not touched."""

    kind = 'forget'
    refusals = frozenset({'HOST_IS_LIVE'})  # the coordinator disagrees

    def judge(self, master: client.Client) -> model.Report:
        pool = self.called(
            master.snapshot(*snapshot.EJECT_CLASSES, with_clock=False)
        )
        return forget_rules.check(
            pool,
            self.uuid,
            suspend_ha=self.suspend_ha,
            found=self.who_answers(pool),
        )

    def part(self, journal: operation.Journal) -> None:
        journal.phase('destroy', 'only the record; XAPI checks it is dead')
        self.changes(journal).destroy_host(self.uuid)

    @property
    def timeout(self) -> float:
        return float(self.site.conf.xenpool.eject_timeout)


class Clear(common.PoolVerb):
    """The last host: its pool loses name and stamp, and nothing else.

    :param forget: the host is dead: let it go with name and stamp.
    """

    kind = 'clear'
    request = pool_states.REMOVE
    action = 'remove_from_aggregate'
    refused = exceptions.InvalidAggregateActionDelete
    goal = Observation.CLEARED
    verdicts = frozenset({Observation.NOT_CLEARED})

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
        *,
        forget: bool = False,
    ) -> None:
        super().__init__(site, row, host)
        self.forget = forget

    def prepare(self) -> None:
        """Refuse while the pool has members that the aggregate forgot.

        :raises InvalidAggregateActionDelete: it has, or nobody answers.
        """
        if self.forget:
            self.refuse_failures(self.judged())
            return
        pool = self.reached(lambda: self.door().pool())
        owner = pool.other_config.get(pool_states.OWNER_KEY)
        recorded = self.row.metadata.get(pool_states.POOL_UUID, pool.uuid)
        if owner != self.row.uuid and (owner or pool.uuid != recorded):
            return
        uuid = self.row.metadata.get(self.host)
        others = [
            record.name_label
            for record in self.reached(lambda: self.door().hosts())
            if record.uuid != uuid
        ]
        if others:
            self.refuse(
                f"the pool has members that the aggregate does not know: "
                f"{', '.join(sorted(others))}; see: xenpool aggregate audit"
            )

    def judged(self) -> model.Report:
        """Return what speaks against letting the last host go."""
        found = sight.one(self.site, self.row, None, self.host)
        if not self.forget or found.who in identity.GONE:
            return model.Report(self.host)
        finding = model.Finding(
            'identity',
            model.Severity.FAIL,
            f"'{self.host}' answers, so it is not dead: "
            f"{identity.answer(found)}",
            shlex.join(
                ('xenpool', 'aggregate', 'remove', 'host', self.name)
                + (self.host,)
            ),
        )
        return model.Report(self.host, (finding,))

    def intent(self) -> dict[str, typing.Any]:
        return {'forget': self.forget}

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        self.forget = details['forget']

    def door(self) -> client.Client:
        """Return the XAPI of the host's pool."""
        return self.site.connections.coordinator_of(self.host)

    def act(self, journal: operation.Journal) -> None:
        if self.forget:
            journal.phase('forget', 'its pool keeps name and stamp')
            return
        door = self.door()
        pool = door.pool()
        if pool.other_config.get(pool_states.OWNER_KEY) != self.row.uuid:
            journal.phase('observe', 'the pool is not ours any more')
            return
        if pool.name_label:
            journal.phase('clear name')
            self.surely(
                journal,
                lambda: journal.changes(door).set_pool_name(''),
                lambda: not door.pool().name_label,
            )
        journal.phase('clear stamp')
        self.surely(
            journal,
            lambda: journal.changes(door).remove_pool_other_config(
                pool_states.OWNER_KEY
            ),
            lambda: self.observe() == Observation.CLEARED,
        )

    def go_on(self, journal: operation.Journal) -> None:
        self.act(journal)

    def observe(self) -> reconcile.Observation:
        if self.forget:
            return Observation.CLEARED
        pool = self.door().pool()
        if pool.other_config.get(pool_states.OWNER_KEY) == self.row.uuid:
            return Observation.NOT_CLEARED
        return Observation.CLEARED

    @property
    def timeout(self) -> float:
        return operation.SIGHT

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        if settlement.outcome != 'succeeded':
            return store.Changes()
        return store.Changes(
            metadata={
                self.host: None,
                pool_states.MASTER: None,
                pool_states.POOL_UUID: None,
            },
            remove_hosts=(self.host,),
        )


class Dismiss(operation.Verb):
    """The aggregate, which has no hosts, is deleted; no host is concerned."""

    kind = 'dismiss'
    request = pool_states.DELETE
    action = 'dismiss_aggregate'
    refused = exceptions.InvalidAggregateActionDelete
    goal = Observation.DISMISSED
    timeout = 0.0

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        if row.hosts:
            raise self.refused(
                row.name, f"it still has hosts: {', '.join(row.hosts)}"
            )
        state = pool_states.next_state(row.state, pool_states.DELETED)
        return store.Changes(metadata={pool_states.STATE: state}, dismiss=True)

    def act(self, journal: operation.Journal) -> None:
        """Make no call: it was all written when the request was admitted."""

    def observe(self) -> reconcile.Observation:
        return Observation.DISMISSED

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        return store.Changes()
