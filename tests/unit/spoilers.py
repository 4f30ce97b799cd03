# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What can be wrong with mocked hosts, by name."""

from __future__ import annotations

from tests.unit import mocked_pool, raw_pools
from xenpool_driver import pool_states

STRANGER = '11111111-2222-4333-8444-555555555555'
"""The uuid of an aggregate that is not ours."""


def stamp(world: mocked_pool.World, host: str) -> None:
    """Let a host's pool belong to another aggregate."""
    world[host].pool['other_config'][pool_states.OWNER_KEY] = STRANGER


def enslave(world: mocked_pool.World, host: str) -> None:
    """Let a host be a member of a pool that nobody here knows."""
    master = mocked_pool.Host(world, 99)
    world.hosts.append(master)
    world[host].master = master


def crowd(world: mocked_pool.World, host: str) -> None:
    """Let a host be the master of another one."""
    other = mocked_pool.Host(world, 98)
    for cls in ('host', 'host_metrics'):
        world[host].raw[cls].update(other.raw[cls])


def run_guest(world: mocked_pool.World, host: str) -> None:
    """Let a virtual machine run on a host."""
    control = next(iter(world[host].raw['VM'].values()))
    world[host].raw['VM']['OpaqueRef:guest'] = {
        **control,
        'uuid': 'guest',
        'name_label': 'busy',
        'is_control_domain': False,
        'power_state': 'Running',
        'resident_on': world[host].ref,
    }


def protect(host: mocked_pool.Host) -> None:
    """Switch HA on."""
    raw_pools.add(host.raw, 'SR', 'beat', name_label='beat')
    raw_pools.add(host.raw, 'VDI', 'state', SR='OpaqueRef:SR-beat')
    host.pool.update(
        ha_enabled=True,
        ha_statefiles=['OpaqueRef:VDI-state'],
        ha_configuration={'timeout': '60'},
        ha_host_failures_to_tolerate='1',
    )


def pool_of_three(world: mocked_pool.World) -> None:
    """Let the three hosts be a pool that belongs to nobody."""
    one, *others = world.hosts
    for host in others:
        for cls, records in host.raw.items():
            if cls not in ('pool', 'task'):
                one.raw[cls].update(records)
        host.raw, host.master = one.raw, one
