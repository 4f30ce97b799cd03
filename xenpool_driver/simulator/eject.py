# Licensed under the Apache License, Version 2.0; see LICENSE.
"""pool.eject: a member leaves, wipes itself and reboots.

The coordinator takes the pool operation and forwards the call; the victim
checks, lets go of its storage, wipes itself; the coordinator then deletes
its record (xapi_pool.ml: eject, eject_self). What the victim did up to a
failure stays done.
"""

from __future__ import annotations

import contextlib

from xenpool_driver.simulator import (
    database,
    errors,
    lifecycle,
    machine,
    operations,
    prechecks,
    registry,
    startup,
    storage,
)


@registry.message('pool.eject')
def eject(call: registry.Call, host: str) -> None:
    """Take ``host`` out of the pool; it loses all that is on its disks.

    A host that is not in the database counts as offline (recorded).
    """
    master: machine.Machine = call.machine
    call.set_cancellable()
    if not master.profile.guarded:
        _eject(call, master, host)
        return
    with operations.pool_operation(
        master, call.db, 'eject', call.task, call.check_cancelled
    ):
        _eject(call, master, host)


def _eject(call: registry.Call, master: machine.Machine, host: str) -> None:
    db = call.db
    if not db.exists(host, 'host'):
        raise errors.ApiError('HOST_OFFLINE', host)
    victim = master.world.forward(master, host)
    process = victim.process
    step = master.world.timings.eject / 3
    check(db, host)
    if victim.is_master:
        # It asks its own database, as one that has been replaced does until
        # it finds its successor.
        raise errors.internal_error('Xapi_pool.Cannot_eject_master')
    master.pause(step)
    release_storage(db, victim, host)
    master.pause(step)
    if victim.process is not process:
        raise errors.ApiError('CANNOT_CONTACT_HOST', host)
    wipe(victim, db)
    master.pause(step)
    forget_host(db, host)
    startup.level_cpus(db)


def check(db: database.Database, host: str) -> None:
    """Refuse what the victim refuses.

    :raises ApiError: with XAPI's own exception for the coordinator, which
        comes before all else.
    """
    pool = prechecks.only_pool(db)
    if pool['master'] == host:
        raise errors.internal_error('Xapi_pool.Cannot_eject_master')
    if pool['ha_enabled']:
        raise errors.ApiError('HA_IS_ENABLED')
    if 'apply_updates' in pool['current_operations'].values():
        raise errors.ApiError('NOT_SUPPORTED_DURING_UPGRADE')
    for ref, vm in db.all('VM').items():
        if vm['resident_on'] != host or vm['power_state'] == 'Halted':
            continue
        if not prechecks.is_domain_zero(db, ref, vm):
            raise errors.operation_not_allowed('VM resident on host')


def release_storage(
    db: database.Database, victim: machine.Machine, host: str
) -> None:
    """Unplug all storage, then forget what only the victim had.

    :raises ApiError: from the first that does not let go; those before it
        stay unplugged.
    """
    pbds = [r for r, p in db.all('PBD').items() if p['host'] == host]
    lost = [
        sr
        for sr in {db.get('PBD', ref)['SR'] for ref in pbds}
        if db.exists(sr, 'SR') and len(db.get('SR', sr)['PBDs']) == 1
    ]
    for ref in pbds:
        storage.unplug(db, ref)
    for sr in sorted(lost):
        storage.forget(db, sr)


def wipe(victim: machine.Machine, db: database.Database) -> None:
    """Destroy what the victim knows of the pool; light the reboot fuse.

    Its password stays the pool's, its uuid stays its own.
    """
    host = db.by_uuid('host', victim.uuid)
    for ref, vm in db.all('VM').items():
        if vm['is_control_domain'] and vm['resident_on'] == host:
            db.delete('VM', ref)
    with victim.world.lock:
        victim.forget_installation()
    lifecycle.light_reboot_fuse(victim, victim.world.timings.fuse)


def forget_host(db: database.Database, host: str) -> None:
    """Delete the host's record and certificates; GC gets the rest."""
    with db.lock:
        for ref, record in db.all('Certificate').items():
            if record['host'] == host:
                db.delete('Certificate', ref)
        for ref, vm in db.all('VM').items():
            changes = {
                field: errors.NULL
                for field in ('affinity', 'scheduled_to_be_resident_on')
                if vm[field] == host
            }
            if changes:
                db.set('VM', ref, **changes)
        with contextlib.suppress(errors.ApiError):
            db.delete('host', host)
