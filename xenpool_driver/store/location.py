# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Where the database is: from a configured URL, or the lack of one, to an
SQLAlchemy URL that can be used, and how it is shown to people."""

from __future__ import annotations

import os
import pathlib
import urllib.parse

import sqlalchemy as sa
import sqlalchemy.exc

from xenpool_driver import exceptions

OPTION = '[database] connection'

DRIVERS = {
    'sqlite': 'sqlite+pysqlite',
    'postgres': 'postgresql+psycopg',
    'postgresql': 'postgresql+psycopg',
    'mysql': 'mysql+pymysql',
    'mariadb': 'mysql+pymysql',
    'mariadb+pymysql': 'mysql+pymysql',
}
"""The driver for a URL that names none, or that goes by another name."""

SUPPORTED = {
    'sqlite': '',
    'postgresql': 'xenpool-driver[postgresql]',
    'mysql': 'xenpool-driver[mysql]',
}
"""Kind of database -> what to install for it."""


def default_path() -> pathlib.Path:
    """Return the path of the SQLite file that is used unless told otherwise.

    A relative ``XDG_STATE_HOME`` is ignored, as the XDG base directory
    specification demands.
    """
    state = pathlib.Path(os.environ.get('XDG_STATE_HOME', ''))
    if not state.is_absolute():
        state = pathlib.Path.home() / '.local' / 'state'
    return state / 'xenpool' / 'xenpool.db'


def parse(text: str | None) -> sa.URL:
    """Return the URL to connect to.

    :param text: an SQLAlchemy URL; None or '' means the default file.
    :raises ConfigurationError: it is none, or of a database that is not
        supported. The message never repeats the text, which may hold a
        password.
    """
    if not text:
        return sa.URL.create(
            DRIVERS['sqlite'], database=os.fspath(default_path())
        )
    try:
        url = sa.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise exceptions.ConfigurationError(
            f"{OPTION} is no SQLAlchemy URL such as "
            f"postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in DRIVERS.values():
        raise exceptions.ConfigurationError(
            f"{OPTION}: '{url.drivername}' is not supported; use one of "
            f"{', '.join(sorted(SUPPORTED))}, and name no driver"
        )
    return _file(url) if url.get_backend_name() == 'sqlite' else _server(url)


def place(url: sa.URL) -> sa.URL:
    """Return what is equal for all URLs of one database.

    :param url: from :func:`parse`.
    """
    if url.get_backend_name() != 'sqlite':
        return url
    return url.set(database=os.path.realpath(url.database or ''))


def shown(url: sa.URL) -> str:
    """Return the URL for people: no user, no password, no query."""
    if url.get_backend_name() == 'sqlite':
        return url.database or ''
    name = f"/{url.database}" if url.database else ''
    port = f":{url.port}" if url.port else ''
    return f"{url.get_backend_name()}://{url.host or ''}{port}{name}"


def secrets(url: sa.URL) -> list[str]:
    """Return every text that must not be repeated, longest first."""
    found = {url.password or '', urllib.parse.quote(url.password or '', '')}
    for key, given in url.query.items():
        if 'pass' in key.lower():
            found.update([given] if isinstance(given, str) else given)
    return sorted(found - {''}, key=len, reverse=True)


def _file(url: sa.URL) -> sa.URL:
    """Return an SQLite URL with an absolute path."""
    path = url.database or ''
    if path in ('', ':memory:') or path.startswith('file:'):
        raise exceptions.ConfigurationError(
            f"{OPTION}: an SQLite URL must name a plain file, for example "
            f"sqlite:////var/lib/xenpool/xenpool.db"
        )
    return url.set(database=os.path.abspath(path))


def _server(url: sa.URL) -> sa.URL:
    if not url.database:
        raise exceptions.ConfigurationError(
            f"{OPTION}: {shown(url)} names no database"
        )
    return url
