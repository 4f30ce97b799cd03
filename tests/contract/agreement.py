# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A joiner and a pool, what is foreseen of their join, and what it answers.

Both halves get to see what they see in earnest: the simulator its databases,
the prechecks what a client reads.
"""

from __future__ import annotations

import collections.abc
import typing

from tests.contract import doors, sides
from tests.unit import raw_pools
from tests.unit import test_preflight_join as broken
from xenpool_driver import model, snapshot
from xenpool_driver.preflight import join
from xenpool_driver.simulator import (
    build,
    errors,
    machine,
    profiles,
    records_dir,
    topology,
)

FIRST = '127.90.10.1'

VERBS = {False: 'pool.join', True: 'pool.join_force'}

IN_NO_ORDER = {'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT'}
"""Codes whose parameters XAPI gives in no order."""

Refusal = tuple[str, ...] | None

RECORDED: dict[str, broken.Break] = {
    **{name: spoil for name, (spoil, _) in broken.RULES.items()},
    **{
        f"allowed: {name}": spoil
        for name, spoil in broken.ALLOWED.items()
        # Only a server older than any that is simulated has it.
        if name != 'an old tools SR'
    },
}
"""What can be wrong in recorded records."""


def comparable(refusal: Refusal) -> Refusal:
    """Return a refusal with parameters that can be compared."""
    if refusal and refusal[0] in IN_NO_ORDER:
        return refusal[0], *sorted(refusal[1:])
    return refusal


def recorded_pair(
    spoil: collections.abc.Callable[[raw_pools.Raw, raw_pools.Raw], object],
    profile: profiles.Profile = profiles.CURRENT,
) -> tuple[doors.Door, doors.Door]:
    """Return a joiner and a pool of spoilt, recorded records."""
    joiner, pool = raw_pools.pair()
    spoil(joiner, pool)
    where = doors.world()
    free = build.addresses(FIRST)
    machines = [
        records_dir.add_pool(where, raw, free, doors.PASSWORD, profile)[0]
        for raw in (joiner, pool)
    ]
    return doors.Door(machines[0]), doors.Door(machines[1])


def topology_of(
    members: int = 0,
    joiner_profile: str = 'current',
    pool_profile: str = 'current',
) -> tuple[doors.Door, doors.Door]:
    """Return a joiner, and a pool with so many members."""
    where = doors.world()
    hosts = [
        {'name': f"xen{number:02}", 'version_profile': pool_profile}
        for number in range(1, members + 2)
    ]
    tree: dict[str, typing.Any] = {
        'hosts': [{'name': 'joiner', 'version_profile': joiner_profile}],
        'pools': [{'name': 'production', 'hosts': hosts}],
    }
    free = build.addresses(FIRST)
    topology.Builder(where, free, doors.PASSWORD, profiles.CURRENT).build(tree)
    return (
        doors.Door(where.named('joiner')),
        doors.Door(where.named('xen01')),
    )


def sides_of(
    joiner: doors.Door, pool: doors.Door
) -> tuple[sides.Side, sides.Side]:
    """Return both, to be spoilt."""
    return sides.Side(joiner.machine), sides.Side(pool.machine)


def login_answer(
    target: machine.Machine, password: str = doors.PASSWORD
) -> tuple[str, ...]:
    """Return what a login is refused with, () when it is not."""
    try:
        doors.Door(target, password)
    except errors.ApiError as error:
        return tuple(error.details)
    return ()


def foreseen(
    joiner: doors.Door,
    pool: doors.Door,
    force: bool = False,
    *,
    address: str | None = None,
    password: str = doors.PASSWORD,
    classes: collections.abc.Sequence[str] = snapshot.LIVE_CLASSES,
) -> model.Report:
    """Return what the prechecks say, from what a client can read and ask.

    The ranks of the editions, which only a licence daemon knows, are those
    of the simulated one.
    """
    mine = joiner.snapshot(*classes)
    me = mine.coordinator
    assert me is not None
    at = joiner.machine.world.machine_at(address or pool.machine.address)
    assert at is not None
    return join.check(
        mine,
        pool.snapshot(*classes),
        force=force,
        address=address,
        live=join.LiveFacts(
            pool_login=login_answer(at, password),
            edition_orders={e: rank for rank, e in enumerate(me.editions)},
        ),
    )


def answered(
    joiner: doors.Door,
    pool: doors.Door,
    force: bool = False,
    *,
    address: str | None = None,
    password: str = doors.PASSWORD,
) -> Refusal:
    """Join; return what it is refused with, None when it is not."""
    return doors.refusal(
        joiner,
        VERBS[force],
        address or pool.machine.address,
        'root',
        password,
    )


def is_a_member(joiner: doors.Door, pool: doors.Door) -> bool:
    """Tell whether the joiner is, a minute later, a member in order."""
    joiner.machine.clock.advance(60)
    hosts = pool('host.get_all_records').values()
    mine = [h for h in hosts if h['uuid'] == joiner.machine.uuid]
    address = pool.machine.address
    return (
        len(mine) == 1
        # Guidance that the joiner's old release did not ask after.
        and (mine[0]['enabled'] or bool(mine[0]['pending_guidances']))
        and pool('host_metrics.get_live', mine[0]['metrics'])
        and login_answer(joiner.machine) == ('HOST_IS_SLAVE', address)
    )
