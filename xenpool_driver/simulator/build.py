# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Putting machines into a world, as if they had been running for long."""

from __future__ import annotations

import collections.abc
import ipaddress

from xenpool_driver.simulator import (
    database,
    defaults,
    hardware,
    images,
    lifecycle,
    machine,
    profiles,
    push,
    startup,
    world,
)


def loopback(address: str) -> ipaddress.IPv4Address:
    """Return an address at which a simulated host can listen.

    :raises ValueError: when it is none.
    """
    try:
        ip = ipaddress.IPv4Address(address)
    except ValueError:
        raise ValueError(f"address '{address}' is no IPv4 address") from None
    if not ip.is_loopback:
        raise ValueError(f"address '{address}' is not in 127.0.0.0/8")
    return ip


def addresses(first: str) -> collections.abc.Iterator[str]:
    """Yield loopback addresses from ``first`` on, none ending in 0 or 255.

    :raises ValueError: when ``first`` is none, or there are no more.
    """
    ip = loopback(first)
    while ip.is_loopback:
        if int(ip) & 255 not in (0, 255):
            yield str(ip)
        ip += 1
    raise ValueError(f'there are too few loopback addresses from {first} on')


def place(
    where: world.World,
    name: str,
    address: str,
    password: str,
    profile: profiles.Profile,
    parts: hardware.Hardware | None = None,
    uuid: str | None = None,
    nics: int = 2,
) -> machine.Machine:
    """Put a machine into ``where``, switched off, nothing installed."""
    if parts is None:
        number = len(where.machines) + 1
        parts = hardware.make(profile, number, where.new_uuid(), nics)
    target = machine.Machine(
        world=where,
        name=name,
        uuid=uuid or where.new_uuid(),
        address=address,
        password=password,
        profile=profile,
        parts=parts,
    )
    where.add(target)
    return target


def install(target: machine.Machine) -> database.Database:
    """Return the database of ``target`` as freshly installed."""
    db = database.Database(target.clock, target.world.rng)
    defaults.install(target, db)
    return db


def standalone(
    where: world.World,
    count: int,
    first: str,
    password: str,
    profile: profiles.Profile = profiles.CURRENT,
) -> list[machine.Machine]:
    """Put ``count`` running stand-alone hosts into ``where``.

    They are called xen01 and so on, after those that are there.
    """
    free = addresses(first)
    first_number = len(where.machines) + 1
    last_number = len(where.machines) + count
    width = max(2, len(str(last_number)))
    hosts = []
    for number in range(first_number, last_number + 1):
        target = place(
            where, f'xen{number:0{width}}', next(free), password, profile
        )
        lifecycle.start_now(target, install(target))
        hosts.append(target)
    return hosts


def form_pool(
    master: machine.Machine,
    db: database.Database,
    members: collections.abc.Iterable[machine.Machine],
) -> None:
    """Make ``members`` members of ``master``, whose database is ``db``.

    Their records are moved as a join moves them; all are then running.
    """
    lifecycle.start_now(master, db)
    for member in members:
        push.Push(member, install(member), db).run()
        member.role_file = machine.Role(machine.SLAVE, master.address)
        member.secret = master.secret
        lifecycle.start_now(member, None)
        startup.hello(member)
        startup.join_in(member)
        startup.enable(member, db)
    master.disk = images.take(db)


def arm(master: machine.Machine, db: database.Database) -> None:
    """Let HA be on, or off, on all machines of a pool as its record says."""
    armed = any(pool['ha_enabled'] for pool in db.all('pool').values())
    for target in master.world.machines:
        if target.secret == master.secret:
            target.ha_armed = armed
