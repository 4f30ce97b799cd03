# Licensed under the Apache License, Version 2.0; see LICENSE.
"""HA is switched off around a request, and is as it was afterwards."""

from __future__ import annotations

import collections.abc
import pathlib

import pytest

from tests.functional import lab as labs
from tests.matrix import judge, mischief, scenarios
from xenpool_driver import driver, exceptions, pool_states, store

TWO, THREE = scenarios.TWO, scenarios.THREE
AS_IT_WAS = (scenarios.HA_TIMEOUT, scenarios.TOLERANCE, 1)

Request = collections.abc.Callable[
    [driver.XenAPIPoolDriver, store.Aggregate, bool], None
]


def add(
    worker: driver.XenAPIPoolDriver, row: store.Aggregate, ha: bool
) -> None:
    worker.add_to_aggregate(None, row, 'xen04', suspend_ha=ha)


def remove(
    worker: driver.XenAPIPoolDriver, row: store.Aggregate, ha: bool
) -> None:
    worker.remove_from_aggregate(
        None, row, 'xen03', allow_data_loss=True, suspend_ha=ha
    )


def move(
    worker: driver.XenAPIPoolDriver, row: store.Aggregate, ha: bool
) -> None:
    worker.set_aggregate_master(None, row, 'xen02', suspend_ha=ha)


REQUESTS = [add, remove, move]


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> collections.abc.Iterator[labs.Lab]:
    with labs.make(
        tmp_path,
        members=THREE,
        pool=THREE,
        free=('xen04',),
        prepare=scenarios.switch_ha_on,
    ) as found:
        assert found.truth.ha == AS_IT_WAS
        yield found


@pytest.mark.parametrize(
    'method',
    [
        'pool.disable_ha',
        'pool.enable_ha',
        'pool.set_ha_host_failures_to_tolerate',
    ],
)
def test_a_switch_that_is_late_is_waited_for(
    lab: labs.Lab, method: str
) -> None:
    lab.stage.simulation.faults.delay(method, mischief.DELAY)

    remove(lab.driver, lab.row, True)

    assert lab.stage.simulation.calls().get(method, 0) < 2
    assert lab.truth.ha == AS_IT_WAS
    assert lab.truth.members == {'xen01', 'xen02'}
    labs.agree(lab)


@pytest.mark.parametrize('request_', REQUESTS)
def test_ha_is_a_refusal(lab: labs.Lab, request_: Request) -> None:
    with pytest.raises(exceptions.InvalidAggregateAction) as caught:
        request_(lab.driver, lab.row, False)

    assert caught.value.report is not None
    failures = caught.value.report.failures
    assert any(
        finding.predicts and 'HA_IS_ENABLED' in finding.predicts[0]
        for finding in failures
    )
    assert any('--suspend-ha' in finding.remedy for finding in failures)
    assert judge.story(lab.stage) == []
    assert lab.truth.ha == AS_IT_WAS


@pytest.mark.parametrize('request_', REQUESTS)
def test_ha_is_as_it_was_after_the_request(
    lab: labs.Lab, request_: Request
) -> None:
    request_(lab.driver, lab.row, True)

    labs.agree(lab)
    assert lab.truth.ha == AS_IT_WAS
    phases = lab.phases()
    assert phases.index('ha off') < phases.index('ha on')
    calls = lab.stage.simulation.calls()
    assert (calls['pool.disable_ha'], calls['pool.enable_ha']) == (1, 1)


@pytest.mark.parametrize(
    ('request_', 'method'),
    [
        (add, 'pool.join'),
        (remove, 'pool.eject'),
        (move, 'pool.designate_new_master'),
    ],
)
def test_ha_is_as_it_was_after_a_failure(
    lab: labs.Lab, request_: Request, method: str
) -> None:
    lab.stage.simulation.faults.refuse(method, 'OPERATION_NOT_ALLOWED', 'no')

    with pytest.raises(
        exceptions.AggregateError, match='OPERATION_NOT_ALLOWED'
    ):
        request_(lab.driver, lab.row, True)

    labs.agree(lab)
    assert sorted(lab.row.hosts) == list(THREE)
    assert lab.truth.ha == AS_IT_WAS
    assert lab.last().outcome == 'undone'


def test_a_pool_without_ha_is_left_without(tmp_path: pathlib.Path) -> None:
    with labs.make(tmp_path, members=TWO, pool=TWO, free=('xen03',)) as lab:
        lab.driver.add_to_aggregate(None, lab.row, 'xen03', suspend_ha=True)

        calls = lab.stage.simulation.calls()
        assert 'pool.disable_ha' not in calls
        assert 'pool.enable_ha' not in calls
        assert lab.truth.ha is None


def test_ha_that_cannot_be_switched_off_stops_the_request(
    lab: labs.Lab,
) -> None:
    lab.stage.simulation.faults.refuse(
        'pool.disable_ha', 'OPERATION_NOT_ALLOWED', 'no'
    )

    with pytest.raises(exceptions.AggregateError):
        add(lab.driver, lab.row, True)

    assert 'pool.join' not in lab.stage.simulation.calls()
    assert sorted(lab.row.hosts) == list(THREE)
    assert lab.truth.ha == AS_IT_WAS


def test_ha_that_does_not_come_back_is_told_with_the_way_out(
    lab: labs.Lab,
) -> None:
    lab.stage.simulation.faults.refuse(
        'pool.enable_ha', 'HA_FAILED_TO_FORM_LIVESET', times=None
    )

    with pytest.raises(
        exceptions.AggregateError, match='HA_FAILED_TO_FORM_LIVESET'
    ) as caught:
        add(lab.driver, lab.row, True)

    reason = caught.value.reason
    assert 'xe pool-ha-enable heartbeat-sr-uuids=' in reason
    assert 'ha-config:timeout=90' in reason
    assert 'ha-host-failures-to-tolerate=1' in reason
    assert reason.startswith(lab.last().error or '?')
    # What was asked for is done all the same, and recorded.
    assert 'xen04' in lab.row.hosts
    labs.agree(lab)
    assert lab.row.state == pool_states.ACTIVE


def test_an_unanswered_switch_is_looked_for(lab: labs.Lab) -> None:
    lab.stage.simulation.faults.drop('pool.enable_ha', after=True)

    add(lab.driver, lab.row, True)

    assert lab.truth.ha == AS_IT_WAS
    assert lab.stage.simulation.calls()['pool.enable_ha'] == 1
    labs.agree(lab)
