# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The HTTP transport under ``XenAPI.Session``: one attempt, never a resend.

``xmlrpc.client.Transport.request`` of the standard library sends a request
again when the connection drops, so a host may carry out one call twice. This
one never does. Unless the caller says that it only reads, every exchange has
a connection of its own; reads share idle connections.

All threads may use one transport at the same time.
"""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import hashlib
import hmac
import http
import http.client
import io
import os
import select
import socket
import ssl
import threading
import time
import typing
import weakref
import xmlrpc.client

from xenpool_driver import conf, exceptions
from xenpool_driver.xapi import errors, replies

MAX_IDLE = 8
"""How many idle connections are kept per host."""

IDLE_SECONDS = 8.0
"""For how long; XAPI closes one that sends no header for 10 s
(``http_svr.ml``, header_read_timeout_tcp)."""


MAX_HEADERS = 100
"""How many header lines an answer may have, as in ``http.client``."""

MAX_LINE = 65536
"""How many bytes each may have."""

MIB = 1 << 20

PIECE = 1 << 16
"""How many bytes of a body in chunks are read at once."""


class ExchangeError(Exception):
    """An exchange broke off. It never leaves this package.

    :ivar error: what broke it.
    :ivar stage: how far it had come.
    :ivar reused: whether the connection had served before, so that the peer
        may have closed it before the request came.
    """

    def __init__(
        self, error: Exception, stage: errors.Stage, reused: bool = False
    ) -> None:
        self.error = error
        self.stage = stage
        self.reused = reused
        super().__init__(f"{stage.value}: {type(error).__name__}")


class Transport(xmlrpc.client.Transport):
    """Carries the calls to one host.

    :param access: how the host is reached.
    :raises ConfigurationError: its ``ca_file`` cannot be used.
    """

    user_agent = 'xenpool-driver'

    def __init__(self, access: conf.HostAccess) -> None:
        super().__init__()
        self._access = access
        self._context = tls_context(access)
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._mode = threading.local()
        # Whoever drops a transport without closing it leaks no connection.
        weakref.finalize(self, _close_all, self._idle)

    def __repr__(self) -> str:
        return f"<Transport to {self._access.url}>"

    @contextlib.contextmanager
    def reading(
        self, timeout: float | None = None
    ) -> collections.abc.Iterator[None]:
        """Let this thread's exchanges share idle connections.

        :param timeout: seconds for all that happens inside, if less than
            the host's own timeouts.
        """
        with self._moded(True, timeout):
            yield

    @contextlib.contextmanager
    def changing(
        self, may_send: collections.abc.Callable[[], object]
    ) -> collections.abc.Iterator[None]:
        """Give each of this thread's exchanges a connection of its own.

        :param may_send: is called on the open connection, right before the
            first byte of a request; raises LeaseLost where nothing may be
            sent any more.
        """
        with self._moded(False, None, may_send):
            yield

    def assert_may_send(self) -> None:
        """Let this thread's request go, unless it is a change too late.

        :raises LeaseLost: it is.
        """
        may_send = getattr(self._mode, 'may_send', None)
        if may_send is not None:
            may_send()

    def remaining(self) -> float:
        """Return the seconds left to this thread, infinite when unbounded."""
        return self._until() - time.monotonic()

    def request(
        self,
        host: typing.Any,
        handler: str,
        request_body: typing.Any,
        verbose: bool = False,
    ) -> typing.Any:
        """Make exactly one attempt (the parent's makes two)."""
        return self.single_request(host, handler, request_body, verbose)

    def single_request(
        self,
        host: typing.Any,
        handler: str,
        request_body: typing.Any,
        verbose: bool = False,
    ) -> typing.Any:
        """Send an XML-RPC request and return the decoded answer.

        :raises ExchangeError: there is no answer that can be decoded.
        """
        body = self.post(handler, request_body, 'text/xml')
        try:
            parser, unmarshaller = self.getparser()
            _forbid_doctype(parser)
            parser.feed(body)
            parser.close()
            return unmarshaller.close()
        except Exception as error:
            failure = ExchangeError(error, errors.Stage.SENT)
        try:
            raise failure
        finally:
            del failure  # it knows this frame: without a cycle both go soon

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        """Send one request and return the body of its answer.

        :param path: where to, on the host.
        :param body: what to send.
        :param content_type: what it is.
        :raises ExchangeError: there is no answer, or its status is not 200.
        """
        shared = bool(getattr(self._mode, 'shared', False))
        idle = self._take() if shared else None
        connection = idle or self._open()
        try:
            wire = connection.wire
            wire.deadline = self._deadline(self._access.read_timeout)
            answer, kept = connection.exchange(
                path, body, content_type, shared, self.assert_may_send
            )
        except exceptions.LeaseLost:
            connection.close()
            raise
        except Exception as error:
            connection.close()
            failure = ExchangeError(error, errors.Stage.SENT, idle is not None)
        except BaseException:
            connection.close()
            raise
        else:
            self._put_back(connection, kept)
            return answer
        try:
            raise failure
        finally:
            del failure

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle = self._idle[:]
            self._idle.clear()
        _close_all(idle)

    @contextlib.contextmanager
    def _moded(
        self,
        shared: bool,
        timeout: float | None,
        may_send: collections.abc.Callable[[], object] | None = None,
    ) -> collections.abc.Iterator[None]:
        mode = self._mode
        before = (
            getattr(mode, 'shared', False),
            self._until(),
            getattr(mode, 'may_send', None),
        )
        mode.shared, mode.may_send = shared, may_send
        if timeout is not None:
            mode.until = min(before[1], time.monotonic() + timeout)
        try:
            yield
        finally:
            mode.shared, mode.until, mode.may_send = before

    def _until(self) -> float:
        return float(getattr(self._mode, 'until', float('inf')))

    def _deadline(self, timeout: float) -> float:
        return min(self._until(), time.monotonic() + timeout)

    def _take(self) -> _Connection | None:
        """Return an idle connection that is still open, if there is one."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()

    def _put_back(self, connection: _Connection, kept: bool) -> None:
        with self._lock:
            if kept and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _open(self) -> _Connection:
        """Connect, and know who answers, before anything is sent."""
        access = self._access
        deadline = self._deadline(access.connect_timeout)
        try:
            sock = _connected(access, deadline)
            try:
                secured = _secured(sock, access, self._context, deadline)
            except BaseException:
                sock.close()
                raise
            return _Connection(access, secured)
        except Exception as error:
            failure = ExchangeError(error, errors.Stage.CONNECT)
        try:
            raise failure
        finally:
            del failure


class _Response(http.client.HTTPResponse):
    """An answer whose headers are read without the machinery for mail.

    That takes most of the time of a small call. Of the headers only those
    matter that say where the answer ends.
    """

    def begin(self) -> None:
        """Read status line and headers.

        :raises http.client.HTTPException: they are not HTTP/1's.
        """
        version, status, reason = self._read_status()  # type: ignore[attr-defined]
        while status == http.HTTPStatus.CONTINUE:
            self._read_headers()
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
        self.code = self.status = status
        self.reason = reason.strip()
        self.version = 10 if version in ('HTTP/1.0', 'HTTP/0.9') else 11
        headers = self._read_headers()
        self.headers = self.msg = http.client.HTTPMessage()
        coding = headers.get('transfer-encoding', '').lower()
        self.chunked = coding == 'chunked'
        self.chunk_left = None
        wishes = headers.get('connection', '').lower()
        self.will_close = 'close' in wishes or (
            self.version == 10 and 'keep-alive' not in wishes
        )
        self.length = None
        length = headers.get('content-length', '')
        if not self.chunked and length.isdecimal():
            self.length = int(length)
        if self.length is None and not self.chunked:
            self.will_close = True

    def _read_headers(self) -> dict[str, str]:
        """Return the headers; names in lower case, the last one of each."""
        headers: dict[str, str] = {}
        for _ in range(MAX_HEADERS):
            line = self.fp.readline(MAX_LINE + 1)
            if len(line) > MAX_LINE:
                raise http.client.LineTooLong('header line')
            if line in (b'\r\n', b'\n', b''):
                return headers
            name, _, value = line.decode('iso-8859-1').partition(':')
            headers[name.strip().lower()] = value.strip()
        raise http.client.HTTPException(f"more than {MAX_HEADERS} headers")


class _Connection:
    """A connection that is open from the start and never opens again.

    :ivar wire: its socket.
    """

    def __init__(self, access: conf.HostAccess, sock: socket.socket) -> None:
        self.wire = _Wire(sock, access.max_reply_mib)
        self._access = access
        self._since = time.monotonic()
        self._process = os.getpid()

    def close(self) -> None:
        """Close the socket."""
        self.wire.close()

    def usable(self) -> bool:
        """Say whether the peer seems to listen still."""
        return (
            self._process == os.getpid()
            and time.monotonic() - self._since < IDLE_SECONDS
            and not self.wire.readable()
        )

    def exchange(
        self,
        path: str,
        body: bytes,
        content_type: str,
        keep: bool,
        may_send: collections.abc.Callable[[], object],
    ) -> tuple[bytes, bool]:
        """Send one request; return the answer and whether to keep this.

        :raises LeaseLost: by ``may_send``; nothing was sent.
        :raises xmlrpc.client.ProtocolError: the status is not 200.
        """
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {self._access.url.partition('://')[2]}",
            f"Content-Type: {content_type}",
            f"User-Agent: {Transport.user_agent}",
            f"Content-Length: {len(body)}",
        ]
        if not keep:
            lines.append('Connection: close')
        # In one piece: who sends two lets the peer wake up twice.
        data = '\r\n'.join([*lines, '', '']).encode() + body
        may_send()
        self.wire.received = 0
        self.wire.sendall(data)
        sock = typing.cast(socket.socket, self.wire)
        with contextlib.closing(_Response(sock, method='POST')) as response:
            response.begin()
            answer = _whole(response, self.wire.limit)
        if response.status != 200:
            raise xmlrpc.client.ProtocolError(
                f"{self._access.address}{path}",
                response.status,
                response.reason,
                {},
            )
        self._since = time.monotonic()
        return answer, keep and not response.will_close


class _Wire:
    """A socket on which all waiting together ends at one deadline.

    A socket's own timeout counts anew with each byte, so a peer that sends
    one now and then could hold the caller for ever. All bytes together are
    limited, too: headers, chunks and what says how long it will be.

    :ivar received: how many bytes of the present answer have come.
    :param limit: how many MiB an answer may have.
    """

    def __init__(self, sock: socket.socket, limit: int) -> None:
        self._sock = sock
        self.deadline = float('inf')
        self.received = 0
        self.limit = limit

    def sendall(self, data: bytes) -> None:
        """Send ``data``, as ``socket.sendall``."""
        self.arm()
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader of the answer, as ``socket.makefile``."""
        raw = self._sock.makefile('rb', buffering=0)
        return io.BufferedReader(_Reader(self, raw))

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def arm(self) -> None:
        """Let the next wait end at the deadline.

        :raises TimeoutError: it is over.
        """
        _arm(self._sock, self.deadline)

    def readable(self) -> bool:
        """Say whether something, or the end, has come unasked.

        A process that eventlet has patched has no ``poll``; its ``select``
        takes descriptors above 1023, which the real one does not.
        """
        if not hasattr(select, 'poll'):
            return bool(select.select([self._sock], [], [], 0)[0])
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))


class _Reader(io.RawIOBase):
    """Reads from a :class:`_Wire`."""

    def __init__(self, wire: _Wire, raw: io.RawIOBase) -> None:
        self._wire = wire
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: typing.Any) -> int | None:
        self._wire.arm()
        count: int | None = self._raw.readinto(buffer)
        self._wire.received += count or 0
        if self._wire.received > self._wire.limit * MIB:
            raise replies.TooLarge(self._wire.limit)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _whole(response: http.client.HTTPResponse, limit: int) -> bytes:
    """Return the body of an answer.

    One that comes in chunks is put together as they come: a list of many
    small ones would take far more memory than the answer.

    :param limit: how many MiB it may have.
    :raises TooLarge: it says that it has more.
    """
    if (response.length or 0) > limit * MIB:
        raise replies.TooLarge(limit)
    if not response.chunked:
        return response.read()
    whole = bytearray()
    while piece := response.read(PIECE):
        whole += piece
    return bytes(whole)


def _forbid_doctype(parser: typing.Any) -> None:
    """Let no document define entities: a short one could become gigabytes."""

    def refuse(*args: object) -> typing.NoReturn:
        raise replies.OddReply('the reply has a document type')

    parser._parser.StartDoctypeDeclHandler = refuse


def _close_all(connections: list[_Connection]) -> None:
    for connection in connections:
        connection.close()


def tls_context(access: conf.HostAccess) -> ssl.SSLContext | None:
    """Return how the host's certificate is verified; None for plain HTTP.

    :param access: how the host is reached.
    :raises ConfigurationError: its ``ca_file`` cannot be used.
    """
    if not access.url.startswith('https'):
        return None
    verified = not (access.insecure or access.fingerprint)
    try:
        return _context(access.ca_file, _edition(access.ca_file), verified)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise exceptions.ConfigurationError(
            f"section [{access.name}]: ca_file {access.ca_file} cannot be "
            f"used: {reason}"
        ) from None


def _edition(ca_file: str | None) -> tuple[int, int]:
    """Return what tells one content of a file from another."""
    if ca_file is None:
        return (0, 0)
    found = os.stat(ca_file)
    return (found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=256)
def _context(
    ca_file: str | None, edition: tuple[int, int], verified: bool
) -> ssl.SSLContext:
    """Return how certificates are verified, made once for all hosts alike.

    To load the system's CAs takes some 40 ms of CPU, and whoever asks all
    members for their master would load them for each.
    """
    if ca_file is None and not verified:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.create_default_context(cafile=ca_file)
    if ca_file:
        # Hosts sign their own certificates, without the extensions that
        # Python 3.13 asks for since it sets this flag.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connected(access: conf.HostAccess, deadline: float) -> socket.socket:
    """Connect to the first of the host's addresses that answers."""
    failure: OSError = socket.gaierror(socket.EAI_NONAME, 'no address')
    for family, kind, protocol, _, address in socket.getaddrinfo(
        access.address, access.port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            _arm(sock, deadline)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def _secured(
    sock: socket.socket,
    access: conf.HostAccess,
    context: ssl.SSLContext | None,
    deadline: float,
) -> socket.socket:
    """Agree on TLS and check the certificate.

    :raises NoTls: the peer says nothing in time.
    :raises WrongCertificate: it is not the one that was configured.
    """
    if context is None:
        return sock
    _arm(sock, deadline)
    try:
        secured = context.wrap_socket(sock, server_hostname=access.address)
    except TimeoutError:
        raise errors.NoTls from None
    if access.fingerprint:
        certificate = secured.getpeercert(binary_form=True) or b''
        shown = hashlib.sha256(certificate).hexdigest()
        if not hmac.compare_digest(shown, access.fingerprint):
            secured.close()
            raise errors.WrongCertificate(shown)
    return secured


def _arm(sock: socket.socket, deadline: float) -> None:
    """Let the next wait on ``sock`` end at ``deadline``."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError('timed out')
    sock.settimeout(left if left < float('inf') else None)
