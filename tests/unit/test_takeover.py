# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Whoever takes over first ends the logins of the worker before."""

from __future__ import annotations

import ast
import collections.abc
import pathlib
import re
import typing

import pytest

import xenpool_driver
from tests.unit import mocked_calls, mocked_pool
from xenpool_driver import driver, exceptions, model, store
from xenpool_driver.xapi import client

LEASE = 60.0
MARGIN = 10.0
READ_TIMEOUT = 60.0
LOGIN = 'OpaqueRef:login of the dead'
EJECT = 'Async.pool.eject'
TASK = 'OpaqueRef:task of the dead'


@pytest.fixture
def world() -> mocked_pool.World:
    return mocked_pool.World()


@pytest.fixture
def plugin(
    world: mocked_pool.World, tmp_path: pathlib.Path
) -> collections.abc.Iterator[driver.XenAPIPoolDriver]:
    found = world.driver(tmp_path)
    yield found
    found.close()


class Logins:
    """The logins that a dead worker had at a host.

    :param host: where.
    """

    def __init__(self, host: mocked_pool.Host, *uuids: str) -> None:
        self.left = {uuid: f"{LOGIN} {uuid}" for uuid in uuids}
        self.tasks: list[str] = []
        self.starts: list[tuple[str, str]] = []
        self.host = host
        api = host.api
        api.session.get_by_uuid.side_effect = self._find
        api.session.get_tasks.side_effect = lambda ref: self.tasks
        host.session.session.logout.side_effect = self._end

    def _find(self, uuid: str) -> str:
        self.host.serve()
        if uuid not in self.left:
            raise mocked_calls.failure('UUID_INVALID', 'session', uuid)
        return self.left[uuid]

    def _end(self, ref: str) -> dict[str, typing.Any]:
        if ref not in self.left.values():
            return {
                'Status': 'Failure',
                'ErrorDescription': ['SESSION_INVALID', ref],
            }
        self.left = {k: v for k, v in self.left.items() if v != ref}
        for task in self.starts:
            self.run(*task)
        return {'Status': 'Success', 'Value': ''}

    def run(self, ref: str, name: str) -> None:
        """Let a task go on for 20 s."""
        task = {'status': 'pending', 'name_label': name}
        self.host.raw['task'][ref] = task
        self.host.world.clock.later(
            20.0, lambda: task.update(status='success')
        )


def leave_behind(
    plugin: driver.XenAPIPoolDriver,
    row: store.Aggregate,
    *logins: tuple[str, str],
) -> store.Operation:
    """Let a worker begin to eject xen03 and die.

    :param logins: (host, uuid) of the logins that it had.
    """
    addresses = {f"xen0{number}": f"192.0.2.{number}" for number in (1, 2, 3)}
    begun, _ = plugin.site.store.begin(
        row.uuid,
        'eject',
        'xen03',
        'the dead',
        LEASE,
        {
            'host_uuid': row.metadata['xen03'],
            'suspend_ha': False,
            'drain': False,
            'keep_disabled': False,
            'wait': False,
            'logins': [
                {
                    'host': host,
                    'address': addresses.get(host, host),
                    'uuid': uuid,
                }
                for host, uuid in logins
            ],
        },
        lambda *_: store.Changes(),
    )
    return begun


def story(plugin: driver.XenAPIPoolDriver, left: store.Operation) -> list[str]:
    return [line.phase for line in plugin.site.store.phases(left.uuid)]


def test_its_login_is_ended_before_it_is_looked_at_the_pool(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    left = leave_behind(plugin, row, ('xen01', 'u1'))
    logins = Logins(world['xen01'], 'u1')
    world.clock.sleep(LEASE)
    world.forget_calls()
    began = world.clock.now

    plugin.recover_aggregate(None, row)

    assert not logins.left
    calls = [method for _, method, _ in world.calls()]
    assert calls.index('session.logout') < calls.index('host.get_by_uuid')
    assert world.changes() == []
    assert story(plugin, left)[1:3] == ['taken-over', 'recovering']
    assert world.clock.now - began < MARGIN  # nobody had to wait


@pytest.mark.parametrize('how', ['ended already', 'a member now'])
def test_a_login_that_cannot_be_there_keeps_nobody(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, how: str
) -> None:
    row = mocked_pool.formed(world, plugin)
    where = 'xen01' if how == 'ended already' else 'xen02'
    leave_behind(plugin, row, (where, 'u1'))
    world.clock.sleep(LEASE)
    began = world.clock.now

    plugin.recover_aggregate(None, row)

    assert world.clock.now - began < MARGIN


def test_a_login_to_a_host_itself_is_waited_out_and_told(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    left = leave_behind(plugin, row, ('xen02', ''))
    world.clock.sleep(LEASE)
    heard: list[str] = []

    plugin.recover_aggregate(
        None, row, progress=lambda host, phase, fraction: heard.append(phase)
    )

    told = plugin.site.store.phases(left.uuid)
    [waiting] = [line for line in told if line.phase == 'waiting']
    assert 'logins of the dead to xen02 cannot be ended' in waiting.note
    assert 'waiting' in heard
    [after] = [line for line in told if line.phase == 'recovering']
    since = left.lease_expires + MARGIN + READ_TIMEOUT
    assert after.at == pytest.approx(since, abs=2.0)


@pytest.mark.parametrize('spoiled', ['silent', 'refused'])
def test_where_ending_is_not_possible_time_is_the_fence(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, spoiled: str
) -> None:
    row = mocked_pool.formed(world, plugin)
    left = leave_behind(plugin, row, ('xen02', 'u1'))
    if spoiled == 'silent':
        world['xen02'].die()
    else:
        world[
            'xen02'
        ].api.login_with_password.side_effect = mocked_calls.failure(
            'SESSION_AUTHENTICATION_FAILED', 'root', 'x'
        )
        plugin.site.connections.invalidate('xen02')
    world.clock.sleep(LEASE)

    plugin.recover_aggregate(None, row)

    since = left.lease_expires + MARGIN + READ_TIMEOUT
    [after] = [
        line
        for line in plugin.site.store.phases(left.uuid)
        if line.phase == 'recovering'
    ]
    assert after.at == pytest.approx(since, abs=2.0)


def test_a_host_that_comes_back_shortens_the_wait(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    leave_behind(plugin, row, ('xen02', 'u1'))
    world['xen02'].alive = False
    world.clock.sleep(LEASE)
    began = world.clock.now
    world.clock.later(15.0, lambda: setattr(world['xen02'], 'alive', True))

    plugin.recover_aggregate(None, row)

    assert 15.0 <= world.clock.now - began < MARGIN + READ_TIMEOUT


@pytest.mark.parametrize('when', ['before', 'in that moment'])
def test_what_it_had_started_is_waited_for_and_forgotten(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, when: str
) -> None:
    row = mocked_pool.formed(world, plugin)
    left = leave_behind(plugin, row, ('xen01', 'u1'))
    logins = Logins(world['xen01'], 'u1')
    world.clock.sleep(LEASE)
    if when == 'before':
        logins.tasks = [TASK]
        logins.run(TASK, EJECT)
    else:
        logins.starts = [(TASK, EJECT)]
    began = world.clock.now

    plugin.recover_aggregate(None, row)

    [after] = [
        line
        for line in plugin.site.store.phases(left.uuid)
        if line.phase == 'recovering'
    ]
    assert after.at - began == pytest.approx(20.0, abs=2.0)
    world['xen01'].api.task.destroy.assert_called_once_with(TASK)


def test_the_work_of_others_keeps_nobody(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    leave_behind(plugin, row, ('xen01', 'u1'))
    logins = Logins(world['xen01'], 'u1')
    world.clock.sleep(LEASE)
    logins.run('OpaqueRef:of somebody', 'Async.host.evacuate')
    logins.starts = [('OpaqueRef:a guest of somebody', 'Async.VM.migrate')]
    began = world.clock.now

    plugin.recover_aggregate(None, row)

    assert world.clock.now - began < MARGIN
    world['xen01'].api.task.destroy.assert_not_called()


def test_a_successor_that_dies_waiting_leaves_what_goes_on(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """The login is gone then, and with it what told of its tasks."""
    row = mocked_pool.formed(world, plugin)
    left = leave_behind(plugin, row, ('xen01', 'u1'))
    logins = Logins(world['xen01'], 'u1')
    world.clock.sleep(LEASE)
    logins.tasks = [TASK]
    logins.run(TASK, EJECT)

    class Died(Exception):
        pass

    def die(seconds: float) -> None:
        raise Died

    sleep, world.clock.sleep = world.clock.sleep, die  # type: ignore
    with pytest.raises(Died):
        plugin.recover_aggregate(None, row)
    world.clock.sleep = sleep  # type: ignore[method-assign]

    [entry] = plugin.site.store.get_operation(left.uuid).details['started']
    assert entry['tasks'] == [TASK]
    assert not logins.left


def test_a_released_aggregate_is_fenced_too(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    leave_behind(plugin, row, ('xen01', 'u1'))
    logins = Logins(world['xen01'], 'u1')
    world.clock.sleep(LEASE)

    plugin.release_aggregate(None, row)

    assert not logins.left


def test_a_worker_that_stood_still_sends_nothing(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """It stops between saying what it is about to do and doing it."""
    row = mocked_pool.formed(world, plugin)
    writes = plugin.site.store.phase

    def write(held: store.Operation, name: str, *args: typing.Any) -> object:
        written = writes(held, name, *args)
        if name == 'eject':
            world.clock.now += LEASE - MARGIN
        return written

    plugin.site.store.phase = write  # type: ignore[method-assign,assignment]
    with pytest.raises(exceptions.LeaseLost, match='last renewed 50 s ago'):
        plugin.remove_from_aggregate(None, row, 'xen03', allow_data_loss=True)

    assert world.changes() == []
    assert row.hosts == ['xen01', 'xen02', 'xen03']


def test_the_names_of_our_tasks_are_complete() -> None:
    path = pathlib.Path(xenpool_driver.__file__).parent / 'xapi/changes.py'
    used = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r'Async\.\w+\.\w+', node.value)
    }
    assert used == client.LASTING


# By hand: recover, and recover --force


def test_recovery_says_who_holds_what_and_until_when(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    [finding] = plugin.recover_aggregate(None, row).findings
    assert finding.message.startswith('nothing to do')
    assert finding.severity is model.Severity.PASS

    left = leave_behind(plugin, row)
    world.clock.sleep(20.0)
    [finding] = plugin.recover_aggregate(None, row).findings

    assert finding.message.startswith(
        f"eject of xen03 (operation {left.uuid}) is held by the dead until 20"
    )
    assert 'for another 40 s' in finding.message
    assert finding.severity is model.Severity.FAIL  # it ends with status 1
    assert finding.remedy.endswith(f"recover rack1 --force {left.uuid}")


def test_a_person_ends_a_lease_the_logins_first(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    left = leave_behind(plugin, row, ('xen01', 'u1'))
    logins = Logins(world['xen01'], 'u1')
    epochs: list[int] = []
    find = logins._find

    def watched(uuid: str) -> str:
        epochs.append(plugin.site.store.get_operation(left.uuid).epoch)
        return find(uuid)

    world['xen01'].api.session.get_by_uuid.side_effect = watched

    [finding] = plugin.recover_aggregate(None, row, force=left.uuid).findings

    assert not logins.left
    assert epochs[0] == left.epoch  # it was ended before the epoch was raised
    assert finding.message.startswith('eject of xen03 is settled as not done')
    assert plugin.site.store.running_operations() == []
    with pytest.raises(exceptions.LeaseLost):
        plugin.site.store.phase(left, 'eject')


def test_a_lease_is_not_ended_by_hand_while_a_login_may_be_used(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin)
    left = leave_behind(plugin, row, ('xen02', ''))
    world.clock.sleep(LEASE - 10.0)

    with pytest.raises(
        exceptions.InvalidAggregateActionUpdate, match='cannot be ended'
    ) as caught:
        plugin.recover_aggregate(None, row, force=left.uuid)

    until = 10 + MARGIN + READ_TIMEOUT
    assert f"until {until:.0f} s from now" in caught.value.reason
    assert plugin.site.store.get_operation(left.uuid).epoch == left.epoch
    world.clock.sleep(until)
    [finding] = plugin.recover_aggregate(None, row, force=left.uuid).findings
    assert 'is settled' in finding.message


@pytest.mark.parametrize('which', ['ended', "another's", 'unknown'])
def test_what_cannot_be_ended_by_hand_is_named(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver, which: str
) -> None:
    row = mocked_pool.formed(world, plugin)
    other = mocked_pool.aggregate(plugin, 'rack2')
    ident = leave_behind(plugin, row).uuid
    told: type[Exception] = exceptions.InvalidAggregateActionUpdate
    if which == 'ended':
        plugin.recover_aggregate(None, row, force=ident)
    elif which == 'unknown':
        ident, told = 'f' * 36, exceptions.OperationNotFound
    else:
        row = other
    with pytest.raises(told, match=ident):
        plugin.recover_aggregate(None, row, force=ident)
