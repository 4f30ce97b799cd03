# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the store promises to many workers at once, on each of its databases.

The workers are real processes. They meet at barriers, not at times.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import typing

import pytest
import sqlalchemy

from tests.contract import store_kit
from tests.contract.store_kit import POOL
from xenpool_driver import exceptions, pool_states, store
from xenpool_driver.store import engine

ROUNDS = 50

CHANGING = {pool_states.STATE: pool_states.CHANGING}


@pytest.fixture
def url(database_url: str) -> str:
    """The URL of an empty store on each database in turn."""
    store.migrate(database_url)
    return database_url


def alone(
    row: store.Aggregate, running: list[store.Operation]
) -> store.Changes:
    """Admit the first host only, as a set-up is."""
    if row.hosts or running or row.state != pool_states.CREATED:
        raise exceptions.InvalidAggregateActionAdd(
            row.name, 'setup in progress'
        )
    return store.Changes(CHANGING, ('xen01',))


def _set_up(
    url: str, barrier: typing.Any, worker: str, uuids: list[str]
) -> list[str]:
    """Try to be the first on each aggregate; return how it went."""
    went = []
    with store.Store(url) as database:
        for uuid in uuids:
            barrier.wait(store_kit.PATIENCE)
            went.append(
                store_kit.outcome(
                    database.begin, uuid, 'set-up', 'h', worker, 60, {}, alone
                )
            )
    return went


def test_two_begin_at_once_and_one_is_admitted(url: str) -> None:
    with store.Store(url) as database:
        rows = [
            database.create_aggregate(f"pool-{number}", {'n': 'x'})
            for number in range(ROUNDS)
        ]
        barrier = store_kit.CHILDREN.Barrier(2)
        uuids = [row.uuid for row in rows]
        one, two = store_kit.run(
            _set_up, (url, barrier, 'one', uuids), (url, barrier, 'two', uuids)
        )
        for pair in zip(one, two, strict=True):
            assert sorted(pair) == ['InvalidAggregateActionAdd', 'done']
        for row in rows:
            (operation,) = database.running_operations(row.uuid)
            after = database.get_aggregate(row.uuid)
            assert after.state == pool_states.CHANGING
            assert after.generation == row.generation + 1
            assert len(database.phases(operation.uuid)) == 1


def _count(url: str, barrier: typing.Any, uuid: str, times: int) -> int:
    """Add one to a counter so many times; return how often it was stale."""
    stale = 0
    with store.Store(url) as database:
        barrier.wait(store_kit.PATIENCE)
        row = database.get_aggregate(uuid)
        while times:
            try:
                row.update_metadata({'n': str(int(row.metadata['n']) + 1)})
                times -= 1
            except exceptions.StaleAggregate:
                stale += 1
                row.refresh()
    return stale


def test_no_update_is_lost_by_four(url: str) -> None:
    with store.Store(url) as database:
        row = database.create_aggregate('pool-a', {'n': '0'})
        barrier = store_kit.CHILDREN.Barrier(4)
        store_kit.run(_count, *[(url, barrier, row.uuid, 50)] * 4)
        row = database.get_aggregate(row.uuid)
        assert row.metadata == {'n': '200'}


def _claim(
    url: str, barrier: typing.Any, names: list[str], hosts: tuple[str, ...]
) -> list[str]:
    """Add the hosts to each aggregate in turn; return how it went."""
    went = []
    with store.Store(url) as database:
        for name in names:
            row = database.get_aggregate(name)
            barrier.wait(store_kit.PATIENCE)
            went.append(
                store_kit.outcome(
                    database.begin,
                    row.uuid,
                    'join',
                    hosts[0],
                    'w',
                    60,
                    {},
                    lambda row, running: store.Changes(add_hosts=hosts),
                )
            )
            barrier.wait(store_kit.PATIENCE)
            row.refresh()
            done = store.Changes(remove_hosts=hosts)
            database.change(row.uuid, row.generation, done)
            barrier.wait(store_kit.PATIENCE)
    return went


def test_one_of_two_pools_gets_the_host(url: str) -> None:
    """Also where the two take two hosts in opposite order: no deadlock."""
    with store.Store(url) as database:
        for name in ('a', 'b'):
            database.create_aggregate(name, POOL)
        barrier = store_kit.CHILDREN.Barrier(2)
        one, two = store_kit.run(
            _claim,
            (url, barrier, ['a'] * 20, ('xen01', 'xen02')),
            (url, barrier, ['b'] * 20, ('xen02', 'xen01')),
        )
        for pair in zip(one, two, strict=True):
            assert sorted(pair) == ['AggregateHostExists', 'done']


def _create(url: str, barrier: typing.Any, names: list[str]) -> list[str]:
    """Create the aggregates; return how it went."""
    went = []
    with store.Store(url) as database:
        for name in names:
            barrier.wait(store_kit.PATIENCE)
            went.append(store_kit.outcome(database.create_aggregate, name))
            barrier.wait(store_kit.PATIENCE)
    return went


def test_one_of_two_gets_the_name(url: str) -> None:
    barrier = store_kit.CHILDREN.Barrier(2)
    names = [f"pool-{number}" for number in range(20)]
    one, two = store_kit.run(
        _create, (url, barrier, names), (url, barrier, names)
    )
    for pair in zip(one, two, strict=True):
        assert sorted(pair) == ['AggregateNameExists', 'done']
    with store.Store(url) as database:
        assert [row.name for row in database.list_aggregates()] == names


def _track(url: str, barrier: typing.Any, uuids: list[str]) -> None:
    with store.Store(url) as database:
        for uuid in uuids:
            barrier.wait(store_kit.PATIENCE)
            database.track_aggregate(uuid, f"name-{uuid}", POOL, [uuid])


def test_two_track_the_same(url: str) -> None:
    barrier = store_kit.CHILDREN.Barrier(2)
    uuids = [f"u{number}" for number in range(20)]
    store_kit.run(_track, (url, barrier, uuids), (url, barrier, uuids))
    with store.Store(url) as database:
        assert [row.uuid for row in database.list_aggregates()] == uuids


def _take(
    url: str, barrier: typing.Any, uuids: list[str], owner: str
) -> list[str]:
    went = []
    with store.Store(url, lease_clock=store_kit.Clock(1e9)) as database:
        for uuid in uuids:
            barrier.wait(store_kit.PATIENCE)
            went.append(store_kit.outcome(database.take_over, uuid, owner, 60))
    return went


def test_one_of_two_takes_a_dead_operation_over(url: str) -> None:
    with store.Store(url, lease_clock=store_kit.Clock(0.0)) as database:
        row = database.create_aggregate('pool-a')
        uuids = [store_kit.begin(database, row).uuid for _ in range(20)]
        barrier = store_kit.CHILDREN.Barrier(2)
        one, two = store_kit.run(
            _take, (url, barrier, uuids, 'one'), (url, barrier, uuids, 'two')
        )
        for uuid, pair in zip(uuids, zip(one, two, strict=True), strict=True):
            assert sorted(pair) == ['LeaseLost', 'done']
            taken = database.get_operation(uuid)
            assert taken.epoch == 2
            assert taken.owner == ('one' if pair[0] == 'done' else 'two')


def _die(url: str, act: str, when: str) -> None:
    """Be killed in the middle of a write."""
    with store.Store(url) as database:
        if when == 'before commit':
            sqlalchemy.event.listen(
                database._database._engine, 'commit', _kill
            )
        row = database.get_aggregate('pool-a')
        if act == 'begin':
            admit = _admit_and_die if when == 'in admit' else _admit
            store_kit.begin(database, row, admit)
        elif act == 'finish':
            (operation,) = database.running_operations()
            database.finish(
                operation, 'succeeded', settle=store.Changes({'x': None})
            )
        else:
            row.update_metadata({'a': None, 'b': 'changed', 'c': 'new'})


def _kill(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _admit(
    row: store.Aggregate, running: list[store.Operation]
) -> store.Changes:
    return store.Changes({'a': None, 'c': 'new'}, ('xen02',), ('xen01',))


def _admit_and_die(
    row: store.Aggregate, running: list[store.Operation]
) -> store.Changes:
    _kill()
    return store.Changes()


@pytest.mark.parametrize(
    ('act', 'when'),
    [
        ('begin', 'in admit'),
        ('begin', 'before commit'),
        ('finish', 'before commit'),
        ('update', 'before commit'),
    ],
)
def test_killed_in_the_middle_leaves_nothing_half_written(
    url: str, act: str, when: str
) -> None:
    with store.Store(url) as database:
        row = database.create_aggregate('pool-a', {'a': '1', 'b': '2'})
        store_kit.begin(
            database,
            row,
            lambda row, running: store.Changes(add_hosts=('xen01',)),
        )
        before = store_kit.dump(url)
        (status,) = store_kit.run(_die, (url, act, when))
        assert status == -signal.SIGKILL
        assert store_kit.dump(url) == before
        # And its locks went with it.
        (operation,) = database.running_operations()
        database.finish(operation, 'failed', settle=store.Changes({'d': '4'}))
        store_kit.begin(database, database.get_aggregate('pool-a'))


def _vanish(url: str, uuid: str) -> None:
    """Begin, announce a phase, and be killed."""
    with store.Store(url, lease_clock=store_kit.Clock(100.0)) as database:
        row = database.get_aggregate(uuid)
        operation = store_kit.begin(
            database,
            row,
            lambda row, running: store.Changes(CHANGING, ('xen01',)),
        )
        database.phase(operation, 'join', details={'seen': 'all'})
        _kill()


def test_operation_of_a_killed_worker_is_settled_by_the_next(url: str) -> None:
    clock = store_kit.Clock(159.0)
    with store.Store(url, lease_clock=clock) as database:
        row = database.create_aggregate('pool-a', POOL)
        store_kit.run(_vanish, (url, row.uuid))
        assert database.expired_operations() == []
        clock.now = 160.0
        (dead,) = database.expired_operations()
        assert (dead.phase, dead.details) == ('join', {'seen': 'all'})
        mine = database.take_over(dead.uuid, 'worker-2', 60)
        row = database.finish(
            mine,
            'failed',
            'the worker died',
            store.Changes({pool_states.STATE: 'error'}, (), ('xen01',)),
        )
        assert (row.state, row.hosts) == ('error', [])
        assert database.running_operations() == []


def test_threads_share_a_store(url: str) -> None:
    """More of them than the pool keeps connections."""
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                operation = store_kit.begin(
                    database, row, host=f"xen{number:02}"
                )
                operation = database.phase(operation, 'join')
                database.finish(operation, 'succeeded')
        except BaseException as error:
            failed.append(error)

    with store.Store(url) as database:
        row = database.create_aggregate('pool-a')
        threads = [
            threading.Thread(target=work, args=(number,))
            for number in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(store_kit.PATIENCE)
        assert failed == []
        assert len(database.list_operations(limit=1000)) == 60
        assert database.running_operations() == []


def test_reader_sees_one_moment(url: str) -> None:
    """A read is of one generation, also while others write."""
    with store.Store(url) as database, store.Store(url) as other:
        row = database.create_aggregate('pool-a', {'n': '1'})
        reads = []

        def look(connection: sqlalchemy.Connection) -> None:
            select = sqlalchemy.text(
                'SELECT generation FROM xenpool_aggregates'
            )
            reads.append(connection.scalar(select))
            mine = other.get_aggregate('pool-a')
            mine.update_metadata({'n': str(int(mine.metadata['n']) + 1)})
            reads.append(connection.scalar(select))

        database._database.read(look)
        assert reads == [row.generation] * 2


def test_writer_reads_what_the_lock_guards(url: str) -> None:
    """Whoever waited for a lock sees what its last holder wrote, and not
    what was there when its own transaction began."""
    met = threading.Event()
    done = threading.Event()

    def slow(
        row: store.Aggregate, running: list[store.Operation]
    ) -> store.Changes:
        met.set()
        assert done.wait(store_kit.PATIENCE)
        return store.Changes({'n': 'one'})

    with store.Store(url) as database:
        row = database.create_aggregate('pool-a', {'n': 'none'})
        thread = threading.Thread(
            target=store_kit.begin, args=(database, row, slow)
        )
        thread.start()
        assert met.wait(store_kit.PATIENCE)
        seen = []

        def look(
            row: store.Aggregate, running: list[store.Operation]
        ) -> store.Changes:
            seen.append((row.metadata['n'], len(running)))
            return store.Changes({'n': 'two'})

        waiter = threading.Thread(
            target=store_kit.begin, args=(database, row, look)
        )
        waiter.start()
        done.set()
        thread.join(store_kit.PATIENCE)
        waiter.join(store_kit.PATIENCE)
        assert seen == [('one', 1)]


def test_lock_that_is_never_released_is_one_clear_line(url: str) -> None:
    with store.Store(url) as database, store.Store(url, 0.2) as impatient:
        row = database.create_aggregate('pool-a')

        def hold(
            held: store.Aggregate, running: list[store.Operation]
        ) -> store.Changes:
            with pytest.raises(exceptions.StoreError) as caught:
                store_kit.begin(impatient, row)
            said.append(str(caught.value))
            return store.Changes()

        said: list[str] = []
        store_kit.begin(database, row, hold)
        (line,) = said
        assert line.startswith('database ')
        assert 'lock' in line.lower()
        assert '\n' not in line
        assert len(database.running_operations()) == 1


def test_transient_errors_begin_the_transaction_anew(url: str) -> None:
    with store.Store(url, clock=store_kit.Clock()) as database:
        row = database.create_aggregate('pool-a')
        tries = []

        def admit(
            row: store.Aggregate, running: list[store.Operation]
        ) -> store.Changes:
            tries.append(row)
            if len(tries) < 3:
                raise _deadlock(url)
            return store.Changes({'tries': str(len(tries))})

        store_kit.begin(database, row, admit)
        assert len(tries) == 3
        assert len(database.running_operations()) == 1
        always = []

        def never(
            row: store.Aggregate, running: list[store.Operation]
        ) -> store.Changes:
            always.append(row)
            raise _deadlock(url)

        with pytest.raises(exceptions.StoreError, match='database'):
            store_kit.begin(database, row, never)
        assert len(always) == engine.ATTEMPTS


def _deadlock(url: str) -> Exception:
    """Return the error that each driver raises for a deadlock."""
    cause: Exception
    if url.startswith('sqlite'):
        locked = sqlite3.OperationalError('database is locked')
        locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
        cause = locked
    elif url.startswith('postgresql'):
        errors = pytest.importorskip('psycopg.errors')
        cause = errors.DeadlockDetected('deadlock detected')
    else:
        errors = pytest.importorskip('pymysql.err')
        cause = errors.OperationalError(1213, 'Deadlock found')
    return sqlalchemy.exc.OperationalError('INSERT', {}, cause)
