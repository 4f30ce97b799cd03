# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What is lost by leaving and joining is said before, and found after."""

from __future__ import annotations

import json
import pathlib
import re
import typing

import pytest

from tests.functional import cli_lab
from xenpool_driver import simulator
from xenpool_driver.cli import main
from xenpool_driver.simulator import errors, storage

SCRATCH = """
pools:
  - name: web
    hosts: [xen01, xen02, xen03]
    srs:
      - {name: nfs1, type: nfs, shared: true, size_gib: 500,
         device_config: {server: 127.0.77.200, serverpath: /srv}}
      - {name: scratch, type: ext, host: xen03, default: true}
      - {name: isos, type: iso, host: xen03,
         device_config: {location: /opt/iso, legacy_mode: "true"}}
    vms:
      - {name: sleeper, power_state: Suspended, memory_gib: 2,
         disks: [{sr: nfs1, size_gib: 8}]}
"""
"""The local storage of xen03 is what the pool uses by default; the memory of
a suspended machine is on it."""

BONDED = """
pools:
  - name: web
    hosts: [xen01, xen02]
    bonds: [[eth0, eth1]]
hosts: [xen03]
"""
"""The pool has its management on a bond, a free host on eth0."""


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
        assert done == status, err
        return cli_lab.Result(done, out, err)

    def audit(self) -> dict[str, dict[str, typing.Any]]:
        """Return what the audit finds about storage, by check."""
        found = json.loads(
            self.run('aggregate', 'audit', 'web', '-f', 'json').out
        )
        return {
            one['check']: one
            for one in found['web']['findings']
            if one['check'] in ('storage-roles', 'local-storage')
        }

    @property
    def db(self) -> typing.Any:
        """The pool's database."""
        return self.lab.world.machines[0].db

    def named(self, cls: str, name: str) -> str:
        """Return the reference of what has this name."""
        [ref] = [
            ref
            for ref, record in self.db.all(cls).items()
            if record['name_label'] == name
        ]
        return str(ref)


def test_an_eject_names_what_will_point_to_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with cli_lab.described(tmp_path / 'topology.yaml', SCRATCH) as lab:
        site = Site(
            lab, cli_lab.write_config(tmp_path / 'xenpool.conf', lab), capsys
        )
        site.run('aggregate', 'adopt', 'web', '--from', 'xen01')
        scratch = site.named('SR', 'scratch')
        image = site.db.create(
            'VDI', {'name_label': 'Suspend image', 'SR': scratch}
        )
        site.db.set('VM', site.named('VM', 'sleeper'), suspend_VDI=image)
        [pool] = site.db.refs('pool')
        site.db.set('pool', pool, suspend_image_SR=scratch)
        assert {one['severity'] for one in site.audit().values()} == {'pass'}

        told = site.run(
            'aggregate', 'remove', 'host', 'web', 'xen03', status=3
        ).err
        for line in (
            'warn: storage-roles: scratch is the default SR and the SR for '
            'suspend images of the pool web',
            'warn: suspended-vms: the suspended virtual machine sleeper would '
            'lose its memory',
            'warn: iso-libraries: the ISO library isos of xen03 goes with it',
            '--yes agrees',
            'move its disks to shared storage first',
        ):
            assert line in told
        assert '--allow-data-loss' not in told

        site.run('aggregate', 'remove', 'host', 'web', 'xen03', '--yes')
        found = site.audit()['storage-roles']
        assert found['severity'] == 'warn'
        shelf = site.db.get('SR', site.named('SR', 'nfs1'))['uuid']
        assert re.fullmatch(
            f"xe pool-param-set uuid=[0-9a-f-]+ default-SR={shelf} "
            f"suspend-image-SR={shelf}",
            found['remedy'],
        )
        nfs1 = site.named('SR', 'nfs1')
        site.db.set('pool', pool, default_SR=nfs1, suspend_image_SR=nfs1)
        assert site.audit()['storage-roles']['severity'] == 'pass'


def test_storage_that_a_failed_eject_left_unplugged_is_plugged_again(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last storage does not let go; XAPI does not roll back."""
    with cli_lab.described(tmp_path / 'topology.yaml', SCRATCH) as lab:
        site = Site(
            lab, cli_lab.write_config(tmp_path / 'xenpool.conf', lab), capsys
        )
        site.run('aggregate', 'adopt', 'web', '--from', 'xen01')
        unplug, gone = storage.unplug, list[str]()

        def unplug_or_not(db: typing.Any, pbd: str) -> None:
            if len(gone) == 3:
                raise errors.ApiError('SR_DEVICE_IN_USE')
            unplug(db, pbd)
            gone.append(db.get('PBD', pbd)['uuid'])

        monkeypatch.setattr(storage, 'unplug', unplug_or_not)
        remove = ('aggregate', 'remove', 'host', 'web', 'xen03', '--yes')
        assert 'SR_DEVICE_IN_USE' in site.run(*remove, status=1).err
        found = json.loads(
            site.run('aggregate', 'audit', 'web', '-f', 'json').out
        )['web']['findings']
        told = [
            one['remedy']
            for one in found
            if one['check'] in ('local-storage', 'shared-storage')
            and one['severity'] == 'warn'
        ]
        assert sorted(told) == sorted(f"xe pbd-plug uuid={u}" for u in gone)
        for remedy in told:
            pbd = site.db.by_uuid('PBD', remedy.partition('uuid=')[2])
            site.db.set('PBD', pbd, currently_attached=True)
        assert site.audit()['local-storage']['severity'] == 'pass'


def test_management_that_moves_to_the_bond_is_not_told_as_lost(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with cli_lab.described(tmp_path / 'topology.yaml', BONDED) as lab:
        site = Site(
            lab, cli_lab.write_config(tmp_path / 'xenpool.conf', lab), capsys
        )
        site.run('aggregate', 'adopt', 'web', '--from', 'xen01')
        judged = json.loads(
            site.run('aggregate', 'check', 'web', 'xen03', '-f', 'json').out
        )
        # Under load the simulated clocks run apart between two readings.
        assert [
            one
            for one in judged['xen03']['findings']
            if one['severity'] != 'pass' and one['check'] != 'clocks'
        ] == []
        joined = site.run('aggregate', 'add', 'host', 'web', 'xen03')
        assert 'lost' not in joined.out + joined.err
        [moved] = [
            pif
            for pif in site.db.all('PIF').values()
            if pif['management']
            and site.db.get('host', pif['host'])['name_label'] == 'xen03'
        ]
        assert moved['device'] == 'bond0'


ADDRESSED = (
    BONDED.replace('hosts: [xen03]\n', '')
    + """
  - hosts: [xen03]
    records:
      - {class: PIF, device: eth1,
         set: {IP: 10.20.0.13, netmask: 255.255.255.0,
               ip_configuration_mode: Static}}
"""
)
"""The free host has an address for storage on a NIC that the pool bonds."""


def test_a_bond_that_addresses_forbid_is_told_before_and_found_after(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with cli_lab.described(tmp_path / 'topology.yaml', ADDRESSED) as lab:
        site = Site(
            lab, cli_lab.write_config(tmp_path / 'xenpool.conf', lab), capsys
        )
        site.run('aggregate', 'adopt', 'web', '--from', 'xen01')
        judged = json.loads(
            site.run('aggregate', 'check', 'web', 'xen03', '-f', 'json').out
        )
        [told] = [
            one
            for one in judged['xen03']['findings']
            if one['check'] == 'pool-bonds'
        ]
        assert told['severity'] == 'warn'
        assert 'eth1 10.20.0.13' in told['message']
        site.run('aggregate', 'add', 'host', 'web', 'xen03')

        [found] = [
            one
            for one in json.loads(
                site.run('aggregate', 'audit', 'web', '-f', 'json').out
            )['web']['findings']
            if one['check'] == 'bonds'
        ]
        assert found['severity'] == 'warn'
        assert "'xen03' lacks bond0" in found['message']
        (eth1,) = re.findall(
            'xe pif-reconfigure-ip uuid=([0-9a-f-]+) mode=none; '
            'xe-toolstack-restart',
            found['remedy'],
        )
        pif = site.db.get('PIF', site.db.by_uuid('PIF', eth1))
        assert (pif['device'], pif['IP']) == ('eth1', '10.20.0.13')
