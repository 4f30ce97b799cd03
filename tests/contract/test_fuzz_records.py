# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Twins of recorded hosts survive any record that a host may hold.

Recorded pools are spoilt at random, within the types of the data model:
empty and odd texts, numbers out of the ordinary, references that lead
nowhere, fields and whole rows that are missing. Then the twins live: they
restart, join, change their master and part. XAPI's refusals are fine; a
failure of the simulator's own is not.
"""

from __future__ import annotations

import collections.abc
import copy
import json
import logging
import random
import typing

import pytest

from tests import conftest, manual_world
from tests.contract import doors
from xenpool_driver.simulator import (
    build,
    datamodel,
    errors,
    faults,
    gc,
    lifecycle,
    machine,
    records_dir,
)

POOLS = ('fresh-single-host', 'three-host-pool')

SEEDS = range(400 if conftest.PROFILE == 'matrix' else 24)

KEPT = {
    ('pool', 'uuid'),
    ('pool', 'master'),
    ('host', 'uuid'),
    ('VM', 'uuid'),
}
"""Fields without which a pool is none, and names that XAPI itself makes."""

TEXTS = (
    '',
    ' ',
    '0',
    '-1',
    'x',
    'a-b-c-d',
    'ffffffff-ffffffff',
    'é' * 40,
    "quote's \"<&>\\",
    'OpaqueRef:NULL',
    '1e400',
    'True',
    '127.0.0.1',
    '20260101T00:00:00Z',
    'x' * 3000,
)

Record = dict[str, typing.Any]
Records = dict[str, dict[str, Record]]


class Spoiler:
    """Spoils records.

    :param rng: decides how.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._model = datamodel.load()

    def value(self, kind: datamodel.Type, old: typing.Any) -> typing.Any:
        """Return a value of ``kind`` that is out of the ordinary."""
        choose = self._rng.choice
        if kind.kind == 'string':
            return choose(TEXTS)
        if kind.kind == 'int':
            return str(choose((0, -1, 1, 2**31, 2**63 - 1, -(2**63))))
        if kind.kind == 'float':
            return choose((0.0, -1.0, 1e308, float('nan')))
        if kind.kind == 'bool':
            return choose((True, False))
        if kind.kind == 'enum':
            return choose(sorted(self._model.enums[kind.name]))
        if kind.kind == 'ref':
            return choose(('OpaqueRef:NULL', 'OpaqueRef:gone', ''))
        if kind.kind == 'datetime':
            return choose(('19700101T00:00:00Z', '20991231T23:59:59Z'))
        if kind.kind == 'set' and kind.of is not None:
            return self._set(kind.of, old)
        if kind.kind == 'map' and kind.key is not None:
            return self._map(kind, old)
        return old

    def _set(self, of: datamodel.Type, old: typing.Any) -> typing.Any:
        some = [self.value(of, '') for _ in range(self._rng.randrange(3))]
        return self._rng.choice(([], some, [*old, *some]))

    def _map(self, kind: datamodel.Type, old: typing.Any) -> typing.Any:
        assert kind.key is not None and kind.of is not None
        if old and self._rng.random() < 0.7:
            spoilt = dict(old)
            for key in self._rng.sample(
                sorted(spoilt), min(len(spoilt), self._rng.randrange(1, 5))
            ):
                if self._rng.random() < 0.4:
                    del spoilt[key]
                else:
                    spoilt[key] = self.value(kind.of, spoilt[key])
            return spoilt
        if self._rng.random() < 0.5:
            return {}
        return {self.value(kind.key, ''): self.value(kind.of, '')}

    def spoil(self, records: Records) -> Records:
        """Return a copy of which some fields and rows are spoilt."""
        found = copy.deepcopy(records)
        rate = self._rng.choice((0.01, 0.05, 0.3, 1.0))
        for cls, rows in found.items():
            known = self._model.classes.get(cls)
            if known is None:
                continue
            for record in rows.values():
                self._spoil_record(known, record, rate)
            if cls in ('pool', 'host') or self._rng.random() >= rate / 2:
                continue
            for ref in list(rows):
                if self._rng.random() < 0.5:
                    del rows[ref]
        return found

    def _spoil_record(
        self, known: datamodel.Class, record: Record, rate: float
    ) -> None:
        for name in list(record):
            if (known.name, name) in KEPT or name not in known.fields:
                continue
            if self._rng.random() >= rate:
                continue
            if self._rng.random() < 0.2:
                del record[name]
            else:
                kind = known.fields[name].type
                record[name] = self.value(kind, record[name])


def recorded(name: str) -> Records:
    path = conftest.RECORDINGS / 'pools' / f'{name}.json'
    return typing.cast(Records, json.loads(path.read_text()))


def place(
    where: manual_world.ManualWorld,
    records: Records,
    free: collections.abc.Iterator[str],
) -> list[machine.Machine]:
    return records_dir.add_pool(where, records, free, doors.PASSWORD)


def tried(act: collections.abc.Callable[[], object]) -> None:
    """Do something that XAPI may refuse."""
    try:
        act()
    except faults.Drop:
        pass
    except errors.ApiError as error:
        own = ('Error(', 'Exception(', 'StopIteration')
        assert not any(
            word in text for word in own for text in error.params
        ), error.details


def read_all(target: machine.Machine) -> None:
    """Read every record of a host, as a client does."""
    db = target.db
    if db is None:
        return
    json.dumps(db.dump())


def live(
    where: manual_world.ManualWorld,
    pool: list[machine.Machine],
    joiner: machine.Machine,
) -> None:
    """Do to the twins what a rehearsal does."""
    master = pool[0]

    def ask(target: machine.Machine, method: str, *params: object) -> None:
        tried(lambda: doors.Door(target)(method, *params))
        where.clock.advance(45)
        for each in where.machines:
            read_all(each)

    for target in where.machines:
        lifecycle.exit_toolstack(target)
    where.clock.advance(90)
    ask(joiner, 'pool.join', master.address, 'root', doors.PASSWORD)
    ask(joiner, 'pool.join_force', master.address, 'root', doors.PASSWORD)
    db = master.db
    if db is None:
        return
    for other in (*pool[1:], joiner):
        ref = db.table('host').by_uuid.get(other.uuid)
        if ref is None:
            continue
        for method in (
            'host.get_vms_which_prevent_evacuation',
            'host.disable',
            'host.evacuate',
            'host.enable',
            'pool.eject',
        ):
            ask(master, method, ref)
    for target in pool[1:]:
        ref = db.table('host').by_uuid.get(target.uuid)
        if ref is not None:
            ask(master, 'pool.designate_new_master', ref)


@pytest.mark.parametrize('seed', SEEDS)
def test_spoilt_twins_live(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(seed)
    spoiler = Spoiler(rng)
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=seed)
    free = build.addresses('127.30.9.1')
    pool = place(where, spoiler.spoil(recorded(POOLS[seed % 2])), free)
    [joiner] = place(where, spoiler.spoil(recorded(POOLS[0])), free)
    gc.start(where)
    with caplog.at_level(logging.ERROR):
        for target in where.machines:
            read_all(target)
        live(where, pool, joiner)
    failed = [
        f'{record.getMessage()}: {record.exc_info}'
        for record in caplog.records
        if record.name.startswith('xenpool_driver.simulator')
    ]
    assert not failed


@pytest.mark.parametrize(
    'info',
    [
        {'features_hvm_host': '', 'features_pv_host': ''},
        {'features_hvm_host': 'no-hex', 'cpu_count': '', 'speed': ''},
        {'vendor': '', 'cpu_count': 'many', 'socket_count': '1.5'},
        {},
    ],
)
def test_a_host_may_tell_little_of_its_processors(
    info: dict[str, str],
) -> None:
    records = recorded('fresh-single-host')
    for host in records['host'].values():
        host['cpu_info'] = {**host['cpu_info'], **info} if info else dict(info)
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    free = build.addresses('127.30.9.1')
    [one] = place(where, records, free)
    [two] = place(where, other_host(records), free)
    tried(
        lambda: doors.Door(two)(
            'pool.join_force', one.address, 'root', doors.PASSWORD
        )
    )
    where.clock.advance(60)
    db = one.db
    assert db is not None
    joined = db.get('host', db.by_uuid('host', two.uuid))
    assert joined['enabled']
    host = db.by_uuid('host', two.uuid)
    doors.Door(one)('pool.eject', host)
    where.clock.advance(60)
    assert manual_world.state(two) == 'master'


def other_host(records: Records) -> Records:
    """Return the records of another host that was installed alike."""
    text = json.dumps(records)
    for number, cls in enumerate(('host', 'pool', 'VM', 'SR', 'VDI')):
        for index, record in enumerate(records.get(cls, {}).values()):
            text = text.replace(
                record['uuid'], f'{number:08x}-0000-0000-0000-{index:012x}'
            )
    return typing.cast(Records, json.loads(text))


def test_a_database_of_nothing_is_refused() -> None:
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    with pytest.raises(ValueError, match='pool'):
        place(where, {}, build.addresses('127.30.9.1'))
