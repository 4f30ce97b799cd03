# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A link to a database server that goes silent while it is open.

A proxy stands in front of the real server. TCP says nothing is wrong.
"""

from __future__ import annotations

import collections.abc
import pathlib
import threading
import time
import typing

import pytest
import sqlalchemy

from tests import tcp_proxy
from tests.contract import store_kit
from tests.functional import driver_lab
from xenpool_driver import conf, driver, exceptions, pool_states, store
from xenpool_driver.store import engine, servers

PATIENCE = 1.5
"""Seconds that a statement has in these tests: less than by default."""

CONNECTING = 2
"""Seconds that a new connection has: libpq knows no fewer."""

COMMIT = {'postgresql': b'COMMIT\0', 'mysql': b'\x03COMMIT'}
"""How each client sends it; ``READ COMMITTED`` is something else."""

SLACK = 20.0
"""Seconds that a busy machine may add to any of them."""


@pytest.fixture(params=['postgresql', 'mysql'])
def direct(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store on each server in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    store.migrate(url)
    return url


@pytest.fixture
def proxy(direct: str) -> collections.abc.Iterator[tcp_proxy.Proxy]:
    """What stands in front of the server."""
    url = sqlalchemy.make_url(direct)
    with tcp_proxy.Proxy((str(url.host), url.port or 0)) as found:
        yield found


@pytest.fixture
def through(
    direct: str, proxy: tcp_proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL of the same store by way of the proxy."""
    monkeypatch.setattr(servers, 'SILENCE', PATIENCE)
    monkeypatch.setattr(servers, 'CONNECT_TIMEOUT', CONNECTING)
    host, port = proxy.address
    url = sqlalchemy.make_url(direct).set(host=host, port=port)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def database(through: str) -> collections.abc.Iterator[store.Store]:
    """A store that works through the proxy, and waits for no lock."""
    with store.Store(through, busy_timeout=0.0) as opened:
        yield opened


def fails(act: typing.Callable[[], object], seconds: float) -> str:
    """Return the one line with which something fails in time."""
    began = time.monotonic()
    with pytest.raises(exceptions.StoreError, match='^database ') as caught:
        act()
    assert time.monotonic() - began < seconds + SLACK
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_while_the_connection_is_idle(
    database: store.Store, proxy: tcp_proxy.Proxy
) -> None:
    row = database.create_aggregate('pool-a')
    proxy.silence()
    fails(database.list_aggregates, PATIENCE + CONNECTING)
    # Nothing of it is left in the pool.
    fails(database.list_aggregates, CONNECTING)
    proxy.speak()
    assert database.list_aggregates() == [row]


def test_in_the_middle_of_a_transaction(
    database: store.Store, proxy: tcp_proxy.Proxy, direct: str
) -> None:
    row = database.create_aggregate('pool-a')
    calls = []

    def admit(row: object, running: object) -> store.Changes:
        calls.append(row)
        proxy.silence()
        return store.Changes({'a': '1'})

    line = fails(lambda: store_kit.begin(database, row, admit), PATIENCE)
    assert 'the server' in line
    assert 'may have been done or not' in line
    assert 'xenpool operation list' in line
    assert len(calls) == 1
    proxy.speak()
    assert database.get_aggregate('pool-a') == row
    with store.Store(direct) as other:
        store_kit.begin(other, row)


def test_when_the_answer_to_commit_is_awaited(
    database: store.Store, proxy: tcp_proxy.Proxy, direct: str
) -> None:
    row = database.create_aggregate('pool-a')
    proxy.silence_after(COMMIT[direct.partition('+')[0]])
    line = fails(lambda: store_kit.begin(database, row), PATIENCE)
    assert proxy.is_silent
    assert 'may have been done or not' in line
    with store.Store(direct) as other:
        # In this case it was.
        (operation,) = other.running_operations(row.uuid)
    proxy.speak()
    assert database.get_operation(operation.uuid) == operation


def test_before_the_first_connection(
    through: str, proxy: tcp_proxy.Proxy
) -> None:
    proxy.silence()
    for act in (store.Store, store.migrate, store.version):
        fails(lambda act=act: act(through), CONNECTING)  # type: ignore[misc]


def test_a_request_ends_when_the_link_is_silent(
    through: str,
    proxy: tcp_proxy.Proxy,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With all that a request does: its keeper, its error, its last look."""
    with driver_lab.simulation(1) as lab:
        path = driver_lab.configuration(lab, tmp_path, database=through)
        options = conf.load([str(path)])
        options.set_override('busy_timeout', 0.0, group='database')
        worker = driver.XenAPIPoolDriver(conf=options)
        row = worker.site.store.create_aggregate(
            'rack1', {pool_states.POOL_FLAG: 'true'}
        )
        proxy.silence_after(b'UPDATE xenpool_operations')
        ended = threading.Event()
        said = []

        def work() -> None:
            try:
                worker.add_to_aggregate(None, row, lab.hosts[0].name)
            except exceptions.StoreError as error:
                said.append(str(error))
            finally:
                ended.set()

        threading.Thread(target=work).start()
        assert ended.wait(4 * PATIENCE + 2 * CONNECTING + 2 * SLACK)
        assert said
        proxy.speak()
        worker.close()


def test_a_silent_client_keeps_nobody_waiting(direct: str) -> None:
    """A worker that is stopped in a transaction holds locks."""
    patience = 20.0
    frozen, thawed = threading.Event(), threading.Event()
    said: list[str] = []

    def admit(row: object, running: object) -> store.Changes:
        if not frozen.is_set():
            frozen.set()
            assert thawed.wait(store_kit.PATIENCE)
        return store.Changes({'written by': 'the frozen one'})

    def work() -> None:
        try:
            store_kit.begin(slow, row, admit)
        except exceptions.StoreError as error:
            said.append(str(error))

    with (
        store.Store(direct, busy_timeout=0.0) as slow,
        store.Store(direct, busy_timeout=patience) as other,
    ):
        row = other.create_aggregate('pool-a')
        stopped = threading.Thread(target=work)
        stopped.start()
        assert frozen.wait(store_kit.PATIENCE)
        store_kit.begin(other, row)
        thawed.set()
        stopped.join()
        assert len(said) == 1
        assert said[0].startswith('database ')
        assert len(other.running_operations(row.uuid)) == 1
        assert other.get_aggregate('pool-a').metadata == {}


def test_a_ping_leaves_the_time_of_statements_alone(
    database: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pinged quickly is then waited for as long as usual."""
    database.list_aggregates()
    found = typing.cast(engine.Database, database._database)
    with found._engine.connect() as connection:
        raw = typing.cast(typing.Any, connection.connection.dbapi_connection)
        limit = getattr(raw, 'patience', getattr(raw, '_read_timeout', None))
        assert limit == PATIENCE
