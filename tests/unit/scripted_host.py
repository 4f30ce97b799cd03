# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A host on a real socket that does exactly what a test tells it to."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import http.server
import itertools
import os
import socket
import ssl
import threading
import typing
import xmlrpc.client

import orjson

from xenpool_driver import conf

PASSWORD = 'p4ss&"w<o>rd'
"""Each encoding spells it in another way."""

_ADDRESSES = itertools.count(1)


def next_address() -> str:
    """Return an address of 127.40.0.0/16 that no other test uses now."""
    number = next(_ADDRESSES) + (os.getpid() % 200) * 250
    return f"127.40.{number // 250 % 256}.{number % 250 + 1}"


class Refuse(Exception):
    """Answer with an error of XAPI's."""

    def __init__(self, *details: str) -> None:
        self.details = list(details)


class Drop(Exception):
    """Carry the call out and close the connection without an answer."""


class Silence(Exception):
    """Carry the call out and never answer."""


class Drip(Exception):
    """Carry the call out and answer a byte at a time, for ever."""


class Raw(Exception):
    """Answer something that is not XAPI's."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.body = body
        self.status = status


Answer = collections.abc.Callable[..., typing.Any]


class ScriptedHost:
    """Answers XML-RPC and JSON-RPC.

    :ivar calls: the methods that were carried out, in order.
    :ivar arguments: those of the last call of each method.
    :ivar answers: what to do for a method; gets the arguments without the
        session and returns a value, or raises one of the above.
    :ivar sessions: the logins that are valid.
    :ivar connections: how many connections were made.
    :ivar stream: makes the pieces of an HTTP answer that is sent to all
        calls, as far as the caller takes them.
    :ivar master: the address that a login is sent to, if it is a member.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        address: str | None = None,
        port: int = 0,
        json: bool = True,
    ) -> None:
        self.address = address or next_address()
        self.calls: list[str] = []
        self.arguments: dict[str, tuple[typing.Any, ...]] = {}
        self.answers: dict[str, Answer] = {'session.get_uuid': lambda _: 'u'}
        self.sessions: set[str] = set()
        self.connections = 0
        self.master: str | None = None
        self.json = json
        self.stream: (
            collections.abc.Callable[[], collections.abc.Iterator[bytes]]
            | None
        ) = None
        self.close_after_answer = False
        self.released = threading.Event()
        self._tls = context
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        host = self

        class Handler(_Handler):
            scripted = host

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128
            block_on_close = False

            def handle_error(self, *args: typing.Any) -> None:
                """Keep quiet about clients that hang up."""

        self._server = Server((self.address, port), Handler)
        self.port = self._server.server_address[1]
        scheme = 'https' if context else 'http'
        self.url = f"{scheme}://{self.address}:{self.port}"
        threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        ).start()

    def __enter__(self) -> ScriptedHost:
        return self

    def __exit__(self, *args: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self.cut()

    def access(self, **settings: typing.Any) -> conf.HostAccess:
        """Return how to reach it, as the configuration would say it."""
        settings = {
            'name': 'xen01',
            'url': self.url,
            'username': 'root',
            'password': PASSWORD,
            'connect_timeout': 5.0,
            'read_timeout': 5.0,
            **settings,
        }
        return conf.HostAccess(**settings)

    def count(self, method: str) -> int:
        """Return how often a method was carried out."""
        return self.calls.count(method)

    def counts(self) -> dict[str, int]:
        """Return how often each method was carried out."""
        return dict(collections.Counter(self.calls))

    def restart(self) -> None:
        """Forget all sessions and cut all connections, as a restart does."""
        self.sessions.clear()
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def opened(self, connection: socket.socket) -> socket.socket:
        """Take a new connection in."""
        with self._lock:
            self.connections += 1
        if self._tls is not None:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            try:
                connection.do_handshake()
            except OSError:
                connection.close()
                raise
        with self._lock:
            self._open.add(connection)
        return connection

    def carry_out(self, method: str, params: list[typing.Any]) -> typing.Any:
        """Do what the script says."""
        args = tuple(params)
        if method.startswith('session.') and 'login' in method:
            return self._login(method, args)
        session, args = args[0], args[1:]
        if session not in self.sessions:
            raise Refuse('SESSION_INVALID', str(session))
        with self._lock:
            self.calls.append(method)
            self.arguments[method] = args
        if method in ('session.logout', 'session.local_logout'):
            self.sessions.discard(session)
            return ''
        if method not in self.answers:
            raise Refuse('MESSAGE_METHOD_UNKNOWN', method)
        return self.answers[method](*args)

    def _login(self, method: str, args: tuple[typing.Any, ...]) -> str:
        with self._lock:
            self.calls.append(method)
            self.arguments[method] = args
        if method in self.answers:
            return str(self.answers[method](*args))
        if self.master is not None and 'local' not in method:
            raise Refuse('HOST_IS_SLAVE', self.master)
        if args[1] != PASSWORD:
            raise Refuse('SESSION_AUTHENTICATION_FAILED', args[0], 'no')
        session = f"OpaqueRef:{len(self.calls)}-{os.urandom(4).hex()}"
        self.sessions.add(session)
        return session


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    scripted: ScriptedHost

    def setup(self) -> None:
        self.request = self.scripted.opened(self.request)
        super().setup()

    def finish(self) -> None:
        super().finish()
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)
        self.request.close()

    def log_message(self, *args: typing.Any) -> None:
        """Keep quiet."""

    def do_POST(self) -> None:
        """Answer one call."""
        body = self.rfile.read(int(self.headers['Content-Length']))
        if self.scripted.stream is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                for piece in self.scripted.stream():
                    self.wfile.write(piece)
            return
        if self.path == '/jsonrpc' and not self.scripted.json:
            self._send(500, b'<html>')
            return
        spoken = _JSON if self.path == '/jsonrpc' else _XML
        method, params = spoken.request(body)
        try:
            answer = spoken.success(self.scripted.carry_out(method, params))
        except Refuse as refusal:
            answer = spoken.failure(refusal.details)
        except Raw as raw:
            self._send(raw.status, raw.body)
            return
        except Drop:
            self.close_connection = True
            return
        except Silence:
            self.scripted.released.wait()
            self.close_connection = True
            return
        except Drip:
            self._drip()
            return
        self._send(200, answer)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.scripted.close_after_answer:
            self.close_connection = True

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header('Content-Length', '100000')
        self.end_headers()
        while not self.scripted.released.wait(0.02):
            self.wfile.write(b' ')


@dataclasses.dataclass(frozen=True)
class _Language:
    request: Answer
    success: Answer
    failure: Answer


def _xml_answer(struct: dict[str, typing.Any]) -> bytes:
    return xmlrpc.client.dumps(
        (struct,), methodresponse=True, allow_none=True
    ).encode()


def _xml_request(body: bytes) -> tuple[str, list[typing.Any]]:
    params, method = xmlrpc.client.loads(body)
    return str(method), list(params)


def _json_request(body: bytes) -> tuple[str, list[typing.Any]]:
    request = orjson.loads(body)
    return request['method'], request['params']


_XML = _Language(
    _xml_request,
    lambda value: _xml_answer({'Status': 'Success', 'Value': value}),
    lambda details: _xml_answer(
        {'Status': 'Failure', 'ErrorDescription': details}
    ),
)
_JSON = _Language(
    _json_request,
    lambda value: orjson.dumps({'jsonrpc': '2.0', 'result': value, 'id': 1}),
    lambda details: orjson.dumps(
        {
            'jsonrpc': '2.0',
            'error': {'code': 1, 'message': details[0], 'data': details[1:]},
            'id': 1,
        }
    ),
)
