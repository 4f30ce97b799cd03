# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A host is drained before it leaves: its guests move away first."""

from __future__ import annotations

import collections
import pathlib
import shlex
import typing

import pytest

from tests import permits, xe
from tests.functional import lab as labs
from tests.matrix import mischief, scenarios
from xenpool_driver import exceptions, model, pool_states
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


def refused(lab: labs.Lab, **options: typing.Any) -> model.Report:
    """Drain a host that cannot be; return why, and see that all is as was."""
    calls = collections.Counter(lab.stage.simulation.calls())
    stories = len(lab.stage.store.list_operations())
    with pytest.raises(exceptions.InvalidAggregateActionDelete) as caught:
        drain(lab, **options)
    labs.agree(lab)
    more = collections.Counter(lab.stage.simulation.calls()) - calls
    assert not {'host.disable', 'host.evacuate', 'pool.eject'} & more.keys()
    assert len(lab.stage.store.list_operations()) == stories
    assert caught.value.report is not None
    return caught.value.report


def evacuation(report: model.Report) -> dict[str, model.Finding]:
    """Return what keeps guests from moving, by the name of the guest."""
    for one in report.failures:
        for line in one.remedy.split('; '):
            assert xe.complaints(shlex.split(line)) == [], line
    return {
        one.objects[0].name: one
        for one in report.failures
        if one.check == 'evacuation'
    }


def test_all_that_cannot_move_is_named_at_once(tmp_path: pathlib.Path) -> None:
    with labs.make(
        tmp_path, members=THREE, pool=THREE, guests=GUESTS, more=STUCK
    ) as lab:
        found = evacuation(refused(lab))

        assert set(found) == {'local', 'pinned'}
        assert 'on scratch, which other hosts do not see' in (
            found['local'].message
        )
        assert 'VM_REQUIRES_SR' in found['local'].message
        assert 'vdi-pool-migrate' in found['local'].remedy
        assert 'licence dongle' in found['pinned'].message
        assert 'param-key=pool_migrate' in found['pinned'].remedy
        assert residents(lab, 'xen03') == {'local', 'pinned', 'web1', 'web2'}
        assert not lab.truth.disabled
        assert not int(lab.row.metadata.get(pool_states.FAILED_REQUESTS) or 0)


LARGE_AND_LOADED = {
    'srs': [
        {
            'name': 'isos',
            'type': 'iso',
            'host': 'xen03',
            'device_config': {'location': '/opt/iso', 'legacy_mode': 'true'},
        }
    ],
    'vms': [
        guest('huge', memory_gib=512, disks=[{'sr': 'nfs1', 'size_gib': 8}]),
        guest('withcd', disks=[{'sr': 'nfs1', 'size_gib': 8}]),
    ],
}
"""A guest larger than any other host, and one with an ISO in its drive of a
library that only its host sees."""


def load(lab: labs.Lab) -> None:
    """Put an ISO of the library into the guest's drive."""
    database = lab.stage.machine('xen01').db
    assert database is not None

    def named(cls: str, name: str) -> str:
        [ref] = [
            ref
            for ref, record in database.all(cls).items()
            if record['name_label'] == name
        ]
        return ref

    disc = database.create(
        'VDI', {'name_label': 'install.iso', 'SR': named('SR', 'isos')}
    )
    database.create(
        'VBD',
        {
            'VM': named('VM', 'withcd'),
            'VDI': disc,
            'type': 'CD',
            'currently_attached': True,
            'userdevice': '3',
        },
    )


def test_what_is_in_the_way_is_said_in_numbers_and_names(
    tmp_path: pathlib.Path,
) -> None:
    with labs.make(
        tmp_path, members=THREE, pool=THREE, more=LARGE_AND_LOADED
    ) as lab:
        load(lab)
        found = evacuation(refused(lab))
        database = lab.stage.simulation.world.machines[0].db
        assert database is not None
        drives = {
            vbd['userdevice']: vbd['uuid']
            for vbd in database.all('VBD').values()
            if vbd['type'] == 'CD'
        }

    huge, loaded = found['huge'], found['withcd']
    assert 'huge needs 512.0 GiB of memory; free are: xen01 ' in huge.message
    assert 'GiB, xen02 ' in huge.message
    assert 'vm-shutdown' in huge.remedy
    assert 'the CD install.iso from isos in its drive' in loaded.message
    # vm-cd-eject is refused for a machine with an empty drive beside
    assert loaded.remedy == f"xe vbd-eject uuid={drives['3']}"


def fail_to_move(lab: labs.Lab) -> None:
    """Let XAPI refuse a move that it said was possible."""
    lab.stage.simulation.faults.refuse(
        'host.evacuate', 'VM_MIGRATE_FAILED', 'web1', 'a', 'b', 'no room'
    )


def test_the_host_stays_disabled_when_told_so(tmp_path: pathlib.Path) -> None:
    with labs.make(tmp_path, members=THREE, pool=THREE, guests=GUESTS) as lab:
        fail_to_move(lab)
        with pytest.raises(exceptions.AggregateError):
            drain(lab, keep_disabled=True)

        assert lab.truth.disabled == {'xen03'}
        labs.agree(lab)


def test_a_host_that_was_disabled_before_stays_so(
    tmp_path: pathlib.Path,
) -> None:
    with labs.make(tmp_path, members=THREE, pool=THREE, guests=GUESTS) as lab:
        door = lab.driver.site.connections.client('xen01')
        permits.changing_pool(door).disable_host(
            lab.stage.machine('xen03').uuid
        )

        fail_to_move(lab)
        with pytest.raises(exceptions.AggregateError):
            drain(lab)

        assert lab.truth.disabled == {'xen03'}


def test_a_move_that_fails_leaves_the_host_at_work(
    tmp_path: pathlib.Path,
) -> None:
    with labs.make(tmp_path, members=THREE, pool=THREE, guests=GUESTS) as lab:
        fail_to_move(lab)
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
        found = evacuation(refused(lab))

        assert 'NO_HOSTS_AVAILABLE' in found['web1'].message
        assert found['web1'].remedy.count('xe host-enable uuid=') == 2
        assert residents(lab, 'xen03') == {'web1'}
        assert 'xen03' not in lab.truth.disabled
