# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a watcher tells, records, and leaves alone."""

from __future__ import annotations

import collections.abc
import contextlib
import json
import pathlib
import queue
import signal
import subprocess
import sys
import time

import pytest

from tests import permits
from tests.functional import lab as labs
from tests.matrix import scenarios, stage
from xenpool_driver import conf as config
from xenpool_driver import pool_states
from xenpool_driver.compute import watcher
from xenpool_driver.simulator import mishaps

TWO, THREE = scenarios.TWO, scenarios.THREE

PATIENCE = 30.0
"""Seconds until what happens must have been told."""


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> collections.abc.Iterator[labs.Lab]:
    with labs.make(
        tmp_path, members=THREE, pool=THREE, free=('xen04', 'xen05')
    ) as found:
        yield found


class Ear:
    """Hears what a watcher tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self._queue: queue.SimpleQueue[watcher.Change] = queue.SimpleQueue()

    def hear(self, change: watcher.Change) -> None:
        self._queue.put(change)

    def wait(
        self, event: str, host: str | None = None, pool: str = 'rack1'
    ) -> str:
        """Wait until this is told; return of which host.

        :param host: None: any.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            for told in self.told:
                if told[:2] == (pool, event) and host in (None, told[2]):
                    return told[2]
            left = max(0.0, deadline - time.monotonic())
            try:
                change = self._queue.get(timeout=left)
            except queue.Empty:
                raise AssertionError(
                    f'{pool} {event} {host} is not told, but {self.told}'
                ) from None
            self.told.append((change.pool, change.event, change.host))

    @property
    def events(self) -> list[str]:
        """What was told so far."""
        return [event for _, event, _ in self.told]


@contextlib.contextmanager
def watching(
    lab: labs.Lab, *, alone: bool = False
) -> collections.abc.Iterator[Ear]:
    """Watch the lab's pool, until it is seen."""
    ear = Ear()
    conf = config.load([str(lab.stage.conf_file)])
    found = watcher.Watcher(
        conf, lab.stage.store, ear.hear, alone=alone, time=stage.FastClock()
    )
    found.start()
    try:
        ear.wait('found', 'xen01')
        yield ear
    finally:
        found.stop()


def recorded(lab: labs.Lab) -> str | None:
    """Return who is recorded as the master."""
    lab.row.refresh()
    return lab.row.metadata.get(pool_states.MASTER)


def test_a_master_that_somebody_moved_is_told_and_recorded(
    lab: labs.Lab,
) -> None:
    with watching(lab) as ear:
        labs.designate(lab, 'xen02')
        ear.wait('master', 'xen02')
        ear.wait('recorded', 'xen02')

    assert recorded(lab) == 'xen02'
    assert lab.stage.store.list_operations() == []
    labs.agree(lab)


def test_nothing_but_the_master_is_corrected(lab: labs.Lab) -> None:
    """What else is wrong is for a person and an audit."""
    uuids = {'xen03': None}
    lab.stage.store.update_metadata(lab.row.uuid, lab.row.generation, uuids)

    with watching(lab) as ear:
        labs.designate(lab, 'xen02')
        ear.wait('recorded', 'xen02')

    assert recorded(lab) == 'xen02'
    assert 'xen03' not in lab.row.metadata
    assert sorted(lab.row.hosts) == list(THREE)


def test_a_dead_master_is_told_of_and_waited_for(lab: labs.Lab) -> None:
    """Nobody is promoted unasked."""
    with watching(lab) as ear:
        mishaps.kill(lab.stage.machine('xen01'))
        ear.wait('lost', '')
        mishaps.power_on(lab.stage.machine('xen01'))
        ear.told.remove(('rack1', 'found', 'xen01'))
        ear.wait('found', 'xen01')
        assert ear.events.count('lost') == 1
        assert 'recorded' not in ear.events


def test_the_master_that_ha_elects_is_found_from_a_member(
    tmp_path: pathlib.Path,
) -> None:
    with (
        labs.make(
            tmp_path, members=THREE, pool=THREE, prepare=scenarios.switch_ha_on
        ) as lab,
        watching(lab) as ear,
    ):
        mishaps.kill(lab.stage.machine('xen01'))
        elected = ear.wait('recorded')
        assert elected in ('xen02', 'xen03')
        assert ('rack1', 'master', elected) in ear.told
        assert recorded(lab) == elected


def test_hosts_that_come_and_go_are_told(lab: labs.Lab) -> None:
    with watching(lab) as ear:
        lab.driver.add_to_aggregate(None, lab.row, 'xen04')
        ear.wait('joined', 'xen04')
        ear.wait('enabled', 'xen04')
        master = lab.driver.site.connections.client('xen01')
        permits.changing_pool(master).disable_host(
            lab.stage.machine('xen02').uuid
        )
        ear.wait('disabled', 'xen02')
        lab.driver.remove_from_aggregate(
            None, lab.row, 'xen03', allow_data_loss=True
        )
        ear.wait('left', 'xen03')
        assert 'recorded' not in ear.events


def test_hosts_in_no_aggregate_are_watched_when_wanted(lab: labs.Lab) -> None:
    with watching(lab, alone=True) as ear:
        ear.wait('found', 'xen04', 'xen04')
        ear.wait('found', 'xen05', 'xen05')
        mishaps.kill(lab.stage.machine('xen05'))
        ear.wait('lost', '', 'xen05')
        mishaps.power_on(lab.stage.machine('xen05'))
        ear.told.remove(('xen05', 'found', 'xen05'))
        ear.wait('found', 'xen05', 'xen05')


def test_idle_it_makes_no_calls_but_the_long_one(lab: labs.Lab) -> None:
    with watching(lab, alone=True) as ear:
        ear.wait('found', 'xen04', 'xen04')
        ear.wait('found', 'xen05', 'xen05')
        lab.stage.simulation.faults.executed.clear()
        began = time.monotonic()
        clock = stage.FastClock()
        clock.sleep(60.0)
        passed = (time.monotonic() - began) * stage.SCALE
        calls = dict(lab.stage.simulation.faults.executed)

    assert {host for host, _ in calls} == {'xen01', 'xen04', 'xen05'}
    assert {method for _, method in calls} == {'event.from'}
    assert max(calls.values()) <= 1 + passed / watcher.BREATH


def test_the_command_prints_lines_until_it_is_stopped(
    lab: labs.Lab,
) -> None:
    command = [
        *(sys.executable, '-m', 'xenpool_driver.cli.main'),
        *('--config-file', str(lab.stage.conf_file)),
        *('watch', 'rack1', '-f', 'json'),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            assert first['pool'] == 'rack1'
            assert (first['event'], first['host']) == ('found', 'xen01')
            assert first['text'] == 'xen01 is master of 3'
            labs.designate(lab, 'xen03')
            events = []
            while 'recorded' not in events:
                events.append(json.loads(process.stdout.readline())['event'])
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert 'master' in events
    assert recorded(lab) == 'xen03'


def test_a_service_watches_when_it_is_told_to(lab: labs.Lab) -> None:
    service = pytest.importorskip(
        'xenpool_driver.compute.service', reason='needs the extra [service]'
    )
    path = lab.stage.directory / 'service.conf'
    path.write_text(
        lab.stage.conf_file.read_text()
        .replace('[DEFAULT]', '[DEFAULT]\ntransport_url = fake://')
        .replace('[xenpool]', '[xenpool]\nwatch_pools = true')
    )
    running = service.ComputeService(config.load([str(path)]))
    running.start()
    try:
        labs.designate(lab, 'xen02')
        deadline = time.monotonic() + PATIENCE
        while recorded(lab) != 'xen02':
            assert time.monotonic() < deadline, 'not recorded'
            time.sleep(0.05)
    finally:
        assert running.stop()
