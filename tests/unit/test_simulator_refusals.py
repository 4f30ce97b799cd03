# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The simulator's pool.join refuses what a real XAPI refused, as it did.

Each recorded join is loaded, both sides' records, and repeated.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import struct
import threading
import typing

import pytest
import trustme

from tests import conftest, manual_world
from xenpool_driver.simulator import (
    build,
    errors,
    join,
    machine,
    prechecks,
    profiles,
    records_dir,
)

CASES = sorted((conftest.RECORDINGS / 'refusals').glob('*.json'))
VERBS = {'join': join.join, 'join_force': join.join_force}
# Errors whose parameters after the code come in no order that means anything.
SETS = {'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT'}


def load(path: pathlib.Path) -> dict[str, typing.Any]:
    case: dict[str, typing.Any] = json.loads(path.read_text())
    return case


def place(
    case: dict[str, typing.Any], side: str, where: manual_world.ManualWorld
) -> machine.Machine | None:
    """Put the hosts of one side of a recorded join into ``where``."""
    if case[side] is None:
        return None
    number = 1 if side == 'joiner' else 2
    free = build.addresses(f'127.30.4.{number * 32}')
    return records_dir.add_pool(where, case[side], free, 'secret')[0]


def attempt(
    verb: str,
    joiner: machine.Machine,
    address: str,
    case: dict[str, typing.Any],
) -> list[str] | None:
    password = 'secret' if case['password_correct'] else 'wrong'
    call = manual_world.Call(joiner, f'pool.{verb}')
    try:
        VERBS[verb](call, address, case['master_username'], password)
    except errors.ApiError as refusal:
        return refusal.details
    return None


def same(got: list[str] | None, wanted: list[str] | None) -> bool:
    if got and wanted and wanted[0] in SETS:
        return sorted(got) == sorted(wanted)
    return got == wanted


def has_hosts(case: dict[str, typing.Any]) -> bool:
    """Tell whether XAPI listened; for the rest see the listeners below."""
    return bool(case['coordinator']) or 'itself' in case['scenario']


RECORDED = [
    pytest.param(path, verb, id=f"{path.stem}-{verb}")
    for path in CASES
    for verb in VERBS
    if load(path)[verb] is not None and has_hosts(load(path))
]


@pytest.mark.parametrize(('path', 'verb'), RECORDED)
def test_a_recorded_join_ends_alike(path: pathlib.Path, verb: str) -> None:
    case = load(path)
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    joiner = place(case, 'joiner', where)
    coordinator = place(case, 'coordinator', where)
    if coordinator is not None and joiner is None:
        joiner = coordinator
    if coordinator is None:
        coordinator = joiner
    assert joiner is not None
    assert coordinator is not None
    got = attempt(verb, joiner, coordinator.address, case)
    assert same(got, case[verb]['error']), (got, case[verb]['error'])


def test_no_refused_join_changes_anything() -> None:
    changed = []
    for path in CASES:
        case = load(path)
        if case['join']['outcome'] != 'refused' or not case['coordinator']:
            continue
        if case['rule'].startswith('7.3'):
            continue
        where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
        joiner = place(case, 'joiner', where)
        coordinator = place(case, 'coordinator', where)
        if joiner is None or coordinator is None:
            continue
        assert joiner.db is not None
        assert coordinator.db is not None
        before = joiner.db.dump(), coordinator.db.dump()
        attempt('join', joiner, coordinator.address, case)
        if (joiner.db.dump(), coordinator.db.dump()) != before:
            changed.append(path.stem)
    assert not changed


# -- what listens where no host is ---------------------------------------


def _reset(connection: socket.socket) -> None:
    linger = struct.pack('ii', 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def _plain(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b'this is not TLS\r\n' * 10)


def _tls(answer: bytes) -> typing.Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert('127.30.4.200').configure_cert(context)
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(connection, server_side=True) as tls,
        ):
            received = b''
            while b'"id": 1}' not in received:
                received += tls.recv(4096)
            tls.sendall(answer)

    return serve


def _http(status: str, body: str) -> bytes:
    return (
        f'HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n'
        f'Connection: close\r\n\r\n{body}'
    ).encode()


@contextlib.contextmanager
def listener(
    serve: typing.Callable[[socket.socket], None],
) -> typing.Iterator[int]:
    """Let something listen that is no XAPI."""
    with socket.create_server(('127.30.4.200', 0)) as listening:
        ended = threading.Event()

        def accept() -> None:
            listening.settimeout(20)
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    serve(connection)
            ended.set()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        ended.wait(20)
        thread.join(20)


LISTENERS = {
    '117-peer-resets-at-once': _reset,
    '118-peer-is-not-tls': _plain,
    '120-peer-answers-http-500': _tls(_http('500 Error', 'oops')),
    '122-peer-answers-http-200-html': _tls(_http('200 OK', '<html>hi</html>')),
}


def test_every_recorded_join_is_repeated_here() -> None:
    others = {path.stem for path in CASES if not has_hosts(load(path))}
    assert others == set(LISTENERS)


@pytest.mark.parametrize('name', LISTENERS)
def test_a_listener_that_is_no_xapi_fails_alike(name: str) -> None:
    case = load(conftest.RECORDINGS / 'refusals' / f'{name}.json')
    with listener(LISTENERS[name]) as port:
        where = manual_world.ManualWorld(
            manual_world.ManualClock(), seed=1, ports={'https': port}
        )
        joiner = place(case, 'joiner', where)
        assert joiner is not None
        got = attempt('join', joiner, '127.30.4.200', case)
    assert got == case['join']['error']


def test_a_listener_that_closes_without_an_answer_is_a_failed_service() -> (
    None
):
    with listener(_tls(b'')) as port:
        where = manual_world.make(1, ports={'https': port})
        call = manual_world.Call(where.machines[0])
        with pytest.raises(errors.ApiError) as caught:
            join.join(call, '127.30.4.200', 'root', 'x')
    assert caught.value.details == ['JOINING_HOST_SERVICE_FAILED']


@pytest.mark.parametrize(
    ('address', 'details'),
    [
        (
            '127.30.4.201',
            ['INTERNAL_ERROR', 'Connection failed: connection refused.'],
        ),
        (
            'no-such-host',
            ['INTERNAL_ERROR', 'Connection failed: no host resolved.'],
        ),
        ('192.0.2.1', ['JOINING_HOST_CONNECTION_FAILED']),
    ],
)
def test_nobody_at_the_address(address: str, details: list[str]) -> None:
    where = manual_world.make(1, ports={'https': 1})
    with pytest.raises(errors.ApiError) as caught:
        join.join(manual_world.Call(where.machines[0]), address, 'root', 'x')
    assert caught.value.details == details


# -- the table of checks ------------------------------------------------


def test_there_are_33_checks_in_order() -> None:
    identifiers = [int(identifier) for identifier, _ in prechecks.CHECKS]
    assert identifiers == list(range(1, 34))


def test_profiles_name_checks_that_exist() -> None:
    known = {identifier for identifier, _ in prechecks.CHECKS}
    for profile in profiles.PROFILES.values():
        assert profile.unknown_checks <= known


def test_an_old_release_joins_without_the_checks_it_lacks() -> None:
    old = profiles.get('xcp-ng-8.2')
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    build.standalone(where, 2, '127.30.4.1', 'x', old)
    pool, joiner = where.machines
    assert joiner.db is not None
    host = joiner.db.refs('host')[0]
    joiner.db.set('host', host, pending_guidances=['reboot_host'])
    join.join(manual_world.Call(joiner), pool.address, 'root', 'x')
    where.clock.advance(40)
    assert pool.db is not None
    assert len(pool.db.refs('host')) == 2


def test_force_skips_homogeneity_only() -> None:
    plain = list(prechecks.checks_of(profiles.CURRENT, force=False))
    forced = list(prechecks.checks_of(profiles.CURRENT, force=True))
    assert [c for c in plain if c not in forced] == [
        prechecks.hosts_homogeneous
    ]


# -- what a join keeps and what it loses -----------------------------------


NAME = '103-joined-with-halted-vm-extra-network-local-sr-renamed-host'


@pytest.fixture(name='joined')
def _joined() -> tuple[dict[str, typing.Any], dict[str, typing.Any]]:
    """Return the coordinator's records after the recorded join, and ours."""
    case = load(conftest.RECORDINGS / 'refusals' / f'{NAME}.json')
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    joiner = place(case, 'joiner', where)
    coordinator = place(case, 'coordinator', where)
    assert joiner is not None
    assert coordinator is not None
    assert attempt('join', joiner, coordinator.address, case) is None
    where.clock.advance(60)
    assert coordinator.db is not None
    return case['coordinator_after'], coordinator.db.dump()


def by_uuid(
    records: dict[str, typing.Any], cls: str
) -> dict[str, dict[str, typing.Any]]:
    return {row['uuid']: row for row in records[cls].values()}


# References, addresses and dates differ between the worlds; ssh and the
# like are set by services that are not simulated.
UNEQUAL = {
    'host': {
        'PIFs',
        'address',
        'certificates',
        'control_domain',
        'host_CPUs',
        'metrics',
        'resident_VMs',
        'allowed_operations',
        'ssh_expiry',
        'other_config',
        'PBDs',
    },
    'VM': {
        'domarch',
        'affinity',
        'metrics',
        'resident_on',
        'VIFs',
        'consoles',
        'other_config',
        'generation_id',
        'allowed_operations',
        'platform',
        'domid',
    },
    'VIF': {'VM', 'network', 'metrics', 'allowed_operations'},
    'SR': {'allowed_operations'},
}


@pytest.mark.parametrize('cls', UNEQUAL)
def test_what_keeps_its_uuid_looks_as_after_the_recorded_join(
    joined: tuple[dict[str, typing.Any], dict[str, typing.Any]], cls: str
) -> None:
    real, ours = (by_uuid(records, cls) for records in joined)
    assert set(ours) == set(real)
    for uuid, row in real.items():
        if row.get('is_a_template') or row.get('is_default_template'):
            continue
        mine = ours[uuid]
        differing = {
            field: (mine.get(field), value)
            for field, value in row.items()
            if field in mine
            and field not in UNEQUAL[cls]
            and mine[field] != value
        }
        assert not differing, uuid


def test_networks_merge_by_bridge_and_others_are_made_anew(
    joined: tuple[dict[str, typing.Any], dict[str, typing.Any]],
) -> None:
    names = [
        {(n['bridge'], n['name_label']) for n in side['network'].values()}
        for side in joined
    ]
    assert names[0] == names[1]


def test_certificates_and_interfaces_get_new_uuids(
    joined: tuple[dict[str, typing.Any], dict[str, typing.Any]],
) -> None:
    real, ours = joined
    case = load(conftest.RECORDINGS / 'refusals' / f'{NAME}.json')
    for cls in ('PIF', 'Certificate'):
        assert len(ours[cls]) == len(real[cls])
        old = by_uuid(case['joiner'], cls)
        assert not set(by_uuid(ours, cls)) & set(old)
