# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The table of differences from real hosts is true, and on its page."""

from __future__ import annotations

import pathlib
import typing

import pytest

from tests import conftest, manual_world
from tests.contract import differences, plays, test_wire_replay
from tests.unit import test_simulator_refusals as refusals

PAGE = pathlib.Path(__file__).parents[2] / 'doc/source/differences.rst'

JOINED = '103-joined-with-halted-vm-extra-network-local-sr-renamed-host'

RANDOM = {'generation_id', 'mac_seed', 'agent_start_time', 'ssh_expiry'}
"""Fields and keys that are made up, or tell the time, at the join."""

NOT_KEPT = {'host_cpu', 'VM_metrics', 'VIF_metrics', 'console', 'task'}
"""Classes of which the recording has no records."""

Record = dict[str, typing.Any]
Records = dict[str, dict[str, Record]]


def test_the_page_says_the_same() -> None:
    """To write it: python -m tests.contract.differences."""
    assert PAGE.read_text() == differences.page()


def test_every_row_is_about_a_recording() -> None:
    known = {
        *(timeline.name for timeline in plays.TIMELINES),
        *(p.stem for p in (conftest.RECORDINGS / 'refusals').glob('*.json')),
        'all timelines',
        'wire',
    }
    rows = (
        *differences.WIRE,
        *differences.OPERATIONS,
        *differences.NOT_COMPARED,
    )
    assert {row.where for row in rows} <= known
    assert all(all(row) for row in rows)


def test_exchanges_that_differ_are_in_the_table() -> None:
    assert {row.what for row in differences.WIRE} == set(
        test_wire_replay.DIFFERENCES
    )


# -- the pool after a join --------------------------------------------------


@pytest.fixture(name='joined', scope='module')
def _joined() -> tuple[Records, Records]:
    """Return the coordinator's records after the recorded join, and ours."""
    path = conftest.RECORDINGS / 'refusals' / f"{JOINED}.json"
    case = refusals.load(path)
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    joiner = refusals.place(case, 'joiner', where)
    pool = refusals.place(case, 'coordinator', where)
    assert joiner is not None
    assert pool is not None
    assert refusals.attempt('join', joiner, pool.address, case) is None
    where.clock.advance(60)
    assert pool.db is not None
    return case['coordinator_after'], pool.db.dump()


@pytest.mark.parametrize('cls', ['host', 'VM', 'VIF', 'SR', 'pool'])
def test_what_kept_its_uuid_is_equal_after_the_recorded_join(
    joined: tuple[Records, Records], cls: str
) -> None:
    then, now = (comparable(records, cls) for records in joined)
    assert now.keys() == then.keys()
    for uuid, row in then.items():
        mine = {field: now[uuid][field] for field in row}
        assert mine == row


def comparable(records: Records, cls: str) -> dict[str, Record]:
    """Return the records of a class by uuid, without what is random."""
    classes = {ref: name for name, rows in records.items() for ref in rows}
    names = {
        host['address']: host['name_label']
        for host in records['host'].values()
    }

    def plain(value: typing.Any) -> typing.Any:
        if isinstance(value, dict):
            return {
                key: plain(item)
                for key, item in value.items()
                if key not in RANDOM
            }
        if isinstance(value, list):
            return sorted(str(plain(item)) for item in value)
        if isinstance(value, str) and value.startswith('OpaqueRef:'):
            found = classes.get(value)
            gone = found is None or found in NOT_KEPT
            return value if value.endswith('NULL') else gone or found
        return names.get(value, value)

    return {
        row['uuid']: {
            field: plain(value)
            for field, value in row.items()
            if field not in RANDOM and field != 'host_CPUs'
        }
        for row in records[cls].values()
        if not row.get('is_a_template')
    }
