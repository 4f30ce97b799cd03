# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A pool's life over real sockets, as a plain XenAPI.Session sees it."""

from __future__ import annotations

import collections.abc
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import typing
import urllib.error
import urllib.request
import xmlrpc.client

import pytest
import XenAPI

from xenpool_driver import simulator
from xenpool_driver.simulator import faults

SCALE = 40.0
PATIENCE = 60.0
"""Real seconds after which a test gives up waiting."""

UNSETTLED = (
    OSError,
    http.client.HTTPException,
    XenAPI.Failure,
    xmlrpc.client.Error,
)


OPEN: list[xmlrpc.client.SafeTransport] = []
"""Connections of the running test, to be closed behind it."""


@pytest.fixture(name='simulated')
def _simulated() -> collections.abc.Iterator[simulator.Simulation]:
    with simulator.Simulation(
        3,
        address='127.30.5.1',
        port=0,
        http_port=0,
        time_scale=SCALE,
        control_port=0,
        seed=7,
    ) as running:
        yield running
    while OPEN:
        OPEN.pop().close()


def login(
    simulated: simulator.Simulation,
    host: simulator.Host,
    password: str = 'xenroot',
    local: bool = False,
) -> typing.Any:
    context = ssl.create_default_context(cafile=str(simulated.ca_file))
    transport = xmlrpc.client.SafeTransport(context=context)
    OPEN.append(transport)
    session = XenAPI.Session(host.url, transport=transport)
    if local:
        session.slave_local_login_with_password('root', password)
    else:
        session.login_with_password('root', password, '1.0', 'story')
    return session.xenapi


def failure(function: typing.Callable[..., object], *args: object) -> object:
    with pytest.raises(XenAPI.Failure) as caught:
        function(*args)
    return caught.value.details


def until(check: typing.Callable[[], bool], what: str) -> None:
    """Look again and again, through restarts, until ``check`` holds."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    last: object = None
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except UNSETTLED as error:
            last = error
        pause.wait(0.02)
    raise AssertionError(f'never: {what}; last: {last!r}')


def enabled(api: typing.Any) -> dict[str, bool]:
    """Return, by uuid, the hosts that are live and enabled."""
    metrics = api.host_metrics.get_all_records()
    return {
        host['uuid']: host['enabled'] and metrics[host['metrics']]['live']
        for host in api.host.get_all_records().values()
    }


def settled(
    simulated: simulator.Simulation,
    master: simulator.Host,
    members: collections.abc.Iterable[simulator.Host],
) -> None:
    """Wait until ``master`` shows exactly these hosts, at work."""
    wanted = {h.uuid: True for h in (master, *members)}
    until(
        lambda: enabled(login(simulated, master)) == wanted,
        f'{master.name} with {len(wanted)} hosts',
    )


def join(
    simulated: simulator.Simulation,
    master: simulator.Host,
    joiner: simulator.Host,
) -> None:
    api = login(simulated, joiner)
    api.pool.join(master.address, 'root', 'xenroot')


def test_three_hosts_form_a_pool_change_its_master_and_part(
    simulated: simulator.Simulation,
) -> None:
    one, two, three = simulated.hosts
    join(simulated, one, two)
    settled(simulated, one, [two])
    join(simulated, one, three)
    settled(simulated, one, [two, three])
    assert failure(login, simulated, two) == ['HOST_IS_SLAVE', one.address]

    api = login(simulated, one)
    api.pool.designate_new_master(api.host.get_by_uuid(two.uuid))
    settled(simulated, two, [one, three])
    assert failure(login, simulated, one) == ['HOST_IS_SLAVE', two.address]

    api = login(simulated, two)
    api.pool.eject(api.host.get_by_uuid(three.uuid))
    assert failure(api.host.get_by_uuid, three.uuid) == [
        'UUID_INVALID',
        'host',
        three.uuid,
    ]
    settled(simulated, three, [])
    settled(simulated, two, [one])
    assert simulated.calls()['pool.join'] == 2
    assert simulated.calls()['pool.eject'] == 1


def test_an_asynchronous_join_shows_its_task_until_the_restart(
    simulated: simulator.Simulation,
) -> None:
    one, two, _ = simulated.hosts
    api = login(simulated, two)
    task = api.Async.pool.join(one.address, 'root', 'xenroot')
    until(lambda: api.task.get_status(task) == 'success', 'success')
    settled(simulated, one, [two])
    # XenAPI logs in again by itself when its session is gone.
    until(
        lambda: (
            failure(api.task.get_status, task)
            == ['HOST_IS_SLAVE', one.address]
        ),
        'the old session is gone',
    )


def test_a_jump_in_time_completes_what_was_due_by_then(
    simulated: simulator.Simulation,
) -> None:
    one, two, _ = simulated.hosts
    join(simulated, one, two)
    simulated.clock.set_scale(0)
    api = login(simulated, one)
    member = api.host.get_by_uuid(two.uuid)
    assert not api.host.get_enabled(member)
    simulated.clock.advance(60)
    assert api.host.get_enabled(member)
    assert failure(login, simulated, two) == ['HOST_IS_SLAVE', one.address]


def test_three_joins_at_once_overlap(
    simulated: simulator.Simulation,
) -> None:
    """The second is in the pool before the first has become a member."""
    one, two, three = simulated.hosts
    simulated.clock.set_scale(4)  # they may then be seconds apart
    api = login(simulated, one)
    api.event.register(['host'])
    threads = [
        threading.Thread(target=join, args=(simulated, one, joiner))
        for joiner in (two, three)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    simulated.clock.set_scale(SCALE)
    settled(simulated, one, [two, three])
    told = api.event.next()
    added = [index for index, e in enumerate(told) if e['operation'] == 'add']
    enabled = [
        index
        for index, e in enumerate(told)
        if e['ref'] in {told[number]['ref'] for number in added}
        and e['snapshot']['enabled']
    ]
    assert len(added) == 2
    assert max(added) < min(enabled)


def test_wrong_credentials_are_refused_in_xapis_words(
    simulated: simulator.Simulation,
) -> None:
    one, two, _ = simulated.hosts
    refused = [
        'SESSION_AUTHENTICATION_FAILED',
        'root',
        'Authentication failure',
    ]
    assert failure(login, simulated, one, 'wrong') == refused
    api = login(simulated, two)
    assert failure(api.pool.join, one.address, 'root', 'wrong') == refused
    assert enabled(api) == {two.uuid: True}


def test_a_dead_masters_pool_is_recovered_by_hand(
    simulated: simulator.Simulation,
) -> None:
    one, two, three = simulated.hosts
    join(simulated, one, two)
    settled(simulated, one, [two])
    join(simulated, one, three)
    settled(simulated, one, [two, three])
    login(simulated, one).pool.sync_database()
    post(simulated, f'/hosts/{one.name}/kill')
    local = login(simulated, two, local=True)
    assert not local.host.is_in_emergency_mode()
    local.pool.emergency_transition_to_master()
    until(lambda: bool(login(simulated, two)), 'the new master answers')
    api = login(simulated, two)
    assert api.pool.recover_slaves() == [api.host.get_by_uuid(three.uuid)]
    until(
        lambda: (
            enabled(login(simulated, two))
            == {one.uuid: False, two.uuid: True, three.uuid: True}
        ),
        'both survivors at work',
    )
    until(
        lambda: (
            failure(login, simulated, three) == ['HOST_IS_SLAVE', two.address]
        ),
        'the other follows',
    )


def test_a_lost_answer_does_not_undo_the_call(
    simulated: simulator.Simulation,
) -> None:
    one, two, _ = simulated.hosts
    simulated.faults.drop('pool.join', after=True, host=two.name)
    api = login(simulated, two)
    with pytest.raises((http.client.HTTPException, OSError)):
        # XenAPI itself tries a second time; that one is answered.
        api.pool.join(one.address, 'root', 'xenroot')
        raise http.client.HTTPException
    settled(simulated, one, [two])
    assert simulated.calls(two.name)['pool.join'] == 2


@pytest.mark.parametrize(
    ('action', 'expected'),
    [
        (
            faults.Action('refuse', code='HA_IS_ENABLED'),
            XenAPI.Failure,
        ),
        (faults.Action('garbage'), Exception),
    ],
)
def test_faults_hit_the_call_they_name_once(
    simulated: simulator.Simulation,
    action: faults.Action,
    expected: type[Exception],
) -> None:
    host = simulated.hosts[0]
    rule = faults.Rule((action,), method='pool.get_all', host=host.name)
    simulated.faults.add(rule)
    api = login(simulated, host)
    with pytest.raises(expected):
        api.pool.get_all()
    assert len(login(simulated, host).pool.get_all()) == 1


# -- the control endpoint -------------------------------------------------


def ask(
    simulated: simulator.Simulation,
    path: str,
    body: object = None,
    method: str = 'GET',
) -> typing.Any:
    assert simulated.control is not None
    request = urllib.request.Request(
        simulated.control.url + path,
        data=None if body is None else json.dumps(body).encode(),
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def post(
    simulated: simulator.Simulation, path: str, body: object = None
) -> typing.Any:
    return ask(simulated, path, body or {}, 'POST')


def test_the_control_endpoint_shows_and_moves_the_clock(
    simulated: simulator.Simulation,
) -> None:
    before = ask(simulated, '/clock')['now']
    after = post(simulated, '/clock', {'advance': 3600, 'scale': 5})
    assert after['now'] - before >= 3600
    assert simulated.clock.scale == 5


@pytest.mark.parametrize(
    'body',
    [
        '{"scale": NaN}',
        '{"scale": Infinity}',
        '{"scale": 7, "advance": NaN}',
        '{"scale": 7, "advance": -1}',
        '{"scale": -1, "advance": 1000000}',
        '{"scale": [], "advance": 1000000}',
        '[]',
        '7',
    ],
)
def test_a_clock_that_cannot_be_set_stays_as_it_is(
    simulated: simulator.Simulation, body: str
) -> None:
    assert simulated.control is not None
    before = ask(simulated, '/clock')
    request = urllib.request.Request(
        f'{simulated.control.url}/clock', body.encode(), method='POST'
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 400
    assert json.loads(caught.value.read())['error']
    after = ask(simulated, '/clock')
    assert after['scale'] == before['scale']
    assert after['now'] - before['now'] < 100000


def test_a_host_is_installed_anew_through_the_control_endpoint(
    simulated: simulator.Simulation,
) -> None:
    host = simulated.hosts[1]
    state = post(
        simulated, f'/hosts/{host.name}/install-anew', {'password': 'new'}
    )
    (found,) = (h for h in state['hosts'] if h['name'] == host.name)
    assert found['uuid'] != host.uuid
    assert found['address'] == host.address

    def ready() -> bool:
        hosts = ask(simulated, '/state')['hosts']
        return any(
            each['name'] == host.name and each['phase'] == 'ready'
            for each in hosts
        )

    until(ready, 'ready')
    assert simulated.named(host.name).check_password('root', 'new')


def test_the_control_endpoint_arms_faults_and_counts_calls(
    simulated: simulator.Simulation,
) -> None:
    host = simulated.hosts[0]
    rule = {
        'method': 'host.get_all',
        'host': host.name,
        'nth': 2,
        'actions': [{'kind': 'refuse', 'code': 'HOST_BROKEN'}],
    }
    number = post(simulated, '/faults', rule)['number']
    api = login(simulated, host)
    assert len(api.host.get_all()) == 1
    assert failure(api.host.get_all) == ['HOST_BROKEN']
    assert len(api.host.get_all()) == 1
    assert ask(simulated, '/calls')[host.name]['host.get_all'] == 2
    assert ask(simulated, '/faults')[str(number)]['seen'] == 3
    ask(simulated, f'/faults/{number}', method='DELETE')
    assert ask(simulated, '/faults') == {}


def test_the_control_endpoint_says_what_it_does_not_know(
    simulated: simulator.Simulation,
) -> None:
    for path, body in (
        ('/nowhere', None),
        ('/hosts/xen99/kill', {}),
        ('/hosts/xen01/kill', {'password': 'x'}),
        ('/hosts/xen01/kill', []),
        ('/faults', {'actions': [{'kind': 'explode'}]}),
        ('/faults', {'action': []}),
        ('/faults', {'actions': [{'kind': 'delay'}], 'nth': 'a'}),
        ('/faults', {'actions': [{'kind': 'delay'}], 'times': 0}),
        ('/faults', {'actions': [{'kind': 'delay'}], 'probability': 2}),
        ('/clock', {'advanse': 60}),
        ('/clock', {'advance': -1}),
        ('/partition', {}),
        ('/partition', {'between': ['xen01', 'xen01']}),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(simulated, path, body, 'GET' if body is None else 'POST')
        assert 'error' in json.loads(caught.value.read())
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(simulated, '/clock', {'scale': 2}, 'PUT')
    assert 'PUT' in json.loads(caught.value.read())['error']


def test_sessions_can_be_expired(simulated: simulator.Simulation) -> None:
    host = simulated.hosts[0]
    api = login(simulated, host)
    post(simulated, f'/hosts/{host.name}/expire-sessions')
    # XenAPI logs in again by itself: the reference is another one.
    assert len(api.host.get_all()) == 1
    assert simulated.calls()['session.login_with_password'] == 2


def test_the_records_of_a_host_can_be_fetched(
    simulated: simulator.Simulation,
) -> None:
    records = ask(simulated, f'/records/{simulated.hosts[1].name}')
    host = next(iter(records['host'].values()))
    assert host['uuid'] == simulated.hosts[1].uuid
    assert 'session' not in records


def test_a_control_port_that_is_taken_is_named(
    simulated: simulator.Simulation,
) -> None:
    assert simulated.control is not None
    port = simulated.control.url.rpartition(':')[2]
    ended = subprocess.run(
        [
            *(sys.executable, '-m', 'xenpool_driver.simulator'),
            *('--hosts', '1', '--address', '127.30.6.9', '--port', '0'),
            *('--http-port', '0', '--control-port', port),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        f'xenpool: cannot listen on 127.0.0.1:{port} (control port): Address'
        ' already in use\n'
    )


# -- as a process -----------------------------------------------------------


def test_the_process_announces_its_hosts_and_ends_cleanly(
    tmp_path: typing.Any,
) -> None:
    command = [
        sys.executable,
        '-m',
        'xenpool_driver.simulator',
        *('--hosts', '2', '--address', '127.30.6.1', '--port', '18443'),
        *('--http-port', '18080', '--state-dir', str(tmp_path / 'state')),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.split())
            if line == 'ready\n':
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert [line[:3] for line in lines[:-1]] == [
        ['host', 'xen01', 'https://127.30.6.1:18443'],
        ['host', 'xen02', 'https://127.30.6.2:18443'],
    ]
    assert (tmp_path / 'state' / 'ca.pem').exists()


@pytest.mark.parametrize(
    'arguments',
    [
        ['--hosts', '0'],
        ['--topology', '/does/not/exist.yaml'],
        ['--records', '/does/not/exist'],
        ['--address', '10.0.0.1'],
        ['--version-profile', 'xcp-ng-1.0'],
    ],
)
def test_the_process_refuses_nonsense_in_one_line(
    arguments: list[str],
) -> None:
    ended = subprocess.run(
        [sys.executable, '-m', 'xenpool_driver.simulator', *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert 'Traceback' not in ended.stderr
    assert ended.stderr.strip()
