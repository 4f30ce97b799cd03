# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Calls: sessions, roles, tasks, events, and who is refused what first."""

from __future__ import annotations

import threading
import typing
import xmlrpc.client

import orjson
import pytest

from tests import simulated
from xenpool_driver.simulator import (
    clock,
    database,
    dispatch,
    errors,
    event_queue,
    events,
    rbac,
    registry,
    sessions,
    tasks,
    wire_xml,
)

DEAD = 'OpaqueRef:dead'


@pytest.fixture
def machine() -> typing.Iterator[simulated.Machine]:
    frozen = clock.Clock(scale=0, start=1.8e9)
    made = simulated.Machine(simulated_clock=frozen, address='127.20.250.1')
    yield made
    frozen.stop()


@pytest.fixture
def db(machine: simulated.Machine) -> database.Database:
    assert machine.db is not None
    return machine.db


@pytest.fixture
def session(machine: simulated.Machine) -> str:
    return str(run(machine, 'session.login_with_password', 'root', 'xenroot'))


def run(
    machine: simulated.Machine, name: str, *params: typing.Any
) -> typing.Any:
    return dispatch.execute(machine, name, list(params)).value


def refused(
    machine: simulated.Machine, name: str, *params: typing.Any
) -> list[str]:
    with pytest.raises(errors.ApiError) as caught:
        run(machine, name, *params)
    return caught.value.details


def finish(db: database.Database, task: str) -> dict[str, typing.Any]:
    """Wait until a task is over, and return its record."""
    while db.get('task', task)['status'] == tasks.PENDING:
        generation = db.generation
        if db.get('task', task)['status'] == tasks.PENDING:
            db.wait(generation, 1000)
    return db.get('task', task)


def test_counts_are_checked_before_types_and_types_before_sessions(
    machine: simulated.Machine, session: str
) -> None:
    mismatch = 'MESSAGE_PARAMETER_COUNT_MISMATCH'
    assert refused(machine, 'host.get_all') == [
        mismatch,
        'host.get_all',
        '0',
        '-1',
    ]
    assert refused(machine, 'pool.join', DEAD, 5) == [
        mismatch,
        'pool.join',
        '3',
        '1',
    ]
    assert refused(machine, 'host.get_record', DEAD, 5)[0] == 'INTERNAL_ERROR'
    assert refused(machine, 'host.get_record', DEAD, 'x') == [
        'SESSION_INVALID',
        DEAD,
    ]
    assert refused(machine, 'Async.host.get_all', DEAD)[0] == 'SESSION_INVALID'
    assert refused(machine, 'Async.host.get_all', session)[0] == 'Fault'


def test_a_constructor_counts_its_fields(
    machine: simulated.Machine, session: str
) -> None:
    details = refused(machine, 'network.create', session)
    assert details[1:] == ['network.create', '1', '0']


def test_what_is_published_but_not_simulated_says_so(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    vm = db.refs('VM')[0]
    name = 'VM.checkpoint'
    assert registry.lookup(name) is None
    assert refused(machine, name, session, vm, 'n') == [
        'NOT_IMPLEMENTED',
        name,
    ]
    assert refused(machine, name, session, DEAD, 'n') == [
        'HANDLE_INVALID',
        'VM',
        DEAD,
    ]


def test_what_was_removed_says_so(
    machine: simulated.Machine, session: str
) -> None:
    for name in ('pool.enable_ssl_legacy', 'VMPP.get_all_records'):
        params = [session] + (['x'] if name.startswith('pool') else [])
        assert refused(machine, name, *params) == ['MESSAGE_REMOVED']


def test_methods_are_listed_without_a_session(
    machine: simulated.Machine,
) -> None:
    listed = run(machine, dispatch.LIST_METHODS)
    assert listed[:3] == [
        'session.get_record',
        'session.get_by_uuid',
        'session.get_uuid',
    ]
    assert 'pool.join' in listed


def test_emergency_mode_lets_emergency_calls_through_by_exact_name(
    machine: simulated.Machine,
) -> None:
    machine.emergency = errors.ApiError('HOST_STILL_BOOTING')
    for name in (
        'session.login_with_password',
        'session_slave_local_login_with_password',
        'system.listMethods',
        'no.such',
    ):
        with pytest.raises(dispatch.GateRefusal):
            run(machine, name, 'root', 'xenroot')
    local = 'session.slave_local_login_with_password'
    assert run(machine, local, 'root', 'xenroot') in machine.local_sessions


def test_a_member_sends_ordinary_callers_to_its_coordinator(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    machine.role = ('slave', '192.0.2.1')
    login = 'session.login_with_password'
    assert refused(machine, login, 'root', 'bad') == [
        'HOST_IS_SLAVE',
        '192.0.2.1',
    ]
    address = next(iter(db.all('host').values()))['address']
    slave = ['HOST_IS_SLAVE', address]
    assert refused(machine, 'host.get_all', session) == slave
    assert refused(machine, 'no.such', session) == slave
    assert refused(machine, 'host.get_all', DEAD)[0] == 'SESSION_INVALID'
    pool = sessions.create(db, pool=True)
    assert run(machine, 'host.get_all', pool) == db.refs('host')


def test_local_sessions_pass_everywhere_and_end_by_local_logout_only(
    machine: simulated.Machine,
) -> None:
    machine.role = ('slave', '192.0.2.1')
    login = 'session.slave_local_login_with_password'
    local = run(machine, login, 'root', 'xenroot')
    assert run(machine, 'session.logout', local) is None
    assert run(machine, 'pool.get_all', local)
    run(machine, 'session.local_logout', local)
    assert refused(machine, 'pool.get_all', local)[0] == 'SESSION_INVALID'


def test_the_pools_secret_opens_sessions_for_internal_calls(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    host = db.refs('host')[0]
    assert refused(machine, 'session.slave_login', host, 'wrong') == [
        'SESSION_AUTHENTICATION_FAILED',
        host,
        sessions.REASON_FOREIGN,
    ]
    inside = run(machine, 'session.slave_login', host, 'pool secret')
    internal = 'host.notify'
    text = refused(machine, internal, session, 'a', 'b')[1]
    assert text == (
        'Internal API "host.notify" call attempted with non-pool (external) '
        'session'
    )
    assert refused(machine, internal, inside, 'a', 'b')[0] == 'NOT_IMPLEMENTED'


def test_wrong_passwords_and_unknown_users_are_told_apart(
    machine: simulated.Machine,
) -> None:
    login = 'session.login_with_password'
    assert refused(machine, login, 'root', 'bad') == [
        'SESSION_AUTHENTICATION_FAILED',
        'root',
        sessions.REASON_DENIED,
    ]
    assert refused(machine, login, 'who', 'bad')[2] == sessions.REASON_UNKNOWN


def test_roles_limit_what_a_session_may_do(
    machine: simulated.Machine, db: database.Database
) -> None:
    sessions.add_subject(db, 'reader', 'pw', ['read-only'])
    login = 'session.login_with_password'
    limited = run(machine, login, 'reader', 'pw')
    pool = run(machine, 'pool.get_all', limited)[0]
    assert refused(machine, 'pool.set_name_label', limited, pool, 'x') == [
        'RBAC_PERMISSION_DENIED',
        'pool.set_name_label',
        'No permission in user session. (Roles with this permission: '
        'pool-admin, pool-operator)',
    ]
    task = run(machine, 'Async.pool.sync_database', limited)
    assert finish(db, task)['error_info'][0] == 'RBAC_PERMISSION_DENIED'
    assert refused(machine, 'VM.start', limited, DEAD, False, False)[2] == (
        'No permission in user session. (Roles with this permission: '
        'vm-power-admin, vm-admin, vm-operator, pool-admin, pool-operator)'
    )


def test_some_keys_of_maps_need_other_roles_than_the_rest(
    machine: simulated.Machine, db: database.Database
) -> None:
    for role in ('vm-operator', 'vm-admin'):
        sessions.add_subject(db, role, 'pw', [role])
    login = 'session.login_with_password'
    operator = run(machine, login, 'vm-operator', 'pw')
    pool, vm = db.refs('pool')[0], db.refs('VM')[0]
    db.set('VM', vm, platform={})
    add = 'pool.add_to_other_config'
    assert refused(machine, add, operator, pool, 'key', 'x')[1] == add
    for key in ('folder', 'XenCenter.CustomFields.a'):
        run(machine, add, operator, pool, key, 'x')
        assert db.get('pool', pool)['other_config'][key] == 'x'
    admin = run(machine, login, 'vm-admin', 'pw')
    run(machine, 'VM.add_to_platform', admin, vm, 'any', 'x')
    for method in ('VM.add_to_platform', 'VM.add_to_other_config'):
        assert refused(machine, method, admin, vm, 'hvm_serial', 'x') == [
            'RBAC_PERMISSION_DENIED',
            f'{method.lower()}/key:hvm_serial',
            'No permission in user session. (Roles with this permission: '
            'pool-admin)',
        ]
    with pytest.raises(ValueError, match='read-only'):
        sessions.add_subject(db, 'x', 'pw', ['reader'])


def test_roles_are_there_to_be_looked_up(
    machine: simulated.Machine, session: str
) -> None:
    (admin,) = run(machine, 'role.get_by_name_label', session, 'pool-admin')
    uuid = '0165f154-ba3e-034e-6b27-5d271af109ba'  # the same everywhere
    assert run(machine, 'role.get_by_uuid', session, uuid) == admin
    (reader,) = run(machine, 'role.get_by_name_label', session, 'read-only')
    method = 'role.get_permissions_name_label'
    assert 'host.get_all' in run(machine, method, session, reader)
    assert 'pool.join' not in run(machine, method, session, reader)
    assert 'pool.join' in run(machine, method, session, admin)
    holders = run(
        machine, 'role.get_by_permission_name_label', session, 'pool.join'
    )
    labels = [run(machine, 'role.get_name_label', session, r) for r in holders]
    assert labels == ['pool-admin', 'pool-operator']
    found = run(machine, 'role.get_all_records_where', session, 'subroles<>[]')
    assert len(found.rows) == len(rbac.ROLES)
    assert refused(machine, 'role.get_record', session, DEAD)[0] == (
        'HANDLE_INVALID'
    )


def test_a_password_can_be_changed(
    machine: simulated.Machine, session: str
) -> None:
    run(machine, 'session.change_password', session, 'any', 'fresh')
    assert machine.password == 'fresh'


def test_idle_sessions_end_and_the_oldest_beyond_the_caps(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    machine.clock.advance(sessions.IDLE + 1)
    kept = [
        sessions.create(db, originator='mine')
        for _ in range(sessions.CAP_ORIGINATOR + 2)
    ]
    sessions.collect_garbage(db)
    assert not db.exists(session)
    left = [ref for ref in kept if db.exists(ref)]
    assert len(left) == sessions.CAP_ORIGINATOR


def test_a_session_with_a_running_task_does_not_end(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    tasks.create(db, 'long', session=session)
    machine.clock.advance(sessions.IDLE + 1)
    sessions.collect_garbage(db)
    assert db.exists(session)


def test_a_used_session_stays(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    for _ in range(4):
        machine.clock.advance(sessions.IDLE / 2)
        assert run(machine, 'host.get_all', session)
    assert db.exists(session)


def test_an_asynchronous_call_is_a_task(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    args = {'name_label': 'n', 'other_config': {}, 'name_description': ''}
    task = run(machine, 'Async.network.create', session, args)
    record = finish(db, task)
    assert record['name_label'] == 'Async.network.create'
    assert record['status'] == 'success'
    assert record['progress'] == 1.0
    ref = record['result'].removeprefix('<value>').removesuffix('</value>')
    assert db.get('network', ref)['bridge'].startswith('xapi')
    run(machine, 'task.destroy', session, task)
    assert refused(machine, 'task.get_status', session, task)[0] == (
        'HANDLE_INVALID'
    )


def test_a_synchronous_call_has_a_task_while_it_runs(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    before = db.generation
    args = {'name_label': 'n', 'other_config': {}, 'name_description': ''}
    run(machine, 'network.create', session, args)
    assert db.refs('task') == []
    table = db.table('task')
    assert table.deleted[-1][0] > before


def test_clients_keep_tasks_of_their_own(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    task = run(machine, 'task.create', session, 'mine', 'text')
    run(machine, 'task.set_progress', session, task, 0.5)
    run(machine, 'task.cancel', session, task)
    assert tasks.is_cancelling(db, task)
    run(machine, 'task.destroy', session, task)
    assert db.get('task', task)['current_operations']['task'] == 'destroy'
    sessions.add_subject(db, 'reader', 'pw', ['read-only'])
    other = run(machine, 'session.login_with_password', 'reader', 'pw')
    assert refused(machine, 'task.cancel', other, task)[:2] == [
        'RBAC_PERMISSION_DENIED',
        'task.destroy/any',
    ]


def test_finished_tasks_are_kept_for_a_while(
    machine: simulated.Machine, db: database.Database
) -> None:
    done = tasks.create(db, 'done')
    tasks.complete(db, done, '')
    old = tasks.create(db, 'stuck')
    machine.clock.advance(tasks.KEPT_FINISHED + 1)
    tasks.collect_garbage(db)
    assert not db.exists(done)
    machine.clock.advance(tasks.KEPT_PENDING)
    tasks.collect_garbage(db)
    assert not db.exists(old)


def test_the_oldest_of_too_many_tasks_go_early(
    machine: simulated.Machine, db: database.Database
) -> None:
    made = []
    for _ in range(tasks.KEPT_TASKS + 3):
        made.append(tasks.create(db, 'done'))
        tasks.complete(db, made[-1], '')
        machine.clock.advance(1)
    tasks.collect_garbage(db)
    assert [db.exists(ref) for ref in made[:4]] == [False] * 3 + [True]


def test_a_bug_in_the_simulator_is_an_internal_error(
    machine: simulated.Machine,
    session: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(call: registry.Call) -> None:
        raise KeyError('oops')

    found = registry.Message('pool.sync_database', broken)
    monkeypatch.setitem(registry._MESSAGES, 'pool.sync_database', found)
    details = refused(machine, 'pool.sync_database', session)
    assert details[0] == 'INTERNAL_ERROR'
    assert 'pool.sync_database failed' in caplog.text


def _from(
    machine: simulated.Machine,
    session: str,
    classes: list[str],
    token: str = '',
    timeout: float = 0.0,
) -> tuple[list[tuple[str, str, str]], str]:
    batch = run(machine, 'event.from', session, classes, token, timeout)
    told = [(e['class'], e['operation'], e['ref']) for e in batch['events']]
    return told, batch['token']


def test_events_tell_what_happened_since_a_token(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    told, token = _from(machine, session, ['network'])
    assert {op for _, op, _ in told} == {'add'}
    assert len(told) == len(db.refs('network'))
    kept, gone = db.refs('network')
    db.set('network', kept, name_label='one')
    db.set('network', kept, name_label='two')
    fleeting = db.create('network', {})
    fresh = db.create('network', {})
    db.delete('network', fleeting)
    db.delete('network', gone)
    told, later = _from(machine, session, ['NETWORK'], token)
    assert told == [
        ('network', 'add', fresh),
        ('network', 'mod', kept),
        ('network', 'del', gone),
    ]
    assert later > token
    assert _from(machine, session, ['network'], later) == ([], later)


def test_events_of_one_object_and_of_odd_names(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    one = db.refs('network')[0]
    told, _ = _from(machine, session, [f'network/{one}'])
    assert told == [('network', 'add', one)]
    for odd in ('', 'nonsense', 'pool/a/b', 'pool/', '*/x'):
        assert _from(machine, session, [odd])[0] == []
    assert _from(machine, session, [])[0] == []


def test_a_token_must_be_two_numbers(
    machine: simulated.Machine, session: str
) -> None:
    details = refused(machine, 'event.from', session, ['pool'], 'x', 1.0)
    assert details == ['EVENT_FROM_TOKEN_PARSE_FAILURE', 'x']
    assert _from(machine, session, ['pool'], '-1,-1')[0]


def _in_thread(
    machine: simulated.Machine, *params: typing.Any
) -> tuple[threading.Thread, list[typing.Any]]:
    out: list[typing.Any] = []

    def call() -> None:
        try:
            out.append(run(machine, 'event.from', *params))
        except errors.ApiError as error:
            out.append(error.details)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, out


def test_a_blocked_call_wakes_on_a_change_a_logout_and_its_timeout(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    pool = db.refs('pool')[0]
    token = events.token_text(db.generation, 0)
    thread, out = _in_thread(machine, session, ['pool'], token, 100.0)
    db.create('network', {})
    db.set('pool', pool, name_label='changed')
    thread.join(10)
    assert [e['ref'] for e in out[0]['events']] == [pool]

    token = events.token_text(db.generation, 0)
    other = sessions.create(db)
    thread, out = _in_thread(machine, other, ['pool'], token, 100.0)
    sessions.destroy(db, other)
    thread.join(10)
    assert out == [['SESSION_INVALID', other]]

    token = events.token_text(db.generation, 0)
    thread, out = _in_thread(machine, session, ['pool'], token, 0.5)
    machine.clock.advance(100)
    thread.join(10)
    assert out[0]['events'] == []
    assert out[0]['token'] == token


def test_injected_events_reach_who_listens(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    pool = db.refs('pool')[0]
    token = run(machine, 'event.inject', session, 'pool', pool)
    told, _ = _from(machine, session, ['pool'], token)
    assert told == [('pool', 'mod', pool)]
    assert refused(machine, 'event.inject', session, 'host', pool) == [
        'HANDLE_INVALID',
        'host',
        pool,
    ]


def test_the_old_events_need_registration(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    assert refused(machine, 'event.next', session) == [
        'SESSION_NOT_REGISTERED',
        sessions.track_id(session),
    ]
    run(machine, 'event.register', session, ['pool'])
    db.set('pool', db.refs('pool')[0], name_label='x')
    assert [e['operation'] for e in _next(machine, session)] == ['mod']
    run(machine, 'event.unregister', session, ['pool'])
    db.set('pool', db.refs('pool')[0], name_label='y')
    run(machine, 'event.register', session, ['network'])
    db.create('network', {})
    assert [e['class'] for e in _next(machine, session)] == ['network']


def _next(machine: simulated.Machine, session: str) -> list[typing.Any]:
    """Return the old events, which must be alike in both encodings."""
    result = dispatch.execute(machine, 'event.next', [session])
    by_json = orjson.loads(result.json())
    (by_xml,), _ = xmlrpc.client.loads(wire_xml.bare(result.xml()))
    assert isinstance(by_xml, list)
    for one, other in zip(by_xml, by_json, strict=True):
        assert one.keys() == other.keys()
        for name in ('id', 'timestamp', 'class', 'operation', 'ref'):
            assert one[name] == other[name]
    return list(by_json)


def test_the_old_events_tell_each_change_as_it_was_then(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    run(machine, 'event.register', session, ['network'])
    first = run(machine, 'event.get_current_id', session)
    ref = db.create('network', {'name_label': 'a'})
    db.set('network', ref, name_label='b')
    db.delete('network', ref)
    db.set('pool', db.refs('pool')[0], name_label='nobody asked')
    told = _next(machine, session)
    assert [(e['operation'], e['snapshot']['name_label']) for e in told] == [
        ('add', 'a'),
        ('mod', 'b'),
        ('del', 'b'),
    ]
    assert [int(e['id']) - first for e in told] == [0, 1, 2]
    assert run(machine, 'event.get_current_id', session) == first + 3
    # As a sign of life, now and then (xapi_event.ml).
    run(machine, 'event.register', session, ['pool'])
    event_queue.heartbeat(db)
    assert [e['operation'] for e in _next(machine, session)] == ['mod']


def test_who_does_not_fetch_the_old_events_loses_them(
    machine: simulated.Machine,
    session: str,
    db: database.Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_queue, 'LIMIT', 20_000)
    quick = run(machine, 'session.login_with_password', 'root', 'xenroot')
    for one in (session, quick):
        run(machine, 'event.register', one, ['network'])
    ref = db.create('network', {})
    for number in range(100):
        db.set('network', ref, name_label=str(number))
        if number % 10 == 0:
            assert _next(machine, quick)
    assert refused(machine, 'event.next', session) == ['EVENTS_LOST']
    assert _next(machine, quick)
    db.set('network', ref, name_label='last')
    for one in (session, quick):
        (event,) = _next(machine, one)
        assert event['snapshot']['name_label'] == 'last'


def test_messages_are_events_without_generations(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    uuid = next(iter(db.all('pool').values()))['uuid']
    _, token = _from(machine, session, ['message'])
    ref = run(machine, 'message.create', session, 'n', 3, 'pool', uuid, 'text')
    told, later = _from(machine, session, ['message'], token)
    assert told == [('message', 'add', ref)]
    assert _from(machine, session, ['message'], later)[0] == []
    assert run(machine, 'message.get_all', session) == [ref]
    assert refused(
        machine, 'message.create', session, 'n', 3, 'Pool', 'no', ''
    ) == ['UUID_INVALID', 'Pool', 'no']


def test_hidden_get_all_where_exists(
    machine: simulated.Machine, session: str, db: database.Database
) -> None:
    found = run(machine, 'host.get_all_where', session, 'true')
    assert found == db.refs('host')


def test_every_published_message_is_accounted_for() -> None:
    covered = dispatch.coverage()
    assert covered['host.get_record'] == 'derived'
    assert covered['event.from'] == 'simulated'
    assert covered['VM.checkpoint'] == 'not simulated'
    assert covered['pool.enable_ssl_legacy'] == 'removed'
