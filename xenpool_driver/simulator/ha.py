# Licensed under the Apache License, Version 2.0; see LICENSE.
"""High availability: on, off, what it forbids, and what it does.

With HA a dead coordinator is replaced by a surviving host, without anybody
asking; see :func:`watch`.
"""

from __future__ import annotations

import typing

from xenpool_driver.simulator import (
    database,
    errors,
    lifecycle,
    machine,
    operations,
    prechecks,
    registry,
    world,
)

STATEFILE_SIZE = 4 * 1024 * 1024
DEFAULT_TIMEOUT = '60'


@registry.message('pool.enable_ha')
def enable_ha(
    call: registry.Call,
    heartbeat_srs: list[str],
    configuration: dict[str, str],
) -> None:
    """Arm all hosts, in three rounds; a failure disarms them again."""
    master: machine.Machine = call.machine
    db = call.db
    with operations.pool_operation(
        master, db, 'ha_enable', call.task, call.check_cancelled
    ):
        if not prechecks.only_pool(db)['restrictions'].get('enable_xha'):
            raise errors.ApiError('LICENCE_RESTRICTION', 'HA')
        _check_hosts(db)
        fields = enabled(db, heartbeat_srs, configuration)
        _arm(call, master, db)
        for ref in db.refs('pool'):
            db.set('pool', ref, **fields)
    operations.update_allowed(db)


def enabled(
    db: database.Database,
    heartbeat_srs: list[str],
    configuration: dict[str, str],
) -> dict[str, typing.Any]:
    """Put state files on SRs; return the pool's fields with HA on.

    :param heartbeat_srs: where; empty: on a shared SR of the pool.
    :raises ApiError: CANNOT_CREATE_STATE_FILE.
    """
    return {
        'ha_enabled': True,
        'ha_statefiles': _create_statefiles(db, heartbeat_srs),
        'ha_configuration': {'timeout': DEFAULT_TIMEOUT, **configuration},
        'ha_plan_exists_for': max(0, len(db.refs('host')) - 1),
    }


def _check_hosts(db: database.Database) -> None:
    """Refuse when a host is dead or lacks an interface it needs."""
    for ref, pif in db.all('PIF').items():
        if pif['disallow_unplug'] and not pif['currently_attached']:
            raise errors.ApiError('REQUIRED_PIF_IS_UNPLUGGED', ref)
    for ref, record in db.all('host').items():
        metrics = db.find('host_metrics', record['metrics'])
        if metrics is None or not metrics['live']:
            raise errors.ApiError('HOST_OFFLINE', ref)


def _create_statefiles(db: database.Database, srs: list[str]) -> list[str]:
    """Put a state file on each heartbeat SR that all hosts see."""
    hosts = set(db.refs('host'))
    chosen = srs or [r for r, sr in db.all('SR').items() if _fit(sr)]
    files = []
    for ref in chosen:
        sr = db.get('SR', ref)
        seen = {
            pbd['host']
            for pbd in (db.get('PBD', p) for p in sr['PBDs'])
            if pbd['currently_attached']
        }
        if sr['shared'] and not sr['is_tools_sr'] and hosts <= seen:
            files.append(_statefile(db, ref))
    if not files:
        raise errors.ApiError('CANNOT_CREATE_STATE_FILE')
    return files[:1] if not srs else files


def _fit(sr: database.Record) -> bool:
    return bool(sr['shared'] and not sr['is_tools_sr'])


def _statefile(db: database.Database, sr: str) -> str:
    for ref, vdi in db.all('VDI').items():
        if vdi['SR'] == sr and vdi['type'] == 'ha_statefile':
            return ref
    return db.create(
        'VDI',
        {
            'name_label': 'Statefile for HA',
            'SR': sr,
            'type': 'ha_statefile',
            'virtual_size': STATEFILE_SIZE,
            'physical_utilisation': STATEFILE_SIZE,
            'managed': True,
            'sharable': True,
        },
    )


def _arm(
    call: registry.Call, master: machine.Machine, db: database.Database
) -> None:
    """Go three times over all hosts; undo it when one fails."""
    hosts = list(db.all('host').items())
    armed: list[machine.Machine] = []
    try:
        for step in range(3):
            for ref, record in hosts:
                call.check_cancelled()
                master.world.forward(master, ref)
                call.machine.pause(master.world.timings.ha_round)
                target = master.world.by_uuid(record['uuid'], master)
                if step == 2 and target is not None:
                    target.ha_armed = True
                    armed.append(target)
            call.progress((step + 1) / 3)
    except errors.ApiError:
        for target in armed:
            target.ha_armed = False
        raise


@registry.message('pool.disable_ha')
def disable_ha(call: registry.Call) -> None:
    """Disarm all hosts."""
    master: machine.Machine = call.machine
    db = call.db
    with operations.pool_operation(
        master, db, 'ha_disable', call.task, call.check_cancelled
    ):
        call.machine.pause(master.world.timings.ha_round)
        for record in db.all('host').values():
            target = master.world.by_uuid(record['uuid'], master)
            if target is not None and master.world.reachable(master, target):
                target.ha_armed = False
        for ref, pool in db.all('pool').items():
            for vdi in pool['ha_statefiles']:
                if db.exists(vdi, 'VDI'):
                    db.delete('VDI', vdi)
            db.set(
                'pool',
                ref,
                ha_enabled=False,
                ha_statefiles=[],
                ha_configuration={},
                ha_plan_exists_for=0,
            )
    operations.update_allowed(db)


def check_plan(db: database.Database, host: str) -> None:
    """Refuse to lose ``host`` when HA could then not keep its promise.

    :raises ApiError: HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN.
    """
    pool = prechecks.only_pool(db)
    record = db.get('host', host)
    if not pool['ha_enabled'] or not record['enabled']:
        return
    enabled = sum(h['enabled'] for h in db.all('host').values())
    too_few = enabled - 1 <= pool['ha_host_failures_to_tolerate']
    if too_few and not pool['ha_allow_overcommit']:
        raise errors.ApiError('HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN')


@registry.message('pool.set_ha_host_failures_to_tolerate')
def set_ha_host_failures_to_tolerate(
    call: registry.Call, self: str, value: int
) -> None:
    """Say how many dead hosts must be survived."""
    db = call.db
    pool = db.get('pool', self)
    if value < 0:
        raise errors.ApiError(
            'INVALID_VALUE', 'ha_host_failures_to_tolerate', str(value)
        )
    strict = pool['ha_enabled'] and not pool['ha_allow_overcommit']
    if strict and value >= len(db.refs('host')):
        raise errors.ApiError('HA_NO_PLAN')
    db.set('pool', self, ha_host_failures_to_tolerate=value)


@registry.message('pool.ha_compute_max_host_failures_to_tolerate')
def ha_compute_max_host_failures_to_tolerate(call: registry.Call) -> int:
    """Return how many hosts could die, by their number."""
    return max(0, len(call.db.refs('host')) - 1)


@registry.message('pool.ha_failover_plan_exists')
def ha_failover_plan_exists(call: registry.Call, n: int) -> bool:
    """Tell whether ``n`` dead hosts could be survived."""
    return n < len(call.db.refs('host'))


@registry.message('host.emergency_ha_disable', emergency=True, needs_db=False)
def emergency_ha_disable(call: registry.Call, soft: bool = False) -> None:
    """Disarm the host that is asked."""
    call.machine.ha_armed = False


@registry.message('host.ha_xapi_healthcheck', emergency=True, needs_db=False)
def ha_xapi_healthcheck(call: registry.Call) -> bool:
    """Tell the fencing daemon that the toolstack works."""
    return True


def watch(where: world.World) -> None:
    """Replace coordinators that died under HA, as an election would.

    The first armed survivor in the world's order wins; it and the others
    restart with their new roles.
    """
    for target in list(where.machines):
        process = target.process
        if process is None or not target.ha_armed:
            continue
        if target.role[0] != machine.SLAVE or not process.ready:
            continue
        old = where.machine_at(target.role[1])
        if old is not None and where.reachable(target, old):
            process.master_lost = None
            continue
        if process.master_lost is None:
            process.master_lost = where.clock.now()
        elif (
            where.clock.now() - process.master_lost
            >= where.timings.ha_failover
        ):
            _elect(where, target, target.role[1])


def _elect(
    where: world.World, winner: machine.Machine, old_address: str
) -> None:
    """Make ``winner`` coordinator and the other survivors its members."""
    winner.role_file = machine.Role()
    winner.just_promoted = True
    survivors = [
        other
        for other in where.machines
        if other is not winner
        and other.role == (machine.SLAVE, old_address)
        and other.secret == winner.secret
        and where.reachable(winner, other)
    ]
    old = where.machine_at(old_address)
    if old is not None and old.secret == winner.secret:
        old.role_file = machine.Role(machine.SLAVE, winner.address)
    for other in survivors:
        other.role_file = machine.Role(machine.SLAVE, winner.address)
        lifecycle.exit_toolstack(other)
    lifecycle.exit_toolstack(winner)
