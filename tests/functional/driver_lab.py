# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A driver in front of simulated hosts, and plain sessions beside it."""

from __future__ import annotations

import collections.abc
import contextlib
import itertools
import os
import pathlib
import ssl
import typing
import xmlrpc.client

import XenAPI

from xenpool_driver import conf as config
from xenpool_driver import driver, pool_states, simulator

PASSWORD = 'xenroot'


class Lab(typing.Protocol):
    """Simulated hosts, in this process or another one."""

    @property
    def hosts(self) -> collections.abc.Sequence[simulator.Host]:
        """The hosts."""

    @property
    def ca_file(self) -> pathlib.Path:
        """The certificate that clients have to trust."""


_numbers = itertools.count(os.getpid())


def address() -> str:
    """Return a loopback address that no other test uses now."""
    number = next(_numbers)
    return f"127.70.{number // 8 % 250 + 1}.{number % 8 * 30 + 1}"


def simulation(
    hosts: int = 3, scale: float = 60.0, **options: typing.Any
) -> simulator.Simulation:
    """Return stand-alone hosts on free ports, not started."""
    return simulator.Simulation(
        hosts,
        address=address(),
        port=0,
        http_port=None,
        time_scale=scale,
        **options,
    )


def configuration(
    lab: Lab,
    directory: pathlib.Path,
    sections: collections.abc.Mapping[str, str] | None = None,
    *,
    database: str | None = None,
    **options: object,
) -> pathlib.Path:
    """Write a configuration file for all hosts.

    :param sections: more lines, by host.
    :param database: its URL; by default a file in the directory.
    :param options: options of ``[xenpool]``.
    """
    options = {'poll_interval': 0.05, **options}
    lines = [
        '[DEFAULT]',
        f"enabled_hosts = {','.join(host.name for host in lab.hosts)}",
        '[database]',
        f"connection = {database or f'sqlite:///{directory}/x.db'}",
        '[xenpool]',
        *(f"{key} = {value}" for key, value in options.items()),
    ]
    for host in lab.hosts:
        lines += [
            f"[{host.name}]",
            f"connection_url = {host.url}",
            f"connection_password = {PASSWORD}",
            f"ca_file = {lab.ca_file}",
            (sections or {}).get(host.name, ''),
        ]
    path = directory / 'xenpool.conf'
    path.touch(0o600)
    path.write_text('\n'.join(lines))
    return path


def make_driver(path: pathlib.Path) -> driver.XenAPIPoolDriver:
    """Return a driver as a service would load it."""
    return driver.XenAPIPoolDriver(conf=config.load([str(path)]))


FLAGS = {
    pool_states.POOL_FLAG: 'true',
    pool_states.STATE: pool_states.CREATED,
}
"""The metadata of an aggregate that asks to be a pool."""


@contextlib.contextmanager
def session(
    lab: Lab, host: simulator.Host
) -> collections.abc.Iterator[typing.Any]:
    """Open a plain session with a master; ``session.xenapi`` of it."""
    transport = xmlrpc.client.SafeTransport(
        context=ssl.create_default_context(cafile=str(lab.ca_file))
    )
    found = XenAPI.Session(f"{host.url}/", transport=transport)
    try:
        found.xenapi.login_with_password('root', PASSWORD, '1.0', 'test')
        yield found.xenapi
        found.xenapi.session.logout()
    finally:
        transport.close()


@contextlib.contextmanager
def local_session(
    lab: Lab, host: simulator.Host | simulator.Machine
) -> collections.abc.Iterator[typing.Any]:
    """Open a plain session with a host itself; ``session.xenapi`` of it."""
    [found] = [each for each in lab.hosts if each.name == host.name]
    transport = xmlrpc.client.SafeTransport(
        context=ssl.create_default_context(cafile=str(lab.ca_file))
    )
    session = XenAPI.Session(f"{found.url}/", transport=transport)
    try:
        session.slave_local_login_with_password('root', PASSWORD)
        yield session.xenapi
    finally:
        transport.close()


def settle(lab: simulator.Simulation) -> None:
    """Wait until every host has done with booting and restarting."""
    lab.world.wait_for(
        lambda: all(
            each.process is not None
            and each.process.ready
            and each.process.fuse is None
            and not each.first_boot
            for each in lab.world.machines
        )
    )


class Pool(typing.NamedTuple):
    """A pool as its master shows it: names of hosts, and what it carries."""

    master: str
    members: frozenset[str]
    name: str
    stamp: str


def pools(lab: Lab) -> list[Pool]:
    """Return every pool, as a plain session at its master sees it."""
    names = {host.uuid: host.name for host in lab.hosts}
    found = []
    for host in lab.hosts:
        try:
            with session(lab, host) as api:
                [record] = api.pool.get_all_records().values()
                hosts = api.host.get_all_records()
        except XenAPI.Failure as failure:
            assert failure.details[0] == 'HOST_IS_SLAVE', failure
            continue
        found.append(
            Pool(
                names[hosts[record['master']]['uuid']],
                frozenset(names[each['uuid']] for each in hosts.values()),
                record['name_label'],
                record['other_config'].get(pool_states.OWNER_KEY, ''),
            )
        )
    return found


def pool_of(lab: Lab, stamp: str) -> Pool | None:
    """Return the pool that carries an aggregate's stamp."""
    found = [pool for pool in pools(lab) if pool.stamp == stamp]
    assert len(found) < 2, found
    return found[0] if found else None
