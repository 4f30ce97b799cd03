# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What is not answered in time, or refused for a moment, is no end."""

from __future__ import annotations

import pathlib
import typing

import pytest

from tests.functional import lab as labs
from tests.matrix import mischief, scenarios
from xenpool_driver import exceptions, pool_states
from xenpool_driver.simulator import eject, mishaps

LOGIN = 'session.login_with_password'

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


@pytest.mark.parametrize('code', ['OPERATION_NOT_ALLOWED', 'INTERNAL_ERROR'])
def test_what_a_promoted_host_refuses_as_it_restarts_is_no_end(
    tmp_path: pathlib.Path, code: str
) -> None:
    """It is promoted all the same, and its members want to be told."""
    with labs.make(
        tmp_path, members=scenarios.THREE, pool=scenarios.THREE
    ) as lab:
        mishaps.kill(lab.stage.machine('xen01'))
        faults = lab.stage.simulation.faults

        def watch(_: str, call: typing.Any) -> None:
            if call.name == 'pool.emergency_transition_to_master':
                faults.refuse(LOGIN, code, 'a test', host='xen02')

        faults.witness = watch

        lab.driver.recover_aggregate(None, lab.row, promote='xen02')

        assert lab.truth.master == 'xen02'
        assert lab.row.metadata[pool_states.MASTER] == 'xen02'
        labs.agree(lab)


def test_an_eject_that_the_host_goes_on_with_is_not_said_to_be_undone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master's toolstack dies after the host has wiped itself."""
    with labs.make(
        tmp_path, members=scenarios.THREE, pool=scenarios.THREE
    ) as lab:

        def die(*_: object) -> None:
            mischief.BY_NAME['toolstack killed before'].before(
                lab.stage.machine('xen01')
            )

        monkeypatch.setattr(eject, 'forget_host', die)

        with pytest.raises(exceptions.AggregateError, match='left behind'):
            lab.driver.remove_from_aggregate(
                None, lab.row, 'xen03', allow_data_loss=True
            )

        assert lab.last().outcome == 'failed'
        monkeypatch.undo()
        lab.stage.await_quiet()
        told = lab.driver.audit_aggregate(None, lab.row).failures
        assert any("'xen03' serves a pool of its" in f.message for f in told)
        lab.driver.remove_from_aggregate(None, lab.row, 'xen03', forget=True)
        labs.agree(lab)
        assert lab.truth.members == frozenset(scenarios.TWO)
