# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Let a worker stand still at every point of every request; another one
settles it, then the first goes on.

The points are those of the crash matrix, and the last moment of each change:
its connection is open, and it has not been asked yet, or just been asked,
whether it may still be sent. Nothing that the first worker asks for
afterwards is carried out, and aggregate and pool agree.
"""

from __future__ import annotations

import os
import signal
import time
import typing

import pytest

from tests.matrix import (
    crowd,
    judge,
    scenarios,
    stage,
    test_crash_matrix,
    worker,
)
from xenpool_driver.simulator import errors

SAMPLE = 4
"""Cells of each request in the reduced profile."""

STOPPED = 3
"""Cells of each request with a process that is really stopped, in any
profile."""

SHORT_LEASE = 2.0
"""Seconds that a lease holds where nobody's clock is moved."""

PATIENCE = 120.0
"""Seconds for a worker to come to a point, or to the end."""


class Cell(typing.NamedTuple):
    """A worker stands still, another one settles it, the first goes on.

    :ivar name: of the request.
    :ivar fuse: where the worker stands still.
    :ivar freeze: how.
    :ivar reads: whether calls that change nothing are points, too.
    :ivar by_start: whether the other one settles it as it starts, rather
        than because it is told to.
    :ivar certain: whether each undisturbed run has that point.
    """

    name: str
    fuse: worker.Fuse
    freeze: str
    reads: bool = False
    by_start: bool = False
    certain: bool = True

    def __str__(self) -> str:
        return f'{self.fuse}; frozen {self.freeze}'

    @property
    def is_fleeting(self) -> bool:
        """Whether its point is a read that a run need not make."""
        point = self.fuse.point
        return point.is_read and not (self.certain and point.number == 1)


class Witness:
    """Notes which operation had a host carry out a change.

    :param where: the site.
    """

    def __init__(self, where: stage.Stage) -> None:
        self.changes: list[tuple[str, str]] = []
        where.simulation.faults.witness = self._note

    def _note(self, host: str, call: typing.Any) -> None:
        if not judge.is_change(call.name):
            return
        try:
            originator = call.originator
        except errors.ApiError:  # a login to the host itself
            originator = ''
        operation = originator.partition('/')[2]
        self.changes.append((operation, f'{call.name} @{host}'))


class Frozen:
    """A worker that was sent to make a request.

    :param where: the site.
    :param cell: where it stands still.
    """

    def __init__(
        self,
        where: stage.Stage,
        name: str,
        fuse: worker.Fuse | None,
        freeze: str,
        reads: bool,
    ) -> None:
        self._freeze = freeze
        self._pipe, its = crowd.FORKSERVER.Pipe()
        self._process = crowd.FORKSERVER.Process(
            target=worker.run,
            args=(
                str(where.conf_file),
                name,
                False,
                fuse,
                reads,
                its,
                freeze,
            ),
        )
        self._process.start()
        its.close()

    def hear(self) -> typing.Any:
        """Return what the worker says: that it stands still, or its end."""
        assert self._pipe.poll(PATIENCE), 'the worker keeps silent'
        return self._pipe.recv()

    def await_stop(self) -> None:
        """Return when the process is stopped.

        :raises AssertionError: it is not in time.
        """
        deadline = time.monotonic() + PATIENCE
        while self._freeze == worker.STOP and not self._is_stopped():
            assert time.monotonic() < deadline, 'the worker does not stop'
            time.sleep(0.01)

    def _is_stopped(self) -> bool:
        with open(f'/proc/{self._process.pid}/stat') as stream:
            return stream.read().rpartition(')')[2].split()[0] == 'T'

    def thaw(self, passed: float) -> None:
        """Let the worker go on.

        :param passed: seconds that it finds to have passed.
        """
        if self._freeze == worker.STOP:
            assert self._process.pid is not None
            os.kill(self._process.pid, signal.SIGCONT)
        else:
            self._pipe.send(passed)

    def close(self) -> None:
        """See the process end."""
        self._process.join(PATIENCE)
        ended = self._process.exitcode
        if ended is None:
            self._process.kill()
            self._process.join()
        assert ended == 0, f'the worker ended: {ended}'
        self._process.close()


def settle(where: stage.Stage, cell: Cell) -> None:
    """Let another worker settle what the first has left."""
    if cell.freeze == worker.CLOCK:
        test_crash_matrix.settle(where, cell.by_start)
        return
    deadline = time.monotonic() + PATIENCE
    while len(where.store.running_operations()) > len(
        where.store.expired_operations()
    ):
        assert time.monotonic() < deadline, 'its lease does not run out'
        time.sleep(0.05)
    driver, _ = stage.open_driver(str(where.conf_file))
    try:
        driver.recover_aggregate(None, judge.current(where))
    finally:
        driver.close()


def run_cell(kept: stage.Kept, cell: Cell) -> crowd.Result:
    """Freeze a worker at a point, settle, thaw it, and judge."""
    options = {}
    if cell.freeze == worker.STOP:
        options = {'lease_duration': SHORT_LEASE}
    scenario = scenarios.SCENARIOS[cell.name]
    with stage.Stage(scenario, kept, options) as where:
        witness = Witness(where)
        first = Frozen(where, cell.name, cell.fuse, cell.freeze, cell.reads)
        reached = first.hear() == worker.FROZEN
        found: list[str] = []
        if reached:
            first.await_stop()
            settle(where, cell)
            begun = {one.uuid for one in where.store.list_operations()}
            before = len(witness.changes)
            first.thaw(stage.LATEST)
            error = first.hear().error
            where.await_quiet()
            found += [
                f'{call} was carried out for {operation or "nobody"} when '
                f'that was settled ({error})'
                for operation, call in witness.changes[before:]
                if operation in begun or (begun and not operation)
            ]
        first.close()
        where.await_quiet()
        found += test_crash_matrix.complaints(where)
        done = test_crash_matrix.is_done(where)
        found = found or test_crash_matrix.ask_again(where)
        if found:
            found += judge.story(where)
    return crowd.Result(reached, 'done' if done else 'undone', found)


def dry_run(kept: stage.Kept, name: str, reads: bool) -> list[worker.Point]:
    """Return the points of a request that nobody disturbs."""
    with stage.Stage(scenarios.SCENARIOS[name], kept) as where:
        whole = Frozen(where, name, None, worker.CLOCK, reads)
        report: worker.Report = whole.hear()
        whole.close()
        assert not report.error
    return report.points


@pytest.mark.matrix
@pytest.mark.timeout(7200)
@pytest.mark.parametrize('name', scenarios.SCENARIOS)
def test_frozen_anywhere_settled_and_thawed(
    kept: stage.Kept,
    profile: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = profile == 'matrix'
    if not whole and name not in test_crash_matrix.CI:
        pytest.skip('part of the whole matrix only')
    surveys = crowd.SURVEYS if whole else 1
    points = crowd.all_points(
        [dry_run(kept, name, whole) for _ in range(surveys)]
    )
    cells = [
        Cell(
            name,
            fuse,
            worker.CLOCK,
            whole,
            index // 2 % 2 == 0,
            points[fuse.point],
        )
        for index, fuse in enumerate(test_crash_matrix.fuses(points))
    ]
    tally = crowd.Tally(f'frozen matrix, {name}')
    cells = crowd.sample(cells, None if whole else SAMPLE)
    crowd.run_all(tally, run_cell, cells, capsys)


@pytest.mark.matrix
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('name', test_crash_matrix.CI)
def test_a_process_that_is_really_stopped(
    kept: stage.Kept, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = crowd.all_points([dry_run(kept, name, False)])
    last = [
        fuse
        for fuse in test_crash_matrix.fuses(points)
        if fuse.point.name.startswith(worker.BYTE)
        and 'task.' not in fuse.point.name
        and fuse.moment == worker.AFTER
    ]
    others = [
        fuse for fuse in test_crash_matrix.fuses(points) if fuse not in last
    ]
    drawn = [last[0], *crowd.sample(others, STOPPED - 1)]
    cells = [Cell(name, fuse, worker.STOP) for fuse in drawn]
    crowd.run_all(
        crowd.Tally(f'stopped processes, {name}'), run_cell, cells, capsys
    )
