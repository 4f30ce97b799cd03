# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A running VM's drives: plugged and unplugged (xapi_vbd_helpers.ml)."""

from __future__ import annotations

from xenpool_driver.simulator import (
    database,
    errors,
    machine,
    prechecks,
    registry,
    vm_states,
)

GOING = ('clean_shutdown', 'hard_shutdown', 'suspend', 'pause')
"""Operations on a VM during which its drives stay as they are."""


def _check(db: database.Database, ref: str, op: str) -> database.Record:
    """Return a VBD's record.

    :raises ApiError: why ``op`` cannot be done with it; the first reason
        counts, in XAPI's order.
    """
    vbd = db.get('VBD', ref)
    vm = db.get('VM', vbd['VM'])
    for task, current in vbd['current_operations'].items():
        raise errors.ApiError(
            'OTHER_OPERATION_IN_PROGRESS', 'VBD', ref, current, task
        )
    if op != 'plug' and not vbd['unpluggable']:
        raise errors.ApiError('VBD_NOT_UNPLUGGABLE', ref)
    state = vm['power_state']
    if state != vm_states.RUNNING:
        raise errors.ApiError(
            'VM_BAD_POWER_STATE', vbd['VM'], 'running', state.lower()
        )
    if op == 'plug' and vbd['currently_attached']:
        raise errors.ApiError('DEVICE_ALREADY_ATTACHED', ref)
    if op != 'plug' and not vbd['currently_attached']:
        raise errors.ApiError('DEVICE_ALREADY_DETACHED', ref)
    if op != 'unplug_force':
        _check_staying(vbd['VM'], vm)
    if vm['domain_type'] == 'hvm' and vbd['type'] == 'CD':
        raise errors.operation_not_allowed(
            'HVM CDROMs cannot be hotplugged/unplugged, only inserted or'
            ' ejected'
        )
    return vbd


def _check_staying(ref: str, vm: database.Record) -> None:
    for current in vm['current_operations'].values():
        if current in GOING:
            raise errors.operation_not_allowed(
                f'Current operation on VM:{ref} is {current}'
            )


def _check_sharing(
    db: database.Database, ref: str, vbd: database.Record
) -> None:
    """Refuse a disk that another VM writes, or that this one would write.

    Control domains share any disk.

    :raises ApiError: VDI_IN_USE, VDI_READONLY.
    """
    vdi = db.find('VDI', vbd['VDI'])
    if vdi is None:
        return
    others = [
        record['mode']
        for other, record in db.all('VBD').items()
        if record['VDI'] == vbd['VDI']
        and other != ref
        and record['currently_attached']
        and not db.get('VM', record['VM'])['is_control_domain']
    ]
    mine = db.get('VM', vbd['VM'])['is_control_domain']
    writes = vbd['mode'] == 'RW'
    taken = 'RW' in others or (writes and bool(others))
    if taken and not vdi['sharable'] and not mine:
        raise errors.ApiError('VDI_IN_USE', vbd['VDI'])
    if writes and vdi['read_only']:
        raise errors.ApiError('VDI_READONLY', vbd['VDI'])


def _on_host(call: registry.Call, vm: database.Record) -> None:
    target: machine.Machine = call.machine
    target.world.forward(target, vm['resident_on'])
    target.pause(target.world.timings.vm_operation)


@registry.message('VBD.plug')
def plug(call: registry.Call, self: str) -> None:
    """Give a running VM a drive."""
    db = call.db
    vbd = _check(db, self, 'plug')
    _check_sharing(db, self, vbd)
    vm = db.get('VM', vbd['VM'])
    control = prechecks.is_domain_zero(db, vbd['VM'], vm)
    hvm = vm['domain_type'] == 'hvm'
    if hvm and vbd['type'] != 'CD' and vbd['mode'] == 'RO':
        raise errors.ApiError('DISK_VBD_MUST_BE_READWRITE_FOR_HVM', self)
    _on_host(call, vm)
    db.set('VBD', self, currently_attached=True, device=_device(vbd, control))


def _device(vbd: database.Record, control: bool) -> str:
    """Return what the VM calls the drive.

    In a control domain it is a device of the host, elsewhere xvda and on.
    """
    number = vbd['userdevice']
    if control or not number.isdigit():
        return str(vbd['device'] or f'sm/backend/{number}')
    return f'xvd{chr(ord("a") + int(number) % 26)}'


@registry.message('VBD.unplug')
def unplug(call: registry.Call, self: str) -> None:
    """Take a drive from a running VM."""
    vbd = _check(call.db, self, 'unplug')
    _on_host(call, call.db.get('VM', vbd['VM']))
    call.db.set('VBD', self, currently_attached=False)


@registry.message('VBD.unplug_force')
def unplug_force(call: registry.Call, self: str) -> None:
    """Take a drive from a running VM, whatever that does with it."""
    vbd = _check(call.db, self, 'unplug_force')
    _on_host(call, call.db.get('VM', vbd['VM']))
    call.db.set('VBD', self, currently_attached=False)
