# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Logins: one per host, renewed for reads only, and what nobody may see."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import logging
import pickle
import threading
import traceback
import types
import typing
from unittest import mock

import pytest
import XenAPI

from tests import permits
from tests.unit import scripted_host
from xenpool_driver import conf, exceptions, redaction
from xenpool_driver.xapi import (
    client,
    connections,
    jsonrpc,
    session,
)

LOGIN = 'session.login_with_password'
SECRET = 'pool&"s3cret"'


@pytest.fixture
def host() -> collections.abc.Iterator[scripted_host.ScriptedHost]:
    with scripted_host.ScriptedHost() as found:
        found.answers.update(
            {
                'pool.get_all': lambda: ['OpaqueRef:pool'],
                'pool.set_name_label': lambda *args: '',
                'host.get_all_records': lambda: {'OpaqueRef:h': {'n': 7}},
            }
        )
        yield found


def fail(error: Exception) -> collections.abc.Callable[..., typing.Any]:
    def answer(*args: typing.Any) -> typing.Any:
        raise error

    return answer


def test_one_login_serves_all_calls(host: scripted_host.ScriptedHost) -> None:
    home = permits.home(host.access())
    for _ in range(3):
        home.read('pool.get_all')
    home.change('pool.set_name_label', 'OpaqueRef:pool', 'x')
    assert host.count(LOGIN) == 1
    assert host.arguments[LOGIN][3] == 'xenpool-driver/test'


def test_read_logs_in_again(host: scripted_host.ScriptedHost) -> None:
    home = session.HostSession(host.access())
    home.read('pool.get_all')
    host.sessions.clear()
    assert home.read('pool.get_all') == ['OpaqueRef:pool']
    assert host.count(LOGIN) == 2


def test_bulk_read_logs_in_again(host: scripted_host.ScriptedHost) -> None:
    home = session.HostSession(host.access())
    home.login()
    host.sessions.clear()
    assert home.read_all('host.get_all_records')
    assert host.count(LOGIN) == 2


def test_read_of_a_restarted_host(host: scripted_host.ScriptedHost) -> None:
    home = session.HostSession(host.access())
    home.read('pool.get_all')
    host.restart()
    assert home.read('pool.get_all') == ['OpaqueRef:pool']


def test_change_does_not_log_in_again(
    host: scripted_host.ScriptedHost,
) -> None:
    home = permits.home(host.access())
    home.read('pool.get_all')
    host.sessions.clear()
    with pytest.raises(exceptions.XapiUnavailable, match='SESSION_INVALID'):
        home.change('pool.set_name_label', 'OpaqueRef:pool', 'x')
    assert host.count(LOGIN) == 1
    assert host.count('pool.set_name_label') == 0
    home.change('pool.set_name_label', 'OpaqueRef:pool', 'x')
    assert host.count(LOGIN) == 2


def test_change_tries_an_old_login_first(
    host: scripted_host.ScriptedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = permits.home(host.access())
    home.read('pool.get_all')
    host.sessions.clear()
    monkeypatch.setattr(session, 'TRUSTED_SECONDS', -1.0)
    home.change('pool.set_name_label', 'OpaqueRef:pool', 'x')
    assert host.count('pool.set_name_label') == 1


def test_read_gives_up_where_no_login_lasts(
    host: scripted_host.ScriptedHost,
) -> None:
    host.answers['pool.get_all'] = fail(
        scripted_host.Refuse('SESSION_INVALID', 'x')
    )
    home = session.HostSession(host.access())
    with pytest.raises(exceptions.XapiUnavailable, match='SESSION_INVALID'):
        home.read('pool.get_all')


def test_member_names_its_master(host: scripted_host.ScriptedHost) -> None:
    home = session.HostSession(host.access())
    home.read('pool.get_all')
    host.sessions.clear()
    host.master = '192.0.2.7'
    with pytest.raises(exceptions.NotPoolMaster) as caught:
        home.read('pool.get_all')
    assert caught.value.address == '192.0.2.7'


@pytest.mark.parametrize(
    'code', ['HOST_STILL_BOOTING', 'HOST_HAS_NO_MANAGEMENT_IP', 'HOST_BROKEN']
)
def test_emergency_is_no_answer(
    host: scripted_host.ScriptedHost, code: str
) -> None:
    host.answers[LOGIN] = fail(scripted_host.Refuse(code))
    with pytest.raises(exceptions.XapiUnavailable, match=code):
        session.HostSession(host.access()).login()


def test_lost_answer_to_a_login_can_be_asked_again(
    host: scripted_host.ScriptedHost,
) -> None:
    host.answers[LOGIN] = fail(scripted_host.Drop())
    home = permits.home(host.access())
    with pytest.raises(exceptions.XapiUnavailable):
        home.change('pool.set_name_label', 'OpaqueRef:pool', 'x')
    assert host.calls == [LOGIN]


def test_local_login_works_on_a_member(
    host: scripted_host.ScriptedHost,
) -> None:
    host.master = '192.0.2.7'
    host.answers['host.is_in_emergency_mode'] = lambda: False
    home = session.HostSession(host.access(), local=True)
    assert home.read('host.is_in_emergency_mode') is False
    home.logout()
    assert host.calls == [
        'session.slave_local_login_with_password',
        'host.is_in_emergency_mode',
        'session.local_logout',
    ]


def test_logout_ends_the_session(host: scripted_host.ScriptedHost) -> None:
    home = session.HostSession(host.access())
    home.login()
    home.logout()
    assert not host.sessions
    home.logout()
    assert host.count('session.logout') == 1


def test_logout_from_a_dead_host_is_quiet(
    host: scripted_host.ScriptedHost,
) -> None:
    home = session.HostSession(host.access(connect_timeout=0.2))
    home.login()
    with host:
        pass
    home.logout()


def test_eight_threads_share_one_login(
    host: scripted_host.ScriptedHost,
) -> None:
    host.answers['host.get_by_uuid'] = lambda uuid: f"OpaqueRef:{uuid}"
    home = session.HostSession(host.access())
    start = threading.Barrier(8)

    def work(thread: int) -> list[bool]:
        start.wait()
        return [
            home.read('host.get_by_uuid', f"{thread}-{turn}")
            == f"OpaqueRef:{thread}-{turn}"
            for turn in range(100)
        ]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [
            right for turn in pool.map(work, range(8)) for right in turn
        ]
    assert answers == [True] * 800
    assert host.counts() == {LOGIN: 1, 'host.get_by_uuid': 800}
    assert host.connections <= 8


def test_threads_that_change_meet_no_login_twice(
    host: scripted_host.ScriptedHost,
) -> None:
    home = permits.home(host.access())

    def work(number: int) -> None:
        home.change('pool.set_name_label', 'OpaqueRef:pool', str(number))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(80)))
    assert host.counts() == {
        LOGIN: 1,
        'session.get_uuid': 1,
        'pool.set_name_label': 80,
    }


class WatchedLock:
    """A lock that tells how many threads have come to it."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self._lock = threading.Lock()
        self.release = self._lock.release

    def acquire(self, timeout: float) -> bool:
        """Acquire it."""
        self.waiting.release()
        return self._lock.acquire(timeout=timeout)


def test_threads_share_a_login_that_fails(
    host: scripted_host.ScriptedHost,
) -> None:
    go_on = threading.Event()

    def refuse(*args: typing.Any) -> typing.Any:
        go_on.wait(10)
        raise scripted_host.Refuse('SESSION_AUTHENTICATION_FAILED', 'root')

    host.answers[LOGIN] = refuse
    home = session.HostSession(host.access())
    lock = WatchedLock()
    home._login_lock = typing.cast(typing.Any, lock)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(home.login) for _ in range(4)]
        for _ in range(4):
            assert lock.waiting.acquire(timeout=10)
        go_on.set()
        errors = [future.exception() for future in futures]
    codes = {typing.cast(typing.Any, error).code for error in errors}
    assert codes == {'SESSION_AUTHENTICATION_FAILED'}
    assert len({id(error) for error in errors}) == 4
    assert host.count(LOGIN) == 1


def test_caller_in_a_hurry_does_not_wait_for_a_slow_login(
    host: scripted_host.ScriptedHost,
) -> None:
    entered = threading.Event()

    def slow(*args: typing.Any) -> typing.Any:
        entered.set()
        raise scripted_host.Silence()

    host.answers[LOGIN] = slow
    home = session.HostSession(host.access())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        other = pool.submit(home.login)
        assert entered.wait(10)
        with pytest.raises(exceptions.XapiUnavailable, match='another'):
            home.read('pool.get_all', timeout=0.1)
        host.released.set()
        assert isinstance(other.exception(), exceptions.XapiUnavailable)


def test_bulk_reads_use_json(host: scripted_host.ScriptedHost) -> None:
    home = session.HostSession(host.access())
    found = home.read_all('host.get_all_records')
    assert found == {'OpaqueRef:h': {'n': '7'}}


@pytest.mark.parametrize('json', [True, False])
def test_bulk_reads_are_the_same_either_way(
    host: scripted_host.ScriptedHost, json: bool
) -> None:
    host.json = json
    home = session.HostSession(host.access())
    for _ in range(2):
        found = home.read_all('host.get_all_records')
        assert str(found['OpaqueRef:h']['n']) == '7'
    host.answers['host.get_all_records'] = fail(
        scripted_host.Refuse('RBAC_PERMISSION_DENIED', 'a', 'b')
    )
    with pytest.raises(exceptions.XapiRefused) as caught:
        home.read_all('host.get_all_records')
    assert caught.value.params == ('a', 'b')


def test_json_that_is_not_xapis_means_xml(
    host: scripted_host.ScriptedHost,
) -> None:
    for body in (b'[]', b'{}', b'<html>', b'\xff'):
        with pytest.raises(jsonrpc.NotOffered):
            jsonrpc.answer(body)
    assert jsonrpc.answer(
        b'{"jsonrpc":"2.0","error":["HOST_STILL_BOOTING"],"id":0}'
    ) == (None, ['HOST_STILL_BOOTING'])


def test_numbers_and_dates_become_text() -> None:
    raw = {'a': {'i': 1, 'b': True, 'f': 0.5, 'm': {'k': 2}, 'l': [3, 'x']}}
    assert jsonrpc.alike(raw) == {
        'a': {'i': '1', 'b': True, 'f': 0.5, 'm': {'k': '2'}, 'l': ['3', 'x']}
    }


# A mock in the place of XenAPI.Session


def factory() -> tuple[mock.Mock, mock.Mock]:
    """Return a session factory and the session that it makes."""
    fake = mock.MagicMock(name='session')
    fake.handle = 'OpaqueRef:session'
    return mock.Mock(return_value=fake), fake


def access() -> typing.Any:
    return conf.HostAccess(
        'xen01', 'https://192.0.2.1', 'root', scripted_host.PASSWORD
    )


def test_session_factory_is_a_seam() -> None:
    make, fake = factory()
    fake.xenapi.pool.get_all.return_value = ['OpaqueRef:pool']
    home = session.HostSession(access(), make, 'who')
    assert home.read('pool.get_all') == ['OpaqueRef:pool']
    make.assert_called_once_with(
        'https://192.0.2.1/', transport=home.transport
    )
    fake.xenapi.login_with_password.assert_called_once_with(
        'root', scripted_host.PASSWORD, '1.0', 'who'
    )


def test_mocked_failures_become_ours() -> None:
    make, fake = factory()
    fake.xenapi.pool.eject.side_effect = [
        XenAPI.Failure(['HA_IS_ENABLED']),
        XenAPI.Failure(['HOST_IS_SLAVE', '192.0.2.9']),
        ConnectionResetError(),
        ConnectionRefusedError(),
        XenAPI.Failure([]),
    ]
    home = permits.home(access(), make)
    for kind in (
        exceptions.XapiRefused,
        exceptions.NotPoolMaster,
        exceptions.XapiOutcomeUnknown,
        exceptions.XapiUnavailable,
        exceptions.XapiOutcomeUnknown,
    ):
        with pytest.raises(kind):
            home.change('pool.eject', 'OpaqueRef:host')
    # Over the first a call went that nobody answered.
    assert fake.xenapi.login_with_password.call_count == 2


# What nobody may see


def everything(error: BaseException) -> collections.abc.Iterator[str]:
    """Yield all that a printer of exceptions might show of one."""
    seen: set[int] = set()
    stack: list[BaseException] = [error]
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield str(one)
        yield repr(one)
        yield repr(one.args)
        yield repr(vars(one))
        yield ''.join(traceback.format_exception(one))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            yield from _locals(frame)
        stack += [other for other in (one.__cause__, one.__context__) if other]


def _locals(frame: types.FrameType) -> collections.abc.Iterator[str]:
    """Yield what a printer of local variables shows of our own frames."""
    if 'xenpool_driver' not in frame.f_code.co_filename:
        return
    for value in frame.f_locals.values():
        yield repr(value)


def assert_hidden(texts: collections.abc.Iterable[str]) -> None:
    joined = '\n'.join(texts)
    for secret in (scripted_host.PASSWORD, SECRET):
        for form in redaction._forms(secret):
            assert form not in joined


def wrong(*args: typing.Any) -> typing.Any:
    """Refuse as a host would that repeats what it was sent."""
    raise scripted_host.Refuse('INTERNAL_ERROR', f"Failure({args!r})", *args)


@pytest.mark.parametrize(
    'answer',
    [
        wrong,
        fail(scripted_host.Drop()),
        fail(scripted_host.Silence()),
        fail(scripted_host.Raw(b'<html>')),
        fail(scripted_host.Raw(SECRET.encode(), 500)),
        fail(scripted_host.Refuse('HOST_IS_SLAVE', '192.0.2.1')),
        fail(scripted_host.Refuse('SESSION_INVALID', 'x')),
    ],
    ids=['echo', 'drop', 'silence', 'html', '500', 'slave', 'expired'],
)
@pytest.mark.parametrize('method', [LOGIN, 'Async.pool.join'])
def test_no_error_shows_a_password(
    host: scripted_host.ScriptedHost,
    answer: scripted_host.Answer,
    method: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    host.answers[method] = answer
    doors = connections.Connections({'xen01': host.access(read_timeout=0.3)})
    with pytest.raises(exceptions.XapiError) as caught:
        permits.changing_pool(doors.client('xen01')).join(
            '192.0.2.1', 'root', SECRET
        )
    assert_hidden(everything(caught.value))
    records = [repr(vars(record)) for record in caplog.records]
    assert_hidden([caplog.text, *records])


def test_nothing_shows_a_password(host: scripted_host.ScriptedHost) -> None:
    doors = connections.Connections({'xen01': host.access()})
    door = doors.client('xen01')
    changes = permits.changing_pool(door)
    home = changes._home
    host.answers['Async.pool.join'] = lambda *args: 'OpaqueRef:task'
    task = changes.join('192.0.2.1', 'root', SECRET)
    things: list[object] = [doors, door, changes, home, task, home.transport]
    things += [home.access, home._peer, home._session]
    for thing in (doors, door, home, task, home.transport, home._session):
        things += list(vars(thing).values())
    assert_hidden([*map(repr, things), *map(str, things)])


def test_real_session_keeps_no_password(
    host: scripted_host.ScriptedHost,
) -> None:
    home = session.HostSession(host.access())
    home.login()
    assert home._session.last_login_params is None


def test_secret_shows_itself_to_nobody() -> None:
    secret = redaction.Secret(SECRET)
    assert f"{secret} {secret!r}" == '*** ***'
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert redaction.reveal(secret) == SECRET


@pytest.mark.parametrize('form', redaction._forms(SECRET))
def test_secret_is_hidden_however_it_is_escaped(form: str) -> None:
    assert redaction.scrub(f"a {form} b", [SECRET, '']) == 'a *** b'


def test_client_is_told_by_its_name(host: scripted_host.ScriptedHost) -> None:
    doors = connections.Connections({'xen01': host.access()})
    assert repr(doors.client('xen01')) == (f"<Client of xen01 at {host.url}>")
    assert isinstance(doors.local_client('xen01'), client.LocalClient)
