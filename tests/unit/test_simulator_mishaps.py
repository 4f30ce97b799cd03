# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What can happen to a whole host, and the states of pools that it makes."""

from __future__ import annotations

import pathlib
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
    hosts,
    join,
    machine,
    master,
    mishaps,
    topology,
    vms,
    world,
)

ENOUGH = 60.0
"""Simulated seconds after which every start is over."""


def pool_of(count: int, tmp_path: pathlib.Path) -> list[machine.Machine]:
    """Return the machines of one pool, the coordinator first."""
    names = ', '.join(f'xen{number:02}' for number in range(1, count + 1))
    path = tmp_path / 'topology.yaml'
    path.write_text(f'pools: [{{hosts: [{names}]}}]')
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    topology.load(where, path, build.addresses('127.30.9.1'), 'xenroot')
    gc.start(where)
    return where.machines


@pytest.fixture(name='pool')
def _pool(tmp_path: pathlib.Path) -> list[machine.Machine]:
    return pool_of(3, tmp_path)


def db_of(target: machine.Machine) -> database.Database:
    assert target.db is not None
    return target.db


def only_pool(target: machine.Machine) -> dict[str, typing.Any]:
    return next(iter(db_of(target).all('pool').values()))


def ref(viewer: machine.Machine, target: machine.Machine) -> str:
    return db_of(viewer).by_uuid('host', target.uuid)


def call(target: machine.Machine) -> manual_world.Call:
    return manual_world.Call(target)


def wait(where: world.World, seconds: float = ENOUGH) -> None:
    where.clock.advance(seconds)


class TestInstallingAnew:
    def test_a_member_is_another_host_in_a_pool_of_its_own(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        address, uuid, dom0 = two.address, two.uuid, two.hardware.dom0_uuid
        known = ref(one, two)
        mishaps.install_anew(two)
        assert not two.up(machine.HTTP)
        wait(one.world)
        assert manual_world.state(two) == 'master'
        assert two.address == address
        assert two.uuid != uuid and two.hardware.dom0_uuid != dom0
        assert len(db_of(two).refs('host')) == 1
        assert only_pool(two)['uuid'] != only_pool(one)['uuid']
        assert db_of(two).get('host', two.me)['enabled']
        assert db_of(one).get('host', known)['uuid'] == uuid
        hosts.destroy(call(one), known)
        join.join(call(two), one.address, 'root', 'xenroot')
        wait(one.world)
        assert db_of(one).get('host', ref(one, two))['enabled']

    def test_certificates_are_not_verified_before_the_first_boot_is_over(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        mishaps.install_anew(two)
        while two.db is None:
            wait(one.world, 0.1)
        while not db_of(two).get('host', two.me)['enabled']:
            wait(one.world, 0.1)
        assert not only_pool(two)['tls_verification_enabled']
        with pytest.raises(errors.ApiError) as caught:
            join.join(call(two), one.address, 'root', 'xenroot')
        assert caught.value.details == ['HOST_STILL_BOOTING']
        wait(one.world)
        assert only_pool(two)['tls_verification_enabled']
        assert db_of(two).get('host', two.me)['address'] == two.address

    def test_a_host_that_was_booted_once_has_an_empty_ipv6_address(
        self, pool: list[machine.Machine]
    ) -> None:
        """Recorded: of the management interface, after an eject, too."""
        one, two, three = pool
        eject.eject(call(one), ref(one, three))
        mishaps.install_anew(two)
        wait(one.world)
        for target in pool:
            addresses = {
                pif['management']: pif['IPv6']
                for pif in db_of(target).all('PIF').values()
            }
            assert addresses == {True: [''], False: []}

    def test_a_coordinator_leaves_members_without_one(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, three = pool
        mishaps.install_anew(one)
        wait(one.world)
        assert manual_world.state(one) == 'master'
        assert manual_world.state(two) == f'slave:{one.address} hangs'
        master.emergency_transition_to_master(call(two))
        wait(one.world)
        assert master.recover_slaves(call(two)) == [ref(two, three)]
        wait(one.world)
        assert manual_world.state(three) == f'slave:{two.address}'

    def test_all_are_pools_of_one(self, pool: list[machine.Machine]) -> None:
        uuids = {target.uuid for target in pool}
        for target in pool:
            mishaps.install_anew(target)
        wait(pool[0].world)
        for target in pool:
            assert manual_world.state(target) == 'master'
            assert len(db_of(target).refs('host')) == 1
        assert len({only_pool(target)['uuid'] for target in pool}) == 3
        assert not uuids & {target.uuid for target in pool}

    def test_a_host_that_is_off_is_on_afterwards(
        self, pool: list[machine.Machine]
    ) -> None:
        mishaps.kill(pool[1])
        mishaps.install_anew(pool[1], password='another')
        wait(pool[0].world)
        assert manual_world.state(pool[1]) == 'master'
        assert pool[1].check_password('root', 'another')
        assert not pool[1].check_password('root', 'xenroot')


class TestPasswords:
    def test_a_member_has_one_of_its_own_until_it_restarts(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        mishaps.set_password(two, 'own')
        assert two.check_password('root', 'own')
        assert not one.check_password('root', 'own')
        mishaps.restart_toolstack(two)
        wait(one.world)
        assert two.check_password('root', 'xenroot')

    def test_a_joiner_has_the_pools_after_the_join(self) -> None:
        where = manual_world.make(2)
        one, two = where.machines
        mishaps.set_password(two, 'own')
        join.join(call(two), one.address, 'root', 'xenroot')
        assert two.check_password('root', 'own')
        wait(where)
        assert db_of(one).get('host', ref(one, two))['enabled']
        assert not two.check_password('root', 'own')
        assert two.check_password('root', 'xenroot')

    def test_a_topology_gives_a_member_one_of_its_own(
        self, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'topology.yaml'
        path.write_text(
            'pools: [{hosts: [xen01, {name: xen02, password: own}]}]'
        )
        where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
        topology.load(where, path, build.addresses('127.30.9.1'), 'xenroot')
        assert where.machines[1].check_password('root', 'own')
        assert where.machines[0].check_password('root', 'xenroot')


class TestStatesOfPools:
    """How a test makes each of them, with mishaps and XAPI's own calls."""

    def test_two_masters_of_the_same_pool(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, three = pool
        mishaps.isolate(two)
        master.emergency_transition_to_master(call(two))
        wait(one.world)
        mishaps.heal(two)
        wait(one.world)
        assert manual_world.state(one) == manual_world.state(two) == 'master'
        assert only_pool(one)['uuid'] == only_pool(two)['uuid']
        assert only_pool(two)['master'] == ref(two, two)
        assert manual_world.state(three) == f'slave:{one.address}'

    def test_half_promoted(self, pool: list[machine.Machine]) -> None:
        one, two, three = pool
        mishaps.kill(one)
        master.emergency_transition_to_master(call(two))
        wait(one.world)
        assert manual_world.state(two) == 'master'
        assert manual_world.state(three) == f'slave:{one.address} hangs'
        mishaps.power_on(one)
        wait(one.world)
        assert manual_world.state(one) == f'slave:{two.address}'

    def test_half_joined(self) -> None:
        where = manual_world.make(2)
        one, two = where.machines
        join.join(call(two), one.address, 'root', 'xenroot')
        mishaps.kill(two)
        wait(where)
        assert not db_of(one).get('host', ref(one, two))['enabled']
        mishaps.power_on(two)
        wait(where)
        assert db_of(one).get('host', ref(one, two))['enabled']

    def test_all_dead_and_back(self, pool: list[machine.Machine]) -> None:
        for target in pool:
            mishaps.kill(target)
        wait(pool[0].world)
        assert {manual_world.state(t) for t in pool} == {'down'}
        for target in pool:
            mishaps.power_on(target)
        wait(pool[0].world)
        assert [manual_world.state(t) for t in pool] == [
            'master',
            f'slave:{pool[0].address}',
            f'slave:{pool[0].address}',
        ]


class TestOptions:
    def test_what_a_mishap_takes_is_checked(
        self, pool: list[machine.Machine]
    ) -> None:
        for name, options, why in (
            ('kill', {'password': 'x'}, "kill takes no 'password'"),
            ('set-password', {}, 'set-password needs a password'),
            ('set-password', {'password': ''}, 'not empty'),
            ('install-anew', {'password': 5}, 'not empty'),
        ):
            with pytest.raises(ValueError, match=why):
                mishaps.apply(name, pool[1], options)
        assert pool[1].powered and pool[1].password == 'xenroot'

    def test_an_ejected_host_keeps_its_identity(
        self, pool: list[machine.Machine]
    ) -> None:
        one, two, _ = pool
        uuid = two.uuid
        eject.eject(call(one), ref(one, two))
        wait(one.world)
        assert two.uuid == uuid
        assert manual_world.state(two) == 'master'


class TestAStuckJoiner:
    """The coordinator's toolstack restarts in the fuse of a join (recorded).

    The order of events is held against the recorded timeline elsewhere.
    """

    @pytest.fixture(name='two')
    def _two(self) -> list[machine.Machine]:
        where = manual_world.make(2)
        gc.start(where)
        one, two = where.machines
        join.join(call(two), one.address, 'root', 'xenroot')
        mishaps.restart_toolstack(one)
        wait(where)
        return where.machines

    def domain(
        self, viewer: machine.Machine, target: machine.Machine
    ) -> dict[str, typing.Any]:
        db = db_of(viewer)
        return db.get('VM', db.by_uuid('VM', target.hardware.dom0_uuid))

    def test_it_never_comes_up(self, two: list[machine.Machine]) -> None:
        one, joiner = two
        seen = set()
        for _ in range(60):
            wait(one.world, 10.0)
            seen.add(manual_world.state(joiner))
            assert not db_of(one).get('host', ref(one, joiner))['enabled']
        assert 'HOST_STILL_BOOTING' in seen
        assert f'slave:{one.address}' not in seen
        vm = self.domain(one, joiner)
        assert vm['power_state'] == 'Halted'
        assert vm['resident_on'] == errors.NULL and vm['domid'] == -1
        host = db_of(one).get('host', ref(one, joiner))
        assert db_of(one).get('VM', host['control_domain']) == vm

    def test_what_is_forwarded_to_it_gives_up(
        self, two: list[machine.Machine]
    ) -> None:
        one, joiner = two
        before = one.clock.now()
        host = ref(one, joiner)
        with pytest.raises(errors.ApiError) as caught:
            eject.eject(call(one), host)
        assert caught.value.details == ['CANNOT_CONTACT_HOST', host]
        assert 90 <= one.clock.now() - before <= 110

    def test_the_way_out(self, two: list[machine.Machine]) -> None:
        one, joiner = two
        mishaps.kill(joiner)
        host = ref(one, joiner)
        hosts.destroy(call(one), host)
        assert not db_of(one).exists(host)
        certificates = [
            record['host'] == host
            for record in db_of(one).all('Certificate').values()
        ]
        assert any(certificates)
        wait(one.world, 40.0)
        assert host not in {
            record['host'] for record in db_of(one).all('Certificate').values()
        }
        # Its control domain's record stays, and the next join sticks, too.
        assert self.domain(one, joiner)['power_state'] == 'Halted'
        self.join_again(one, joiner)
        assert manual_world.state(joiner) == 'HOST_STILL_BOOTING'
        mishaps.kill(joiner)
        hosts.destroy(call(one), ref(one, joiner))
        left = db_of(one).by_uuid('VM', joiner.hardware.dom0_uuid)
        vms.destroy(call(one), left)
        self.join_again(one, joiner)
        assert manual_world.state(joiner) == f'slave:{one.address}'
        assert db_of(one).get('host', ref(one, joiner))['enabled']

    def join_again(
        self, one: machine.Machine, joiner: machine.Machine
    ) -> None:
        """Let the same machine, reset, join again."""
        joiner.forget_installation()
        mishaps.power_on(joiner)
        wait(one.world)
        join.join(call(joiner), one.address, 'root', 'xenroot')
        wait(one.world)

    def test_a_restart_after_the_joiners_harms_nothing(self) -> None:
        where = manual_world.make(2)
        one, two = where.machines
        join.join(call(two), one.address, 'root', 'xenroot')
        wait(where)
        mishaps.restart_toolstack(one)
        mishaps.restart_toolstack(two)
        wait(where)
        assert manual_world.state(two) == f'slave:{one.address}'
        assert self.domain(one, two)['power_state'] == 'Running'


class TestRestartsDuringAJoin:
    """Recorded: what becomes of it, whoever's toolstack restarts."""

    @pytest.mark.parametrize('seconds', [0.5, 1.5, 2.0])
    def test_of_the_coordinators(self, seconds: float) -> None:
        where = manual_world.make(2)
        one, two = where.machines
        where.clock.call_later(seconds, mishaps.restart_toolstack, one)
        with pytest.raises(errors.ApiError) as caught:
            join.join(call(two), one.address, 'root', 'xenroot')
        assert caught.value.details == ['JOINING_HOST_CONNECTION_FAILED']
        wait(where)
        assert manual_world.state(two) == 'master'
        assert len(db_of(one).refs('host')) == 1
        join.join(call(two), one.address, 'root', 'xenroot')
        wait(where)
        assert manual_world.state(two) == f'slave:{one.address}'

    @pytest.mark.parametrize('seconds', [0.5, 1.5, 2.0, 2.5])
    def test_of_the_joiners(self, seconds: float) -> None:
        where = manual_world.make(2)
        one, two = where.machines
        where.clock.call_later(seconds, mishaps.restart_toolstack, two)
        with pytest.raises(faults.Drop):
            join.join(call(two), one.address, 'root', 'xenroot')
        wait(where)
        assert manual_world.state(two) == 'master'

    def test_a_joiner_that_reboots_in_its_fuse_has_joined(self) -> None:
        where = manual_world.make(2)
        one, two = where.machines
        join.join(call(two), one.address, 'root', 'xenroot')
        mishaps.kill(two)
        mishaps.power_on(two)
        wait(where)
        assert db_of(one).get('host', ref(one, two))['enabled']
