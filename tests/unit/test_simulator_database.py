# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The simulated database and the simulated time."""

from __future__ import annotations

import random
import threading

import pytest

from tests import simulated
from xenpool_driver.simulator import clock, database, datamodel, errors


@pytest.fixture
def stopped_clock() -> clock.Clock:
    return clock.Clock(scale=0, start=1e9)


@pytest.fixture
def db(stopped_clock: clock.Clock) -> database.Database:
    return database.Database(stopped_clock, random.Random(1))


def test_the_data_model_has_all_of_xapis_classes() -> None:
    model = datamodel.load()
    assert len(model.classes) >= 60
    assert model.classes['pool'].messages['join'].async_
    assert model.messages['pool.join'].required == 3
    assert 'pool.is_slave' in model.emergency_calls


def test_every_type_of_the_data_model_can_be_written() -> None:
    for message in datamodel.load().messages.values():
        assert message.result.kind
        for param in message.params:
            assert param.type.kind


@pytest.mark.parametrize('name', ['fresh-single-host', 'three-host-pool'])
def test_recorded_records_come_back_as_they_were(
    name: str, stopped_clock: clock.Clock
) -> None:
    records = simulated.records(name)
    db = database.Database.from_records(
        records, stopped_clock, random.Random(1)
    )
    dumped = db.dump()
    assert {cls: dumped[cls] for cls in records} == records


def test_the_same_seed_gives_the_same_references(
    stopped_clock: clock.Clock,
) -> None:
    made = [
        database.Database(stopped_clock, random.Random(7)).create('host', {})
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_a_row_has_its_defaults(db: database.Database) -> None:
    ref = db.create('network', {'name_label': 'n'})
    record = db.get('network', ref)
    assert record['MTU'] == 1500
    assert record['uuid']
    assert db.by_uuid('network', record['uuid']) == ref


def test_relations_are_kept_on_both_sides(db: database.Database) -> None:
    one, other = db.create('host', {}), db.create('host', {})
    pbd = db.create('PBD', {'host': one})
    assert db.get('host', one)['PBDs'] == [pbd]
    db.set('PBD', pbd, host=other)
    assert db.get('host', one)['PBDs'] == []
    assert db.get('host', other)['PBDs'] == [pbd]
    second = db.create('PBD', {'host': other})
    assert db.get('host', other)['PBDs'] == [second, pbd]
    db.delete('PBD', pbd)
    assert db.get('host', other)['PBDs'] == [second]


def test_a_missing_row_is_an_invalid_handle(db: database.Database) -> None:
    with pytest.raises(errors.ApiError) as caught:
        db.get('host', 'OpaqueRef:NULL')
    assert caught.value.details == [
        'HANDLE_INVALID',
        'host',
        'OpaqueRef:NULL',
    ]


def test_maps_refuse_a_second_value_for_a_key(db: database.Database) -> None:
    ref = db.create('pool', {})
    db.add_to_map('pool', ref, 'other_config', 'k', 'v')
    with pytest.raises(errors.ApiError) as caught:
        db.add_to_map('pool', ref, 'other_config', 'k', 'w')
    assert caught.value.details == [
        'MAP_DUPLICATE_KEY',
        'pool',
        'other_config',
        ref,
        'k',
    ]
    db.remove_from_map('pool', ref, 'other_config', 'absent')
    assert db.get('pool', ref)['other_config'] == {'k': 'v'}


def test_sets_and_maps_grow_at_the_front(db: database.Database) -> None:
    ref = db.create('pool', {'tags': ['a'], 'other_config': {'a': '1'}})
    db.add_to_set('pool', ref, 'tags', 'b')
    db.add_to_set('pool', ref, 'tags', 'a')
    db.add_to_map('pool', ref, 'other_config', 'b', '2')
    assert db.get('pool', ref)['tags'] == ['b', 'a']
    assert list(db.get('pool', ref)['other_config']) == ['b', 'a']


def test_a_change_moves_the_generation_and_drops_the_encoding(
    db: database.Database,
) -> None:
    ref = db.create('network', {})
    row = db.row('network', ref)
    row.cache['xml'] = 'old'
    before = db.generation
    db.set('network', ref, name_label='new')
    assert db.generation == row.modified == before + 1
    assert not row.cache


def test_unknown_fields_and_references_twice_are_mistakes(
    db: database.Database,
) -> None:
    with pytest.raises(ValueError, match='nonsense'):
        db.create('host', {'nonsense': 1})
    ref = db.create('host', {})
    with pytest.raises(ValueError, match=ref):
        db.create('host', {}, ref=ref)
    with pytest.raises(ValueError, match='nonsense'):
        db.set('host', ref, nonsense=1)


def test_a_wrong_record_is_named(stopped_clock: clock.Clock) -> None:
    with pytest.raises(ValueError, match='host R: field enabled'):
        database.Database.from_records(
            {'host': {'R': {'enabled': 'yes'}}},
            stopped_clock,
            random.Random(1),
        )


def test_writing_what_is_there_already_changes_nothing(
    db: database.Database,
) -> None:
    """XAPI tells nobody of it (db_cache_impl.ml)."""
    config = {'a': '1', 'b': '2'}
    ref = db.create('network', {'name_label': 'n', 'other_config': config})
    before = db.generation
    db.set('network', ref, name_label='n', other_config=dict(config))
    assert db.generation == before
    db.set('network', ref, other_config={'b': '2', 'a': '1'})
    assert db.generation == before + 1


def test_a_waiter_wakes_on_a_change(db: database.Database) -> None:
    generation = db.generation
    thread = threading.Thread(target=db.create, args=('network', {}))
    thread.start()
    assert db.wait(generation, 1000) > generation
    thread.join()


def test_a_waiter_wakes_when_its_time_is_over(
    db: database.Database, stopped_clock: clock.Clock
) -> None:
    generation = db.generation
    stopped_clock.call_later(0, lambda: None)
    timer = threading.Timer(0.05, stopped_clock.advance, args=(60,))
    timer.start()
    assert db.wait(generation, 60) == generation
    timer.join()


def test_timers_fire_in_order_when_time_jumps(
    stopped_clock: clock.Clock,
) -> None:
    fired: list[str] = []
    done = threading.Event()
    stopped_clock.call_later(20, fired.append, 'second')
    stopped_clock.call_later(10, fired.append, 'first')
    stopped_clock.call_later(15, fired.append, 'never').cancel()
    stopped_clock.call_later(30, done.set)
    stopped_clock.advance(30)
    assert done.wait(10)
    assert fired == ['first', 'second']
    stopped_clock.stop()


def test_a_chain_of_timers_keeps_its_pace_when_time_jumps(
    stopped_clock: clock.Clock,
) -> None:
    fired: list[int] = []

    def tick() -> None:
        fired.append(len(fired))
        stopped_clock.call_later(10, tick)

    stopped_clock.call_later(10, tick)
    stopped_clock.advance(55)
    assert fired == [0, 1, 2, 3, 4]
    stopped_clock.advance(4)
    assert len(fired) == 5
    stopped_clock.advance(1)
    assert len(fired) == 6
    stopped_clock.stop()


def test_a_sleeper_wakes_when_time_jumps_or_stops(
    stopped_clock: clock.Clock,
) -> None:
    timer = threading.Timer(0.05, stopped_clock.advance, args=(5,))
    timer.start()
    stopped_clock.sleep(5)
    timer.join()
    stopped_clock.stop()
    with pytest.raises(clock.Stopped):
        stopped_clock.sleep(5)


def test_time_runs_at_its_scale_and_never_back() -> None:
    quick = clock.Clock(scale=1000, start=0)
    before = quick.now()
    quick.sleep(10)
    assert quick.now() - before >= 10
    quick.set_scale(0)
    frozen = quick.now()
    assert quick.now() == frozen
    with pytest.raises(ValueError, match='-1 is no number from 0 on'):
        quick.advance(-1)
    assert clock.from_iso(clock.to_iso(1e9)) == 1e9
