# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The sockets of all simulated machines, in one process.

One thread accepts for every machine; each connection then has a thread of
its own, which does the TLS handshake, reads requests and answers them until
one side has had enough. A machine's sockets can be closed and opened at any
time; closing cuts the connections that are open.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import threading
import typing

from xenpool_driver.simulator import (
    dispatch,
    errors,
    faults,
    json_reader,
    rows,
    tls,
    wire_http,
    wire_json,
    wire_xml,
    xml_reader,
)

LOG = logging.getLogger(__name__)

HTTP, HTTPS = 'http', 'https'
BACKLOG = 128
CHUNK = 65536
LINGER = 1.0
"""Real seconds to wait for a caller to notice that it was refused."""


class Machine(typing.Protocol):
    """What the server needs to know of a machine itself."""

    name: str
    address: str


class _Listener(typing.NamedTuple):
    machine: typing.Any
    kind: str
    socket: socket.socket


class Server:
    """Listens for machines.

    :param https_port: where TLS is served, the same on every machine's
        address; 0: any free one, another for each machine.
    :param http_port: where plain HTTP is served, likewise; None: nowhere.
    :param state_dir: where certificates are kept from one run to the next.
    """

    def __init__(
        self,
        https_port: int = 8443,
        http_port: int | None = 8080,
        state_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.authority = tls.Authority(state_dir)
        self._wanted = {HTTPS: https_port, HTTP: http_port}
        self._ports: dict[tuple[str, str], int] = {}
        self._listeners: dict[int, _Listener] = {}
        self._by_place: dict[tuple[str, str], _Listener] = {}
        self._connections: dict[tuple[str, str], set[socket.socket]] = {}
        self._silent: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._stopped = False
        self._thread: threading.Thread | None = None

    # -- for those who run machines -----------------------------------------

    def listen(self, machine: Machine) -> None:
        """Accept connections for ``machine`` on all its sockets."""
        for kind, port in self._wanted.items():
            if port is not None:
                self.open(machine, kind)

    def open(self, machine: Machine, kind: str) -> None:
        """Accept connections for ``machine`` on its socket of ``kind``.

        Without effect when it is open, or is served nowhere.

        :raises OSError: when the address cannot be had.
        """
        wanted = self._wanted[kind]
        if wanted is None:
            return
        with self._lock:
            place = machine.address, kind
            self._silent.discard(place)
            if self._stopped or place in self._by_place:
                return
            port = self._ports.get(place, wanted)
            listening = _bind(machine.address, port)
            self._ports[place] = listening.getsockname()[1]
            listener = _Listener(machine, kind, listening)
            self._listeners[listening.fileno()] = listener
            self._by_place[place] = listener
            self._epoll.register(listening.fileno(), select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._accept_all,
                    name='simulator-accept',
                    daemon=True,
                )
                self._thread.start()

    def close(self, machine: Machine, kind: str | None = None) -> None:
        """Refuse connections for ``machine``, and cut those that are open.

        :param kind: only those of this kind.
        """
        for one in (HTTPS, HTTP) if kind is None else (kind,):
            with self._lock:
                listener = self._by_place.get((machine.address, one))
                if listener is not None:
                    self._drop(listener)
            self._cut_all(machine, one)

    def silence(self, machine: Machine, kind: str) -> None:
        """Accept connections for ``machine``, and answer nothing.

        Those that are open are cut.
        """
        with self._lock:
            self._silent.add((machine.address, kind))
        self._cut_all(machine, kind)

    def _cut_all(self, machine: Machine, kind: str) -> None:
        with self._lock:
            # A copy: who was just about to speak TLS leaves it meanwhile.
            cut = list(self._connections.pop((machine.address, kind), ()))
        for connection in cut:
            _cut(connection)

    def port(self, machine: Machine, kind: str) -> int:
        """Return where ``machine`` listens, or did last.

        :raises KeyError: when it never did.
        """
        return self._ports[machine.address, kind]

    def ca_pem(self) -> bytes:
        """Return the certificate that clients have to trust."""
        return self.authority.ca_pem()

    def stop(self) -> None:
        """Close everything, for good."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            listeners = list(self._listeners.values())
            for listener in listeners:
                self._drop(listener)
            cut = [c for group in self._connections.values() for c in group]
            self._connections.clear()
        for connection in cut:
            _cut(connection)
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    # -- accepting ------------------------------------------------------------

    def _drop(self, listener: _Listener) -> None:
        number = listener.socket.fileno()
        self._epoll.unregister(number)
        del self._listeners[number]
        del self._by_place[listener.machine.address, listener.kind]
        listener.socket.close()

    def _accept_all(self) -> None:
        while not self._stopped:
            for number, _ in self._epoll.poll():
                with self._lock:
                    listener = self._listeners.get(number)
                    accepted = None if listener is None else _accept(listener)
                    if listener is None or accepted is None:
                        continue
                    group = (listener.machine.address, listener.kind)
                    members = self._connections.setdefault(group, set())
                    members.add(accepted)
                threading.Thread(
                    target=self._serve,
                    args=(listener, accepted),
                    name=f'{listener.machine.name}-{listener.kind}',
                    daemon=True,
                ).start()

    def _serve(self, listener: _Listener, accepted: socket.socket) -> None:
        """Speak with one caller until either side closes."""
        machine, group = (
            listener.machine,
            (listener.machine.address, listener.kind),
        )
        connection = accepted
        try:
            if listener.kind == HTTPS:
                context = self.authority.context(machine.address, machine.name)
                connection = self._secure(group, accepted, context)
            if group in self._silent:
                raise faults.Drop
            _Connection(machine, connection).run()
        except (OSError, faults.Drop) as error:
            LOG.debug('A connection to %s ended: %r', machine.name, error)
        except Exception:
            LOG.exception('The simulated host %s stumbled', machine.name)
        finally:
            with self._lock:
                members = self._connections.get(group)
                if members is not None:
                    members.discard(connection)
                    members.discard(accepted)
            connection.close()

    def _secure(
        self,
        group: tuple[str, str],
        accepted: socket.socket,
        context: ssl.SSLContext,
    ) -> socket.socket:
        """Do the handshake; the connection goes on under a new object."""
        accepted.settimeout(wire_http.READ_TIMEOUT)
        secured = context.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False
        )
        with self._lock:
            members = self._connections.get(group)
            if members is None or accepted not in members:
                secured.close()
                raise faults.Drop
            members.discard(accepted)
            members.add(secured)
        try:
            secured.do_handshake()
        except BaseException:
            with self._lock:
                members.discard(secured)
            secured.close()
            raise
        return secured


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise OSError(
            error.errno, f'cannot listen on {address}:{port}: {error.strerror}'
        ) from error
    return listening


def _accept(listener: _Listener) -> socket.socket | None:
    try:
        accepted, _ = listener.socket.accept()
    except BlockingIOError:
        return None
    except OSError as error:
        LOG.warning('Cannot accept for %s: %s', listener.machine.name, error)
        return None
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted.settimeout(wire_http.READ_TIMEOUT)
    return accepted


def _cut(connection: socket.socket) -> None:
    """End a connection that another thread may be reading.

    Beneath TLS: its own shutdown is not meant for a second thread.
    """
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError as error:
        LOG.debug('A connection was gone already: %s', error)


class _Connection:
    """One caller's connection to one machine."""

    def __init__(self, machine: typing.Any, connection: socket.socket) -> None:
        self._machine = machine
        self._socket = connection
        self._buffer = b''

    def run(self) -> None:
        """Answer requests until the caller, or a refusal, ends it."""
        try:
            while (head := self._read_head()) is not None:
                self._socket.settimeout(None)
                request = wire_http.parse_head(head)
                self._socket.sendall(self._answer(request))
                if request.close:
                    return
        except wire_http.Refused as refusal:
            self._refuse(refusal.page)
        except TimeoutError:
            self._refuse(wire_http.TIMED_OUT)

    def _refuse(self, page: bytes) -> None:
        """Send a last page, and let the caller read it before closing."""
        self._socket.sendall(page)
        self._socket.settimeout(LINGER)
        socket.socket.shutdown(self._socket, socket.SHUT_WR)
        left = wire_http.BODY_LIMIT * 4
        while left > 0:
            chunk = socket.socket.recv(self._socket, CHUNK)
            if not chunk:
                return
            left -= len(chunk)

    def _read_head(self) -> bytes | None:
        """Return a request's head, None at the connection's end."""
        limit = wire_http.HEADER_LIMIT
        while True:
            end = self._buffer.find(b'\r\n\r\n')
            if end + 4 > limit or (end < 0 and len(self._buffer) > limit):
                raise wire_http.Refused(wire_http.HEADERS_TOO_LARGE)
            if end >= 0:
                head = self._buffer[:end]
                self._buffer = self._buffer[end + 4 :]
                return head
            if not self._fill():
                return None

    def _fill(self) -> bool:
        chunk = self._socket.recv(CHUNK)
        self._buffer += chunk
        return bool(chunk)

    def _read_body(self, request: wire_http.Request) -> bytes:
        length = wire_http.body_length(request)
        while len(self._buffer) < length:
            if not self._fill():
                raise faults.Drop
        body = self._buffer[:length]
        self._buffer = self._buffer[length:]
        return body

    def _answer(self, request: wire_http.Request) -> bytes:
        page = wire_http.guarded(request)
        if page is not None:
            raise wire_http.Refused(page)
        if request.method == 'POST':
            body = self._read_body(request)
            try:
                if request.path.startswith('/jsonrpc'):
                    return self._json(request, body)
                return self._xml(request, body)
            except (xml_reader.Malformed, json_reader.Malformed) as error:
                page = wire_http.server_error(
                    str(error), version=request.answer_version
                )
                raise wire_http.Refused(page) from None
            except RecursionError:
                page = wire_http.server_error('Stack_overflow')
                raise wire_http.Refused(page) from None
            except faults.Garbage as garbage:
                text = garbage.body.decode('utf-8', 'surrogateescape')
                return wire_http.answer(request, text, wire_http.XML)
        if request.method == 'OPTIONS':
            return wire_http.options(request)
        if request.method in ('GET', 'PUT', 'CONNECT'):
            raise wire_http.Refused(wire_http.FORBIDDEN)
        raise wire_http.Refused(wire_http.not_implemented(request))

    def _xml(self, request: wire_http.Request, body: bytes) -> bytes:
        name, params = wire_xml.parse_call(body)
        extra = ''
        try:
            result = dispatch.execute(self._machine, name, params)
            text = _xml_success(name, result)
        except errors.ApiError as error:
            text = wire_xml.refusal(error)
            extra = _thumbprint(self._machine, request, error)
        except dispatch.GateRefusal as refusal:
            text = wire_xml.refusal(refusal.error)
            return wire_http.answer(request, text, wire_http.XML, cors=False)
        return wire_http.answer(request, text, wire_http.XML, extra=extra)

    def _json(self, request: wire_http.Request, body: bytes) -> bytes:
        call = wire_json.parse_call(body)
        extra = ''
        try:
            result = dispatch.execute(self._machine, call.method, call.params)
            text = wire_json.success(call, result.json())
        except errors.ApiError as error:
            text = wire_json.refusal(call, error)
            extra = _thumbprint(self._machine, request, error)
        except dispatch.GateRefusal as refusal:
            text = wire_json.gate_refusal(refusal.error)
            return wire_http.answer(request, text, wire_http.JSON, cors=False)
        return wire_http.answer(request, text, wire_http.JSON, extra=extra)


_THUMBPRINT = 'x-xenapi-{}-host-certificate-thumbprint'
_HASHES = {
    'sha-256:master': 'fingerprint_sha256',
    'sha-1:master': 'fingerprint_sha1',
}


def _thumbprint(
    machine: typing.Any, request: wire_http.Request, error: errors.ApiError
) -> str:
    """Return the header that lets who is sent on check whom he finds.

    Only on request (``create_thumbprint_header``, api_server.ml).
    """
    field = _HASHES.get(request.headers.get(_THUMBPRINT.format('request'), ''))
    if field is None or error.code != 'HOST_IS_SLAVE' or machine.db is None:
        return ''
    masters = {pool['master'] for pool in machine.db.all('pool').values()}
    for record in machine.db.all('Certificate').values():
        if record['host'] in masters and record['type'] == 'host':
            return f'{_THUMBPRINT.format("response")}: {record[field]}\r\n'
    return ''


def _xml_success(name: str, result: rows.Result) -> str:
    if name == dispatch.LIST_METHODS:
        return wire_xml.bare(result.xml())
    return wire_xml.success(result.xml())
