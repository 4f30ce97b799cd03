# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Changes: only with a permit, only over a login that was told of."""

from __future__ import annotations

import ast
import collections.abc
import pathlib
import traceback

import pytest

import xenpool_driver
from tests import permits
from tests.unit import scripted_host
from xenpool_driver import exceptions
from xenpool_driver.simulator import datamodel
from xenpool_driver.xapi import session

LOGIN = 'session.login_with_password'
EJECT = 'Async.pool.eject'
ROOM = pathlib.Path(xenpool_driver.__file__).parent


@pytest.fixture
def host() -> collections.abc.Iterator[scripted_host.ScriptedHost]:
    with scripted_host.ScriptedHost() as found:
        found.answers[EJECT] = lambda ref: 'OpaqueRef:task'
        yield found


def fail(error: Exception) -> scripted_host.Answer:
    def answer(*args: object) -> object:
        raise error

    return answer


class LastMoment(permits.Permit):
    """Is withdrawn while a connection is opened."""

    def may_send(self) -> None:
        super().may_send()
        self.withdrawn = 'another worker has it'


def test_a_change_is_asked_for_on_the_open_connection(
    host: scripted_host.ScriptedHost,
) -> None:
    permit = LastMoment()
    home = permits.home(host.access(), permit=permit)
    home.login()
    with pytest.raises(exceptions.LeaseLost, match='another worker has it'):
        home.change(EJECT, 'OpaqueRef:host')
    assert permit.asked == 2  # before it is opened, and on it
    assert host.count(EJECT) == 0


def test_without_a_permit_not_even_a_connection_is_opened(
    host: scripted_host.ScriptedHost,
) -> None:
    permit = permits.Permit()
    permit.withdrawn = 'too late'
    with pytest.raises(exceptions.LeaseLost, match='too late'):
        permits.home(host.access(), permit=permit).change(EJECT, 'x')
    assert host.connections == 0


def test_what_is_not_sent_any_more_shows_no_password(
    host: scripted_host.ScriptedHost,
) -> None:
    home = permits.home(host.access(), permit=LastMoment())
    home.login()
    with pytest.raises(exceptions.LeaseLost) as caught:
        home.change('Async.pool.join', '192.0.2.1', 'root', 'their password')
    frames = [
        repr(frame.f_locals)
        for frame, _ in traceback.walk_tb(caught.value.__traceback__)
        if frame.f_code.co_filename.endswith('transport.py')
    ]
    assert frames == []


def test_a_login_is_told_of_before_anything_is_sent_over_it(
    host: scripted_host.ScriptedHost,
) -> None:
    permit = permits.Permit()
    home = permits.home(host.access(), permit=permit)
    home.change(EJECT, 'OpaqueRef:host')
    assert permit.logins == [('xen01', host.address, 'u')]
    assert host.arguments[LOGIN][3] == permit.originator
    assert host.calls == [LOGIN, 'session.get_uuid', EJECT]


class TakenOver(permits.Permit):
    """Notices when it tells of a login."""

    def logged_in(self, *login: str) -> None:
        raise exceptions.LeaseLost('taken over')


def test_a_login_that_cannot_be_told_of_is_ended(
    host: scripted_host.ScriptedHost,
) -> None:
    home = permits.home(host.access(), permit=TakenOver())
    with pytest.raises(exceptions.LeaseLost, match='taken over'):
        home.change(EJECT, 'OpaqueRef:host')
    assert host.count(EJECT) == 0
    assert not host.sessions
    with pytest.raises(exceptions.LeaseLost):
        home.change(EJECT, 'OpaqueRef:host')
    assert host.count(EJECT) == 0


def test_a_change_never_survives_the_end_of_its_login(
    host: scripted_host.ScriptedHost,
) -> None:
    permit = permits.Permit()
    home = permits.home(host.access(), permit=permit)
    home.login()
    host.sessions.clear()
    with pytest.raises(exceptions.XapiUnavailable, match='SESSION_INVALID'):
        home.change(EJECT, 'OpaqueRef:host')
    assert host.count(EJECT) == 0
    home.change(EJECT, 'OpaqueRef:host')  # the caller's own decision
    assert [uuid for _, _, uuid in permit.logins] == ['u', 'u']


@pytest.mark.parametrize(
    'answer', [scripted_host.Drop(), scripted_host.Silence()]
)
def test_the_login_of_an_unanswered_change_is_ended(
    host: scripted_host.ScriptedHost, answer: Exception
) -> None:
    """What is still on its way then is refused when it arrives."""
    host.answers[EJECT] = fail(answer)
    home = permits.home(host.access(read_timeout=0.2))
    with pytest.raises(exceptions.XapiOutcomeUnknown):
        home.change(EJECT, 'OpaqueRef:host')
    assert not host.sessions


def test_a_login_that_cannot_be_ended_is_tried_again(
    host: scripted_host.ScriptedHost,
) -> None:
    logout = host.carry_out
    deaf = True

    def carry_out(method: str, params: list[object]) -> object:
        if method == 'session.logout' and deaf:
            raise scripted_host.Drop
        return logout(method, params)

    host.carry_out = carry_out  # type: ignore[method-assign]
    host.answers[EJECT] = fail(scripted_host.Drop())
    home = permits.home(host.access())
    with pytest.raises(exceptions.XapiOutcomeUnknown):
        home.change(EJECT, 'OpaqueRef:host')
    assert host.sessions
    deaf = False
    home.end_adrift()
    assert not host.sessions


def test_ending_logs_out_everywhere(host: scripted_host.ScriptedHost) -> None:
    home = permits.home(host.access())
    home.change(EJECT, 'OpaqueRef:host')
    home.end()
    assert not host.sessions


def test_another_clients_login_is_ended(
    host: scripted_host.ScriptedHost,
) -> None:
    other = session.HostSession(host.access())
    other.login()
    [ref] = host.sessions
    mine = session.HostSession(host.access())
    mine.end_login(ref)
    assert ref not in host.sessions
    assert len(host.sessions) == 1
    mine.end_login(ref)  # is at an end already
    assert host.count(LOGIN) == 2


def calls_of(tree: ast.AST, name: str) -> list[int]:
    """Return the lines of a file where a method is called."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
    ]


def test_nothing_changes_xapi_without_a_permit() -> None:
    """A changing exchange is opened in one place, and the session that opens
    it cannot be had without a permit; nothing else has such a method."""
    found: dict[str, set[str]] = {'changing': set(), 'change': set()}
    for path in ROOM.rglob('*.py'):
        where = str(path.relative_to(ROOM))
        if where.startswith(('simulator/', 'store/', 'verbs/', 'compute/')):
            continue
        tree = ast.parse(path.read_text())
        for name, places in found.items():
            if calls_of(tree, name):
                places.add(where)
    assert found == {
        'changing': {'xapi/changing.py'},
        'change': {'xapi/changes.py', 'xapi/tasks.py'},
    }
    assert not hasattr(session.HostSession, 'change')


def test_reads_are_reads() -> None:
    """What is asked without a permit can change nothing."""
    found = set()
    for path in ROOM.rglob('*.py'):
        if path.relative_to(ROOM).parts[0] == 'simulator':
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name, first = node.func, node.args[0]
            if not isinstance(name, ast.Attribute):
                continue
            if name.attr not in ('read', 'read_all', 'read_own'):
                continue
            if isinstance(first, ast.Constant) and '.' in str(first.value):
                found.add(str(first.value))
    assert len(found) > 10
    assert not {
        method
        for method in found
        if not method.split('.')[1].startswith(
            ('compute_', 'get_', 'is_', 'local_assert_', 'from')
        )
    }


def test_what_has_an_async_form_uses_it() -> None:
    model = datamodel.load()
    found: set[tuple[str, bool]] = set()
    tree = ast.parse((ROOM / 'xapi/changes.py').read_text())
    for node in ast.walk(tree):
        text = str(getattr(node, 'value', ''))
        cls, _, verb = text.removeprefix('Async.').partition('.')
        known = model.classes.get(cls)
        message = known and known.messages.get(verb)
        if message and not verb.startswith('get_'):
            found.add((text, message.async_))
    assert len(found) > 15
    assert {text for text, has_async in found if has_async} == {
        text for text, _ in found if text.startswith('Async.')
    }
