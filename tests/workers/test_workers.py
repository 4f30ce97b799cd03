# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Many workers on the same aggregates at once; some are killed on the way.

Each is a process of its own that adds and removes hosts and moves masters as
it likes. Now and then one is killed (SIGKILL) and another one started in its
place. In the end all is recovered and audited, and must be as if they had
never been in each other's way.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import json
import multiprocessing
import multiprocessing.process
import pathlib
import random
import signal
import sys
import time
import typing

import pytest

from tests.model import judge as model_judge
from tests.workers import clock, judge, worker
from tests.workers import yard as yards
from xenpool_driver import conf as config
from xenpool_driver import driver

FORKSERVER = multiprocessing.get_context('forkserver')
FORKSERVER.set_forkserver_preload(['tests.workers.worker'])

LAST = 0.5
"""Seconds before its time is up that the last worker is killed."""

PATIENCE = 60.0
"""Seconds in which a worker must be done with its last request."""

ROUNDS = 6
"""How often the workers go on when a slow machine has not let them do all
that is wanted."""


class Plan(typing.NamedTuple):
    """How much is wanted.

    :ivar workers: how many there are at the same time.
    :ivar seconds: for how long they go on asking.
    :ivar lease: seconds.
    :ivar pause: seconds between two kills, about.
    """

    workers: int
    seconds: float
    lease: float
    pause: float


PLANS = {
    'default': Plan(4, 4.0, 2.0, 1.5),
    'ci': Plan(4, 8.0, 2.0, 2.0),
    'matrix': Plan(8, 60.0, 4.0, 3.0),
}

WANTED = {
    'default': (),
    'ci': ('join succeeded',),
    'matrix': (
        'join succeeded',
        'eject succeeded',
        'set-master succeeded',
        'clear succeeded',
        'pairs of joins at once',
        'takeovers',
    ),
}
"""What must have happened at all."""


@dataclasses.dataclass
class Crew:
    """The workers.

    :param yard: where they work.
    :param plan: how many, and for how long.
    :param notes: the directory of what they write down.
    """

    yard: yards.Yard
    plan: Plan
    notes: pathlib.Path
    kills: int = 0
    complaints: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._until = 0.0
        self._seeds = iter(range(10_000))
        self._random = random.Random(1)
        self._working: list[multiprocessing.process.BaseProcess] = []

    def _hire(self) -> multiprocessing.process.BaseProcess:
        """Start a worker."""
        seed = next(self._seeds)
        process = FORKSERVER.Process(
            target=worker.run,
            args=(
                str(self.yard.path),
                yards.AGGREGATES,
                seed,
                self._until,
                self.notes / f'{seed:04}.notes',
            ),
        )
        process.start()
        return process

    def work(self, wanted: collections.abc.Collection[str]) -> dict[str, int]:
        """Let them work for the plan's time; again while not all is done.

        :param wanted: what must have happened.
        :returns: what was done, in figures.
        """
        for _ in range(ROUNDS):
            self._until = time.monotonic() + self.plan.seconds
            self._working = [self._hire() for _ in range(self.plan.workers)]
            self._watch()
            counts = progress(self)
            if counts['done'] >= self.plan.workers and all(
                counts.get(what) for what in wanted
            ):
                return

    def _watch(self) -> None:
        """Kill now and then, until time is up; wait until all have ended."""
        kill_at = time.monotonic() + self.plan.pause
        last = self._until - LAST
        while (now := time.monotonic()) < last:
            time.sleep(0.2)
            self.complaints += judge.at_any_time(self.yard)
            if now >= kill_at:
                number = self._random.randrange(len(self._working))
                self._kill(self._working[number])
                self._working[number] = self._hire()
                kill_at += self.plan.pause * self._random.uniform(0.5, 1.5)
        self._kill(self._working.pop())
        self._end()

    def _kill(self, process: multiprocessing.process.BaseProcess) -> None:
        process.kill()
        process.join()
        self.kills += process.exitcode == -signal.SIGKILL
        self._judge(process)

    def _end(self) -> None:
        """Wait for all; nobody may hang."""
        deadline = time.monotonic() + PATIENCE
        for process in self._working:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                self.complaints.append(f'{process.name} hangs')
                self._kill(process)
            self._judge(process)

    def _judge(self, process: multiprocessing.process.BaseProcess) -> None:
        """Complain of one that ended by itself, and not because it was
        done."""
        if process.exitcode not in (0, -signal.SIGKILL):
            self.complaints.append(
                f'{process.name} ended with {process.exitcode}'
            )

    def told(self) -> list[worker.Told]:
        """Return what the workers have written down."""
        return [
            worker.Told(*json.loads(line))
            for path in sorted(self.notes.iterdir())
            for line in path.read_text().splitlines()
        ]


def settle(yard: yards.Yard, lease: float) -> None:
    """Recover and audit everything, once, as an operator does."""
    conf = config.load([str(yard.path)])
    plugin = driver.XenAPIPoolDriver(
        conf=conf, database=yard.store, time=clock.FastClock()
    )
    time.sleep(lease)
    for row in yard.store.list_aggregates():
        plugin.recover_aggregate(None, row)
    deadline = time.monotonic() + PATIENCE
    while judge.unwell(yard) or not model_judge.is_quiet(yard):
        assert time.monotonic() < deadline, f'no rest: {judge.unwell(yard)}'
        time.sleep(0.1)
    for row in yard.store.list_aggregates():
        plugin.audit_aggregate(None, row, fix=True)
    plugin.site.connections.close()


def unwanted(
    told: collections.abc.Iterable[worker.Told], lease: float
) -> list[str]:
    """Return what no worker may have met."""
    return [
        f'{one.text}: {one.outcome} {one.reason}, waited {one.wait:.1f} s'
        for one in told
        if one.outcome == 'broken' or one.wait >= lease
    ]


def progress(crew: Crew) -> dict[str, int]:
    """Return what was done, in figures."""
    operations = crew.yard.operations()
    told = crew.told()
    counts = collections.Counter(one.outcome for one in told)
    counts.update(
        f'refused: {one.error}' for one in told if one.outcome == 'refused'
    )
    counts.update(f'{one.kind} {one.outcome}' for one in operations)
    for one in told:
        counts.update(
            {f'begun anew ({why})': n for why, n in one.retries.items()}
        )
    counts['kills'] = crew.kills
    counts['changing calls'] = sum(
        calls.total() for calls in crew.yard.executed.values()
    )
    counts['takeovers'] = sum(
        line.phase == 'taken-over'
        for one in operations
        for line in crew.yard.store.phases(one.uuid)
    )
    counts['pairs of joins at once'] = judge.joins_at_once(operations)
    return dict(counts)


def story(yard: yards.Yard) -> collections.abc.Iterator[str]:
    """Tell what the journal has, and what the hosts are now."""
    for one in yard.operations():
        yield (
            f'{one.uuid[:8]} {one.kind} {one.host} of '
            f'{one.aggregate_uuid[:8]}: {one.outcome} {one.error or ""}'
        )
        for line in yard.store.phases(one.uuid):
            yield f'    {line.at:.3f} {line.phase} {line.note} ({line.owner})'
    for row in yard.store.list_aggregates(dismissed=True):
        yield f'{row.uuid[:8]} {row.name} {row.hosts} {row.metadata}'
    for pool in model_judge.pools(yard):
        yield f'{pool}'


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nobody_is_in_anybodys_way(
    database_url: str,
    tmp_path: pathlib.Path,
    profile: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind = request.node.callspec.params['database_url']
    if profile == 'default' and kind != 'sqlite':
        pytest.skip('ci and matrix try it on this database')
    plan = PLANS[profile]
    notes = tmp_path / 'notes'
    notes.mkdir()
    with yards.opened(database_url, tmp_path, plan.lease) as yard:
        crew = Crew(yard, plan, notes)
        crew.work(WANTED[profile])
        settle(yard, plan.lease)
        told = crew.told()
        complaints = [
            *crew.complaints,
            *unwanted(told, plan.lease),
            *judge.in_the_end(yard),
        ]
        counts = progress(crew)
        figures = ', '.join(
            f'{n} {what}' for what, n in sorted(counts.items())
        )
        wait = max(one.wait for one in told)
        with capsys.disabled():
            print(
                f'\n{plan.workers} workers, {plan.seconds:g} s, {kind}: '
                f'{figures}; longest wait for the database {wait:.2f} s',
                file=sys.stderr,
            )
        assert not complaints, '\n'.join([*complaints, *story(yard)])
        assert counts['done'] >= plan.workers
        for what in WANTED[profile]:
            assert counts.get(what), f'no {what}'
