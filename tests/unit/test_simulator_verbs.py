# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Hosts, guests, storage, HA and pool operations of the simulator."""

from __future__ import annotations

import pathlib
import textwrap
import typing

import pytest

from tests import manual_world
from xenpool_driver.simulator import (
    build,
    database,
    eject,
    errors,
    faults,
    gc,
    ha,
    hosts,
    join,
    lifecycle,
    machine,
    master,
    operations,
    storage,
    topology,
    vms,
)

POOL = """
    pools:
      - hosts: [xen01, xen02, {name: xen03, memory_gib: 8}]
        srs: [{name: nfs1, type: nfs, shared: true}]
        vms:
          - {name: web, host: xen02, power_state: Running, memory_gib: 1,
             disks: [{sr: nfs1}]}
          - {name: stuck, host: xen03, power_state: Running,
             memory_gib: 2, disks: [{sr: scratch}]}
          - {name: idle, disks: [{sr: nfs1}]}
          - {name: huge, memory_gib: 900}
"""


@pytest.fixture(name='pool')
def _pool(tmp_path: pathlib.Path) -> list[machine.Machine]:
    path = tmp_path / 'topology.yaml'
    text = textwrap.dedent(POOL).replace(
        'shared: true}]',
        'shared: true}, {name: scratch, host: xen03}]',
    )
    path.write_text(text)
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    topology.load(where, path, build.addresses('127.30.8.1'), 'xenroot')
    gc.start(where)
    return where.machines


def db_of(target: machine.Machine) -> database.Database:
    assert target.db is not None
    return target.db


def ref(viewer: machine.Machine, target: machine.Machine) -> str:
    return db_of(viewer).by_uuid('host', target.uuid)


def named(target: machine.Machine, cls: str, name: str) -> str:
    return next(
        ref
        for ref, row in db_of(target).all(cls).items()
        if row['name_label'] == name
    )


def refused(
    function: typing.Callable[..., object], *args: object
) -> list[str]:
    with pytest.raises(errors.ApiError) as caught:
        function(*args)
    return caught.value.details


def call(target: machine.Machine) -> manual_world.Call:
    return manual_world.Call(target)


class TestEvacuation:
    def test_guests_move_and_progress_is_shown(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        made = call(one)
        hosts.disable(made, ref(one, two))
        hosts.evacuate(made, ref(one, two))
        vm = db_of(one).get('VM', named(one, 'VM', 'web'))
        assert vm['resident_on'] != ref(one, two)
        assert made.shown[-1] == 1.0
        eject.eject(call(one), ref(one, two))

    def test_a_guest_on_local_storage_cannot_leave(
        self, pool: list[machine.Machine]
    ) -> None:
        one, _, three = pool
        stuck = named(one, 'VM', 'stuck')
        why = ['VM_REQUIRES_SR', stuck, named(one, 'SR', 'scratch')]
        found = hosts.get_vms_which_prevent_evacuation(
            call(one), ref(one, three)
        )
        assert found == {stuck: why}
        assert refused(hosts.evacuate, call(one), ref(one, three)) == why
        assert refused(
            hosts.assert_can_evacuate, call(one), ref(one, three)
        ) == ['CANNOT_EVACUATE_HOST', ','.join(why)]

    def test_without_another_enabled_host_nobody_can_leave(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, three = pool
        for target in (one, three):
            hosts.disable(call(one), ref(one, target))
        web = named(one, 'VM', 'web')
        assert refused(hosts.evacuate, call(one), ref(one, two)) == [
            'NO_HOSTS_AVAILABLE',
            web,
        ]


class TestGuests:
    def test_a_guest_starts_stops_and_moves(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        idle = named(one, 'VM', 'idle')
        vms.start_on(call(one), idle, ref(one, one), False, False)
        vms.pool_migrate(call(one), idle, ref(one, two), {})
        assert db_of(one).get('VM', idle)['resident_on'] == ref(one, two)
        vms.clean_shutdown(call(one), idle)
        assert db_of(one).get('VM', idle)['power_state'] == 'Halted'
        assert refused(vms.clean_shutdown, call(one), idle) == [
            'VM_BAD_POWER_STATE',
            idle,
            'running',
            'halted',
        ]

    def test_there_must_be_room(self, pool: list[machine.Machine]) -> None:
        one = pool[0]
        huge = named(one, 'VM', 'huge')
        code = refused(vms.start, call(one), huge, False, False)[0]
        assert code == 'HOST_NOT_ENOUGH_FREE_MEMORY'

    def test_none_starts_on_a_disabled_host(
        self, pool: list[machine.Machine]
    ) -> None:
        one = pool[0]
        hosts.disable(call(one), ref(one, one))
        idle = named(one, 'VM', 'idle')
        assert refused(
            vms.start_on, call(one), idle, ref(one, one), False, False
        ) == ['HOST_DISABLED', ref(one, one)]


class TestEjectRefusals:
    def test_the_coordinator_cannot_be_ejected(
        self, pool: list[machine.Machine]
    ) -> None:
        one = pool[0]
        assert refused(eject.eject, call(one), ref(one, one)) == [
            'INTERNAL_ERROR',
            'Xapi_pool.Cannot_eject_master',
        ]

    def test_resident_guests_are_in_the_way(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        assert refused(eject.eject, call(one), ref(one, two)) == [
            'OPERATION_NOT_ALLOWED',
            'VM resident on host',
        ]

    def test_an_unknown_host_counts_as_offline(
        self, pool: list[machine.Machine]
    ) -> None:
        assert refused(eject.eject, call(pool[0]), 'OpaqueRef:x') == [
            'HOST_OFFLINE',
            'OpaqueRef:x',
        ]

    def test_local_storage_is_forgotten_with_its_disks(
        self, pool: list[machine.Machine]
    ) -> None:
        one, _, three = pool
        vms.hard_shutdown(call(one), named(one, 'VM', 'stuck'))
        eject.eject(call(one), ref(one, three))
        names = {sr['name_label'] for sr in db_of(one).all('SR').values()}
        assert 'scratch' not in names
        assert 'nfs1' in names
        disk = db_of(one).get('VM', named(one, 'VM', 'stuck'))['VBDs'][0]
        vdi = db_of(one).get('VBD', disk)['VDI']
        assert not db_of(one).exists(vdi, 'VDI')


class TestLostHosts:
    def test_a_live_host_cannot_be_destroyed(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        for target in (one, two):
            gone = ref(one, target)
            why = ['HOST_IS_LIVE', gone]
            assert refused(hosts.destroy, call(one), gone) == why

    def test_a_dead_one_with_guests_must_be_declared_dead_first(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        lifecycle.kill_machine(two)
        gone = ref(one, two)
        assert refused(hosts.destroy, call(one), gone) == [
            'HOST_HAS_RESIDENT_VMS',
            gone,
        ]
        hosts.declare_dead(call(one), gone)
        hosts.destroy(call(one), gone)
        assert gone not in db_of(one).refs('host')

    def test_a_call_to_a_dead_one_waits_until_it_counts_as_dead(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        lifecycle.kill_machine(two)
        began = one.clock.now()
        gone = ref(one, two)
        assert refused(hosts.disable, call(one), gone) == [
            'CANNOT_CONTACT_HOST',
            gone,
        ]
        assert one.clock.now() - began >= 60
        one.clock.advance(700)
        assert refused(hosts.disable, call(one), gone) == [
            'HOST_OFFLINE',
            gone,
        ]

    def test_dead_members_keep_joiners_waiting(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        joiner = build.standalone(one.world, 10, '127.30.8.100', 'xenroot')[9]
        lifecycle.kill_machine(two)
        began = one.clock.now()
        join.join(call(joiner), one.address, 'root', 'xenroot')
        assert one.clock.now() - began >= 60


class TestReboot:
    def test_a_host_must_be_disabled_and_comes_back_enabled(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        host = ref(one, two)
        assert refused(hosts.reboot, call(one), host) == ['HOST_NOT_DISABLED']
        hosts.disable(call(one), host)
        hosts.reboot(call(one), host)
        one.clock.advance(11)
        metrics = db_of(one).get('host', host)['metrics']
        assert not db_of(one).get('host_metrics', metrics)['live']
        one.clock.advance(40)
        record = db_of(one).get('host', host)
        assert record['enabled']
        assert not record['current_operations']

    def test_disabled_for_good_it_stays_disabled(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        host = ref(one, two)
        hosts.disable(call(one), host, False)
        lifecycle.kill_toolstack(two)
        one.clock.advance(60)
        assert not db_of(one).get('host', host)['enabled']
        hosts.enable(call(one), host)
        assert db_of(one).get('host', host)['enabled']

    def test_its_guests_are_off_after_a_power_cut(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        web = named(one, 'VM', 'web')
        lifecycle.kill_machine(two)
        assert db_of(one).get('VM', web)['power_state'] == 'Running'
        lifecycle.power_on(two)
        one.clock.advance(60)
        assert db_of(one).get('VM', web)['power_state'] == 'Halted'

    def test_a_new_coordinator_says_so_once(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        master.designate_new_master(call(one), ref(one, two))
        one.clock.advance(60)
        posted = list(db_of(two).all('message').values())
        assert [m['name'] for m in posted] == ['POOL_MASTER_TRANSITION']
        assert posted[0]['obj_uuid'] == two.uuid


class TestHa:
    @pytest.fixture(name='armed')
    def _armed(self, pool: list[machine.Machine]) -> list[machine.Machine]:
        one = pool[0]
        ha.enable_ha(call(one), [named(one, 'SR', 'nfs1')], {})
        return pool

    def test_it_needs_storage_that_all_hosts_see(
        self, pool: list[machine.Machine]
    ) -> None:
        one = pool[0]
        scratch = named(one, 'SR', 'scratch')
        assert refused(ha.enable_ha, call(one), [scratch], {}) == [
            'CANNOT_CREATE_STATE_FILE'
        ]

    def test_on_it_forbids_changes_of_the_pool(
        self, armed: list[machine.Machine]
    ) -> None:
        one, two, _ = armed
        host = ref(one, two)
        enabled = ['HA_IS_ENABLED']
        assert refused(eject.eject, call(one), host) == enabled
        designate = master.designate_new_master
        assert refused(designate, call(one), host) == enabled
        promote = master.emergency_transition_to_master
        assert refused(promote, call(two)) == enabled
        again = ha.enable_ha
        assert refused(again, call(one), [], {}) == enabled
        joiner = build.standalone(one.world, 1, '127.30.8.99', 'x')[0]
        assert (
            refused(join.join, call(joiner), one.address, 'root', 'xenroot')
            == enabled
        )

    def test_off_it_allows_them_again(
        self, armed: list[machine.Machine]
    ) -> None:
        one, two, _ = armed
        ha.disable_ha(call(one))
        assert refused(ha.disable_ha, call(one)) == ['HA_NOT_ENABLED']
        master.designate_new_master(call(one), ref(one, two))

    def test_a_member_that_was_disarmed_does_not_come_back_by_itself(
        self, armed: list[machine.Machine]
    ) -> None:
        one, two, _ = armed
        ha.emergency_ha_disable(call(two))
        lifecycle.exit_toolstack(two)
        one.clock.advance(50)
        reason = 'HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED'
        assert manual_world.state(two) == reason
        assert not db_of(one).get('host', ref(one, two))['enabled']
        with pytest.raises(errors.ApiError) as caught:
            hosts.local_assert_healthy(call(two))
        assert caught.value.details == [reason]
        ha.disable_ha(call(one))
        one.clock.advance(300)
        assert manual_world.state(two) == f'slave:{one.address}'
        assert db_of(one).get('host', ref(one, two))['enabled']

    def test_a_coordinator_that_was_disarmed_switches_it_off(
        self, armed: list[machine.Machine]
    ) -> None:
        one, two, _ = armed
        for target in armed:
            ha.emergency_ha_disable(call(target))
        lifecycle.exit_toolstack(one)
        one.clock.advance(60)
        (pool,) = db_of(one).all('pool').values()
        assert not pool['ha_enabled']
        lifecycle.exit_toolstack(two)
        one.clock.advance(60)
        assert db_of(one).get('host', ref(one, two))['enabled']

    def test_a_member_that_was_away_is_disarmed_when_the_pool_is(
        self, armed: list[machine.Machine]
    ) -> None:
        one, two, _ = armed
        lifecycle.kill_machine(two)
        ha.disable_ha(call(one))
        assert two.ha_armed
        lifecycle.power_on(two)
        one.clock.advance(60)
        assert not two.ha_armed

    def test_a_dead_coordinator_is_replaced(
        self, armed: list[machine.Machine]
    ) -> None:
        one, two, three = armed
        lifecycle.kill_machine(one)
        one.clock.advance(200)
        masters = [m for m in (two, three) if m.is_master]
        assert len(masters) == 1
        assert {two.role[1], three.role[1]} == {'', masters[0].address}


class TestPoolOperations:
    def test_a_blocking_operation_is_named_to_others(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        operations.begin(db_of(one), 'ha_enable', 'OpaqueRef:task')
        designate = master.designate_new_master
        assert refused(designate, call(one), ref(one, two)) == [
            'HA_ENABLE_IN_PROGRESS'
        ]

    def test_an_eject_waits_for_a_waiting_operation(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        vms.hard_shutdown(call(one), named(one, 'VM', 'web'))
        db = db_of(one)
        operations.begin(db, 'cert_refresh', 'OpaqueRef:task')
        one.clock.call_later(30, operations.end, db, 'OpaqueRef:task')
        began = one.clock.now()
        eject.eject(call(one), ref(one, two))
        assert one.clock.now() - began >= 30

    def test_rotating_the_secret_stops_everything(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        for pool_ref in db_of(one).refs('pool'):
            db_of(one).set('pool', pool_ref, is_psr_pending=True)
        assert refused(eject.eject, call(one), ref(one, two)) == [
            'POOL_SECRET_ROTATION_PENDING'
        ]


class TestStorage:
    def test_a_plugged_sr_is_not_forgotten(
        self, pool: list[machine.Machine]
    ) -> None:
        sr = named(pool[0], 'SR', 'nfs1')
        assert refused(storage.sr_forget, call(pool[0]), sr) == [
            'SR_HAS_PBD',
            sr,
        ]

    def test_a_disk_in_use_is_not_unplugged(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        db = db_of(one)
        sr = named(one, 'SR', 'nfs1')
        pbd = next(
            r
            for r, p in db.all('PBD').items()
            if p['SR'] == sr and p['host'] == ref(one, two)
        )
        assert refused(storage.pbd_unplug, call(one), pbd)[0] == 'VDI_IN_USE'

    def test_a_new_member_is_attached_to_shared_storage(
        self, pool: list[machine.Machine]
    ) -> None:
        one = pool[0]
        joiner = build.standalone(one.world, 1, '127.30.8.99', 'x')[0]
        join.join(call(joiner), one.address, 'root', 'xenroot')
        one.clock.advance(40)
        sr = db_of(one).get('SR', named(one, 'SR', 'nfs1'))
        pbds = [db_of(one).get('PBD', pbd) for pbd in sr['PBDs']]
        mine = [p for p in pbds if p['host'] == ref(one, joiner)]
        assert [p['currently_attached'] for p in mine] == [True]
        assert joiner.password == one.password


class TestFaults:
    def of(self, target: machine.Machine, name: str) -> manual_world.Call:
        return manual_world.Call(target, name)

    def hit(self, target: machine.Machine, name: str) -> str:
        made = self.of(target, name)
        try:
            target.faults.before(made)
            target.faults.after(made)
        except errors.ApiError as error:
            return error.code
        except faults.Drop:
            return 'drop'
        except faults.Garbage:
            return 'garbage'
        return 'ok'

    def test_a_sequence_fails_twice_then_works(
        self, pool: list[machine.Machine]
    ) -> None:
        one = pool[0]
        rule = faults.Rule(
            (
                faults.Action('refuse', code='A'),
                faults.Action('drop-after'),
            ),
            method='pool.*',
        )
        one.world.faults.add(rule)
        seen = [self.hit(one, 'pool.join') for _ in range(4)]
        assert seen == ['A', 'drop', 'ok', 'ok']
        # Refused calls are not executed, dropped answers are.
        assert one.world.faults.counts() == {'pool.join': 3}

    def test_a_rule_names_host_parameters_and_the_nth_call(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        one.world.faults.refuse(
            'pool.eject', 'X', host=two.address, nth=2, params={0: 'ref'}
        )

        def try_it(target: machine.Machine, value: str) -> str:
            made = self.of(target, 'pool.eject')
            made.args = [value]
            try:
                target.faults.before(made)
            except errors.ApiError as error:
                return error.code
            return 'ok'

        seen = [
            try_it(two, 'ref'),
            try_it(one, 'ref'),
            try_it(two, 'other'),
            try_it(two, 'ref'),
            try_it(two, 'ref'),
        ]
        assert seen == ['ok', 'ok', 'ok', 'X', 'ok']

    def test_a_delay_takes_simulated_time(
        self, pool: list[machine.Machine]
    ) -> None:
        one = pool[0]
        one.world.faults.delay('host.get_all', 90)
        began = one.clock.now()
        assert self.hit(one, 'host.get_all') == 'ok'
        assert one.clock.now() - began == pytest.approx(90)

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(ValueError, match='explode'):
            faults.Action('explode')
