# Licensed under the Apache License, Version 2.0; see LICENSE.
"""HA that cannot be switched on again is told until it is on or given up."""

from __future__ import annotations

import pathlib

import pytest

from tests import xe
from tests.functional import desk, driver_lab

HA = """
pools:
  - name: web
    hosts: [xen01, xen02, xen03, xen04]
    ha: true
    srs:
      - {name: nfs1, type: nfs, shared: true, size_gib: 500, default: true,
         device_config: {server: 127.0.77.200, serverpath: /srv}}
"""


def refuse(web: desk.Desk) -> None:
    """Let nobody switch HA on."""
    for method in ('pool.enable_ha', 'Async.pool.enable_ha'):
        web.lab.faults.refuse(method, 'HA_NO_PLAN', times=None)


def ha(web: desk.Desk) -> tuple[bool, int]:
    """Return whether HA is on, and how many dead hosts it tolerates."""
    with driver_lab.session(web.lab, web.lab.hosts[0]) as api:
        [pool] = api.pool.get_all_records().values()
    return pool['ha_enabled'], int(pool['ha_host_failures_to_tolerate'])


REMOVE = ('aggregate', 'remove', 'host', 'web')


def test_ha_that_is_off_stays_a_finding(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with desk.seated(tmp_path, HA, capsys, monkeypatch) as web:
        web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
        before = ha(web)
        assert before[0]
        refuse(web)

        failed = web(*REMOVE, 'xen04', '--yes', '--suspend-ha')
        told = [web.audit()[0], *web.findings('aggregate', 'recover', 'web')]

        assert failed.status == 1
        assert 'HA_NO_PLAN' in failed.err
        assert not ha(web)[0]
        giving_up = 'xenpool aggregate set web --unset-property ha_suspended'
        for one in told:
            assert (one['check'], one['severity']) == ('ha', 'fail')
            assert giving_up in one['message']
            command = one['remedy'].removeprefix('on xen01: ')
            enable, tolerate = command.split('; ')
            assert xe.complaints(enable.split()) == []
            assert xe.complaints(tolerate.split()) == []
            assert command in failed.err
            assert command.startswith('xe pool-ha-enable')
            assert 'heartbeat-sr-uuids=' not in command.split()
        assert web('aggregate', 'audit', 'web').status == 1

        # The next request that suspends HA switches it on again.
        web.lab.faults.clear()
        web.done(*REMOVE, 'xen03', '--yes', '--suspend-ha')
        assert ha(web) == before
        assert 'ha' not in {one['check'] for one in web.audit()}
        assert 'ha_suspended' not in str(web.shown())

        refuse(web)
        web(*REMOVE, 'xen02', '--yes', '--suspend-ha')
        assert web.audit()[0]['check'] == 'ha'
        web.done(*giving_up.split()[1:])
        assert 'ha' not in {one['check'] for one in web.audit()}
        refused = web('aggregate', 'set', 'web', '--property', 'ha_suspended=')
        assert refused.status == 3
