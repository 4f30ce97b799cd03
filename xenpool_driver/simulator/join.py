# Licensed under the Apache License, Version 2.0; see LICENSE.
"""pool.join and pool.join_force, as the joiner executes them.

The order is that of join_common (xapi_pool.ml): log in at the coordinator,
check, take the pool's secret, exchange certificates, push records as well
as it goes, write the new role, light the fuse, answer.
"""

from __future__ import annotations

import collections.abc
import logging

from xenpool_driver.simulator import (
    database,
    errors,
    faults,
    images,
    lifecycle,
    machine,
    operations,
    peer,
    prechecks,
    push,
    registry,
    world,
)

LOG = logging.getLogger(__name__)


@registry.message('pool.join')
def join(
    call: registry.Call,
    master_address: str,
    master_username: str,
    master_password: str,
) -> None:
    """Make this host a member of the pool at ``master_address``."""
    _join(call, master_address, master_username, master_password, False)


@registry.message('pool.join_force')
def join_force(
    call: registry.Call,
    master_address: str,
    master_username: str,
    master_password: str,
) -> None:
    """Do the same without insisting on equal versions and CPUs."""
    _join(call, master_address, master_username, master_password, True)


def _join(
    call: registry.Call, address: str, user: str, password: str, force: bool
) -> None:
    joiner: machine.Machine = call.machine
    local = call.db
    if not prechecks.feature(prechecks.only_pool(local), 'restrict_pooling'):
        raise errors.ApiError('LICENCE_RESTRICTION')
    where = joiner.world
    port = where.port(machine.HTTPS)
    master = peer.login(joiner, address, user, password, port)
    same = _same_master(joiner, master)
    sides = prechecks.Sides(local, served(master), joiner.uuid, joiner.profile)
    prechecks.run(sides, force, lambda: joiner.pause(where.timings.precheck))
    same()
    try:
        exchange_certificates(joiner, master, sides)
        exchange_trusted_certificates(joiner, master, sides)
    except faults.Drop:
        same()
        raise
    joiner.pause(where.timings.before_push)
    same()
    _push(joiner, master, sides)
    joiner.pause(where.timings.push)
    _take_role(joiner, master, local)


def _same_master(
    joiner: machine.Machine, master: machine.Machine
) -> collections.abc.Callable[[], None]:
    """Return what tells whether the coordinator still runs that was asked.

    One that has restarted meanwhile knows nothing of the joiner's login; the
    join then fails with JOINING_HOST_CONNECTION_FAILED (recorded).
    """
    asked, mine = master.process, joiner.process

    def check() -> None:
        gone = asked is None or asked.ended or master.process is not asked
        if gone and mine is not None and not mine.ended:
            raise errors.ApiError('JOINING_HOST_CONNECTION_FAILED')

    return check


def served(master: machine.Machine) -> database.Database:
    """Return the database that a coordinator serves.

    :raises Drop: when it went away meanwhile.
    """
    db = master.db
    if db is None:
        raise faults.Drop
    return db


def exchange_certificates(
    joiner: machine.Machine, master: machine.Machine, sides: prechecks.Sides
) -> None:
    """Have the joiner's certificate put on every host of the pool.

    Joins queue here. A member that is dead, or that has joined and not yet
    restarted, makes everybody wait (recorded).

    :raises ApiError: when the pool never had the coordinator's certificate.
    """
    where = joiner.world
    if not joiner.profile.tls:
        return
    joiner.pause(where.timings.joiner_certificates)
    with operations.pool_operation(
        master,
        sides.remote,
        'exchange_certificates_on_join',
        check=joiner.same_process(),
    ):
        others = [
            record
            for record in sides.remote.all('host').values()
            if record['uuid'] != joiner.uuid
        ]
        joiner.pause(where.timings.certificates)
        for record in others:
            await_host(where, master, record)
    if not joiner.profile.bundle_check:
        return
    if not sides.pool['tls_verification_enabled']:
        raise errors.ApiError(
            'POOL_JOINING_MASTER_CERTIFICATE_NOT_IN_POOL_BUNDLE',
            sides.coordinator_host['uuid'],
        )


def await_host(
    where: world.World, master: machine.Machine, record: database.Record
) -> None:
    """Wait for a host of the pool to answer, or to be given up.

    Rows without a machine behind them, which only a topology or records can
    contain, do not keep anybody waiting.
    """
    member = where.by_uuid(record['uuid'], master)
    if member is None or _takes_certificates(master, member):
        return
    where.await_peer(master, member, _takes_certificates)


def _takes_certificates(
    master: machine.Machine, member: machine.Machine
) -> bool:
    """Tell whether a host takes what the coordinator sends to its pool."""
    if master is member:
        return True
    process = member.process
    if process is None or not process.db_open:
        return False
    same = process.secret == master.running_secret
    return same and master.world.takes_calls(master, member)


def exchange_trusted_certificates(
    joiner: machine.Machine, master: machine.Machine, sides: prechecks.Sides
) -> None:
    """Let the pool trust what the joiner trusts, another queue (recorded)."""
    if not joiner.profile.tls:
        return
    with operations.pool_operation(
        master,
        sides.remote,
        'exchange_ca_certificates_on_join',
        check=joiner.same_process(),
    ):
        joiner.pause(joiner.world.timings.trusted_certificates)
        adopt_certificates(sides)


def adopt_certificates(sides: prechecks.Sides) -> None:
    """Merge both sides' trusted certificates into the coordinator's."""
    for record in list(sides.local.all('Certificate').values()):
        if record['type'] not in {'ca', 'pinned'}:
            continue
        same = any(
            (theirs['type'], theirs['name'], theirs['fingerprint_sha256'])
            == (record['type'], record['name'], record['fingerprint_sha256'])
            for theirs in sides.remote.all('Certificate').values()
        )
        if not same:
            fields = {k: v for k, v in record.items() if k != 'uuid'}
            sides.remote.create('Certificate', fields)


def _push(
    joiner: machine.Machine, master: machine.Machine, sides: prechecks.Sides
) -> None:
    """Move the joiner's records, best effort as a whole."""
    if not joiner.world.reachable(joiner, master):
        LOG.info('join of %s: the coordinator is gone', joiner.name)
        return
    push.Push(joiner, sides.local, sides.remote).run()


def _take_role(
    joiner: machine.Machine,
    master: machine.Machine,
    local: database.Database,
) -> None:
    """Unplug local storage, write role and secret, light the fuse."""
    for ref, pbd in local.all('PBD').items():
        if pbd['currently_attached']:
            local.set('PBD', ref, currently_attached=False)
    with joiner.world.lock:
        joiner.secret = master.secret
        joiner.role_file = machine.Role(machine.SLAVE, master.address)
        if master.db is not None:
            joiner.disk = images.take(master.db, master.disk)
    lifecycle.light_fuse(joiner)
