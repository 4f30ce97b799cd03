# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Storage repositories, their disks, and the hosts' connections to them."""

from __future__ import annotations

import typing

from xenpool_driver.simulator import (
    database,
    defaults,
    errors,
    machine,
    registry,
    startup,
    world,
)


def disks_in_use(db: database.Database, pbd: database.Record) -> list[str]:
    """Return the disks that guests on that host have attached."""
    found = []
    for vbd in db.all('VBD').values():
        vm = db.find('VM', vbd['VM'])
        vdi = db.find('VDI', vbd['VDI'])
        if vm is None or vdi is None or not vbd['currently_attached']:
            continue
        if vm['resident_on'] == pbd['host'] and vdi['SR'] == pbd['SR']:
            found.append(str(vbd['VDI']))
    return found


def unplug(db: database.Database, ref: str) -> None:
    """Disconnect a host from an SR.

    :raises ApiError: VDI_IN_USE naming the disks in the way; HA_IS_ENABLED
        when HA's state file is there.
    """
    pbd = db.get('PBD', ref)
    if not pbd['currently_attached']:
        return
    check_statefile(db, pbd['SR'])
    used = disks_in_use(db, pbd)
    if used:
        raise errors.ApiError('VDI_IN_USE', *used)
    db.set('PBD', ref, currently_attached=False)


def check_statefile(db: database.Database, sr: str) -> None:
    """Refuse to touch an SR that HA relies on."""
    for pool in db.all('pool').values():
        if not pool['ha_enabled']:
            continue
        for ref in pool['ha_statefiles']:
            vdi = db.find('VDI', ref)
            if vdi is not None and vdi['SR'] == sr:
                raise errors.ApiError('HA_IS_ENABLED')


def forget(db: database.Database, sr: str) -> None:
    """Remove an SR and its disks' records; nothing is deleted on disk.

    :raises ApiError: SR_HAS_PBD while a host is connected.
    """
    record = db.get('SR', sr)
    check_statefile(db, sr)
    if any(db.get('PBD', pbd)['currently_attached'] for pbd in record['PBDs']):
        raise errors.ApiError('SR_HAS_PBD', sr)
    with db.lock:
        for pbd in list(record['PBDs']):
            db.delete('PBD', pbd)
        for vdi in list(record['VDIs']):
            db.delete('VDI', vdi)
        for ref, pool in db.all('pool').items():
            dangling = {
                field: errors.NULL
                for field in ('default_SR', 'crash_dump_SR')
                if pool[field] == sr and field != 'default_SR'
            }
            if dangling:
                db.set('pool', ref, **dangling)
        db.delete('SR', sr)


def _pause(call: registry.Call) -> None:
    call.machine.pause(call.machine.world.timings.storage_operation)


@registry.message('PBD.plug')
def pbd_plug(call: registry.Call, self: str) -> None:
    """Connect a host to an SR."""
    db = call.db
    pbd = db.get('PBD', self)
    host = pbd['host']
    _on_host(call, host)
    _pause(call)
    if not startup.can_plug(pbd):
        raise errors.ApiError(
            'SR_BACKEND_FAILURE_47',
            '',
            'The SR is not available [opterr=no such path]',
            '',
        )
    db.set('PBD', self, currently_attached=True)


@registry.message('PBD.unplug')
def pbd_unplug(call: registry.Call, self: str) -> None:
    """Disconnect a host from an SR."""
    db = call.db
    _on_host(call, db.get('PBD', self)['host'])
    _pause(call)
    unplug(db, self)


@registry.message('PBD.destroy')
def pbd_destroy(call: registry.Call, self: str) -> None:
    """Remove an unplugged connection."""
    db = call.db
    if db.get('PBD', self)['currently_attached']:
        raise errors.operation_not_allowed('PBD is currently attached')
    db.delete('PBD', self)


def _on_host(call: registry.Call, host: str) -> machine.Machine:
    """Forward a call to the host it concerns."""
    target: machine.Machine = call.machine
    if not target.is_master:
        return target
    where: world.World = target.world
    return where.forward(target, host)


@registry.message('SR.introduce')
def introduce(
    call: registry.Call,
    uuid: str,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    """Make an SR that exists on disk known to the pool."""
    db = call.db
    if uuid and uuid in db.table('SR').by_uuid:
        raise errors.ApiError('SR_UUID_EXISTS', uuid)
    return defaults.create_sr(
        db,
        name_label,
        type,
        -1,
        name_description=name_description,
        content_type=content_type,
        shared=shared,
        sm_config=dict(sm_config),
        **({'uuid': uuid} if uuid else {}),
    )


@registry.message('SR.create')
def create(
    call: registry.Call,
    host: str,
    device_config: dict[str, str],
    physical_size: int,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    """Make a new SR and connect it: one host, or all of them."""
    db = call.db
    db.get('host', host)
    if not any(sm['type'] == type for sm in db.all('SM').values()):
        raise errors.ApiError('SR_UNKNOWN_DRIVER', type)
    _pause(call)
    sr = defaults.create_sr(
        db,
        name_label,
        type,
        physical_size,
        name_description=name_description,
        content_type=content_type or 'user',
        shared=shared,
        sm_config=dict(sm_config),
    )
    for target in db.refs('host') if shared else [host]:
        defaults.plug(db, target, sr, dict(device_config))
    return sr


@registry.message('SR.forget')
def sr_forget(call: registry.Call, sr: str) -> None:
    """Make the pool forget an SR."""
    _pause(call)
    forget(call.db, sr)


@registry.message('SR.destroy')
def sr_destroy(call: registry.Call, sr: str) -> None:
    """Wipe an SR off the disk."""
    _pause(call)
    forget(call.db, sr)


@registry.message('SR.scan')
def sr_scan(call: registry.Call, sr: str) -> None:
    """Look what is on an SR: what was there before."""
    assert_attached(call.db, sr)
    _pause(call)


@registry.message('SR.update')
def sr_update(call: registry.Call, sr: str) -> None:
    """Look how full an SR is: as full as it was."""
    assert_attached(call.db, sr)


def assert_attached(db: database.Database, sr: str) -> None:
    """Refuse an SR to which no host is connected.

    :raises ApiError: SR_NO_PBDS.
    """
    record = db.get('SR', sr)
    if not any(
        db.get('PBD', pbd)['currently_attached'] for pbd in record['PBDs']
    ):
        raise errors.ApiError('SR_NO_PBDS', sr)


@registry.message('SR.get_supported_types')
def get_supported_types(call: registry.Call) -> list[str]:
    """Return the types that the pool has drivers for."""
    return sorted({str(sm['type']) for sm in call.db.all('SM').values()})


def _setter(field: str) -> typing.Callable[..., None]:
    def setter(call: registry.Call, sr: str, value: typing.Any) -> None:
        call.db.set('SR', sr, **{field: value})

    return setter


for _field in ('name_label', 'name_description', 'shared'):
    registry.message(f'SR.set_{_field}')(_setter(_field))
