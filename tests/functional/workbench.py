# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Pools, aggregates and hosts in all states, for requests to go wrong."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import typing

from tests.functional import driver_lab
from xenpool_driver import conf as config
from xenpool_driver import driver, pool_states, simulator, store
from xenpool_driver.compute import aggregates
from xenpool_driver.simulator import records_dir


@dataclasses.dataclass
class Bench:
    """Two pools, a free host, and an aggregate in each state.

    ``rack1`` is a pool of xen01 and xen02, ``rack2`` one of xen03; xen04 is
    free. The aggregates ``created``, ``changing``, ``error`` and
    ``dismissed`` are in the state of their names, without hosts.
    """

    lab: simulator.Simulation
    plugin: driver.XenAPIPoolDriver
    directory: pathlib.Path

    @property
    def database(self) -> store.Store:
        """The driver's store."""
        return self.plugin.site.store

    def row(self, name: str) -> store.Aggregate:
        """Return an aggregate, as a request reads it."""
        return self.database.get_aggregate(name, dismissed=True)

    def add(self, name: str, host: str) -> None:
        self.plugin.add_to_aggregate(None, self.row(name), host)

    def remove(self, name: str, host: str, **options: typing.Any) -> None:
        self.plugin.remove_from_aggregate(
            None, self.row(name), host, **options
        )

    def set_master(self, name: str, host: str) -> None:
        self.plugin.set_aggregate_master(None, self.row(name), host)

    def adopt(self, name: str, host: str) -> None:
        self.plugin.adopt_aggregate(None, self.row(name), host)

    def dismiss(self, name: str) -> None:
        self.plugin.dismiss_aggregate(None, self.row(name))

    def promote(self, name: str, host: str) -> None:
        self.plugin.recover_aggregate(None, self.row(name), promote=host)

    @property
    def api(self) -> aggregates.AggregateAPI:
        """What the command line speaks to, for what needs no host."""

        def nobody() -> typing.NoReturn:
            raise AssertionError('a host was asked')

        return aggregates.AggregateAPI(
            self.plugin.site.conf, self.database, nobody
        )

    @contextlib.contextmanager
    def configured(
        self, host: str, *lines: str
    ) -> collections.abc.Iterator[Bench]:
        """Yield the same bench with other options of a host."""
        path = driver_lab.configuration(
            self.lab, self.directory, {host: '\n'.join(lines)}
        )
        plugin = driver.XenAPIPoolDriver(
            conf=config.load([str(path)]), database=self.database
        )
        try:
            yield dataclasses.replace(self, plugin=plugin)
        finally:
            plugin.site.connections.close()

    def everything(self) -> dict[str, typing.Any]:
        """Return all that a request could have changed."""
        return {
            'aggregates': [
                dataclasses.asdict(dataclasses.replace(row, _store=None))
                for row in self.database.list_aggregates(dismissed=True)
            ],
            'operations': self.database.list_operations(limit=1000),
            **{
                each.name: records_dir.dump(each)
                for each in self.lab.world.machines
            },
        }


@contextlib.contextmanager
def furnished(
    directory: pathlib.Path,
) -> collections.abc.Iterator[Bench]:
    """Yield the bench."""
    with driver_lab.simulation(4) as lab:
        path = driver_lab.configuration(lab, directory)
        plugin = driver_lab.make_driver(path)
        made = Bench(lab, plugin, directory)
        for name in ('rack1', 'rack2', 'created', 'dismissed'):
            made.database.create_aggregate(name, driver_lab.FLAGS)
        for name in ('changing', 'error'):
            flags = {**driver_lab.FLAGS, pool_states.STATE: name}
            made.database.create_aggregate(name, flags)
        for name, host in (
            ('rack1', 'xen01'),
            ('rack1', 'xen02'),
            ('rack2', 'xen03'),
        ):
            made.add(name, host)
        made.dismiss('dismissed')
        keep_disk(lab, 'xen01')
        keep_disk(lab, 'xen02')
        driver_lab.settle(lab)
        yield made
        plugin.close()


def keep_disk(lab: simulator.Simulation, name: str) -> None:
    """Let a member's own storage hold a disk."""
    member = lab.named(name)
    database = member.db
    assert database is not None
    host = database.by_uuid('host', member.uuid)
    [local] = (
        ref
        for ref, record in database.all('SR').items()
        if record['type'] == 'ext'
        and [database.get('PBD', pbd)['host'] for pbd in record['PBDs']]
        == [host]
    )
    database.create(
        'VDI',
        {
            'SR': local,
            'name_label': 'data',
            'type': 'user',
            'managed': True,
            'virtual_size': 2**30,
            'physical_utilisation': 2**30,
        },
    )
