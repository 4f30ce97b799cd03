# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a starting toolstack does, step by step.

:mod:`~xenpool_driver.simulator.lifecycle` puts these steps in order and
between pauses.
"""

from __future__ import annotations

from xenpool_driver.simulator import (
    database,
    defaults,
    errors,
    evacuation,
    faults,
    images,
    machine,
    messages,
    netcopy,
    prechecks,
    vms,
)

TRANSITION = ('POOL_MASTER_TRANSITION', 4)
"""Name and priority of the message of a new coordinator."""


class Stuck(Exception):
    """A member cannot bring its records up to date: it will never be ready.

    It goes into emergency mode and starts again, to the same end
    (server_run_in_emergency_mode in xapi.ml).
    """


NO_PBDS = 'sync_create_pbds'
"""Key of pool.other_config: ``nosync`` keeps members from shared SRs."""


def load_database(target: machine.Machine) -> database.Database:
    """Return what is on the disk of a starting coordinator.

    Without any it is a fresh installation, waiting for its first boot.
    """
    world = target.world
    if target.disk is not None:
        return images.restore(target.disk, world.clock, world.rng)
    db = database.Database(world.clock, world.rng)
    defaults.install(target, db)
    defaults.unconfigure(target, db)
    target.first_boot = True
    return db


def prepare_master(target: machine.Machine, db: database.Database) -> None:
    """Make the database say who is the coordinator; nobody is enabled."""
    me = db.by_uuid('host', target.uuid)
    for ref in db.refs('pool'):
        if db.get('pool', ref)['master'] != me:
            db.set('pool', ref, master=me)
    for host, record in db.all('host').items():
        if record['enabled']:
            db.set('host', host, enabled=False)
        if record['current_operations']:
            db.set('host', host, current_operations={})
    set_live(db, me, True)
    reset_halted(db)


def reset_halted(db: database.Database) -> None:
    """Let VMs that run nowhere be tied to no host (dbsync_master.ml).

    A VM that runs on a host that is no longer there counts as halted. A
    control domain that a join has just brought is halted until its host
    restarts: it is no longer the host's then (recorded).
    """
    for ref, vm in db.all('VM').items():
        lost = not db.exists(vm['resident_on'], 'host')
        if vm['power_state'] == vms.RUNNING and lost:
            vms.halt(db, ref)
        elif vm['power_state'] == vms.HALTED:
            vms.halt(db, ref)
            if vm['scheduled_to_be_resident_on'] != errors.NULL:
                db.set('VM', ref, scheduled_to_be_resident_on=errors.NULL)


def set_live(db: database.Database, host: str, live: bool) -> None:
    """Set host_metrics.live, unless it says so already."""
    metrics = db.get('host', host)['metrics']
    record = db.find('host_metrics', metrics)
    if record is not None and record['live'] != live:
        db.set('host_metrics', metrics, live=live, last_updated=db.clock.iso())


def find_rival(
    target: machine.Machine, db: database.Database
) -> machine.Machine | None:
    """Return a running coordinator among the hosts that ``target`` knows.

    A starting coordinator asks all hosts in its database whether they are
    members; one that is not has taken over (xapi.ml).
    """
    for record in db.all('host').values():
        other = target.world.machine_at(record['address'])
        if other is None or other is target or not other.is_master:
            continue
        if other.role_file.kind != machine.MASTER:
            continue
        if other.running_secret == target.secret and target.world.reachable(
            target, other
        ):
            return other
    return None


def greet_members(target: machine.Machine) -> None:
    """Let members that ran through the coordinator's absence say hello."""
    for member in target.world.members_of(target):
        process = member.process
        if process is not None and process.ready:
            target.clock.call_later(
                target.world.timings.member_enable,
                _greet_again,
                member,
                process,
            )


def _greet_again(member: machine.Machine, process: machine.Process) -> None:
    db = member.db
    if member.process is process and db is not None and not hello(member):
        enable(member, db)


def say_goodbye(target: machine.Machine) -> None:
    """Tell the coordinator of a clean shutdown: live goes down at once."""
    db = target.db
    process = target.world.coordinator_of(target)
    if db is None or process is None or target.is_master:
        return
    if is_forgotten(target):
        return
    process.shutting_down.add(target.uuid)
    set_live(db, db.by_uuid('host', target.uuid), False)


def can_ask(target: machine.Machine) -> bool:
    """Tell whether a member gets through to its coordinator's database."""
    role = target.role
    other = target.world.machine_at(role[1])
    if other is None or not target.world.reachable(target, other):
        return False
    # One that is no coordinator, or of another pool, answers too, and so does
    # the member itself: hello finds out.
    if other is target:
        return True
    return other.is_master or other.role[1] not in ('', role[1])


def is_forgotten(target: machine.Machine) -> bool:
    """Tell whether the coordinator's database lacks this host."""
    db = target.db
    if db is None:
        return False
    return target.uuid not in db.table('host').by_uuid


def hello(target: machine.Machine) -> errors.ApiError | None:
    """Report to the coordinator (pool.hello).

    :returns: the reason to stay in emergency mode, None when all is well.
    """
    address = target.role[1]
    master = target.world.machine_at(address)
    if master is target:
        return errors.ApiError('HOST_ITS_OWN_SLAVE')
    if master is None or not target.world.reachable(target, master):
        return errors.ApiError('HOST_STILL_BOOTING')
    if not master.is_master:
        return errors.host_is_slave(master.role[1])
    db = target.db
    if db is None or is_forgotten(target):
        return errors.ApiError('HOST_UNKNOWN_TO_MASTER', target.uuid)
    host = db.by_uuid('host', target.uuid)
    if db.get('host', host)['address'] != target.address:
        db.set('host', host, address=target.address)
    db.set('host', host, enabled=False, current_operations={})
    set_live(db, host, True)
    if master.process is not None:
        master.process.heartbeats[target.uuid] = target.clock.now()
        master.process.shutting_down.discard(target.uuid)
    return None


def join_in(target: machine.Machine) -> database.Database:
    """Do a member's part of start-up behind its hello.

    Root's password comes from the coordinator, shared storage is attached,
    the coordinator's bonds and VLANs are copied, CPU features levelled.

    :raises Stuck: when its control domain's record is in the way.
    """
    db = target.db
    master = target.world.machine_at(target.role[1])
    if db is None or master is None:
        raise faults.Drop
    target.password = master.password
    host = db.by_uuid('host', target.uuid)
    _adopt_control_domain(target, db, host)
    target.disk = images.take(db, master.disk)
    attach_shared_storage(db, host)
    plug_storage(target, db)
    netcopy.copy_from_master(db, host)
    level_cpus(db)
    return db


def _adopt_control_domain(
    target: machine.Machine, db: database.Database, host: str
) -> None:
    """Find this machine's control domain by its uuid, or create it.

    Pushed by a join it lies there as a halted VM, resident on this host. One
    with the uuid that is not this host's is not taken over, and no other one
    with that uuid can be made (create_misc.ml; recorded).

    :raises Stuck: when there is such a one.
    """
    known = db.table('VM').by_uuid.get(target.hardware.dom0_uuid)
    if known is None:
        defaults.create_control_domain(target, db, host)
        return
    if db.get('host', host)['control_domain'] == errors.NULL:
        db.set('host', host, control_domain=known)
    if not prechecks.is_domain_zero(db, known, db.get('VM', known)):
        raise Stuck(known)
    if not db.get('VM', known)['consoles']:
        defaults.create_consoles(target, db, known)
    db.set('VM', known, power_state=vms.RUNNING, domid=0)


def is_stuck(target: machine.Machine) -> bool:
    """Tell whether a member is in emergency mode and will come back to it.

    Its control domain's record is in its own way, see :class:`Stuck`.
    """
    process, db = target.process, target.db
    if process is None or process.emergency is None or db is None:
        return False
    known = db.table('VM').by_uuid.get(target.hardware.dom0_uuid)
    if known is None or is_forgotten(target):
        return False
    return bool(db.get('VM', known)['resident_on'] != target.me)


def attach_shared_storage(db: database.Database, host: str) -> None:
    """Create a PBD for each shared SR that the coordinator has one for."""
    pool = next(iter(db.all('pool').values()))
    if pool['other_config'].get(NO_PBDS) == 'nosync':
        return
    mine = {p['SR'] for p in db.all('PBD').values() if p['host'] == host}
    for pbd in list(db.all('PBD').values()):
        sr = db.find('SR', pbd['SR'])
        if pbd['host'] != pool['master'] or pbd['SR'] in mine:
            continue
        if sr is not None and sr['shared']:
            config = {
                k: v
                for k, v in pbd['device_config'].items()
                if k != 'SRmaster'
            }
            db.create(
                'PBD',
                {'host': host, 'SR': pbd['SR'], 'device_config': config},
            )


def plug_storage(target: machine.Machine, db: database.Database) -> None:
    """Plug what this machine's host is tied to, where that works."""
    host = db.by_uuid('host', target.uuid)
    for ref, pbd in db.all('PBD').items():
        if pbd['host'] != host or pbd['currently_attached']:
            continue
        if can_plug(pbd):
            db.set('PBD', ref, currently_attached=True)


def can_plug(pbd: database.Record) -> bool:
    """Tell whether the storage behind ``pbd`` answers this host.

    A topology makes storage unreachable by the key ``simulator-broken`` in
    the PBD's or SR's configuration.
    """
    return 'simulator-broken' not in {
        **pbd['device_config'],
        **pbd['other_config'],
    }


def level_cpus(db: database.Database) -> None:
    """Recompute pool.cpu_info over all hosts (create_misc.ml)."""
    hosts = [dict(h['cpu_info']) for h in db.all('host').values()]
    info = defaults.pool_cpu_info(hosts)
    for ref, pool in db.all('pool').items():
        if info and pool['cpu_info'] != info:
            db.set('pool', ref, cpu_info=info)


def enable(target: machine.Machine, db: database.Database) -> None:
    """Enable this machine's host, unless something speaks against it."""
    host = db.by_uuid('host', target.uuid)
    record = db.get('host', host)
    if target.keep_disabled or record['pending_guidances']:
        return
    if not record['enabled']:
        db.set('host', host, enabled=True)


def halt_guests(target: machine.Machine, db: database.Database) -> None:
    """Note that the guests of a machine that booted run no more."""
    host = db.by_uuid('host', target.uuid)
    for ref in evacuation.resident_guests(db, host):
        vms.halt(db, ref)


def note_start(
    target: machine.Machine, db: database.Database, booted: bool
) -> None:
    """Write down when the toolstack, and the machine, started (recorded)."""
    host = db.by_uuid('host', target.uuid)
    now = f'{int(target.clock.now())}.'
    for key in ('agent_start_time', *(['boot_time'] if booted else [])):
        db.put_in_map('host', host, 'other_config', key, now)


def settle_ha(
    target: machine.Machine, db: database.Database
) -> errors.ApiError | None:
    """Bring HA on this machine and in its pool together (xapi.ml).

    The pool's master decides for the pool, and the pool for its members, but
    one that was disarmed does not take part again by itself.

    :returns: the reason to stay in emergency mode, None when all is well.
    """
    pool = prechecks.only_pool(db)
    if not pool['ha_enabled']:
        target.ha_armed = False
    elif not target.ha_armed and target.is_master:
        for ref in db.refs('pool'):
            db.set('pool', ref, ha_enabled=False)
    elif not target.ha_armed:
        return errors.ApiError('HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED')
    return None


def tell_of_promotion(target: machine.Machine, db: database.Database) -> None:
    """Post the message of a new coordinator, once."""
    if target.just_promoted:
        target.just_promoted = False
        messages.post(db, *TRANSITION, 'Host', target.uuid, '')


def finish_first_boot(target: machine.Machine, db: database.Database) -> None:
    """Configure the management interface, switch TLS verification on."""
    target.first_boot = False
    defaults.configure(target, db)
