# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Guests, as far as pools need them: starting, stopping, moving."""

from __future__ import annotations

from xenpool_driver.simulator import (
    database,
    errors,
    evacuation,
    machine,
    operations,
    prechecks,
    registry,
)

RUNNING = 'Running'
HALTED = 'Halted'
PAUSED = 'Paused'
SUSPENDED = 'Suspended'


def check_state(
    db: database.Database, ref: str, *expected: str
) -> database.Record:
    """Return a VM's record.

    :raises ApiError: VM_BAD_POWER_STATE when it is in no expected state,
        VM_IS_TEMPLATE, OTHER_OPERATION_IN_PROGRESS.
    """
    vm = db.get('VM', ref)
    if vm['is_a_template']:
        raise errors.ApiError('VM_IS_TEMPLATE', ref)
    if vm['power_state'] not in expected:
        raise errors.ApiError(
            'VM_BAD_POWER_STATE',
            ref,
            expected[0].lower(),
            vm['power_state'].lower(),
        )
    if vm['current_operations']:
        raise errors.ApiError('OTHER_OPERATION_IN_PROGRESS', 'VM', ref)
    return vm


def _pause(call: registry.Call) -> None:
    call.machine.pause(call.machine.world.timings.vm_operation)


def _check_not_blocked(vm: database.Record, ref: str, op: str) -> None:
    reason = vm['blocked_operations'].get(op)
    if reason is not None:
        raise errors.ApiError('OPERATION_BLOCKED', ref, reason)


def attach(db: database.Database, ref: str, attached: bool) -> None:
    """Plug or unplug all disks and interfaces of a VM."""
    vm = db.get('VM', ref)
    for cls, devices in (('VBD', vm['VBDs']), ('VIF', vm['VIFs'])):
        for device in devices:
            if db.exists(device, cls):
                db.set(cls, device, currently_attached=attached)


def run_on(
    call: registry.Call, ref: str, host: str, paused: bool, op: str
) -> None:
    """Start a VM on ``host``.

    :raises ApiError: HOST_DISABLED and what forwarding to it raises.
    """
    db = call.db
    target: machine.Machine = call.machine
    if not db.get('host', host)['enabled']:
        raise errors.ApiError('HOST_DISABLED', host)
    target.world.forward(target, host)
    with operations.object_operation(db, 'VM', ref, op, call.task):
        _pause(call)
        db.set(
            'VM',
            ref,
            power_state=PAUSED if paused else RUNNING,
            resident_on=host,
            domid=db.rng.randrange(1, 32768),
        )
        attach(db, ref, True)


def choose_host(db: database.Database, ref: str) -> str:
    """Return where a VM can start: its affinity, else the emptiest host.

    :raises ApiError: why the last one tried cannot run it.
    """
    vm = db.get('VM', ref)
    hosts = [r for r, h in db.all('host').items() if h['enabled']]
    hosts.sort(key=lambda h: (h != vm['affinity'], -_free(db, h)))
    refusal = errors.ApiError('NO_HOSTS_AVAILABLE')
    for host in hosts:
        try:
            evacuation.check_can_run(db, ref, vm, host)
            check_memory(db, vm, host)
        except errors.ApiError as error:
            refusal = error
        else:
            return host
    raise refusal


def _free(db: database.Database, host: str) -> int:
    return evacuation.free_memory(db, host)


def check_memory(
    db: database.Database, vm: database.Record, host: str
) -> None:
    """Refuse a VM for which ``host`` has no room."""
    need = vm['memory_dynamic_max'] + vm['memory_overhead']
    free = _free(db, host)
    if free < need:
        raise errors.ApiError(
            'HOST_NOT_ENOUGH_FREE_MEMORY', str(need), str(free)
        )


@registry.message('VM.start')
def start(
    call: registry.Call, vm: str, start_paused: bool, force: bool
) -> None:
    """Start a VM where it fits."""
    db = call.db
    record = check_state(db, vm, HALTED)
    _check_not_blocked(record, vm, 'start')
    run_on(call, vm, choose_host(db, vm), start_paused, 'start')


@registry.message('VM.start_on')
def start_on(
    call: registry.Call, vm: str, host: str, start_paused: bool, force: bool
) -> None:
    """Start a VM on a certain host."""
    db = call.db
    record = check_state(db, vm, HALTED)
    _check_not_blocked(record, vm, 'start_on')
    evacuation.check_can_run(db, vm, record, host)
    check_memory(db, record, host)
    run_on(call, vm, host, start_paused, 'start_on')


def halt(db: database.Database, ref: str) -> None:
    """Make a VM's record say that it is off."""
    db.set('VM', ref, power_state=HALTED, resident_on=errors.NULL, domid=-1)
    attach(db, ref, False)


def _stop(call: registry.Call, ref: str, op: str, *states: str) -> None:
    db = call.db
    record = check_state(db, ref, *states)
    _check_not_blocked(record, ref, op)
    if record['is_control_domain']:
        raise errors.operation_not_allowed('This is a control domain')
    target: machine.Machine = call.machine
    if record['resident_on'] != errors.NULL:
        target.world.forward(target, record['resident_on'])
    with operations.object_operation(db, 'VM', ref, op, call.task):
        _pause(call)
        halt(db, ref)


@registry.message('VM.clean_shutdown')
def clean_shutdown(call: registry.Call, vm: str) -> None:
    """Ask a guest to shut down."""
    _stop(call, vm, 'clean_shutdown', RUNNING)


@registry.message('VM.hard_shutdown')
def hard_shutdown(call: registry.Call, vm: str) -> None:
    """Switch a guest off."""
    _stop(call, vm, 'hard_shutdown', RUNNING, PAUSED, SUSPENDED)


@registry.message('VM.shutdown')
def shutdown(call: registry.Call, vm: str) -> None:
    """Ask a guest to shut down; switch it off otherwise."""
    _stop(call, vm, 'clean_shutdown', RUNNING, PAUSED)


@registry.message('VM.pause')
def pause(call: registry.Call, vm: str) -> None:
    """Stop a guest's time."""
    check_state(call.db, vm, RUNNING)
    call.db.set('VM', vm, power_state=PAUSED)


@registry.message('VM.unpause')
def unpause(call: registry.Call, vm: str) -> None:
    """Let a guest's time go on."""
    check_state(call.db, vm, PAUSED)
    call.db.set('VM', vm, power_state=RUNNING)


@registry.message('VM.suspend')
def suspend(call: registry.Call, vm: str) -> None:
    """Put a guest to sleep; it is then on no host."""
    check_state(call.db, vm, RUNNING)
    _pause(call)
    call.db.set(
        'VM', vm, power_state=SUSPENDED, resident_on=errors.NULL, domid=-1
    )


@registry.message('VM.resume')
def resume(
    call: registry.Call, vm: str, start_paused: bool, force: bool
) -> None:
    """Wake a guest where it fits."""
    check_state(call.db, vm, SUSPENDED)
    host = choose_host(call.db, vm)
    run_on(call, vm, host, start_paused, 'resume')


@registry.message('VM.power_state_reset')
def power_state_reset(call: registry.Call, vm: str) -> None:
    """Declare a guest off whose host is lost."""
    if call.db.get('VM', vm)['is_control_domain']:
        raise errors.ApiError('CANNOT_RESET_CONTROL_DOMAIN', vm)
    halt(call.db, vm)


@registry.message('VM.pool_migrate')
def pool_migrate(
    call: registry.Call, vm: str, host: str, options: dict[str, str]
) -> None:
    """Move a running guest to another host of the pool."""
    db = call.db
    record = check_state(db, vm, RUNNING, PAUSED)
    _check_not_blocked(record, vm, 'pool_migrate')
    if not db.get('host', host)['enabled']:
        raise errors.ApiError('HOST_DISABLED', host)
    target: machine.Machine = call.machine
    target.world.forward(target, record['resident_on'])
    target.world.forward(target, host)
    evacuation.check_can_run(db, vm, record, host)
    if record['resident_on'] != host:
        check_memory(db, record, host)
    migrate(call, vm, host)


def migrate(call: registry.Call, vm: str, host: str) -> None:
    """Move a guest whose move was found possible."""
    db = call.db
    with operations.object_operation(db, 'VM', vm, 'pool_migrate', call.task):
        call.machine.pause(call.machine.world.timings.migration)
        db.set('VM', vm, resident_on=host)


@registry.message('VM.get_possible_hosts')
def get_possible_hosts(call: registry.Call, vm: str) -> list[str]:
    """Return the hosts on which a VM could start."""
    db = call.db
    record = db.get('VM', vm)
    possible = []
    for host, hosts in db.all('host').items():
        try:
            evacuation.check_can_run(db, vm, record, host)
        except errors.ApiError:
            continue
        if hosts['enabled']:
            possible.append(host)
    return possible


@registry.message('VM.assert_can_boot_here')
def assert_can_boot_here(call: registry.Call, self: str, host: str) -> None:
    """Refuse what keeps a VM from starting on ``host``."""
    record = call.db.get('VM', self)
    evacuation.check_can_run(call.db, self, record, host)
    check_memory(call.db, record, host)


@registry.message('VM.assert_agile')
def assert_agile(call: registry.Call, self: str) -> None:
    """Refuse a VM that could not run on every host."""
    db = call.db
    for host in db.refs('host'):
        evacuation.check_can_run(db, self, db.get('VM', self), host)


@registry.message('VM.destroy')
def destroy(call: registry.Call, self: str) -> None:
    """Remove a halted VM's records; its disks stay.

    A control domain that is no host's can be removed, too.
    """
    db = call.db
    record = db.get('VM', self)
    if prechecks.is_domain_zero(db, self, record):
        raise errors.operation_not_allowed(
            'This operation is not allowed on dom0'
        )
    if record['power_state'] != HALTED:
        raise errors.ApiError(
            'VM_BAD_POWER_STATE',
            self,
            HALTED.lower(),
            record['power_state'].lower(),
        )
    with db.lock:
        for cls, field in (('VBD', 'VBDs'), ('VIF', 'VIFs')):
            for ref in list(record[field]):
                if db.exists(ref, cls):
                    db.delete(cls, ref)
        if db.exists(record['metrics'], 'VM_metrics'):
            db.delete('VM_metrics', record['metrics'])
        db.delete('VM', self)
