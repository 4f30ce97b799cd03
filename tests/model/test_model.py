# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Random requests, faults and kills; nothing may ever be lost or doubled.

A hypothesis state machine over six hosts, two aggregates and two workers.
Requests overlap; workers die between any two steps, or freeze; calls get
lost on their way there or back; hosts and toolstacks die and return.
"""

from __future__ import annotations

import logging
import pathlib
import sys

import hypothesis
import pytest
from hypothesis import stateful

from tests.model import life, plots, sites

RUNS = {'ci': (20, 20), 'default': (30, 40), 'matrix': (500, 40)}
"""By profile: how many runs, and of how many steps."""


@pytest.mark.matrix
@pytest.mark.timeout(7200)
def test_nothing_is_ever_lost_or_doubled(
    tmp_path: pathlib.Path,
    profile: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs, steps = RUNS[profile]
    life.Life.kept = sites.Kept(tmp_path)
    life.Life.tally = plots.Tally()
    settings = hypothesis.settings(
        hypothesis.settings.default,
        max_examples=runs,
        stateful_step_count=steps,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    logging.disable(logging.WARNING)
    try:
        stateful.run_state_machine_as_test(life.Life, settings=settings)
    finally:
        logging.disable(logging.NOTSET)
        with capsys.disabled():
            print(f'\nmodel: {life.Life.tally}', file=sys.stderr)
