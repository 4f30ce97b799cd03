# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Let everything go wrong at every call of every request.

Whatever happens, no call that changes something is carried out twice, no
aggregate is left ``changing``, no operation without an end, and after one
audit the aggregate says what the pool says, or why it cannot.
"""

from __future__ import annotations

import typing

import pytest

from tests.matrix import crowd, judge, mischief, scenarios, stage
from xenpool_driver import driver, exceptions, model, pool_states

CI = ('first host', 'join', 'eject', 'set master')
"""The requests of the reduced profile."""

SAMPLE = 4
"""Cells of each request in the reduced profile."""

TIMEOUTS = {
    'join_timeout': 80.0,
    'eject_timeout': 50.0,
    'master_change_timeout': 80.0,
    'drain_timeout': 50.0,
}
"""Simulated seconds; twice what it takes when nothing goes wrong."""


def ask(
    where: stage.Stage, worker: driver.XenAPIPoolDriver
) -> exceptions.XenpoolError | None:
    """Make the request; return what it raises."""
    try:
        where.scenario.request(worker, judge.current(where))
    except (
        exceptions.InvalidAggregateAction,
        exceptions.AggregateError,
    ) as error:
        return error
    return None


def dry_run(kept: stage.Kept, name: str) -> list[mischief.Point]:
    """Return the calls of a request that nobody disturbs."""
    scenario = scenarios.SCENARIOS[name]
    with stage.Stage(scenario, kept, TIMEOUTS) as where:
        saboteur = mischief.Saboteur(where)
        worker, database = stage.open_driver(str(where.conf_file))
        assert ask(where, worker) is None
        points = list(saboteur.points)
        where.await_quiet()
        assert judge.disagreements(where) == []
        assert judge.unwell(where) == {}
        worker.close()
        database.close()
    return points


class Cell(typing.NamedTuple):
    """Something goes wrong with one call of a request.

    :ivar name: of the request.
    :ivar point: the call.
    :ivar fault: the name of what goes wrong.
    :ivar certain: whether each undisturbed run makes the call.
    """

    name: str
    point: mischief.Point
    fault: str
    certain: bool = True

    def __str__(self) -> str:
        return f'{self.fault}: {self.point}'

    @property
    def is_fleeting(self) -> bool:
        """Whether the call is a read that a run need not make."""
        if judge.is_change(self.point.method):
            return False
        return not self.certain or self.point.number > 1


def run_cell(kept: stage.Kept, cell: Cell) -> crowd.Result:
    """Spoil one call of a request, audit once, and judge."""
    fault = mischief.BY_NAME[cell.fault]
    scenario = scenarios.SCENARIOS[cell.name]
    with stage.Stage(scenario, kept, TIMEOUTS) as where:
        saboteur = mischief.Saboteur(where, cell.point, fault)
        worker, database = stage.open_driver(str(where.conf_file))
        try:
            error = ask(where, worker)
            saboteur.disarm()
            where.simulation.clock.sleep(fault.aftermath)
            if not fault.deadly:
                where.await_return(cell.point.host)
            where.await_quiet()
            report = worker.audit_aggregate(
                None, judge.current(where), fix=True
            )
        finally:
            worker.close()
            database.close()
        found = [
            *judge.unfinished(where),
            *judge.twice(where),
            *disagreements(where, report),
            *unjust(where, error, fault),
            *untold(where, error, report),
        ]
        if found:
            found += [f'raised {error}', *judge.story(where)]
    ending = 'done' if error is None else type(error).__name__
    return crowd.Result(saboteur.struck, ending, found)


def disagreements(where: stage.Stage, report: model.Report) -> list[str]:
    """Return where the aggregate says anything else than its pool.

    Where the pool has lost its master, the audit must say so. A pool that
    was let go keeps its stamp where it could not be told, which is no
    disagreement: its aggregate says nothing any more.
    """
    if judge.current(where).state == pool_states.DISMISSED:
        return []
    if judge.truth(where) is not None or not judge.current(where).hosts:
        return judge.disagreements(where)
    told = [one.check for one in report.failures]
    return [] if 'master-reachable' in told else [f'audit: {told}']


def untold(
    where: stage.Stage,
    error: exceptions.XenpoolError | None,
    report: model.Report,
) -> list[str]:
    """Return what ails the pool and neither error nor audit tell.

    An audit sees as well that a host is disabled, or HA off; but that the
    request has left it so, only its own error can tell.
    """
    told = {
        one.check
        for one in report.findings
        if one.severity is not model.Severity.PASS
    }
    told -= {judge.HA, judge.DISABLED}
    if 'HA is not as it was' in str(error):
        told.add(judge.HA)
    if 'afterwards: ' in str(error) or 'enabled' in str(error):
        told.add(judge.DISABLED)
    if _strangers_are_named(where, report):
        told.add(judge.VIEWS)
    found = judge.unwell(where)
    return [found[check] for check in found.keys() - told]


def _strangers_are_named(where: stage.Stage, report: model.Report) -> bool:
    """Say whether the audit tells of each member that serves a pool of its
    own by now: who it is says more than whom it takes for its master."""
    pool = judge.truth(where)
    told = [one.message for one in report.failures if one.check == 'identity']
    return pool is not None and all(
        any(f"'{host}' serves a pool of its own" in each for each in told)
        for host in pool.dissidents
    )


def unjust(
    where: stage.Stage,
    error: exceptions.XenpoolError | None,
    fault: mischief.Fault,
) -> list[str]:
    """Return what contradicts how the request ended."""
    scenario = where.scenario
    row = judge.current(where)
    if error is None:
        master = scenario.master
        if fault.deadly and scenario.prepare is scenarios.switch_ha_on:
            master = judge.elected(where) or master
        end = (tuple(sorted(row.hosts)), row.metadata.get(pool_states.MASTER))
        wrong = [] if end == (scenario.after, master) else [f'ends as {end}']
        if row.name != scenario.called:
            wrong.append(f'is called {row.name}')
        return wrong + (
            [] if fault.deadly else [*judge.unwell(where).values()]
        )
    if isinstance(error, exceptions.AggregateError):
        return []
    if where.scenario.name == 'remove master':
        return []  # its first half may have been done
    begun = [one for one in where.store.list_operations() if one]
    undone = all(one.outcome == 'refused' for one in begun)
    return [] if undone else ['refused, but something was done']


@pytest.mark.matrix
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(
    'name', [name for name in scenarios.SCENARIOS if name != 'dismiss']
)
def test_whatever_goes_wrong(
    kept: stage.Kept,
    profile: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = profile == 'matrix'
    if not whole and name not in CI:
        pytest.skip('part of the whole matrix only')
    surveys = crowd.SURVEYS if whole else 1
    points = crowd.all_points([dry_run(kept, name) for _ in range(surveys)])
    cells = [
        Cell(name, point, fault, certain)
        for point, certain in points.items()
        for fault in mischief.BY_NAME
        if whole or judge.is_change(point.method)
    ]
    tally = crowd.Tally(f'fault matrix, {name}')
    cells = crowd.sample(cells, None if whole else SAMPLE)
    crowd.run_all(tally, run_cell, cells, capsys)
