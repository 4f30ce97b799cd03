# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Kill the worker at every point of every request; another one settles it.

The points are the writes to the journal and the calls to XAPI; at each the
worker is killed (SIGKILL, a real process) before it and after it.
"""

from __future__ import annotations

import collections.abc
import typing

import pytest

from tests.matrix import crowd, judge, scenarios, stage, worker
from xenpool_driver import exceptions, pool_states

SAMPLE = 4
"""Cells of each request in the reduced profile."""

CI = ('first host', 'join', 'eject', 'set master')
"""The requests of the reduced profile."""


class Cell(typing.NamedTuple):
    """A worker is killed, and another one settles what it left behind.

    :ivar name: of the request.
    :ivar fuse: where the worker is killed.
    :ivar reads: whether calls that change nothing are points, too.
    :ivar by_start: whether the other one settles it as it starts, rather
        than because it is told to.
    :ivar second: where the worker that settles it is killed, too, before a
        third one does; None: nowhere.
    :ivar certain: whether each undisturbed run has that point.
    """

    name: str
    fuse: worker.Fuse
    reads: bool = True
    by_start: bool = False
    second: worker.Fuse | None = None
    certain: bool = True

    def __str__(self) -> str:
        how = 'at its start' if self.by_start else 'as it is told'
        then = f', then {self.second}' if self.second else ''
        return f'{self.fuse}{then}; settled by another {how}'

    @property
    def is_fleeting(self) -> bool:
        """Whether its point is a read that a run need not make."""
        point = (self.second or self.fuse).point
        return point.is_read and not (self.certain and point.number == 1)


def send(
    where: stage.Stage,
    fuse: worker.Fuse | None,
    reads: bool,
    recover: bool = False,
) -> worker.Report | None:
    """Run a worker; None when it was killed."""
    mine, its = crowd.FORKSERVER.Pipe(duplex=False)
    process = crowd.FORKSERVER.Process(
        target=worker.run,
        args=(
            str(where.conf_file),
            where.scenario.name,
            recover,
            fuse,
            reads,
            its,
        ),
    )
    process.start()
    its.close()
    try:
        report: worker.Report | None = mine.recv()
    except EOFError:
        report = None
    process.join()
    killed = process.exitcode == -9
    assert killed == (report is None), f'the worker ended: {process.exitcode}'
    process.close()
    return report


def settle(where: stage.Stage, by_start: bool) -> None:
    """Let a last worker settle what lies expired."""
    driver, _ = stage.open_driver(str(where.conf_file), stage.LATEST)
    try:
        if by_start:
            for host in where.machines:
                driver.init_host(host)
        else:
            driver.recover_aggregate(None, judge.current(where))
    finally:
        driver.close()


def ask_again(where: stage.Stage) -> list[str]:
    """Ask for the same once more, unless it is done; return what fails."""
    if is_done(where):
        return []
    driver, _ = stage.open_driver(str(where.conf_file), stage.LATEST)
    try:
        where.scenario.request(driver, judge.current(where))
    except exceptions.XenpoolError as error:
        return [f'asked again: {error}']
    finally:
        driver.close()
    where.await_quiet()
    found = [*judge.unfinished(where), *judge.disagreements(where)]
    return found if is_done(where) else [*found, 'asked again: not done']


def complaints(where: stage.Stage) -> list[str]:
    """Return everything that is not as it must be in the end."""
    return [
        *judge.unfinished(where),
        *judge.twice(where),
        *judge.disagreements(where),
        *judge.unwell(where).values(),
        *not_allowed(where),
        *masterless(where),
    ]


def masterless(where: stage.Stage) -> list[str]:
    """Return that the pool has no master, if it had one before."""
    had = where.scenario.prepare is not scenarios.kill_master
    return ['no master'] if had and judge.truth(where) is None else []


End = tuple[tuple[str, ...], str | None, str]
"""How an aggregate can end: hosts, master, state."""


def end_of(where: stage.Stage) -> End:
    """Return how the aggregate ends."""
    row = judge.current(where)
    master = row.metadata.get(pool_states.MASTER)
    return tuple(sorted(row.hosts)), master, row.state


def is_done(where: stage.Stage) -> bool:
    """Say whether the aggregate is as was asked for."""
    scenario = where.scenario
    if judge.current(where).name != scenario.called:
        return False
    return end_of(where) == (scenario.after, scenario.master, scenario.end)


def not_allowed(where: stage.Stage) -> list[str]:
    """Return why the end is none of those that the request may have.

    There are two: all of it was done, or nothing. To remove the master are
    two requests.
    """
    scenario = where.scenario
    first = scenario.members[0] if scenario.members else None
    ends: list[End] = [(scenario.members, first, scenario.state)]
    if scenario.name == 'remove master':
        ends.append((scenario.members, 'xen02', pool_states.ACTIVE))
    here = end_of(where)
    if is_done(where) or here in ends:
        return []
    return [f'ends as {here}, which nobody asked for']


def dry_run(kept: stage.Kept, name: str, reads: bool) -> list[worker.Point]:
    """Return the points of a request that nobody disturbs."""
    with stage.Stage(scenarios.SCENARIOS[name], kept) as where:
        report = send(where, None, reads)
        assert report is not None
        assert not report.error
        where.await_quiet()
        assert complaints(where) == []
        assert is_done(where)
    return report.points


def run_cell(kept: stage.Kept, cell: Cell) -> crowd.Result:
    """Kill a worker at a point, let another one settle it, and judge."""
    with stage.Stage(scenarios.SCENARIOS[cell.name], kept) as where:
        report = send(where, cell.fuse, cell.reads)
        if cell.second is not None and report is None:
            report = send(where, cell.second, False, recover=True)
        settle(where, cell.by_start)
        where.await_quiet()
        found = complaints(where)
        ending = 'done' if is_done(where) else 'undone'
        found = found or ask_again(where)
        if found:
            found += judge.story(where)
    return crowd.Result(report is None, ending, found)


def fuses(
    points: collections.abc.Iterable[worker.Point],
) -> list[worker.Fuse]:
    """Return before and after each point."""
    return [
        worker.Fuse(point, moment)
        for point in points
        for moment in (worker.BEFORE, worker.AFTER)
    ]


@pytest.mark.matrix
@pytest.mark.timeout(7200)
@pytest.mark.parametrize('name', scenarios.SCENARIOS)
def test_killed_anywhere_and_settled(
    kept: stage.Kept,
    profile: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = profile == 'matrix'
    if not whole and name not in CI:
        pytest.skip('part of the whole matrix only')
    surveys = crowd.SURVEYS if whole else 1
    points = crowd.all_points(
        [dry_run(kept, name, whole) for _ in range(surveys)]
    )
    cells = [
        Cell(
            name, fuse, whole, index // 2 % 2 == 0, certain=points[fuse.point]
        )
        for index, fuse in enumerate(fuses(points))
    ]
    tally = crowd.Tally(f'crash matrix, {name}')
    cells = crowd.sample(cells, None if whole else SAMPLE)
    crowd.run_all(tally, run_cell, cells, capsys)


def recovery_points(
    kept: stage.Kept, name: str, first: worker.Fuse
) -> list[worker.Point]:
    """Return the points of a recovery that nobody disturbs."""
    with stage.Stage(scenarios.SCENARIOS[name], kept) as where:
        assert send(where, first, False) is None
        report = send(where, None, False, recover=True)
        assert report is not None
        where.await_quiet()
        assert complaints(where) == []
    return report.points


@pytest.mark.matrix
@pytest.mark.timeout(7200)
@pytest.mark.parametrize('name', scenarios.SCENARIOS)
def test_killed_while_settling_and_settled_again(
    kept: stage.Kept,
    profile: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first worker is killed behind each call that changes something."""
    if profile != 'matrix':
        pytest.skip('part of the whole matrix only')
    points = dry_run(kept, name, False)
    firsts = [point for point in points if point.changes] or points[:1]
    cells = []
    for point in firsts:
        first = worker.Fuse(point, worker.AFTER)
        told = crowd.all_points([recovery_points(kept, name, first)])
        cells += [Cell(name, first, False, second=it) for it in fuses(told)]
    crowd.run_all(
        crowd.Tally(f'recovery matrix, {name}'), run_cell, cells, capsys
    )
