# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Several bad hosts checked at once: a row per host and rule, worst first.

What is foreseen live is what each join would be refused with; neither side
is asked more than 16 times, however many hosts there are.
"""

from __future__ import annotations

import collections.abc
import csv
import io
import json
import pathlib
import typing

import pytest

from tests.functional import cli_lab
from xenpool_driver import model, simulator
from xenpool_driver.cli import main

TOPOLOGY = """
hosts:
  - name: xen01
  - name: good
  - name: updating
    set: {host: {pending_guidances: [reboot_host]}}
  - name: amd
    cpu_vendor: AuthenticAMD
  - name: twice
    set:
      host: {external_auth_type: AD}
      pool: {ha_enabled: true}
      PIF: {VLAN: 7}
pools:
  - hosts: [busy]
    srs:
      - {name: store, type: nfs, shared: true}
    vms:
      - {name: web1, host: busy, power_state: Running}
      - {name: web2, host: busy, power_state: Running}
"""

FIRST = {
    'good': None,
    'busy': ['JOINING_HOST_CANNOT_HAVE_RUNNING_VMS'],
    'amd': ['HOSTS_NOT_HOMOGENEOUS', 'CPUs differ'],
    'twice': ['HA_IS_ENABLED'],
}
BUDGET = 16

Words = tuple[str, ...]
Run = collections.abc.Callable[..., cli_lab.Result]


@pytest.fixture(scope='module')
def lab(
    tmp_path_factory: pytest.TempPathFactory,
) -> collections.abc.Iterator[simulator.Simulation]:
    path = tmp_path_factory.mktemp('lab') / 'lab.yaml'
    with cli_lab.described(path, TOPOLOGY, scale=50) as running:
        yield running


@pytest.fixture(scope='module')
def config(
    lab: simulator.Simulation, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """The configuration; xen01's pool is the aggregate 'grown'."""
    path = cli_lab.write_config(
        tmp_path_factory.mktemp('store') / 'xenpool.conf', lab
    )
    words = ('aggregate', 'adopt', 'grown', '--from', 'xen01')
    assert main.main(['--config-file', str(path), *words]) == 0
    return path


@pytest.fixture
def xenpool(
    lab: simulator.Simulation,
    config: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    def run(*words: str) -> cli_lab.Result:
        status = main.main(['--config-file', str(config), *words])
        out, err = capsys.readouterr()
        return cli_lab.Result(status, out, err)

    lab.faults.executed.clear()
    return run


def reports(result: cli_lab.Result) -> dict[str, typing.Any]:
    return typing.cast(dict[str, typing.Any], json.loads(result.out))


def check(*hosts: str, options: Words = ()) -> Words:
    return ('aggregate', 'check', 'grown', *hosts, *options)


HOSTS = (*FIRST, 'updating')


def test_all_rules_of_all_hosts(xenpool: Run) -> None:
    checked = xenpool(*check(*HOSTS, options=('-f', 'json')))
    assert checked.status == 3, checked.err
    found = reports(checked)
    assert list(found) == list(HOSTS)
    for host, refusal in FIRST.items():
        assert found[host]['first_refusal'] == refusal
    code = 'HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY'
    assert found['updating']['first_refusal'][0] == code
    assert failing(found['twice']) >= {
        'joiner-ha',
        'management-vlan',
        'external-auth',
    }
    assert failing(found['busy']) >= {
        'running-vms',
        'shared-storage-on-joiner',
    }
    names = {
        reference['name']
        for finding in found['busy']['findings']
        for reference in finding['objects']
    }
    assert {'web1', 'web2', 'store'} <= names


def failing(report: dict[str, typing.Any]) -> set[str]:
    return {
        finding['check']
        for finding in report['findings']
        if finding['severity'] == 'fail'
    }


def test_the_table_has_a_row_per_host_and_rule_worst_first(
    xenpool: Run,
) -> None:
    checked = xenpool(*check(*HOSTS, options=('-f', 'csv')))
    assert checked.status == 3
    rows = list(csv.DictReader(io.StringIO(checked.out)))
    ranks = [model.Severity(row['Verdict']).rank for row in rows]
    assert ranks == sorted(ranks, reverse=True)
    failed = {row['Host'] for row in rows if row['Verdict'] == 'fail'}
    assert failed == set(HOSTS) - {'good'}
    assert all(row['Remedy'] for row in rows if row['Verdict'] == 'fail')


@pytest.mark.parametrize(
    ('hosts', 'options', 'status'),
    [
        (('good',), (), 0),
        (('amd',), (), 3),
        (('amd',), ('--force',), 0),
        (('good', 'busy'), (), 3),
        (('busy',), ('--force',), 3),
        (('nobody',), (), 2),
    ],
)
def test_exit_status_is_that_of_the_worst(
    xenpool: Run, hosts: Words, options: Words, status: int
) -> None:
    checked = xenpool(*check(*hosts, options=options))
    assert checked.status == status, checked.err
    assert 'Traceback' not in checked.err


def test_no_side_is_asked_more_than_16_times(
    xenpool: Run, lab: simulator.Simulation
) -> None:
    xenpool(*check(*HOSTS))
    for host in (*HOSTS, 'xen01'):
        calls = lab.calls(host)
        # The command's own end; a service keeps its sessions.
        assert calls.pop('session.logout') == 1
        assert sum(calls.values()) <= BUDGET, calls


def test_what_is_foreseen_live_is_what_the_join_answers(
    xenpool: Run, lab: simulator.Simulation
) -> None:
    """With the refusals of XAPI itself, past our own prechecks."""
    from tests.contract import agreement, doors

    master = doors.Door(lab.named('xen01'))
    found = reports(xenpool(*check(*HOSTS, options=('-f', 'json'))))
    for host in HOSTS:
        if found[host]['first_refusal'] is None:
            continue
        joiner = doors.Door(lab.named(host))
        said = agreement.answered(joiner, master)
        assert said == tuple(found[host]['first_refusal'])


def test_nothing_was_changed(xenpool: Run, lab: simulator.Simulation) -> None:
    xenpool(*check(*HOSTS))
    assert cli_lab.memberships(lab) == {(host.name,) for host in lab.hosts}
