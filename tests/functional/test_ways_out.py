# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Ways out of pools without a master, and onto masters without storage.

The commands are typed as a person would type them, where possible as an
audit prints them.
"""

from __future__ import annotations

import collections.abc
import json
import pathlib
import re
import shlex
import typing

import pytest

from tests.functional import cli_lab, driver_lab
from xenpool_driver import pool_states, simulator
from xenpool_driver.cli import main
from xenpool_driver.simulator import mishaps
from xenpool_driver.verbs import promotion, voting

PAIR = """
pools:
  - name: web
    hosts: [xen01, xen02]
    srs:
      - {name: lun1, type: lvmoiscsi, shared: true, size_gib: 500,
         default: true, device_config: {target: 127.0.77.200,
         targetIQN: iqn.2001-05.com.example:lun1, SCSIid: "36000abc"}}
    vms:
      - {name: web1, host: xen01, power_state: Running, memory_gib: 2,
         disks: [{sr: lun1, size_gib: 8}]}
"""

SECONDS = 0.5
"""Real seconds for what is waited for on purpose."""


class Site(typing.NamedTuple):
    """A simulation, and a way to command it."""

    lab: simulator.Simulation
    conf: pathlib.Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: str, status: int = 0) -> cli_lab.Result:
        """Run a command and return what it printed."""
        done = main.main(['--config-file', str(self.conf), *words])
        out, err = (
            cli_lab.plain(text, self.conf) for text in self.capsys.readouterr()
        )
        assert done == status, (out, err)
        return cli_lab.Result(done, out, err)

    def findings(self, *words: str, status: int) -> list[dict[str, str]]:
        """Return what a command finds, the worst first."""
        result = self.run(*words, '-f', 'json', status=status)
        found = json.loads(result.out)['web']['findings']
        order = ('fail', 'warn', 'unknown', 'pass')
        return sorted(found, key=lambda each: order.index(each['severity']))

    @property
    def pool(self) -> dict[str, typing.Any]:
        """The pool record of xen02's database."""
        db = self.lab.named('xen02').db
        assert db is not None
        [pool] = db.all('pool').values()
        return pool

    @property
    def owner(self) -> str:
        """Whose the pool is, by its stamp."""
        return str(self.pool['other_config'].get(pool_states.OWNER_KEY, ''))

    def shown(self) -> dict[str, typing.Any]:
        """Return the aggregate."""
        result = self.run('aggregate', 'show', 'web', '-f', 'json')
        return typing.cast(dict[str, typing.Any], json.loads(result.out))


def forget(site: Site) -> None:
    """Forget xen01, doing what the refusals say."""
    words = ('aggregate', 'remove', 'host', 'web', 'xen01', '--forget')
    told = site.run(*words, '--yes', status=3).err
    [uuid] = re.findall(r'xe host-declare-dead uuid=(\S+)', told)
    [master] = [each for each in site.lab.hosts if each.name == 'xen02']
    with driver_lab.session(site.lab, master) as xapi:
        xapi.host.declare_dead(xapi.host.get_by_uuid(uuid))
    site.lab.clock.advance(900)
    site.run(*words, '--yes')
    assert site.shown()['hosts'] == ['xen02']


@pytest.fixture
def site(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> collections.abc.Iterator[Site]:
    monkeypatch.setattr(promotion, 'SILENCE', SECONDS)
    monkeypatch.setattr(voting, 'DATABASE_SILENCE', SECONDS)
    with cli_lab.described(tmp_path / 'topology.yaml', PAIR, 60.0) as lab:
        conf = cli_lab.write_config(tmp_path / 'xenpool.conf', lab)
        found = Site(lab, conf, capsys)
        found.run('aggregate', 'adopt', 'web', '--from', 'xen01')
        yield found


def test_a_pool_of_two_is_saved_as_the_audit_says(site: Site) -> None:
    mishaps.kill(site.lab.named('xen01'))

    [lost, *_] = site.findings('aggregate', 'recover', 'web', status=1)
    [found, *_] = site.findings('aggregate', 'audit', 'web', status=1)

    assert lost['check'] == found['check'] == 'master-reachable'
    [typed] = re.findall(r'xenpool (.*)$', found['remedy'])
    assert 'switch off xen01, then: ' in found['remedy']
    told = site.findings(*shlex.split(typed), status=0)
    assert 'web1' in told[0]['message']  # it may still run on xen01
    assert site.shown()['master'] == 'xen02'
    assert site.owner == site.shown()['uuid']
    forget(site)


def test_what_was_done_by_hand_is_followed(site: Site) -> None:
    """xe pool-emergency-transition-to-master; the copy had no stamp yet."""
    mishaps.kill(site.lab.named('xen01'))
    promoted = site.lab.named('xen02')
    with driver_lab.local_session(site.lab, promoted) as xapi:
        xapi.pool.emergency_transition_to_master()
    site.lab.world.wait_for(lambda: promoted.is_master)
    assert site.owner == ''

    site.findings('aggregate', 'audit', 'web', '--fix', status=1)

    shown = site.shown()
    assert shown['master'] == 'xen02'
    assert site.owner == shown['uuid']
    forget(site)


def test_a_new_master_without_its_storage_is_warned_of(site: Site) -> None:
    db = site.lab.named('xen01').db
    assert db is not None
    [pbd] = [
        pbd
        for pbd in db.all('PBD').values()
        if db.get('host', pbd['host'])['name_label'] == 'xen02'
        and db.get('SR', pbd['SR'])['name_label'] == 'lun1'
    ]
    db.set('PBD', db.by_uuid('PBD', pbd['uuid']), currently_attached=False)

    told = site.run('aggregate', 'set', 'master', 'web', 'xen02')

    assert 'the shared storage lun1 is not plugged on xen02' in told.err
    assert f"xe pbd-plug uuid={pbd['uuid']}" in told.err
    assert site.shown()['master'] == 'xen02'


def test_a_released_pool_is_adopted_with_its_hosts_untouched(
    site: Site,
) -> None:
    calls = site.lab.calls()

    site.run('aggregate', 'release', 'web')

    made = site.lab.calls()
    changed = {
        method
        for method in made
        if made[method] > calls.get(method, 0)
        and not method.startswith(('session.', 'task.'))
        and '.get_' not in method
    }
    assert changed == {'pool.remove_from_other_config'}
    assert site.owner == ''
    site.run('aggregate', 'adopt', 'web', '--from', 'xen02')
    assert sorted(site.shown()["hosts"]) == ["xen01", "xen02"]


def test_another_controllers_pool_is_adopted_when_it_is_named(
    site: Site, tmp_path: pathlib.Path
) -> None:
    stamp = site.owner
    other = cli_lab.write_config(
        tmp_path / 'other.conf',
        site.lab,
        database=f"sqlite:///{tmp_path}/other.db",
    )
    stranger = Site(site.lab, other, site.capsys)

    refused = stranger.run(
        'aggregate', 'adopt', 'web', '--from', 'xen01', status=3
    )

    assert 'which another controller has made' in refused.err
    [typed] = re.findall(
        r'xenpool (aggregate adopt web .*--replace-stamp \S+)', refused.err
    )
    assert stamp in typed
    stranger.run(*shlex.split(typed))
    assert site.owner == stranger.shown()['uuid'] != stamp
