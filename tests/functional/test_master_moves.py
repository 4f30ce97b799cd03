# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The master moves without our doing; work goes on."""

from __future__ import annotations

import collections.abc
import pathlib
import time

import pytest

from tests import permits
from tests.functional import lab as labs
from tests.matrix import judge, scenarios, stage
from xenpool_driver import exceptions, pool_states
from xenpool_driver.simulator import machine, mishaps

TWO, THREE = scenarios.TWO, scenarios.THREE


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> collections.abc.Iterator[labs.Lab]:
    with labs.make(tmp_path, members=TWO, pool=TWO, free=('xen03',)) as found:
        yield found


def test_a_join_finds_the_new_master_and_records_it(lab: labs.Lab) -> None:
    labs.designate(lab, 'xen02')

    lab.driver.add_to_aggregate(None, lab.row, 'xen03')

    assert lab.row.metadata[pool_states.MASTER] == 'xen02'
    assert sorted(lab.row.hosts) == list(THREE)
    labs.agree(lab)


def test_a_join_goes_on_when_the_master_moves_under_it(
    lab: labs.Lab,
) -> None:
    before = lab.driver.site.connections.client('xen01').pool().uuid
    labs.designate(lab, 'xen02')

    lab.driver.add_to_aggregate(None, lab.row, 'xen03')

    assert lab.truth.uuid == before
    labs.agree(lab)


def test_an_audit_tells_of_the_move_and_corrects_it(lab: labs.Lab) -> None:
    labs.designate(lab, 'xen02')

    report = lab.driver.audit_aggregate(None, lab.row)
    assert [finding.check for finding in report.failures] == ['master']
    assert lab.row.metadata[pool_states.MASTER] == 'xen01'

    report = lab.driver.audit_aggregate(None, lab.row, fix=True)
    fixed = [f.message for f in report.findings if f.check == 'fix']
    assert fixed == ["fixed: 'xen02' is recorded as the master"]
    assert not report.failures
    assert lab.row.metadata[pool_states.MASTER] == 'xen02'
    labs.agree(lab)


def test_setting_the_master_that_is_one_already_records_it(
    lab: labs.Lab,
) -> None:
    labs.designate(lab, 'xen02')
    lab.stage.simulation.faults.executed.clear()

    lab.driver.set_aggregate_master(None, lab.row, 'xen02')

    assert lab.row.metadata[pool_states.MASTER] == 'xen02'
    assert 'pool.designate_new_master' not in lab.stage.simulation.calls()


def test_the_former_master_can_leave(lab: labs.Lab) -> None:
    labs.designate(lab, 'xen02')

    lab.driver.remove_from_aggregate(
        None, lab.row, 'xen01', allow_data_loss=True
    )

    assert lab.row.hosts == ['xen02']
    assert lab.row.metadata[pool_states.MASTER] == 'xen02'
    labs.agree(lab)


def test_a_host_that_was_ejected_is_not_believed(lab: labs.Lab) -> None:
    """It answers as its own master; the pool is somewhere else."""
    labs.designate(lab, 'xen02')
    worker, database = stage.open_driver(str(lab.stage.conf_file))
    door = worker.site.connections.coordinator_of('xen02')
    permits.changing_pool(door).eject(lab.stage.machine('xen01').uuid)
    worker.close()
    database.close()
    deadline = time.monotonic() + 20
    while not lab.stage.machine('xen01').is_master:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lab.stage.await_quiet()

    report = lab.driver.audit_aggregate(None, lab.row, fix=True)

    assert lab.row.hosts == ['xen02']
    assert lab.row.metadata[pool_states.MASTER] == 'xen02'
    assert 'xen01' not in lab.row.metadata
    told = [f.message for f in report.findings if f.check == 'fix']
    assert "fixed: 'xen01' is removed: it is not in the pool" in told
    labs.agree(lab)


def test_ha_elects_a_master_and_it_is_found(tmp_path: pathlib.Path) -> None:
    with labs.make(
        tmp_path, members=THREE, pool=THREE, prepare=scenarios.switch_ha_on
    ) as lab:
        mishaps.kill(lab.stage.machine('xen01'))
        deadline = time.monotonic() + 20
        while judge.truth(lab.stage) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lab.stage.await_quiet()
        elected = lab.truth.master
        assert elected != 'xen01'

        lab.driver.add_to_aggregate(None, lab.row, 'xen03')  # it is a member

        assert lab.row.metadata[pool_states.MASTER] == elected
        lab.driver.remove_from_aggregate(
            None,
            lab.row,
            'xen03' if elected == 'xen02' else 'xen02',
            allow_data_loss=True,
            suspend_ha=True,
        )


def test_a_master_that_keeps_silent_holds_nobody_up(
    tmp_path: pathlib.Path,
) -> None:
    """Nobody waits for it longer than a probe may take."""
    with labs.make(tmp_path, members=THREE, pool=THREE) as lab:
        mishaps.freeze(lab.stage.machine('xen01'))

        report = lab.driver.audit_aggregate(None, lab.row)

        [finding] = report.failures
        assert finding.check == 'master-reachable'
        assert '--promote' in finding.remedy
        assert 'xen02: is a member of' in finding.message


@pytest.fixture
def fickle(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.Iterator[labs.Lab]:
    """A member agrees to the new master, and is gone when it counts."""
    with labs.make(tmp_path, members=THREE, pool=THREE) as lab:
        world = lab.stage.simulation.world
        new, third = lab.stage.machine('xen02'), lab.stage.machine('xen03')
        reachable = world.reachable
        broken = machine.Role(machine.BROKEN)

        def answers(one: machine.Machine, other: machine.Machine) -> bool:
            if new.role_file == broken and (one, other) == (new, third):
                return False
            return reachable(one, other)

        monkeypatch.setattr(world, 'reachable', answers)
        yield lab


def test_a_change_that_breaks_off_half_way_is_called_so(
    fickle: labs.Lab,
) -> None:
    with pytest.raises(exceptions.AggregateError, match='moved in part only'):
        fickle.driver.set_aggregate_master(None, fickle.row, 'xen02')

    assert fickle.last().outcome == 'failed'
    assert fickle.row.state == pool_states.ACTIVE


@pytest.mark.parametrize('host', THREE)
def test_a_broken_change_can_be_mended_by_a_promotion(
    fickle: labs.Lab, host: str
) -> None:
    with pytest.raises(exceptions.AggregateError):
        fickle.driver.set_aggregate_master(None, fickle.row, 'xen02')

    fickle.driver.recover_aggregate(None, fickle.row, promote=host)

    assert fickle.truth.master == host
    labs.agree(fickle)
    assert not fickle.truth.dissidents
