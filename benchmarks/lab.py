# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Simulated hosts in a process of their own, and our driver in this one."""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import typing
import urllib.request

from oslo_config import cfg

from xenpool_driver import base, driver, pool_states, store
from xenpool_driver import conf as config
from xenpool_driver.compute import aggregates, manager

SCALE = 20.0
PASSWORD = 'xenroot'
PORT = 8443
_labs = itertools.count(os.getpid())


class Host(typing.NamedTuple):
    """A simulated host that listens."""

    name: str
    url: str
    uuid: str


@dataclasses.dataclass
class Lab:
    """A running simulator.

    :ivar control: URL of its control endpoint.
    """

    hosts: list[Host]
    directory: pathlib.Path
    process: subprocess.Popen[str]
    control: str

    @property
    def names(self) -> list[str]:
        """The hosts' names."""
        return [host.name for host in self.hosts]

    def ask(
        self, method: str, path: str, body: typing.Any = None
    ) -> typing.Any:
        """Pull one of the simulator's strings."""
        request = urllib.request.Request(
            f"{self.control}/{path}",
            None if body is None else json.dumps(body).encode(),
            method=method,
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def cpu(self) -> float:
        """Return the seconds of CPU that the simulator has used."""
        text = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text.rpartition(')')[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf('SC_CLK_TCK')

    def calls(self) -> dict[str, dict[str, int]]:
        """Return executions by method, by host."""
        found: dict[str, dict[str, int]] = self.ask('GET', 'calls')
        return found

    def conf(self, **options: typing.Any) -> cfg.ConfigOpts:
        """Return the configuration for all hosts, with a new database.

        :param options: of [xenpool].
        """
        number = next(_labs)
        given = {'poll_interval': 1 / SCALE, **options}
        lines = ['[DEFAULT]', f"enabled_hosts = {','.join(self.names)}"]
        lines += ['[xenpool]', *(f"{k} = {v}" for k, v in given.items())]
        lines += ['[database]']
        lines += [f"connection = sqlite:///{self.directory}/{number}.db"]
        for host in self.hosts:
            lines += [
                f"[{host.name}]",
                f"connection_url = {host.url}",
                f"connection_password = {PASSWORD}",
                f"ca_file = {self.directory}/ca.pem",
            ]
        path = self.directory / f"{number}.conf"
        path.write_text('\n'.join(lines) + '\n')
        return config.load([str(path)])


@contextlib.contextmanager
def running(*what: str, scale: float = SCALE) -> collections.abc.Iterator[Lab]:
    """Run a simulator.

    :param what: its options, such as ``--hosts 16``.
    """
    number = next(_labs)
    address = f"127.{100 + number // 240 % 24}.{1 + number % 240}.1"
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [
                *(sys.executable, '-m', 'xenpool_driver.simulator', *what),
                *('--address', address, '--port', str(PORT)),
                *('--time-scale', str(scale), '--control-port', '0'),
                *('--state-dir', directory),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            hosts = _hosts(process)
            control = ''
            while not control.startswith('control '):
                control = process.stderr.readline()  # type: ignore[union-attr]
            yield Lab(
                hosts,
                pathlib.Path(directory),
                process,
                control.split()[1],
            )
        finally:
            process.terminate()
            process.communicate()


def _hosts(process: subprocess.Popen[str]) -> list[Host]:
    found: list[Host] = []
    for line in typing.cast(typing.TextIO, process.stdout):
        words = line.split()
        if words == ['ready']:
            return found
        if words[:1] == ['host']:
            found.append(Host(*words[1:4]))
    raise SystemExit(typing.cast(typing.TextIO, process.stderr).read())


@dataclasses.dataclass
class Desk:
    """A driver with a database of its own, and what requests are made to."""

    conf: cfg.ConfigOpts
    database: store.Store
    driver: driver.XenAPIPoolDriver
    api: aggregates.AggregateAPI

    def create(self, name: str = 'rack1') -> store.Aggregate:
        """Create an aggregate."""
        return self.api.create(name)


@contextlib.contextmanager
def desk(conf: cfg.ConfigOpts) -> collections.abc.Iterator[Desk]:
    """Open the driver that the configuration describes."""
    found = typing.cast(driver.XenAPIPoolDriver, base.load_driver(conf))
    database = found.site.store
    compute = manager.ComputeManager(
        dict.fromkeys(config.known_hosts(conf), found)
    )
    try:
        yield Desk(
            conf,
            database,
            found,
            aggregates.AggregateAPI(conf, database, lambda: compute),
        )
    finally:
        found.close()


def add(desk: Desk, row: store.Aggregate, hosts: list[str]) -> float:
    """Add hosts in one request; return the seconds. All must succeed."""
    began = time.perf_counter()
    results = desk.api.add_hosts(None, row.uuid, hosts)
    seconds = time.perf_counter() - began
    for result in results:
        if result.error is not None:
            raise SystemExit(f"{result.host}: {result.error}")
    row.refresh()
    assert row.state == pool_states.ACTIVE, row.state
    return seconds


def arguments(description: str | None) -> argparse.Namespace:
    """Return the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=(description or '').partition('\n')[0]
    )
    parser.add_argument(
        '--quick', action='store_true', help='smaller sizes, fewer rounds'
    )
    return parser.parse_args()


def verdict(value: float, limit: float) -> str:
    """Say whether a figure keeps to its limit."""
    return f"(at most {limit:g}: {'met' if value <= limit else 'MISSED'})"
