# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a watcher makes of events, and of a pool that is not to be seen."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import threading
import typing
from unittest import mock

import pytest

from tests.unit import mocked_pool
from xenpool_driver import exceptions, model, pool_states, store, verbs
from xenpool_driver.compute import watcher
from xenpool_driver.xapi import events


def door(*answers: typing.Any, read_timeout: float = 60.0) -> mock.Mock:
    """Return a master that answers so, call by call."""
    found = mock.Mock()
    found.access.read_timeout = read_timeout
    found.read_all.side_effect = [
        {'token': str(number), 'events': answer}
        if isinstance(answer, list)
        else answer
        for number, answer in enumerate(answers, 1)
    ]
    return found


def event(cls: str, ref: str, **record: typing.Any) -> dict[str, typing.Any]:
    """Return an event that tells of a record, or of its end."""
    if not record:
        return {'class': cls, 'ref': ref, 'operation': 'del'}
    return {'class': cls, 'ref': ref, 'operation': 'mod', 'snapshot': record}


def records(number: int, **changes: typing.Any) -> list[dict[str, typing.Any]]:
    """Return the events that tell of a host."""
    host = {
        'uuid': f'uuid{number}',
        'hostname': f'host{number}',
        'address': f'192.0.2.{number}',
        'enabled': True,
        'metrics': f'metrics{number}',
        **changes,
    }
    return [
        event('host', f'host{number}', **host),
        event('host_metrics', f'metrics{number}', live=True),
    ]


POOL = event('pool', 'pool', master='host1')
START = [POOL, *records(1), *records(2)]


def test_a_feed_reads_all_and_then_what_has_changed() -> None:
    master = door(
        START,
        [event('host_metrics', 'metrics2', live=False)],
        [event('host', 'host2'), event('host_metrics', 'metrics2')],
    )
    feed = events.Feed(master)

    first = feed.next()
    assert first.master == 'uuid1'
    assert first.hosts['uuid2'].live
    assert not feed.next().hosts['uuid2'].live
    assert list(feed.next().hosts) == ['uuid1']
    tokens = [call.args[2] for call in master.read_all.call_args_list]
    assert tokens == ['', '1', '2']


@pytest.mark.parametrize(('timeout', 'seconds'), [(60.0, 30.0), (8.0, 4.0)])
def test_a_call_is_over_before_its_host_counts_as_silent(
    timeout: float, seconds: float
) -> None:
    master = door(START, read_timeout=timeout)

    events.Feed(master).next()

    master.read_all.assert_called_once_with(
        'event.from', events.CLASSES, '', seconds
    )


HOST = events.Host('uuid1', 'host1', '192.0.2.1', True, True)
OTHER = dataclasses.replace(HOST, uuid='uuid2')


def view(*hosts: events.Host, master: str = 'uuid1') -> events.View:
    return events.View(master, {host.uuid: host for host in hosts})


@pytest.mark.parametrize(
    ('now', 'told'),
    [
        (view(HOST, OTHER), []),
        (view(HOST, OTHER, master='uuid2'), [('master', 'uuid2')]),
        (view(HOST), [('left', 'uuid2')]),
        (
            view(HOST, dataclasses.replace(OTHER, live=False)),
            [('silent', 'uuid2')],
        ),
        (
            view(HOST, dataclasses.replace(OTHER, enabled=False)),
            [('disabled', 'uuid2')],
        ),
        (
            view(HOST, OTHER, dataclasses.replace(HOST, uuid='uuid3')),
            [('joined', 'uuid3')],
        ),
    ],
)
def test_differences(now: events.View, told: list[tuple[str, str]]) -> None:
    before = view(HOST, OTHER)
    assert list(watcher.differences(before, now)) == told


def test_what_gets_better_is_told_too() -> None:
    ill = dataclasses.replace(OTHER, live=False, enabled=False)
    told = list(watcher.differences(view(HOST, ill), view(HOST, OTHER)))
    assert told == [('live', 'uuid2'), ('enabled', 'uuid2')]


class Clock(mocked_pool.Clock):
    """Time that ends when it has been slept through so often."""

    def __init__(self, sleeps: int) -> None:
        super().__init__()
        self.slept: list[float] = []
        self.watch: watcher.Watch
        self._left = sleeps

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.slept.append(seconds)
        self._left -= 1
        self.watch.ended = not self._left


def watched(
    find: mock.Mock, sleeps: int
) -> tuple[Clock, list[watcher.Change], mock.Mock]:
    """Watch a subject for a while; return what came of it."""
    clock = Clock(sleeps)
    told: list[watcher.Change] = []
    subject = mock.Mock(find=find)
    subject.name = 'rack1'
    subject.name_of = lambda host: host.hostname
    subject.record.return_value = ()
    clock.watch = watcher.Watch(
        subject, clock, told.append, threading.Semaphore()
    )
    clock.watch.run()
    return clock, told, subject


def gone() -> exceptions.XapiUnavailable:
    return exceptions.XapiUnavailable('is off', 'xen01')


def test_a_lost_pool_is_told_of_once_and_asked_for_ever_less_often() -> None:
    find = mock.Mock(side_effect=itertools.repeat(gone()))

    clock, told, _ = watched(find, 9)

    assert clock.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [change.event for change in told] == ['lost']
    assert 'is off' in told[0].text


def test_it_is_told_when_a_pool_is_found_again() -> None:
    moved = [event('pool', 'pool', master='host2'), *records(1), *records(2)]
    find = mock.Mock(
        side_effect=[door(START, [], gone()), gone(), door(moved)]
    )

    _, told, subject = watched(find, 5)

    assert [(change.event, change.host) for change in told] == [
        ('found', 'host1'),
        ('lost', ''),
        ('found', 'host2'),
        ('master', 'host2'),
    ]
    subject.record.assert_called_with('host2')


def test_a_master_that_holds_no_call_is_not_asked_all_the_time() -> None:
    find = mock.Mock(return_value=door(START, [], [], []))

    clock, _, _ = watched(find, 4)

    assert clock.slept == [watcher.BREATH] * 4


def test_an_error_of_ours_ends_no_watch() -> None:
    broken = door([event('host', 'host1', uuid='no more fields')])
    find = mock.Mock(side_effect=[broken, door(START)])

    _, told, _ = watched(find, 2)

    assert [change.event for change in told] == ['lost', 'found']


def test_the_first_look_tells_of_hosts_that_are_not_well() -> None:
    ill = [POOL, *records(1), *records(2, enabled=False)]

    _, told, _ = watched(mock.Mock(return_value=door(ill)), 1)

    assert [(change.event, change.host) for change in told] == [
        ('found', 'host1'),
        ('disabled', 'host2'),
    ]


class Moved(typing.NamedTuple):
    """A pool whose master has moved, and its aggregate."""

    world: mocked_pool.World
    plugin: typing.Any
    row: store.Aggregate


@pytest.fixture
def moved(tmp_path: pathlib.Path) -> typing.Iterator[Moved]:
    world = mocked_pool.World()
    plugin = world.driver(tmp_path)
    row = mocked_pool.formed(world, plugin, 2)
    one, two = world['xen01'], world['xen02']
    one.master = two.master = two
    two.pool['master'] = two.ref
    yield Moved(world, plugin, row)
    plugin.close()


def test_a_moved_master_is_recorded_without_a_change_to_the_pool(
    moved: Moved,
) -> None:
    subject = watcher.Pool(moved.plugin.site, moved.row)

    assert subject.find().name == 'xen02'
    [finding] = subject.record('xen02')

    assert finding.message == "fixed: 'xen02' is recorded as the master"
    moved.row.refresh()
    assert moved.row.metadata[pool_states.MASTER] == 'xen02'
    assert moved.world.changes() == []
    assert list(subject.record('xen02')) == []


def test_nothing_is_recorded_while_an_operation_is_in_progress(
    moved: Moved,
) -> None:
    moved.plugin.site.store.begin(
        moved.row.uuid,
        'set-master',
        'xen02',
        'somebody',
        60.0,
        {},
        lambda *_: store.Changes(),
    )

    [finding] = verbs.correct_master(moved.plugin.site, moved.row)

    assert finding.severity is model.Severity.UNKNOWN
    moved.row.refresh()
    assert moved.row.metadata[pool_states.MASTER] == 'xen01'


def test_a_pool_that_is_not_ours_any_more_says_nothing(moved: Moved) -> None:
    moved.world['xen02'].pool['other_config'] = {}

    assert verbs.correct_master(moved.plugin.site, moved.row) == []
    assert moved.row.metadata[pool_states.MASTER] == 'xen01'
