# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Many cells at the same time, each tried until its point was reached.

A cell waits most of its time. Each process of the crowd runs one cell after
the other, on sites of its own.
"""

from __future__ import annotations

import collections
import collections.abc
import concurrent.futures
import dataclasses
import itertools
import logging
import multiprocessing
import os
import pathlib
import sys
import tempfile
import traceback
import typing

import pytest

from tests.matrix import stage

AT_ONCE = int(
    os.environ.get('XENPOOL_MATRIX_AT_ONCE') or 2 * (os.cpu_count() or 1)
)
"""Cells that are run at the same time."""

SURVEYS = 3
"""Undisturbed runs that tell which points a request has."""

ATTEMPTS = 6
"""For a cell whose point was not reached: who asks how often, while waiting,
differs from run to run."""

FEW_ATTEMPTS = 2
"""The same for a cell whose point is a read that a run need not make."""

FORKSERVER = multiprocessing.get_context('forkserver')
FORKSERVER.set_forkserver_preload(
    [
        'tests.matrix.test_crash_matrix',
        'tests.matrix.test_fault_matrix',
        'tests.matrix.test_frozen_matrix',
        'tests.matrix.worker',
    ]
)

Point = typing.TypeVar('Point', bound=typing.Hashable)


class IsCell(typing.Protocol):
    """What a cell says of itself; as a string, all."""

    @property
    def is_fleeting(self) -> bool:
        """Whether its point is a read that a run need not make."""


Cell = typing.TypeVar('Cell', bound=IsCell)


class Result(typing.NamedTuple):
    """What came of a cell.

    :ivar reached: whether its point was reached.
    :ivar ending: how the request ended, in a word.
    :ivar complaints: what is not as it must be.
    """

    reached: bool
    ending: str
    complaints: list[str]


def all_points(
    surveys: collections.abc.Sequence[collections.abc.Sequence[Point]],
) -> dict[Point, bool]:
    """Return the points that undisturbed runs pass, in order.

    :param surveys: the points of each run.
    :returns: whether each run passes it. Some reads only some runs make:
        who waits longer reads once more.
    """
    always = set(surveys[0]).intersection(*surveys[1:])
    points = itertools.chain.from_iterable(surveys)
    return {point: point in always for point in points}


def sample(cells: list[Cell], limit: int | None) -> list[Cell]:
    """Return as many cells as wanted, evenly spread; None: all."""
    if limit is None or len(cells) <= limit:
        return cells
    step = len(cells) / limit
    return [cells[int(index * step)] for index in range(limit)]


@dataclasses.dataclass
class Tally:
    """What came of all cells of a matrix.

    :ivar what: the matrix and the request.
    :ivar endings: how many requests ended how.
    :ivar fleeting: how many cells were not run for want of their points,
        which are reads that a run need not make.
    :ivar missed: the cells that were not run for no such reason.
    :ivar failures: what is bad.
    """

    what: str
    endings: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    fleeting: int = 0
    missed: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)

    def add(self, label: str, result: Result, is_fleeting: bool) -> str:
        """Count a cell; return what is bad about it, or ''."""
        if result.complaints:
            self.failures.append(f'{label}: ' + '; '.join(result.complaints))
            return self.failures[-1]
        if result.reached:
            self.endings[result.ending] += 1
        elif is_fleeting:
            self.fleeting += 1
        else:
            self.missed.append(label)
            return f'{label}: missed'
        return ''

    def __str__(self) -> str:
        run = sum(self.endings.values())
        told = ', '.join(
            f'{n} {end}' for end, n in sorted(self.endings.items())
        )
        return (
            f'{self.what}: {run} cells run ({told}), '
            f'{len(self.missed)} missed, {len(self.failures)} failed; '
            f'{self.fleeting} at reads that {FEW_ATTEMPTS} runs did not make'
        )

    def judge(self) -> None:
        """Be content, or not.

        :raises AssertionError: a cell was missed, or is bad.
        """
        assert self.endings
        assert not self.failures, '\n'.join(self.failures)
        assert not self.missed, '\n'.join(self.missed)


Run = collections.abc.Callable[[stage.Kept, Cell], Result]
"""Runs a cell; a function of a module, for another process calls it."""


def run_all(
    tally: Tally,
    run: Run[Cell],
    cells: collections.abc.Sequence[Cell],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run all cells, print what is bad as it comes, and the sum; judge."""
    with (
        tempfile.TemporaryDirectory(prefix='xenpool-matrix-') as directory,
        concurrent.futures.ProcessPoolExecutor(
            min(AT_ONCE, len(cells)),
            FORKSERVER,
            _settle_down,
            (directory,),
        ) as crowd,
    ):
        running = {crowd.submit(_run_one, run, cell): cell for cell in cells}
        try:
            for done in concurrent.futures.as_completed(running):
                cell = running[done]
                result = done.result()
                told = tally.add(str(cell), result, cell.is_fleeting)
                if told:
                    _tell(capsys, f'{tally.what}: {told}')
        finally:
            crowd.shutdown(cancel_futures=True)  # of a run that was broken off
    _tell(capsys, str(tally))
    tally.judge()


def _tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f'\n{line}', file=sys.stderr, flush=True)


_kept: list[stage.Kept] = []


def _settle_down(directory: str) -> None:
    """Prepare a process of the crowd."""
    logging.getLogger().addHandler(logging.NullHandler())
    own = pathlib.Path(directory, str(os.getpid()))
    own.mkdir()
    _kept.append(stage.Kept(own))


def _run_one(run: Run[Cell], cell: Cell) -> Result:
    """Run a cell until its point is reached, or it is bad."""
    for _ in range(FEW_ATTEMPTS if cell.is_fleeting else ATTEMPTS):
        try:
            result = run(_kept[0], cell)
        except Exception as error:
            told = ''.join(traceback.format_exception(error)[-2:])
            return Result(True, 'broken off', [told])
        if result.reached or result.complaints:
            break
    return result
