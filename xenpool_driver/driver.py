# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The plug-in: aggregate operations on real pools through XenAPI.

Each method says which verb a request is, and runs it in the frame of
:mod:`xenpool_driver.operation`. The aggregate that is handed in names the
aggregate; what the driver knows of it comes from the driver's own store, so
stale copies and foreign services do no harm. What is decided is mirrored
into the aggregate's metadata.
"""

from __future__ import annotations

import collections.abc
import typing

from oslo_config import cfg
from oslo_log import log

from xenpool_driver import (
    base,
    clock,
    exceptions,
    model,
    operation,
    pool_states,
    requests,
    store,
    verbs,
)
from xenpool_driver import conf as config
from xenpool_driver.xapi import connections, session

LOG = log.getLogger(__name__)


class XenAPIPoolDriver(base.PoolDriver):
    """Pools of XenServer and XCP-ng hosts.

    :param virtapi: callbacks into the compute service (those of
        :class:`base.VirtAPI` that it has), or None.
    :param conf: the options; None reads the usual files.
    :param database: the store, where the caller has one open already.
    :param session_factory: makes XenAPI sessions; for tests.
    :param time: the clock; for tests.
    """

    def __init__(
        self,
        virtapi: typing.Any = None,
        conf: cfg.ConfigOpts | None = None,
        *,
        database: store.Store | None = None,
        session_factory: typing.Callable[..., typing.Any] | None = None,
        time: clock.Clock = clock.SYSTEM,
    ) -> None:
        conf = conf or config.load()
        super().__init__(virtapi, conf)
        hosts = config.known_hosts(conf)
        _refuse_names(hosts)
        self.site = operation.Site(
            conf=conf,
            store=database or store.open_store(conf, clock=time),
            connections=connections.shared(
                hosts,
                time,
                conf.xenpool.probe_timeout,
                session_factory or session.FACTORY,
            ),
            clock=time,
        )
        self._hosts = hosts

    def close(self) -> None:
        """Log out everywhere and close the store."""
        self.site.connections.close()
        self.site.store.close()

    def init_host(self, host: str) -> None:
        config.host_access(self.site.conf, host)
        for interrupted in self.site.store.expired_operations():
            row = self.site.store.get_aggregate(
                interrupted.aggregate_uuid, dismissed=True
            )
            concerned = (interrupted.host, *row.hosts)
            if host in concerned or not any(concerned):
                self._settle(row, interrupted)

    def add_to_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        slave_info: base.SlaveInfo | None = None,
        *,
        force: bool = False,
        suspend_ha: bool = False,
        restore_settings: bool = False,
        progress: model.Progress | None = None,
    ) -> None:
        row = self._ready(aggregate, joins=host, progress=progress)
        if row is None:
            return
        options = requests.AddHost(
            force=force,
            suspend_ha=suspend_ha,
            restore_settings=restore_settings,
        )
        if self._forwarded(context, row, aggregate, host, slave_info, options):
            return
        verb: operation.Verb
        if row.metadata.get(pool_states.MASTER):
            verb = verbs.Join(
                self.site,
                row,
                host,
                force=options.force,
                suspend_ha=options.suspend_ha,
                restore_settings=options.restore_settings,
            )
        else:
            verb = verbs.SetUp(self.site, row, host)
        try:
            self._perform(verb, aggregate, context, progress)
        except exceptions.InvalidAggregateAction:
            self._take_back(context, aggregate, host)
            raise

    def remove_from_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        slave_info: base.SlaveInfo | None = None,
        *,
        successor: str | None = None,
        allow_data_loss: bool = False,
        forget: bool = False,
        drain: bool = False,
        keep_disabled: bool = False,
        wait: bool = False,
        suspend_ha: bool = False,
        progress: model.Progress | None = None,
    ) -> None:
        row = self._ready(aggregate, leaves=host, progress=progress)
        if row is None:
            return
        next_master = _next_master(row, host, successor)

        options = requests.RemoveHost(
            successor=successor,
            allow_data_loss=allow_data_loss,
            forget=forget,
            drain=drain,
            keep_disabled=keep_disabled,
            wait=wait,
            suspend_ha=suspend_ha,
        )
        removal = self._removal(row, host, next_master, options)
        if next_master:
            handover = verbs.HandOver(
                self.site,
                row,
                next_master,
                suspend_ha=suspend_ha,
                removal=removal,
            )
            row = self._hand_over(handover, host, aggregate, context, progress)
            removal = self._removal(row, host, next_master, options)
        try:
            self._perform(removal, aggregate, context, progress)
        except exceptions.InvalidAggregateAction as error:
            if not next_master:
                raise
            raise _half_done(row, host, next_master, error) from error

    def _removal(
        self,
        row: store.Aggregate,
        host: str,
        next_master: str,
        options: requests.RemoveHost,
    ) -> verbs.Leaving | verbs.Clear:
        """Return the verb that removes a host.

        :param next_master: the compute host that will be the master by then;
            '' when the master does not change.
        """
        if verbs.is_last(row, host):
            return verbs.Clear(self.site, row, host, forget=options.forget)
        if options.forget:
            return verbs.Forget(
                self.site, row, host, suspend_ha=options.suspend_ha
            )
        allowed = self.site.conf.xenpool.allow_data_loss
        return verbs.Eject(
            self.site,
            row,
            host,
            allow_data_loss=options.allow_data_loss or allowed,
            drain=options.drain,
            keep_disabled=options.keep_disabled,
            wait=options.wait,
            suspend_ha=options.suspend_ha,
            successor=next_master,
        )

    def _hand_over(
        self,
        verb: operation.Verb,
        host: str,
        aggregate: model.AggregateLike,
        context: typing.Any,
        progress: model.Progress | None,
    ) -> store.Aggregate:
        """Make another host the master so that ``host`` can be removed.

        :raises InvalidAggregateAction: one of the two steps is refused;
            nothing happened.
        :raises AggregateError: the master was not changed.
        """
        try:
            return self._perform(verb, aggregate, context, progress)
        except exceptions.AggregateError as error:
            raise exceptions.AggregateError(
                verb.row.name,
                f"remove_from_aggregate {host}",
                f"{host} was not removed, since '{verb.host}' was to be the "
                f"master first: {error.reason}",
            ) from error

    def undo_aggregate_operation(
        self,
        context: typing.Any,
        op: typing.Callable[[str], typing.Any],
        aggregate: model.AggregateLike,
        host: str,
        set_error: bool = True,
    ) -> None:
        row = self._load(aggregate)
        if row is None:
            return
        adds = getattr(op, '__name__', '') == 'add_host'
        member = host in row.hosts
        if adds == member == (host in aggregate.hosts):
            return
        if adds != member:
            LOG.warning(
                'Not undone: %s %s in aggregate %s, and the pool agrees',
                host,
                'is' if member else 'is not',
                row.name,
            )
            return
        try:
            op(host)
        except Exception as error:
            raise exceptions.AggregateError(
                row.name, f"undo for {host}", str(error)
            ) from error
        self._mirror(aggregate, self._load(aggregate) or row, host)

    def _take_back(
        self, context: typing.Any, aggregate: model.AggregateLike, host: str
    ) -> None:
        """Take a refused host out of a foreign service's aggregate.

        Nova's API writes the host down before anybody is asked, and Nova's
        manager takes back what has failed, but not what was refused
        (``nova/compute/manager.py`` 21.x, ``add_aggregate_host``).
        """
        delete = getattr(aggregate, 'delete_host', None)
        if delete is None:
            return
        try:
            self.undo_aggregate_operation(
                context, delete, aggregate, host, set_error=False
            )
        except exceptions.XenpoolError as error:
            LOG.error('%s', error)

    def set_aggregate_master(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        suspend_ha: bool = False,
        progress: model.Progress | None = None,
    ) -> None:
        row = self._ready(aggregate, progress=progress)
        if row is not None:
            verb = verbs.SetMaster(self.site, row, host, suspend_ha=suspend_ha)
            self._perform(verb, aggregate, context, progress)

    def rename_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        name: str,
    ) -> None:
        row = self._ready(aggregate)
        if row is None:
            return
        verb = verbs.Rename(self.site, row, '', new_name=name)
        self._perform(verb, aggregate, context, None)

    def dismiss_aggregate(
        self, context: typing.Any, aggregate: model.AggregateLike
    ) -> None:
        row = self._ready(aggregate)
        if row is not None:
            self._perform(
                verbs.Dismiss(self.site, row, ''), aggregate, context, None
            )

    def release_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        row = self._load(aggregate)
        if row is None:
            return model.Report(str(aggregate.name))
        if row.state == pool_states.DISMISSED:
            return model.Report(row.name, (_DISMISSED_ALREADY,))
        findings = self._abandon(row, progress)
        row = self._load(aggregate) or row
        verb = verbs.Release(self.site, row, '')
        self._perform(verb, aggregate, context, progress)
        if not isinstance(aggregate, store.Aggregate):
            _empty(aggregate)
        return model.Report(row.name, (*findings, *verb.findings))

    def _abandon(
        self, row: store.Aggregate, progress: model.Progress | None
    ) -> list[model.Finding]:
        """End what dead workers left behind, without a look at XAPI.

        :raises InvalidAggregateActionDelete: another worker is alive.
        """
        verb = verbs.Release(self.site, row, '')
        running = self.site.store.running_operations(row.uuid)
        expired = self.site.store.expired_operations(row.uuid)
        dead = {each.uuid for each in expired}
        operation.refuse_company(
            verb, row, [each for each in running if each.uuid not in dead]
        )
        findings = []
        for interrupted in expired:
            operation.abandon(
                self.site, interrupted, progress or operation.silent
            )
            story = f"{interrupted.kind} of {interrupted.host or 'the pool'}"
            findings.append(
                model.Finding(
                    'interrupted-operation',
                    model.Severity.WARN,
                    f"{story} was left by a dead worker in phase "
                    f"{interrupted.phase}; its outcome is unknown",
                    f"xenpool operation show {interrupted.uuid}",
                )
            )
            findings += verbs.left_behind(row, interrupted)
        return findings

    def adopt_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        replace_stamp: str | None = None,
    ) -> None:
        row = self._ready(aggregate)
        if row is not None:
            verb = verbs.Adopt(
                self.site,
                row,
                host,
                self._hosts,
                replace_stamp=replace_stamp or '',
            )
            self._perform(verb, aggregate, context, None)

    def check_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        force: bool = False,
    ) -> model.Report:
        (report,) = self.check_hosts(context, aggregate, [host], force=force)
        return report

    def check_hosts(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        hosts: collections.abc.Sequence[str],
        *,
        force: bool = False,
        suspend_ha: bool = False,
    ) -> list[model.Report]:
        row = self._load(aggregate)
        if row is None:
            return [model.Report(host) for host in hosts]
        return verbs.check_hosts(
            self.site, row, hosts, force=force, suspend_ha=suspend_ha
        )

    def check_removal(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        successor: str | None = None,
        allow_data_loss: bool = False,
        forget: bool = False,
        drain: bool = False,
        keep_disabled: bool = False,
        wait: bool = False,
        suspend_ha: bool = False,
    ) -> model.Report:
        row = self._load(aggregate)
        if row is None:
            return model.Report(host)
        options = requests.RemoveHost(
            successor=successor,
            allow_data_loss=allow_data_loss,
            forget=forget,
            drain=drain,
            keep_disabled=keep_disabled,
            wait=wait,
            suspend_ha=suspend_ha,
        )
        next_master = _next_master(row, host, successor)
        removal = self._removal(row, host, next_master, options)
        handover = None
        if next_master:
            handover = verbs.HandOver(
                self.site, row, next_master, suspend_ha=suspend_ha
            )
        return verbs.check_remove(row, removal, handover)

    def audit_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        fix: bool = False,
    ) -> model.Report:
        row = self._load(aggregate)
        if row is None:
            return model.Report(str(aggregate.name))
        report = verbs.audit(self.site, row, fix)
        if fix:
            self._mirror(aggregate, self._load(aggregate) or row)
        return report

    def recover_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        promote: str | None = None,
        master_is_off: bool = False,
        force: str | None = None,
        progress: model.Progress | None = None,
    ) -> model.Report:
        row = self._load(aggregate)
        if row is None:
            return model.Report(str(aggregate.name))
        findings = []
        if force:
            dead = verbs.end_by_hand(self.site, row, force)
            findings += self._settle(row, dead, progress, force=True)
        findings += [
            finding
            for interrupted in self.site.store.expired_operations(row.uuid)
            for finding in self._settle(row, interrupted, progress)
        ]
        findings += verbs.held(self.site, row)
        if not findings and not promote:
            findings.append(verbs.nothing_held())
        if promote:
            row = self._load(aggregate) or row
            verb = verbs.Promote(
                self.site, row, promote, master_is_off=master_is_off
            )
            self._perform(verb, aggregate, context, progress)
            findings += verb.findings
        findings += verbs.last_look(self.site, self._load(aggregate) or row)
        row = self._load(aggregate) or row
        self._mirror(aggregate, row)
        findings += verbs.unrestored_ha(self.site, row)
        return model.Report(row.name, tuple(findings))

    def _load(
        self,
        aggregate: model.AggregateLike,
        joins: str = '',
        leaves: str = '',
    ) -> store.Aggregate | None:
        """Return our own row of the aggregate; None if it is no pool.

        :param joins: the host that the request adds, if it does.
        :param leaves: the host that the request removes, if it does.
        """
        try:
            row = self.site.store.get_aggregate(aggregate.uuid, dismissed=True)
        except exceptions.AggregateNotFound:
            if not pool_states.is_hv_pool(aggregate.metadata):
                return None
            found = verbs.members(self.site, aggregate, joins, leaves)
            row = self.site.store.track_aggregate(
                aggregate.uuid,
                aggregate.name,
                {**aggregate.metadata, **found.uuids},
                found.hosts,
            )
        return row if pool_states.is_hv_pool(row.metadata) else None

    def _ready(
        self,
        aggregate: model.AggregateLike,
        joins: str = '',
        leaves: str = '',
        progress: model.Progress | None = None,
    ) -> store.Aggregate | None:
        """Return our own row, with what lay expired settled; None if it is
        no pool.

        :param joins: as for :meth:`_load`.
        :param leaves: as for :meth:`_load`.
        :param progress: hears of what is settled.
        """
        row = self._load(aggregate, joins, leaves)
        if row is None:
            return None
        expired = self.site.store.expired_operations(row.uuid)
        for interrupted in expired:
            self._settle(row, interrupted, progress)
        return self._load(aggregate) if expired else row

    def _perform(
        self,
        verb: operation.Verb,
        aggregate: model.AggregateLike,
        context: typing.Any,
        progress: model.Progress | None,
    ) -> store.Aggregate:
        """Run the verb, mirror what came of it.

        Of two errors the caller hears the verb's own.
        """
        try:
            row = operation.perform(
                verb,
                progress or operation.silent,
                getattr(context, 'request_id', None),
                getattr(context, 'sent_request', None),
            )
        except Exception:
            row = self.site.store.get_aggregate(verb.row.uuid, dismissed=True)
            try:
                self._mirror(aggregate, row, verb.host, *verb.row.hosts)
            except exceptions.AggregateError as error:
                LOG.error('%s', error)
            raise
        self._mirror(aggregate, row, verb.host, *verb.row.hosts)
        return row

    def _settle(
        self,
        row: store.Aggregate,
        interrupted: store.Operation,
        progress: model.Progress | None = None,
        force: bool = False,
    ) -> list[model.Finding]:
        """Take an interrupted operation over and say what came of it."""
        verb = verbs.for_operation(self.site, row, interrupted, self._hosts)
        story = f"{interrupted.kind} of {interrupted.host or 'the pool'}"
        try:
            operation.resume(
                verb, interrupted, progress or operation.silent, force
            )
        except (exceptions.LeaseLost, exceptions.ConfigurationError) as error:
            severity = model.Severity.FAIL  # a script must not go on
            end = f"is not settled: {error}"
        except (
            exceptions.AggregateError,
            exceptions.InvalidAggregateAction,
        ) as error:
            severity = model.Severity.WARN
            end = f"is settled as not done: {error.reason}"
        else:
            severity, end = model.Severity.PASS, 'is settled: it is done'
        LOG.info('Aggregate %s: %s %s', row.name, story, end)
        finding = model.Finding(
            'interrupted-operation', severity, f"{story} {end}"
        )
        return [finding, *verb.findings]

    def _mirror(
        self,
        aggregate: model.AggregateLike,
        row: store.Aggregate,
        *hosts: str,
    ) -> None:
        """Bring the caller's copy up to date with the store.

        A foreign copy may be stale, so every key of ours is written, and the
        concerned hosts' keys even when they are gone (None deletes one).

        :param hosts: whom the request concerned.
        :raises AggregateError: the caller's copy cannot be written.
        """
        if isinstance(aggregate, store.Aggregate):
            aggregate.become(row)
            return
        keys = {
            pool_states.STATE,
            pool_states.MASTER,
            pool_states.POOL_UUID,
            pool_states.FAILED_REQUESTS,
            *row.hosts,
            *filter(None, hosts),
        }
        try:
            aggregate.update_metadata(
                {key: row.metadata.get(key) for key in sorted(keys)}
            )
        except Exception as error:  # whatever a foreign service raises
            raise exceptions.AggregateError(
                row.name,
                'update_metadata',
                f"{type(error).__name__}: {error}; the next request about "
                f"the aggregate writes it anew",
            ) from error

    def _forwarded(
        self,
        context: typing.Any,
        row: store.Aggregate,
        aggregate: model.AggregateLike,
        host: str,
        slave_info: base.SlaveInfo | None,
        options: requests.AddHost,
    ) -> bool:
        """Hand a join to the master's service if ours will go down in it.

        A service that runs in a guest on the joining host cannot outlive the
        join. It names the host; the password stays where it is.
        """
        guest = self.site.connections.access(host).compute_vm_uuid
        master = row.metadata.get(pool_states.MASTER)
        virtapi: base.VirtAPI | None = None
        if hasattr(self.virtapi, 'forward_add'):
            virtapi = self.virtapi
        if not guest or not master or slave_info is not None or not virtapi:
            return False
        _, uuid = self.site.connections.client(host).this_host()
        virtapi.forward_add(
            context,
            aggregate,
            host,
            master,
            {'host': host, 'host_uuid': uuid, 'compute_vm_uuid': guest},
            options,
        )
        return True


_DISMISSED_ALREADY = model.Finding(
    'released', model.Severity.PASS, 'the aggregate is dismissed already'
)


def _empty(aggregate: model.AggregateLike) -> None:
    """Take every host out of a foreign service's aggregate.

    :raises AggregateError: that cannot be written.
    """
    delete = getattr(aggregate, 'delete_host', None)
    if delete is None:
        return
    for host in list(aggregate.hosts):
        try:
            delete(host)
        except Exception as error:  # whatever a foreign service raises
            raise exceptions.AggregateError(
                aggregate.name, f"delete_host {host}", str(error)
            ) from error


def _half_done(
    row: store.Aggregate,
    host: str,
    next_master: str,
    error: exceptions.InvalidAggregateAction,
) -> exceptions.AggregateError:
    """Return what is said of a removal that is refused after a hand-over:
    something has happened, so it is no refusal."""
    return exceptions.AggregateError(
        row.name,
        f"remove_from_aggregate {host}",
        f"'{next_master}' is the master now, as was asked for; then the "
        f"removal was refused: {error.reason}",
    )


def _next_master(
    row: store.Aggregate, host: str, successor: str | None
) -> str:
    """Return who will be the master when ``host`` is removed; '' where the
    master does not change for that."""
    if successor and successor != host and verbs.is_master(row, host):
        return successor
    return ''


def _refuse_names(hosts: collections.abc.Iterable[str]) -> None:
    """Refuse hosts whose names mean something else in metadata.

    :raises ConfigurationError: naming the first.
    """
    for name in sorted(pool_states.RESERVED_KEYS.intersection(hosts)):
        raise exceptions.ConfigurationError(
            f"a host cannot be called '{name}': in the metadata of an "
            f"aggregate that key has another meaning"
        )
