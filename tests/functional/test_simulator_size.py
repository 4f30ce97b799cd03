# Licensed under the Apache License, Version 2.0; see LICENSE.
"""One simulator process serves a big pool, and a thousand hosts.

In under 1 GB, and where a process may open 1,024 files until it asks for
more, as on most machines.
"""

from __future__ import annotations

import collections.abc
import concurrent.futures
import contextlib
import os
import pathlib
import resource
import subprocess
import sys
import typing

import pytest
import XenAPI
import yaml

ADDRESS = '127.90.{}.1'
PASSWORD = 'xenroot'
LIMIT = 1_000_000_000
"""Bytes of memory."""
FILES = 1024

MEMBERS, GUESTS = 64, 50
ALONE = 1000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Simulator:
    """A simulator in a process of its own.

    :ivar hosts: (name, URL, uuid) of each host, as it announced them.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._pid = process.pid
        self.hosts: list[tuple[str, str, str]] = []
        for line in process.stdout:
            if line.strip() == 'ready':
                return
            _, name, url, uuid = line.split()
            self.hosts.append((name, url, uuid))
        pytest.fail('the simulator ended before it was ready')

    def memory(self) -> int:
        """Return how many bytes it ever held at once."""
        status = pathlib.Path(f"/proc/{self._pid}/status").read_text()
        (peak,) = (
            line.split()[1]
            for line in status.splitlines()
            if line.startswith('VmHWM:')
        )
        return int(peak) * 1024


def _few_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))


@contextlib.contextmanager
def simulator(*options: str) -> collections.abc.Iterator[Simulator]:
    command = [sys.executable, '-m', 'xenpool_driver.simulator', *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=_few_files
    ) as process:
        try:
            yield Simulator(process)
        finally:
            process.terminate()


@contextlib.contextmanager
def session(url: str) -> collections.abc.Iterator[typing.Any]:
    made = XenAPI.Session(url, ignore_ssl=True)
    try:
        made.xenapi.login_with_password('root', PASSWORD, '1.0', 'size')
        yield made.xenapi
    finally:
        made('close')()


def a_big_pool(path: pathlib.Path) -> None:
    names = [f"xen{number:02}" for number in range(1, MEMBERS + 1)]
    guests = [
        {
            'name': f"guest {number} of {name}",
            'host': name,
            'power_state': 'Running',
            'disks': [{'sr': 'nfs', 'size_gib': 8}],
            'networks': ['guests'],
        }
        for name in names
        for number in range(GUESTS)
    ]
    pool = {
        'name': 'big',
        'hosts': names,
        'srs': [{'name': 'nfs', 'type': 'nfs', 'shared': True}],
        'networks': [{'name': 'guests'}],
        'vms': guests,
    }
    path.write_text(yaml.safe_dump({'pools': [pool]}))


def test_64_hosts_with_50_guests_each(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'big.yaml'
    a_big_pool(path)
    address = ADDRESS.format(60 + os.getpid() % 60)
    with simulator(
        *('--topology', str(path), '--address', address)
    ) as running:
        assert len(running.hosts) == MEMBERS
        with session(running.hosts[0][1]) as xapi:
            hosts = xapi.host.get_all_records()
            guests = [
                vm
                for vm in xapi.VM.get_all_records().values()
                if not vm['is_control_domain']
            ]
            token, events = _all_events(xapi)
        assert len(hosts) == MEMBERS
        assert {h['uuid'] for h in hosts.values()} == {
            uuid for _, _, uuid in running.hosts
        }
        assert len(guests) == MEMBERS * GUESTS
        assert all(len(vm['VBDs']) == len(vm['VIFs']) == 1 for vm in guests)
        assert token
        assert events > MEMBERS * GUESTS * 4
        with (
            pytest.raises(XenAPI.Failure) as told,
            session(running.hosts[-1][1]),
        ):
            pass
        assert told.value.details[0] == 'HOST_IS_SLAVE'
        assert running.memory() < LIMIT


def _all_events(xapi: typing.Any) -> tuple[str, int]:
    """Ask for everything, as clients do that keep a copy of it."""
    found = getattr(xapi.event, 'from')(['*'], '', 30.0)
    return found['token'], len(found['events'])


def test_a_thousand_hosts_of_their_own() -> None:
    address = ADDRESS.format(120 + os.getpid() % 100)
    with simulator('--hosts', str(ALONE), '--address', address) as running:
        assert len(running.hosts) == ALONE
        assert len({url for _, url, _ in running.hosts}) == ALONE

        def visit(host: tuple[str, str, str]) -> bool:
            _, url, uuid = host
            with session(url) as xapi:
                records = xapi.host.get_all_records()
                xapi.VM.get_all_records()
            return [h['uuid'] for h in records.values()] == [uuid]

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert all(pool.map(visit, running.hosts))
        assert running.memory() < LIMIT
