# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Which schema a database has, and how it gets the code's.

alembic does the work; it is imported only when there is work, since most
starts only look at one row.
"""

from __future__ import annotations

import collections.abc
import contextlib
import os
import pathlib

import sqlalchemy as sa

from xenpool_driver import exceptions
from xenpool_driver.store import engine, files, schema

_LOCK_NAME = 'xenpool_upgrade'
_LOCK_NUMBER = 0x78656E706F6F6C  # 'xenpool': an advisory lock of PostgreSQL

COMMAND = 'xenpool db upgrade'


def ensure(database: engine.Database, create: bool = True) -> None:
    """See to it that the schema is the code's.

    An SQLite file is created and upgraded on the way; a server's schema is
    changed by its operator only.

    :param create: whether an SQLite file may be created.
    :raises NoDatabase: there is no file, and none may be created.
    :raises DatabaseVersionMismatch: the schema is newer than the code, or
        older and on a server.
    """
    if database.kind == 'sqlite' and not files.exists(database.path):
        if not create:
            raise files.missing(database.path)
        _create(database)
    found = revision(database)
    if found == schema.REVISION:
        return
    refuse_newer(database, found)
    if database.kind == 'sqlite':
        upgrade(database)
        return
    raise exceptions.DatabaseVersionMismatch(
        f"database {database.shown} has schema revision {found or 'none'}, "
        f"this release needs {schema.REVISION}: run '{COMMAND}'"
    )


def revision(database: engine.Database) -> str | None:
    """Return the schema's revision; None if there is no schema yet.

    :raises StoreError: an SQLite file is there that cannot be used.
    """
    if database.kind == 'sqlite' and not files.exists(database.path):
        return None
    return database.read(_revision)


def refuse_newer(database: engine.Database, found: str | None) -> None:
    """Refuse a schema that this code does not know.

    :raises DatabaseVersionMismatch: it is unknown, so written by a newer
        release.
    """
    if found is not None and found not in schema.REVISIONS:
        raise exceptions.DatabaseVersionMismatch(
            f"database {database.shown} has schema revision {found}, newer "
            f"than {schema.REVISION}, the newest that this release knows: "
            f"install the release that wrote it"
        )


def upgrade(database: engine.Database) -> tuple[str | None, str]:
    """Bring the schema to the code's revision.

    Two that try at once wait for each other; the second finds nothing to do.

    :returns: the revisions before and after.
    :raises DatabaseVersionMismatch: the schema is newer than the code.
    """
    if database.kind == 'sqlite':
        if not files.exists(database.path) and _create(database):
            return None, schema.REVISION
        lock = files.locked(database.path, database.busy_timeout)
    else:
        lock = _server_lock(database)
    with lock:
        before = revision(database)
        refuse_newer(database, before)
        if database.kind == 'sqlite':
            _refuse_foreign_file(database, before)
            _use_wal(database)
        if before != schema.REVISION:
            database.write(_run)
    return before, schema.REVISION


def _create(database: engine.Database) -> bool:
    """Create an SQLite database.

    :returns: whether it was created here; another process may have been
        quicker.
    :raises StoreError: it cannot be created.
    """
    files.make_directory(database.path)
    with files.locked(database.path, database.busy_timeout):
        if files.exists(database.path):
            return False
        files.make(database.path, lambda draft: _fill(database, draft))
    return True


def _fill(database: engine.Database, draft: str) -> None:
    """Make the schema in an empty file, and close it.

    :param database: what it shall become.
    :param draft: the name of the file until then.
    """
    made = database.beside(draft)
    try:
        _use_wal(made)
        made.write(_run)
    finally:
        made.close()


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    table = sa.table(schema.VERSION_TABLE, sa.column('version_num'))
    found: str | None = connection.scalar(sa.select(table.c.version_num))
    return found


def _run(connection: sa.Connection) -> None:
    """Let alembic run every revision that is missing, in one transaction
    where the database can (MariaDB cannot: its revisions can be repeated)."""
    import alembic.command
    import alembic.config

    config = alembic.config.Config()
    here = os.fspath(pathlib.Path(__file__).with_name('migrations'))
    config.set_main_option('script_location', here.replace('%', '%%'))
    config.attributes['connection'] = connection
    alembic.command.upgrade(config, 'head')


def _refuse_foreign_file(database: engine.Database, found: str | None) -> None:
    """Leave alone an SQLite file that belongs to something else."""
    if found is not None:
        return
    tables = database.read(
        lambda connection: sa.inspect(connection).get_table_names()
    )
    if tables:
        raise exceptions.StoreError(
            f"database {database.shown} is not ours: it holds the table "
            f"'{tables[0]}' and no {schema.VERSION_TABLE}"
        )


def _use_wal(database: engine.Database) -> None:
    """Let readers and the writer of an SQLite file not wait for each other.

    The mode is a property of the file, and is not to be had inside of a
    transaction.

    :raises StoreError: the file system cannot do it.
    """
    with database.outside() as connection:
        mode = connection.exec_driver_sql('PRAGMA journal_mode = WAL').scalar()
    if mode != 'wal':
        raise exceptions.StoreError(
            f"database {database.shown}: journal mode is {mode}, not wal; "
            f"put the file on a local file system"
        )


@contextlib.contextmanager
def _server_lock(
    database: engine.Database,
) -> collections.abc.Iterator[None]:
    """Exclude others who would upgrade the same server's schema.

    The lock belongs to a connection of its own, and goes with it.

    :raises StoreError: somebody else holds the lock for too long.
    """
    if database.kind == 'postgresql':
        # Waits for lock_timeout at most, then is an error by itself.
        statement = f"SELECT pg_advisory_lock({_LOCK_NUMBER}), 1"
    else:
        statement = (
            f"SELECT {max(1, int(database.busy_timeout))} AS wait, GET_LOCK("
            f"CONCAT('{_LOCK_NAME}.', MD5(DATABASE())), "
            f"{max(1, int(database.busy_timeout))})"
        )
    with database.outside() as connection:
        row = connection.exec_driver_sql(statement).one()
        if row[1] != 1:
            raise exceptions.StoreError(
                f"database {database.shown} is being upgraded by somebody "
                f"else for more than {row[0]} s"
            )
        yield
