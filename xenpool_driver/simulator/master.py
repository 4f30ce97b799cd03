# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Who is the coordinator: designating one, and the calls of an emergency.

pool.designate_new_master runs on the host that is to become coordinator and
is a two-phase commit among all hosts (xapi_pool_transition.ml). The
emergency calls act on the host they are sent to, and on nobody else.
"""

from __future__ import annotations

import ipaddress

from xenpool_driver.simulator import (
    database,
    errors,
    faults,
    images,
    lifecycle,
    machine,
    operations,
    prechecks,
    registry,
    world,
)


@registry.message('pool.designate_new_master')
def designate_new_master(call: registry.Call, host: str) -> None:
    """Make ``host`` the coordinator; every toolstack restarts."""
    old: machine.Machine = call.machine
    call.set_cancellable()
    if not old.profile.guarded:
        _designate(call, old, host)
        return
    with operations.pool_operation(
        old,
        call.db,
        'designate_new_master',
        call.task,
        call.check_cancelled,
    ):
        _designate(call, old, host)


def _designate(call: registry.Call, old: machine.Machine, host: str) -> None:
    db = call.db
    where = old.world
    db.get('host', host)
    new = where.forward(old, host)
    if new.is_master:
        return
    for ref, pool in db.all('pool').items():
        if pool['ha_enabled']:
            raise errors.ApiError('HA_IS_ENABLED')
        db.set('pool', ref, last_update_sync='19700101T00:00:00Z')
    back_up(old, db)
    old.pause(where.timings.designate)
    peers = [peer for peer in hosts_of(where, old, db) if peer is not new]
    propose(new, [*peers, new])
    commit(new, peers, old)


def hosts_of(
    where: world.World, source: machine.Machine, db: database.Database
) -> list[machine.Machine]:
    """Return the machines of all hosts in ``db``, the coordinator first."""
    found = []
    for ref, record in db.all('host').items():
        target = where.by_uuid(record['uuid'], source)
        if target is None:
            raise errors.ApiError('CANNOT_CONTACT_HOST', ref)
        found.append(target)
    return sorted(found, key=lambda target: target is not source)


def back_up(master: machine.Machine, db: database.Database) -> None:
    """Have every host keep a copy of the database (pool.sync_database).

    :raises ApiError: CANNOT_CONTACT_HOST for one that cannot be reached.
    """
    targets = []
    for ref, record in db.all('host').items():
        target = master.world.by_uuid(record['uuid'], master)
        if target is None:
            continue
        if target is not master:
            master.world.forward(master, ref)
        if target.running_secret != master.running_secret:
            # A join that broke off half-way has left its record here.
            raise errors.ApiError('CANNOT_CONTACT_HOST', ref)
        targets.append(target)
    image = images.take(db, master.disk)
    for target in targets:
        target.disk = image
    if master.process is not None:
        master.process.last_flush = master.clock.now()


def propose(new: machine.Machine, addressed: list[machine.Machine]) -> None:
    """Phase one: everybody must agree, or nothing has changed.

    :raises ApiError: of the first that does not.
    """
    agreed: list[machine.Machine] = []
    try:
        for target in addressed:
            _emergency_call(new, target)
            _accept(target, new.address)
            agreed.append(target)
    except errors.ApiError:
        for target in agreed:
            target.proposal = None
        raise


def _emergency_call(source: machine.Machine, target: machine.Machine) -> None:
    """Reach ``target`` by a local login, whatever it says its role is."""
    if not source.world.reachable(source, target):
        raise errors.internal_error('Connection failed: connection refused.')


def _accept(target: machine.Machine, address: str) -> None:
    """Agree to a new coordinator, unless another one stands for it."""
    now = target.clock.now()
    known = target.proposal
    other = known is not None and known.address != address
    if known is not None and other:
        age = now - known.time
        if age < target.world.timings.proposal_expiry:
            raise errors.ApiError(
                'HA_ABORT_NEW_MASTER',
                f'Already agreed to commit host address {known.address}'
                f' at {int(known.time)} ({int(age)} secs ago)',
            )
    target.proposal = machine.Proposal(address, now)


def commit(
    new: machine.Machine, peers: list[machine.Machine], old: machine.Machine
) -> None:
    """Phase two: peers restart as members; one that fails breaks ``new``."""
    served_by = old.process
    new.role_file = machine.Role(machine.BROKEN)
    failed = False
    for target in peers:
        if new.world.reachable(new, target):
            become_slave(target, new.address)
            target.proposal = None
        else:
            failed = True
    new.proposal = None
    if failed:
        lifecycle.exit_toolstack(new, clean=False)
        return
    new.role_file = machine.Role()
    new.just_promoted = True
    if new.process is not None:
        # It waits for its connection to the old coordinator to die.
        new.process.ends_with = served_by
        if served_by is None or served_by.ended:
            lifecycle.exit_toolstack(new)


def become_slave(target: machine.Machine, address: str) -> None:
    """Point a machine at a coordinator; it restarts unless it did so."""
    role = machine.Role(machine.SLAVE, address)
    if target.role_file == role:
        return
    target.role_file = role
    lifecycle.light_fuse(target)


@registry.message(
    'pool.emergency_transition_to_master', emergency=True, needs_db=False
)
def emergency_transition_to_master(call: registry.Call) -> None:
    """Make this host coordinator, from its copy of the database."""
    target: machine.Machine = call.machine
    _check_not_armed(target)
    target.just_promoted = not target.is_master
    target.role_file = machine.Role()
    lifecycle.light_fuse(target)


@registry.message(
    'pool.emergency_reset_master', emergency=True, needs_db=False
)
def emergency_reset_master(call: registry.Call, master_address: str) -> None:
    """Point this host at another coordinator."""
    target: machine.Machine = call.machine
    _check_not_armed(target)
    become_slave(target, resolve(target.world, master_address))


def _check_not_armed(target: machine.Machine) -> None:
    if target.ha_armed:
        raise errors.ApiError('HA_IS_ENABLED')


def resolve(where: world.World, name: str) -> str:
    """Return the address of a host name, as the role file keeps it."""
    target = where.machine_at(name)
    if target is not None:
        return target.address
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise errors.internal_error('Not_found') from None
    return name


@registry.message('pool.recover_slaves')
def recover_slaves(call: registry.Call) -> list[str]:
    """Point all other hosts here; returns those that answered.

    On a member it makes the others its own members (recorded): whoever
    calls it there gets what was asked for.
    """
    source: machine.Machine = call.machine
    where = source.world
    recovered: list[str] = []
    for ref, record in call.db.all('host').items():
        target = where.by_uuid(record['uuid'], source)
        if target is None or target is source:
            continue
        if not where.reachable(source, target) or target.ha_armed:
            continue
        if target.secret != source.secret:
            continue
        source.pause(where.timings.recover)
        become_slave(target, source.address)
        recovered.insert(0, ref)
    return recovered


@registry.message('pool.is_slave', emergency=True)
def is_slave(call: registry.Call, host: str) -> bool:
    """Tell whether the host that is asked is a member."""
    target: machine.Machine = call.machine
    return not target.is_master


@registry.message('pool.sync_database')
def sync_database(call: registry.Call) -> None:
    """Write the database to every host's disk."""
    target: machine.Machine = call.machine
    back_up(owner(target), call.db)


def owner(target: machine.Machine) -> machine.Machine:
    """Return the coordinator whose database ``target`` sees.

    :raises Drop: when it went away.
    """
    if target.is_master:
        return target
    master = target.world.machine_at(target.role[1])
    if master is None:
        raise faults.Drop
    return master


@registry.message('pool.hello')
def hello(call: registry.Call, host_uuid: str, host_address: str) -> str:
    """Answer a member's report, as to an ordinary session (recorded)."""
    db = call.db
    known = db.table('host').by_uuid.get(host_uuid)
    if known is None:
        return 'unknown_host'
    if db.get('host', known)['address'] != host_address:
        db.set('host', known, address=host_address)
    db.set('host', known, enabled=False)
    return 'ok'


@registry.message('pool.initial_auth')
def initial_auth(call: registry.Call) -> str:
    """Hand out the pool's secret."""
    return str(call.machine.running_secret)


@registry.message('host.propose_new_master', emergency=True, needs_db=False)
def propose_new_master(
    call: registry.Call, address: str, manual: bool
) -> None:
    """Agree to a new coordinator."""
    _accept(call.machine, address)


@registry.message('host.commit_new_master', emergency=True, needs_db=False)
def commit_new_master(call: registry.Call, address: str) -> None:
    """Take the coordinator that was agreed to."""
    target: machine.Machine = call.machine
    known = target.proposal
    if known is None or known.address != address:
        raise errors.ApiError(
            'HA_ABORT_NEW_MASTER', f'No proposal of {address} is pending'
        )
    target.proposal = None
    if address == target.address:
        target.just_promoted = not target.is_master
        target.role_file = machine.Role()
        lifecycle.light_fuse(target)
        return
    become_slave(target, address)


@registry.message('host.abort_new_master', emergency=True, needs_db=False)
def abort_new_master(call: registry.Call, address: str) -> None:
    """Forget the coordinator that was agreed to."""
    target: machine.Machine = call.machine
    if target.proposal is not None and target.proposal.address == address:
        target.proposal = None


@registry.message('pool.enable_tls_verification')
def enable_tls_verification(call: registry.Call) -> None:
    """Let the hosts of the pool verify each other's certificates."""
    db = call.db
    with operations.pool_operation(
        call.machine, db, 'tls_verification_enable', call.task
    ):
        call.machine.pause(call.machine.world.timings.host_operation)
        for host in db.refs('host'):
            db.set('host', host, tls_verification_enabled=True)
        for ref in db.refs('pool'):
            db.set('pool', ref, tls_verification_enabled=True)


@registry.message('pool.get_license_state')
def get_license_state(call: registry.Call, self: str) -> dict[str, str]:
    """Return the pool's lowest edition and its earliest expiry."""
    db = call.db
    db.get('pool', self)
    hosts = list(db.all('host').values())
    lowest = min(hosts, key=lambda h: _rank(h))
    return {'edition': lowest['edition'], 'expiry': 'never'}


def _rank(host: prechecks.Record) -> int:
    editions = host['editions']
    known = host['edition'] in editions
    return int(editions.index(host['edition'])) if known else -1
