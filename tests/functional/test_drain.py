# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A host is drained before it leaves: its guests move away first."""

from __future__ import annotations

import pathlib
import typing

import pytest

from tests.functional import lab as labs
from tests.matrix import mischief, scenarios
from xenpool_driver import exceptions, pool_states
from xenpool_driver.simulator import faults

TWO, THREE = scenarios.TWO, scenarios.THREE

GUESTS = (('web1', 'xen03'), ('web2', 'xen03'), ('db1', 'xen02'))


def guest(name: str, **fields: typing.Any) -> dict[str, typing.Any]:
    """Return a guest of xen03 that runs and cannot leave it."""
    return {
        'name': name,
        'host': 'xen03',
        'power_state': 'Running',
        'memory_gib': 1,
        **fields,
    }


STUCK = {
    'srs': [{'name': 'scratch', 'type': 'ext', 'host': 'xen03'}],
    'vms': [
        guest('local', disks=[{'sr': 'scratch', 'size_gib': 4}]),
        guest(
            'pinned',
            set={'blocked_operations': {'pool_migrate': 'licence dongle'}},
        ),
    ],
}
"""Two guests that cannot leave, each for a reason of its own."""


def drain(lab: labs.Lab, **options: typing.Any) -> None:
    lab.driver.remove_from_aggregate(
        None, lab.row, 'xen03', drain=True, allow_data_loss=True, **options
    )


def test_a_host_that_is_disabled_late_is_drained_all_the_same(
    tmp_path: pathlib.Path,
) -> None:
    with labs.make(tmp_path, members=THREE, pool=THREE, guests=GUESTS) as lab:
        lab.stage.simulation.faults.delay('host.disable', mischief.DELAY)

        drain(lab)

        assert lab.stage.simulation.calls()['host.disable'] == 1
        assert lab.truth.members == set(TWO)
        labs.agree(lab)


def residents(lab: labs.Lab, host: str) -> set[str]:
    """Return the names of the guests that run on a host."""
    db = lab.stage.machine('xen01').db
    assert db is not None
    refs = {
        ref
        for ref, record in db.all('host').items()
        if record['name_label'] == host
    }
    return {
        vm['name_label']
        for vm in db.all('VM').values()
        if vm['resident_on'] in refs and not vm['is_control_domain']
    }


def test_guests_move_before_the_host_leaves(tmp_path: pathlib.Path) -> None:
    told: list[tuple[str, float | None]] = []
    with labs.make(tmp_path, members=THREE, pool=THREE, guests=GUESTS) as lab:
        drain(
            lab,
            progress=lambda host, phase, part: told.append((phase, part)),
        )

        assert sorted(lab.row.hosts) == list(TWO)
        assert residents(lab, 'xen01') | residents(lab, 'xen02') == {
            'web1',
            'web2',
            'db1',
        }
        labs.agree(lab)
        assert lab.phases() == [
            'begun',
            'disable',
            'evacuate',
            'eject',
            'succeeded',
        ]
    shown = [part for phase, part in told if phase == 'evacuate']
    assert any(part is not None for part in shown)
    assert [phase for phase, _ in told][-1] == 'done'


def test_without_drain_guests_are_a_refusal(tmp_path: pathlib.Path) -> None:
    with labs.make(tmp_path, members=THREE, pool=THREE, guests=GUESTS) as lab:
        with pytest.raises(
            exceptions.InvalidAggregateActionDelete, match='web[12] .*web[12] '
        ) as caught:
            lab.driver.remove_from_aggregate(
                None, lab.row, 'xen03', allow_data_loss=True
            )

        assert caught.value.report is not None
        [finding] = caught.value.report.failures
        assert '--drain' in finding.remedy


def test_all_that_cannot_move_is_named_at_once(tmp_path: pathlib.Path) -> None:
    with labs.make(
        tmp_path, members=THREE, pool=THREE, guests=GUESTS, more=STUCK
    ) as lab:
        with pytest.raises(exceptions.AggregateError) as caught:
            drain(lab)

        reason = caught.value.reason
        assert 'local' in reason
        assert 'VM_REQUIRES_SR' in reason
        assert 'pinned' in reason
        assert 'licence dongle' in reason
        assert residents(lab, 'xen03') == {'local', 'pinned', 'web1', 'web2'}
        assert not lab.truth.disabled
        labs.agree(lab)
        assert lab.last().outcome == 'undone'
        assert lab.row.metadata[pool_states.FAILED_REQUESTS] == '1'


def test_the_host_stays_disabled_when_told_so(tmp_path: pathlib.Path) -> None:
    with labs.make(tmp_path, members=THREE, pool=THREE, more=STUCK) as lab:
        with pytest.raises(exceptions.AggregateError):
            drain(lab, keep_disabled=True)

        assert lab.truth.disabled == {'xen03'}
        labs.agree(lab)


def test_a_host_that_was_disabled_before_stays_so(
    tmp_path: pathlib.Path,
) -> None:
    with labs.make(tmp_path, members=THREE, pool=THREE, more=STUCK) as lab:
        door = lab.driver.site.connections.client('xen01')
        door.disable_host(lab.stage.machine('xen03').uuid)

        with pytest.raises(exceptions.AggregateError):
            drain(lab)

        assert lab.truth.disabled == {'xen03'}


def test_a_move_that_fails_leaves_the_host_at_work(
    tmp_path: pathlib.Path,
) -> None:
    with labs.make(tmp_path, members=THREE, pool=THREE, guests=GUESTS) as lab:
        lab.stage.simulation.faults.refuse(
            'host.evacuate', 'VM_MIGRATE_FAILED', 'web1', 'a', 'b', 'no room'
        )
        with pytest.raises(
            exceptions.AggregateError, match='VM_MIGRATE_FAILED'
        ):
            drain(lab)

        assert not lab.truth.disabled
        labs.agree(lab)
        calls = lab.stage.simulation.calls()
        assert 'pool.eject' not in calls
        assert calls['host.enable'] == 1


def test_a_move_that_nobody_answers_for_is_waited_for(
    tmp_path: pathlib.Path,
) -> None:
    """The connection is lost; the guests move all the same."""
    with labs.make(tmp_path, members=THREE, pool=THREE, guests=GUESTS) as lab:
        lab.stage.simulation.faults.add(
            faults.Rule((faults.Action('drop-after'),), method='host.evacuate')
        )
        drain(lab)

        assert sorted(lab.row.hosts) == list(TWO)
        labs.agree(lab)
        assert lab.stage.simulation.calls()['host.evacuate'] == 1


def test_with_nowhere_to_go_nothing_moves(tmp_path: pathlib.Path) -> None:
    with labs.make(
        tmp_path,
        members=THREE,
        pool=THREE,
        guests=(('web1', 'xen03'),),
        more={
            'records': [
                {
                    'class': 'host',
                    'name_label': name,
                    'set': {'enabled': False},
                }
                for name in TWO
            ]
        },
    ) as lab:
        with pytest.raises(
            exceptions.AggregateError, match='web1.*NO_HOSTS_AVAILABLE'
        ):
            drain(lab)

        assert residents(lab, 'xen03') == {'web1'}
        assert 'xen03' not in lab.truth.disabled
