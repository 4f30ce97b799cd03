# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The frame of every verb, with a verb that does as it is told."""

from __future__ import annotations

import collections.abc
import pathlib
import types
import typing

import pytest

from xenpool_driver import (
    exceptions,
    operation,
    pool_states,
    reconcile,
    store,
)
from xenpool_driver.store import core
from xenpool_driver.xapi import connections

Observation = reconcile.Observation


class ManualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted(operation.Verb):
    """A join that raises and shows what it was told to."""

    kind = 'join'
    request = pool_states.ADD
    action = 'add_to_aggregate'
    refused = exceptions.InvalidAggregateActionAdd
    goal = Observation.JOINED
    timeout = 10.0

    def __init__(
        self,
        site: operation.Site,
        row: store.Aggregate,
        host: str = 'xen02',
        *,
        raises: Exception | None = None,
        shows: collections.abc.Sequence[Observation | Exception] = (
            Observation.JOINED,
        ),
        refuses: bool = False,
    ) -> None:
        now = site.store.get_aggregate(row.uuid)  # as the driver does
        super().__init__(site, now, host)
        self.raises = raises
        self.shows = list(shows)
        self.refuses = refuses
        self.calls: list[str] = []

    def prepare(self) -> None:
        self.calls.append('prepare')
        if self.refuses:
            raise self.refused(self.row.name, 'HA is on')

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        return store.Changes(add_hosts=(self.host,))

    def act(self, journal: operation.Journal) -> None:
        journal.phase('join')
        self.calls.append('act')
        if self.raises:
            raise self.raises

    def observe(self) -> Observation:
        seen = self.shows.pop(0) if len(self.shows) > 1 else self.shows[0]
        if isinstance(seen, Exception):
            raise seen
        return seen

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        if settlement.member is False:
            return store.Changes(remove_hosts=(self.host,))
        return store.Changes(metadata={self.host: 'its-uuid'})


class SettingUp(Scripted):
    """The same for a first host."""

    kind = 'set-up'
    goal = Observation.SET_UP

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        return store.Changes(
            metadata={pool_states.STATE: pool_states.CHANGING},
            add_hosts=(self.host,),
        )


@pytest.fixture
def time() -> ManualClock:
    return ManualClock()


@pytest.fixture
def site(
    tmp_path: pathlib.Path, time: ManualClock
) -> collections.abc.Iterator[operation.Site]:
    conf: typing.Any = types.SimpleNamespace(
        xenpool=types.SimpleNamespace(
            lease_duration=60.0,
            failure_threshold=3,
            poll_interval=1.0,
            probe_timeout=5.0,
        )
    )
    with core.Store(
        f"sqlite:///{tmp_path / 'xenpool.db'}", clock=time
    ) as database:
        doors = connections.Connections({}, time)
        yield operation.Site(conf, database, doors, time)


def make(
    site: operation.Site, state: str = pool_states.ACTIVE
) -> store.Aggregate:
    return site.store.create_aggregate(
        'rack1',
        {
            pool_states.POOL_FLAG: 'true',
            pool_states.STATE: state,
            pool_states.MASTER: 'xen01',
        },
    )


def failed(row: store.Aggregate) -> str | None:
    row.refresh()
    return row.metadata.get(pool_states.FAILED_REQUESTS)


def test_success_is_written_whole(site: operation.Site) -> None:
    row = operation.perform(Scripted(site, make(site)))

    assert row.hosts == ['xen02']
    assert row.metadata['xen02'] == 'its-uuid'
    assert row.state == pool_states.ACTIVE
    [entry] = site.store.list_operations(row.uuid)
    assert entry.outcome == 'succeeded'
    told = [phase.phase for phase in site.store.phases(entry.uuid)]
    assert told[:2] == ['begun', 'join']


def test_a_refused_check_writes_nothing(site: operation.Site) -> None:
    row = make(site)
    before = (row.generation, dict(row.metadata), list(row.hosts))

    with pytest.raises(exceptions.InvalidAggregateActionAdd):
        operation.perform(Scripted(site, row, refuses=True))

    row.refresh()
    assert (row.generation, row.metadata, row.hosts) == before
    assert site.store.list_operations(row.uuid) == []


@pytest.mark.parametrize(
    ('state', 'reason'),
    [
        (pool_states.CHANGING, 'setup in progress'),
        (pool_states.ERROR, 'aggregate in error'),
        (pool_states.DISMISSED, 'aggregate deleted'),
    ],
)
def test_the_lifecycle_refuses_before_xapi_is_asked(
    site: operation.Site, state: str, reason: str
) -> None:
    verb = Scripted(site, make(site, state))

    with pytest.raises(exceptions.InvalidAggregateActionAdd, match=reason):
        operation.perform(verb)

    assert verb.calls == []


def test_failures_in_a_row_make_an_error(site: operation.Site) -> None:
    row = make(site)

    def fail() -> None:
        refused = exceptions.XapiRefused('HA_IS_ENABLED', (), 'xen02')
        with pytest.raises(exceptions.AggregateError, match='HA_IS_ENABLED'):
            operation.perform(
                Scripted(
                    site,
                    row,
                    raises=refused,
                    shows=[Observation.NOT_JOINED],
                )
            )

    fail()
    fail()
    assert (row.state, failed(row)) == (pool_states.ACTIVE, '2')
    operation.perform(Scripted(site, row))
    assert failed(row) == '0'
    fail()
    fail()
    fail()
    assert (failed(row), row.state) == ('3', pool_states.ERROR)
    assert row.hosts == []


def test_an_unanswered_call_is_judged_by_what_xapi_shows(
    site: operation.Site,
) -> None:
    verb = Scripted(
        site,
        make(site),
        raises=exceptions.XapiOutcomeUnknown('no answer', 'xen02'),
        shows=[
            exceptions.XapiUnavailable('restarting', 'xen02'),
            Observation.JOINING,
            Observation.JOINED,
        ],
    )

    row = operation.perform(verb)

    assert row.hosts == ['xen02']
    assert verb.calls.count('act') == 1


def test_a_goal_that_is_never_seen_fails_with_what_is_known(
    site: operation.Site, time: ManualClock
) -> None:
    row = make(site)
    began = time.now

    with pytest.raises(exceptions.AggregateError, match='was not live'):
        operation.perform(Scripted(site, row, shows=[Observation.JOINING]))

    assert time.now - began >= 10.0
    assert failed(row) == '1'
    # XAPI knows the host, so the aggregate must, too.
    assert row.hosts == ['xen02']


def test_blindness_is_said(site: operation.Site) -> None:
    blind = exceptions.XapiUnavailable('refused', 'xen01')

    with pytest.raises(
        exceptions.AggregateError, match='could not be observed.*refused'
    ):
        operation.perform(Scripted(site, make(site), shows=[blind]))


def test_a_failed_set_up_is_an_error(site: operation.Site) -> None:
    row = make(site, pool_states.CREATED)

    with pytest.raises(exceptions.AggregateError):
        operation.perform(SettingUp(site, row, shows=[Observation.NOT_SET_UP]))

    row.refresh()
    assert row.state == pool_states.ERROR


BETWEEN: dict[str, store.Changes] = {
    'another pool': store.Changes({pool_states.POOL_UUID: 'another'}),
    'another master': store.Changes({pool_states.MASTER: 'xen09'}),
    'no pool': store.Changes(
        {pool_states.POOL_UUID: None, pool_states.MASTER: None}
    ),
    'joined': store.Changes({'xen02': 'its-uuid'}, ('xen02',)),
    'only listed': store.Changes(add_hosts=('xen02',)),
}


@pytest.mark.parametrize('what', BETWEEN)
def test_what_another_worker_changed_meanwhile_is_not_built_upon(
    site: operation.Site, what: str
) -> None:
    """The pool that was judged may be another aggregate's by now."""
    row = make(site)

    class Overtaken(Scripted):
        def prepare(self) -> None:
            now = site.store.get_aggregate(row.uuid)
            site.store.change(row.uuid, now.generation, BETWEEN[what])

    late = Overtaken(site, row)
    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='repeat the request'
    ):
        operation.perform(late)

    assert late.calls == []
    assert site.store.list_operations(row.uuid) == []
    row.refresh()
    operation.perform(Scripted(site, row))


def test_another_host_that_joins_meanwhile_is_no_obstacle(
    site: operation.Site,
) -> None:
    row = make(site)
    others = store.Changes({'xen03': 'its-uuid'}, ('xen03',))

    class Overtaken(Scripted):
        def prepare(self) -> None:
            site.store.change(row.uuid, row.generation, others)

    row = operation.perform(Overtaken(site, row))

    assert row.hosts == ['xen03', 'xen02']


def test_a_last_host_that_is_so_no_more_does_not_go(
    site: operation.Site,
) -> None:
    """The stamp would go with it, and the others would be nobody's."""
    row = make(site)
    mine = store.Changes({'xen02': 'its-uuid'}, ('xen02',))
    row = site.store.change(row.uuid, row.generation, mine)

    class Clearing(Scripted):
        kind = 'clear'

        def prepare(self) -> None:
            another = store.Changes(add_hosts=('xen03',))
            site.store.change(row.uuid, row.generation, another)

    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='repeat the request'
    ):
        operation.perform(Clearing(site, row))


def test_a_host_that_another_aggregate_got_meanwhile_is_refused(
    site: operation.Site,
) -> None:
    row = make(site)
    flag = {pool_states.POOL_FLAG: 'true'}
    other = site.store.create_aggregate('rack2', flag)

    class Overtaken(Scripted):
        def prepare(self) -> None:
            taken = store.Changes(add_hosts=('xen02',))
            site.store.change(other.uuid, other.generation, taken)

    with pytest.raises(exceptions.InvalidAggregateActionAdd, match='rack2'):
        operation.perform(Overtaken(site, row))


def test_joins_overlap_and_nothing_else_does(site: operation.Site) -> None:
    row = make(site)
    site.store.begin(
        row.uuid,
        'join',
        'xen03',
        'other',
        60.0,
        {},
        lambda *_: store.Changes(),
    )

    operation.perform(Scripted(site, row, 'xen02'))
    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='join of xen03'
    ):
        operation.perform(Scripted(site, row, 'xen03'))

    class Ejecting(Scripted):
        kind = 'eject'

    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='join of xen03'
    ):
        operation.perform(Ejecting(site, row, 'xen02'))


def test_a_successor_settles_by_looking(
    site: operation.Site, time: ManualClock
) -> None:
    row = make(site)
    dead, _ = site.store.begin(
        row.uuid,
        'join',
        'xen02',
        'dead worker',
        60.0,
        {'host_uuid': 'u'},
        lambda *_: store.Changes(add_hosts=('xen02',)),
    )
    heir = Scripted(site, row)
    with pytest.raises(exceptions.LeaseLost):
        operation.resume(heir, dead)
    time.now += 61

    row = operation.resume(heir, dead)

    assert heir.calls == []
    assert row.metadata['xen02'] == 'its-uuid'
    with pytest.raises(exceptions.LeaseLost):
        site.store.phase(dead, 'late')


def test_an_error_counts_no_more(site: operation.Site) -> None:
    row = make(site, pool_states.ERROR)

    assert operation.lifecycle_step(row, False, 3) == {}
    assert operation.lifecycle_step(row, True, 3) == {}
