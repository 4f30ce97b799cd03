# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A join whose records never reach the master.

XAPI writes that to its log and lets the host restart as a member all the
same, which the master then does not know.
"""

from __future__ import annotations

import pathlib

import pytest

from tests.functional import lab as labs
from tests.matrix import judge, scenarios
from xenpool_driver import exceptions
from xenpool_driver.simulator import join, machine


def test_a_host_whose_records_got_lost_is_no_member(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, '_push', lambda *_: None)
    with labs.make(
        tmp_path, members=scenarios.TWO, pool=scenarios.TWO, free=('xen03',)
    ) as lab:
        with pytest.raises(exceptions.AggregateError) as caught:
            lab.driver.add_to_aggregate(None, lab.row, 'xen03')

        assert 'does not know it' in str(caught.value)
        assert 'emergency-transition-to-master' in str(caught.value)
        assert lab.row.hosts == list(scenarios.TWO)
        assert lab.stage.machine('xen03').role_file.kind == machine.SLAVE
        assert judge.twice(lab.stage) == []
        labs.agree(lab)
