# Licensed under the Apache License, Version 2.0; see LICENSE.
"""XAPI in the words of the domain.

A :class:`Client` is logged in to the master of a pool (a stand-alone host is
the master of a pool of one), a :class:`LocalClient` to a host itself, which
works on any member and without a master. Both only read, and may repeat a
read behind the scenes. What changes something is in ``changes``, and takes
a permit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import typing

from xenpool_driver import clock as clocks
from xenpool_driver import conf, domains, exceptions, objects, redaction
from xenpool_driver import snapshot as snapshots
from xenpool_driver.xapi import changing, fields, session, tasks
from xenpool_driver.xapi import records as parsers

LOG = logging.getLogger(__name__)

Task = tasks.Task
"""An asynchronous call that was accepted."""

wait = tasks.wait
"""Waits for a :class:`Task` and raises what it failed with."""

LASTING = frozenset(
    f"Async.{method}"
    for method in (
        'VM.clean_shutdown',
        'VM.destroy',
        'VM.start',
        'VM.start_on',
        'host.destroy',
        'host.disable',
        'host.enable',
        'host.evacuate',
        'pool.designate_new_master',
        'pool.disable_ha',
        'pool.eject',
        'pool.enable_ha',
        'pool.join',
        'pool.join_force',
        'pool.recover_slaves',
        'pool.set_ha_host_failures_to_tolerate',
        'pool.sync_database',
    )
)
"""The names of the tasks of our changes."""

Parsed = typing.TypeVar('Parsed')


class Records(dict[str, dict[str, typing.Any]]):
    """Raw records: ``{class: {ref: record}}``.

    :ivar unreadable: ``{class: why}`` for the classes that XAPI does not
        know or does not let this user read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: dict[str, str] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member(objects.Host):
    """A host as its master shows it.

    :ivar live: whether the master hears from it.
    """

    live: bool = False

    @classmethod
    def of(cls, record: objects.Host, live: bool) -> Member:
        """Return the host of ``record``."""
        values = {
            field.name: getattr(record, field.name)
            for field in dataclasses.fields(record)
        }
        return cls(**values, live=live)


class _Door:
    """What both kinds of client have in common."""

    def __init__(self, home: session.HostSession, clock: clocks.Clock) -> None:
        self._home = home
        self._clock = clock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name} at {self.url}>"

    @property
    def access(self) -> conf.HostAccess:
        """How the host is reached."""
        return self._home.access

    @property
    def name(self) -> str:
        """The compute host name, or the address of an unconfigured host."""
        return self.access.name

    @property
    def address(self) -> str:
        """The host part of the URL."""
        return self.access.address

    @property
    def url(self) -> str:
        """Where the host answers."""
        return self.access.url

    def within(
        self, seconds: float
    ) -> contextlib.AbstractContextManager[None]:
        """Bound all that this thread asks of the host inside.

        :param seconds: for all of it, if less than the host's timeouts.
        """
        return self._home.transport.reading(seconds)

    def read(
        self, method: str, *args: typing.Any, timeout: float | None = None
    ) -> typing.Any:
        """Make any call that changes nothing.

        :param method: for example ``SR.get_uuid``.
        :param args: its arguments, without the session.
        :param timeout: seconds for all of it; None: the host's timeouts.
        """
        return self._home.read(method, *args, timeout=timeout)

    def read_all(self, method: str, *args: typing.Any) -> typing.Any:
        """Make a large or frequent read, by the faster protocol.

        :param method: for example ``event.from``.
        :param args: its arguments, without the session.
        """
        return self._home.read_all(method, args=args)

    def task(self, ref: str, owner: changing.ChangingSession) -> Task:
        """Return a task of the host, to be looked at.

        :param ref: its reference.
        :param owner: the login with which it was started.
        """
        return Task(self._home, ref, owner)


class Client(_Door):
    """Speaks to the master of a pool."""

    # Reads

    def this_host(self) -> tuple[str, str]:
        """Return reference and uuid of the host that answers."""
        ref = self._home.read_own('session.get_this_host')
        return ref, self.read('host.get_uuid', ref)

    def pool(self) -> objects.Pool:
        """Return the pool's record."""
        found = list(self._table('pool').items())
        if len(found) != 1:  # so while a host boots for the first time
            raise exceptions.XapiUnavailable('has no pool yet', self.name)
        return self._parsed(parsers.pool, *found[0])

    def host(self, uuid: str) -> Member | None:
        """Return the member with this uuid, or None if there is none.

        :param uuid: its XenServer uuid.
        """
        ref = self.host_ref(uuid)
        return None if ref is None else self.member(ref)

    def host_ref(self, uuid: str) -> str | None:
        """Return the reference of a member, or None if there is none.

        :param uuid: its XenServer uuid.
        """
        try:
            return str(self._host_ref(uuid))
        except exceptions.XapiRefused as error:
            if error.code not in ('UUID_INVALID', 'HANDLE_INVALID'):
                raise
            return None

    def record(self, ref: str) -> objects.Host | None:
        """Return a host's record, or None if it is gone.

        :param ref: its reference.
        """
        try:
            raw = self._home.read_all('host.get_record', args=[ref])
        except exceptions.XapiRefused as error:
            if error.code != 'HANDLE_INVALID':
                raise
            return None
        return self._parsed(parsers.host, ref, raw)

    def member(self, ref: str) -> Member | None:
        """Return the member with this reference, or None if it is gone.

        :param ref: its reference.
        """
        record = self.record(ref)
        if record is None:
            return None
        return Member.of(record, self.is_live(record))

    def is_live(self, record: objects.Host) -> bool:
        """Say whether the master hears from a member.

        :param record: the member's. One that is gone is not live.
        """
        if record.metrics is None:
            return False
        try:
            return bool(self.read('host_metrics.get_live', record.metrics))
        except exceptions.XapiRefused as error:
            if error.code != 'HANDLE_INVALID':
                raise
            return False

    def is_disabled(self, ref: str, max_age: float) -> bool:
        """Say whether a member is disabled, as one is that just joins.

        Threads that wait for different members share each look.

        :param ref: its reference. A member that is gone is not disabled.
        :param max_age: seconds that an earlier look may be old.
        """
        disabled = self._home.share_recent(
            'disabled',
            lambda: frozenset(
                self._table('host', _equal('enabled', ['false']))
            ),
            self._clock.monotonic(),
            max_age,
        )
        return ref in disabled

    def hosts(self) -> list[Member]:
        """Return all members, the master included."""
        return list(self._home.share('members', self._members))

    def _members(self) -> list[Member]:
        metrics = {
            ref: self._parsed(parsers.host_metrics, ref, record)
            for ref, record in self._table('host_metrics').items()
        }
        members = []
        for ref, raw in self._table('host').items():
            record = self._parsed(parsers.host, ref, raw)
            found = metrics.get(record.metrics or '')
            members.append(Member.of(record, bool(found and found.live)))
        return members

    def records(self, *classes: str) -> Records:
        """Return the raw records of whole classes.

        :param classes: for example ``'host', 'PIF'``.
        """
        found = Records()
        for cls in classes:
            try:
                found[cls] = self._table(cls)
            except exceptions.XapiRefused as error:
                text = ' '.join((error.code, *error.params))
                found.unreadable[cls] = text
        return found

    def snapshot(
        self, *classes: str, with_clock: bool = True
    ) -> snapshots.PoolSnapshot:
        """Return what the pool looks like now.

        Threads that ask for the same thing at the same time share it.

        :param classes: what to read; default: what the precheck of a join
            needs (``snapshot.LIVE_CLASSES``).
        :param with_clock: also compare the master's clock with ours.
        """
        wanted = classes or snapshots.LIVE_CLASSES
        return self._home.share(
            (wanted, with_clock), lambda: self._snapshot(wanted, with_clock)
        )

    def _snapshot(
        self, classes: tuple[str, ...], with_clock: bool
    ) -> snapshots.PoolSnapshot:
        raw = Records()
        for cls in classes:
            if _says_nothing(cls, raw):
                raw[cls] = {}
            else:
                read = self.records(cls)
                raw.update(read)
                raw.unreadable.update(read.unreadable)
        offset = self._clock_offset(raw) if with_clock else None
        return self._parsed(
            parsers.snapshot,
            raw,
            unreadable=raw.unreadable,
            clock_offset=offset,
        )

    def excerpt(
        self,
        members: typing.Mapping[str, str],
        srs: typing.Iterable[str],
        vms: typing.Iterable[str],
    ) -> snapshots.PoolSnapshot:
        """Return what the pool holds of some members, not of all.

        What is read after each join must not grow with the pool. The pool
        itself and its networks are there as a whole.

        :param members: ``{reference: uuid}``, the master among them: of these
            there are host, PIFs and PBDs.
        :param srs: uuids of storage that is not shared; shared one is there.
        :param vms: uuids of virtual machines.
        """
        raw = Records()
        raw.update(self.records('pool', 'network'))
        here = _equal('host', members)
        wanted = {
            'host': _equal('uuid', members.values()),
            'PIF': here,
            'PBD': here,
            'SR': [*_equal('shared', ['true']), *_equal('uuid', srs)],
            'VM': _equal('uuid', vms),
        }
        for cls, terms in wanted.items():
            raw[cls] = self._table(cls, terms) if terms else {}
        return self._parsed(parsers.snapshot, raw)

    def control_domains(self) -> list[objects.Vm]:
        """Return the pool's control domains, and no other VM.

        :raises XapiError: they cannot be read.
        """
        found = self._table('VM', _equal('is_control_domain', ['true']))
        return [
            self._parsed(parsers.vm, ref, raw) for ref, raw in found.items()
        ]

    def blocking_domain(self, ref: str) -> objects.Vm | None:
        """Return the record that keeps a member from ever being ready.

        :param ref: the member's reference.
        :returns: its control domain, where that is halted and on no host.
        :raises XapiError: it cannot be read.
        """
        host = self.record(ref)
        if host is None:
            return None
        return domains.blocking(host, self.control_domains(), {ref})

    def has_pending(self, *methods: str) -> bool:
        """Say whether one of these calls is under way on the master.

        :param methods: for example ``'pool.join'``.
        """
        return any(
            task.get('status') == 'pending'
            and str(task.get('name_label')).removeprefix('Async.') in methods
            for task in self._table('task').values()
        )

    def find_login(self, uuid: str) -> redaction.Secret | None:
        """Return the reference of a login, or None if it is at an end.

        :param uuid: of its record. XAPI shows any login to a root login.
        """
        try:
            return redaction.Secret(self.read('session.get_by_uuid', uuid))
        except exceptions.XapiRefused as error:
            if error.code not in ('UUID_INVALID', 'HANDLE_INVALID'):
                raise
            return None

    def tasks_of_login(self, ref: redaction.Secret) -> frozenset[str]:
        """Return the tasks that a login has started.

        :param ref: its reference. One that is at an end has none.
        """
        try:
            return frozenset(self.read('session.get_tasks', ref))
        except exceptions.XapiRefused as error:
            if error.code != 'HANDLE_INVALID':
                raise
            return frozenset()

    def end_login(self, ref: redaction.Secret) -> None:
        """End the login of another client.

        :param ref: its reference. One that is at an end is no error.
        """
        self._home.end_login(redaction.reveal(ref))

    def pending_tasks(self) -> frozenset[str]:
        """Return the tasks of calls that changes are made of, under way."""
        return frozenset(
            ref
            for ref, task in self._table('task').items()
            if task.get('status') == 'pending'
            and str(task.get('name_label')) in LASTING
        )

    def at_work(self, tasks: frozenset[str]) -> bool:
        """Say whether one of these tasks goes on.

        An operation on the pool or on a host is noted by its task.

        :param tasks: their references.
        """
        pending = {
            ref
            for ref, task in self._table('task').items()
            if task.get('status') == 'pending'
        }
        for cls in ('pool', 'host'):
            for record in self._table(cls).values():
                pending.update(record.get('current_operations') or ())
        return not tasks.isdisjoint(pending)

    def vms_preventing_evacuation(
        self, uuid: str
    ) -> dict[str, tuple[str, ...]]:
        """Return which virtual machines cannot leave a member, and why.

        :param uuid: the member's XenServer uuid.
        :returns: ``{reference: (code, params...)}``.
        """
        blockers = self.read(
            'host.get_vms_which_prevent_evacuation', self._host_ref(uuid)
        )
        return {
            str(ref): tuple(map(str, error)) for ref, error in blockers.items()
        }

    def free_memory(self, uuid: str) -> int:
        """Return the bytes that a member has free for virtual machines.

        :param uuid: the member's XenServer uuid.
        """
        return int(self.read('host.compute_free_memory', self._host_ref(uuid)))

    def ha_heartbeat_srs(self) -> list[str]:
        """Return the uuids of the SRs that hold HA's state files."""
        uuids = []
        for vdi in self.pool().ha_statefiles:
            sr = self.read('VDI.get_SR', vdi)
            uuids.append(self.read('SR.get_uuid', sr))
        return uuids

    def _table(
        self, cls: str, terms: typing.Sequence[str] = ()
    ) -> dict[str, typing.Any]:
        """Return the records of a class.

        :param terms: those that one of these is true of; default: all.
        """
        method, args = f"{cls}.get_all_records", []
        if terms:
            method, args = f"{method}_where", [' or '.join(terms)]
        found = self._home.read_all(method, args=args)
        if not isinstance(found, dict):
            raise self._senseless(f"{method} is no map")
        return found

    def _parsed(
        self,
        parse: typing.Callable[..., Parsed],
        *args: typing.Any,
        **kwargs: typing.Any,
    ) -> Parsed:
        """Return what ``parse`` makes of raw records.

        Tables are read one after the other, so a pool that changes in
        between may look senseless; a second look will be better.
        """
        try:
            return parse(*args, **kwargs)
        except fields.MalformedRecords as error:
            reason = str(error)
        raise self._senseless(reason)

    def _senseless(self, reason: str) -> exceptions.XapiUnavailable:
        return exceptions.XapiUnavailable(
            f"sent records that make no sense ({reason})", self.name
        )

    def _host_ref(self, uuid: str) -> typing.Any:
        return self.read('host.get_by_uuid', uuid)

    def _clock_offset(self, raw: Records) -> float | None:
        """Return by how many seconds the master's clock is ahead of ours."""
        pools = list(raw.get('pool', {}).values())
        if not pools:
            return None
        before = self._clock.time()
        try:
            theirs = self.read('host.get_servertime', pools[0].get('master'))
        except exceptions.XapiRefused as error:
            LOG.warning('The clock of %s is not known: %s', self.name, error)
            return None
        after = self._clock.time()
        struct = fields.Struct('host', '', {'uuid': '', 'clock': theirs})
        moment = self._parsed(struct.moment, 'clock')
        return None if moment is None else moment - (before + after) / 2


class LocalClient(_Door):
    """Speaks to one host itself, as master or member, also in emergency."""

    def is_in_emergency_mode(self) -> bool:
        """Say whether the host looks for its master in vain."""
        return bool(self.read('host.is_in_emergency_mode'))

    def assert_healthy(self) -> None:
        """Make sure that the host is not in emergency mode.

        :raises XapiUnavailable: it is; the message says why.
        """
        self.read('host.local_assert_healthy')


def _equal(field: str, values: typing.Iterable[str]) -> list[str]:
    """Return the terms of ``get_all_records_where`` for some values."""
    return [f'field "{field}" = "{value}"' for value in values]


def _says_nothing(cls: str, raw: Records) -> bool:
    """Say whether nothing that was read so far refers to a class.

    It is not worth a call then: no check asks for what nothing refers to.
    """
    if cls == 'Cluster':
        return raw.get('Cluster_host') == {}
    if cls == 'pool_update' and 'host' in raw:
        return not any(host.get('updates') for host in raw['host'].values())
    return False


def pending(door: Client, *methods: str) -> bool:
    """Say whether one of these calls is under way on a master.

    :param door: the master's client.
    :param methods: for example ``'pool.join'``.
    :raises XapiError: it cannot be seen.
    """
    return door.has_pending(*methods)
