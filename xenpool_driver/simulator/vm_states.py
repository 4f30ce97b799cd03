# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What can be done with a VM, by its state (xapi_vm_lifecycle.ml).

Guests count as having the tools (:mod:`.guest_tools`): no operation lacks a
feature.
"""

from __future__ import annotations

import collections.abc
import contextlib

from xenpool_driver.simulator import (
    database,
    errors,
    operations,
    prechecks,
    registry,
)

RUNNING = 'Running'
HALTED = 'Halted'
PAUSED = 'Paused'
SUSPENDED = 'Suspended'

ALL = (HALTED, PAUSED, SUSPENDED, RUNNING)

STATES: dict[str, tuple[str, ...]] = {
    'snapshot': ALL,
    'clone': (HALTED,),
    'copy': (HALTED,),
    'revert': ALL,
    'checkpoint': (PAUSED, SUSPENDED, RUNNING),
    'provision': (HALTED,),
    'start': (HALTED,),
    'start_on': (HALTED,),
    'pause': (RUNNING,),
    'unpause': (PAUSED,),
    'clean_shutdown': (RUNNING,),
    'clean_reboot': (RUNNING,),
    'hard_shutdown': (PAUSED, SUSPENDED, RUNNING),
    'shutdown': (PAUSED, SUSPENDED, RUNNING),
    'hard_reboot': (PAUSED, RUNNING),
    'suspend': (RUNNING,),
    'resume': (SUSPENDED,),
    'resume_on': (SUSPENDED,),
    'pool_migrate': (RUNNING,),
    'migrate_send': (HALTED, SUSPENDED, RUNNING),
    'changing_dynamic_range': (HALTED, RUNNING),
    'changing_static_range': (HALTED,),
    'changing_shadow_memory': (HALTED,),
    'changing_VCPUs_live': (RUNNING,),
    'changing_NVRAM': (HALTED,),
    'make_into_template': (HALTED,),
    'export': (HALTED, SUSPENDED),
    'metadata_export': ALL,
    'destroy': (HALTED, SUSPENDED),
    'create_vtpm': (HALTED,),
    'sysprep': (RUNNING,),
}
"""Operation -> the states in which it can begin, in XAPI's order."""

UNLISTED = ('shutdown',)
"""Operations that allowed_operations never lists (ignored_ops)."""

OF_TEMPLATES = {
    'changing_dynamic_range',
    'changing_static_range',
    'changing_shadow_memory',
    'changing_NVRAM',
    'clone',
    'copy',
    'export',
    'metadata_export',
    'provision',
}

OF_OWN_TEMPLATES = {'destroy', 'migrate_send'}
"""Operations of templates that are no default ones."""

OF_SNAPSHOTS = {
    'revert',
    'clone',
    'copy',
    'export',
    'destroy',
    'hard_shutdown',
    'metadata_export',
}

OF_CONTROL_DOMAINS = {
    'metadata_export',
    'changing_dynamic_range',
    'changing_static_range',
    'start',
    'start_on',
    'destroy',
}

IN_UPGRADES = {
    'changing_VCPUs_live',
    'clean_reboot',
    'clean_shutdown',
    'clone',
    'copy',
    'destroy',
    'export',
    'hard_reboot',
    'hard_shutdown',
    'make_into_template',
    'migrate_send',
    'pause',
    'pool_migrate',
    'provision',
    'resume',
    'resume_on',
    'shutdown',
    'start',
    'start_on',
    'suspend',
    'unpause',
}
"""Operations that a rolling upgrade allows (xapi_globs.ml)."""

TOGETHER = ({'clone', 'copy', 'export'}, {'snapshot', 'checkpoint'})
"""Operations that do not keep each other waiting."""


def refusal(
    db: database.Database, ref: str, op: str
) -> errors.ApiError | None:
    """Return why ``op`` cannot begin on a VM now, None when it can.

    The first reason counts, in XAPI's order (check_operation_error).
    """
    vm = db.get('VM', ref)
    for find in (_blocked, _wrong_state, _busy, _kind, _domain, _upgrade):
        found = find(db, ref, vm, op)
        if found is not None:
            return found
    return None


def check(db: database.Database, ref: str, op: str) -> database.Record:
    """Return a VM's record.

    :raises ApiError: why ``op`` cannot begin on it now.
    """
    found = refusal(db, ref, op)
    if found is not None:
        raise found
    return db.get('VM', ref)


def _blocked(
    db: database.Database, ref: str, vm: database.Record, op: str
) -> errors.ApiError | None:
    reason = vm['blocked_operations'].get(op)
    if reason is None:
        return None
    return errors.ApiError('OPERATION_BLOCKED', ref, reason)


def _states(vm: database.Record, op: str) -> tuple[str, ...]:
    """Return the states in which ``op`` can begin on this VM."""
    if op in ('clone', 'copy') and vm['is_a_snapshot']:
        return (HALTED, SUSPENDED)
    if op == 'changing_static_range' and vm['is_control_domain']:
        return (HALTED, RUNNING)
    return STATES[op]


def _wrong_state(
    db: database.Database, ref: str, vm: database.Record, op: str
) -> errors.ApiError | None:
    expected, state = _states(vm, op), vm['power_state']
    if state in expected:
        return None
    return errors.ApiError(
        'VM_BAD_POWER_STATE',
        ref,
        ', '.join(wanted.lower() for wanted in expected),
        state.lower(),
    )


def _busy(
    db: database.Database, ref: str, vm: database.Record, op: str
) -> errors.ApiError | None:
    current = vm['current_operations']
    under_way = list(current.values())
    if not under_way or _can_join(op, under_way):
        return None
    tasks, names = ','.join(current), ','.join(under_way)
    if len(under_way) > 1:
        tasks, names = f'{{{tasks}}}', f'{{{names}}}'
    return errors.ApiError(
        'OTHER_OPERATION_IN_PROGRESS', 'VM', ref, names, tasks
    )


def _can_join(op: str, under_way: list[str]) -> bool:
    """Tell whether ``op`` may begin beside others (is_allowed_concurrently).

    A hard shutdown cuts everything else short.
    """
    if op == 'hard_shutdown':
        return op not in under_way
    if op == 'hard_reboot':
        return not {'hard_shutdown', 'hard_reboot'} & set(under_way)
    return any(
        op in group and group.issuperset(under_way) for group in TOGETHER
    )


def _kind(
    db: database.Database, ref: str, vm: database.Record, op: str
) -> errors.ApiError | None:
    """Refuse what templates, snapshots and plain VMs do not do."""
    snapshot = vm['is_a_snapshot']
    if snapshot and op not in OF_SNAPSHOTS:
        return errors.ApiError('VM_IS_SNAPSHOT', ref, op)
    if vm['is_a_template'] and not snapshot:
        default = vm['is_default_template'] or (
            vm['other_config'].get('default_template', '').lower()
            in ('1', 'true')
        )
        own = op in OF_OWN_TEMPLATES and not default
        if op not in OF_TEMPLATES and not own:
            return errors.ApiError('VM_IS_TEMPLATE', ref, op)
    if op == 'provision' and not vm['is_a_template']:
        return errors.ApiError('ONLY_PROVISION_TEMPLATE')
    if op == 'revert' and not snapshot:
        return errors.ApiError('ONLY_REVERT_SNAPSHOT')
    return None


def _domain(
    db: database.Database, ref: str, vm: database.Record, op: str
) -> errors.ApiError | None:
    """Refuse what control domains, appliances and second TPMs forbid."""
    if op == 'destroy' and prechecks.is_domain_zero(db, ref, vm):
        return errors.operation_not_allowed(
            'This operation is not allowed on dom0'
        )
    if vm['is_control_domain'] and op not in OF_CONTROL_DOMAINS:
        return errors.operation_not_allowed(
            'This operation is not allowed on a control domain'
        )
    appliance = vm['appliance']
    if op == 'make_into_template' and db.exists(appliance, 'VM_appliance'):
        return errors.ApiError('VM_IS_PART_OF_AN_APPLIANCE', ref, appliance)
    if op == 'create_vtpm' and vm['VTPMs']:
        count = str(len(vm['VTPMs']))
        return errors.ApiError('VTPM_MAX_AMOUNT_REACHED', count)
    return None


def _upgrade(
    db: database.Database, ref: str, vm: database.Record, op: str
) -> errors.ApiError | None:
    upgrading = any(
        'rolling_upgrade_in_progress' in pool['other_config']
        for pool in db.all('pool').values()
    )
    if upgrading and op not in IN_UPGRADES:
        return errors.ApiError('NOT_SUPPORTED_DURING_UPGRADE')
    return None


def allowed(db: database.Database, ref: str) -> list[str]:
    """Return what can begin on a VM now, in the order that XAPI writes."""
    vm = db.get('VM', ref)
    return [
        op
        for op in reversed(STATES)
        if op not in UNLISTED
        and vm['power_state'] in _states(vm, op)
        and refusal(db, ref, op) is None
    ]


def refresh(db: database.Database, ref: str) -> None:
    """Bring VM.allowed_operations up to date."""
    if db.exists(ref, 'VM'):
        db.set('VM', ref, allowed_operations=allowed(db, ref))


@contextlib.contextmanager
def operation(
    call: registry.Call, ref: str, op: str
) -> collections.abc.Iterator[database.Record]:
    """Run the block as ``op`` on a VM; yields the VM's record.

    :raises ApiError: why it cannot begin now.
    """
    db = call.db
    with db.lock:
        record = check(db, ref, op)
    with operations.object_operation(db, 'VM', ref, op, call.task):
        refresh(db, ref)
        yield record
    refresh(db, ref)
