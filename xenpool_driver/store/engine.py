# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Transactions on one database: whole, retried where that is safe, and with
one clear line when they fail.

====================  ==================  =======================  ===========
what                  SQLite              PostgreSQL               MariaDB
====================  ==================  =======================  ===========
write transaction     BEGIN IMMEDIATE     READ COMMITTED           the same
a row is locked by    the one writer      SELECT ... FOR UPDATE    the same
read transaction      BEGIN (WAL: one     REPEATABLE READ (one     the same
                      snapshot)           snapshot)
====================  ==================  =======================  ===========

A write first locks the row that it is about and reads everything else after
that. Under MariaDB's own default, REPEATABLE READ, what it reads then could
be older than the lock; under READ COMMITTED it is what the lock's last holder
committed.
"""

from __future__ import annotations

import collections.abc
import contextlib
import copy
import os
import sqlite3
import threading
import typing

import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc
import sqlalchemy.pool
import tenacity

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions, sharing
from xenpool_driver.store import files, location, servers, statements

T = typing.TypeVar('T')
Work = collections.abc.Callable[[sa.Connection], T]

ATTEMPTS = 20
"""How often one write transaction is begun before its error is believed."""

IDLE_FILES = 64
"""How many connections to an SQLite file are kept open; as many threads as
may join hosts at the same time. To open one takes longer than to write."""

# A unique constraint is transient, too: somebody committed the same name or
# host between our look and our write; the next look says whose it is.

_SQLITE_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
}

_POSTGRESQL_TRANSIENT = {
    '23505',  # unique_violation
    '40001',  # serialization_failure
    '40P01',  # deadlock_detected
    '55P03',  # lock_not_available
}

_MYSQL_TRANSIENT = {
    1062,  # ER_DUP_ENTRY
    1020,  # ER_CHECKREAD: the row has changed since it was read
    1205,  # ER_LOCK_WAIT_TIMEOUT
    1213,  # ER_LOCK_DEADLOCK
}

_MYSQL_LOST = 2013
"""CR_SERVER_LOST, by which PyMySQL also tells of its own time-outs."""


class Database:
    """One database and its connections.

    :param url: from :func:`location.parse`.
    :param busy_timeout: seconds to wait for a lock of somebody else.
    :param clock: sleeps between attempts; for SQLite it is also the
        database's clock.
    :param lease_clock: see :meth:`time`.
    """

    def __init__(
        self,
        url: sa.URL,
        busy_timeout: float = 30.0,
        clock: clocks.Clock = clocks.SYSTEM,
        lease_clock: clocks.Clock | None = None,
    ) -> None:
        self.url = url
        self.shown = location.shown(url)
        self.kind = url.get_backend_name()
        self.path = (url.database or '') if self.kind == 'sqlite' else ''
        self.busy_timeout = busy_timeout
        self._clock = clock
        self._lease_clock = lease_clock
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._of_parents: list[object] = []
        self._connect()

    def _connect(self) -> None:
        with self.explained():
            self._engine = _engine(self.url, self.busy_timeout)
        self._reads = self._engine
        self._writes = self._engine.execution_options(immediate=True)
        if self.kind != 'sqlite':
            self._reads = self._engine.execution_options(
                isolation_level='REPEATABLE READ'
            )

    def read(self, work: Work[T]) -> T:
        """Return what ``work`` reads from one snapshot.

        :raises StoreError: the database cannot be used.
        """
        self._after_fork()
        with self.explained():
            return self._retrying(_once, self._reads, work)

    def write(self, work: Work[T]) -> T:
        """Return what ``work`` returns, once all that it wrote is committed.

        When the database itself asks for it (a deadlock, a lock that takes
        too long, a row that another transaction inserted first), everything
        is rolled back and ``work`` is called again: it must do nothing but
        read and write through its connection. A connection that breaks is
        not tried again, since the commit may have come through.

        :raises StoreError: the database cannot be used, or refuses.
        """
        self._after_fork()
        with self._queue(), self.explained():
            return self._retrying(_once, self._writes, work)

    def time(self, connection: sa.Connection) -> float:
        """Return seconds since 1970 by the clock that all workers share.

        A server's own clock; for an SQLite file, which has none, the
        machine's. Whoever made this object with a ``lease_clock`` reads
        that one: tests do, which own the time.

        :param connection: in a transaction of this database.
        """
        if self._lease_clock is not None:
            return self._lease_clock.time()
        question = statements.TIME.get(self.kind)
        if question is None:
            return self._clock.time()
        return float(connection.execute(question).scalar_one())

    @contextlib.contextmanager
    def _queue(self) -> collections.abc.Iterator[None]:
        """Let this process's threads write to SQLite one after the other.

        Who finds SQLite's own lock taken sleeps and tries again, ever
        longer, and may starve among many; here the next one goes on at
        once. Nobody waits longer here than for that lock.
        """
        if self.kind != 'sqlite':
            yield
            return
        taken = self._turn.acquire(timeout=self.busy_timeout)
        try:
            yield
        finally:
            if taken:
                self._turn.release()

    @contextlib.contextmanager
    def outside(self) -> collections.abc.Iterator[sa.Connection]:
        """Hold a connection that is in no transaction and in no pool."""
        self._after_fork()
        outside = self._engine.execution_options(
            isolation_level='AUTOCOMMIT', outside=True
        )
        with self.explained(), outside.connect() as connection:
            connection.detach()
            yield connection

    def beside(self, path: str) -> Database:
        """Return an SQLite database in another file, called like this one
        in messages.

        :param path: of a file that is there.
        """
        other = copy.copy(self)
        other.url = self.url.set(database=path)
        other.path = path
        other._connect()
        return other

    def close(self) -> None:
        """Close every connection, unless others use them."""
        if _SHARED.give_back(self):
            self._after_fork()
            self._engine.dispose()

    @contextlib.contextmanager
    def explained(self) -> collections.abc.Iterator[None]:
        """Turn foreign errors into ours: one line, no password."""
        try:
            yield
        except TypeError as error:
            # What stands behind the ? goes to the driver as it is.
            for name in self.url.query:
                if f"keyword argument '{name}'" in str(error):
                    raise exceptions.ConfigurationError(
                        f"{location.OPTION}: {self.shown} cannot be opened "
                        f"with '{name}', which the driver "
                        f"{self.url.drivername} does not know"
                    ) from None
            raise
        except ImportError as error:
            extra = location.SUPPORTED[self.kind]
            raise exceptions.ConfigurationError(
                f"{location.OPTION}: {self.url.drivername} needs a package "
                f"that is not installed ({error.name}): pip install "
                f"'{extra}'"
            ) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            # Without the cause: its text may hold what ours leaves out.
            raise exceptions.StoreError(
                f"database {self.shown}: {self._reason(error)}"
            ) from None

    def _retrying(
        self,
        function: collections.abc.Callable[[sa.Engine, Work[T]], T],
        engine: sa.Engine,
        work: Work[T],
    ) -> T:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(transient),
            stop=tenacity.stop_after_attempt(ATTEMPTS)
            | tenacity.stop_after_delay(self.busy_timeout),
            wait=tenacity.wait_random_exponential(multiplier=0.005, max=0.5),
            sleep=self._clock.sleep,
            reraise=True,
        )
        return retrying(function, engine, work)

    def _after_fork(self) -> None:
        """Forget connections that a forked child shares with its parent."""
        if self._pid != os.getpid():
            # Kept, since SQLite must not even close them in a child.
            self._of_parents.append(self._engine.pool)
            self._engine.dispose(close=False)
            self._turn = threading.Lock()
            self._pid = os.getpid()

    def _reason(self, error: sqlalchemy.exc.SQLAlchemyError) -> str:
        """Return the database's own words, in one line."""
        cause = getattr(error, 'orig', None) or error
        number, *rest = getattr(cause, 'args', None) or (str(cause),)
        text = f"{rest[0]} ({number})" if rest else str(number)
        if self.kind == 'sqlite':
            code = getattr(cause, 'sqlite_errorcode', None) or 0
            text = files.trouble(self.path, code) or text
            if transient(error):
                wait = f"{self.busy_timeout:g}"
                text = f"another worker held the lock for {wait} s"
        elif 'timed out' in text and number == _MYSQL_LOST:
            text = servers.silence()
        text = ' '.join(text.split())
        for secret in location.secrets(self.url):
            text = text.replace(secret, '***')
        return text


_SHARED: sharing.Shared[Database] = sharing.Shared()


def take(
    text: str | None,
    busy_timeout: float,
    clock: clocks.Clock = clocks.SYSTEM,
    lease_clock: clocks.Clock | None = None,
) -> Database:
    """Return this process's one object for a database; close it when done.

    :param text: the configured URL, or None for the default file. The rest:
        as for :class:`Database`.
    :raises ConfigurationError: the URL makes no sense.
    """
    url = location.parse(text)
    return _SHARED.take(
        (location.place(url), busy_timeout, clock, lease_clock),
        lambda: Database(url, busy_timeout, clock, lease_clock),
    )


@contextlib.contextmanager
def opened(
    text: str | None, busy_timeout: float
) -> collections.abc.Iterator[Database]:
    """Hold a database open for a moment.

    :param text: the configured URL, or None for the default file.
    """
    database = take(text, busy_timeout)
    try:
        yield database
    finally:
        database.close()


def transient(error: BaseException) -> bool:
    """Say whether the same transaction may well succeed when begun anew."""
    cause = getattr(error, 'orig', None)
    if not isinstance(error, sqlalchemy.exc.DBAPIError) or cause is None:
        return False
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, 'sqlite_errorcode', None) or 0
        return code & 0xFF in _SQLITE_TRANSIENT
    if getattr(cause, 'sqlstate', None) in _POSTGRESQL_TRANSIENT:
        return True
    return bool(cause.args) and cause.args[0] in _MYSQL_TRANSIENT


def _once(engine: sa.Engine, work: Work[T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def _engine(url: sa.URL, busy_timeout: float) -> sa.Engine:
    if url.get_backend_name() == 'sqlite':
        return _sqlite(url, busy_timeout)
    return servers.engine(url, busy_timeout)


def _sqlite(url: sa.URL, busy_timeout: float) -> sa.Engine:
    engine = sa.create_engine(
        url,
        connect_args={'timeout': busy_timeout},
        pool_size=IDLE_FILES,
        max_overflow=-1,
    )

    @sqlalchemy.event.listens_for(engine, 'do_connect')
    def connect(
        dialect: object,
        record: object,
        arguments: typing.Any,
        options: dict[str, typing.Any],
    ) -> sqlite3.Connection:
        # A file that is gone is an error, never silently a new one.
        name = files.uri(url.database or '')
        opened: sqlite3.Connection = sqlite3.connect(name, uri=True, **options)
        return opened

    @sqlalchemy.event.listens_for(engine, 'connect')
    def prepare(
        connection: sqlite3.Connection,
        record: sqlalchemy.pool.ConnectionPoolEntry,
    ) -> None:
        record.info['file'] = files.identity(url.database or '')
        # The module's own idea of when a transaction begins is too late.
        connection.isolation_level = None
        connection.execute('PRAGMA foreign_keys = ON')
        connection.execute('PRAGMA synchronous = FULL')

    @sqlalchemy.event.listens_for(engine, 'checkout')
    def compare(
        connection: object,
        record: sqlalchemy.pool.ConnectionPoolEntry,
        pooled: object,
    ) -> None:
        # What is written to a file that lost its name is lost.
        if record.info['file'] != files.identity(url.database or ''):
            raise sqlalchemy.exc.DisconnectionError

    @sqlalchemy.event.listens_for(engine, 'begin')
    def begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        if not options.get('outside'):
            connection.exec_driver_sql(
                'BEGIN IMMEDIATE' if options.get('immediate') else 'BEGIN'
            )

    return engine
