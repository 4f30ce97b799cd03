# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Guests, as far as pools need them: starting, stopping, moving."""

from __future__ import annotations

from xenpool_driver.simulator import (
    database,
    errors,
    evacuation,
    guest_tools,
    machine,
    operations,
    registry,
    values,
    vm_states,
)

RUNNING = vm_states.RUNNING
HALTED = vm_states.HALTED
PAUSED = vm_states.PAUSED
SUSPENDED = vm_states.SUSPENDED


def _pause(call: registry.Call) -> None:
    call.machine.pause(call.machine.world.timings.vm_operation)


def attach(db: database.Database, ref: str, attached: bool) -> None:
    """Plug or unplug all disks and interfaces of a VM."""
    vm = db.get('VM', ref)
    for cls, devices in (('VBD', vm['VBDs']), ('VIF', vm['VIFs'])):
        for device in devices:
            if db.exists(device, cls):
                db.set(cls, device, currently_attached=attached)


def run_on(call: registry.Call, ref: str, host: str, paused: bool) -> None:
    """Let a VM run on ``host``.

    :raises ApiError: HOST_DISABLED and what forwarding to it raises.
    """
    db = call.db
    target: machine.Machine = call.machine
    if not db.get('host', host)['enabled']:
        raise errors.ApiError('HOST_DISABLED', host)
    target.world.forward(target, host)
    _pause(call)
    db.set(
        'VM',
        ref,
        power_state=PAUSED if paused else RUNNING,
        resident_on=host,
        domid=_new_domain(db),
    )
    attach(db, ref, True)
    guest_tools.report(db, ref)


def _new_domain(db: database.Database) -> int:
    return db.rng.randrange(1, 32768)


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
    with vm_states.operation(call, vm, 'start'):
        run_on(call, vm, choose_host(call.db, vm), start_paused)


@registry.message('VM.start_on')
def start_on(
    call: registry.Call, vm: str, host: str, start_paused: bool, force: bool
) -> None:
    """Start a VM on a certain host."""
    with vm_states.operation(call, vm, 'start_on') as record:
        evacuation.check_can_run(call.db, vm, record, host)
        check_memory(call.db, record, host)
        run_on(call, vm, host, start_paused)


def halt(db: database.Database, ref: str) -> None:
    """Make a VM's record say that it is off."""
    db.set('VM', ref, power_state=HALTED, resident_on=errors.NULL, domid=-1)
    attach(db, ref, False)
    vm_states.refresh(db, ref)


def _forward(call: registry.Call, record: database.Record) -> None:
    """Let the host do it on which a VM is, if it is on one."""
    target: machine.Machine = call.machine
    if record['resident_on'] != errors.NULL:
        target.world.forward(target, record['resident_on'])
    _pause(call)


def _stop(call: registry.Call, ref: str, op: str) -> None:
    with vm_states.operation(call, ref, op) as record:
        _forward(call, record)
        halt(call.db, ref)


@registry.message('VM.clean_shutdown')
def clean_shutdown(call: registry.Call, vm: str) -> None:
    """Ask a guest to shut down."""
    _stop(call, vm, 'clean_shutdown')


@registry.message('VM.hard_shutdown')
def hard_shutdown(call: registry.Call, vm: str) -> None:
    """Switch a guest off."""
    _stop(call, vm, 'hard_shutdown')


@registry.message('VM.shutdown')
def shutdown(call: registry.Call, vm: str) -> None:
    """Ask a guest to shut down; switch it off otherwise."""
    _stop(call, vm, 'shutdown')


def _reboot(call: registry.Call, ref: str, op: str) -> None:
    """Let a guest run in a new domain on the host where it is."""
    with vm_states.operation(call, ref, op) as record:
        _forward(call, record)
        db = call.db
        db.set('VM', ref, power_state=RUNNING, domid=_new_domain(db))
        guest_tools.report(db, ref)


@registry.message('VM.clean_reboot')
def clean_reboot(call: registry.Call, vm: str) -> None:
    """Ask a guest to reboot."""
    _reboot(call, vm, 'clean_reboot')


@registry.message('VM.hard_reboot')
def hard_reboot(call: registry.Call, vm: str) -> None:
    """Stop a guest and start it again at once."""
    _reboot(call, vm, 'hard_reboot')


@registry.message('VM.pause')
def pause(call: registry.Call, vm: str) -> None:
    """Stop a guest's time."""
    with vm_states.operation(call, vm, 'pause'):
        call.db.set('VM', vm, power_state=PAUSED)


@registry.message('VM.unpause')
def unpause(call: registry.Call, vm: str) -> None:
    """Let a guest's time go on."""
    with vm_states.operation(call, vm, 'unpause'):
        call.db.set('VM', vm, power_state=RUNNING)


@registry.message('VM.suspend')
def suspend(call: registry.Call, vm: str) -> None:
    """Put a guest to sleep; it is then on no host."""
    with vm_states.operation(call, vm, 'suspend'):
        _pause(call)
        call.db.set(
            'VM', vm, power_state=SUSPENDED, resident_on=errors.NULL, domid=-1
        )


@registry.message('VM.resume')
def resume(
    call: registry.Call, vm: str, start_paused: bool, force: bool
) -> None:
    """Wake a guest where it fits."""
    with vm_states.operation(call, vm, 'resume'):
        run_on(call, vm, choose_host(call.db, vm), start_paused)


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
    target: machine.Machine = call.machine
    record = vm_states.check(db, vm, 'pool_migrate')
    if not db.get('host', host)['enabled']:
        raise errors.ApiError('HOST_DISABLED', host)
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
        vm_states.refresh(db, vm)
        call.machine.pause(call.machine.world.timings.migration)
        db.set('VM', vm, resident_on=host)
    vm_states.refresh(db, vm)


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


@registry.message('VM.set_is_a_template')
def set_is_a_template(call: registry.Call, self: str, value: bool) -> None:
    """Make a template of a VM that is off, or a VM of a template."""
    db = call.db
    if not value:
        db.get('VM', self)
        db.set('VM', self, is_a_template=False)
        vm_states.refresh(db, self)
        return
    with vm_states.operation(call, self, 'make_into_template'):
        db.set('VM', self, is_a_template=True)


@registry.message('VM.set_is_default_template')
def set_is_default_template(call: registry.Call, vm: str, value: bool) -> None:
    """Say whether a template came with the installation."""
    call.db.set('VM', vm, is_default_template=value)
    vm_states.refresh(call.db, vm)


@registry.message('VM.create')
def create(call: registry.Call, fields: database.Record) -> str:
    """Make a VM that is off, without disks and interfaces."""
    values.check_storable(fields)
    db = call.db
    config = dict(fields.get('other_config', {}))
    config.setdefault('mac_seed', db.new_uuid())
    made = {
        'power_state': HALTED,
        **fields,
        'domid': -1,
        'other_config': config,
        'metrics': db.create('VM_metrics', {}),
    }
    ref = db.create('VM', made)
    vm_states.refresh(db, ref)
    return ref


@registry.message('VM.destroy')
def destroy(call: registry.Call, self: str) -> None:
    """Remove a VM's records; its disks stay.

    A control domain that is no host's can be removed, too.
    """
    db = call.db
    with db.lock:
        record = vm_states.check(db, self, 'destroy')
        for child in list(record['children']):
            db.set('VM', child, parent=record['parent'])
        for cls, field in (('VBD', 'VBDs'), ('VIF', 'VIFs')):
            for ref in list(record[field]):
                if db.exists(ref, cls):
                    db.delete(cls, ref)
        guest_tools.forget(db, self)
        if db.exists(record['metrics'], 'VM_metrics'):
            db.delete('VM_metrics', record['metrics'])
        db.delete('VM', self)
