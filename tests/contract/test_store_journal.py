# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the store promises, on each of its databases: the journal."""

from __future__ import annotations

import collections.abc
import time

import pytest

from tests.contract import store_kit
from tests.contract.store_kit import POOL
from xenpool_driver import exceptions, pool_states, store

CHANGING = {pool_states.STATE: pool_states.CHANGING}
ACTIVE = {pool_states.STATE: pool_states.ACTIVE}


@pytest.fixture
def clock() -> store_kit.Clock:
    """The store's clock; it stands still."""
    return store_kit.Clock()


@pytest.fixture
def database(
    database_url: str, clock: store_kit.Clock
) -> collections.abc.Iterator[store.Store]:
    """An empty store on each database in turn."""
    store.migrate(database_url)
    with store.Store(database_url, clock=clock, lease_clock=clock) as opened:
        yield opened


@pytest.fixture
def row(database: store.Store) -> store.Aggregate:
    """A pool aggregate."""
    return database.create_aggregate('pool-a', POOL)


class TestBegin:
    def test_writes_all_at_once(
        self,
        database: store.Store,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        operation, after = database.begin(
            row.uuid,
            'set-up',
            'xen01',
            'worker-1',
            60,
            {'pool': 'p', 'list': [1, None]},
            lambda row, running: store.Changes(CHANGING, ('xen01',)),
            'req-1',
        )
        assert operation == store.Operation(
            uuid=operation.uuid,
            aggregate_uuid=row.uuid,
            kind='set-up',
            host='xen01',
            phase='begun',
            owner='worker-1',
            epoch=1,
            lease=60,
            lease_expires=clock.now + 60,
            started_at=clock.now,
            details={'pool': 'p', 'list': [1, None]},
            request_id='req-1',
        )
        assert after.state == pool_states.CHANGING
        assert after.hosts == ['xen01']
        assert after.generation > row.generation
        assert database.get_aggregate(row.uuid) == after
        assert database.get_operation(operation.uuid) == operation
        assert database.phases(operation.uuid) == [
            store.Phase(1, 'begun', clock.now, '', 'worker-1', 1)
        ]

    def test_without_changes_moves_the_generation(
        self, database: store.Store, row: store.Aggregate
    ) -> None:
        store_kit.begin(database, row, host=None, details=None)
        with pytest.raises(exceptions.StaleAggregate):
            row.update_metadata({'a': '1'})

    def test_refused_writes_nothing(
        self, database: store.Store, database_url: str, row: store.Aggregate
    ) -> None:
        before = store_kit.dump(database_url)

        def refuse(
            row: store.Aggregate, running: list[store.Operation]
        ) -> store.Changes:
            raise exceptions.InvalidAggregateActionAdd(row.name, 'no')

        with pytest.raises(exceptions.InvalidAggregateActionAdd):
            store_kit.begin(database, row, refuse)
        for wrong in (
            {'kind': ''},
            {'host': 'x' * 256},
            {'owner': 'a\0'},
            {'request_id': 'r\n'},
        ):
            with pytest.raises(exceptions.InvalidText):
                store_kit.begin(
                    database,
                    row,
                    lambda row, running: store.Changes(CHANGING),
                    **wrong,
                )
        with pytest.raises(TypeError):
            store_kit.begin(database, row, details={'no': 'json', 's': {1}})
        with pytest.raises(exceptions.InvalidAggregateActionDelete):
            store_kit.begin(
                database,
                row,
                lambda row, running: store.Changes(
                    add_hosts=('x',), dismiss=True
                ),
            )
        assert store_kit.dump(database_url) == before

    def test_unknown_aggregate(self, database: store.Store) -> None:
        nobody = store.Aggregate(1, 'gone', 'x', [], {}, 1, 0.0)
        with pytest.raises(exceptions.AggregateNotFound, match='gone'):
            store_kit.begin(database, nobody)

    def test_admit_sees_what_runs_here(
        self,
        database: store.Store,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        other = database.create_aggregate('pool-b')
        first = store_kit.begin(database, row)
        second = store_kit.begin(database, row, host='xen02')
        store_kit.begin(database, other, host='xen03')
        database.finish(store_kit.begin(database, row), 'failed', 'why')
        clock.now += 1000  # expired ones run as long as nobody settled them
        seen = []

        def admit(
            row: store.Aggregate, running: list[store.Operation]
        ) -> store.Changes:
            seen.append((row, running))
            return store.Changes()

        third = store_kit.begin(database, row, admit)
        ((seen_row, running),) = seen
        assert seen_row.uuid == row.uuid
        assert running == [first, second]
        assert database.running_operations(row.uuid) == [*running, third]
        assert len(database.running_operations()) == 4

    def test_admit_judges_a_dismissed_aggregate(
        self, database: store.Store, row: store.Aggregate
    ) -> None:
        database.change(
            row.uuid,
            row.generation,
            store.Changes({pool_states.STATE: 'dismissed'}, dismiss=True),
        )

        def admit(
            row: store.Aggregate, running: list[store.Operation]
        ) -> store.Changes:
            reason = pool_states.refusal(row.state, pool_states.ADD)
            raise exceptions.InvalidAggregateActionAdd(row.name, str(reason))

        with pytest.raises(
            exceptions.InvalidAggregateActionAdd, match='aggregate deleted'
        ):
            store_kit.begin(database, row, admit)


class TestPhase:
    def test_tells_the_story(
        self,
        database: store.Store,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        operation = store_kit.begin(database, row, details={'a': 1, 'b': 1})
        clock.now += 10
        joined = database.phase(operation, 'join', 'to 10.0.0.1', {'b': 2})
        assert joined.phase == 'join'
        assert joined.details == {'a': 1, 'b': 2}
        assert joined.lease_expires == clock.now + 60
        clock.now += 10
        # The worker's own copy may be old; what it holds is its epoch.
        database.phase(operation, 'restart', details={'c': None})
        now = database.get_operation(operation.uuid)
        assert now.details == {'a': 1, 'b': 2, 'c': None}
        clock.now += 10
        database.finish(now, 'failed', 'never came back')
        assert [
            (phase.seq, phase.phase, phase.at - operation.started_at)
            for phase in database.phases(operation.uuid)
        ] == [
            (1, 'begun', 0),
            (2, 'join', 10),
            (3, 'restart', 20),
            (4, 'failed', 30),
        ]
        notes = [phase.note for phase in database.phases(operation.uuid)]
        assert notes == ['', 'to 10.0.0.1', '', 'never came back']

    def test_words_of_others_are_stored_whatever_they_are(
        self, database: store.Store, row: store.Aggregate
    ) -> None:
        operation = store_kit.begin(database, row)
        words = 'NUL \0, half a pair \udc80, 🐘, ' + 'long ' * 20_000
        stored = words.replace('\0', '\N{REPLACEMENT CHARACTER}').replace(
            '\udc80', '?'
        )
        operation = database.phase(operation, 'join', words, {'w': words})
        assert operation.details == {'w': words}
        database.finish(operation, 'failed', words)
        ended = database.get_operation(operation.uuid)
        assert ended.error == stored
        assert ended.details == {'w': words}
        assert [phase.note for phase in database.phases(ended.uuid)] == [
            '',
            stored,
            stored,
        ]

    def test_wrong_phase_is_refused(
        self, database: store.Store, row: store.Aggregate
    ) -> None:
        operation = store_kit.begin(database, row)
        with pytest.raises(exceptions.InvalidText, match='phase'):
            database.phase(operation, 'p' * 256)
        assert database.get_operation(operation.uuid) == operation

    def test_renew(
        self,
        database: store.Store,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        operation = store_kit.begin(database, row)
        clock.now += 50
        renewed = database.renew(operation, 30)
        assert renewed.lease_expires == clock.now + 30
        assert renewed.lease == 30
        assert len(database.phases(operation.uuid)) == 1


class TestFinish:
    def test_writes_all_at_once(
        self,
        database: store.Store,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        operation = store_kit.begin(
            database,
            row,
            lambda row, running: store.Changes(CHANGING, ('xen01',)),
        )
        clock.now += 23
        seen = []

        def settle(row: store.Aggregate) -> store.Changes:
            seen.append(row.state)
            return store.Changes({**ACTIVE, 'xen01': 'uuid-1'})

        after = database.finish(operation, 'succeeded', settle=settle)
        assert seen == [pool_states.CHANGING]
        assert after.state == pool_states.ACTIVE
        assert after == database.get_aggregate(row.uuid)
        ended = database.get_operation(operation.uuid)
        assert not ended.running
        assert ended.ended_at == clock.now
        assert (ended.outcome, ended.error) == ('succeeded', None)
        assert database.running_operations() == []
        after.update_metadata({'bound': 'yes'})

    def test_without_changes_leaves_the_generation(
        self, database: store.Store, row: store.Aggregate
    ) -> None:
        operation = store_kit.begin(database, row)
        before = database.get_aggregate(row.uuid)
        assert database.finish(operation, 'refused', 'because') == before
        assert database.finish(
            store_kit.begin(database, row), 'undone', settle=store.Changes()
        ) == database.get_aggregate(row.uuid)

    def test_settle_that_raises_writes_nothing(
        self, database: store.Store, database_url: str, row: store.Aggregate
    ) -> None:
        operation = store_kit.begin(database, row)
        before = store_kit.dump(database_url)

        def settle(row: store.Aggregate) -> store.Changes:
            raise pool_states.IllegalTransition('active', 'deleted')

        with pytest.raises(pool_states.IllegalTransition):
            database.finish(operation, 'succeeded', settle=settle)
        with pytest.raises(exceptions.InvalidText):
            database.finish(
                operation, 'succeeded', settle=store.Changes({'k': 'v' * 256})
            )
        assert store_kit.dump(database_url) == before
        database.finish(operation, 'failed')

    def test_ended_stays_ended(
        self, database: store.Store, database_url: str, row: store.Aggregate
    ) -> None:
        operation = store_kit.begin(database, row)
        database.finish(operation, 'succeeded')
        before = store_kit.dump(database_url)
        for write in (
            lambda: database.phase(operation, 'join'),
            lambda: database.renew(operation, 60),
            lambda: database.finish(operation, 'failed', 'x'),
            lambda: database.take_over(operation.uuid, 'w', 60, force=True),
        ):
            with pytest.raises(
                exceptions.LeaseLost, match='has ended: succeeded'
            ):
                write()
        assert store_kit.dump(database_url) == before


class TestTakeOver:
    def test_only_after_the_lease_has_run_out(
        self,
        database: store.Store,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        operation = store_kit.begin(database, row)
        clock.now += 40
        assert database.expired_operations() == []
        with pytest.raises(
            exceptions.LeaseLost, match='held by worker-1 for another 20 s'
        ):
            database.take_over(operation.uuid, 'worker-2', 60)
        clock.now += 20
        assert database.expired_operations() == [operation]
        assert database.expired_operations(row.uuid) == [operation]
        assert database.expired_operations('other') == []
        taken = database.take_over(operation.uuid, 'worker-2', 60)
        assert (taken.owner, taken.epoch) == ('worker-2', 2)
        assert taken.phase == operation.phase
        assert database.expired_operations() == []

    def test_former_owner_can_no_longer_write(
        self,
        database: store.Store,
        database_url: str,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        operation = store_kit.begin(database, row)
        operation = database.phase(operation, 'join')
        clock.now += 60
        taken = database.take_over(operation.uuid, 'worker-2', 60)
        before = store_kit.dump(database_url)
        for write in (
            lambda: database.phase(operation, 'restart'),
            lambda: database.renew(operation, 60),
            lambda: database.finish(
                operation, 'succeeded', settle=store.Changes(ACTIVE)
            ),
        ):
            with pytest.raises(
                exceptions.LeaseLost,
                match='by worker-2 .epoch 2; worker-1 held epoch 1',
            ):
                write()
        assert store_kit.dump(database_url) == before
        database.phase(taken, 'recovering')
        database.finish(taken, 'succeeded')
        assert [
            (phase.phase, phase.owner, phase.epoch)
            for phase in database.phases(operation.uuid)
        ] == [
            ('begun', 'worker-1', 1),
            ('join', 'worker-1', 1),
            ('taken-over', 'worker-2', 2),
            ('recovering', 'worker-2', 2),
            ('succeeded', 'worker-2', 2),
        ]

    def test_slow_owner_writes_as_long_as_nobody_took_over(
        self,
        database: store.Store,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        operation = store_kit.begin(database, row)
        clock.now += 600
        operation = database.phase(operation, 'join')
        assert not operation.expired(clock.now)

    def test_force(self, database: store.Store, row: store.Aggregate) -> None:
        operation = store_kit.begin(database, row)
        taken = database.take_over(operation.uuid, 'w', 60, force=True)
        assert taken.epoch == 2

    def test_unknown(self, database: store.Store) -> None:
        with pytest.raises(exceptions.OperationNotFound, match="'gone'"):
            database.take_over('gone', 'w', 60)


class TestLook:
    def test_newest_first(
        self, database: store.Store, row: store.Aggregate
    ) -> None:
        other = database.create_aggregate('pool-b')
        made = [store_kit.begin(database, row) for _ in range(5)]
        store_kit.begin(database, other)
        listed = database.list_operations(row.uuid, limit=3)
        assert listed == made[:1:-1]
        assert len(database.list_operations()) == 6

    def test_by_the_beginning_of_the_uuid(
        self, database: store.Store, row: store.Aggregate
    ) -> None:
        made = [store_kit.begin(database, row) for _ in range(17)]
        one = made[0]
        assert database.get_operation(one.uuid.upper()) == one
        assert database.get_operation(one.uuid[:20]) == one
        # Of 17 uuids at least two begin with the same digit.
        firsts = [operation.uuid[0] for operation in made]
        double = max(firsts, key=firsts.count)
        with pytest.raises(
            exceptions.OperationNotFound, match='any of .* give more'
        ):
            database.get_operation(double)
        for wrong in ('', '%', '_' * 36, 'zz', one.uuid + '0', '\0', 'é'):
            with pytest.raises(
                exceptions.OperationNotFound, match='there is no operation'
            ):
                database.get_operation(wrong)

    def test_story_of_nothing(self, database: store.Store) -> None:
        assert database.phases('gone') == []


DAY = 86_400.0


class TestLeaseClock:
    @pytest.mark.parametrize('kind', ['postgresql', 'mysql'])
    @pytest.mark.parametrize('ahead', [DAY, -DAY])
    def test_a_worker_whose_clock_is_wrong_holds_no_longer(
        self, kind: str, ahead: float, request: pytest.FixtureRequest
    ) -> None:
        url: str = request.getfixturevalue(f"{kind}_url")
        store.migrate(url)
        wrong = store_kit.Clock(time.time() + ahead)
        with (
            store.Store(url, clock=wrong) as worker,
            store.Store(url) as other,
        ):
            row = worker.create_aggregate('pool-a', POOL)

            def held(operation: store.Operation) -> None:
                left = operation.lease_expires - other.lease_time()
                assert 50 < left <= 60

            operation = store_kit.begin(worker, row)
            held(operation)
            held(worker.phase(operation, 'join'))
            held(worker.renew(operation, 60))
            assert worker.expired_operations() == []
            with pytest.raises(exceptions.LeaseLost, match='is held by'):
                worker.take_over(operation.uuid, 'worker-2', 60)
            held(worker.take_over(operation.uuid, 'w', 60, force=True))
            taken = other.get_operation(operation.uuid)
            other.renew(taken, 0.0)
            assert worker.expired_operations() == [
                other.get_operation(operation.uuid)
            ]
            held(worker.take_over(operation.uuid, 'worker-3', 60))
            (first, *_) = other.phases(operation.uuid)
            assert abs(first.at - other.lease_time()) < DAY / 2

    def test_a_clock_that_is_set_back_blocks_for_one_lease_at_most(
        self,
        database: store.Store,
        row: store.Aggregate,
        clock: store_kit.Clock,
    ) -> None:
        operation = store_kit.begin(database, row)
        clock.now -= DAY
        assert database.expired_operations() == []
        seen = database.get_operation(operation.uuid)
        assert seen.lease_expires == clock.now + 60
        assert (seen.epoch, seen.owner) == (1, 'worker-1')
        clock.now += 59
        assert database.expired_operations() == []
        # Its worker lives after all.
        database.renew(operation, 60)
        clock.now += 59
        assert database.expired_operations() == []
        clock.now += 1
        assert len(database.expired_operations(row.uuid)) == 1
        taken = database.take_over(operation.uuid, 'worker-2', 60)
        database.finish(taken, 'failed', 'the worker died')
