# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Fixtures for the servers that some tests need: databases and a broker.

Each test gets a database of its own, so that runs side by side do not meet.
A server that does not answer skips the test with the reason; with
``XENPOOL_REQUIRE_SERVICES=1`` in the environment it fails the test instead.
"""

from __future__ import annotations

import collections.abc
import functools
import os
import pathlib
import typing
import uuid

import pytest

POSTGRESQL_URL = os.environ.get(
    'XENPOOL_TEST_POSTGRESQL_URL',
    'postgresql+psycopg://postgres@127.0.0.1:5432/test',
)
MYSQL_URL = os.environ.get(
    'XENPOOL_TEST_MYSQL_URL', 'mysql+pymysql://root@127.0.0.1:3306/test'
)
RABBIT_URL = os.environ.get(
    'XENPOOL_TEST_RABBIT_URL', 'rabbit://guest:guest@127.0.0.1:5672//'
)


def missing(what: str) -> typing.NoReturn:
    """Skip the test for want of ``what``, or fail it where it is demanded."""
    if os.environ.get('XENPOOL_REQUIRE_SERVICES') == '1':
        pytest.fail(f"{what} (XENPOOL_REQUIRE_SERVICES=1 demands it)")
    pytest.skip(what)


@functools.cache
def _sql_problem(url: str) -> str | None:
    """Return why the database cannot be used, or None."""
    try:
        import sqlalchemy

        engine = sqlalchemy.create_engine(url)
        with engine.connect():
            pass
        engine.dispose()
    except Exception as error:  # any driver's own error, or none installed
        return f"{url.partition(':')[0]}: {str(error).splitlines()[0]}"
    return None


@functools.cache
def _rabbit_problem(url: str) -> str | None:
    """Return why the broker cannot be used, or None."""
    try:
        import kombu

        with kombu.Connection(
            url.replace('rabbit://', 'amqp://', 1), connect_timeout=5
        ) as connection:
            connection.connect()
    except Exception as error:
        return f"rabbit: {error}"
    return None


def _own_database(url: str) -> collections.abc.Iterator[str]:
    """Yield the URL of a new database on the server of ``url``; drop it."""
    problem = _sql_problem(url)
    if problem:
        missing(problem)
    import sqlalchemy

    name = f"xenpool_{uuid.uuid4().hex[:16]}"
    engine = sqlalchemy.create_engine(url, isolation_level='AUTOCOMMIT')
    force = ' WITH (FORCE)' if engine.dialect.name == 'postgresql' else ''
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    own = sqlalchemy.make_url(url).set(database=name)
    yield own.render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name}{force}"))
    engine.dispose()


@pytest.fixture
def postgresql_url() -> collections.abc.Iterator[str]:
    """The SQLAlchemy URL of an empty PostgreSQL database."""
    yield from _own_database(POSTGRESQL_URL)


@pytest.fixture
def mysql_url() -> collections.abc.Iterator[str]:
    """The SQLAlchemy URL of an empty MariaDB or MySQL database."""
    yield from _own_database(MYSQL_URL)


@pytest.fixture(params=['sqlite', 'postgresql', 'mysql'])
def database_url(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> str:
    """The SQLAlchemy URL of an empty database of each kind in turn."""
    if request.param == 'sqlite':
        return f"sqlite:///{tmp_path / 'xenpool.db'}"
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def rabbit_url() -> str:
    """The oslo.messaging URL of the broker; use topics of your own."""
    problem = _rabbit_problem(RABBIT_URL)
    if problem:
        missing(problem)
    return RABBIT_URL
