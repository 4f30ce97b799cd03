# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Guests of the simulator: what they allow, and how they are copied."""

from __future__ import annotations

import pathlib
import textwrap
import typing

import pytest

from tests import manual_world
from xenpool_driver.simulator import (
    build,
    database,
    datamodel,
    drives,
    errors,
    gc,
    join,
    machine,
    mishaps,
    prechecks,
    topology,
    vm_copies,
    vm_states,
    vms,
)

POOL = """
    pools:
      - hosts: [xen01, xen02]
        srs: [{name: nfs1, type: nfs, shared: true}]
        vms:
          - {name: web, host: xen02, power_state: Running, memory_gib: 1,
             disks: [{sr: nfs1}], networks: [lan]}
          - {name: idle, disks: [{sr: nfs1}]}
"""

Record = dict[str, typing.Any]

# Recorded: VMs of historic pools that a real XAPI served (without what they
# do not depend on).
HALTED_IN_APPLIANCE = [
    'create_vtpm',
    'destroy',
    'metadata_export',
    'export',
    'changing_NVRAM',
    'changing_shadow_memory',
    'changing_static_range',
    'changing_dynamic_range',
    'migrate_send',
    'start_on',
    'start',
    'copy',
    'clone',
    'snapshot',
]
DEFAULT_TEMPLATE = [
    'metadata_export',
    'export',
    'changing_NVRAM',
    'changing_shadow_memory',
    'changing_static_range',
    'changing_dynamic_range',
    'provision',
    'copy',
    'clone',
]
OWN_TEMPLATE = [
    'destroy',
    'metadata_export',
    'export',
    'changing_NVRAM',
    'changing_shadow_memory',
    'changing_static_range',
    'changing_dynamic_range',
    'migrate_send',
    'provision',
    'copy',
    'clone',
]
DOM0 = ['metadata_export', 'changing_static_range', 'changing_dynamic_range']
DOM0_JUST_JOINED = [
    'destroy',
    'metadata_export',
    'changing_static_range',
    'changing_dynamic_range',
    'start_on',
    'start',
]


@pytest.fixture(name='one')
def _one(tmp_path: pathlib.Path) -> machine.Machine:
    path = tmp_path / 'topology.yaml'
    path.write_text(textwrap.dedent(POOL))
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    topology.load(where, path, build.addresses('127.30.7.1'), 'xenroot')
    gc.start(where)
    return where.machines[0]


def db_of(target: machine.Machine) -> database.Database:
    assert target.db is not None
    return target.db


def ref_of(target: machine.Machine, name: str) -> str:
    return next(
        ref
        for ref, vm in db_of(target).all('VM').items()
        if vm['name_label'] == name
    )


def vm_of(target: machine.Machine, name: str) -> Record:
    return db_of(target).get('VM', ref_of(target, name))


def call(target: machine.Machine) -> manual_world.Call:
    return manual_world.Call(target)


def refused(
    function: typing.Callable[..., object], *args: object
) -> list[str]:
    with pytest.raises(errors.ApiError) as caught:
        function(*args)
    return caught.value.details


class TestAllowedOperations:
    def test_of_recorded_vms(self, one: machine.Machine) -> None:
        db, idle = db_of(one), ref_of(one, 'idle')
        db.set('VM', idle, appliance=db.create('VM_appliance', {}))
        assert vm_states.allowed(db, idle) == HALTED_IN_APPLIANCE
        db.set('VM', idle, appliance=errors.NULL, is_a_template=True)
        assert vm_states.allowed(db, idle) == OWN_TEMPLATE
        db.set('VM', idle, is_default_template=True)
        assert vm_states.allowed(db, idle) == DEFAULT_TEMPLATE

    def test_of_control_domains(self, one: machine.Machine) -> None:
        db = db_of(one)
        mine = db.get('host', one.me)['control_domain']
        assert db.get('VM', mine)['allowed_operations'] == DOM0
        where = one.world
        [joiner] = build.standalone(where, 1, '127.30.7.9', 'xenroot')
        join.join(call(joiner), one.address, 'root', 'xenroot')
        uuid = joiner.hardware.dom0_uuid
        pushed = db.get('VM', db.by_uuid('VM', uuid))
        assert pushed['allowed_operations'] == DOM0_JUST_JOINED

    def test_they_follow_a_guests_life(self, one: machine.Machine) -> None:
        db, web = db_of(one), ref_of(one, 'web')
        record = db.get('VM', web)
        assert {'clean_reboot', 'hard_reboot', 'pool_migrate', 'suspend'} < (
            set(record['allowed_operations'])
        )
        vms.pause(call(one), web)
        assert 'unpause' in record['allowed_operations']
        vms.unpause(call(one), web)
        vms.clean_shutdown(call(one), web)
        assert 'start' in record['allowed_operations']
        assert 'clean_shutdown' not in record['allowed_operations']
        vms.set_is_a_template(call(one), web, True)
        assert refused(vms.start, call(one), web, False, False) == [
            'VM_IS_TEMPLATE',
            web,
            'start',
        ]
        vms.set_is_a_template(call(one), web, False)
        vms.start(call(one), web, False, False)
        assert not db.get('VM', web)['current_operations']
        assert 'start' not in record['allowed_operations']

    def test_whatever_is_listed_is_a_member_of_the_enum(self) -> None:
        known = datamodel.load().enums['vm_operations']
        assert set(vm_states.STATES) <= set(known)

    def test_a_guest_that_a_dead_host_leaves_behind(
        self, one: machine.Machine
    ) -> None:
        two = one.world.machines[1]
        mishaps.kill(two)
        mishaps.power_on(two)
        one.world.clock.advance(60)
        web = vm_of(one, 'web')
        assert web['power_state'] == 'Halted'
        assert 'start' in web['allowed_operations']


class TestReboots:
    @pytest.mark.parametrize('reboot', [vms.clean_reboot, vms.hard_reboot])
    def test_a_guest_runs_in_a_new_domain(
        self,
        one: machine.Machine,
        reboot: typing.Callable[..., None],
    ) -> None:
        before = dict(vm_of(one, 'web'))
        reboot(call(one), ref_of(one, 'web'))
        after = vm_of(one, 'web')
        assert after['power_state'] == 'Running'
        assert after['resident_on'] == before['resident_on']
        assert after['domid'] != before['domid']

    def test_only_what_runs_is_rebooted(self, one: machine.Machine) -> None:
        idle, web = ref_of(one, 'idle'), ref_of(one, 'web')
        assert refused(vms.clean_reboot, call(one), idle) == [
            'VM_BAD_POWER_STATE',
            idle,
            'running',
            'halted',
        ]
        assert refused(vms.hard_reboot, call(one), idle) == [
            'VM_BAD_POWER_STATE',
            idle,
            'paused, running',
            'halted',
        ]
        vms.pause(call(one), web)
        vms.hard_reboot(call(one), web)
        assert vm_of(one, 'web')['power_state'] == 'Running'


class TestCopies:
    def drives(self, one: machine.Machine, ref: str) -> list[Record]:
        db = db_of(one)
        return [db.get('VBD', vbd) for vbd in db.get('VM', ref)['VBDs']]

    def test_a_clone_is_a_vm_of_its_own(self, one: machine.Machine) -> None:
        db, web = db_of(one), ref_of(one, 'web')
        assert refused(vm_copies.clone, call(one), web, 'two')[0] == (
            'VM_BAD_POWER_STATE'
        )
        vms.hard_shutdown(call(one), web)
        made = vm_copies.clone(call(one), web, 'two')
        record, old = db.get('VM', made), db.get('VM', web)
        assert record['name_label'] == 'two'
        assert record['uuid'] != old['uuid']
        assert record['power_state'] == 'Halted'
        assert not record['is_a_template'] and not record['is_a_snapshot']
        assert record['metrics'] != old['metrics']
        [drive], [source] = self.drives(one, made), self.drives(one, web)
        assert drive['VDI'] != source['VDI']
        assert drive['other_config']['owner'] == ''
        disk, first = (db.get('VDI', each['VDI']) for each in (drive, source))
        assert (disk['SR'], disk['virtual_size']) == (
            first['SR'],
            first['virtual_size'],
        )
        mac = {db.get('VIF', v['VIFs'][0])['MAC'] for v in (record, old)}
        assert len(mac) == 2
        vms.start(call(one), made, False, False)
        assert db.get('VM', made)['power_state'] == 'Running'

    def test_a_copy_can_lie_elsewhere(self, one: machine.Machine) -> None:
        db, idle = db_of(one), ref_of(one, 'idle')
        local = next(
            ref
            for ref, sr in db.all('SR').items()
            if sr['name_label'] == 'Local storage'
        )
        made = vm_copies.copy(call(one), idle, 'moved', local)
        [drive] = self.drives(one, made)
        assert db.get('VDI', drive['VDI'])['SR'] == local
        beside = vm_copies.copy(call(one), idle, 'same', errors.NULL)
        [drive] = self.drives(one, beside)
        assert db.get('SR', db.get('VDI', drive['VDI'])['SR'])[
            'name_label'
        ] == ('nfs1')
        tools = next(
            ref for ref, sr in db.all('SR').items() if sr['is_tools_sr']
        )
        assert refused(vm_copies.copy, call(one), idle, 'x', tools) == [
            'OPERATION_NOT_ALLOWED',
            "Cannot copy a VM's disks to an ISO SR",
        ]

    def test_a_snapshot_of_a_running_guest(self, one: machine.Machine) -> None:
        db, web = db_of(one), ref_of(one, 'web')
        made = vm_copies.snapshot(call(one), web, 'before', [])
        record = db.get('VM', made)
        assert record['is_a_snapshot'] and record['is_a_template']
        assert record['snapshot_of'] == web
        assert db.get('VM', web)['snapshots'] == [made]
        assert db.get('VM', web)['parent'] == made
        assert record['snapshot_info'] == {
            'disk-snapshot-type': 'crash_consistent',
            'power-state-at-snapshot': 'Running',
        }
        assert record['snapshot_time'] != '19700101T00:00:00Z'
        [drive] = self.drives(one, made)
        disk = db.get('VDI', drive['VDI'])
        assert disk['is_a_snapshot']
        assert disk['snapshot_of'] == self.drives(one, web)[0]['VDI']
        assert db.get('VM', web)['power_state'] == 'Running'
        assert set(record['allowed_operations']) == {
            'clone',
            'copy',
            'destroy',
            'export',
            'metadata_export',
            'revert',
        }
        assert refused(vms.start, call(one), made, False, False)[0] == (
            'VM_IS_SNAPSHOT'
        )
        vms.destroy(call(one), made)
        assert db.get('VM', web)['parent'] == errors.NULL

    def test_disks_can_be_left_out(self, one: machine.Machine) -> None:
        web = ref_of(one, 'web')
        disk = self.drives(one, web)[0]['VDI']
        made = vm_copies.snapshot(call(one), web, 'empty', [disk])
        assert not self.drives(one, made)


class TestDrives:
    def drive(self, one: machine.Machine, name: str) -> str:
        return str(vm_of(one, name)['VBDs'][0])

    def test_a_drive_is_plugged_and_unplugged(
        self, one: machine.Machine
    ) -> None:
        db, drive = db_of(one), self.drive(one, 'web')
        assert refused(drives.plug, call(one), drive) == [
            'DEVICE_ALREADY_ATTACHED',
            drive,
        ]
        db.set('VBD', drive, unpluggable=False)
        assert refused(drives.unplug, call(one), drive) == [
            'VBD_NOT_UNPLUGGABLE',
            drive,
        ]
        db.set('VBD', drive, unpluggable=True)
        drives.unplug(call(one), drive)
        assert not db.get('VBD', drive)['currently_attached']
        assert refused(drives.unplug, call(one), drive) == [
            'DEVICE_ALREADY_DETACHED',
            drive,
        ]
        drives.plug(call(one), drive)
        assert db.get('VBD', drive)['currently_attached']
        assert db.get('VBD', drive)['device'] == 'xvda'

    def test_a_guest_that_is_off_plugs_nothing(
        self, one: machine.Machine
    ) -> None:
        drive = self.drive(one, 'idle')
        assert refused(drives.plug, call(one), drive) == [
            'VM_BAD_POWER_STATE',
            ref_of(one, 'idle'),
            'running',
            'halted',
        ]

    def test_a_disk_that_another_guest_writes(
        self, one: machine.Machine
    ) -> None:
        """A control domain may have it all the same."""
        db = db_of(one)
        disk = db.get('VBD', self.drive(one, 'idle'))['VDI']
        taken = db.get('VBD', self.drive(one, 'web'))['VDI']
        vms.start(call(one), ref_of(one, 'idle'), False, False)
        fields = {'mode': 'RW', 'type': 'Disk', 'userdevice': '1'}
        second = db.create(
            'VBD', {**fields, 'VM': ref_of(one, 'idle'), 'VDI': taken}
        )
        assert refused(drives.plug, call(one), second) == [
            'VDI_IN_USE',
            taken,
        ]
        mine = db.get('host', one.me)['control_domain']
        own = db.create('VBD', {**fields, 'VM': mine, 'VDI': disk})
        drives.plug(call(one), own)
        assert db.get('VBD', own)['currently_attached']


def enums_in(db: database.Database) -> list[str]:
    """Return the fields whose value is no member of their enum."""
    model = datamodel.load()
    wrong = []
    for table in db.tables():
        fields = model.classes[table.cls].fields
        for row in table.rows.values():
            for name, value in row.record.items():
                kind = fields[name].type
                if kind.kind == 'set' and kind.of is not None:
                    kind, found = kind.of, value
                else:
                    found = [value]
                if kind.kind != 'enum':
                    continue
                known = model.enums[kind.name]
                wrong += [
                    f'{table.cls}.{name} {each!r}'
                    for each in found
                    if each not in known
                ]
    return sorted(set(wrong))


def test_a_record_that_was_read_can_be_created_again(
    one: machine.Machine,
) -> None:
    """Every value of an enum is one of its members."""
    vms.pause(call(one), ref_of(one, 'web'))
    vm_copies.snapshot(call(one), ref_of(one, 'web'), 'kept', [])
    db = db_of(one)
    assert enums_in(db) == []
    web = vm_of(one, 'web')
    assert (web['actions_after_shutdown'], web['actions_after_crash']) == (
        'destroy',
        'restart',
    )
    settable = {
        name: web[name]
        for name, field in datamodel.load().classes['VM'].fields.items()
        if field.qualifier != 'DynamicRO' and name != 'uuid'
    }
    again = vms.create(call(one), {**settable, 'power_state': 'Halted'})
    made = db.get('VM', again)
    assert 'start' in made['allowed_operations']
    assert db.exists(made['metrics'], 'VM_metrics')
    assert not prechecks.is_domain_zero(db, again, made)
