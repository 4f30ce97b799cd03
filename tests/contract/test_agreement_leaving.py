# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Ejects, forgets and changes of master: what is foreseen is answered.

As with joins: two statements of XAPI's rules that share nothing, on random
pools in which any of the rules are broken.
"""

from __future__ import annotations

import collections.abc

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import conftest
from tests.contract import agreement, doors, sides
from xenpool_driver import model, snapshot
from xenpool_driver.preflight import eject, forget, master
from xenpool_driver.simulator import lifecycle, machine

EXAMPLES = {'ci': 100, 'matrix': 2000}.get(conftest.PROFILE, 400)
MIXED = hypothesis.settings(max_examples=EXAMPLES, deadline=None)

pytestmark = pytest.mark.timeout(1800)

CLASSES = snapshot.DUMP_CLASSES

Break = collections.abc.Callable[[sides.Side, str], object]


def _guest(pool: sides.Side, host: str, state: str) -> None:
    where = 'affinity' if state == 'Halted' else 'resident_on'
    pool.db.create(
        'VM', {'name_label': state, 'power_state': state, where: host}
    )


def _dies(pool: sides.Side, host: str) -> None:
    """Long enough ago to count as dead."""
    record = pool.db.get('host', host)
    target = pool.machine.world.by_uuid(record['uuid'], pool.machine)
    if target is not None and target is not pool.machine:
        lifecycle.kill_machine(target)
        pool.set('host_metrics', record['metrics'], live=False)


BREAKS: dict[str, Break] = {
    'HA': lambda p, h: p.set_pool(ha_enabled=True),
    'secret': lambda p, h: p.set_pool(is_psr_pending=True),
    'a running guest': lambda p, h: _guest(p, h, 'Running'),
    'a paused guest': lambda p, h: _guest(p, h, 'Paused'),
    'dead': _dies,
    'HA is being enabled': lambda p, h: p.busy('ha_enable'),
}
"""What is wrong with a member, or its pool."""

HARMLESS: dict[str, Break] = {
    'a halted guest': lambda p, h: _guest(p, h, 'Halted'),
    'a guest elsewhere': lambda p, h: _guest(p, p.host, 'Running'),
    'disabled': lambda p, h: p.set('host', h, enabled=False),
}


def pool_of(
    subject: int, wrong: collections.abc.Iterable[str]
) -> tuple[doors.Door, str]:
    """Return a pool of three, and the host that it is about."""
    _, door = agreement.topology_of(members=2)
    pool = sides.Side(door.machine)
    names = ('xen01', 'xen02', 'xen03')
    uuid = door.machine.world.named(names[subject]).uuid
    host = pool.db.by_uuid('host', uuid)
    for name in wrong:
        {**BREAKS, **HARMLESS}[name](pool, host)
    return door, host


def uuid_of(door: doors.Door, host: str) -> str:
    return str(door('host.get_uuid', host))


def agree(report: model.Report, got: agreement.Refusal) -> None:
    hypothesis.event(f"refused: {(got or ('no',))[0]}")
    assert report.first_refusal == got


def names(
    *left_out: str,
) -> st.SearchStrategy[list[str]]:
    known = [name for name in (*BREAKS, *HARMLESS) if name not in left_out]
    return st.lists(st.sampled_from(known), max_size=4, unique=True)


@MIXED
@hypothesis.given(
    subject=st.integers(0, 2),
    # Where another operation is under way an eject waits for its end.
    wrong=names('HA is being enabled'),
)
def test_ejects(subject: int, wrong: list[str]) -> None:
    door, host = pool_of(subject, wrong)
    uuid = uuid_of(door, host)
    report = eject.check(door.snapshot(*CLASSES), uuid, allow_data_loss=True)
    got = doors.refusal(door, 'pool.eject', host)
    agree(report, got)
    if got is None:
        assert not report.failures
        assert host not in door('host.get_all')
        victim = door.machine.world.by_uuid(uuid)
        door.machine.clock.advance(60)
        assert victim is not None
        assert victim.role == (machine.MASTER, '')


@MIXED
@hypothesis.given(subject=st.integers(0, 2), wrong=names())
def test_forgets(subject: int, wrong: list[str]) -> None:
    """Of a host that is dead, or lives and would be refused."""
    door, host = pool_of(subject, [*wrong, 'dead'])
    report = forget.check(door.snapshot(*CLASSES), uuid_of(door, host))
    got = doors.refusal(door, 'host.destroy', host)
    agree(report, got)
    if got is None:
        assert host not in door('host.get_all')


@MIXED
@hypothesis.given(subject=st.integers(1, 2), wrong=names())
def test_changes_of_master(subject: int, wrong: list[str]) -> None:
    door, host = pool_of(subject, wrong)
    uuid = uuid_of(door, host)
    report = master.check(door.snapshot(*CLASSES), uuid)
    got = doors.refusal(door, 'pool.designate_new_master', host)
    agree(report, got)
    if got is None:
        assert not report.failures
        door.machine.clock.advance(60)
        new = door.machine.world.by_uuid(uuid)
        assert new is not None
        for target in door.machine.world.machines:
            if target.name != 'joiner':
                said = agreement.login_answer(target)
                named = ('HOST_IS_SLAVE', new.address)
                assert said == (() if target is new else named)


def test_updates_make_an_eject_wait() -> None:
    """XAPI tries again and again, for two hours: no code is foreseen."""
    door, host = pool_of(1, [])
    sides.Side(door.machine).busy('apply_updates')
    report = eject.check(door.snapshot(*CLASSES), uuid_of(door, host))
    (said,) = [f for f in report.failures if f.check == 'updating']
    assert said.predicts is None
    began = door.machine.clock.now()
    got = doors.refusal(door, 'pool.eject', host)
    assert got is not None
    assert got[0] == 'OTHER_OPERATION_IN_PROGRESS'
    assert door.machine.clock.now() - began >= 7200
