# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The requests of the matrices: what stands before, and what is asked for."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from tests import permits
from xenpool_driver import driver, pool_states, store
from xenpool_driver.simulator import mishaps

if typing.TYPE_CHECKING:
    from tests.matrix import stage

NAME = 'rack1'
"""The aggregate's name, and the pool's."""

AGGREGATE = '5d3b6a0e-7a2b-4f0e-9b63-8f1f3f5a7c11'
"""The aggregate's uuid, which the pool is stamped with."""

Tree = dict[str, typing.Any]

Request = collections.abc.Callable[
    [driver.XenAPIPoolDriver, store.Aggregate], object
]


def nothing(_: stage.Stage) -> None:
    """Prepare nothing."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A request, and the site on which it is made.

    :ivar name: of the verb, for the reader.
    :ivar request: asks for it.
    :ivar members: the aggregate's hosts before, the master first.
    :ivar pool: the hosts of the pool before, the master first.
    :ivar free: the hosts that stand alone.
    :ivar after: the aggregate's hosts when the request is done.
    :ivar master: the master when the request is done; None: none.
    :ivar state: the aggregate's state before.
    :ivar end: its state when the request is done.
    :ivar stamped: whether the pool carries the aggregate's stamp before.
    :ivar guests: virtual machines: name, host.
    :ivar more: of the pool's topology; lists are appended.
    :ivar called: the aggregate's name when the request is done, and its
        pool's.
    :ivar prepare: does the rest.
    """

    name: str
    request: Request
    members: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    master: str | None = None
    state: str = pool_states.ACTIVE
    end: str = pool_states.ACTIVE
    stamped: bool = True
    guests: tuple[tuple[str, str], ...] = ()
    more: collections.abc.Mapping[str, typing.Any] = dataclasses.field(
        default_factory=dict
    )
    called: str = NAME
    prepare: collections.abc.Callable[[stage.Stage], None] = nothing

    def tree(self) -> Tree:
        """Return the topology, without addresses."""
        tree: Tree = {'hosts': [{'name': host} for host in self.free]}
        if self.pool:
            tree['pools'] = [self._pool()]
        return tree

    def _pool(self) -> Tree:
        pool: Tree = {
            'hosts': [{'name': host} for host in self.pool],
            'srs': [
                {
                    'name': 'nfs1',
                    'type': 'nfs',
                    'shared': True,
                    'size_gib': 500,
                    'device_config': {
                        'server': '10.0.0.1',
                        'serverpath': '/srv',
                    },
                }
            ],
            'vms': [
                {
                    'name': name,
                    'host': host,
                    'power_state': 'Running',
                    'memory_gib': 1,
                    'disks': [{'sr': 'nfs1', 'size_gib': 8}],
                }
                for name, host in self.guests
            ],
        }
        for key, items in self.more.items():
            pool[key] = [*pool.get(key, ()), *items]
        if self.stamped:
            pool['name'] = NAME
            pool['set'] = {'other_config': {pool_states.OWNER_KEY: AGGREGATE}}
        return pool


def hosts_of(tree: Tree) -> list[Tree]:
    """Return the hosts of a topology."""
    return [
        host
        for group in (*tree.get('pools', ()), tree)
        for host in group.get('hosts', ())
    ]


def _add(host: str, **options: typing.Any) -> Request:
    return lambda worker, row: worker.add_to_aggregate(
        None, row, host, **options
    )


def _remove(host: str, **options: typing.Any) -> Request:
    return lambda worker, row: worker.remove_from_aggregate(
        None, row, host, allow_data_loss=True, **options
    )


def _set_master(host: str, **options: typing.Any) -> Request:
    return lambda worker, row: worker.set_aggregate_master(
        None, row, host, **options
    )


TOLERANCE = 1
"""How many dead hosts HA survives, where HA is on."""

HA_TIMEOUT = {'timeout': '90'}
"""HA's configuration, where HA is on; not the default one."""


def switch_ha_on(where: stage.Stage) -> None:
    """Let HA be on, by XAPI's own call, with settings of its own."""
    from tests.matrix import stage as stages

    where.simulation.clock.set_scale(500)
    worker, database = stages.open_driver(str(where.conf_file))
    try:
        door = worker.site.connections.client(where.scenario.members[0])
        srs = door.records('SR')['SR'].values()
        [shared] = [sr['uuid'] for sr in srs if sr['name_label'] == 'nfs1']
        changes = permits.changing_pool(door, worker.site.clock)
        changes.enable_ha([shared], HA_TIMEOUT)
        changes.set_ha_tolerance(TOLERANCE)
    finally:
        worker.close()
        database.close()
        where.simulation.clock.set_scale(stages.SCALE)


def kill_master(where: stage.Stage) -> None:
    """Cut the power of the master, for good."""
    mishaps.kill(where.machine(where.scenario.members[0]))


def kill_last(where: stage.Stage) -> None:
    """Cut the power of the last member, for good."""
    mishaps.kill(where.machine(where.scenario.members[-1]))


TWO = ('xen01', 'xen02')
THREE = ('xen01', 'xen02', 'xen03')

_ALL = (
    Scenario(
        'first host',
        _add('xen01'),
        free=('xen01',),
        after=('xen01',),
        master='xen01',
        state=pool_states.CREATED,
    ),
    Scenario(
        'join',
        _add('xen03'),
        members=TWO,
        pool=TWO,
        free=('xen03',),
        after=THREE,
        master='xen01',
    ),
    Scenario(
        'eject',
        _remove('xen03'),
        members=THREE,
        pool=THREE,
        after=TWO,
        master='xen01',
    ),
    Scenario(
        'set master',
        _set_master('xen02'),
        members=THREE,
        pool=THREE,
        after=THREE,
        master='xen02',
    ),
    Scenario(
        'drain',
        _remove('xen03', drain=True),
        members=THREE,
        pool=THREE,
        after=TWO,
        master='xen01',
        guests=(('web1', 'xen03'), ('web2', 'xen02')),
    ),
    Scenario(
        'forget',
        _remove('xen03', forget=True),
        members=THREE,
        pool=THREE,
        after=TWO,
        master='xen01',
        prepare=kill_last,
    ),
    Scenario(
        'join under HA',
        _add('xen03', suspend_ha=True),
        members=TWO,
        pool=TWO,
        free=('xen03',),
        after=THREE,
        master='xen01',
        prepare=switch_ha_on,
    ),
    Scenario(
        'eject under HA',
        _remove('xen03', suspend_ha=True),
        members=THREE,
        pool=THREE,
        after=TWO,
        master='xen01',
        prepare=switch_ha_on,
    ),
    Scenario(
        'set master under HA',
        _set_master('xen02', suspend_ha=True),
        members=THREE,
        pool=THREE,
        after=THREE,
        master='xen02',
        prepare=switch_ha_on,
    ),
    Scenario(
        'promote',
        lambda worker, row: worker.recover_aggregate(
            None, row, promote='xen02'
        ),
        members=THREE,
        pool=THREE,
        after=THREE,
        master='xen02',
        prepare=kill_master,
    ),
    Scenario(
        'last host',
        _remove('xen01'),
        members=('xen01',),
        pool=('xen01',),
    ),
    Scenario(
        'adopt',
        lambda worker, row: worker.adopt_aggregate(None, row, 'xen02'),
        pool=THREE,
        after=THREE,
        master='xen01',
        state=pool_states.CREATED,
        stamped=False,
    ),
    Scenario(
        'remove master',
        _remove('xen01', successor='xen02'),
        members=TWO,
        pool=TWO,
        after=('xen02',),
        master='xen02',
    ),
    Scenario(
        'rename',
        lambda worker, row: worker.rename_aggregate(None, row, 'rack2'),
        members=TWO,
        pool=TWO,
        after=TWO,
        master='xen01',
        called='rack2',
    ),
    Scenario(
        'release',
        lambda worker, row: worker.release_aggregate(None, row),
        members=TWO,
        pool=TWO,
        end=pool_states.DISMISSED,
    ),
    Scenario(
        'dismiss',
        lambda worker, row: worker.dismiss_aggregate(None, row),
        free=('xen01',),
        end=pool_states.DISMISSED,
    ),
)

SCENARIOS = {scenario.name: scenario for scenario in _ALL}
"""All of them, by name: processes pass names to each other."""
