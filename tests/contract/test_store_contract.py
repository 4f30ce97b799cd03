# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the store promises, on each of its databases: aggregates, schema."""

from __future__ import annotations

import collections.abc
import copy
import functools
import pickle
import typing

import alembic.autogenerate
import alembic.migration
import pytest
import sqlalchemy

from tests.contract import store_kit
from tests.contract.store_kit import POOL
from xenpool_driver import exceptions, pool_states, store
from xenpool_driver.store import schema

WRONG_NAMES: list[tuple[typing.Any, str]] = [
    ('', 'is empty'),
    ('x' * 256, '256 characters; at most 255'),
    (' pool', 'white space'),
    ('pool\N{NO-BREAK SPACE}', 'white space'),
    ('po\nol', 'unprintable'),
    ('po\0ol', 'cannot be stored'),
    ('po\udc80ol', 'cannot be stored'),
    ('42', 'taken for an id'),
    ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'taken for a uuid'),
    ('A0EEBC999C0B4EF8BB6D6BB9BD380A11', 'taken for a uuid'),
    (b'pool', 'must be text, not bytes'),
]

WRONG_CHANGES = [
    (store.Changes({'k' * 256: 'v'}), 'metadata key'),
    (store.Changes({'': 'v'}), 'metadata key is empty'),
    (store.Changes({'k ': 'v'}), 'white space'),
    (store.Changes({'k': 'v' * 256}), "metadata value of 'k'"),
    (store.Changes({'k': 'v\0'}), "metadata value of 'k'"),
    (
        store.Changes({'k': typing.cast(str, 3)}),
        "value of 'k' must be text, not int",
    ),
    (store.Changes(add_hosts=('h' * 256,)), 'host name'),
    (store.Changes(add_hosts=('xen01', '')), 'host name is empty'),
]

UNKNOWN: list[str | int] = [
    'pool',
    '7',
    7,
    0,
    -1,
    10**30,
    str(10**30),
    '',
    'x' * 300,
    'a\0b',
    '%',
    "'; DROP TABLE xenpool_aggregates; --",
    '٣',
]


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
    with store.Store(database_url, clock=clock) as opened:
        yield opened


class TestCreate:
    def test_is_found_by_uuid_id_and_name(self, database: store.Store) -> None:
        made = database.create_aggregate('pool-a', {'b': '2', 'a': '1'})
        assert made.hosts == []
        assert list(made.metadata.items()) == [('a', '1'), ('b', '2')]
        assert made.state == pool_states.CREATED
        assert made.deleted_at is None
        for ident in (made.uuid, made.uuid.upper(), made.id, str(made.id)):
            assert database.get_aggregate(ident) == made
        assert database.get_aggregate('pool-a') == made
        assert database.list_aggregates() == [made]

    def test_keeps_a_given_uuid(self, database: store.Store) -> None:
        uuid = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'
        made = database.create_aggregate('pool-a', uuid=uuid)
        assert made.uuid == uuid.lower()
        assert database.get_aggregate(uuid).id == made.id
        with pytest.raises(exceptions.AggregateNameExists, match='uuid'):
            database.create_aggregate('pool-b', uuid=uuid)

    def test_name_is_taken_while_its_owner_lives(
        self, database: store.Store
    ) -> None:
        first = database.create_aggregate('pool-a')
        with pytest.raises(
            exceptions.AggregateNameExists, match=f"pool-a.*{first.uuid}"
        ):
            database.create_aggregate('pool-a', POOL)
        assert database.list_aggregates() == [first]
        database.change(
            first.uuid, first.generation, store.Changes(dismiss=True)
        )
        second = database.create_aggregate('pool-a')
        assert second.id > first.id
        assert database.get_aggregate('pool-a') == second
        assert database.get_aggregate('pool-a', dismissed=True) == second

    def test_names_that_differ_in_little_are_different(
        self, database: store.Store
    ) -> None:
        names = [
            'pool',
            'Pool',
            'pöol',
            'ｐool',
            '池🐘',
            '漢' * 255,
            '🐘' * 255,
        ]
        made = [database.create_aggregate(name) for name in names]
        assert [a.name for a in database.list_aggregates()] == names
        for aggregate in made:
            assert database.get_aggregate(aggregate.name) == aggregate
        metadata = {'k': '1', 'K': '2', 'ĸ': '', '🐘' * 255: '🐘' * 255}
        made[0].update_metadata(metadata)
        assert database.get_aggregate(made[0].uuid).metadata == metadata

    def test_wrong_name_is_refused(
        self, database: store.Store, database_url: str
    ) -> None:
        made = database.create_aggregate('pool-a')
        before = store_kit.dump(database_url)
        for name, message in WRONG_NAMES:
            with pytest.raises(exceptions.InvalidText, match=message):
                database.create_aggregate(name)
            with pytest.raises(exceptions.InvalidText, match=message):
                database.rename(made.uuid, made.generation, name)
        assert store_kit.dump(database_url) == before

    def test_wrong_text_is_refused_before_anything_is_written(
        self, database: store.Store, database_url: str
    ) -> None:
        made = database.create_aggregate('pool-a', {'first': '1'})
        before = store_kit.dump(database_url)
        for changes, message in WRONG_CHANGES:
            with pytest.raises(exceptions.InvalidText, match=message):
                database.change(made.uuid, made.generation, changes)
            admit = functools.partial(_admitted, changes)
            with pytest.raises(exceptions.InvalidText, match=message):
                store_kit.begin(database, made, admit)
        assert store_kit.dump(database_url) == before


class TestFind:
    def test_unknown_is_named(self, database: store.Store) -> None:
        for ident in UNKNOWN:
            with pytest.raises(exceptions.AggregateNotFound) as caught:
                database.get_aggregate(ident)
            assert f"'{ident}'" in str(caught.value)

    def test_names_of_foreign_aggregates_may_be_ambiguous(
        self, database: store.Store
    ) -> None:
        ours = database.create_aggregate('pool-a')
        theirs = database.track_aggregate('their-uuid', 'pool-a', {}, [])
        number = database.track_aggregate('other', str(ours.id), {}, [])
        for ident in ('pool-a', str(ours.id)):
            with pytest.raises(
                exceptions.AggregateNotFound, match='any of .* give the uuid'
            ):
                database.get_aggregate(ident)
        assert database.get_aggregate('their-uuid') == theirs
        assert database.get_aggregate(ours.id) == ours
        assert database.get_aggregate(number.uuid) == number

    def test_of_host(self, database: store.Store) -> None:
        pool = database.create_aggregate('pool-a', POOL)
        plain = database.create_aggregate('zone-b')
        add = store.Changes(add_hosts=('xen01',))
        database.change(plain.uuid, plain.generation, add)
        assert database.aggregate_of_host('xen01') is None
        pool = database.change(pool.uuid, pool.generation, add)
        assert database.aggregate_of_host('xen01') == pool
        assert database.aggregate_of_host('XEN01') is None


class TestWrite:
    def test_merges_and_deletes_and_refreshes(
        self, database: store.Store
    ) -> None:
        mine = database.create_aggregate('pool-a', {'a': '1', 'b': '2'})
        mine.update_metadata({'a': None, 'b': '3', 'c': '4', 'absent': None})
        assert mine.metadata == {'b': '3', 'c': '4'}
        assert mine.generation == database.get_aggregate('pool-a').generation
        mine.update_metadata({'c': '5'})
        assert database.get_aggregate('pool-a') == mine

    def test_stale_copy_is_refused_naming_both_generations(
        self, database: store.Store
    ) -> None:
        mine = database.create_aggregate('pool-a')
        stale = copy.deepcopy(mine)
        mine.update_metadata({'a': '1'})
        for write in (
            lambda: stale.update_metadata({'a': '2', 'b': '2'}),
            lambda: database.rename(stale.uuid, stale.generation, 'other'),
        ):
            with pytest.raises(exceptions.StaleAggregate) as caught:
                write()
            assert f"at generation {mine.generation}," in str(caught.value)
            assert f"based on {stale.generation}" in str(caught.value)
        assert stale.metadata == {}
        assert database.get_aggregate('pool-a') == mine
        stale.refresh()
        assert stale == mine
        stale.update_metadata({'a': '2'})

    def test_rename(self, database: store.Store) -> None:
        one = database.create_aggregate('one')
        two = database.create_aggregate('two')
        with pytest.raises(exceptions.AggregateNameExists, match="'two'"):
            database.rename(one.uuid, one.generation, 'two')
        one = database.rename(one.uuid, one.generation, 'three')
        assert one.name == 'three'
        assert database.rename(two.uuid, two.generation, 'one').name == 'one'
        assert database.get_aggregate('three') == one

    def test_hosts_keep_the_order_of_addition(
        self, database: store.Store
    ) -> None:
        row = database.create_aggregate('pool-a', POOL)
        for changes, hosts in (
            (store.Changes(add_hosts=('c', 'a')), ['c', 'a']),
            (store.Changes(add_hosts=('b', 'c', 'b')), ['c', 'a', 'b']),
            (store.Changes(remove_hosts=('c', 'gone')), ['a', 'b']),
            (store.Changes({}, ('c', 'a'), ('a',)), ['b', 'c', 'a']),
            (store.Changes({}, ('d',), ('c',)), ['b', 'a', 'd']),
        ):
            row = database.change(row.uuid, row.generation, changes)
            assert row.hosts == hosts
            assert database.get_aggregate(row.uuid) == row

    def test_host_is_in_one_pool_at_most(
        self, database: store.Store, database_url: str
    ) -> None:
        first = database.create_aggregate('pool-a', POOL)
        second = database.create_aggregate('pool-b', POOL)
        plain = database.create_aggregate('zone-c')
        add = store.Changes({'n': '1'}, add_hosts=('xen02', 'xen01'))
        first = database.change(first.uuid, first.generation, add)
        plain = database.change(plain.uuid, plain.generation, add)
        before = store_kit.dump(database_url)
        message = f"host 'xen0[12]' is in .*pool-a.*{first.uuid}"
        with pytest.raises(exceptions.AggregateHostExists, match=message):
            database.change(second.uuid, second.generation, add)
        with pytest.raises(exceptions.AggregateHostExists, match=message):
            store_kit.begin(database, second, lambda row, running: add)
        # Nor by making a pool of what was none.
        with pytest.raises(exceptions.AggregateHostExists, match=message):
            plain.update_metadata(POOL)
        with pytest.raises(exceptions.AggregateHostExists, match=message):
            database.track_aggregate('theirs', 'pool-d', POOL, ['xen01'])
        assert store_kit.dump(database_url) == before
        # It is free once its pool is none any more, and not again after.
        first.update_metadata({pool_states.POOL_FLAG: None})
        plain.update_metadata(POOL)
        with pytest.raises(exceptions.AggregateHostExists, match='zone-c'):
            first.update_metadata(POOL)
        assert database.aggregate_of_host('xen01') == plain

    def test_dismissed_keeps_its_row_and_its_history(
        self, database: store.Store, clock: store_kit.Clock
    ) -> None:
        row = database.create_aggregate('pool-a', POOL | {'k': 'v'})
        operation = store_kit.begin(
            database,
            row,
            lambda row, running: store.Changes(add_hosts=('xen01',)),
        )
        row = database.finish(operation, 'succeeded')
        dismiss = store.Changes(
            {pool_states.STATE: pool_states.DISMISSED}, dismiss=True
        )
        with pytest.raises(
            exceptions.InvalidAggregateActionDelete, match='xen01'
        ):
            database.change(row.uuid, row.generation, dismiss)
        assert database.get_aggregate('pool-a') == row
        clock.now += 5
        gone = database.change(
            row.uuid,
            row.generation,
            store.Changes(dismiss.metadata, (), ('xen01',), True),
        )
        assert gone.deleted_at == clock.now
        assert gone.state == pool_states.DISMISSED
        assert gone.metadata['k'] == 'v'
        assert database.list_aggregates() == []
        assert database.list_aggregates(dismissed=True) == [gone]
        assert database.list_operations(row.uuid) == [
            database.get_operation(operation.uuid)
        ]
        for ident in ('pool-a', gone.uuid, gone.id):
            assert database.get_aggregate(ident, dismissed=True) == gone
            with pytest.raises(exceptions.AggregateNotFound, match='deleted'):
                database.get_aggregate(ident)

    def test_dismissed_changes_no_more(
        self, database: store.Store, database_url: str
    ) -> None:
        row = database.create_aggregate('pool-a')
        gone = database.change(row.uuid, 1, store.Changes(dismiss=True))
        before = store_kit.dump(database_url)
        for write in (
            lambda: gone.update_metadata({'a': '1'}),
            lambda: database.rename(gone.uuid, gone.generation, 'b'),
            lambda: store_kit.begin(database, gone),
        ):
            with pytest.raises(exceptions.AggregateNotFound, match='deleted'):
                write()
        assert store_kit.dump(database_url) == before


class TestTrack:
    def test_ours_is_the_truth_but_for_the_name(
        self, database: store.Store
    ) -> None:
        first = database.track_aggregate('u', '2024', POOL, ['xen01', 'a'])
        assert (first.name, first.hosts) == ('2024', ['xen01', 'a'])
        assert first.tracked
        first.update_metadata({'operational_state': 'active'})
        again = database.track_aggregate('u', '2024', {}, ['other'])
        assert again == first
        renamed = database.track_aggregate('u', '2025', {'x': 'y'}, [])
        assert renamed.name == '2025'
        assert renamed.metadata == first.metadata
        assert renamed.hosts == first.hosts

    def test_their_names_are_unique_to_nobody(
        self, database: store.Store
    ) -> None:
        database.create_aggregate('pool-a')
        one = database.track_aggregate('u1', 'pool-a', {}, [])
        two = database.track_aggregate('u2', 'pool-a', {}, [])
        assert one.id != two.id
        database.track_aggregate('u2', 'pool-b', {}, [])
        database.create_aggregate('pool-b')

    def test_dismissed_stays_dismissed(self, database: store.Store) -> None:
        row = database.track_aggregate('u', 'pool-a', POOL, [])
        gone = database.change(
            'u', row.generation, store.Changes(dismiss=True)
        )
        assert database.track_aggregate('u', 'new', POOL, ['x']) == gone

    def test_wrong_uuid_is_refused(self, database: store.Store) -> None:
        with pytest.raises(exceptions.InvalidText, match='aggregate uuid'):
            database.track_aggregate('u' * 37, 'pool-a', {}, [])


class TestCopies:
    def test_log_and_copy_and_pickle(self, database: store.Store) -> None:
        row = database.create_aggregate('pool-a', {'a': '1'})
        assert '_store' not in repr(row)
        assert 'Store' not in repr(row)
        for other in (copy.copy(row), copy.deepcopy(row)):
            assert other == row
            other.refresh()
        unbound = pickle.loads(pickle.dumps(row))
        assert unbound == row
        with pytest.raises(exceptions.StoreError, match='without a store'):
            unbound.refresh()

    def test_deep_copy_is_deep(self, database: store.Store) -> None:
        row = database.create_aggregate('pool-a', {'a': '1'})
        other = copy.deepcopy(row)
        other.hosts.append('x')
        other.metadata['b'] = '2'
        assert (row.hosts, row.metadata) == ([], {'a': '1'})


class TestSchema:
    def test_is_what_the_code_reads(
        self, database: store.Store, database_url: str
    ) -> None:
        engine = sqlalchemy.create_engine(database_url)
        with engine.connect() as connection:
            context = alembic.migration.MigrationContext.configure(
                connection,
                opts={
                    'version_table': schema.VERSION_TABLE,
                    'compare_type': True,
                },
            )
            differences = alembic.autogenerate.compare_metadata(
                context, schema.METADATA
            )
        engine.dispose()
        assert differences == []

    def test_only_sqlite_is_upgraded_unasked(self, database_url: str) -> None:
        assert store.version(database_url) == (None, schema.REVISION)
        if database_url.startswith('sqlite'):
            store.Store(database_url).close()
        else:
            with pytest.raises(
                exceptions.DatabaseVersionMismatch,
                match=f"none.*{schema.REVISION}.*xenpool db upgrade",
            ):
                store.Store(database_url)
            assert store.migrate(database_url) == (None, schema.REVISION)
            store.Store(database_url).close()
        current = (schema.REVISION, schema.REVISION)
        assert store.version(database_url) == current
        assert store.migrate(database_url) == current

    def test_newer_than_the_code_is_refused(
        self, database: store.Store, database_url: str
    ) -> None:
        made = database.create_aggregate('pool-a')
        _set_revision(database_url, '9999')
        before = store_kit.dump(database_url)
        for action in (store.Store, store.migrate):
            with pytest.raises(
                exceptions.DatabaseVersionMismatch,
                match=f"9999, newer than {schema.REVISION}",
            ):
                action(database_url)
        assert store_kit.dump(database_url) == before
        _set_revision(database_url, schema.REVISION)
        with store.Store(database_url) as again:
            assert again.get_aggregate('pool-a') == made

    def test_upgrade_goes_on_where_a_dead_one_stopped(
        self, database_url: str
    ) -> None:
        """MariaDB commits each table by itself."""
        store.migrate(database_url)
        engine = sqlalchemy.create_engine(database_url)
        with engine.begin() as connection:
            for table in ('xenpool_phases', schema.VERSION_TABLE):
                connection.execute(sqlalchemy.text(f"DROP TABLE {table}"))
        engine.dispose()
        if database_url.startswith('sqlite'):
            with pytest.raises(exceptions.StoreError, match='not ours'):
                store.migrate(database_url)
            return
        assert store.migrate(database_url) == (None, schema.REVISION)
        with store.Store(database_url) as opened:
            row = opened.create_aggregate('pool-a')
            assert len(opened.phases(store_kit.begin(opened, row).uuid)) == 1

    def test_two_upgrades_at_once(self, database_url: str) -> None:
        results = store_kit.run(
            store.migrate, (database_url,), (database_url,)
        )
        assert sorted(results, key=repr) == [
            (schema.REVISION, schema.REVISION),
            (None, schema.REVISION),
        ]


def _admitted(
    changes: store.Changes,
    row: store.Aggregate,
    running: list[store.Operation],
) -> store.Changes:
    return changes


def _set_revision(url: str, revision: str) -> None:
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                f"UPDATE {schema.VERSION_TABLE} SET version_num = :revision"
            ),
            {'revision': revision},
        )
    engine.dispose()
