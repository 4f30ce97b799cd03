# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The door to XAPI against simulated hosts, over real HTTPS."""

from __future__ import annotations

import collections.abc
import os
import time

import pytest

from tests import permits
from xenpool_driver import conf, exceptions, pool_states, simulator
from xenpool_driver.xapi import changes, client, connections, tasks

CLOCK_SCALE = 60.0


class FastClock:
    """The simulation's pace for whoever polls it."""

    @staticmethod
    def time() -> float:
        """Return seconds since 1970."""
        return time.time()

    @staticmethod
    def monotonic() -> float:
        """Return seconds."""
        return time.monotonic()

    @staticmethod
    def boottime() -> float:
        """Return seconds."""
        return time.monotonic()

    @staticmethod
    def sleep(seconds: float) -> None:
        """Let simulated seconds pass."""
        time.sleep(seconds / CLOCK_SCALE)


CLOCK = FastClock()


@pytest.fixture
def simulation() -> collections.abc.Iterator[simulator.Simulation]:
    with simulator.Simulation(
        hosts=3,
        address=f"127.40.{200 + os.getpid() % 50}.1",
        port=8443,
        http_port=None,
        time_scale=CLOCK_SCALE,
        seed=1,
    ) as running:
        yield running


@pytest.fixture
def doors(
    simulation: simulator.Simulation,
) -> collections.abc.Iterator[connections.Connections]:
    hosts = {
        host.name: conf.HostAccess(
            host.name,
            host.url,
            'root',
            'xenroot',
            ca_file=str(simulation.ca_file),
        )
        for host in simulation.hosts
    }
    made = connections.Connections(hosts, CLOCK)
    yield made
    made.close()


def until(
    goal: collections.abc.Callable[[], bool], seconds: float = 600.0
) -> None:
    """Wait until ``goal`` is seen, for simulated seconds at most."""
    deadline = CLOCK.monotonic() + max(60.0, seconds / CLOCK_SCALE)
    while True:
        try:
            if goal():
                return
        except (exceptions.XapiUnavailable, exceptions.NotPoolMaster):
            pass
        assert CLOCK.monotonic() < deadline, 'the goal was never seen'
        CLOCK.sleep(1.0)


def changing(door: client.Client) -> changes.PoolChanges:
    """Return what may be changed through a master."""
    return permits.changing_pool(door, CLOCK)


def join(doors: connections.Connections, joiner: str, master: str) -> str:
    """Join a host to the pool of another; return its uuid."""
    target = doors.client(master)
    door = doors.client(joiner)
    _, uuid = door.this_host()
    task = changing(door).join(target.address, 'root', 'xenroot')
    status = client.wait(task, CLOCK, 60, 1)
    assert status.state is tasks.TaskState.SUCCESS

    def done() -> bool:
        member = target.host(uuid)
        return bool(
            member
            and member.live
            and member.enabled
            and doors.member_view(joiner) == target.address
        )

    until(done)
    return uuid


def test_life_of_a_pool(
    simulation: simulator.Simulation, doors: connections.Connections
) -> None:
    first, second, third = (host.name for host in simulation.hosts)
    master = doors.client(first)
    changing(master).set_pool_name('blue')
    changing(master).add_pool_other_config(pool_states.OWNER_KEY, 'mine')
    with pytest.raises(exceptions.XapiRefused) as taken:
        changing(master).add_pool_other_config(pool_states.OWNER_KEY, 'yours')
    assert taken.value.code == 'MAP_DUPLICATE_KEY'
    pool = master.pool()
    assert pool.name_label == 'blue'
    uuids = {
        first: master.this_host()[1],
        second: join(doors, second, first),
        third: join(doors, third, first),
    }
    assert {host.uuid for host in master.hosts()} == set(uuids.values())
    assert simulation.faults.counts()['pool.join'] == 2

    found = doors.find_coordinator(uuids, pool.uuid)
    assert found.name == first
    assert doors.coordinator_of(third).name == first
    assert doors.local_client(third).is_in_emergency_mode() is False

    client.wait(
        changing(master).designate(uuids[second]),
        CLOCK,
        60,
        1,
    )
    address = doors.access(second).address
    until(
        lambda: (
            doors.member_view(first) == address
            and doors.member_view(third) == address
            and doors.member_view(second) == ''
        )
    )
    found = doors.find_coordinator(uuids, pool.uuid)
    assert found.name == second
    until(lambda: all(host.enabled for host in found.hosts()))

    client.wait(changing(found).eject(uuids[third]), CLOCK, 60, 1)
    until(lambda: found.host(uuids[third]) is None)
    until(lambda: doors.member_view(third) == '')
    assert doors.client(third).pool().uuid != pool.uuid
    assert doors.find_coordinator(uuids, pool.uuid).name == second
    changing(found).remove_pool_other_config(pool_states.OWNER_KEY)
    assert pool_states.OWNER_KEY not in found.pool().other_config


def test_both_protocols_read_the_same(
    simulation: simulator.Simulation, doors: connections.Connections
) -> None:
    door = doors.client(simulation.hosts[0].name)
    by_json = door.records('pool', 'host', 'PIF', 'network', 'VM', 'SR')
    door._home._json = False
    by_xml = door.records('pool', 'host', 'PIF', 'network', 'VM', 'SR')
    for records in (by_json, by_xml):
        assert not records.unreadable
    assert by_json == by_xml
    assert door.snapshot().pool == door.pool()


def test_class_that_does_not_exist_is_unreadable(
    simulation: simulator.Simulation, doors: connections.Connections
) -> None:
    raw = doors.client(simulation.hosts[0].name).records('pool', 'auth')
    assert raw.unreadable == {
        'auth': 'MESSAGE_METHOD_UNKNOWN auth.get_all_records'
    }


def test_wrong_password(simulation: simulator.Simulation) -> None:
    host = simulation.hosts[0]
    doors = connections.Connections(
        {
            'xen01': conf.HostAccess(
                'xen01',
                host.url,
                'root',
                'n0t-the-0ne',
                ca_file=str(simulation.ca_file),
            )
        }
    )
    with pytest.raises(exceptions.XapiRefused) as caught:
        doors.client('xen01')
    assert caught.value.code == 'SESSION_AUTHENTICATION_FAILED'
    assert 'n0t-the-0ne' not in str(caught.value)


def test_certificate_of_a_simulated_host_needs_its_authority(
    simulation: simulator.Simulation,
) -> None:
    host = simulation.hosts[0]
    doors = connections.Connections(
        {'xen01': conf.HostAccess('xen01', host.url, 'root', 'xenroot')}
    )
    with pytest.raises(exceptions.XapiUnavailable, match='not trusted'):
        doors.client('xen01')
    assert simulation.faults.counts() == {}


def test_task_of_a_restarted_joiner_is_lost(
    simulation: simulator.Simulation, doors: connections.Connections
) -> None:
    first, second, _ = (host.name for host in simulation.hosts)
    task = changing(doors.client(second)).join(
        doors.access(first).address, 'root', 'xenroot'
    )
    until(lambda: task.status().state is tasks.TaskState.LOST)
    with pytest.raises(exceptions.XapiOutcomeUnknown):
        client.wait(task, CLOCK, 60, 1)
    assert simulation.faults.counts()['pool.join'] == 1


@pytest.mark.parametrize('after', [False, True])
def test_join_whose_answer_is_lost_is_sent_once(
    simulation: simulator.Simulation,
    doors: connections.Connections,
    after: bool,
) -> None:
    first, second, _ = (host.name for host in simulation.hosts)
    joiner = doors.client(second)
    simulation.faults.drop('pool.join', after=after, times=None)
    with pytest.raises(exceptions.XapiOutcomeUnknown):
        changing(joiner).join(doors.access(first).address, 'root', 'xenroot')
    assert simulation.faults.counts().get('pool.join', 0) == int(after)


def test_restarted_toolstack_is_logged_in_to_again_for_reads(
    simulation: simulator.Simulation, doors: connections.Connections
) -> None:
    host = simulation.hosts[0]
    door = doors.client(host.name)
    changing(door).write('host.restart_agent', door.this_host()[0])
    until(lambda: not is_old(simulation, door))
    assert door.this_host()[1] == host.uuid


def is_old(simulation: simulator.Simulation, door: client.Client) -> bool:
    """Say whether the toolstack has not restarted yet."""
    logins = simulation.faults.counts()['session.login_with_password']
    door.pool()
    now = simulation.faults.counts()['session.login_with_password']
    return now == logins
