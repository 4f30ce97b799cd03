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
from xenpool_driver import pool_states

FORKSERVER = multiprocessing.get_context('forkserver')
FORKSERVER.set_forkserver_preload(['tests.matrix.worker'])

Fuse = tuple[int, str]

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
    """Let a second worker settle what lies expired."""
    driver, database = stage.open_driver(
        str(where.conf_file), ahead=2 * stage.LEASE
    )
    try:
        if by_start:
            for host in where.machines:
                driver.init_host(host)
        else:
            row = database.get_aggregate(scenarios.AGGREGATE, dismissed=True)
            driver.recover_aggregate(None, row)
    finally:
        driver.close()


def complaints(where: stage.Stage) -> list[str]:
    """Return everything that is not as it must be in the end."""
    return [
        *judge.unfinished(where),
        *judge.twice(where),
        *judge.disagreements(where),
        *judge.unwell(where),
        *not_allowed(where),
    ]


def not_allowed(where: stage.Stage) -> list[str]:
    """Return why the end is none of those that the request may have.

    There are two: all of it was done, or nothing.
    """
    scenario = where.scenario
    row = judge.current(where)
    if not scenario.after and scenario.members and not row.hosts:
        return [] if row.state == pool_states.ACTIVE else [f'is {row.state}']
    if scenario.name == 'dismiss':
        good = row.state in (pool_states.ACTIVE, pool_states.DISMISSED)
        return [] if good else [f'is {row.state}']
    master = row.metadata.get(pool_states.MASTER)
    here = (tuple(sorted(row.hosts)), master, row.state)
    done = (scenario.after, scenario.master, pool_states.ACTIVE)
    first = scenario.members[0] if scenario.members else None
    undone = (scenario.members, first, scenario.state)
    steps = [done, undone]
    if scenario.name == 'remove master':
        steps.append((scenario.members, 'xen02', pool_states.ACTIVE))
    return [] if here in steps else [f'ends as {here}, not one of {steps}']


def dry_run(kept: stage.Kept, name: str, reads: bool) -> list[str]:
    """Return the points of a request that nobody disturbs."""
    with stage.Stage(scenarios.SCENARIOS[name], kept) as where:
        report = send(where, None, reads)
        assert report is not None
        assert not report.error
        where.await_quiet()
        assert complaints(where) == []
        row = judge.current(where)
        assert tuple(sorted(row.hosts)) == scenarios.SCENARIOS[name].after
    return report.points


def run_cell(
    kept: stage.Kept, name: str, fuse: Fuse, reads: bool
) -> tuple[bool, list[str]]:
    """Kill a worker at a point, let another one settle it, and judge.

    :returns: whether the point was reached, and what is wrong.
    """
    with stage.Stage(scenarios.SCENARIOS[name], kept) as where:
        report = send(where, fuse, reads)
        settle(where, by_start=fuse[0] % 2 == 0)
        where.await_quiet()
        found = complaints(where)
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
    fuses = cells(points, None if whole else 6)
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
    with capsys.disabled():
        print(
            f'\ncrash matrix, {name}: {len(fuses)} cells, {missed} of them '
            f'after the end, {len(failures)} failed',
            file=sys.stderr,
        )
    assert len(fuses) > missed
    assert not failures, '\n'.join(failures)
