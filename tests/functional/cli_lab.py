# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Simulated hosts, and configuration files for them."""

from __future__ import annotations

import collections.abc
import itertools
import os
import pathlib
import typing

from xenpool_driver import simulator
from xenpool_driver.cli import demo_views

PASSWORD = 'xenroot'
PORT = 8443
_runs = itertools.count(os.getpid())


def address() -> str:
    """Return a loopback address that no other test uses now."""
    number = next(_runs)
    return f"127.50.{number // 8 % 250 + 1}.{number % 8 * 30 + 1}"


def simulation(hosts: int, scale: float = 20.0) -> simulator.Simulation:
    """Return stand-alone hosts, not started."""
    return simulator.Simulation(
        hosts, address=address(), port=PORT, http_port=None, time_scale=scale
    )


def described(
    path: pathlib.Path, text: str, scale: float = 20.0
) -> simulator.Simulation:
    """Return the hosts that a topology describes, not started.

    :param path: where the topology is written.
    """
    path.write_text(text)
    return simulator.Simulation(
        topology_file=path,
        address=address(),
        port=PORT,
        http_port=None,
        time_scale=scale,
    )


def write_config(
    path: pathlib.Path,
    lab: simulator.Simulation,
    *,
    default: str = '',
    database: str | None = None,
    enabled: collections.abc.Sequence[str] | None = None,
    sections: collections.abc.Mapping[str, dict[str, str]] | None = None,
) -> pathlib.Path:
    """Write the configuration for the hosts of a simulation.

    :param default: more lines of [DEFAULT].
    :param database: its URL; by default a file beside ``path``.
    :param enabled: the hosts that are owned; by default all.
    :param sections: options per host that replace the usual ones.
    """
    names = [host.name for host in lab.hosts]
    url = database or f"sqlite:///{path.parent}/store.db"
    lines = [
        '[DEFAULT]',
        f"enabled_hosts = {', '.join(enabled or names)}",
        default,
        '[xenpool]',
        'poll_interval = 0.1',
        '[database]',
        f"connection = {url}",
    ]
    for host in lab.hosts:
        options = {
            'connection_url': host.url,
            'connection_password': PASSWORD,
            'ca_file': str(lab.ca_file),
            **(sections or {}).get(host.name, {}),
        }
        lines.append(f"[{host.name}]")
        lines += [f"{key} = {value}" for key, value in options.items()]
    path.touch(mode=0o600)
    path.write_text('\n'.join(lines) + '\n')
    return path


def pools(lab: simulator.Simulation) -> list[demo_views.Pool]:
    """Return every pool, as a plain XenAPI.Session sees it."""
    return demo_views.Observer(
        {host.name: host.url for host in lab.hosts},
        {host.uuid: host.name for host in lab.hosts},
        PASSWORD,
    ).pools()


def memberships(lab: simulator.Simulation) -> set[tuple[str, ...]]:
    """Return each pool's hosts, the master first."""
    return {
        (pool.master, *sorted(pool.hosts - {pool.master}))
        for pool in pools(lab)
    }


def plain(text: str, path: pathlib.Path) -> str:
    """Return what is printed without the option that commands repeat."""
    return text.replace(f"xenpool --config-file {path} ", 'xenpool ')


class Result(typing.NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str
