# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The master is dead: a member takes over, because a person says so."""

from __future__ import annotations

import collections.abc
import dataclasses
import logging
import pathlib
import typing

import pytest

from tests import permits
from tests.functional import lab as labs
from tests.matrix import judge, scenarios
from xenpool_driver import exceptions, model, pool_states
from xenpool_driver.simulator import machine, mishaps, timings
from xenpool_driver.verbs import promotion

TWO = scenarios.TWO
THREE = scenarios.THREE
REFUSED = exceptions.InvalidAggregateActionUpdate


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> collections.abc.Iterator[labs.Lab]:
    with labs.make(
        tmp_path,
        members=THREE,
        pool=THREE,
        guests=(('web1', 'xen01'), ('web2', 'xen02')),
    ) as found:
        yield found


def promote(lab: labs.Lab, host: str = 'xen02') -> model.Report:
    return lab.driver.recover_aggregate(None, lab.row, promote=host)


def test_a_member_takes_over_from_a_dead_master(lab: labs.Lab) -> None:
    mishaps.kill(lab.stage.machine('xen01'))

    report = promote(lab)

    row = lab.row
    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert row.state == pool_states.ACTIVE
    assert sorted(row.hosts) == list(THREE)
    assert lab.truth.master == 'xen02'
    assert lab.stage.machine('xen03').role == (
        machine.SLAVE,
        lab.stage.machine('xen02').address,
    )
    labs.agree(lab)
    told = [finding.check for finding in report.findings]
    assert told == ['stranded', 'identity']


def test_guests_of_the_dead_master_are_named_and_left_alone(
    lab: labs.Lab,
) -> None:
    mishaps.kill(lab.stage.machine('xen01'))

    [finding, left] = promote(lab).findings

    assert "'xen01' was the master and is a member still" in left.message
    db = lab.stage.machine('xen02').db
    assert db is not None
    [web1] = [vm for vm in db.all('VM').values() if vm['name_label'] == 'web1']
    assert finding.severity is model.Severity.WARN
    assert 'web1' in finding.message
    assert 'xen01' in finding.message
    assert web1['uuid'] in finding.remedy
    assert web1['power_state'] == 'Running'
    assert 'stranded' in lab.phases()
    assert not any(
        method.startswith('VM.') and not method.startswith('VM.get_')
        for method in lab.stage.simulation.calls()
    )


def test_the_dead_host_stays_in_the_aggregate_and_the_audit_says_so(
    lab: labs.Lab,
) -> None:
    mishaps.kill(lab.stage.machine('xen01'))
    promote(lab)

    report = lab.driver.audit_aggregate(None, lab.row, fix=True)

    assert 'xen01' in lab.row.hosts
    told = [
        finding.message
        for finding in report.findings
        if finding.severity is not model.Severity.PASS
    ]
    assert any('xen01' in message for message in told)


def test_the_old_master_that_returns_steps_back(lab: labs.Lab) -> None:
    mishaps.kill(lab.stage.machine('xen01'))
    promote(lab)

    mishaps.power_on(lab.stage.machine('xen01'))
    lab.stage.await_quiet()

    assert lab.truth.master == 'xen02'
    assert not lab.truth.dissidents
    assert not lab.truth.disabled
    lab.driver.set_aggregate_master(None, lab.row, 'xen01')
    assert lab.truth.master == 'xen01'
    labs.agree(lab)


def test_a_master_that_keeps_silent_is_dead(lab: labs.Lab) -> None:
    mishaps.freeze(lab.stage.machine('xen01'))

    promote(lab)

    assert lab.truth.master == 'xen02'
    assert lab.row.metadata[pool_states.MASTER] == 'xen02'


def test_a_living_master_is_not_replaced(lab: labs.Lab) -> None:
    with pytest.raises(REFUSED, match='the master answers at .*set master'):
        promote(lab)

    assert judge.story(lab.stage) == []


def test_a_master_that_only_restarts_is_not_replaced(lab: labs.Lab) -> None:
    mishaps.restart_toolstack(lab.stage.machine('xen01'))

    with pytest.raises(REFUSED, match='the master answers'):
        promote(lab)

    lab.stage.await_quiet()
    assert lab.truth.master == 'xen01'


def test_a_master_that_refuses_the_login_lives(
    lab: labs.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.stage.machine('xen01'), 'password', 'another')

    with pytest.raises(REFUSED, match='answers'):
        promote(lab)


def test_without_a_majority_nobody_takes_over(lab: labs.Lab) -> None:
    mishaps.kill(lab.stage.machine('xen01'))
    mishaps.kill(lab.stage.machine('xen03'))

    with pytest.raises(REFUSED, match='no majority: 1 of 3 .*xen01, xen03'):
        promote(lab)

    assert lab.stage.machine('xen02').role[0] == machine.SLAVE
    assert judge.story(lab.stage) == []


def test_who_is_dead_is_for_the_members_to_say(lab: labs.Lab) -> None:
    labs.designate(lab, 'xen03')
    assert lab.row.metadata[pool_states.MASTER] == 'xen01'  # nobody looked
    mishaps.kill(lab.stage.machine('xen03'))

    promote(lab)

    assert lab.truth.master == 'xen02'
    assert lab.row.metadata[pool_states.MASTER] == 'xen02'
    assert lab.last().details['dead'] == 'xen03'
    assert lab.stage.machine('xen01').role[0] == machine.SLAVE


def test_nobody_takes_over_from_whom_somebody_else_has_promoted(
    lab: labs.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    mishaps.kill(lab.stage.machine('xen01'))
    clock = lab.driver.site.clock
    sleep = clock.sleep
    doors = lab.driver.site.connections

    def promote_another(seconds: float) -> None:
        monkeypatch.undo()
        other = doors.logins(permits.Permit())
        here = other.host(doors.local_client('xen03'))
        here.emergency_transition_to_master()
        sleep(seconds)

    monkeypatch.setattr(clock, 'sleep', promote_another)

    with pytest.raises(REFUSED, match='the master answers at'):
        promote(lab)

    assert lab.stage.machine('xen02').role[0] == machine.SLAVE
    assert judge.story(lab.stage) == []


def test_only_a_member_takes_over(lab: labs.Lab) -> None:
    mishaps.kill(lab.stage.machine('xen01'))

    with pytest.raises(REFUSED, match="'xen09' is not in the aggregate"):
        promote(lab, 'xen09')
    with pytest.raises(REFUSED, match="'xen01' does not name"):
        promote(lab, 'xen01')


def test_an_aggregate_in_error_is_not_stranded(lab: labs.Lab) -> None:
    lab.row.update_metadata({pool_states.STATE: pool_states.ERROR})
    mishaps.kill(lab.stage.machine('xen01'))

    promote(lab)

    assert lab.row.metadata[pool_states.MASTER] == 'xen02'
    assert lab.row.state == pool_states.ERROR


def test_with_ha_on_the_pool_finds_its_master_itself(
    tmp_path: pathlib.Path,
) -> None:
    with labs.make(
        tmp_path, members=THREE, pool=THREE, prepare=scenarios.switch_ha_on
    ) as lab:
        lab.stage.simulation.world.timings = _slow_failover(lab)
        mishaps.kill(lab.stage.machine('xen01'))

        with pytest.raises(REFUSED, match='HA_IS_ENABLED'):
            promote(lab)

        assert lab.row.state == pool_states.ACTIVE
        assert lab.last().outcome == 'refused'
        assert lab.row.metadata.get(pool_states.FAILED_REQUESTS) in (None, '0')


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> collections.abc.Iterator[labs.Lab]:
    with labs.make(tmp_path, members=TWO, pool=TWO) as found:
        yield found


def promote_of_two(lab: labs.Lab, **options: typing.Any) -> model.Report:
    return lab.driver.recover_aggregate(
        None, lab.row, promote='xen02', master_is_off=True, **options
    )


def test_of_two_one_cannot_decide_and_is_told_how(pair: labs.Lab) -> None:
    mishaps.kill(pair.stage.machine('xen01'))

    with pytest.raises(
        REFUSED,
        match='1 of 2 .* xenpool aggregate recover rack1 --promote xen02 '
        '--the-master-is-off',
    ):
        promote(pair)

    assert pair.stage.machine('xen02').role[0] == machine.SLAVE


def test_of_two_one_takes_over_when_the_other_is_off(pair: labs.Lab) -> None:
    mishaps.kill(pair.stage.machine('xen01'))

    promote_of_two(pair)

    assert pair.truth.master == 'xen02'
    assert pair.row.metadata[pool_states.MASTER] == 'xen02'
    labs.agree(pair)


def test_with_two_dead_of_three_the_third_takes_over(lab: labs.Lab) -> None:
    mishaps.kill(lab.stage.machine('xen01'))
    mishaps.kill(lab.stage.machine('xen03'))

    report = promote_of_two(lab)

    assert 'xen03 does not answer' in report.findings[-1].message
    assert lab.truth.master == 'xen02'
    assert lab.row.metadata[pool_states.MASTER] == 'xen02'


def test_a_machine_that_is_said_to_be_off_and_is_not(pair: labs.Lab) -> None:
    mishaps.freeze(pair.stage.machine('xen01'))

    with pytest.raises(
        REFUSED, match='xen01 is not off: its address accepts connections'
    ):
        promote_of_two(pair)

    assert pair.stage.machine('xen02').role[0] == machine.SLAVE
    assert judge.story(pair.stage) == []


def test_a_member_that_reads_the_database_has_a_master(
    pair: labs.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We reach the master by no way, but the member does."""
    doors = pair.driver.site.connections
    monkeypatch.setattr(doors, 'presence', lambda host: '')
    monkeypatch.setattr(
        promotion.Promote, '_refuse_living_master', lambda *_, **__: None
    )

    with pytest.raises(REFUSED, match='has a master: xen02 can read'):
        promote_of_two(pair)

    assert pair.stage.machine('xen02').role[0] == machine.SLAVE


def test_a_master_that_was_installed_anew_is_no_master(lab: labs.Lab) -> None:
    mishaps.install_anew(lab.stage.machine('xen01'))
    lab.stage.await_quiet()

    promote(lab)

    assert lab.row.metadata[pool_states.MASTER] == 'xen02'
    assert lab.stage.machine('xen02').is_master


def test_the_wait_is_told_once(
    lab: labs.Lab, caplog: pytest.LogCaptureFixture
) -> None:
    mishaps.kill(lab.stage.machine('xen01'))

    heard = set()

    with caplog.at_level(logging.INFO):
        lab.driver.recover_aggregate(
            None,
            lab.row,
            promote='xen02',
            progress=lambda host, phase, _: heard.add((host, phase)),
        )

    wait = 'waiting 30 s on purpose: xen01 may only be restarting'
    assert ('xen02', wait) in heard
    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if 'on purpose' in line]) == 1
    assert len([line for line in told if 'The master of rack1' in line]) < 4


def test_an_old_copy_of_the_database_gets_the_stamp_back(
    tmp_path: pathlib.Path,
) -> None:
    with labs.make(
        tmp_path, pool=THREE, state=pool_states.CREATED, stamped=False
    ) as lab:
        lab.driver.adopt_aggregate(None, lab.row, 'xen01')
        mishaps.kill(lab.stage.machine('xen01'))

        report = promote(lab)

        assert lab.truth.stamp == lab.row.uuid
        assert 'has it again' in ' '.join(
            finding.message for finding in report.findings
        )


def test_a_recovery_that_finds_no_master_says_so(pair: labs.Lab) -> None:
    mishaps.kill(pair.stage.machine('xen01'))

    report = pair.driver.recover_aggregate(None, pair.row)

    assert [each.check for each in report.failures] == ['master-reachable']


def _slow_failover(lab: labs.Lab) -> timings.Timings:
    """Return timings with which HA takes its time."""
    return dataclasses.replace(
        lab.stage.simulation.world.timings, ha_failover=1e6
    )
