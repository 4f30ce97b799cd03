# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Whether the broker can be used: its address, its answer, its login.

oslo.messaging tries a broker for ever that does not answer or that refuses
the login. So both are found out here, before it is asked for anything.
"""

from __future__ import annotations

import socket
import typing
import urllib.parse

from oslo_config import cfg

from xenpool_driver import exceptions
from xenpool_driver.compute import bus

AMQP_PORT = 5672

PROBE_SECONDS = 5.0
"""How long a broker has to accept a connection."""

LOGIN_REFUSED = 403
HOST_REFUSED = 530
"""AMQP's codes (``access-refused``, ``not-allowed``)."""

FORM = (
    "section [DEFAULT]: transport_url must be a URL such as "
    "rabbit://USER:PASSWORD@ADDRESS:PORT/, in which the characters / ? # , "
    "of a password are written %2F %3F %23 %2C"
)


def connect(conf: cfg.ConfigOpts) -> typing.Any:
    """Return the connection to the bus that ``transport_url`` names.

    :param conf: the options.
    :raises ConfigurationError: it names none. What it says is not repeated:
        there is a password in it.
    """
    bus.register_opts(conf)
    assert_form(conf.transport_url)
    try:
        found = bus.messaging.get_rpc_transport(
            conf, allowed_remote_exmods=bus.ALLOWED_REMOTE_EXMODS
        )
    except (
        ValueError,
        bus.messaging.InvalidTransportURL,
        bus.messaging.DriverLoadFailure,
    ):
        raise exceptions.ConfigurationError(FORM) from None
    allow_slashes(found)
    return found


def assert_form(url: str) -> None:
    """See that a URL means what its writer meant.

    A ``/``, ``?`` or ``#`` in a password ends the part of the URL in which
    the hosts are; a comma in it ends a host. The rest of the password would
    be taken for something else, and shown. What the URL says is not repeated.

    :raises ConfigurationError: it is none, or ambiguous.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        raise exceptions.ConfigurationError(FORM) from None
    with_login = ['@' in host for host in parts.netloc.split(',')]
    if (
        '://' not in url
        or '@' in f"{parts.path}{parts.query}{parts.fragment}"
        or (any(with_login) and not with_login[0])
    ):
        raise exceptions.ConfigurationError(FORM)


def allow_slashes(transport: typing.Any) -> None:
    """Let passwords and user names with a slash be used.

    oslo.messaging (``impl_rabbit.py``, ``_transform_transport_url``) hands
    them to kombu with the slash as it is, where it ends the part of the URL
    in which the hosts are.

    :param transport: what ``oslo_messaging.get_rpc_transport`` returned.
    :raises ConfigurationError: this release of oslo.messaging does it in
        another way, so that such a password cannot be used.
    """
    logins = [
        login
        for host in _url(transport).hosts
        for login in (host.username, host.password)
    ]
    if not any('/' in (login or '') for login in logins):
        return
    pool = _connections(transport)
    plain: typing.Any = getattr(pool, 'connection_cls', None)
    if not hasattr(plain, '_transform_transport_url'):
        raise exceptions.ConfigurationError(
            'section [DEFAULT]: transport_url has a user or a password with '
            'a slash, which the installed release of oslo.messaging cannot '
            'use: choose one without'
        )

    class Connection(plain):  # type: ignore[misc]
        """Escapes the slash."""

        def _transform_transport_url(
            self, url: typing.Any, host: typing.Any, *args: str, **more: str
        ) -> str:
            known = bus.messaging.TransportHost(
                host.hostname, host.port, 'USER', 'PASSWORD'
            )
            text: str = super()._transform_transport_url(
                url, known, *args, **more
            )
            login = ':'.join(
                urllib.parse.quote(each or '', '')
                for each in (host.username, host.password)
            )
            return text.replace('//USER:PASSWORD@', f"//{login}@", 1)

    pool.connection_cls = Connection


def assert_usable(transport: typing.Any) -> None:
    """See whether a broker answers and lets us in.

    :param transport: what :func:`connect` returned.
    :raises ServiceUnavailable: no broker answers.
    :raises ConfigurationError: it refuses the login.
    """
    url = _url(transport)
    if not url.transport.startswith(('rabbit', 'amqp', 'kombu')):
        return
    where = _assert_reachable(url)
    pool = _connections(transport)
    if pool is None:
        return
    try:
        pool.create(retry=0).close()
    except Exception as error:  # the drivers raise what they like
        user = ' or '.join(
            sorted({f"'{host.username}'" for host in url.hosts})
        )
        code = getattr(error, 'code', None)
        if code == LOGIN_REFUSED:
            raise exceptions.ConfigurationError(
                f"the message bus at {where} refuses the login of user "
                f"{user}: correct transport_url in the section [DEFAULT]"
            ) from None
        if code == HOST_REFUSED:
            raise exceptions.ConfigurationError(
                f"the message bus at {where} does not let user {user} use "
                f"the virtual host '{url.virtual_host or '/'}': correct "
                f"transport_url in the section [DEFAULT]"
            ) from None
        raise exceptions.ServiceUnavailable(
            f"the message bus at {where} cannot be used: {error}"
        ) from error


def _assert_reachable(url: typing.Any) -> str:
    """Return the address of the first broker that accepts a connection.

    :raises ServiceUnavailable: none does.
    """
    problem = 'transport_url names no broker'
    for broker in url.hosts or [bus.messaging.TransportHost('localhost')]:
        where = (broker.hostname or 'localhost', broker.port or AMQP_PORT)
        shown = f"{where[0]}:{where[1]}"
        try:
            socket.create_connection(where, PROBE_SECONDS).close()
            return shown
        except OSError as error:
            problem = f"{shown}: {error.strerror or error}"
    raise exceptions.ServiceUnavailable(
        f"the message bus cannot be reached: {problem}"
    )


def _url(transport: typing.Any) -> typing.Any:
    return bus.messaging.TransportURL.parse(transport.conf)


def _connections(transport: typing.Any) -> typing.Any:
    """Return the driver's pool of connections, None where it has none."""
    return getattr(transport._driver, '_connection_pool', None)
