# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What stock clients do with guests, call by call, over a plain session.

Ansible's modules for XenServer read a guest with all that hangs on it, switch
its power by synchronous calls or by tasks, and wait until it has an address.
Tools of compute services copy guests, and plug disks into their own domain.
"""

from __future__ import annotations

import collections.abc
import pathlib
import textwrap
import time
import typing

import pytest
import XenAPI

from tests.functional import driver_lab
from xenpool_driver.simulator import simulation

NULL = 'OpaqueRef:NULL'

POOL = """
    pools:
      - hosts: [xen01, xen02]
        srs: [{name: nfs1, type: nfs, shared: true}]
        vms:
          - {name: web, host: xen02, power_state: Running, memory_gib: 1,
             disks: [{sr: nfs1}], networks: [lan]}
"""


@pytest.fixture(name='api')
def _api(tmp_path: pathlib.Path) -> collections.abc.Iterator[typing.Any]:
    path = tmp_path / 'pool.yaml'
    path.write_text(textwrap.dedent(POOL))
    with simulation.Simulation(
        topology_file=path,
        address=driver_lab.address(),
        port=0,
        http_port=0,
        time_scale=50,
        seed=1,
    ) as running:
        session = XenAPI.Session(running.hosts[0].http_url)
        session.login_with_password('root', 'xenroot', '1.0', 'Ansible')
        yield session.xenapi
        session.logout()
        session('close')()


def guest(api: typing.Any, name: str = 'web') -> str:
    (ref,) = api.VM.get_by_name_label(name)
    return str(ref)


def wait(api: typing.Any, task: str) -> str:
    """Wait for a task as clients do; return its result."""
    while api.task.get_status(task) == 'pending':
        time.sleep(0.01)
    status, result = api.task.get_status(task), api.task.get_result(task)
    assert status == 'success', api.task.get_error_info(task)
    api.task.destroy(task)
    return str(result)


def facts(api: typing.Any, vm: str) -> dict[str, typing.Any]:
    """Read a guest and all that hangs on it."""
    record = api.VM.get_record(vm)
    drives = [api.VBD.get_record(ref) for ref in record['VBDs']]
    disks = [api.VDI.get_record(drive['VDI']) for drive in drives]
    vifs = [api.VIF.get_record(ref) for ref in record['VIFs']]
    told = record['guest_metrics']
    metrics = {} if told == NULL else api.VM_guest_metrics.get_record(told)
    return {
        'state': record['power_state'],
        'devices': [drive['userdevice'] for drive in drives],
        'storage': [api.SR.get_name_label(disk['SR']) for disk in disks],
        'networks': [api.network.get_name_label(v['network']) for v in vifs],
        'addresses': metrics.get('networks', {}),
        'home': api.host.get_name_label(record['affinity']),
    }


def test_a_guest_is_read_with_all_that_hangs_on_it(api: typing.Any) -> None:
    found = facts(api, guest(api))
    assert found['addresses'].pop('0/ip').startswith('192.0.2.')
    assert found == {
        'state': 'Running',
        'devices': ['0'],
        'storage': ['nfs1'],
        'networks': ['lan'],
        'addresses': {},
        'home': 'xen02',
    }


def test_its_power_is_switched(api: typing.Any) -> None:
    vm = guest(api)

    def state() -> str:
        return str(api.VM.get_power_state(vm))

    api.VM.suspend(vm)
    assert state() == 'Suspended'
    api.VM.resume(vm, False, False)
    api.VM.pause(vm)
    api.VM.unpause(vm)
    assert state() == 'Running'
    before = api.VM.get_domid(vm)
    api.VM.hard_reboot(vm)
    api.VM.clean_reboot(vm)
    wait(api, api.Async.VM.clean_reboot(vm))
    assert state() == 'Running' and api.VM.get_domid(vm) != before
    wait(api, api.Async.VM.clean_shutdown(vm))
    assert state() == 'Halted'
    api.VM.start(vm, False, False)
    assert '0/ip' in facts(api, vm)['addresses']
    api.VM.hard_shutdown(vm)
    assert state() == 'Halted'
    with pytest.raises(XenAPI.Failure) as caught:
        api.VM.clean_reboot(vm)
    assert caught.value.details[:2] == ['VM_BAD_POWER_STATE', vm]


def test_it_is_copied_and_the_copies_go(api: typing.Any) -> None:
    vm = guest(api)
    (sr,) = api.SR.get_by_name_label('nfs1')
    snapshot = api.VM.snapshot(vm, 'before')
    assert api.VM.get_is_a_snapshot(snapshot)
    from_snapshot = api.VM.clone(snapshot, 'from snapshot')
    assert api.VM.get_is_a_template(from_snapshot)
    api.VM.clean_shutdown(vm)
    result = wait(api, api.Async.VM.copy(vm, 'copy', sr))
    assert api.VM.get_name_label(result.split('>')[1].split('<')[0]) == 'copy'
    made = [snapshot, from_snapshot, guest(api, 'copy')]
    disks = len(api.SR.get_VDIs(sr))
    for ref in made:
        for drive in api.VM.get_VBDs(ref):
            api.VDI.destroy(api.VBD.get_VDI(drive))
        api.VM.destroy(ref)
    assert len(api.SR.get_VDIs(sr)) == disks - 3
    assert api.VM.get_by_name_label('copy') == []


def test_a_disk_is_plugged_into_the_hosts_own_domain(
    api: typing.Any,
) -> None:
    vm = guest(api)
    api.VM.hard_shutdown(vm)
    (drive,) = api.VM.get_VBDs(vm)
    (host,) = api.host.get_by_name_label('xen01')
    own = api.VBD.create(
        {
            'VM': api.host.get_control_domain(host),
            'VDI': api.VBD.get_VDI(drive),
            'userdevice': 'autodetect',
            'bootable': False,
            'mode': 'RW',
            'type': 'Disk',
            'unpluggable': True,
            'empty': False,
            'other_config': {},
            'qos_algorithm_type': '',
            'qos_algorithm_params': {},
        }
    )
    api.VBD.plug(own)
    assert api.VBD.get_currently_attached(own)
    assert api.VBD.get_device(own)
    api.VBD.unplug(own)
    api.VBD.destroy(own)
    assert api.VM.get_VBDs(vm) == [drive]
