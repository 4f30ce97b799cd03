# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The calls of the recorded timelines, made again on simulated hosts."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from tests.contract import observers, plain_timelines, play
from tests.contract import recorded_timelines as recorded
from xenpool_driver.simulator import lifecycle

Play = collections.abc.Callable[[play.Stage], None]

LEAD = 7.0
"""Seconds that are watched before the beginning."""


def _caller(
    stage: play.Stage,
    seconds: float,
    observer: str,
    name: str,
    method: str,
    *params: typing.Any,
    kind: str = play.HTTPS,
    local: bool = False,
) -> None:
    """Log in and make a call; note what comes of it."""

    def work() -> None:
        session = stage.login(name, kind, local)

        def call() -> str:
            found = stage.ask(name, kind, method, session, *map(_real, params))
            task = f"task@{name}"
            if method.startswith('Async.') and task not in stage.seen:
                _watch_task(stage, task, name, session, found)
            return 'returned'

        stage.note(observer, stage.outcome(call))

    stage.run(seconds, work)


def _real(param: typing.Any) -> typing.Any:
    return param() if callable(param) else param


def _watch_task(
    stage: play.Stage, observer: str, name: str, session: str, task: str
) -> None:
    def look() -> str:
        record = stage.ask(name, play.HTTPS, 'task.get_record', session, task)
        return f"task {record['status']}"

    stage.observe(observer, look)


def _ref(
    stage: play.Stage, viewer: str, name: str
) -> collections.abc.Callable[[], str]:
    def look() -> str:
        db = stage[viewer].db
        assert db is not None
        return db.by_uuid('host', stage[name].uuid)

    return look


def _join(
    stage: play.Stage, joiner: str, method: str, seconds: float = 0.0
) -> None:
    address = stage['xapi5'].address
    _caller(
        *(stage, seconds, f"caller@{joiner}", joiner, method),
        *(address, 'root', play.PASSWORD),
    )


def three_joins(stage: play.Stage) -> None:
    for number, joiner in enumerate(('xapi7', 'xapi8', 'xapi6')):
        _join(stage, joiner, 'pool.join', 0.12 + 0.05 * number)


def designate(stage: play.Stage) -> None:
    method = 'pool.designate_new_master'
    new = _ref(stage, 'xapi5', 'xapi6')
    _caller(stage, 0.0, 'caller', 'xapi5', f"Async.{method}", new)
    for seconds, prefix in ((27.16, ''), (27.22, 'Async.')):
        observer = f"caller: {prefix}{method} to the current master"
        again = _ref(stage, 'xapi6', 'xapi6')
        _caller(stage, seconds, observer, 'xapi6', prefix + method, again)


def eject(stage: play.Stage) -> None:
    db = stage['xapi5'].db
    assert db is not None
    host = _ref(stage, 'xapi5', 'xapi7')()
    row = db.get('host', host)
    for observer, cls, ref in (
        ('host record by old ref@xapi5', 'host', host),
        ('host_metrics record@xapi5', 'host_metrics', row['metrics']),
        ('its PIF record@xapi5', 'PIF', row['PIFs'][0]),
    ):
        stage.observe(observer, observers.record(stage, 'xapi5', cls, ref))
    _caller(stage, 0.0, 'caller', 'xapi5', 'Async.pool.eject', host)


def dead_coordinator(stage: play.Stage) -> None:
    for name in ('xapi7', 'xapi8'):
        kept = observers.Kept(stage, name, 'host.get_all', at='xapi6')
        stage.before.append(kept.open)
        stage.observe(f"coordinator session on {name} host.get_all", kept)
    _caller(stage, -5.0, 'flush', 'xapi6', 'pool.sync_database')
    stage.run(0.0, lambda: lifecycle.kill_machine(stage['xapi6']))
    method = 'pool.emergency_transition_to_master'
    for seconds, observer in (
        (12.57, f"caller: {method} on xapi7 through slave_local_login"),
        (12.6, 'caller: the same again at once'),
    ):
        _caller(stage, seconds, observer, 'xapi7', method, local=True)
    recover = 'pool.recover_slaves'
    _caller(stage, 27.45, f"caller: {recover} on xapi7", 'xapi7', recover)
    stage.run(55.94, lambda: lifecycle.power_on(stage['xapi6']))


def lonely_member(stage: play.Stage) -> None:
    for name in ('xapi4', 'xapi5'):
        lifecycle.kill_machine(stage[name])
    stage.run(0.0, lambda: lifecycle.power_on(stage['xapi5']))
    for label, method in (
        ('pool.get_all', 'pool.get_all'),
        ('is_in_emergency_mode', 'host.is_in_emergency_mode'),
        ('local_assert_healthy', 'host.local_assert_healthy'),
    ):
        stage.observe(
            f"http:80 local session {label}",
            observers.Kept(
                *(stage, 'xapi5', method),
                kind=play.HTTP,
                local=True,
                renewed=True,
            ),
        )
    for observer, look in (
        ('login over http:80', observers.login(stage, 'xapi5', play.HTTP)),
        ('login over https', observers.login(stage, 'xapi5')),
        ('tcp80', observers.port(stage, 'xapi5', play.HTTP)),
        ('tls443', observers.port(stage, 'xapi5', play.HTTPS)),
        ('hosts_view (https)', observers.pool_view(stage, 'xapi5')),
    ):
        stage.observe(observer, look)
    method = 'pool.emergency_transition_to_master'
    _caller(
        *(stage, 75.07, f"caller: {method} over http:80", 'xapi5', method),
        kind=play.HTTP,
        local=True,
    )


def destroyed_member(stage: play.Stage) -> None:
    disable = _ref(stage, 'xapi6', 'xapi5')
    _caller(stage, -5.0, 'driver', 'xapi6', 'host.disable', disable)
    stage.run(0.0, lambda: lifecycle.kill_machine(stage['xapi7']))
    observer = (
        'caller: host.destroy(dead) 1.5 s after its death, live still true'
    )
    host = _ref(stage, 'xapi6', 'xapi7')
    _caller(stage, 1.5, observer, 'xapi6', 'host.destroy', host)
    stage.run(3.59, lambda: lifecycle.power_on(stage['xapi7']))


def restart_in_the_fuse(stage: play.Stage) -> None:
    def restart() -> None:
        seconds = stage.now + 2.0
        stage.run(seconds, lambda: lifecycle.exit_toolstack(stage['xapi1']))

    plain_timelines.join(stage, '127.0.0.12', 0.11, restart)


def five_joins(stage: play.Stage) -> None:
    for seconds, digit in (
        (0.17, 3),
        (0.18, 2),
        (0.19, 5),
        (0.2, 4),
        (0.22, 6),
    ):
        plain_timelines.join(stage, f'127.0.0.1{digit}', seconds)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """A recording, and how to play it.

    :ivar pool: its hosts, the coordinator first.
    :ivar others: hosts of their own.
    :ivar play: does what was done.
    :ivar gc_at: when the coordinator happened to collect garbage.
    :ivar endless: what is watched goes on for ever.
    """

    name: str
    pool: tuple[str, ...]
    others: tuple[str, ...]
    play: Play
    seconds: float
    gc_at: float = 15.0
    endless: bool = False


TIMELINES = (
    Timeline(
        'a1-async-join',
        ('xapi5',),
        ('xapi6',),
        lambda stage: _join(stage, 'xapi6', 'Async.pool.join'),
        29.0,
        gc_at=12.7,
    ),
    Timeline(
        'a2-sync-join',
        ('xapi5', 'xapi6'),
        ('xapi7',),
        lambda stage: _join(stage, 'xapi7', 'pool.join'),
        29.0,
        gc_at=12.9,
    ),
    Timeline(
        'a4-three-joins-at-once',
        ('xapi5',),
        ('xapi6', 'xapi7', 'xapi8'),
        three_joins,
        38.5,
        gc_at=21.0,
    ),
    Timeline(
        'b1-async-designate',
        ('xapi5', 'xapi6', 'xapi7'),
        (),
        designate,
        35.4,
    ),
    Timeline(
        'c1-async-eject',
        ('xapi5', 'xapi6', 'xapi7'),
        (),
        eject,
        51.5,
        gc_at=14.2,
    ),
    Timeline(
        'd2-coordinator-dead-db-flushed-return',
        ('xapi6', 'xapi7', 'xapi8'),
        (),
        dead_coordinator,
        76.5,
    ),
    Timeline(
        'd3-member-started-without-coordinator',
        ('xapi4', 'xapi5'),
        (),
        lonely_member,
        115.0,
    ),
    Timeline(
        'e2-member-dead-destroy-at-once-return',
        ('xapi6', 'xapi5', 'xapi7', 'xapi8'),
        (),
        destroyed_member,
        50.0,
        endless=True,
    ),
    Timeline(
        'f1-coordinator-restarts-in-the-fuse',
        ('xapi1',),
        ('xapi2',),
        restart_in_the_fuse,
        79.4,
        gc_at=6.9,
    ),
    Timeline(
        'f2-five-joins-at-once',
        ('xapi1',),
        ('xapi2', 'xapi3', 'xapi4', 'xapi5', 'xapi6'),
        five_joins,
        43.0,
        gc_at=21.5,
    ),
)


def played(timeline: Timeline) -> play.Stage:
    """Play a timeline."""
    with play.stage(
        timeline.pool, timeline.others, gc_at=timeline.gc_at + LEAD
    ) as stage:
        stage.zero += LEAD
        for observer in recorded.load(timeline.name):
            look = observers.make(stage, observer)
            if look is not None:
                period = 1.0 if recorded.SELDOM in observer else play.PERIOD
                stage.observe(observer, look, period)
        timeline.play(stage)
        for open_session in stage.before:
            stage.run(-6.0, open_session)
        stage.hub.advance(timeline.seconds - stage.now)
    return stage
