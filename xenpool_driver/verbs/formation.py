# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Verbs that make a pool and let it grow: set up, adopt, join."""

from __future__ import annotations

import collections.abc
import typing

from oslo_log import log

from xenpool_driver import conf as config
from xenpool_driver import (
    exceptions,
    inventory,
    objects,
    operation,
    pool_states,
    reconcile,
    snapshot,
    store,
)
from xenpool_driver.verbs import (
    common,
    guest,
    ha,
    inspection,
    judging,
    lookout,
    passwords,
    stamps,
)
from xenpool_driver.xapi import client

LOG = log.getLogger(__name__)

Observation = reconcile.Observation


LATE = frozenset({Observation.JOINING, Observation.STUCK, Observation.UNKNOWN})
"""What a join shows that has not come to its end."""


class SetUp(common.PoolVerb):
    """The first host: its pool of one is named, stamped, and recorded."""

    kind = 'set-up'
    request = pool_states.ADD
    action = 'add_to_aggregate'
    refused = exceptions.InvalidAggregateActionAdd
    goal = Observation.SET_UP
    verdicts = frozenset({Observation.NOT_SET_UP, Observation.HALF_SET_UP})

    uuid = ''
    pool_uuid = ''
    former = ''  # the stamp that is replaced
    named_stamp = ''  # the one that a person wants to be replaced

    def prepare(self) -> None:
        """Refuse a host that is not a free pool of its own.

        :raises InvalidAggregateActionAdd: with the whole report.
        """
        elsewhere = self.site.store.aggregate_of_host(self.host)
        if elsewhere is not None and elsewhere.uuid != self.row.uuid:
            self.refuse(
                f"host '{self.host}' is in aggregate '{elsewhere.name}' "
                f"already"
            )
        report = self.reached(
            lambda: judging.check_first(self.site, self.row, self.host)
        )
        self.refuse_failures(report)
        door = self.reached(self.door)
        _, self.uuid = self.reached(door.this_host)
        self.recognize(self.reached(door.pool))

    def recognize(self, pool: objects.Pool) -> None:
        """Remember which pool it is, and which stamp of it is replaced."""
        self.pool_uuid = pool.uuid
        self.former = stamps.replaceable(self.site, pool, self.named_stamp)

    def door(self) -> client.Client:
        """Return the host's own XAPI."""
        return self.site.connections.client(self.host)

    def intent(self) -> dict[str, typing.Any]:
        return {
            'host_uuid': self.uuid,
            'pool_uuid': self.pool_uuid,
            'former_stamp': self.former,
        }

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        self.uuid = details['host_uuid']
        self.pool_uuid = details['pool_uuid']
        self.former = details.get('former_stamp', '')

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        if row.metadata.get(pool_states.MASTER):
            raise self.refused(
                row.name,
                'setup in progress: another host has just become the '
                'master; repeat the request',
            )
        metadata: dict[str, str | None] = {}
        if row.state == pool_states.CREATED:
            metadata[pool_states.STATE] = pool_states.next_state(
                row.state, pool_states.FIRST_ADD_ACCEPTED
            )
        return store.Changes(metadata=metadata, add_hosts=(self.host,))

    def act(self, journal: operation.Journal) -> None:
        door = self.door()
        self._stamp(journal, door)
        self._name(journal, door)

    def go_on(self, journal: operation.Journal) -> None:
        door = self.door()
        pool = door.pool()
        if pool.uuid != self.pool_uuid:
            journal.phase('observe', f"it serves the pool {pool.uuid} now")
            return
        if pool.other_config.get(pool_states.OWNER_KEY) != self.row.uuid:
            self._stamp(journal, door)
        if pool.name_label != self.row.name:
            self._name(journal, door)

    def _stamp(self, journal: operation.Journal, door: client.Client) -> None:
        if self.former:
            journal.phase('replace stamp', self.former)
            self.surely(
                journal,
                lambda: stamps.drop(journal, door, self.former),
                lambda: stamps.stamp_of(door.pool()) != self.former,
            )
        journal.phase('stamp', f"pool {self.pool_uuid}")
        self.surely(
            journal,
            lambda: stamps.put(journal, door, self.row),
            lambda: self.observe() != Observation.NOT_SET_UP,
        )

    def _name(self, journal: operation.Journal, door: client.Client) -> None:
        journal.phase('name')
        self.surely(
            journal,
            lambda: journal.changes(door).set_pool_name(self.row.name),
            lambda: self.observe() == Observation.SET_UP,
        )

    def observe(self) -> reconcile.Observation:
        return observe_set_up(self.door(), self.row)

    @property
    def timeout(self) -> float:
        return operation.SIGHT

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        if settlement.member is None:  # nobody knows; an audit will
            return store.Changes()
        if not settlement.member:
            return self.membership(settlement, self.uuid)
        return store.Changes(
            metadata={
                self.host: self.uuid,
                pool_states.MASTER: self.host,
                pool_states.POOL_UUID: self.pool_uuid,
            }
        )


class Adopt(SetUp):
    """A pool that stands already is taken over with all its members.

    :param hosts: every host that the configuration knows; each member of
        the pool must be one of them.
    :param replace_stamp: another controller's stamp that may be replaced,
        because a person says so; '' for none.
    """

    kind = 'adopt'
    action = 'adopt_aggregate'

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
        hosts: collections.abc.Mapping[str, config.HostAccess],
        *,
        replace_stamp: str = '',
    ) -> None:
        super().__init__(site, row, host)
        self.named_stamp = replace_stamp
        self._hosts = hosts
        self._found: dict[str, str] = {}
        self._master_host = host

    def prepare(self) -> None:
        """Find every member of the pool in the configuration.

        :raises InvalidAggregateActionAdd: a member is not configured, or
            the pool belongs to another aggregate.
        """
        report = self.reached(
            lambda: inspection.check_adoption(
                self.site, self.row, self.host, self.named_stamp
            )
        )
        self.refuse_failures(report)
        door = self.reached(self.door)
        pool = self.reached(door.pool)
        by_address = {
            access.address: name for name, access in self._hosts.items()
        }
        strangers = []
        for member in self.reached(door.hosts):
            name = by_address.get(member.address)
            if name is None:
                strangers.append(f"{member.name_label} ({member.address})")
            else:
                self._found[name] = member.uuid
            if member.ref == pool.master and name:
                self._master_host = name
        if strangers:
            self.refuse(
                f"these members of the pool have no section in the "
                f"configuration: {', '.join(sorted(strangers))}"
            )
        self.recognize(pool)
        self.uuid = self._found[self._master_host]

    def door(self) -> client.Client:
        """Return the XAPI of the pool's master."""
        return self.site.connections.coordinator_of(self.host)

    def intent(self) -> dict[str, typing.Any]:
        return {
            **super().intent(),
            'members': self._found,
            'master': self._master_host,
        }

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        super().restore(details)
        self._found = dict(details['members'])
        self._master_host = details['master']

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        if row.hosts or row.state != pool_states.CREATED:
            raise self.refused(
                row.name, 'only a new aggregate without hosts can adopt'
            )
        return store.Changes(
            metadata={
                pool_states.STATE: pool_states.next_state(
                    row.state, pool_states.FIRST_ADD_ACCEPTED
                )
            },
            add_hosts=tuple(self._found),
        )

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        if settlement.member is None:
            return store.Changes()
        if not settlement.member:
            return store.Changes(remove_hosts=tuple(self._found))
        return store.Changes(
            metadata={
                **self._found,
                pool_states.MASTER: self._master_host,
                pool_states.POOL_UUID: self.pool_uuid,
            }
        )


class Join(common.PoolVerb):
    """A further host: ``pool.join``, called on the joiner.

    :param force: use ``pool.join_force``.
    :param restore_settings: put back the safe settings that got lost.
    """

    kind = 'join'
    request = pool_states.ADD
    action = 'add_to_aggregate'
    refused = exceptions.InvalidAggregateActionAdd
    goal = Observation.JOINED
    verdicts = frozenset(
        {Observation.NOT_JOINED, Observation.UNCLAIMED, Observation.STUCK}
    )
    patience = 15.0  # the call succeeds ten seconds before the host restarts

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str,
        *,
        force: bool = False,
        suspend_ha: bool = False,
        restore_settings: bool = False,
    ) -> None:
        super().__init__(site, row, host, suspend_ha=suspend_ha)
        self.force = force
        self.restore_settings = restore_settings
        self.uuid = ''
        self._ref: str | None = None
        self._lookout = lookout.Lookout(site, host)
        self._is_member = False
        self._before: inventory.Inventory | None = None
        self._after: snapshot.PoolSnapshot | None = None

    def prepare(self) -> None:
        """Judge both sides; find out whether the host is a member already.

        :raises InvalidAggregateActionAdd: with the whole report.
        """
        elsewhere = self.site.store.aggregate_of_host(self.host)
        if elsewhere is not None and elsewhere.uuid != self.row.uuid:
            self.refuse(
                f"host '{self.host}' is in aggregate '{elsewhere.name}' "
                f"already"
            )
        self.reached(self.coordinator)
        judged = self.reached(
            lambda: judging.judge_join(
                self.site,
                self.row,
                self.host,
                self.coordinator(),
                force=self.force,
                suspend_ha=self.suspend_ha,
            )
        )
        self.uuid = judged.host_uuid
        self._is_member = judged.is_member
        self.refuse_failures(judged.report)
        if judged.own is not None:
            self._before = inventory.take(judged.own, self.uuid)

    def intent(self) -> dict[str, typing.Any]:
        return {
            'host_uuid': self.uuid,
            'is_member': self._is_member,
            'force': self.force,
            'suspend_ha': self.suspend_ha,
        }

    def restore(
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        self.uuid = details['host_uuid']
        self.suspend_ha = details['suspend_ha']

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        return store.Changes(add_hosts=(self.host,))

    def act(self, journal: operation.Journal) -> None:
        if self._is_member:
            journal.phase('observe', 'a member already')
            return
        ha.suspend(self, journal)
        guest.stop(self.site, self.host, journal, self.assert_ours)
        master = self.coordinator()
        joiner = self.site.connections.client(self.host)
        journal.phase('join', f"to {master.address}", joining=True)
        self.assert_ours()
        task = journal.changes(joiner).join(
            self.master().address,
            master.access.username,
            master.access.password,
            self.force,
        )
        client.wait(
            task,
            self.site.clock,
            self.timeout,
            self.site.conf.xenpool.poll_interval,
            lambda fraction: journal.progress('join', fraction),
        )
        journal.phase('restart', 'the host restarts as a member')
        self.site.connections.invalidate(self.host)

    def observe(self) -> reconcile.Observation:
        try:
            return self._observe(self.master())
        except exceptions.XapiError:
            self.forget_coordinator()
            raise

    def _observe(self, master: common.Master) -> reconcile.Observation:
        """Look first at what comes last: the host is enabled."""
        if self._ref is None:
            self._ref = master.door.host_ref(self.uuid)
            if self._ref is None:
                return self._observe_outside()
        patience = self.site.conf.xenpool.poll_interval
        if master.door.is_disabled(self._ref, patience):
            stuck = self._lookout.is_stuck(master, self._ref)
            return Observation.STUCK if stuck else Observation.JOINING
        self._after = master.door.excerpt(
            {master.ref: master.uuid, self._ref: self.uuid},
            srs=self._before.srs if self._before else (),
            vms=self._before.vms if self._before else (),
        )
        record = self._after.host_by_uuid(self.uuid)
        if record is None or not record.enabled:
            return Observation.JOINING
        if not master.door.is_live(record):
            return Observation.JOINING
        if not common.storage_plugged(self._after, self._ref):
            return Observation.JOINING
        view = self.site.connections.member_view(self.host)
        wanted = '' if self.uuid == master.uuid else master.address
        return Observation.JOINED if view == wanted else Observation.JOINING

    def _observe_outside(self) -> reconcile.Observation:
        """Say what a host that the master does not know is up to."""
        try:
            joiner = self.site.connections.client(self.host)
        except exceptions.NotPoolMaster:
            return Observation.UNCLAIMED
        if client.pending(joiner, 'pool.join', 'pool.join_force'):
            return Observation.JOINING
        return Observation.NOT_JOINED

    def patience_with(self, seen: reconcile.Observation) -> float:
        if seen == Observation.STUCK:
            return float(self.site.conf.xenpool.stuck_join_timeout)
        return self.patience

    def last_seen(self, seen: reconcile.Observation) -> str:
        if self._ref is None or seen not in LATE:
            return ''
        try:
            return self._lookout.told(self.master(), self._ref)
        except exceptions.XapiError:  # it is told of already
            return common.answered(self.site, self.host)

    def remark(self, settlement: reconcile.Settlement) -> str:
        if self._lookout.blocking is not None:
            way = lookout.way_out(self.name, self.host, self._lookout.blocking)
            return f"the way out: {way}"
        if settlement.member and self._ref is not None:
            command = common.typed('aggregate', 'audit', self.name)
            return f"see: {command}"
        return ''

    @property
    def timeout(self) -> float:
        return float(self.site.conf.xenpool.join_timeout)

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        changes = self.membership(settlement, self.uuid)
        metadata = {**changes.metadata, **self.master_correction()}
        return store.Changes(
            metadata=metadata, remove_hosts=changes.remove_hosts
        )

    def afterwards(
        self, journal: operation.Journal, settlement: reconcile.Settlement
    ) -> None:
        guest.start(
            self.site, self.host, journal, self.coordinator, settlement.member
        )
        if settlement.outcome == 'succeeded' and self._before and self._after:
            self._show_losses(journal, self._before, self._after)
        if settlement.member:
            self._spread(journal)
            self._make_sure_of_login(journal)

    def _make_sure_of_login(self, journal: operation.Journal) -> None:
        """Find out whether the host takes the password of its section.

        A join gives it the root password of the pool (recorded).
        """
        master = self.row.metadata.get(pool_states.MASTER) or self.host
        if self.site.connections.are_alike(self.host, master):
            return
        found = passwords.check(self.site, self.row, [self.host])
        told = passwords.findings(found)
        passwords.tell(self.name, told)
        for finding in told:
            journal.phase('login', finding.message)
        self.findings = (*self.findings, *told)

    def _spread(self, journal: operation.Journal) -> None:
        """Have every member keep a copy of the database that knows the host.

        A member that is promoted before it has one knows nothing of the
        host, nor does a master whose power fails before it wrote its own.
        Of joins that overlap the last one asks for it. Nobody waits for it:
        in the end XAPI does it by itself.
        """
        if not journal.details.get('joining') or journal.details.get('spread'):
            return
        journal.phase('spread', 'members get a copy of it all', spread=True)
        if self._others_follow():
            return
        try:
            journal.changes(self.coordinator()).sync_database()
        except exceptions.XapiError as error:
            LOG.warning('Members have old copies of the database: %s', error)

    def _others_follow(self) -> bool:
        """Say whether the join of another host is still to come this far."""
        return any(
            other.details.get('joining') and not other.details.get('spread')
            for other in self.site.store.running_operations(self.row.uuid)
        )

    def _show_losses(
        self,
        journal: operation.Journal,
        before: inventory.Inventory,
        after: snapshot.PoolSnapshot,
    ) -> None:
        """Say which settings XAPI's best-effort push dropped."""
        losses = inventory.compare(before, inventory.take(after, self.uuid))
        for finding in losses:
            LOG.warning('Join of %s: %s', self.host, finding.message)
        if losses:
            journal.phase(
                'losses',
                '; '.join(finding.message for finding in losses),
                losses=[finding.to_dict() for finding in losses],
            )
        if losses and self.restore_settings:
            journal.phase('restore settings')
            restore_settings(journal, self.coordinator(), self.uuid, before)


def restore_settings(
    journal: operation.Journal,
    master: client.Client,
    uuid: str,
    before: inventory.Inventory,
) -> None:
    """Put back the safe settings of a member, as they were before its join.

    :param journal: of the join.
    :param master: the way to the pool's master.
    :param uuid: the member's XenServer uuid.
    :raises XapiError: one of them cannot be written.
    """
    changes = journal.changes(master)
    ref = master.read('host.get_by_uuid', uuid)
    writes: dict[str, typing.Any] = {
        'host.set_name_label': before.name_label,
        'host.set_name_description': before.name_description,
        'host.set_tags': list(before.tags),
        'host.set_logging': dict(before.logging),
    }
    for method, value in writes.items():
        changes.write(method, ref, value)
    present = master.read('host.get_other_config', ref)
    for key, value in before.other_config.items():
        if key not in present:
            changes.write('host.add_to_other_config', ref, key, value)


def observe_set_up(
    door: client.Client, row: store.Aggregate
) -> reconcile.Observation:
    """Say how far the pool carries the stamp and name of the aggregate."""
    pool = door.pool()
    if pool.other_config.get(pool_states.OWNER_KEY) != row.uuid:
        return Observation.NOT_SET_UP
    if pool.name_label != row.name:
        return Observation.HALF_SET_UP
    return Observation.SET_UP
