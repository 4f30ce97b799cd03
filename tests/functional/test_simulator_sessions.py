# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Sessions of others, as recorded: found, read, ended, and what goes on."""

from __future__ import annotations

import collections.abc
import os
import time
import typing
import xmlrpc.client

import pytest

from xenpool_driver.simulator import (
    database,
    dispatch,
    errors,
    mishaps,
    sessions,
    simulation,
)

ADDRESS = f'127.90.{2 + os.getpid() % 100}.211'
PATIENCE = 20.0
"""Real seconds for what the clock lets happen."""


class Client:
    """Speaks plain XML-RPC: nothing logs in again by itself."""

    def __init__(self, host: simulation.Host, originator: str) -> None:
        self._url = host.http_url
        self.ref = str(
            self.value(
                'session.login_with_password',
                'root',
                'xenroot',
                '1.0',
                originator,
            )
        )

    def answer(
        self, method: str, *params: typing.Any
    ) -> dict[str, typing.Any]:
        with xmlrpc.client.ServerProxy(self._url) as proxy:
            found = getattr(proxy, method)(*params)
        return typing.cast('dict[str, typing.Any]', found)

    def value(self, method: str, *params: typing.Any) -> typing.Any:
        found = self.answer(method, *params)
        assert found['Status'] == 'Success', found
        return found['Value']

    def ask(self, method: str, *params: typing.Any) -> typing.Any:
        return self.value(method, self.ref, *params)

    def refused(self, method: str, *params: typing.Any) -> list[str]:
        found = self.answer(method, self.ref, *params)
        assert found['Status'] == 'Failure', found
        return typing.cast('list[str]', found['ErrorDescription'])


@pytest.fixture(name='lab')
def _lab() -> collections.abc.Iterator[simulation.Simulation]:
    with simulation.Simulation(
        hosts=2, address=ADDRESS, port=0, http_port=0, time_scale=40, seed=1
    ) as running:
        yield running


def until(look: collections.abc.Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def outcome(client: Client, task: str) -> dict[str, typing.Any]:
    """Return a task's record once it is over."""
    until(lambda: client.ask('task.get_status', task) != 'pending')
    return typing.cast(
        'dict[str, typing.Any]', client.ask('task.get_record', task)
    )


def test_another_login_is_found_read_and_ended(
    lab: simulation.Simulation,
) -> None:
    host = lab.hosts[0]
    worker, taker = Client(host, 'worker'), Client(host, 'taker')
    uuid = worker.ask('session.get_uuid', worker.ref)
    task = worker.ask('task.create', 'mine', '')
    assert taker.ask('session.get_by_uuid', uuid) == worker.ref
    record = taker.ask('session.get_record', worker.ref)
    assert record['originator'] == 'worker'
    assert record['tasks'] == [task]
    assert record['this_host'] == taker.ask('host.get_all')[0]
    assert record['last_active'].value.endswith('Z')
    for method in ('session.get_all', 'session.get_all_records'):
        assert taker.refused(method) == ['MESSAGE_METHOD_UNKNOWN', method]

    taker.value('session.logout', worker.ref)

    before = taker.ask('pool.get_all_records')
    pool = next(iter(before))
    ended = ['SESSION_INVALID', worker.ref]
    assert worker.refused('host.get_all') == ended
    assert worker.refused('pool.set_name_label', pool, 'late') == ended
    assert worker.refused('Async.pool.set_name_label', pool, 'late') == ended
    host_ref = taker.ask('host.get_all')[0]
    assert worker.refused('Async.host.disable', host_ref) == ended
    assert taker.ask('pool.get_all_records') == before
    assert taker.ask('host.get_enabled', host_ref)
    for method in ('session.get_uuid', 'session.get_record'):
        assert taker.refused(method, worker.ref) == [
            'HANDLE_INVALID',
            'session',
            worker.ref,
        ]
    assert taker.refused('session.get_by_uuid', uuid) == [
        'UUID_INVALID',
        'session',
        uuid,
    ]
    assert taker.ask('task.get_status', task) == 'pending'


def test_what_was_started_before_goes_on(lab: simulation.Simulation) -> None:
    one, two = lab.hosts
    worker, taker = Client(two, 'worker'), Client(two, 'taker')
    uuid = worker.ask('session.get_uuid', worker.ref)
    task = worker.ask('Async.pool.join', one.address, 'root', 'xenroot')
    found = taker.ask('session.get_by_uuid', uuid)
    assert taker.ask('session.get_tasks', found) == [task]
    taker.value('session.logout', found)
    assert worker.refused('host.get_all') == ['SESSION_INVALID', worker.ref]
    assert outcome(taker, task)['status'] == 'success'
    pool = Client(one, 'pool')

    def enabled() -> bool:
        hosts = pool.ask('host.get_all_records').values()
        return len(hosts) == 2 and all(host['enabled'] for host in hosts)

    until(enabled)


def test_a_call_that_was_let_in_goes_on_without_its_login(
    lab: simulation.Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login ends before the task's thread has done anything."""
    host = lab.hosts[0]
    worker, taker = Client(host, 'worker'), Client(host, 'taker')
    host_ref = taker.ask('host.get_all')[0]
    work = dispatch._work

    def late(
        method: dispatch.Method,
        call: dispatch.Call,
        db: database.Database,
        refused: errors.ApiError | None,
    ) -> None:
        sessions.destroy(db, worker.ref)
        work(method, call, db, refused)

    monkeypatch.setattr(dispatch, '_work', late)
    task = worker.ask('Async.host.disable', host_ref)
    assert outcome(taker, task)['status'] == 'success'
    assert worker.refused('host.get_all') == ['SESSION_INVALID', worker.ref]
    assert not taker.ask('host.get_enabled', host_ref)


@pytest.mark.parametrize('mishap', ['restart-toolstack', 'kill-toolstack'])
def test_no_login_survives_a_restart_of_the_toolstack(
    lab: simulation.Simulation, mishap: str
) -> None:
    host = lab.hosts[0]
    worker = Client(host, 'worker')
    uuid = worker.ask('session.get_uuid', worker.ref)
    target = lab.named(host.name)
    before = target.process
    mishaps.apply(mishap, target, {})
    until(
        lambda: (
            target.process is not before
            and target.process is not None
            and target.process.ready
        )
    )
    taker = Client(host, 'taker')
    assert worker.refused('host.get_all') == ['SESSION_INVALID', worker.ref]
    assert taker.refused('session.get_by_uuid', uuid)[0] == 'UUID_INVALID'
