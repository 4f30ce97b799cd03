# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Carry requests out through the driver, as Nova's compute manager did.

The calls, their order and the undo after a failure are Nova's
(``nova/compute/manager.py`` 21.x, ``add_aggregate_host`` and
``remove_aggregate_host``). One thing differs: Nova's API wrote the host into
the aggregate before the manager was asked, so that a failed request had to
be taken back. With an aggregate of our own store the driver writes host and
outcome in one transaction; there is nothing to take back, and the undo only
brings the caller's copy up to date.
"""

from __future__ import annotations

import collections.abc
import typing

from oslo_log import log

from xenpool_driver import base, exceptions, model, requests

LOG = log.getLogger(__name__)

Drivers = collections.abc.Mapping[str, base.PoolDriver]
"""{compute host name: the driver that owns it}."""


class ComputeManager:
    """Serves requests in this process.

    Every method takes an aggregate of Nova's shape and raises what the
    driver raises: ``InvalidAggregateAction`` when refused,
    ``AggregateError`` when tried and failed.

    :param drivers: the drivers, by the compute host that they own.
    """

    def __init__(self, drivers: Drivers) -> None:
        self._drivers = drivers

    def add_aggregate_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.AddHost,
        slave_info: base.SlaveInfo | None = None,
        progress: model.Progress | None = None,
    ) -> None:
        """Join ``host`` to the aggregate's pool.

        :param slave_info: names the host on whose behalf the join is made,
            when another service forwarded the request.
        :param progress: hears each phase.
        """
        driver = self._driver(host)
        try:
            driver.add_to_aggregate(
                context,
                aggregate,
                host,
                slave_info=slave_info,
                progress=progress,
                **requests.pack(options),
            )
        except exceptions.AggregateError:
            self._undo(driver, context, 'delete_host', aggregate, host)
            raise

    def remove_aggregate_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.RemoveHost,
        progress: model.Progress | None = None,
    ) -> None:
        """Eject ``host`` from the aggregate's pool.

        :param progress: hears each phase.
        """
        driver = self._driver(host)
        try:
            driver.remove_from_aggregate(
                context,
                aggregate,
                host,
                progress=progress,
                **requests.pack(options),
            )
        except exceptions.AggregateError:
            self._undo(driver, context, 'add_host', aggregate, host)
            raise
        except exceptions.InvalidAggregateAction:
            # As Nova: the host goes back, but a refusal is no failure.
            self._undo(driver, context, 'add_host', aggregate, host, False)
            raise

    def set_aggregate_master(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.SetMaster,
        progress: model.Progress | None = None,
    ) -> None:
        """Make ``host`` the master of the aggregate's pool."""
        self._driver(host).set_aggregate_master(
            context,
            aggregate,
            host,
            progress=progress,
            **requests.pack(options),
        )

    def rename_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        name: str,
    ) -> None:
        """Give the aggregate and its pool another name."""
        self._any_driver(aggregate).rename_aggregate(context, aggregate, name)

    def dismiss_aggregate(
        self, context: typing.Any, aggregate: model.AggregateLike
    ) -> None:
        """Delete the aggregate, which has no hosts any more."""
        self._any_driver(aggregate).dismiss_aggregate(context, aggregate)

    def release_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Let the aggregate's pool go; no host is touched."""
        return self._any_driver(aggregate).release_aggregate(
            context, aggregate, progress=progress
        )

    def adopt_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        replace_stamp: str | None = None,
    ) -> None:
        """Take over the pool that ``host`` belongs to, as it stands."""
        self._driver(host).adopt_aggregate(
            context, aggregate, host, replace_stamp=replace_stamp
        )

    def check_hosts(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        hosts: collections.abc.Sequence[str],
        options: requests.CheckHosts,
    ) -> list[model.Report]:
        """Say what speaks against adding ``hosts``; change nothing."""
        return self._driver(hosts[0]).check_hosts(
            context, aggregate, hosts, **requests.pack(options)
        )

    def check_removal(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.RemoveHost,
    ) -> model.Report:
        """Say what speaks against removing ``host``, and what it loses."""
        return self._driver(host).check_removal(
            context, aggregate, host, **requests.pack(options)
        )

    def audit_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        options: requests.Audit,
    ) -> model.Report:
        """Compare what the aggregate says with what XAPI says."""
        return self._any_driver(aggregate).audit_aggregate(
            context, aggregate, **requests.pack(options)
        )

    def recover_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        options: requests.Recover,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Settle what dead workers left behind, by looking at XAPI."""
        return self._any_driver(aggregate).recover_aggregate(
            context, aggregate, progress=progress, **requests.pack(options)
        )

    def _driver(self, host: str) -> base.PoolDriver:
        """Return the driver that owns ``host``, or one that can act for it.

        A request about a host that this service does not own comes from the
        service that does (Nova's forwarding), or concerns a host that is
        dead: the master's driver acts for it.
        """
        driver = self._drivers.get(host)
        if driver is None:
            driver = next(iter(self._drivers.values()), None)
        if driver is None:
            raise exceptions.ConfigurationError(
                'no host is configured: name some in [DEFAULT] enabled_hosts '
                'and give each a section'
            )
        return driver

    def _any_driver(self, aggregate: model.AggregateLike) -> base.PoolDriver:
        """Return the driver of the first host that is ours, or any."""
        ours = [host for host in aggregate.hosts if host in self._drivers]
        return self._driver(ours[0] if ours else '')

    def _undo(
        self,
        driver: base.PoolDriver,
        context: typing.Any,
        operation: str,
        aggregate: model.AggregateLike,
        host: str,
        set_error: bool = True,
    ) -> None:
        """Bring the caller's membership back in line after a failure.

        Whatever happens here, the caller must hear of the failure itself; a
        second one is logged beside it.
        """

        def refresh(_host: str) -> None:
            getattr(aggregate, 'refresh', lambda: None)()

        refresh.__name__ = operation
        try:
            driver.undo_aggregate_operation(
                context,
                getattr(aggregate, operation, refresh),
                aggregate,
                host,
                set_error,
            )
        except exceptions.XenpoolError as error:
            LOG.error(
                'aggregate %s: %s of %s could not be undone: %s',
                aggregate.name,
                operation,
                host,
                error,
            )
