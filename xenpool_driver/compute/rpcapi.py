# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The compute services as seen from elsewhere: one method per request.

No message carries a password: an aggregate travels by its names and what is
recorded of it, a host by its name, and whoever receives the request has the
credentials in a configuration of its own.
"""

from __future__ import annotations

import collections.abc
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
from xenpool_driver.compute import broker, bus, delivery, failures

MONITOR_SECONDS = 10
"""A service that works on a request says so twice in this time; one that
has not for so long is taken to be gone. For so long, too, a service may take
the request after it was sent."""

READS = frozenset({'check_hosts', 'check_removal'})
"""Requests that change nothing, so that nobody need know what became of
them."""

BROKER_RETRIES = 2
"""How often to try again when the broker does not answer."""

Server = str | None


class ComputeAPI:
    """Has requests served by the services on the bus.

    Its methods are those of ``manager.ComputeManager``, with one parameter
    more: ``server``, the host whose service shall serve the request. What
    that service raises is raised here. A listener cannot travel, so
    ``progress`` hears nothing; the journal tells how the request goes.

    :param conf: the options.
    :param database: the one that the services work with: where it is found
        out what became of a request whose service is silent.
    :param transport: the bus; by default the one that the options name.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        database: store.Store,
        transport: typing.Any = None,
    ) -> None:
        self._sender = delivery.Sender(database, MONITOR_SECONDS)
        self._timeout = longest_request(conf)
        self._bus = transport or broker.connect(conf)
        self._client = bus.client(self._bus, BROKER_RETRIES)

    def add_aggregate_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.AddHost,
        slave_info: base.SlaveInfo | None = None,
        progress: model.Progress | None = None,
        *,
        server: Server = None,
    ) -> None:
        """Join ``host``; served by its own service, or by ``server``'s."""
        self._call(
            context,
            server or host,
            'add_aggregate_host',
            aggregate,
            host=host,
            slave_info=None if slave_info is None else dict(slave_info),
            options=requests.pack(options),
        )

    def remove_aggregate_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.RemoveHost,
        progress: model.Progress | None = None,
    ) -> None:
        """Eject ``host``; served by :func:`remaining_server`."""
        self._call(
            context,
            remaining_server(aggregate, host, options.successor),
            'remove_aggregate_host',
            aggregate,
            host=host,
            options=requests.pack(options),
        )

    def set_aggregate_master(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.SetMaster,
        progress: model.Progress | None = None,
    ) -> None:
        """Make ``host`` the master; served by its service."""
        self._call(
            context,
            host,
            'set_aggregate_master',
            aggregate,
            host=host,
            options=requests.pack(options),
        )

    def rename_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        name: str,
    ) -> None:
        """Rename the aggregate; served by any service."""
        self._call(context, None, 'rename_aggregate', aggregate, name=name)

    def dismiss_aggregate(
        self, context: typing.Any, aggregate: model.AggregateLike
    ) -> None:
        """Delete the aggregate; served by any service."""
        self._call(context, None, 'dismiss_aggregate', aggregate)

    def release_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Let the pool go; served by any service: a host may be dead."""
        return failures.unpack_report(
            self._call(context, None, 'release_aggregate', aggregate)
        )

    def adopt_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        replace_stamp: str | None = None,
    ) -> None:
        """Take over the pool of ``host``; served by its service."""
        self._call(
            context,
            host,
            'adopt_aggregate',
            aggregate,
            host=host,
            replace_stamp=replace_stamp,
        )

    def check_hosts(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        hosts: collections.abc.Sequence[str],
        options: requests.CheckHosts,
    ) -> list[model.Report]:
        """Judge ``hosts``; served by the service of the first one."""
        packed = self._call(
            context,
            hosts[0],
            'check_hosts',
            aggregate,
            hosts=list(hosts),
            options=requests.pack(options),
        )
        return [failures.unpack_report(report) for report in packed]

    def check_removal(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.RemoveHost,
    ) -> model.Report:
        """Judge the removal of ``host``; served as the removal would be."""
        return failures.unpack_report(
            self._call(
                context,
                remaining_server(aggregate, host, options.successor),
                'check_removal',
                aggregate,
                host=host,
                options=requests.pack(options),
            )
        )

    def audit_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        options: requests.Audit,
    ) -> model.Report:
        """Audit the aggregate; served by its master's service, or any."""
        return failures.unpack_report(
            self._call(
                context,
                aggregate.metadata.get(pool_states.MASTER),
                'audit_aggregate',
                aggregate,
                options=requests.pack(options),
            )
        )

    def recover_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        options: requests.Recover,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Settle what was left behind; served by any service, or by the one
        of the host that shall be promoted."""
        return failures.unpack_report(
            self._call(
                context,
                options.promote,
                'recover_aggregate',
                aggregate,
                options=requests.pack(options),
            )
        )

    def _call(
        self,
        context: typing.Any,
        server: Server,
        method: str,
        aggregate: model.AggregateLike,
        **arguments: typing.Any,
    ) -> typing.Any:
        """Send a request and wait for its answer.

        :raises ServiceUnavailable: nobody took it; nothing happened.
        :raises ServiceLost: somebody did, answers no more, and the database
            does not say how it ended.
        """
        whom = f"host '{server}'" if server else 'any host'
        prepared = self._client.prepare(
            server=server,
            timeout=self._timeout,
            call_monitor_timeout=MONITOR_SECONDS,
            transport_options=bus.messaging.TransportOptions(
                at_least_once=True
            ),
        )
        broker.assert_usable(self._bus)
        sent = ''
        if method not in READS:
            concerned = arguments.get('host')
            sent = self._sender.send(context, method, aggregate, concerned)
        travels = bus.RequestContext(
            sent,
            request_id=getattr(context, 'request_id', None),
            overwrite=False,
        )
        try:
            answer = prepared.call(
                travels, method, aggregate=plain(aggregate), **arguments
            )
        except bus.messaging.exceptions.MessageUndeliverable:
            if sent:
                self._sender.withdraw(sent)
            raise exceptions.ServiceUnavailable(
                f"no compute service answers for {whom}"
            ) from None
        except bus.messaging.exceptions.MessagingTimeout:
            if not sent:
                raise exceptions.ServiceUnavailable(
                    f"the compute service of {whom} stopped answering; the "
                    f"request changes nothing: repeat it when the service "
                    f"runs"
                ) from None
            answer = self._sender.outcome(sent, aggregate, whom)
        except bus.messaging.RemoteError as error:
            raise exceptions.ServiceError(
                f"the compute service of {whom} failed: {error.exc_type}: "
                f"{error.value}"
            ) from None
        except Exception as error:  # the drivers raise what they like
            raise exceptions.ServiceError(
                f"the message bus cannot be used: {error}"
            ) from error
        if answer.get('failure'):
            raise failures.unpack_error(answer['failure'])
        return answer.get('result')


def plain(aggregate: model.AggregateLike) -> dict[str, typing.Any]:
    """Return what a message says of the aggregate."""
    return {
        'id': aggregate.id,
        'uuid': aggregate.uuid,
        'name': aggregate.name,
        'hosts': list(aggregate.hosts),
        'metadata': dict(aggregate.metadata),
    }


def remaining_server(
    aggregate: model.AggregateLike, host: str, successor: str | None
) -> str:
    """Return the host whose service serves the removal of ``host``.

    The removed host's own service may run in a guest on it, and may be as
    dead as the host; so it is the one of the master, which stays, or of its
    successor.
    """
    master = aggregate.metadata.get(pool_states.MASTER)
    if master and master != host:
        return master
    return successor or host


def longest_request(conf: cfg.ConfigOpts) -> float:
    """Return the seconds after which no request can still be running.

    A service that is alive is trusted to keep its own time limits; this one
    is only the sum of them all.
    """
    limits = conf.xenpool
    return float(
        limits.drain_timeout
        + limits.join_timeout
        + limits.eject_timeout
        + limits.first_boot_timeout
        + 2 * limits.master_change_timeout
    )
