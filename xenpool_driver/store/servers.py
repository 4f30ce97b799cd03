# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Connections to PostgreSQL and MariaDB, each wait of which has an end.

A server, or what stands between, may fall silent while a connection is open.
TCP does not tell: what was sent was received. So a client waits for a bounded
time, and then closes the connection. A client may fall silent, too, in the
middle of a transaction (it is stopped, or its machine is): then the server
ends the transaction, so that its locks keep nobody waiting.

======================  ==================  ==============  ==============
who is silent           when                PostgreSQL      MariaDB
======================  ==================  ==============  ==============
server, it answers TCP  a statement, COMMIT :func:`_ended`  read_timeout
server                  the connection      connect_timeout the same
server, at the start    a pooled connection the ping, which has less time
network                 idle                keep-alives     the same
client                  in a transaction    idle_in_trans-  idle_trans-
                                            action_session- action_timeout
                                            _timeout
======================  ==================  ==============  ==============
"""

from __future__ import annotations

import collections.abc
import contextlib
import socket
import typing

import sqlalchemy as sa
import sqlalchemy.event

from xenpool_driver import clock as clocks

CONNECT_TIMEOUT = 10
"""Seconds in which a server must take a new connection, or show that a
connection from the pool still works."""

SILENCE = 10.0
"""Seconds that a server may say nothing beyond the longest wait for a lock."""

KEEP_ALIVE = {'idle': 20, 'interval': 5, 'count': 4}
"""TCP keep-alives: seconds until the first, seconds between two, and how many
must be lost until the connection counts as broken."""

MIN_IDLE = 5.0
"""Seconds that a transaction may do nothing, at the least."""

Wait = collections.abc.Generator[typing.Any, typing.Any, typing.Any]


def longest_wait(busy_timeout: float) -> float:
    """Return the seconds that a statement has to be answered.

    :param busy_timeout: seconds to wait for a lock of somebody else.
    """
    return busy_timeout + SILENCE


def longest_idle(busy_timeout: float) -> float:
    """Return the seconds that a transaction may do nothing.

    Half of the time for which another worker waits for its locks: so that
    one gets them in time.
    """
    return max(MIN_IDLE, busy_timeout / 2)


def engine(url: sa.URL, busy_timeout: float) -> sa.Engine:
    """Return the engine of a server.

    :param url: from ``location.parse``.
    :param busy_timeout: seconds to wait for a lock of somebody else.
    """
    make = _postgresql if url.get_backend_name() == 'postgresql' else _mysql
    return make(url, busy_timeout)


def _postgresql(url: sa.URL, busy_timeout: float) -> sa.Engine:
    longest = longest_wait(busy_timeout)
    url = url.update_query_dict(
        {
            'connect_timeout': str(CONNECT_TIMEOUT),
            'tcp_user_timeout': f"{longest * 1000:.0f}",
            **{f"keepalives_{k}": str(v) for k, v in KEEP_ALIVE.items()},
            'application_name': 'xenpool',
            **url.query,
        }
    )
    found = _server(url)
    if found.dialect.driver == 'psycopg':
        _bound_psycopg(found, longest)

    @sqlalchemy.event.listens_for(found, 'connect')
    def prepare(connection: typing.Any, record: object) -> None:
        limits = {
            'lock_timeout': busy_timeout,
            'statement_timeout': longest,
            'idle_in_transaction_session_timeout': longest_idle(busy_timeout),
        }
        with connection.cursor() as cursor:
            cursor.execute(
                '; '.join(
                    f"SET {name} = {max(1, int(seconds * 1000)):d}"
                    for name, seconds in limits.items()
                )
            )
        connection.commit()

    return found


def _bound_psycopg(found: sa.Engine, longest: float) -> None:
    """Let psycopg wait for no answer for ever: libpq itself would."""
    import psycopg

    class Connection(psycopg.Connection[typing.Any]):
        """One that closes itself when the server is silent for too long.

        :ivar patience: seconds.
        """

        patience = longest

        def wait(
            self, gen: Wait, *arguments: typing.Any, **options: typing.Any
        ) -> typing.Any:
            return super().wait(
                _ended(gen, self.patience, self._give_up),
                *arguments,
                **options,
            )

        def _give_up(self) -> Exception:
            self.pgconn.finish()
            return psycopg.OperationalError(silence(self.patience))

    @sqlalchemy.event.listens_for(found, 'do_connect')
    def connect(
        dialect: object,
        record: object,
        arguments: typing.Any,
        options: dict[str, typing.Any],
    ) -> typing.Any:
        return Connection.connect(*arguments, **options)

    def be_patient(connection: typing.Any, seconds: float) -> None:
        connection.patience = seconds

    _hurry_ping(found, longest, be_patient)


def _ended(
    waiting: Wait,
    longest: float,
    give_up: collections.abc.Callable[[], Exception],
    clock: clocks.Clock = clocks.SYSTEM,
) -> Wait:
    """Do what a generator of psycopg does, and end it when time is over.

    psycopg resumes it when the socket is ready, and ten times a second to
    see to signals; then the value sent is false.

    :param waiting: yields what it waits for.
    :param longest: seconds.
    :param give_up: closes the connection, returns what is to be raised.
    :param clock: time.
    """
    deadline = clock.monotonic() + longest
    try:
        wanted = next(waiting)
        while True:
            ready = yield wanted
            if not ready and clock.monotonic() >= deadline:
                raise give_up()
            wanted = waiting.send(ready)
    except StopIteration as end:
        return end.value


def _mysql(url: sa.URL, busy_timeout: float) -> sa.Engine:
    longest = longest_wait(busy_timeout)
    url = url.update_query_dict(
        {
            'charset': 'utf8mb4',
            'connect_timeout': str(CONNECT_TIMEOUT),
            # Until the connection is ready; then for the longest wait.
            'read_timeout': str(CONNECT_TIMEOUT),
            'write_timeout': str(CONNECT_TIMEOUT),
            **url.query,
        }
    )
    found = _server(url)
    if found.dialect.driver == 'pymysql':
        _hurry_ping(found, longest, _be_patient)

    @sqlalchemy.event.listens_for(found, 'connect')
    def prepare(connection: typing.Any, record: object) -> None:
        _keep_alive(getattr(connection, '_sock', None), longest)
        seconds = max(1, int(busy_timeout))
        idle = int(longest_idle(busy_timeout))
        with connection.cursor() as cursor:
            # Only MariaDB knows all three, since 10.3; others skip the rest.
            cursor.execute(
                f"SET SESSION innodb_lock_wait_timeout = {seconds:d}"
                f" /*M!100300 , max_statement_time = {longest:g}"
                f" , idle_transaction_timeout = {idle:d} */"
            )
        _be_patient(connection, longest)

    return found


def _be_patient(connection: typing.Any, seconds: float) -> None:
    """Give the server as long for its next answers.

    :param connection: PyMySQL's, which reads its limits before each use of
        the socket.
    """
    connection._read_timeout = seconds
    connection._write_timeout = seconds


def _keep_alive(connected: socket.socket | None, longest: float) -> None:
    """Let TCP notice that the other side of a connection is gone."""
    if connected is None or connected.family == socket.AF_UNIX:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEP_ALIVE['idle']),
        (socket.TCP_KEEPINTVL, KEEP_ALIVE['interval']),
        (socket.TCP_KEEPCNT, KEEP_ALIVE['count']),
        (socket.TCP_USER_TIMEOUT, int(longest * 1000)),
    ):
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


def _hurry_ping(
    found: sa.Engine,
    longest: float,
    be_patient: collections.abc.Callable[[typing.Any, float], None],
) -> None:
    """Give the ping of a pooled connection less time than a statement.

    It waits for no lock; an answer that does not come at once comes never.
    """
    ask = found.dialect.do_ping

    def ping(connection: typing.Any) -> bool:
        be_patient(connection, min(longest, CONNECT_TIMEOUT))
        with contextlib.ExitStack() as at_end:
            at_end.callback(be_patient, connection, longest)
            return ask(connection)

    setattr(found.dialect, 'do_ping', ping)  # noqa: B010 - mypy


def silence(seconds: float | None = None) -> str:
    """Return what is said of a server that does not answer.

    :param seconds: how long it was waited for, if that is known.
    """
    time = f" for {seconds:g} s" if seconds else ' in time'
    return (
        f"the server said nothing{time}, and the connection was closed; what "
        f"it was asked last may have been done or not; when it answers again, "
        f"see: xenpool operation list"
    )


def _server(url: sa.URL) -> sa.Engine:
    return sa.create_engine(
        url,
        isolation_level='READ COMMITTED',
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=27,
        # One connection that works hides no others that do not.
        pool_use_lifo=True,
    )
