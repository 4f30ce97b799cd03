# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The message bus: oslo.messaging, set up so that it does what we mean.

Importing this module chooses the threading backend of oslo.service, which
must happen before oslo.messaging is imported: the default one is eventlet's.
A program that has chosen already keeps its choice.
"""

from __future__ import annotations

import typing
import warnings

from oslo_config import cfg
from oslo_context import context as request_context

with warnings.catch_warnings():
    # Their dependencies look whether eventlet is there, which complains.
    warnings.simplefilter('ignore', DeprecationWarning)
    warnings.filterwarnings('ignore', '\\s*Eventlet is deprecated')

    import oslo_service.backend

    if oslo_service.backend.get_backend_type() is None:
        oslo_service.backend.init_backend(
            oslo_service.backend.BackendType.THREADING
        )

    import oslo_messaging
    import oslo_messaging.opts

messaging: typing.Any = oslo_messaging
"""oslo.messaging, for who must not import it before the backend is chosen."""

EXCHANGE = 'xenpool'
TOPIC = 'compute'
VERSION = '1.0'
"""Of the RPC API; the endpoint accepts it and later minor ones up to its
own."""

RABBIT = 'oslo_messaging_rabbit'
"""The section of oslo.messaging's options for RabbitMQ."""

ALLOWED_REMOTE_EXMODS = ['xenpool_driver.exceptions']
"""Modules whose exceptions may be rebuilt from a message."""


class RequestContext(request_context.RequestContext):
    """The context of a request that travels.

    :ivar sent_request: as which request it was written down; '' for one that
        changes nothing.
    """

    def __init__(self, sent_request: str = '', **more: typing.Any) -> None:
        super().__init__(**more)
        self.sent_request = sent_request


class ContextSerializer(oslo_messaging.NoOpSerializer):  # type: ignore[misc]
    """Sends of a request's context its ids only: no token, no user."""

    def serialize_context(self, context: typing.Any) -> dict[str, str]:
        """Return what travels."""
        return {
            'request_id': getattr(context, 'request_id', '') or '',
            'sent_request': getattr(context, 'sent_request', '') or '',
        }

    def deserialize_context(self, context: dict[str, str]) -> RequestContext:
        """Return a context for the request that arrived."""
        return RequestContext(
            sent_request=context.get('sent_request') or '',
            request_id=context.get('request_id') or None,
        )


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options that must be there before the bus is used.

    oslo.messaging looks up [oslo_messaging_metrics] and, from release 18 on,
    [oslo_messaging_tracing] on the options that it is given, but registers
    these groups only on ``cfg.CONF``.

    Queues go when nobody listens any more, unless the file says otherwise:
    the queue of a service that has ended would take requests in, nobody
    would be told that it has, and the service would carry them out when it
    comes back, however late.
    """
    options = dict(oslo_messaging.opts.list_opts())
    conf.register_opts(
        [opt for opt in options[None] if opt.name == 'transport_url']
    )
    conf.register_opts(options[RABBIT], group=RABBIT)
    conf.set_default('amqp_auto_delete', True, group=RABBIT)
    for section in ('oslo_messaging_metrics', 'oslo_messaging_tracing'):
        group = cfg.CONF._groups.get(section)
        if group is not None:
            conf.register_opts(
                [info['opt'] for info in group._opts.values()], group=section
            )


def server(
    bus: typing.Any, name: str, endpoint: typing.Any
) -> oslo_messaging.MessageHandlingServer:
    """Return a server, not started yet, for the host called ``name``.

    Its executor is the threading one, as always where nothing has been
    monkey-patched.

    :param bus: what ``broker.connect`` returned.
    :param endpoint: the object whose public methods are served.
    """
    return oslo_messaging.get_rpc_server(
        bus,
        oslo_messaging.Target(exchange=EXCHANGE, topic=TOPIC, server=name),
        [endpoint],
        serializer=ContextSerializer(),
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )


def client(bus: typing.Any, retry: int) -> oslo_messaging.RPCClient:
    """Return a client of the compute services.

    :param bus: what ``broker.connect`` returned.
    :param retry: how often to try again when the broker does not answer.
    """
    return oslo_messaging.get_rpc_client(
        bus,
        oslo_messaging.Target(exchange=EXCHANGE, topic=TOPIC, version=VERSION),
        serializer=ContextSerializer(),
        retry=retry,
    )
