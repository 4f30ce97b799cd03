# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The joiner and the pool, to be spoilt for a test."""

from __future__ import annotations

import dataclasses
import random
import typing

from xenpool_driver.simulator import database, machine, netcopy

Record = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True)
class Side:
    """The joiner, or the pool: its coordinator and its database."""

    machine: machine.Machine

    @property
    def db(self) -> database.Database:
        """What it serves."""
        db = self.machine.db
        assert db is not None
        return db

    @property
    def host(self) -> str:
        """The coordinator's reference."""
        return self.db.by_uuid('host', self.machine.uuid)

    @property
    def record(self) -> Record:
        """The coordinator's record."""
        return self.db.get('host', self.host)

    @property
    def pool(self) -> str:
        """The pool's reference."""
        return self.db.refs('pool')[0]

    @property
    def management(self) -> str:
        """The coordinator's management interface."""
        for ref, pif in self.db.all('PIF').items():
            if pif['host'] == self.host and pif['management']:
                return ref
        raise LookupError('no management interface')

    def set(self, cls: str, ref: str, **fields: typing.Any) -> typing.Any:
        """Change fields of any record."""
        self.db.set(cls, ref, **fields)

    def set_host(self, **fields: typing.Any) -> typing.Any:
        """Change fields of the coordinator's record."""
        self.db.set('host', self.host, **fields)

    def set_pool(self, **fields: typing.Any) -> typing.Any:
        """Change fields of the pool's record."""
        self.db.set('pool', self.pool, **fields)

    def set_pif(self, **fields: typing.Any) -> typing.Any:
        """Change fields of the management interface."""
        self.db.set('PIF', self.management, **fields)

    def version(self, **keys: str | None) -> typing.Any:
        """Change keys of software_version; None removes one."""
        known = {**self.record['software_version'], **keys}
        self.set_host(
            software_version={k: v for k, v in known.items() if v is not None}
        )

    def licence(self, key: str, value: str | None) -> typing.Any:
        """Change what the licence restricts."""
        known = {**self.db.get('pool', self.pool)['restrictions'], key: value}
        self.set_pool(
            restrictions={k: v for k, v in known.items() if v is not None}
        )

    def add_pif(self, device: str = 'eth7', **fields: typing.Any) -> str:
        """Add an interface to the coordinator, on a network of its own."""
        network = self.db.create(
            'network', {'bridge': f"br-{device}", 'MTU': 1500}
        )
        model = {
            **self.db.get('PIF', self.management),
            'device': device,
            'management': False,
        }
        pif = netcopy.create_pif(self.db, model, self.host, network)
        self.db.set('PIF', pif, management=False, **fields)
        return pif

    def add_host(self, name: str) -> str:
        """Add a record of a host that no machine has."""
        metrics = self.db.create('host_metrics', {'live': True})
        kept = {
            k: v
            for k, v in self.record.items()
            if k
            in {
                'cpu_info',
                'software_version',
                'edition',
                'editions',
                'API_version_major',
                'API_version_minor',
            }
        }
        return self.db.create(
            'host',
            {
                **kept,
                'name_label': name,
                'hostname': name,
                'address': f"127.9.0.{len(self.db.refs('host')) + 1}",
                'enabled': True,
                'metrics': metrics,
            },
        )

    def add_cluster(self, joins: bool = True, **pif: typing.Any) -> str:
        """Let the coordinator be in a storage cluster."""
        cluster = self.db.create(
            'Cluster', {'cluster_stack': 'corosync', 'pool_auto_join': joins}
        )
        return self.db.create(
            'Cluster_host',
            {
                'cluster': cluster,
                'host': self.host,
                'enabled': True,
                'PIF': self.add_pif('eth8', **pif),
            },
        )

    def add_driver(self, kind: str, features: dict[str, int]) -> str:
        """Add a storage driver."""
        return self.db.create(
            'SM', {'type': kind, 'name_label': kind, 'features': features}
        )

    def set_driver(self, kind: str, **fields: typing.Any) -> typing.Any:
        """Change the storage driver of a type."""
        for ref, driver in self.db.all('SM').items():
            if driver['type'] == kind:
                self.db.set('SM', ref, **fields)

    def add_update(self, name: str, enforced: bool = True) -> typing.Any:
        """Let an update be applied to the coordinator."""
        update = self.db.create(
            'pool_update',
            {'name_label': name, 'enforce_homogeneity': enforced},
        )
        updates = [*self.record['updates'], update]
        self.set_host(updates=updates)

    def add_certificate(self, name: str, print_: str, *purpose: str) -> str:
        """Trust a certificate; without a name, for purposes."""
        return self.db.create(
            'Certificate',
            {
                'type': 'ca',
                'name': name,
                'fingerprint': print_,
                'fingerprint_sha256': print_,
                'purpose': list(purpose),
            },
        )

    def add_guest(self, state: str, **fields: typing.Any) -> str:
        """Add a virtual machine."""
        running = state in {'Running', 'Paused'}
        return self.db.create(
            'VM',
            {
                'name_label': f"a {state} guest",
                'power_state': state,
                'resident_on': self.host if running else 'OpaqueRef:NULL',
                **fields,
            },
        )

    def control_domain(self) -> str:
        """Return the coordinator's control domain."""
        return str(self.record['control_domain'])

    def drop_driver(self, rng: random.Random) -> typing.Any:
        """Remove one storage driver."""
        self.db.delete('SM', rng.choice(self.db.refs('SM')))

    def busy(self, operation: str) -> typing.Any:
        """Let an operation on the pool be under way."""
        self.set_pool(current_operations={'OpaqueRef:task': operation})
