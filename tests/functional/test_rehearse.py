# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Rehearsals: what they say comes true, and nothing real is touched."""

from __future__ import annotations

import collections.abc
import json
import pathlib
import re
import typing

import pytest

from tests.functional import cli_lab
from xenpool_driver import simulator
from xenpool_driver.cli import main

_READ = re.compile(r'session\..*|.*\.(get|local_assert)_.*|task\..*')

Run = collections.abc.Callable[..., cli_lab.Result]


@pytest.fixture
def lab() -> collections.abc.Iterator[simulator.Simulation]:
    with cli_lab.simulation(3) as running:
        yield running


@pytest.fixture
def xenpool(
    lab: simulator.Simulation,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    path = cli_lab.write_config(tmp_path / 'xenpool.conf', lab)

    def run(*words: str) -> cli_lab.Result:
        status = main.main(['--config-file', str(path), *words])
        out, err = capsys.readouterr()
        return cli_lab.Result(status, out, err)

    return run


def _do(run: Run, words: str) -> cli_lab.Result:
    done = run('aggregate', *words.split())
    assert done.status == 0, done.err
    return done


def _rehearsed(
    run: Run, lab: simulator.Simulation, words: str, status: int = 0
) -> dict[str, typing.Any]:
    """Rehearse; assert that the real hosts saw logins and reads only."""
    before = cli_lab.memberships(lab)
    rows = run('aggregate', 'list', '-f', 'json').out
    lab.faults.executed.clear()

    found = run('rehearse', *words.split(), '-f', 'json')

    assert found.status == status, found.err
    touched = [name for name in lab.calls() if not _READ.fullmatch(name)]
    assert not touched
    assert cli_lab.memberships(lab) == before
    assert run('aggregate', 'list', '-f', 'json').out == rows
    assert cli_lab.PASSWORD not in found.out + found.err
    told: dict[str, typing.Any] = json.loads(found.out)
    return told


def _methods(told: dict[str, typing.Any]) -> list[tuple[str, str, str]]:
    return [
        (call['host'], call['method'], call['arguments'])
        for call in told['calls']
    ]


def test_first_hosts(xenpool: Run, lab: simulator.Simulation) -> None:
    _do(xenpool, 'create prod')

    told = _rehearsed(xenpool, lab, 'add host prod xen01 xen02')

    assert told['would'] == 'succeed'
    assert (told['state'], told['master']) == ('active', 'xen01')
    assert told['hosts'] == ['xen01', 'xen02']
    assert [call[:2] for call in _methods(told)] == [
        ('xen01', 'pool.add_to_other_config'),
        ('xen01', 'pool.set_name_label'),
        ('xen02', 'pool.join'),
        ('xen01', 'pool.sync_database'),
    ]
    assert _methods(told)[2][2] == 'xen01'


def test_what_a_rehearsal_says_comes_true(
    xenpool: Run, lab: simulator.Simulation
) -> None:
    _do(xenpool, 'create prod')
    _do(xenpool, 'add host prod xen01')
    machine = lab.named('xen02')
    assert machine.db is not None
    ref = machine.db.by_uuid('host', machine.uuid)
    machine.db.set('host', ref, name_description='in rack 7')

    told = _rehearsed(xenpool, lab, 'add host prod xen02 xen03')
    _do(xenpool, 'add host prod xen02 xen03')

    assert 10 < told['seconds'] < 200
    assert [step['phase'] for step in told['plan'] if step['host'] == 'xen02'][
        :3
    ] == ['begun', 'join', 'restart']
    assert any(
        loss['host'] == 'xen02' and 'rack 7' in loss['message']
        for loss in told['lost']
    )
    (real,) = json.loads(xenpool('aggregate', 'list', '-f', 'json').out)
    assert told['state'] == real['State']
    assert told['master'] == real['Master']
    assert sorted(told['hosts']) == sorted(real['Hosts'])


def test_master_change_and_removal(
    xenpool: Run, lab: simulator.Simulation
) -> None:
    _do(xenpool, 'create prod')
    _do(xenpool, 'add host prod xen01 xen02 xen03')

    moved = _rehearsed(xenpool, lab, 'set master prod xen02')
    left = _rehearsed(xenpool, lab, 'remove host prod xen01 --successor xen03')

    assert moved['master'] == 'xen02'
    assert _methods(moved) == [('xen01', 'pool.designate_new_master', 'xen02')]
    assert left['master'] == 'xen03'
    assert [call[1] for call in _methods(left)] == [
        'pool.designate_new_master',
        'pool.eject',
    ]
    assert left['lost']


@pytest.mark.parametrize('text', ['', 'no features'])
def test_hosts_that_tell_little_of_their_processors(
    xenpool: Run, lab: simulator.Simulation, text: str
) -> None:
    """As old hosts, and hosts without an hypervisor, do."""
    for machine in lab.world.machines:
        assert machine.db is not None
        for cls in ('host', 'pool'):
            for ref, record in machine.db.all(cls).items():
                info = {
                    key: text if key.startswith('features') else value
                    for key, value in record['cpu_info'].items()
                }
                machine.db.set(cls, ref, cpu_info=info)
    _do(xenpool, 'create prod')

    told = _rehearsed(xenpool, lab, 'add host prod xen01 xen02')

    assert told['would'] == 'succeed', told
    assert told['hosts'] == ['xen01', 'xen02']


def test_refusal_and_failure(xenpool: Run, lab: simulator.Simulation) -> None:
    _do(xenpool, 'create prod')
    _do(xenpool, 'add host prod xen01')
    machine = lab.named('xen02')
    assert machine.db is not None
    (pool,) = machine.db.refs('pool')
    machine.db.set('pool', pool, ha_enabled=True)

    told = _rehearsed(xenpool, lab, 'add host prod xen02', status=3)

    assert told['would'] == 'be refused'
    (result,) = told['results']
    failed = [
        finding['check']
        for finding in result['report']['findings']
        if finding['severity'] == 'fail'
    ]
    assert failed == ['joiner-ha']
    assert told['calls'] == []


def test_hosts_that_do_not_answer(
    xenpool: Run, lab: simulator.Simulation
) -> None:
    _do(xenpool, 'create prod')
    _do(xenpool, 'add host prod xen01 xen02')
    simulator.mishaps.kill(lab.named('xen02'))
    simulator.mishaps.kill(lab.named('xen03'))

    moved = _rehearsed(xenpool, lab, 'set master prod xen02', status=3)
    added = _rehearsed(xenpool, lab, 'add host prod xen03', status=3)

    assert 'xen02' in moved['results'][0]['reason']
    assert 'xen03' in added['results'][0]['reason']


def test_report_for_people(xenpool: Run, lab: simulator.Simulation) -> None:
    _do(xenpool, 'create prod')

    told = xenpool('rehearse', 'add', 'host', 'prod', 'xen01')

    assert told.status == 0
    assert 'Nothing real was changed.' in told.out
    assert 'xen01: pool.set_name_label' in told.out


def test_recorded_pools(
    recordings: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded = simulator.Simulation(
        records=recordings / 'pools',
        address=cli_lab.address(),
        port=cli_lab.PORT,
        http_port=None,
        time_scale=20,
    )
    with recorded as lab:
        pools = sorted(cli_lab.pools(lab), key=lambda pool: len(pool.hosts))
        alone, large = pools
        path = cli_lab.write_config(tmp_path / 'xenpool.conf', lab)

        def run(*words: str) -> cli_lab.Result:
            status = main.main(['--config-file', str(path), *words])
            return cli_lab.Result(status, *capsys.readouterr())

        _do(run, f"adopt prod --from {large.master}")
        heir = sorted(large.hosts - {large.master})[0]

        moved = _rehearsed(run, lab, f"set master prod {heir}")
        left = _rehearsed(run, lab, f"remove host prod {heir}")
        added = run('rehearse', 'add', 'host', 'prod', alone.master)

    assert moved['master'] == heir
    assert heir not in left['hosts']
    assert added.status == 0, added.err
