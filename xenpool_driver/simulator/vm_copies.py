# Licensed under the Apache License, Version 2.0; see LICENSE.
"""VM.clone, VM.copy and VM.snapshot: records like those that are there.

What xapi_vm_clone.ml does to records. Disks have no content here, so that
all three copy the same: a disk's record.
"""

from __future__ import annotations

import typing

from xenpool_driver.simulator import (
    clock,
    database,
    errors,
    registry,
    storage,
    vm_states,
)

NULL = errors.NULL

OWNER = 'owner'
"""Key of VBD.other_config: the disk goes when its VM does."""

NOT_COPIED = {
    'uuid',
    'VBDs',
    'VIFs',
    'VGPUs',
    'VUSBs',
    'VTPMs',
    'consoles',
    'crash_dumps',
    'snapshots',
    'children',
    'attached_PCIs',
    'current_operations',
    'allowed_operations',
    'blocked_operations',
    'blobs',
    'groups',
    'appliance',
    'protection_policy',
    'snapshot_schedule',
    'start_delay',
    'shutdown_delay',
    'order',
    'suspend_VDI',
    'suspend_SR',
    'guest_metrics',
    'resident_on',
    'scheduled_to_be_resident_on',
    'domid',
    'domarch',
    'version',
    'transportable_snapshot_id',
    'ha_always_run',
    'requires_reboot',
    'pending_guidances',
    'recommended_guidances',
    'pending_guidances_recommended',
    'pending_guidances_full',
}
"""Fields of a VM that its copy has of its own."""


@registry.message('VM.clone')
def clone(call: registry.Call, vm: str, new_name: str) -> str:
    """Make a VM like another one, quickly."""
    return _copy(call, vm, new_name, 'clone')


@registry.message('VM.copy')
def copy(call: registry.Call, vm: str, new_name: str, sr: str) -> str:
    """Make a VM like another one, its disks on ``sr`` or where they are."""
    found = call.db.find('SR', sr)
    if found is not None and found['content_type'] == 'iso':
        raise errors.operation_not_allowed(
            "Cannot copy a VM's disks to an ISO SR"
        )
    return _copy(call, vm, new_name, 'copy', sr=sr if found else None)


@registry.message('VM.snapshot')
def snapshot(
    call: registry.Call, vm: str, new_name: str, ignore_vdis: list[str]
) -> str:
    """Keep a VM as it is now, as a template of its own kind."""
    return _copy(call, vm, new_name, 'snapshot', ignored=ignore_vdis)


def _copy(
    call: registry.Call,
    ref: str,
    name: str,
    op: str,
    *,
    sr: str | None = None,
    ignored: typing.Sequence[str] = (),
) -> str:
    """Copy a VM's record, its disks' and its interfaces'.

    :param sr: where the copies of the disks go; None: beside the originals.
    :param ignored: disks that are left out.
    """
    db = call.db
    call.set_cancellable()
    with vm_states.operation(call, ref, op) as vm:
        for vbd in vm['VBDs']:
            disk = db.find('VDI', db.get('VBD', vbd)['VDI'])
            if disk is not None and disk['SR'] != NULL:
                storage.assert_attached(db, sr or disk['SR'])
        call.machine.pause(call.machine.world.timings.vm_operation)
        call.check_cancelled()
        with db.lock:
            made = _copy_record(db, ref, vm, name, op)
            for vbd in reversed(vm['VBDs']):
                if db.get('VBD', vbd)['VDI'] not in ignored:
                    _copy_drive(db, vbd, made, op, sr)
            for vif in reversed(vm['VIFs']):
                _copy_interface(db, vif, made, op)
            if op == 'snapshot':
                db.set('VM', ref, parent=made)
            vm_states.refresh(db, made)
        return made


def _copy_record(
    db: database.Database, ref: str, vm: database.Record, name: str, op: str
) -> str:
    is_snapshot = op == 'snapshot'
    suspended = vm['power_state'] == vm_states.SUSPENDED and not is_snapshot
    metrics = db.find('VM_metrics', vm['metrics']) or {}
    fields = {k: v for k, v in vm.items() if k not in NOT_COPIED}
    fields |= {
        'name_label': name,
        'power_state': 'Suspended' if suspended else 'Halted',
        'domid': -1,
        'is_a_template': is_snapshot or vm['is_a_template'],
        'is_default_template': False,
        'is_a_snapshot': is_snapshot,
        'snapshot_of': ref if is_snapshot else NULL,
        'snapshot_time': db.clock.iso() if is_snapshot else clock.EPOCH_ISO,
        'snapshot_info': _info(vm) if is_snapshot else {},
        'snapshot_metadata': '',
        'parent': vm['parent'] if is_snapshot else NULL,
        'other_config': _config(db, vm, is_snapshot),
        'metrics': db.create(
            'VM_metrics', {k: v for k, v in metrics.items() if k != 'uuid'}
        ),
    }
    return db.create('VM', fields)


def _info(vm: database.Record) -> dict[str, str]:
    return {
        'disk-snapshot-type': 'crash_consistent',
        'power-state-at-snapshot': vm['power_state'],
    }


def _config(
    db: database.Database, vm: database.Record, is_snapshot: bool
) -> dict[str, str]:
    """Return other_config: another seed of MACs, no mark of a default one."""
    config = dict(vm['other_config'])
    if not is_snapshot:
        config['mac_seed'] = db.new_uuid()
    for key in ('default_template', 'xensource_internal'):
        config.pop(key, None)
    if vm['is_a_template']:
        config.setdefault('base_template_name', vm['name_label'])
    return config


def _copy_drive(
    db: database.Database, ref: str, vm: str, op: str, sr: str | None
) -> None:
    """Copy a VBD; a disk behind it is copied, a CD is shared."""
    record = db.get('VBD', ref)
    fields = {
        k: v
        for k, v in record.items()
        if k not in ('uuid', 'current_operations', 'allowed_operations')
    }
    config = dict(record['other_config'])
    if record['type'] == 'Disk':
        config.setdefault(OWNER, '')
        if db.exists(record['VDI'], 'VDI'):
            fields['VDI'] = _copy_disk(db, record['VDI'], op, sr)
    fields |= {
        'VM': vm,
        'other_config': config,
        'currently_attached': False,
        'metrics': NULL,
    }
    db.create('VBD', fields)


def _copy_disk(
    db: database.Database, ref: str, op: str, sr: str | None
) -> str:
    record = db.get('VDI', ref)
    lost = {
        'uuid',
        'VBDs',
        'snapshots',
        'crash_dumps',
        'current_operations',
        'location',
    }
    is_snapshot = op == 'snapshot'
    uuid = db.new_uuid()
    return db.create(
        'VDI',
        {
            **{k: v for k, v in record.items() if k not in lost},
            'SR': sr or record['SR'],
            'location': uuid,
            'is_a_snapshot': is_snapshot,
            'snapshot_of': ref if is_snapshot else NULL,
            'snapshot_time': (
                db.clock.iso() if is_snapshot else clock.EPOCH_ISO
            ),
        },
        uuid=uuid,
    )


def _copy_interface(db: database.Database, ref: str, vm: str, op: str) -> None:
    """Copy a VIF; only a snapshot's keeps the MAC."""
    fields = {
        k: v
        for k, v in db.get('VIF', ref).items()
        if k not in ('uuid', 'current_operations', 'allowed_operations')
    }
    if op != 'snapshot':
        octets = [db.rng.randrange(256) for _ in range(5)]
        fields['MAC'] = ':'.join(f'{o:02x}' for o in (0x92, *octets))
        fields['MAC_autogenerated'] = True
    fields |= {
        'VM': vm,
        'currently_attached': False,
        'metrics': NULL,
    }
    db.create('VIF', fields)
