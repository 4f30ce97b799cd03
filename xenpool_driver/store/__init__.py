# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What must survive: aggregates, their hosts and metadata, the journal.

The store is mechanism. It knows no rule of the lifecycle: what a request may
do is decided by the ``admit`` and ``settle`` functions that its caller hands
in, and the store sees to it that their decision is taken under a lock and
written whole or not at all.

Importing this package is cheap; SQLAlchemy is loaded by the first
:func:`open_store`, alembic only when a schema has to be changed.
"""

from __future__ import annotations

import typing

from xenpool_driver import clock as clocks
from xenpool_driver.store.lease import LeaseKeeper, Moment, margin
from xenpool_driver.store.records import (
    Aggregate,
    Changes,
    Operation,
    Phase,
    SentRequest,
)

if typing.TYPE_CHECKING:
    from oslo_config import cfg

    from xenpool_driver.store.core import Store as Store

__all__ = [
    'Aggregate',
    'Changes',
    'LeaseKeeper',
    'Moment',
    'Operation',
    'Phase',
    'SentRequest',
    'Store',
    'margin',
    'migrate',
    'open_store',
    'version',
]


def open_store(
    conf: cfg.ConfigOpts,
    clock: clocks.Clock = clocks.SYSTEM,
    create: bool = True,
) -> Store:
    """Open the database that the configuration names.

    An SQLite file is created, and upgraded to the code's schema, on the way.
    A server's schema is the operator's: ``xenpool db upgrade`` changes it.

    Who opens the same database again in this process gets the same store.
    It is closed when each has closed it.

    :param conf: options that ``xenpool_driver.conf`` registered.
    :param clock: as for :class:`Store`.
    :param create: whether an SQLite file is created where there is none.
    :raises ConfigurationError: the URL makes no sense.
    :raises NoDatabase: there is no SQLite file, and none may be created.
    :raises StoreError: the database cannot be used.
    :raises DatabaseVersionMismatch: its schema is not the code's.
    """
    from xenpool_driver.store import core

    return core.take(
        conf.database.connection, conf.database.busy_timeout, clock, create
    )


def migrate(
    where: cfg.ConfigOpts | str | None, busy_timeout: float = 30.0
) -> tuple[str | None, str]:
    """Upgrade the schema to the code's.

    :param where: the options, or an SQLAlchemy URL; None means the default
        SQLite file.
    :param busy_timeout: seconds to wait for another upgrade.
    :returns: the revisions before and after.
    :raises DatabaseVersionMismatch: the schema is newer than the code.
    """
    from xenpool_driver.store import engine, migration

    with engine.opened(_url(where), busy_timeout) as database:
        return migration.upgrade(database)


def version(
    where: cfg.ConfigOpts | str | None, busy_timeout: float = 30.0
) -> tuple[str | None, str]:
    """Return the revision of the database and the revision of the code.

    :param where: as for :func:`migrate`.
    :param busy_timeout: seconds to wait for a lock.
    """
    from xenpool_driver.store import engine, migration, schema

    with engine.opened(_url(where), busy_timeout) as database:
        return migration.revision(database), schema.REVISION


def _url(where: cfg.ConfigOpts | str | None) -> str | None:
    if where is None or isinstance(where, str):
        return where
    url: str | None = where.database.connection
    return url


def __getattr__(name: str) -> typing.Any:
    """Load :class:`Store` when it is first asked for."""
    if name == 'Store':
        from xenpool_driver.store import core

        return core.Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
