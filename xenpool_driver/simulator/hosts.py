# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Messages to single hosts: enabling, draining, rebooting, destroying.

Called on the coordinator they are forwarded to the host they concern, where
a dead one makes the caller wait; called on a member they are done there.
"""

from __future__ import annotations

import typing

from xenpool_driver.simulator import (
    database,
    errors,
    evacuation,
    ha,
    lifecycle,
    machine,
    operations,
    prechecks,
    registry,
    startup,
    vms,
    world,
)


def on_host(call: registry.Call, host: str) -> machine.Machine:
    """Return the machine that executes a message to ``host``."""
    target: machine.Machine = call.machine
    call.db.get('host', host)
    if not target.is_master:
        return target
    where: world.World = target.world
    return where.forward(target, host)


def _pause(call: registry.Call) -> None:
    call.machine.pause(call.machine.world.timings.host_operation)


@registry.message('host.disable')
def disable(call: registry.Call, host: str, auto_enable: bool = True) -> None:
    """Keep new guests off a host."""
    db = call.db
    ha.check_plan(db, host)
    target = on_host(call, host)
    _pause(call)
    if not auto_enable:
        target.keep_disabled = True
    if db.get('host', host)['enabled']:
        db.set('host', host, enabled=False)


@registry.message('host.enable')
def enable(call: registry.Call, host: str) -> None:
    """Let guests start on a host again."""
    db = call.db
    with operations.object_operation(db, 'host', host, 'enable', call.task):
        target = on_host(call, host)
        _pause(call)
        record = db.get('host', host)
        if record['enabled']:
            return
        process = target.process
        if process is None or not process.ready:
            raise errors.ApiError('HOST_STILL_BOOTING')
        if process.fuse is not None and 'shutdown' in (
            record['current_operations'].values()
        ):
            raise errors.ApiError('HOST_DISABLED_UNTIL_REBOOT', host)
        if record['pending_guidances']:
            raise errors.ApiError(
                'HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY', host
            )
        target.keep_disabled = False
        db.set('host', host, enabled=True)


@registry.message('host.reboot')
def reboot(call: registry.Call, host: str) -> None:
    """Reboot a disabled host; the call returns before that happens."""
    _go_down(call, host, power_off=False)


@registry.message('host.shutdown')
def shutdown(call: registry.Call, host: str) -> None:
    """Switch a disabled host off; the call returns before that happens."""
    _go_down(call, host, power_off=True)


def _go_down(call: registry.Call, host: str, power_off: bool) -> None:
    db = call.db
    record = db.get('host', host)
    ha.check_plan(db, host)
    if record['enabled']:
        raise errors.ApiError('HOST_NOT_DISABLED')
    for task, op in record['current_operations'].items():
        raise errors.ApiError(
            'OTHER_OPERATION_IN_PROGRESS', 'host', host, op, task
        )
    target = on_host(call, host)
    key = db.new_ref()
    db.put_in_map('host', host, 'current_operations', key, 'shutdown')
    lifecycle.light_reboot_fuse(
        target, target.world.timings.shutdown, power_off
    )


@registry.message('host.restart_agent')
def restart_agent(call: registry.Call, host: str) -> None:
    """Restart a host's toolstack; the call returns before that happens."""
    target = on_host(call, host)
    lifecycle.light_fuse(target, target.world.timings.restart_agent)


@registry.message('host.shutdown_agent', emergency=True, needs_db=False)
def shutdown_agent(call: registry.Call) -> None:
    """End the toolstack that is asked; its watchdog starts it again."""
    target: machine.Machine = call.machine
    lifecycle.light_fuse(target, target.world.timings.restart_agent)


@registry.message('host.power_on')
def power_on(call: registry.Call, host: str) -> None:
    """Switch on a host that is off, when a way to do so was configured."""
    db = call.db
    record = db.get('host', host)
    if _is_live(db, record):
        raise errors.ApiError('HOST_IS_LIVE', host)
    if not record['power_on_mode']:
        raise errors.ApiError('HOST_POWER_ON_MODE_DISABLED')
    target = call.machine.world.by_uuid(record['uuid'])
    if target is not None and not target.powered:
        lifecycle.power_on(target)


def _is_live(db: database.Database, record: database.Record) -> bool:
    metrics = db.find('host_metrics', record['metrics'])
    return metrics is not None and bool(metrics['live'])


# -- draining --------------------------------------------------------------


@registry.message('host.evacuate')
def evacuate(
    call: registry.Call,
    host: str,
    network: str = errors.NULL,
    evacuate_batch_size: int = 0,
) -> None:
    """Move all guests to other hosts; nothing moves when one cannot."""
    db = call.db
    db.get('host', host)
    ha.check_plan(db, host)
    call.set_cancellable()
    with operations.object_operation(db, 'host', host, 'evacuate', call.task):
        plan = evacuation.plan(db, host)
        for outcome in plan.values():
            if isinstance(outcome, errors.ApiError):
                raise outcome
        for done, (vm, target) in enumerate(plan.items(), 1):
            call.check_cancelled()
            vms.migrate(call, vm, typing.cast(str, target))
            call.progress(done / len(plan))
        left = evacuation.resident_guests(db, host)
        if left:
            raise errors.internal_error(
                f'evacuate: {len(left)} VM(s) are still resident on {host}'
            )


@registry.message('host.get_vms_which_prevent_evacuation')
def get_vms_which_prevent_evacuation(
    call: registry.Call, self: str
) -> dict[str, list[str]]:
    """Return each guest that cannot leave, and why."""
    call.db.get('host', self)
    refused = evacuation.refusals(call.db, self)
    return {vm: refusal.details for vm, refusal in refused.items()}


@registry.message('host.assert_can_evacuate')
def assert_can_evacuate(call: registry.Call, host: str) -> None:
    """Refuse when any guest cannot leave, all reasons in one text."""
    call.db.get('host', host)
    refused = evacuation.refusals(call.db, host)
    if refused:
        texts = [','.join(refusal.details) for refusal in refused.values()]
        raise errors.ApiError('CANNOT_EVACUATE_HOST', '|'.join(texts))


@registry.message('host.get_uncooperative_resident_VMs')
def get_uncooperative_resident_vms(
    call: registry.Call, self: str
) -> list[str]:
    """Return the guests that hold on to memory: none do here."""
    call.db.get('host', self)
    return []


@registry.message('host.compute_free_memory')
def compute_free_memory(call: registry.Call, host: str) -> int:
    """Return the bytes that are free for guests."""
    return evacuation.free_memory(call.db, host)


@registry.message('host.compute_memory_overhead')
def compute_memory_overhead(call: registry.Call, host: str) -> int:
    """Return the bytes that the hypervisor takes."""
    return int(call.db.get('host', host)['memory_overhead'])


# -- lost hosts ------------------------------------------------------------


def _check_lost(call: registry.Call, host: str) -> None:
    """Refuse to give up a host that answers (precheck_destroy_...)."""
    db = call.db
    record = db.get('host', host)
    master: machine.Machine = call.machine
    pool = prechecks.only_pool(db)
    if pool['master'] == host:
        raise errors.ApiError('HOST_IS_LIVE', host)
    if not _is_live(db, record):
        return
    target = master.world.by_uuid(record['uuid'], master)
    if target is not None and master.world.reachable(master, target):
        raise errors.ApiError('HOST_IS_LIVE', host)


@registry.message('host.destroy')
def destroy(call: registry.Call, self: str) -> None:
    """Forget a lost host; its machine is not touched."""
    db = call.db
    _check_lost(call, self)
    if prechecks.only_pool(db)['ha_enabled']:
        raise errors.ApiError('HA_IS_ENABLED')
    if evacuation.resident_guests(db, self):
        raise errors.ApiError('HOST_HAS_RESIDENT_VMS', self)
    _pause(call)
    domains = [
        ref
        for ref, vm in db.all('VM').items()
        if vm['resident_on'] == self and vm['is_control_domain']
    ]
    with db.lock:
        for ref in domains:
            db.delete('VM', ref)
        db.delete('host', self)
    startup.level_cpus(db)
    call.machine.world.notify()


@registry.message('host.declare_dead')
def declare_dead(call: registry.Call, host: str) -> None:
    """Declare a lost host's guests to be off."""
    db = call.db
    _check_lost(call, host)
    for ref in evacuation.resident_guests(db, host):
        vms.halt(db, ref)
    db.set('host', host, enabled=False)


# -- looking and small things ----------------------------------------------


@registry.message('host.is_in_emergency_mode', emergency=True, needs_db=False)
def is_in_emergency_mode(call: registry.Call) -> bool:
    """Tell whether the toolstack that is asked is in emergency mode."""
    process = call.machine.process
    return process is not None and process.emergency is not None


@registry.message('host.local_assert_healthy', emergency=True, needs_db=False)
def local_assert_healthy(call: registry.Call) -> None:
    """Raise the reason of the emergency, if there is one."""
    process = call.machine.process
    if process is not None and process.emergency is not None:
        raise process.emergency


@registry.message(
    'host.signal_networking_change', emergency=True, needs_db=False
)
def signal_networking_change(call: registry.Call) -> None:
    """Take note that addresses changed: none do here."""


@registry.message('host.get_servertime')
def get_servertime(call: registry.Call, host: str) -> str:
    """Return a host's time, UTC."""
    target = on_host(call, host)
    return call.clock.iso(call.clock.now() + target.clock_offset)


@registry.message('host.get_server_localtime')
def get_server_localtime(call: registry.Call, host: str) -> str:
    """Return a host's local time: its time zone is UTC."""
    return str(get_servertime(call, host)).removesuffix('Z')


@registry.message('host.get_management_interface')
def get_management_interface(call: registry.Call, host: str) -> str:
    """Return the interface that carries a host's management."""
    for ref, pif in call.db.all('PIF').items():
        if pif['management'] and pif['host'] == host:
            return ref
    raise errors.internal_error('Not_found')


def check_usable(ref: str, pif: database.Record) -> None:
    """Refuse an interface that cannot carry a host's management."""
    if pif['bond_slave_of'] != errors.NULL:
        raise errors.ApiError('CANNOT_PLUG_BOND_SLAVE', ref)
    if pif['primary_address_type'] == 'IPv6':
        if pif['ipv6_configuration_mode'] == 'None':
            raise errors.ApiError('PIF_HAS_NO_V6_NETWORK_CONFIGURATION', ref)
    elif pif['ip_configuration_mode'] == 'None':
        raise errors.ApiError('PIF_HAS_NO_NETWORK_CONFIGURATION', ref)


@registry.message('host.management_reconfigure')
def management_reconfigure(call: registry.Call, pif: str) -> None:
    """Move a host's management to another of its interfaces."""
    db = call.db
    record = db.get('PIF', pif)
    if prechecks.only_pool(db)['ha_enabled']:
        raise errors.ApiError('HA_IS_ENABLED')
    check_usable(pif, record)
    on_host(call, record['host'])
    with db.lock:
        for ref, other in db.all('PIF').items():
            if other['host'] == record['host'] and other['management']:
                db.set('PIF', ref, management=False)
        db.set('PIF', pif, management=True, currently_attached=True)


@registry.message('host.management_disable', emergency=True)
def management_disable(call: registry.Call) -> None:
    """Take the management interface away; a member needs one."""
    target: machine.Machine = call.machine
    if not target.is_master:
        raise errors.ApiError('SLAVE_REQUIRES_MANAGEMENT_INTERFACE')
    if prechecks.only_pool(call.db)['ha_enabled']:
        raise errors.ApiError('HA_IS_ENABLED')
    db = call.db
    for ref, pif in db.all('PIF').items():
        if pif['host'] == target.me and pif['management']:
            db.set('PIF', ref, management=False)


@registry.message('host.local_management_reconfigure', emergency=True)
def local_management_reconfigure(call: registry.Call, interface: str) -> None:
    """Move management in an emergency only."""
    process = call.machine.process
    if process is None or process.emergency is None:
        raise errors.ApiError('NOT_IN_EMERGENCY_MODE')


@registry.message('host.set_hostname_live')
def set_hostname_live(call: registry.Call, host: str, hostname: str) -> None:
    """Rename a machine."""
    legal = hostname.replace('-', '').replace('.', '').isalnum()
    if not hostname or len(hostname) > 63 or not legal:
        raise errors.ApiError(
            'HOST_NAME_INVALID', f'invalid host name {hostname!r}'
        )
    on_host(call, host)
    call.db.set('host', host, hostname=hostname)


@registry.message('host.apply_edition')
def apply_edition(
    call: registry.Call, host: str, edition: str, force: bool = False
) -> None:
    """Give a host another licence; see the editions it knows."""
    db = call.db
    on_host(call, host)
    if edition not in db.get('host', host)['editions']:
        raise errors.ApiError('INVALID_EDITION', edition)
    db.set('host', host, edition=edition)


@registry.message('host.set_https_only')
def set_https_only(call: registry.Call, self: str, value: bool) -> None:
    """Close port 80, or open it again."""
    target = on_host(call, self)
    call.db.set('host', self, https_only=value)
    lifecycle.set_http(target, not value)


@registry.message('host.sync_data')
def sync_data(call: registry.Call, host: str) -> None:
    """Copy performance data to a host: there is none."""
    on_host(call, host)


@registry.message('host.has_extension')
def has_extension(call: registry.Call, host: str, name: str) -> bool:
    """Tell whether an extension is installed: none is."""
    on_host(call, host)
    return False


@registry.message('host.call_plugin')
def call_plugin(
    call: registry.Call,
    host: str,
    plugin: str,
    fn: str,
    args: dict[str, str],
) -> str:
    """Refuse: no plug-ins are installed."""
    on_host(call, host)
    raise errors.ApiError('XENAPI_MISSING_PLUGIN', plugin)


@registry.message('host.set_power_on_mode')
def set_power_on_mode(
    call: registry.Call,
    self: str,
    power_on_mode: str,
    power_on_config: dict[str, str],
) -> None:
    """Say how a host can be switched on from afar."""
    call.db.set(
        'host',
        self,
        power_on_mode=power_on_mode,
        power_on_config=dict(power_on_config),
    )
