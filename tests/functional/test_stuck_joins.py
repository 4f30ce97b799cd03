# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A joiner that will never be ready, as the commands tell of it.

The master's toolstack restarts between the success of ``pool.join`` and the
joiner's own restart: the joiner then answers HOST_STILL_BOOTING for ever
(recorded). Whoever types what is printed, and nothing else, gets out.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import pathlib
import re
import shlex

import pytest

from tests import xe
from tests.functional import desk, driver_lab
from xenpool_driver.simulator import errors, join, machine, mishaps

TOPOLOGY = """
pools:
  - name: web
    hosts: [xen01]
hosts: [{name: xen02}]
"""


@pytest.fixture(name='web')
def _web(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> collections.abc.Iterator[desk.Desk]:
    with desk.seated(tmp_path, TOPOLOGY, capsys, monkeypatch) as found:
        found.done('aggregate', 'adopt', 'web', '--from', 'xen01')
        yield found


def stick(web: desk.Desk, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a join stick, and return what was told of it.

    The joiner's toolstack restarts seldom: no command meets it meanwhile.
    """
    world = web.lab.world
    seldom = dataclasses.replace(world.timings, stuck_restart=(1e5, 1e5))
    monkeypatch.setattr(world, 'timings', seldom)
    take_role = join._take_role

    def and_restart(
        joiner: machine.Machine, master: machine.Machine, *rest: object
    ) -> None:
        take_role(joiner, master, *rest)
        web.lab.clock.call_later(
            2.0, lambda: mishaps.restart_toolstack(master)
        )

    with monkeypatch.context() as patch:
        patch.setattr(join, '_take_role', and_restart)
        result = web('aggregate', 'add', 'host', 'web', 'xen02')
    assert result.status == 1, result
    return result.out + result.err


def follow(web: desk.Desk, remedy: str) -> None:
    """Do what a remedy says, step by step."""
    for step in re.split('(?:, |; )then: |; ', remedy):
        if step == 'wait a minute':
            web.pass_time(60)
        elif step.startswith('switch off '):
            mishaps.kill(web.machine(step.removeprefix('switch off ')))
        elif step.startswith('xenpool '):
            web.done(*shlex.split(step)[1:])
        else:
            words = shlex.split(re.sub('^on xen01: ', '', step))
            assert xe.complaints(words) == []
            uuid = words[2].removeprefix('uuid=')
            with driver_lab.session(web.lab, web.host('xen01')) as api:
                assert xe.refusal(api, words) is None
                assert words[1] == 'sr-forget', step
                api.SR.forget(api.SR.get_by_uuid(uuid))


def reset(web: desk.Desk) -> None:
    """Let the machine be a pool of its own again, with the same uuids."""
    joiner = web.machine('xen02')
    if joiner.powered:
        mishaps.kill(joiner)
    joiner.forget_installation()
    mishaps.power_on(joiner)
    web.pass_time(120)  # its first boot, too


def clean_up(web: desk.Desk, steps: int = 2) -> None:
    """Follow the audit until it is clean; local storage is left, too."""
    for _ in range(steps):
        found = web.audit()
        if not found:
            return
        assert found[0]['check'] == 'unconnected-storage', found
        follow(web, found[0]['remedy'])
    assert web.audit() == []


def test_a_join_that_sticks_says_so_and_the_way_out(
    web: desk.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = web.lab.clock.now()
    told = ' '.join(stick(web, monkeypatch).split())

    assert web.lab.clock.now() - began < 300  # of 600
    assert 'xen02 answers HOST_STILL_BOOTING' in told
    assert 'missing: enabled, its own view of the master' in told
    assert 'will never be ready' in told
    [way_out] = set(re.findall('the way out: (.*? --fix)', told))

    follow(web, way_out)

    assert web.shown()['hosts'] == ['xen01']
    clean_up(web)
    reset(web)
    web.done('aggregate', 'add', 'host', 'web', 'xen02')
    assert web.shown()['hosts'] == ['xen01', 'xen02']
    clean_up(web)


def test_the_audit_and_a_removal_lead_out_too(
    web: desk.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick(web, monkeypatch)

    [found] = [one for one in web.audit() if one['severity'] == 'fail']
    refused = web('aggregate', 'remove', 'host', 'web', 'xen02', '--yes')
    early = web(
        *('aggregate', 'remove', 'host', 'web', 'xen02', '--forget', '--yes')
    )

    assert 'xen02' in found['message']
    assert 'HOST_STILL_BOOTING' in found['message']
    assert refused.status == early.status == 3
    for told in (refused, early):
        assert found['remedy'] in ' '.join((told.out + told.err).split())

    follow(web, found['remedy'])

    assert web.shown()['hosts'] == ['xen01']
    clean_up(web)


def test_what_it_leaves_behind_is_found_before_it_sticks_again(
    web: desk.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick(web, monkeypatch)
    mishaps.kill(web.machine('xen02'))
    web.done(
        'aggregate', 'remove', 'host', 'web', 'xen02', '--forget', '--yes'
    )
    [left] = [one for one in web.audit() if one['check'] == 'left-over-domain']
    reset(web)

    refused = web('aggregate', 'add', 'host', 'web', 'xen02')
    checked = web.findings('aggregate', 'check', 'web', 'xen02')
    [found] = [one for one in checked if one['severity'] == 'fail']

    assert (left['check'], left['severity']) == ('left-over-domain', 'warn')
    assert refused.status == 3
    assert (found['check'], found['severity']) == ('left-over-domain', 'fail')
    assert 'copy of another' not in found['message'] + found['remedy']
    assert left['remedy'] in found['remedy']

    follow(web, found['remedy'])

    clean_up(web)
    web.done('aggregate', 'add', 'host', 'web', 'xen02')
    clean_up(web)


def test_no_record_is_destroyed_while_a_host_has_no_control_domain(
    web: desk.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may let a host join meanwhile, by hand."""
    stick(web, monkeypatch)
    mishaps.kill(web.machine('xen02'))
    web.done(
        'aggregate', 'remove', 'host', 'web', 'xen02', '--forget', '--yes'
    )
    db = web.machine('xen01').db
    assert db is not None
    [(host, row)] = db.table('host').rows.items()
    domain = row.record['control_domain']
    db.set('host', host, control_domain=errors.NULL)

    web('aggregate', 'audit', 'web', '--fix')

    assert 'VM.destroy' not in web.lab.calls()
    db.set('host', host, control_domain=domain)
    told = web.done('aggregate', 'audit', 'web', '--fix', '-f', 'json').out
    assert 'is destroyed' in told
    assert web.lab.calls()['VM.destroy'] == 1
    listed = web.done('operation', 'list').out
    assert 'destroy-domains' in listed
    assert web.shown()['state'] == 'active'
