# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Where a host's guests could go: the plan behind host.evacuate.

As compute_evacuation_plan_no_wlb (xapi_host.ml) plans it: every guest must
be able to run on every enabled host, then memory is packed, first fit.
"""

from __future__ import annotations

import typing

from xenpool_driver.simulator import database, errors

Record = dict[str, typing.Any]
Plan = dict[str, str | errors.ApiError]


def resident_guests(db: database.Database, host: str) -> dict[str, Record]:
    """Return the guests that are running or paused on ``host``."""
    return {
        ref: vm
        for ref, vm in db.all('VM').items()
        if vm['resident_on'] == host and not vm['is_control_domain']
    }


def free_memory(db: database.Database, host: str) -> int:
    """Return the bytes that no domain on ``host`` has taken."""
    record = db.get('host', host)
    metrics = db.find('host_metrics', record['metrics'])
    total = 0 if metrics is None else metrics['memory_total']
    taken = sum(
        vm['memory_dynamic_max'] + vm['memory_overhead']
        for vm in db.all('VM').values()
        if vm['resident_on'] == host
    )
    return int(total) - int(taken)


def check_can_run(
    db: database.Database, ref: str, vm: Record, host: str
) -> None:
    """Refuse what keeps a guest from running on ``host``, memory aside.

    :raises ApiError: as VM.assert_can_boot_here.
    """
    for vbd in vm['VBDs']:
        vdi = db.find('VDI', db.get('VBD', vbd)['VDI'])
        if vdi is not None and not sees(db, host, vdi['SR']):
            raise errors.ApiError('VM_REQUIRES_SR', ref, vdi['SR'])
    for vif in vm['VIFs']:
        network = db.get('VIF', vif)['network']
        if not reaches(db, host, network):
            raise errors.ApiError('VM_REQUIRES_NETWORK', ref, network)


def sees(db: database.Database, host: str, sr: str) -> bool:
    """Tell whether ``host`` is connected to ``sr``."""
    return any(
        pbd['host'] == host and pbd['SR'] == sr and pbd['currently_attached']
        for pbd in db.all('PBD').values()
    )


def reaches(db: database.Database, host: str, network: str) -> bool:
    """Tell whether ``host`` has a way into ``network``."""
    record = db.find('network', network)
    if record is None or not record['PIFs']:
        return True
    pifs = [db.find('PIF', pif) for pif in record['PIFs']]
    return any(pif is not None and pif['host'] == host for pif in pifs)


def targets(db: database.Database, host: str) -> list[str]:
    """Return the enabled hosts other than ``host`` that are not older."""
    mine = _version(db.get('host', host))
    return [
        ref
        for ref, record in db.all('host').items()
        if ref != host and record['enabled'] and _version(record) >= mine
    ]


def _version(host: Record) -> tuple[int, ...]:
    text = host['software_version'].get('platform_version', '0')
    return tuple(int(part) for part in text.split('.') if part.isdigit())


def plan(db: database.Database, host: str) -> Plan:
    """Return for each guest the host it can go to, or why it cannot."""
    guests = resident_guests(db, host)
    where = targets(db, host)
    if not where:
        return {
            ref: errors.ApiError('NO_HOSTS_AVAILABLE', ref) for ref in guests
        }
    pool = next(iter(db.all('pool').values()))
    result: Plan = {}
    free = {target: free_memory(db, target) for target in where}
    order = sorted(
        guests, key=lambda ref: -int(guests[ref]['memory_dynamic_max'])
    )
    for ref in order:
        vm = guests[ref]
        if pool['ha_enabled'] and not _protected(vm):
            result[ref] = errors.ApiError(
                'HOST_EVACUATE_VM_NOT_HA_PROTECTED', ref
            )
        else:
            result[ref] = _place(db, ref, vm, free)
    return result


def _protected(vm: Record) -> bool:
    return bool(vm['ha_restart_priority'] == 'restart')


def _place(
    db: database.Database, ref: str, vm: Record, free: dict[str, int]
) -> str | errors.ApiError:
    if vm['attached_PCIs']:
        return errors.ApiError('VM_HAS_PCI_ATTACHED', ref)
    if 'pool_migrate' in vm['blocked_operations']:
        return errors.ApiError(
            'OPERATION_BLOCKED',
            ref,
            vm['blocked_operations']['pool_migrate'],
        )
    try:
        for target in free:
            check_can_run(db, ref, vm, target)
    except errors.ApiError as refusal:
        return refusal
    need = int(vm['memory_dynamic_max'] + vm['memory_overhead'])
    for target in sorted(free, key=lambda t: -free[t]):
        if free[target] >= need:
            free[target] -= need
            return target
    return errors.ApiError('HOST_NOT_ENOUGH_FREE_MEMORY', ref)


def refusals(db: database.Database, host: str) -> dict[str, errors.ApiError]:
    """Return the guests that cannot leave ``host``, and why."""
    return {
        ref: outcome
        for ref, outcome in plan(db, host).items()
        if isinstance(outcome, errors.ApiError)
    }
