# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The simulator answers recorded requests as the recorded XAPI did."""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import importlib
import json
import re
import typing

import pytest

from tests import simulated
from tests.contract import recorded_state, replay
from xenpool_driver.simulator import errors, timings

MODULES = (
    'join',
    'eject',
    'master',
    'ha',
    'hosts',
    'vms',
    'evacuation',
    'operations',
    'peer',
    'storage',
)
"""The world's messages register when these are imported."""

for _name in MODULES:
    importlib.import_module(f'xenpool_driver.simulator.{_name}')

WIRE = simulated.RECORDINGS / 'wire'
COORDINATOR, MEMBER = '127.0.0.14', '127.0.0.18'

RACES = re.compile('at once|while pending')
"""Cells whose answer depends on how quick the toolstack happened to be."""

TASK_FIELDS = (
    'allowed_operations',
    'finished',
    'status',
    'progress',
    'result',
    'error_info',
)

DIFFERENCES: dict[str, str] = {}
"""Cell -> why the simulator's answer differs from the recorded one."""


def _file(name: str) -> list[replay.Cell]:
    return replay.load(WIRE / f'{name}.json')


def _masked(cell: replay.Cell, text: str) -> str:
    """Hide what only says how far a task had come."""
    if not RACES.search(cell.raw['name']):
        return text
    for name in TASK_FIELDS:
        text = re.sub(
            rf'"{name}":(?:\[.*?\]|".*?"|[\d.]+)', f'"{name}":?', text
        )
        text = re.sub(
            rf'<name>{name}</name><value>.*?</value></member>',
            f'<name>{name}</name>?',
            text,
        )
    return text


def _needs_session(cell: replay.Cell) -> str | None:
    """Return the recorded session of a request that was let in."""
    call = recorded_state.decode_call(cell)
    if call is None or not call[1] or 'login' in call[0]:
        return None
    session = call[1][0]
    if not isinstance(session, str) or not replay.REF.fullmatch(session):
        return None
    waits = cell.raw['name'].startswith('blocked')
    if 'SESSION_INVALID' in cell.raw['response_body'] and not waits:
        return None
    return session


def _play(
    stage: replay.Stage,
    director: recorded_state.Director,
    cell: replay.Cell,
) -> str | None:
    session = _needs_session(cell)
    if session is not None and session not in stage.known:
        local = 'local session' in cell.raw['name']
        stage.add_session(session, cell.raw['peer'], local=local)
    director.prepare(cell)
    leaving = recorded_state.logs_out(cell)
    if leaving is not None:
        stage.log_out_later(leaving, cell.raw['peer'])
    answer = stage.send(cell, stage.translate(cell.full_body))
    return replay.compare(stage, cell, answer, _masked)


def _replay(
    stage: replay.Stage, peer: str, cells: list[replay.Cell]
) -> dict[str, str]:
    director = recorded_state.Director(stage, peer)
    found = {}
    for cell in cells:
        try:
            difference = _play(stage, director, cell)
        except (EOFError, OSError) as error:
            difference = repr(error)
        if difference is not None:
            found[cell.ident] = difference
    return found


def _judge(found: dict[str, str]) -> None:
    unexpected = {k: v for k, v in found.items() if k not in DIFFERENCES}
    text = '\n'.join(f'{k}: {v}' for k, v in unexpected.items())
    assert not unexpected, text


@pytest.fixture(scope='module')
def alone() -> collections.abc.Iterator[replay.Stage]:
    """The host that most of the recordings were made on."""
    stage = replay.Stage(
        simulated.records('fresh-single-host'),
        {COORDINATOR: simulated.free_address()},
    )
    yield stage
    stage.stop()


@pytest.mark.parametrize(
    'name',
    [
        '01-login',
        '02-errors',
        '03-names-and-async',
        '04-fields',
        '05-queries',
        '06-http',
        '07-events',
    ],
)
def test_a_coordinator_answers_as_recorded(
    alone: replay.Stage, name: str
) -> None:
    _judge(_replay(alone, COORDINATOR, _file(name)))


def _two_hosts() -> dict[str, typing.Any]:
    """Return the records of the recorded coordinator with a member."""
    records = simulated.records('fresh-single-host')
    first = next(iter(records['host'].values()))
    member = copy.deepcopy(first)
    refs = sorted(
        set(replay.REF.findall((WIRE / '08-member.json').read_text())),
    )
    ref = next(r for r in refs if r.startswith('OpaqueRef:c4bd4c'))
    metrics = ref.replace('c4bd4c', 'c4bd4d')
    member.update(
        uuid='b2a1c5c0-0000-4000-8000-000000000018',
        hostname='xapi8',
        name_label='xapi8',
        address=MEMBER,
        metrics=metrics,
    )
    for name in ('host_CPUs', 'certificates', 'resident_VMs'):
        member[name] = []
    pif = copy.deepcopy(records['PIF'][first['PIFs'][0]])
    pif.update(
        host=ref, IP=MEMBER, uuid='b2a1c5c0-0000-4000-8000-000000000020'
    )
    member['PIFs'] = [ref.replace('c4bd4c', 'c4bd4e')]
    records['PIF'][member['PIFs'][0]] = pif
    records['host'][ref] = member
    old = records['host_metrics'][first['metrics']]
    uuid = 'b2a1c5c0-0000-4000-8000-000000000019'
    records['host_metrics'][metrics] = {**old, 'uuid': uuid}
    return records


def test_a_member_answers_as_recorded() -> None:
    """All of it while a fuse burns, however long we take to ask."""
    stage = replay.Stage(
        _two_hosts(),
        {
            COORDINATOR: simulated.free_address(),
            MEMBER: simulated.free_address(),
        },
        dataclasses.replace(timings.DEFAULT, fuse=1e6),
    )
    try:
        found = _replay(stage, COORDINATOR, _file('08-member'))
    finally:
        stage.stop()
    _judge(found)


def test_a_joiner_answers_as_recorded() -> None:
    """Join, its task, and what works until the joiner restarts."""
    stage = replay.Stage(
        simulated.records('fresh-single-host'),
        {COORDINATOR: simulated.free_address()},
    )
    text = json.dumps(simulated.records('fresh-single-host'))
    text = text.replace(COORDINATOR, MEMBER)
    refs = replay.REF.findall((WIRE / '09-join-raw.json').read_text())
    joiner = next(r for r in refs if r.startswith('OpaqueRef:ccedc3'))
    host = next(iter(simulated.records('fresh-single-host')['host']))
    text = replay.UUID.sub(lambda m: m.group()[:-4] + '0018', text)
    text = text.replace(host[:-4] + '0018', joiner)
    stage.add_pool(json.loads(text), {MEMBER: simulated.free_address()})
    try:
        found = _replay(stage, MEMBER, _file('09-join-raw'))
    finally:
        stage.stop()
    _judge(found)


def test_a_starting_member_answers_as_recorded() -> None:
    """Each answer is compared in the state that it was given in."""
    answered = [c for c in _file('10-starting-up') if c.raw['status']]
    before = [c for c in answered if c.raw['at_seconds'] < 1]
    records = simulated.records('fresh-single-host')
    text = json.dumps(records).replace(COORDINATOR, MEMBER)
    stage = replay.Stage(json.loads(text), {MEMBER: simulated.free_address()})
    try:
        found = _replay(stage, MEMBER, before)
    finally:
        stage.stop()
    found.update(_replay_restart(answered[len(before) :]))
    _judge(found)


def _replay_restart(cells: list[replay.Cell]) -> dict[str, str]:
    """Replay what a member said once it had become one."""
    stage = replay.Stage(
        _two_hosts(),
        {
            COORDINATOR: simulated.free_address(),
            MEMBER: simulated.free_address(),
        },
    )
    found: dict[str, str] = {}
    try:
        process = stage.machines[MEMBER].process
        assert process is not None
        for cell in cells:
            code = re.search(
                'HOST_HAS_NO_MANAGEMENT_IP|HOST_STILL_BOOTING',
                cell.raw['response_body'],
            )
            process.emergency = errors.ApiError(code.group()) if code else None
            found.update(_replay(stage, COORDINATOR, [cell]))
    finally:
        stage.stop()
    return found


def test_the_table_of_differences_is_not_stale() -> None:
    known = {
        cell.ident
        for path in WIRE.glob('*.json')
        for cell in replay.load(path)
    }
    assert set(DIFFERENCES) <= known


def test_no_recording_was_left_out() -> None:
    played = {
        '01-login',
        '02-errors',
        '03-names-and-async',
        '04-fields',
        '05-queries',
        '06-http',
        '07-events',
        '08-member',
        '09-join-raw',
        '10-starting-up',
    }
    assert {path.stem for path in WIRE.glob('*.json')} == played
