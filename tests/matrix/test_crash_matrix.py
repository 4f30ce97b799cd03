# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Kill the worker at every point of every request; another one settles it.

The points are the writes to the journal and the calls to XAPI; at each the
worker is killed (SIGKILL, a real process) before it and after it.
"""

from __future__ import annotations

import multiprocessing
import sys

import pytest

from tests.matrix import judge, scenarios, stage, worker
from xenpool_driver import exceptions, pool_states

FORKSERVER = multiprocessing.get_context('forkserver')
FORKSERVER.set_forkserver_preload(['tests.matrix.worker'])

Fuse = tuple[int, str]

SAMPLE = 4
"""Cells of each request in the reduced profile."""

CI = ('first host', 'join', 'eject', 'set master')
"""The requests of the reduced profile."""


def send(
    where: stage.Stage,
    fuse: Fuse | None,
    reads: bool,
    recover: bool = False,
) -> worker.Report | None:
    """Run a worker; None when it was killed."""
    mine, its = FORKSERVER.Pipe(duplex=False)
    process = FORKSERVER.Process(
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
        *judge.unwell(where),
        *not_allowed(where),
    ]


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


def dry_run(kept: stage.Kept, name: str, reads: bool) -> list[str]:
    """Return the points of a request that nobody disturbs."""
    with stage.Stage(scenarios.SCENARIOS[name], kept) as where:
        report = send(where, None, reads)
        assert report is not None
        assert not report.error
        where.await_quiet()
        assert complaints(where) == []
        assert is_done(where)
    return report.points


def run_cell(
    kept: stage.Kept,
    name: str,
    fuse: Fuse,
    reads: bool,
    second: Fuse | None = None,
) -> tuple[bool, list[str]]:
    """Kill a worker at a point, let another one settle it, and judge.

    :param second: where the worker that settles it is killed, too, before a
        third one does.
    :returns: whether the last point was reached, and what is wrong.
    """
    with stage.Stage(scenarios.SCENARIOS[name], kept) as where:
        report = send(where, fuse, reads)
        if second is not None:
            report = send(where, second, False, recover=True)
        settle(where, by_start=fuse[0] % 2 == 0)
        where.await_quiet()
        found = complaints(where) or ask_again(where)
        if found:
            found += judge.story(where)
    return report is None, found


def cells(points: list[str], limit: int | None) -> list[Fuse]:
    """Return every point, before and after it; or as many as wanted."""
    fuses = [
        (number, moment)
        for number in range(1, len(points) + 1)
        for moment in (worker.BEFORE, worker.AFTER)
    ]
    if limit is None or len(fuses) <= limit:
        return fuses
    step = len(fuses) / limit
    return [fuses[int(index * step)] for index in range(limit)]


@pytest.mark.matrix
@pytest.mark.timeout(7200)
@pytest.mark.parametrize('name', scenarios.SCENARIOS)
def test_killed_anywhere_and_settled(
    kept: stage.Kept,
    profile: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if profile != 'matrix' and name not in CI:
        pytest.skip('part of the whole matrix only')
    whole = profile == 'matrix'
    points = dry_run(kept, name, whole)
    fuses = cells(points, None if whole else SAMPLE)
    missed = 0
    failures = []
    for fuse in fuses:
        reached, found = run_cell(kept, name, fuse, whole)
        missed += not reached
        if found:
            number, moment = fuse
            failures.append(
                f'{moment} {points[number - 1]} ({number}): '
                + '; '.join(found)
            )
    tell(capsys, f'crash matrix, {name}', len(fuses), missed, len(failures))
    assert len(fuses) > missed
    assert not failures, '\n'.join(failures)


def tell(
    capsys: pytest.CaptureFixture[str],
    what: str,
    run: int,
    missed: int,
    failed: int,
) -> None:
    """Print how many cells a matrix has."""
    with capsys.disabled():
        print(
            f'\n{what}: {run} cells, {missed} of them after the end, '
            f'{failed} failed',
            file=sys.stderr,
        )


def changes_of(points: list[str]) -> list[Fuse]:
    """Return the points behind each call that changes something."""
    return [
        (number, worker.AFTER)
        for number, point in enumerate(points, 1)
        if point.startswith('change ')
    ]


def recovery_points(kept: stage.Kept, name: str, first: Fuse) -> list[str]:
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
    if profile != 'matrix':
        pytest.skip('part of the whole matrix only')
    points = dry_run(kept, name, False)
    run = missed = 0
    failures = []
    for first in changes_of(points) or [(1, worker.AFTER)]:
        told = recovery_points(kept, name, first)
        for second in cells(told, None):
            reached, found = run_cell(kept, name, first, False, second)
            run += 1
            missed += not reached
            if found:
                failures.append(
                    f'after {points[first[0] - 1]}, then {second[1]} '
                    f'{told[second[0] - 1]}: ' + '; '.join(found)
                )
    tell(capsys, f'recovery matrix, {name}', run, missed, len(failures))
    assert run > missed
    assert not failures, '\n'.join(failures)
