# Licensed under the Apache License, Version 2.0; see LICENSE.
"""One look that is not answered in time is not the last one."""

from __future__ import annotations

import pathlib

from tests.functional import lab as labs
from tests.matrix import mischief, scenarios

ONE = scenarios.THREE[:1]


def test_a_late_answer_does_not_take_all_the_time_there_is(
    tmp_path: pathlib.Path,
) -> None:
    """The third look at the pool is the one at what came of it."""
    with labs.make(tmp_path, members=ONE, pool=ONE) as lab:
        look = mischief.Point('xen01', 'pool.get_all_records', 3)
        saboteur = mischief.Saboteur(lab.stage, look, mischief.BY_NAME['late'])

        lab.driver.remove_from_aggregate(None, lab.row, 'xen01')

        assert saboteur.struck
        assert lab.row.hosts == []
        labs.agree(lab)
