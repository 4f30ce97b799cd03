# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Somebody at a desk: types commands, and walks to the hosts.

The commands run in this process, through the real parsers, with a clock that
passes as fast as that of the simulated hosts.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import ssl
import time
import typing
import xmlrpc.client

import pytest
import XenAPI

from tests.functional import cli_lab
from xenpool_driver import clock, simulator
from xenpool_driver.cli import main
from xenpool_driver.simulator import machine, mishaps, startup

SCALE = 60.0
"""Simulated seconds per real second."""


_runs = itertools.count()


def address() -> str:
    """Return a loopback address that no other test uses now.

    Processes have blocks of their own: these tests come one after the other,
    many of them.
    """
    second, third = divmod(os.getpid() % 10000, 250)
    return f"127.{190 + second}.{third}.{1 + next(_runs) % 8 * 30}"


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the product's waits pass as they do for the simulated hosts."""
    real_monotonic, real_sleep = time.monotonic, time.sleep
    monkeypatch.setattr(
        clock.SystemClock, 'monotonic', lambda _: real_monotonic() * SCALE
    )
    monkeypatch.setattr(
        clock.SystemClock,
        'sleep',
        lambda _, seconds: real_sleep(seconds / SCALE),
    )


@dataclasses.dataclass
class Desk:
    """Where somebody sits.

    :ivar lab: the simulated hosts.
    :ivar path: the configuration file.
    """

    lab: simulator.Simulation
    path: pathlib.Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> cli_lab.Result:
        """Type a command."""
        status = main.main(['--config-file', str(self.path), *words])
        out, err = (
            cli_lab.plain(text, self.path) for text in self.capsys.readouterr()
        )
        return cli_lab.Result(status, out, err)

    def done(self, *words: str) -> cli_lab.Result:
        """Type a command; it succeeds."""
        result = self(*words)
        assert result.status == 0, result
        return result

    def findings(self, *words: str) -> list[dict[str, typing.Any]]:
        """Type a command that prints a report; return what is no pass."""
        result = self(*words, '-f', 'json')
        (report,) = json.loads(result.out).values()
        return [
            finding
            for finding in report['findings']
            if finding['severity'] != 'pass'
        ]

    def audit(self, *words: str) -> list[dict[str, typing.Any]]:
        """Return what an audit of the aggregate finds, the worst first.

        The clocks of the hosts are ahead of ours: tests let their time pass.
        """
        found = [
            finding
            for finding in self.findings('aggregate', 'audit', 'web', *words)
            if finding['check'] != 'clocks'
        ]
        order = ['fail', 'warn', 'unknown']
        return sorted(found, key=lambda one: order.index(one['severity']))

    def shown(self) -> dict[str, typing.Any]:
        """Return the aggregate."""
        result = self.done('aggregate', 'show', 'web', '-f', 'json')
        return typing.cast(dict[str, typing.Any], json.loads(result.out))

    def machine(self, host: str) -> machine.Machine:
        """Return a machine by its name."""
        return self.lab.named(host)

    def host(self, name: str) -> simulator.Host:
        """Return a host by its name, as a client sees it."""
        (found,) = [one for one in self.lab.hosts if one.name == name]
        return found

    @contextlib.contextmanager
    def local(self, name: str) -> collections.abc.Iterator[typing.Any]:
        """Log in to a host itself, whoever its master is."""
        transport = xmlrpc.client.SafeTransport(
            context=ssl.create_default_context(cafile=str(self.lab.ca_file))
        )
        session = XenAPI.Session(
            f"{self.host(name).url}/", transport=transport
        )
        try:
            session.slave_local_login_with_password('root', cli_lab.PASSWORD)
            yield session.xenapi
        finally:
            transport.close()

    def set_option(self, name: str, value: object) -> None:
        """Set an option of the driver."""
        text = self.path.read_text()
        self.path.write_text(
            text.replace('[xenpool]', f"[xenpool]\n{name} = {value}", 1)
        )

    def pass_time(self, seconds: float) -> None:
        """Let simulated seconds pass at once, then settle."""
        self.lab.clock.advance(seconds)
        self.settle()

    def kill(self, *hosts: str) -> None:
        """Cut the power of hosts."""
        for host in hosts:
            mishaps.kill(self.machine(host))

    def settle(self) -> None:
        """Wait until no host starts or is about to restart.

        :raises AssertionError: they do not in 20 s.
        """
        deadline = time.monotonic() + 20
        while restless := [
            one.name for one in self.lab.world.machines if is_restless(one)
        ]:
            assert time.monotonic() < deadline, f"no rest: {restless}"
            time.sleep(0.02)


def is_restless(target: machine.Machine) -> bool:
    """Say whether a host starts, or is about to restart, by itself."""
    if not target.powered:
        return False
    process = target.process
    if process is None or process.fuse is not None:
        return True
    if startup.is_stuck(target):
        return False
    if process.role.kind == machine.SLAVE and not process.ready:
        master = target.world.machine_at(process.role.address)
        return master is not None and master.powered and master.is_master
    return not process.ready


@contextlib.contextmanager
def seated(
    directory: pathlib.Path,
    topology: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sections: collections.abc.Mapping[str, dict[str, str]] | None = None,
) -> collections.abc.Iterator[Desk]:
    """Yield a desk in front of the hosts that a topology describes."""
    hasten(monkeypatch)
    path = directory / 'topology.yaml'
    path.write_text(topology)
    with simulator.Simulation(
        topology_file=path,
        address=address(),
        port=cli_lab.PORT,
        http_port=None,
        time_scale=SCALE,
    ) as lab:
        conf = cli_lab.write_config(
            directory / 'xenpool.conf', lab, sections=sections
        )
        yield Desk(lab, conf, capsys)
