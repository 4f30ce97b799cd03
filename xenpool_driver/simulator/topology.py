# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Worlds described in YAML.

.. code-block:: yaml

    password: xenroot             # root's, everywhere; may be left out
    version_profile: current
    hosts:                        # stand-alone hosts; or just a number
      - name: xen03
    pools:
      - name: production          # pool.name_label
        hosts:                    # the first is the coordinator
          - name: xen01
            address: 127.0.0.21   # in 127/8; the next free one when left out
            uuid: 7ba1d1e2-...
            password: other       # a member's own holds until it restarts
            version_profile: xcp-ng-8.2
            nics: 2
            cpu_vendor: AuthenticAMD
            memory_gib: 128
            edition: xcp-ng
            licence: {restrict_pool_size: "true"}
            power: off            # recorded in the pool, and dead
            clock_offset: 30      # seconds
            set:                  # any field of its records
              host: {tags: [rack1]}
              pool: {tls_verification_enabled: false}
        srs:
          - {name: nfs1, type: nfs, shared: true, size_gib: 500,
             device_config: {server: 10.0.0.1, serverpath: /srv}}
          - {name: scratch, type: ext, host: xen01}
        networks:
          - {name: internal, bridge: isolated0}
        vlans:
          - {device: eth0, tag: 42, network: storage}
        bonds:
          - [eth0, eth1]
        vms:
          - {name: web1, host: xen01, power_state: Running, memory_gib: 2,
             disks: [{sr: nfs1, size_gib: 8}], networks: [internal]}
        ha: false                 # true needs an SR that is shared
        users:                    # who may log in beside root
          - {name: auditor, password: secret, roles: [read-only]}
        set: {name_description: all of it, other_config: {k: v}}
        records:                  # any field of any object
          - {class: SR, name_label: nfs1, set: {tags: [gold]}}

A host may also be written as its name alone. ``records`` finds objects by
``name_label``, ``uuid`` or, for a PIF, ``device``; without any of them all
objects of the class are meant, and ``create: true`` makes a new one.
"""

from __future__ import annotations

import collections.abc
import pathlib
import typing

from xenpool_driver.simulator import (
    build,
    database,
    machine,
    profiles,
    sessions,
    topology_parts,
    world,
)

Tree = dict[str, typing.Any]

TOP = {'password', 'version_profile', 'hosts', 'pools'}
POOL = {
    'name',
    'hosts',
    'srs',
    'networks',
    'vlans',
    'bonds',
    'vms',
    'ha',
    'users',
    'set',
    'records',
}
USER = {'name', 'password', 'roles'}
HOST = {
    'name',
    'address',
    'uuid',
    'password',
    'version_profile',
    'nics',
    'cpu_vendor',
    'memory_gib',
    'edition',
    'licence',
    'power',
    'clock_offset',
    'set',
}

MOST_HOSTS = 1000
"""Stand-alone hosts that a number can ask for."""


class Builder:
    """Puts what a topology describes into a world.

    :param free: addresses for hosts that name none.
    """

    def __init__(
        self,
        where: world.World,
        free: collections.abc.Iterator[str],
        password: str,
        profile: profiles.Profile,
    ) -> None:
        self._world = where
        self._free = free
        self._password = password
        self._profile = profile

    def build(self, tree: Tree) -> None:
        """Build everything.

        :raises ValueError: naming what makes no sense.
        """
        check_keys('a topology', tree, TOP)
        self._password = str(tree.get('password', self._password))
        if 'version_profile' in tree:
            self._profile = profiles.get(tree['version_profile'])
        for pool in tree.get('pools') or ():
            self._pool(pool)
        hosts = tree.get('hosts') or ()
        if isinstance(hosts, int):
            if hosts > MOST_HOSTS:
                raise ValueError(
                    f'hosts: {hosts} are too many; at most {MOST_HOSTS}'
                )
            hosts = [f'xen{number:02}' for number in range(1, hosts + 1)]
        for host in hosts:
            self._pool({'hosts': [host]})
        if not self._world.machines:
            raise ValueError('a topology without hosts')

    def _pool(self, raw: Tree) -> None:
        check_keys('a pool', raw, POOL)
        hosts = [
            {'name': host} if isinstance(host, str) else dict(host)
            for host in raw.get('hosts') or ()
        ]
        if not hosts:
            raise ValueError(f'pool {raw.get("name", "")!r} has no hosts')
        machines = [self._host(host) for host in hosts]
        db = build.install(machines[0])
        build.form_pool(machines[0], db, machines[1:])
        topology_parts.furnish(db, machines, raw)
        for target, host in zip(machines, hosts, strict=True):
            self._finish(db, target, host)
        for user in raw.get('users') or ():
            add_user(db, user)
        topology_parts.settle(machines[0], db)

    def _host(self, raw: Tree) -> machine.Machine:
        check_keys('a host', raw, HOST)
        if not raw.get('name'):
            raise ValueError(f'a host without a name: {raw}')
        profile = self._profile
        if 'version_profile' in raw:
            profile = profiles.get(raw['version_profile'])
        address = str(raw.get('address') or self._next_address())
        try:
            build.loopback(address)
        except ValueError as error:
            raise ValueError(f"host {raw['name']}: {error}") from None
        target = build.place(
            self._world,
            str(raw['name']),
            address,
            str(raw.get('password', self._password)),
            profile,
            uuid=raw.get('uuid'),
            nics=_count_of_nics(raw),
        )
        target.hardware = topology_parts.refit(target.hardware, raw)
        target.clock_offset = float(raw.get('clock_offset', 0.0))
        return target

    def _next_address(self) -> str:
        taken = {target.address for target in self._world.machines}
        return next(place for place in self._free if place not in taken)

    def _finish(
        self, db: database.Database, target: machine.Machine, raw: Tree
    ) -> None:
        for cls, fields in (raw.get('set') or {}).items():
            topology_parts.set_host_fields(db, target, cls, fields)
        if 'password' in raw:
            target.password = str(raw['password'])
        if raw.get('power') in (False, 'off'):
            topology_parts.switch_off(target)


def _count_of_nics(raw: Tree) -> int:
    """Return how many NICs a host has.

    :raises ValueError: naming the host, when that is no number.
    """
    given = raw.get('nics', 2)
    if not str(given).isdigit():
        raise ValueError(f"host {raw['name']}: nics: {given!r} is no number")
    return int(given)


def add_user(db: database.Database, raw: Tree) -> None:
    """Let somebody log in with limited roles.

    :raises ValueError: naming what makes no sense.
    """
    check_keys('a user', raw, USER)
    missing = sorted(USER - set(raw))
    if missing:
        raise ValueError(f'a user without {missing[0]!r}: {raw}')
    roles = [raw['roles']] if isinstance(raw['roles'], str) else raw['roles']
    sessions.add_subject(db, str(raw['name']), str(raw['password']), roles)


def check_keys(
    what: str, tree: collections.abc.Mapping[str, typing.Any], known: set[str]
) -> None:
    """Refuse a key that means nothing.

    :raises ValueError: naming it.
    """
    if not isinstance(tree, collections.abc.Mapping):
        raise ValueError(f'{what} is a mapping, not {tree!r}')
    unknown = set(tree) - known
    if unknown:
        keys = ', '.join(sorted(known))
        raise ValueError(
            f'{what} has no {sorted(map(str, unknown))[0]!r}; it may have:'
            f' {keys}'
        )


def load(
    where: world.World,
    path: pathlib.Path,
    free: collections.abc.Iterator[str],
    password: str,
    profile: profiles.Profile = profiles.CURRENT,
) -> None:
    """Build the world that a YAML file describes.

    :raises ValueError: naming the file and what is wrong in it.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}') from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where_to = f' line {mark.line + 1}:' if mark else ''
        raise ValueError(f'{path}:{where_to} {error.problem}') from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        words = ' '.join(str(error).split())
        raise ValueError(f'{path}: no YAML: {words}') from error
    try:
        Builder(where, free, password, profile).build(tree or {})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: {error}') from error
