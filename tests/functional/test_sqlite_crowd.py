# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A service and six users on the default database, all at the same time.

Everything is a process of its own and goes through the public commands. What
a command acknowledged (status 0) must be there at the end.
"""

from __future__ import annotations

import collections.abc
import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import typing
import uuid

import pytest

from tests.functional import cli_lab
from xenpool_driver import simulator

pytest.importorskip(
    'xenpool_driver.compute.bus', reason='needs the extra [service]'
)

SECONDS = {'matrix': 60.0}
"""How long commands are started, by profile; 10 by default."""

LONGEST = 120.0
"""Seconds that one command may take on a busy machine."""

STEP = 0.05
"""Seconds between two looks at the open files of all processes."""


class Crowd:
    """The hosts, the service, the users, and what they were told.

    :ivar made: names of aggregates that were created, by user.
    :ivar deleted: names of aggregates that were deleted.
    :ivar counts: the last value that was set, by aggregate.
    :ivar operations: kinds of the requests to hosts that succeeded.
    :ivar troubles: what went wrong; nothing may.
    """

    def __init__(
        self, lab: simulator.Simulation, directory: pathlib.Path, rabbit: str
    ) -> None:
        self.hosts = [host.name for host in lab.hosts]
        self.state = directory / 'state'
        self.file = self.state / 'xenpool' / 'xenpool.db'
        self.made: dict[str, list[str]] = collections.defaultdict(list)
        self.deleted: set[str] = set()
        self.counts: dict[str, int] = {}
        self.operations: list[str] = []
        self.troubles: list[str] = []
        self.commands = 0
        self.over = threading.Event()
        self._env = {**os.environ, 'XDG_STATE_HOME': str(self.state)}
        self._directory = directory
        path = cli_lab.write_config(
            directory / 'xenpool.conf',
            lab,
            default=f"transport_url = {rabbit}",
        )
        lines = path.read_text().splitlines(keepends=True)
        path.write_text(
            ''.join(line for line in lines if 'sqlite:' not in line)
        )
        self._config = ['--config-file', str(path)]
        self._running: set[int] = set()
        self._lock = threading.Lock()

    def run(self, *words: str) -> str:
        """Run a command, as its user; return what it printed.

        A status other than 0 is a trouble.
        """
        program = [sys.executable, '-m', 'xenpool_driver.cli.main']
        with (
            subprocess.Popen(
                [*program, *self._config, *words],
                env=self._env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
            self._watched(process.pid),
        ):
            out, err = process.communicate(timeout=LONGEST)
        self.commands += 1
        if process.returncode:
            self.troubles.append(
                f"{' '.join(words)}: status {process.returncode}: {err}"
            )
        return out

    @contextlib.contextmanager
    def service(self) -> collections.abc.Iterator[None]:
        """Run ``xenpool-compute`` for all hosts."""
        log = self._directory / 'service.log'
        with (
            log.open('w') as stream,
            subprocess.Popen(
                [
                    *(sys.executable, '-m', 'xenpool_driver.compute.service'),
                    *self._config,
                ],
                env=self._env,
                stderr=stream,
            ) as process,
        ):
            try:
                while 'Serving' not in log.read_text():
                    assert process.poll() is None, log.read_text()
                    self.over.wait(STEP)
                with self._watched(process.pid):
                    yield
                process.send_signal(signal.SIGTERM)
                assert process.wait(LONGEST) == 0, log.read_text()
            finally:
                process.kill()

    @contextlib.contextmanager
    def _watched(self, pid: int) -> collections.abc.Iterator[None]:
        with self._lock:
            self._running.add(pid)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(pid)

    def watch(self) -> None:
        """See whether a running process holds an unlinked file open.

        The service runs all the time: nobody is the last to close, and so
        nobody may unlink anything.
        """
        while not self.over.wait(STEP):
            with self._lock:
                running = list(self._running)
            for pid in running:
                for name in _open_files(pid):
                    if name.startswith(str(self.file)) and 'deleted' in name:
                        self.troubles.append(f"process {pid} holds {name}")
                        return


def _open_files(pid: int) -> collections.abc.Iterator[str]:
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{number}")


def creator(crowd: Crowd, number: int) -> None:
    """Create an aggregate."""
    name = f"new-{number}"
    crowd.run('aggregate', 'create', name)
    crowd.made['creator'].append(name)


def tidier(crowd: Crowd, number: int) -> None:
    """Create an aggregate and delete it."""
    name = f"short-{number}"
    crowd.run('aggregate', 'create', name)
    crowd.made['tidier'].append(name)
    crowd.run('aggregate', 'delete', name)
    crowd.deleted.add(name)


def reader(crowd: Crowd, number: int) -> None:
    """See all that was acknowledged before it looked."""
    before = set(crowd.made['creator'])
    listed = crowd.run('aggregate', 'list', '-f', 'value', '-c', 'Name')
    lost = before - set(listed.split())
    if lost:
        crowd.troubles.append(f"created, but not listed: {sorted(lost)}")
    crowd.run('operation', 'list')


def counter(crowd: Crowd, number: int) -> None:
    """Set the property of an aggregate to the next number."""
    crowd.run('aggregate', 'set', 'counted', '--property', f"n={number}")
    crowd.counts['counted'] = number


def operator(crowd: Crowd, number: int) -> None:
    """Form a pool of two hosts in a process of its own, and clear it."""
    first, second, _ = crowd.hosts
    crowd.run('aggregate', 'add', 'host', 'local', first, second)
    crowd.run(
        *('aggregate', 'remove', 'host', 'local', second, '--yes', '--wait')
    )
    crowd.run('aggregate', 'remove', 'host', 'local', first, '--yes')
    crowd.operations += ['set-up', 'join', 'eject', 'clear']


def client(crowd: Crowd, number: int) -> None:
    """Have the service form a pool of one host, and clear it."""
    host = crowd.hosts[2]
    crowd.run('aggregate', 'add', 'host', 'remote', host, '--remote')
    crowd.run(
        *('aggregate', 'remove', 'host', 'remote', host, '--yes', '--remote')
    )
    crowd.operations += ['set-up', 'clear']


USERS = (creator, tidier, reader, counter, operator, client)


def _use(
    crowd: Crowd, user: typing.Callable[[Crowd, int], None], until: float
) -> None:
    number = 0
    while number == 0 or (time.monotonic() < until and not crowd.troubles):
        number += 1
        try:
            user(crowd, number)
        except Exception as error:
            crowd.troubles.append(f"{user.__name__}: {error!r}")


@pytest.fixture
def crowd(
    tmp_path: pathlib.Path, rabbit_url: str
) -> collections.abc.Iterator[Crowd]:
    tag = uuid.uuid4().hex[:6]
    lab = cli_lab.described(
        tmp_path / 'topology.yaml',
        'pools:\n'
        + ''.join(f"  - hosts: [xen0{n}-{tag}]\n" for n in (1, 2, 3)),
        scale=60.0,
    )
    with lab:
        yield Crowd(lab, tmp_path, rabbit_url)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_that_was_acknowledged_is_lost(
    crowd: Crowd, profile: str
) -> None:
    for name in ('counted', 'local', 'remote'):
        crowd.run('aggregate', 'create', name)
    with crowd.service():
        until = time.monotonic() + SECONDS.get(profile, 10.0)
        watcher = threading.Thread(target=crowd.watch)
        users = [
            threading.Thread(target=_use, args=(crowd, user, until))
            for user in USERS
        ]
        for thread in (watcher, *users):
            thread.start()
        for thread in users:
            thread.join()
        crowd.over.set()
        watcher.join()
    assert crowd.troubles == []
    _assert_kept(crowd)
    print(f"{crowd.commands} commands")


def _assert_kept(crowd: Crowd) -> None:
    """Compare what is there with what was acknowledged."""
    listed = json.loads(crowd.run('aggregate', 'list', '--all', '-f', 'json'))
    states = {each['Name']: each['State'] for each in listed}
    made = {name for names in crowd.made.values() for name in names}
    assert set(states) == made | {'counted', 'local', 'remote'}
    gone = {name for name in states if states[name] == 'dismissed'}
    assert gone == crowd.deleted
    shown = json.loads(crowd.run('aggregate', 'show', 'counted', '-f', 'json'))
    assert shown['properties']['n'] == str(crowd.counts['counted'])
    operations = json.loads(
        crowd.run('operation', 'list', '--limit', '10000', '-f', 'json')
    )
    kinds = [each['Kind'] for each in operations if each['Kind'] != 'dismiss']
    assert sorted(kinds) == sorted(crowd.operations)
    assert {each['Outcome'] for each in operations} == {'succeeded'}
    assert crowd.troubles == []
    connection = sqlite3.connect(crowd.file)
    with contextlib.closing(connection):
        checked = connection.execute('PRAGMA integrity_check').fetchall()
    assert checked == [('ok',)]
