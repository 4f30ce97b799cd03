# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Logging in at another host, as a joiner does, and how that can fail.

Hosts of the simulated world are asked directly. Behind any other loopback
address something else may listen: that is tried for real, so that a join
fails as it would against that listener.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
import ssl

from xenpool_driver.simulator import errors, machine

CONNECT_TIMEOUT = 5.0
"""Real seconds; only listeners on loopback are tried."""

_TAG = re.compile(r'\s*<[A-Za-z_][A-Za-z0-9_]*>')

LOGIN = 'session.login_with_password'


def login(
    source: machine.Machine, address: str, user: str, password: str, port: int
) -> machine.Machine:
    """Log in at ``address`` on behalf of ``source``.

    :param port: where hosts listen, for listeners outside the world.
    :returns: the coordinator that accepted.
    :raises ApiError: as pool.join does for each way to fail (recorded).
    """
    world = source.world
    target = world.machine_at(address)
    if target is None:
        _knock(address, port, user, password)
        raise errors.ApiError('JOINING_HOST_SERVICE_FAILED')
    source.pause(world.timings.login)
    _connect(source, target)
    target.gate(LOGIN)
    kind, master = target.role
    if kind == machine.SLAVE:
        raise errors.host_is_slave(master)
    if not target.check_password(user, password):
        raise errors.ApiError(
            'SESSION_AUTHENTICATION_FAILED', user, 'Authentication failure'
        )
    return target


def _connect(source: machine.Machine, target: machine.Machine) -> None:
    """Raise what the TLS client raises when ``target`` is not there."""
    world = source.world
    if world.is_cut(source, target) or target.frozen:
        world.await_peer(source, target)
        if not world.reachable(source, target):
            raise errors.ApiError('JOINING_HOST_CONNECTION_FAILED')
    if not target.front_end:
        raise connection_failed('connection refused')
    if not target.up(machine.HTTPS):
        raise errors.ApiError('JOINING_HOST_SERVICE_FAILED')


def connection_failed(text: str) -> errors.ApiError:
    """Return the answer to an attempt that failed before TLS."""
    return errors.internal_error(f'Connection failed: {text}.')


def _knock(address: str, port: int, user: str, password: str) -> None:
    """Try what listens at an address outside the world.

    :raises ApiError: almost always: no XAPI is expected there.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        raise connection_failed('no host resolved') from None
    if not ip.is_loopback:
        raise errors.ApiError('JOINING_HOST_CONNECTION_FAILED')
    try:
        body = _ask(address, port, user, password)
    except ConnectionRefusedError:
        raise connection_failed('connection refused') from None
    except http.client.HTTPException:
        raise errors.ApiError('JOINING_HOST_SERVICE_FAILED') from None
    except OSError:
        raise errors.ApiError('JOINING_HOST_CONNECTION_FAILED') from None
    _judge(body)


def _ask(address: str, port: int, user: str, password: str) -> bytes:
    """Send a login over TLS; the certificate is not looked at, as in XAPI.

    :raises HTTPException: when TLS works and no answer of HTTP 200 comes.
    :raises OSError: when the connection or TLS fails.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), CONNECT_TIMEOUT) as raw:
        tls = context.wrap_socket(raw)
    connection = http.client.HTTPConnection(address, port)
    connection.sock = tls
    request = {
        'jsonrpc': '2.0',
        'method': LOGIN,
        'params': [user, password],
        'id': 1,
    }
    try:
        connection.request('POST', '/jsonrpc', json.dumps(request))
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        raise http.client.HTTPException(str(error)) from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f'status {response.status}')
    return body


def _judge(body: bytes) -> None:
    """Raise what an answer of HTTP 200 amounts to."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise errors.internal_error(junk(body)) from None
    failure = answer.get('error') if isinstance(answer, dict) else None
    if isinstance(failure, dict) and 'message' in failure:
        raise errors.ApiError(
            str(failure['message']), *map(str, failure.get('data', ()))
        )


def junk(body: bytes) -> str:
    """Return how XAPI's JSON reader complains of ``body`` (recorded).

    It takes a tag such as ``<html>`` for a value, in a dialect of its own,
    and stumbles over what follows.
    """
    line = body.decode(errors='backslashreplace').split('\n')[0]
    tag = _TAG.match(line)
    start = tag.end() if tag else len(line) - len(line.lstrip())
    rest = line[start:]
    complaint = 'Junk after end of JSON value:' if tag else 'Invalid token'
    return (
        f'Yojson__Common.Json_error("Line 1, bytes'
        f' {start}-{start + len(rest)}:\\n{complaint} \'{rest}\'")'
    )
