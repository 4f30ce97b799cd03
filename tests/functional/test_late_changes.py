# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A COMMIT whose answer comes late, and a request whose bytes arrive late.

Proxies stand in front of the real database servers and of a host. What was
said to have come of the request must be true afterwards.
"""

from __future__ import annotations

import collections.abc
import concurrent.futures
import multiprocessing.connection
import os
import pathlib
import signal
import time
import typing

import pytest
import sqlalchemy

from tests import tcp_proxy
from tests.functional import test_store_silence
from tests.matrix import crowd, judge, scenarios, stage
from xenpool_driver import driver, exceptions, store
from xenpool_driver.xapi import transport

LEASE = 2.0
"""Seconds."""

PATIENCE = 60.0
"""Seconds for anything to happen on a busy machine."""


@pytest.fixture
def kept(tmp_path: pathlib.Path) -> collections.abc.Iterator[stage.Kept]:
    found = stage.Kept(tmp_path)
    yield found
    found.close()


def settle(where: stage.Stage) -> None:
    """Let another worker take over when the lease has run out."""
    deadline = time.monotonic() + PATIENCE
    while not where.store.expired_operations():
        assert time.monotonic() < deadline, 'its lease does not run out'
        time.sleep(0.05)
    plugin, _ = stage.open_driver(str(where.conf_file))
    try:
        plugin.recover_aggregate(None, judge.current(where))
    finally:
        plugin.close()


def eject(plugin: driver.XenAPIPoolDriver, row: store.Aggregate) -> str:
    """Remove xen03; return what is raised."""
    try:
        scenarios.SCENARIOS['eject'].request(plugin, row)
    except exceptions.XenpoolError as error:
        return f'{type(error).__name__}: {error}'
    return ''


def nothing_was_done(where: stage.Stage) -> None:
    """Make sure that the host is where it was, and everybody says so.

    :raises AssertionError: it is not.
    """
    where.await_quiet()
    calls = where.simulation.calls()
    assert not [each for each in calls if judge.is_change(each)]
    assert judge.unfinished(where) + judge.disagreements(where) == []
    assert judge.current(where).hosts == list(scenarios.THREE)


# The answer to a COMMIT


@pytest.fixture(params=['postgresql', 'mysql'])
def direct(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store on each server in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    store.migrate(url)
    return url


def test_the_answer_to_the_commit_of_a_phase_comes_late(
    kept: stage.Kept, direct: str
) -> None:
    """It comes when another worker has settled the operation."""
    url = sqlalchemy.make_url(direct)
    commit = test_store_silence.COMMIT[url.get_backend_name()]
    with (
        tcp_proxy.Proxy((str(url.host), url.port or 0)) as proxy,
        stage.Stage(
            scenarios.SCENARIOS['eject'],
            kept,
            {'lease_duration': LEASE},
            direct,
        ) as where,
        concurrent.futures.ThreadPoolExecutor(1) as thread,
    ):
        host, port = proxy.address
        through = url.set(host=host, port=port)
        conf = where.directory / 'through.conf'
        conf.write_text(
            where.conf_file.read_text().replace(
                direct, through.render_as_string(hide_password=False)
            )
        )
        plugin, database = stage.open_driver(str(conf))
        writes = database.phase

        def write(
            held: store.Operation, name: str, *args: typing.Any
        ) -> object:
            if name == 'eject':
                proxy.silence_after(commit)
            return writes(held, name, *args)

        database.phase = write  # type: ignore[method-assign,assignment]
        asked = thread.submit(eject, plugin, judge.current(where))
        deadline = time.monotonic() + PATIENCE
        while not proxy.is_silent:
            assert time.monotonic() < deadline, 'no phase was written'
            time.sleep(0.01)
        settle(where)
        proxy.speak()

        assert asked.result(PATIENCE).startswith('LeaseLost')
        nothing_was_done(where)
        plugin.close()


# The bytes of a request


def configured(where: stage.Stage, proxy: tcp_proxy.Proxy) -> str:
    """Return a configuration that reaches xen01 by way of the proxy."""
    [master, *_] = where.simulation.hosts
    host, port = proxy.address
    conf = where.directory / 'through.conf'
    text = where.conf_file.read_text()
    before, section, after = text.partition('[xen01]')
    after = after.replace(master.url, f'https://{host}:{port}', 1)
    after = after.replace('ca_file', 'insecure = true\n#', 1)
    conf.write_text(before + section + after)
    return str(conf)


class LastMoment:
    """Calls somebody right before and right after a change is sent.

    The first change of all: here that is the eject.
    """

    def __init__(
        self,
        before: collections.abc.Callable[[], object],
        after: collections.abc.Callable[[], object],
    ) -> None:
        self._calls = [before, after]
        self._check = transport.Transport.assert_may_send
        self._send = transport._Wire.sendall

    def install(self, patch: typing.Any = setattr) -> None:
        """Take the place of what checks and sends."""
        mine = self
        comes = False

        def check(wires: transport.Transport) -> None:
            nonlocal comes
            mine._check(wires)
            comes = getattr(wires._mode, 'may_send', None) is not None

        def send(wire: transport._Wire, data: bytes) -> None:
            if not comes or not mine._calls:
                return mine._send(wire, data)
            before, after = mine._calls
            mine._calls = []
            before()
            mine._send(wire, data)
            after()
            return None

        patch(transport.Transport, 'assert_may_send', check)
        patch(transport._Wire, 'sendall', send)


def test_a_request_that_is_late_is_not_carried_out_after_its_end(
    kept: stage.Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own worker has said by then that it was not done."""
    scenario = scenarios.SCENARIOS['eject']
    with stage.Stage(scenario, kept) as where:
        [master, *_] = where.simulation.hosts
        target = (where.machine(master.name).address, _port(master.url))
        with tcp_proxy.Proxy(target) as proxy:
            plugin, _ = stage.open_driver(configured(where, proxy))
            LastMoment(proxy.keep_next, lambda: None).install(
                monkeypatch.setattr
            )

            told = eject(plugin, judge.current(where))

            assert told.startswith('AggregateError'), told
            assert proxy.await_kept(0)
            assert proxy.deliver(PATIENCE)
            nothing_was_done(where)
            plugin.close()


def _port(url: str) -> int:
    return int(url.rpartition(':')[2])


def ask_and_die(
    conf: str, pipe: multiprocessing.connection.Connection
) -> None:
    """Ask for the eject and die as soon as it is sent; a process's body."""
    plugin, database = stage.open_driver(conf)

    def before() -> None:
        pipe.send('about to send')
        pipe.recv()

    def after() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    LastMoment(before, after).install()
    eject(plugin, database.get_aggregate(scenarios.AGGREGATE))


def test_a_request_of_the_dead_that_is_late_is_not_carried_out(
    kept: stage.Kept,
) -> None:
    """It arrives when another worker has settled the operation."""
    scenario = scenarios.SCENARIOS['eject']
    options = {'lease_duration': LEASE}
    with stage.Stage(scenario, kept, options) as where:
        [master, *_] = where.simulation.hosts
        target = (where.machine(master.name).address, _port(master.url))
        with tcp_proxy.Proxy(target) as proxy:
            mine, its = crowd.FORKSERVER.Pipe()
            process = crowd.FORKSERVER.Process(
                target=ask_and_die, args=(configured(where, proxy), its)
            )
            process.start()
            its.close()
            assert mine.poll(PATIENCE), 'nothing is sent'
            mine.recv()
            proxy.keep_next()
            mine.send('go on')
            assert proxy.await_kept(PATIENCE)
            process.join(PATIENCE)
            assert process.exitcode == -signal.SIGKILL
            settle(where)

            assert proxy.deliver(PATIENCE)
            nothing_was_done(where)
