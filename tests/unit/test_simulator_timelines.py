# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The order of events of join, eject and master change, as recorded.

Each test plays what was done to a real pool and compares what an observer
of the simulator sees, step by step, with what the recorded one saw.
"""

from __future__ import annotations

import collections.abc
import json
import pathlib
import typing

import pytest

from tests import manual_world
from xenpool_driver.simulator import (
    build,
    eject,
    errors,
    gc,
    hosts,
    join,
    lifecycle,
    machine,
    master,
    push,
    startup,
)

Seen = list[tuple[float, str]]

BOOTING = {'HOST_STILL_BOOTING', 'HOST_HAS_NO_MANAGEMENT_IP'}


def recorded(
    recordings: pathlib.Path, name: str, observer: str
) -> list[dict[str, typing.Any]]:
    """Return what ``observer`` saw in the timeline ``name``."""
    path = recordings / 'timelines' / f'{name}.json'
    events = json.loads(path.read_text())['events']
    found = [e['observation'] for e in events if e['observer'] == observer]
    assert found, f'{name} has no observer {observer}'
    return found


def changes(values: collections.abc.Iterable[str]) -> list[str]:
    """Drop repetitions."""
    kept: list[str] = []
    for value in values:
        if not kept or kept[-1] != value:
            kept.append(value)
    return kept


def login_word(observation: typing.Any) -> str:
    """Say in a word how a recorded login went."""
    if 'ok' in observation:
        return 'master'
    if 'error' in observation:
        return 'down'
    code = observation['failure'][0]
    return 'booting' if code in BOOTING else code


def try_login(target: machine.Machine) -> str:
    """Say in the same word how a login over TLS goes now."""
    process = target.process
    if process is None or not target.up(machine.HTTPS):
        return 'down'
    if process.emergency is not None:
        code = process.emergency.code
        return 'booting' if code in BOOTING else code
    return {'master': 'master', 'slave': 'HOST_IS_SLAVE'}[target.role[0]]


def host_word(record: dict[str, typing.Any] | None) -> str:
    """Say what a host's record shows of its life."""
    if record is None:
        return 'absent'
    return f'enabled={record["enabled"]} live={record["live"]}'


def seen_host(viewer: machine.Machine, target: machine.Machine) -> str:
    """Say what ``viewer`` shows of ``target``."""
    db = viewer.db
    if db is None:
        return 'unseen'
    ref = db.table('host').by_uuid.get(target.uuid)
    if ref is None:
        return 'absent'
    host = db.get('host', ref)
    metrics = db.get('host_metrics', host['metrics'])
    return host_word({**host, **metrics})


def of(seen: Seen) -> list[str]:
    return changes(value for _, value in seen)


def pool_of(
    count: int,
) -> tuple[manual_world.ManualWorld, list[machine.Machine]]:
    """Return a world with one pool, its joins long over."""
    where = manual_world.make(count)
    gc.start(where)
    for member in where.machines[1:]:
        join_to(where.machines[0], member)
        where.clock.advance(60)
    return where, where.machines


def join_to(target: machine.Machine, joiner: machine.Machine) -> None:
    call = manual_world.Call(joiner, 'pool.join')
    join.join(call, target.address, 'root', 'xenroot')


def half_joined(
    where: manual_world.ManualWorld, pool: machine.Machine
) -> machine.Machine:
    """Return a host whose join broke off when its record was in the pool."""
    [joiner] = build.standalone(where, 1, '127.0.0.99', 'xenroot')
    assert pool.db is not None and joiner.db is not None
    push.Push(joiner, joiner.db, pool.db).run()
    startup.set_live(pool.db, ref_of(pool, joiner), True)
    return joiner


def ref_of(viewer: machine.Machine, target: machine.Machine) -> str:
    assert viewer.db is not None
    return viewer.db.by_uuid('host', target.uuid)


def at(seen: Seen, value: str) -> float:
    """Return when ``value`` was seen first."""
    return next(time for time, what in seen if what == value)


class TestJoin:
    def test_a_joiner_answers_as_the_recorded_one(
        self, recordings: pathlib.Path
    ) -> None:
        where = manual_world.make(2)
        gc.start(where)
        pool, joiner = where.machines
        logins = manual_world.watch(where, lambda: try_login(joiner))
        join_to(pool, joiner)
        where.clock.advance(30)
        real = recorded(recordings, 'a1-async-join', 'login@xapi6')
        assert of(logins) == changes(map(login_word, real))

    def test_its_record_appears_lives_and_is_enabled_in_that_order(
        self, recordings: pathlib.Path
    ) -> None:
        where = manual_world.make(2)
        gc.start(where)
        pool, joiner = where.machines
        views = manual_world.watch(where, lambda: seen_host(pool, joiner))
        join_to(pool, joiner)
        where.clock.advance(30)
        real = recorded(recordings, 'a1-async-join', 'coordinator_view@xapi5')
        words = [host_word(o['ok']['hosts'].get('xapi6')) for o in real]
        assert of(views) == changes(words)

    def test_the_figures_are_close_to_the_recorded_ones(self) -> None:
        where = manual_world.make(2)
        pool, joiner = where.machines
        logins = manual_world.watch(where, lambda: try_login(joiner))
        views = manual_world.watch(where, lambda: seen_host(pool, joiner))
        join_to(pool, joiner)
        answered = where.clock.now() - manual_world.START
        where.clock.advance(30)
        assert 2.5 < answered < 3.6
        assert 12.8 < at(logins, 'down') < 13.8
        assert 14.0 < at(logins, 'HOST_IS_SLAVE') < 14.8
        assert 22.0 < at(logins, 'booting') < 23.0
        assert 22.5 < at(views, 'enabled=True live=True') < 24.0

    def test_calls_that_need_the_database_hang_behind_the_restart(
        self,
    ) -> None:
        where = manual_world.make(2)
        pool, joiner = where.machines
        seen = manual_world.watch(where, lambda: manual_world.state(joiner))
        join_to(pool, joiner)
        where.clock.advance(30)
        slave = f'slave:{pool.address}'
        hangs = at(seen, f'{slave} hangs')
        assert 6.5 < at(seen, f'{slave} no443') - hangs < 7.5

    def test_a_second_join_in_the_fuse_window_changes_no_timing(
        self,
    ) -> None:
        where = manual_world.make(2)
        pool, joiner = where.machines
        logins = manual_world.watch(where, lambda: try_login(joiner))
        join_to(pool, joiner)
        where.clock.advance(3)
        join_to(pool, joiner)
        where.clock.advance(30)
        assert 12.8 < at(logins, 'down') < 13.8
        assert pool.db is not None
        assert len(pool.db.refs('host')) == 2

    def test_a_joiner_killed_before_its_push_left_nothing_behind(
        self,
    ) -> None:
        where = manual_world.make(2)
        pool, joiner = where.machines
        where.clock.call_later(1.5, lifecycle.kill_machine, joiner)
        try:
            join_to(pool, joiner)
        except Exception as error:
            assert type(error).__name__ == 'Drop'
        assert pool.db is not None
        assert len(pool.db.refs('host')) == 1
        assert joiner.role_file.kind == machine.MASTER


class TestDesignate:
    def test_every_host_answers_as_the_recorded_one(
        self, recordings: pathlib.Path
    ) -> None:
        where, (old, new, other) = pool_of(3)
        watched = {
            'xapi5': manual_world.watch(where, lambda: try_login(old)),
            'xapi6': manual_world.watch(where, lambda: try_login(new)),
            'xapi7': manual_world.watch(where, lambda: try_login(other)),
        }
        call = manual_world.Call(old)
        master.designate_new_master(call, ref_of(old, new))
        where.clock.advance(30)
        for name, seen in watched.items():
            real = recorded(recordings, 'b1-async-designate', f'login@{name}')
            assert of(seen) == changes(map(login_word, real)), name

    def test_the_new_master_enables_itself_first(self) -> None:
        where, (old, new, other) = pool_of(3)
        master.designate_new_master(manual_world.Call(old), ref_of(old, new))
        where.clock.advance(12)
        shown = [seen_host(new, host) for host in (old, new, other)]
        assert shown == ['enabled=False live=True'] * 3
        where.clock.advance(7)
        shown = [seen_host(new, host) for host in (old, new, other)]
        assert shown == [
            'enabled=False live=True',
            'enabled=True live=True',
            'enabled=False live=True',
        ]
        where.clock.advance(3)
        assert seen_host(new, old) == 'enabled=True live=True'

    def test_to_the_present_master_nothing_happens(self) -> None:
        where, (old, _) = pool_of(2)
        seen = manual_world.watch(where, lambda: try_login(old))
        call = manual_world.Call(old)
        master.designate_new_master(call, ref_of(old, old))
        where.clock.advance(30)
        assert of(seen) == ['master']

    def test_a_dead_member_makes_it_wait_and_then_changes_nothing(
        self,
    ) -> None:
        where, (old, new, dead) = pool_of(3)
        lifecycle.kill_machine(dead)
        began = where.clock.now()
        try:
            master.designate_new_master(
                manual_world.Call(old), ref_of(old, new)
            )
        except Exception as error:
            assert getattr(error, 'code', '') == 'CANNOT_CONTACT_HOST'
        assert where.clock.now() - began > 60
        where.clock.advance(30)
        assert try_login(old) == 'master'

    def test_a_peer_that_dies_between_the_phases_breaks_the_new_master(
        self,
    ) -> None:
        where, (old, new, other) = pool_of(3)
        peers = [old, other]
        master.propose(new, [*peers, new])
        lifecycle.kill_machine(other)
        master.commit(new, peers, old)
        where.clock.advance(20)
        assert try_login(new) == 'HOST_BROKEN'
        assert old.role == ('slave', new.address)


class TestEject:
    def test_the_victim_answers_as_the_recorded_one(
        self, recordings: pathlib.Path
    ) -> None:
        where, (pool, _, victim) = pool_of(3)
        logins = manual_world.watch(where, lambda: try_login(victim))
        eject.eject(manual_world.Call(pool), ref_of(pool, victim))
        where.clock.advance(60)
        real = recorded(recordings, 'c1-async-eject', 'login@xapi7')
        assert of(logins) == changes(map(login_word, real))

    def test_its_record_is_gone_when_the_call_returns(self) -> None:
        where, (pool, victim) = pool_of(2)
        assert pool.db is not None
        eject.eject(manual_world.Call(pool), ref_of(pool, victim))
        assert seen_host(pool, victim) == 'absent'
        # The garbage collector gets its other rows within 30 s.
        assert len(pool.db.refs('PIF')) == 4
        where.clock.advance(31)
        assert len(pool.db.refs('PIF')) == 2
        assert len(pool.db.refs('host_metrics')) == 1

    def test_it_comes_back_alone_and_unconfigured_until_its_first_boot(
        self,
    ) -> None:
        where, (pool, victim) = pool_of(2)
        assert pool.db is not None
        old_pool = pool.db.all('pool')
        eject.eject(manual_world.Call(pool), ref_of(pool, victim))
        where.clock.advance(16)
        db = victim.db
        assert db is not None
        host = db.all('host')[ref_of(victim, victim)]
        mine = next(iter(db.all('pool').values()))
        assert mine['uuid'] not in {p['uuid'] for p in old_pool.values()}
        assert (host['address'], mine['tls_verification_enabled']) == (
            '',
            False,
        )
        assert not any(p['management'] for p in db.all('PIF').values())
        where.clock.advance(10)
        mine = next(iter(db.all('pool').values()))
        assert mine['tls_verification_enabled']
        assert any(p['management'] for p in db.all('PIF').values())

    def test_it_can_join_again(self) -> None:
        where, (pool, victim) = pool_of(2)
        eject.eject(manual_world.Call(pool), ref_of(pool, victim))
        where.clock.advance(60)
        join_to(pool, victim)
        where.clock.advance(40)
        assert seen_host(pool, victim) == 'enabled=True live=True'


class TestDeadMaster:
    def test_members_name_the_dead_one_and_are_healthy(self) -> None:
        where, (old, member, _) = pool_of(3)
        lifecycle.kill_machine(old)
        where.clock.advance(300)
        assert try_login(member) == 'HOST_IS_SLAVE'
        call = manual_world.Call(member)
        assert not hosts.is_in_emergency_mode(call)
        hosts.local_assert_healthy(call)
        assert manual_world.state(member).endswith('hangs')

    def test_promotion_recovery_and_return_are_as_recorded(
        self, recordings: pathlib.Path
    ) -> None:
        where, (old, new, other) = pool_of(3)
        master.sync_database(manual_world.Call(old))
        lifecycle.kill_machine(old)
        logins = {
            'xapi6': manual_world.watch(where, lambda: try_login(old)),
            'xapi7': manual_world.watch(where, lambda: try_login(new)),
            'xapi8': manual_world.watch(where, lambda: try_login(other)),
        }
        where.clock.advance(12)
        master.emergency_transition_to_master(manual_world.Call(new))
        where.clock.advance(15)
        assert seen_host(new, old) == 'enabled=False live=True'
        answered = master.recover_slaves(manual_world.Call(new))
        assert answered == [ref_of(new, other)]
        where.clock.advance(30)
        assert seen_host(new, other) == 'enabled=True live=True'
        lifecycle.power_on(old)
        where.clock.advance(30)
        name = 'd2-coordinator-dead-db-flushed-return'
        for host, seen in logins.items():
            real = recorded(recordings, name, f'login@{host}')
            words = changes(map(login_word, real))
            if host == 'xapi6':
                # It was still dying when its observer began.
                words = words[words.index('down') :]
            assert of(seen) == words, host

    def test_killed_within_minutes_it_forgets_its_members(self) -> None:
        where = manual_world.make(2)
        gc.start(where)
        pool, joiner = where.machines
        join_to(pool, joiner)
        where.clock.advance(40)
        lifecycle.kill_machine(pool)
        lifecycle.power_on(pool)
        where.clock.advance(30)
        assert pool.db is not None
        assert len(pool.db.refs('host')) == 1

    def test_killed_after_five_minutes_it_remembers_them(self) -> None:
        where = manual_world.make(2)
        gc.start(where)
        pool, joiner = where.machines
        join_to(pool, joiner)
        where.clock.advance(400)
        lifecycle.kill_machine(pool)
        lifecycle.power_on(pool)
        where.clock.advance(30)
        assert seen_host(pool, joiner) == 'enabled=True live=True'


class TestDeadMember:
    def test_it_counts_as_dead_after_ten_minutes_of_silence(self) -> None:
        where, (pool, member) = pool_of(2)
        lifecycle.kill_machine(member)
        where.clock.advance(500)
        assert seen_host(pool, member) == 'enabled=True live=True'
        where.clock.advance(200)
        assert seen_host(pool, member) == 'enabled=True live=False'

    def test_destroyed_it_restarts_for_ever_when_it_returns(
        self, recordings: pathlib.Path
    ) -> None:
        where, (pool, member) = pool_of(2)
        lifecycle.kill_machine(member)
        hosts.destroy(manual_world.Call(pool), ref_of(pool, member))
        lifecycle.power_on(member)
        logins = manual_world.watch(where, lambda: try_login(member))
        where.clock.advance(120)
        words = set(of(logins))
        assert words == {'down', 'HOST_IS_SLAVE'}
        assert of(logins).count('down') > 10
        real = recorded(
            recordings,
            'e2-member-dead-destroy-at-once-return',
            'login@xapi7',
        )
        assert set(map(login_word, real)) == words

    def test_a_host_that_never_became_a_member_gets_no_copy(self) -> None:
        where, (pool, _) = pool_of(2)
        joiner = half_joined(where, pool)
        before = joiner.disk
        with pytest.raises(errors.ApiError, match='CANNOT_CONTACT_HOST'):
            master.sync_database(manual_world.Call(pool))
        assert joiner.disk is before

    def test_a_host_that_is_its_own_master_cannot_be_ejected(self) -> None:
        where, (pool, _) = pool_of(2)
        joiner = half_joined(where, pool)
        before = joiner.disk
        with pytest.raises(errors.ApiError, match='Cannot_eject_master'):
            eject.eject(manual_world.Call(pool), ref_of(pool, joiner))
        assert joiner.disk is before

    def test_promoted_on_a_copy_that_lacks_it_it_restarts_for_ever(
        self,
    ) -> None:
        where, (pool, member) = pool_of(2)
        assert member.disk is not None
        hosts = member.disk.records['host']
        del hosts[ref_of(pool, member)]
        lifecycle.kill_machine(pool)
        master.emergency_transition_to_master(manual_world.Call(member))
        where.clock.advance(60)
        logins = manual_world.watch(where, lambda: try_login(member))
        where.clock.advance(60)
        assert set(of(logins)) == {'down'}

    def test_pointed_at_the_wrong_host_it_says_what_is_wrong(self) -> None:
        where, (pool, member) = pool_of(2)
        [stranger] = build.standalone(where, 1, '127.0.0.99', 'xenroot')
        call = manual_world.Call(member)
        for place, code in (
            (stranger.address, 'HOST_UNKNOWN_TO_MASTER'),
            (member.address, 'HOST_ITS_OWN_SLAVE'),
        ):
            master.emergency_reset_master(call, place)
            where.clock.advance(40)
            assert try_login(member) == code
            assert hosts.is_in_emergency_mode(call)
            with pytest.raises(errors.ApiError, match=code):
                hosts.local_assert_healthy(call)
        master.emergency_reset_master(call, pool.address)
        where.clock.advance(40)
        assert not hosts.is_in_emergency_mode(call)
        assert seen_host(pool, member) == 'enabled=True live=True'

    def test_started_without_its_coordinator_it_is_no_emergency(
        self,
    ) -> None:
        where, (pool, member) = pool_of(2)
        lifecycle.kill_machine(member)
        lifecycle.kill_machine(pool)
        lifecycle.power_on(member)
        where.clock.advance(60)
        # Recorded: port 80 answers, 443 was never opened.
        expected = f'slave:{pool.address} hangs no443'
        assert manual_world.state(member) == expected
        call = manual_world.Call(member)
        assert not hosts.is_in_emergency_mode(call)
        master.emergency_transition_to_master(call)
        where.clock.advance(30)
        assert try_login(member) == 'master'


def test_two_runs_of_one_seed_are_the_same() -> None:
    def run() -> tuple[Seen, list[str]]:
        where = manual_world.make(2)
        pool, joiner = where.machines
        seen = manual_world.watch(where, lambda: seen_host(pool, joiner))
        join_to(pool, joiner)
        where.clock.advance(30)
        assert pool.db is not None
        return seen, pool.db.refs('PIF')

    assert run() == run()
