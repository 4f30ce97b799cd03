# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a user may ask of aggregates: the one way in for every front end.

As Nova's ``AggregateAPI``, it works on the aggregates in our store and has
the compute manager do whatever needs a host: in this process, or through
the services on the bus.
"""

from __future__ import annotations

import collections.abc
import concurrent.futures
import copy
import dataclasses
import functools
import typing

from oslo_config import cfg

from xenpool_driver import (
    base,
    exceptions,
    model,
    pool_states,
    requests,
    store,
)

SUCCEEDED = 'succeeded'
FAILED = 'failed'
REFUSED = 'refused'


class Compute(typing.Protocol):
    """Who does the work: ``manager.ComputeManager`` or
    ``rpcapi.ComputeAPI``."""

    def add_aggregate_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.AddHost,
        slave_info: base.SlaveInfo | None = None,
        progress: model.Progress | None = None,
    ) -> None:
        """Join ``host``."""

    def remove_aggregate_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.RemoveHost,
        progress: model.Progress | None = None,
    ) -> None:
        """Eject ``host``."""

    def set_aggregate_master(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.SetMaster,
        progress: model.Progress | None = None,
    ) -> None:
        """Make ``host`` the master."""

    def rename_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        name: str,
    ) -> None:
        """Rename aggregate and pool."""

    def dismiss_aggregate(
        self, context: typing.Any, aggregate: model.AggregateLike
    ) -> None:
        """Delete the aggregate."""

    def release_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Let the pool go."""

    def adopt_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        replace_stamp: str | None = None,
    ) -> None:
        """Take the pool of ``host`` over."""

    def check_hosts(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        hosts: collections.abc.Sequence[str],
        options: requests.CheckHosts,
    ) -> list[model.Report]:
        """Judge ``hosts`` together."""

    def check_removal(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.RemoveHost,
    ) -> model.Report:
        """Judge the removal of ``host``."""

    def audit_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        options: requests.Audit,
    ) -> model.Report:
        """Compare aggregate and pool."""

    def recover_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        options: requests.Recover,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Settle what was left behind."""


@dataclasses.dataclass(frozen=True)
class HostResult:
    """What came of one host of a request that names several.

    :ivar host: its compute host name.
    :ivar outcome: :data:`SUCCEEDED`, :data:`FAILED` or :data:`REFUSED`.
    :ivar error: what was raised, or None.
    """

    host: str
    outcome: str
    error: exceptions.XenpoolError | None = None

    @property
    def reason(self) -> str:
        """Why it did not succeed, in words; '' when it did."""
        if self.error is None:
            return ''
        return str(getattr(self.error, 'reason', self.error))


class AggregateAPI:
    """Everything that can be asked of aggregates.

    :param conf: the options.
    :param database: where the aggregates are.
    :param connect: returns who does what needs a host; called when something
        does.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        database: store.Store,
        connect: typing.Callable[[], Compute],
    ) -> None:
        self._conf = conf
        self._store = database
        self._connect = connect

    @functools.cached_property
    def _compute(self) -> Compute:
        return self._connect()

    def create(
        self,
        name: str,
        metadata: collections.abc.Mapping[str, str] | None = None,
    ) -> store.Aggregate:
        """Ask for an aggregate that is a pool; it has no hosts yet.

        :param metadata: the user's own keys.
        :raises AggregateNameExists: the name is in use.
        :raises InvalidAggregateActionUpdate: a key is not the user's.
        """
        own = dict(metadata or {})
        self._refuse_keys(name, (), own)
        return self._store.create_aggregate(
            name,
            {
                **own,
                pool_states.POOL_FLAG: 'true',
                pool_states.STATE: pool_states.CREATED,
            },
        )

    def get(self, ident: str) -> store.Aggregate:
        """Return the aggregate with this name, id or uuid.

        :raises AggregateNotFound: there is none.
        """
        return self._store.get_aggregate(ident)

    def list_all(self, dismissed: bool = False) -> list[store.Aggregate]:
        """Return all aggregates, those that were dismissed only if asked."""
        return self._store.list_aggregates(dismissed=dismissed)

    def update(
        self,
        context: typing.Any,
        ident: str,
        name: str | None = None,
        metadata: model.MetadataChanges | None = None,
    ) -> store.Aggregate:
        """Change the user's own metadata, or rename aggregate and pool.

        :param metadata: merged; None deletes a key.
        :raises InvalidAggregateActionUpdate: a key is not the user's.
        """
        aggregate = self.get(ident)
        changes = dict(metadata or {})
        self._refuse_keys(aggregate.name, aggregate.hosts, changes)
        if changes:
            aggregate = self._store.update_metadata(
                aggregate.uuid, aggregate.generation, changes
            )
        if name is None:
            return aggregate
        if not aggregate.metadata.get(pool_states.MASTER):
            return self._store.rename(
                aggregate.uuid, aggregate.generation, name
            )
        self._compute.rename_aggregate(context, aggregate, name)
        aggregate.refresh()
        return aggregate

    def delete(self, context: typing.Any, ident: str) -> None:
        """Dismiss an aggregate that has no hosts."""
        self._compute.dismiss_aggregate(context, self.get(ident))

    def release(
        self,
        context: typing.Any,
        ident: str,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Let the pool of an aggregate go; no host is touched.

        :param ident: one that is dismissed already is found, too.
        """
        aggregate = self._store.get_aggregate(ident, dismissed=True)
        return self._compute.release_aggregate(
            context, aggregate, progress=progress
        )

    def add_hosts(
        self,
        context: typing.Any,
        ident: str,
        hosts: collections.abc.Sequence[str],
        *,
        force: bool = False,
        suspend_ha: bool = False,
        restore_settings: bool = False,
        progress: model.Progress | None = None,
    ) -> list[HostResult]:
        """Add hosts: all are judged first, then one is added alone until
        there is a master, then the rest, at most ``[xenpool]
        max_parallel_joins`` at a time.

        A host that is refused or fails does not stop the others. What is
        done already succeeds, so that a run may be repeated.

        :returns: a result per host, in the order of ``hosts``.
        :raises AggregateNotFound: there is no such aggregate.
        """
        aggregate = self.get(ident)
        options = requests.AddHost(
            force=force,
            suspend_ha=suspend_ha,
            restore_settings=restore_settings,
        )
        results = self._refused_at_once(context, aggregate, hosts, options)
        pending = [
            host for host in dict.fromkeys(hosts) if host not in results
        ]
        while pending and not aggregate.metadata.get(pool_states.MASTER):
            host = pending.pop(0)
            results[host] = self._add_host(
                context, aggregate, host, options, progress
            )
            aggregate.refresh()

        def add(host: str) -> HostResult:
            mine = copy.copy(aggregate)  # the driver brings it up to date
            return self._add_host(context, mine, host, options, progress)

        limit = self._conf.xenpool.max_parallel_joins
        with concurrent.futures.ThreadPoolExecutor(limit) as workers:
            for result in workers.map(add, pending):
                results[result.host] = result
        return [results[host] for host in dict.fromkeys(hosts)]

    def _refused_at_once(
        self,
        context: typing.Any,
        aggregate: store.Aggregate,
        hosts: collections.abc.Sequence[str],
        options: requests.AddHost,
    ) -> dict[str, HostResult]:
        """Judge the hosts of one request together, before any is touched.

        One alone is judged at its own turn.
        """
        if len(set(hosts)) < 2:
            return {}
        try:
            reports = self.check_hosts(
                context,
                aggregate.uuid,
                hosts,
                force=options.force,
                suspend_ha=options.suspend_ha,
            )
        except exceptions.InvalidAggregateAction as error:
            return {
                host: HostResult(host, REFUSED, error)
                for host in dict.fromkeys(hosts)
            }
        results = {}
        for host, report in zip(dict.fromkeys(hosts), reports, strict=True):
            if report.failures:
                reasons = '; '.join(each.message for each in report.failures)
                refusal = exceptions.InvalidAggregateActionAdd(
                    aggregate.name, reasons, report
                )
                results[host] = HostResult(host, REFUSED, refusal)
        return results

    def remove_host(
        self,
        context: typing.Any,
        ident: str,
        host: str,
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
        """Remove a host from the aggregate and its pool.

        :raises AggregateHostNotFound: it or the successor is not in the
            aggregate.
        """
        aggregate = self._with_host(ident, host)
        if successor is not None:
            self._with_host(ident, successor)
        options = requests.RemoveHost(
            successor=successor,
            allow_data_loss=allow_data_loss,
            forget=forget,
            drain=drain,
            keep_disabled=keep_disabled,
            wait=wait,
            suspend_ha=suspend_ha,
        )
        self._compute.remove_aggregate_host(
            context, aggregate, host, options, progress
        )

    def set_master(
        self,
        context: typing.Any,
        ident: str,
        host: str,
        *,
        suspend_ha: bool = False,
        progress: model.Progress | None = None,
    ) -> None:
        """Make a host of the aggregate the master of its pool.

        :raises AggregateHostNotFound: it is not in the aggregate.
        """
        aggregate = self._with_host(ident, host)
        self._compute.set_aggregate_master(
            context,
            aggregate,
            host,
            requests.SetMaster(suspend_ha=suspend_ha),
            progress,
        )

    def adopt(
        self,
        context: typing.Any,
        name: str,
        host: str,
        replace_stamp: str | None = None,
    ) -> store.Aggregate:
        """Make an aggregate of the pool that ``host`` belongs to.

        When that is refused, no aggregate stays behind.

        :param replace_stamp: another controller's stamp that is replaced.
        """
        aggregate = self.create(name)
        try:
            self._compute.adopt_aggregate(
                context, aggregate, host, replace_stamp=replace_stamp
            )
        except exceptions.AggregateError:
            raise
        except exceptions.XenpoolError:
            aggregate.refresh()
            if (
                aggregate.state == pool_states.CREATED
                and not self._store.discard_aggregate(aggregate.uuid)
            ):
                self._compute.dismiss_aggregate(context, aggregate)
            raise
        aggregate.refresh()
        return aggregate

    def check_hosts(
        self,
        context: typing.Any,
        ident: str,
        hosts: collections.abc.Sequence[str],
        *,
        force: bool = False,
        suspend_ha: bool = False,
    ) -> list[model.Report]:
        """Judge each host in the company of the others; change nothing."""
        return self._compute.check_hosts(
            context,
            self.get(ident),
            list(dict.fromkeys(hosts)),
            requests.CheckHosts(force=force, suspend_ha=suspend_ha),
        )

    def check_removal(
        self,
        context: typing.Any,
        ident: str,
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
        """Say what speaks against removing a host, and what is lost.

        The options are those of :meth:`remove_host`: what is judged is the
        very removal that they ask for.

        :raises AggregateHostNotFound: it or the successor is not in the
            aggregate.
        """
        if successor is not None:
            self._with_host(ident, successor)
        options = requests.RemoveHost(
            successor=successor,
            allow_data_loss=allow_data_loss,
            forget=forget,
            drain=drain,
            keep_disabled=keep_disabled,
            wait=wait,
            suspend_ha=suspend_ha,
        )
        return self._compute.check_removal(
            context, self._with_host(ident, host), host, options
        )

    def audit(
        self, context: typing.Any, ident: str, fix: bool = False
    ) -> model.Report:
        """Compare what the aggregate says with what XAPI says."""
        return self._compute.audit_aggregate(
            context, self.get(ident), requests.Audit(fix=fix)
        )

    def recover(
        self,
        context: typing.Any,
        ident: str,
        options: requests.Recover = requests.RECOVER,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Settle what dead workers left behind.

        :raises AggregateHostNotFound: whom to promote is not in the
            aggregate.
        """
        if options.promote is not None:
            self._with_host(ident, options.promote)
        return self._compute.recover_aggregate(
            context, self.get(ident), options, progress=progress
        )

    def _add_host(
        self,
        context: typing.Any,
        aggregate: store.Aggregate,
        host: str,
        options: requests.AddHost,
        progress: model.Progress | None,
    ) -> HostResult:
        try:
            self._compute.add_aggregate_host(
                context, aggregate, host, options, progress=progress
            )
        except (
            exceptions.InvalidAggregateAction,
            exceptions.RequestWithdrawn,
        ) as error:
            return HostResult(host, REFUSED, error)
        except exceptions.XenpoolError as error:
            return HostResult(host, FAILED, error)
        return HostResult(host, SUCCEEDED)

    def _with_host(self, ident: str, host: str) -> store.Aggregate:
        aggregate = self.get(ident)
        if host not in aggregate.hosts:
            raise exceptions.AggregateHostNotFound(
                f"host '{host}' is not in aggregate '{aggregate.name}', "
                f"which has {', '.join(aggregate.hosts) or 'no hosts'}"
            )
        return aggregate

    def _refuse_keys(
        self,
        name: str,
        hosts: collections.abc.Iterable[str],
        changes: collections.abc.Mapping[str, str | None],
    ) -> None:
        """Refuse changes to the metadata in which the lifecycle is kept."""
        ours = {
            *pool_states.RESERVED_KEYS,
            *hosts,
            *self._conf.enabled_hosts,
        } - {'availability_zone'}
        for key, value in changes.items():
            # HA that is not as it was can be given up.
            if key == pool_states.HA_SUSPENDED and value is None:
                continue
            if key in ours:
                raise exceptions.InvalidAggregateActionUpdate(
                    name, f"metadata key '{key}' is kept by the pool driver"
                )
