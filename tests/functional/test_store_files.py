# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The store and the world: files, permissions, servers that do not answer."""

from __future__ import annotations

import os
import pathlib
import socket
import sqlite3
import stat

import pytest
import sqlalchemy

from tests.contract import store_kit
from xenpool_driver import conf, exceptions, store
from xenpool_driver.store import files

PASSWORD = 'k33p-it-qu1et'


def mode(path: pathlib.Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def refused(url: str, error: type[Exception] = exceptions.StoreError) -> str:
    """Return the one line with which the database cannot be opened."""
    lines = set()
    for action in (store.Store, store.migrate):
        with pytest.raises(error) as caught:
            action(url)
        lines.add(str(caught.value))
        assert caught.value.__cause__ is None
    (line,) = lines
    assert '\n' not in line
    assert PASSWORD not in line
    return line


def test_default_file_is_for_its_owner_only(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'state'))
    options = conf.load([])
    with store.open_store(options) as database:
        database.create_aggregate('pool-a')
        directory = tmp_path / 'state' / 'xenpool'
        assert mode(directory) == 0o700
        files = sorted(path.name for path in directory.iterdir())
        assert files[0] == 'xenpool.db'
        assert {mode(path) for path in directory.iterdir()} == {0o600}
    with store.open_store(options) as database:
        assert database.get_aggregate('pool-a').id == 1


def test_file_is_durable_and_lets_readers_in(tmp_path: pathlib.Path) -> None:
    with store.Store(f"sqlite:///{tmp_path / 'x.db'}") as database:

        def pragmas(connection: sqlalchemy.Connection) -> list[object]:
            return [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ('journal_mode', 'synchronous', 'foreign_keys')
            ]

        assert database._database.read(pragmas) == ['wal', 2, 1]


def test_file_that_is_no_database(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'x.db'
    path.write_text('not a database, but long enough to look at' * 100)
    before = path.read_bytes()
    assert refused(f"sqlite:///{path}") == (
        f"database {path}: file is not a database"
    )
    assert path.read_bytes() == before


def test_file_of_somebody_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'x.db'
    with sqlite3.connect(path) as connection:
        connection.execute('CREATE TABLE aggregates (id INTEGER)')
    assert 'is not ours' in refused(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        tables = connection.execute('SELECT name FROM sqlite_master')
        assert tables.fetchall() == [('aggregates',)]


def test_path_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'file').write_text('')
    line = refused(f"sqlite:///{tmp_path}/file/x.db")
    assert str(tmp_path / 'file') in line
    assert 'Is a directory' in refused(f"sqlite:///{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_read_only_directory(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o500)
    line = refused(f"sqlite:///{tmp_path}/x.db")
    assert 'Permission denied' in line
    tmp_path.chmod(0o700)


def _only_reads(url: str) -> list[str]:
    """As somebody who may read and not write, try to."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    said = []
    for action in (store.Store, store.migrate):
        try:
            action(url)
        except exceptions.StoreError as error:
            said.append(str(error))
    return said


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be another')
def test_read_only_file_and_directory(tmp_path: pathlib.Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != pathlib.Path(
            '/'
        ):
            parent.chmod(parent.stat().st_mode | 0o055)
    there = tmp_path / 'there.db'
    store.Store(f"sqlite:///{there}").close()
    for path in (there, tmp_path / 'new.db', tmp_path / 'new' / 'x.db'):
        (said,) = store_kit.run(_only_reads, (f"sqlite:///{path}",))
        assert len(said) == 2
        for line in said:
            assert line.startswith(f"database {path}: Permission denied")
            assert '\n' not in line


def test_upgrade_by_another_process_is_waited_for(
    tmp_path: pathlib.Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with open(tmp_path / 'x.db.lock', 'w') as lock:
        assert files.take_lock(lock.fileno())
        with pytest.raises(
            exceptions.StoreError, match='being upgraded by another process'
        ):
            store.Store(url, busy_timeout=0.1)
    store.Store(url).close()


def _open(url: str, barrier: object, number: int) -> int:
    barrier.wait(store_kit.PATIENCE)  # type: ignore[attr-defined]
    with store.Store(url) as database:
        return database.create_aggregate(f"pool-{number}").id


def test_many_start_on_nothing_at_once(tmp_path: pathlib.Path) -> None:
    for attempt in range(5):
        url = f"sqlite:///{tmp_path}/{attempt}/x.db"
        barrier = store_kit.CHILDREN.Barrier(4)
        ids = store_kit.run(
            _open, *[(url, barrier, number) for number in range(4)]
        )
        assert sorted(ids) == [1, 2, 3, 4]


def _use_inherited(database: store.Store) -> str:
    return database.get_aggregate('pool-a').name


def test_store_survives_a_fork(database_url: str) -> None:
    """A service opens its store, then forks its workers."""
    store.migrate(database_url)
    with store.Store(database_url) as database:
        row = database.create_aggregate('pool-a')
        names = store_kit.run(_use_inherited, (database,), (database,))
        assert names == ['pool-a', 'pool-a']
        row.update_metadata({'still': 'open'})


@pytest.mark.parametrize('kind', ['postgresql', 'mysql'])
def test_server_that_does_not_answer(kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        port = taken.getsockname()[1]
        url = f"{kind}://me:{PASSWORD}@127.0.0.1:{port}/x"
        line = refused(url)
    assert line.startswith(f"database {kind}://127.0.0.1:{port}/x: ")
    assert 'refused' in line


@pytest.mark.parametrize('kind', ['postgresql', 'mysql'])
def test_database_that_is_not_there(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    line = refused(f"{url}_not")
    assert url.rpartition('/')[2] + '_not' in line


def test_wrong_password(mysql_url: str) -> None:
    line = refused(mysql_url.replace('root@', f"nobody:{PASSWORD}@"))
    assert 'Access denied' in line


def test_connection_that_the_server_closed_is_replaced(
    postgresql_url: str,
) -> None:
    store.migrate(postgresql_url)
    with store.Store(postgresql_url) as database:
        row = database.create_aggregate('pool-a')
        engine = sqlalchemy.create_engine(postgresql_url)
        with engine.connect() as connection:
            killed = connection.scalar(
                sqlalchemy.text(
                    'SELECT count(pg_terminate_backend(pid)) '
                    'FROM pg_stat_activity WHERE pid <> pg_backend_pid() '
                    'AND datname = current_database()'
                )
            )
        engine.dispose()
        assert killed
        row.update_metadata({'a': '1'})
        assert database.get_aggregate('pool-a') == row


def test_connection_that_breaks_in_the_middle_is_an_error_once(
    postgresql_url: str,
) -> None:
    """The commit may have come through: nobody may repeat it unasked."""
    store.migrate(postgresql_url)
    engine = sqlalchemy.create_engine(postgresql_url)
    calls = []

    def admit(row: object, running: object) -> store.Changes:
        calls.append(row)
        with engine.connect() as connection:
            connection.execute(
                sqlalchemy.text(
                    'SELECT pg_terminate_backend(pid) '
                    'FROM pg_stat_activity WHERE pid <> pg_backend_pid() '
                    'AND datname = current_database()'
                )
            )
        return store.Changes({'a': '1'})

    with store.Store(postgresql_url) as database:
        row = database.create_aggregate('pool-a')
        with pytest.raises(exceptions.StoreError, match='^database '):
            store_kit.begin(database, row, admit)
        assert len(calls) == 1
        assert database.get_aggregate('pool-a') == row
    engine.dispose()
