# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver settles what dead workers left behind, on mocked sessions."""

from __future__ import annotations

import collections.abc
import pathlib
import typing
from unittest import mock

import pytest

from tests.unit import mocked_pool, spoilers
from xenpool_driver import driver, exceptions, pool_states

Spoil = collections.abc.Callable[[mocked_pool.World], object]


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


LEASE = 61.0
"""Seconds after which a lease of the default length has run out."""


class Died(Exception):
    """The worker dies here; nothing of the driver catches this."""


@pytest.fixture
def dying(
    world: mocked_pool.World, tmp_path: pathlib.Path
) -> collections.abc.Iterator[driver.XenAPIPoolDriver]:
    """Another worker on the same store, which will not live."""
    found = world.driver(tmp_path)
    yield found
    found.close()


def die_at(
    plugin: driver.XenAPIPoolDriver, phase: str, after: bool = False
) -> None:
    """Let a worker die at a phase.

    :param after: let it first write the phase down.
    """
    writes = plugin.site.store.phase

    def write(operation: typing.Any, name: str, *args: typing.Any) -> object:
        if name == phase and not after:
            raise Died
        written = writes(operation, name, *args)
        if name == phase:
            raise Died
        return written

    store: typing.Any = plugin.site.store
    store.phase = write


def test_a_set_up_is_finished_by_the_heir(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.aggregate(plugin)
    die_at(dying, 'name')
    with pytest.raises(Died):
        dying.add_to_aggregate(None, row, 'xen01')
    assert row.state == pool_states.CHANGING
    assert world.changes() == ['xen01 pool.add_to_other_config']

    report = plugin.recover_aggregate(None, row)
    [finding] = report.findings
    assert 'is held by' in finding.message  # its worker may live
    assert row.state == pool_states.CHANGING

    world.clock.sleep(LEASE)
    report = plugin.recover_aggregate(None, row)

    assert [finding.message for finding in report.findings] == [
        'set-up of xen01 is settled: it is done'
    ]
    assert row.state == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert world['xen01'].pool['name_label'] == 'rack1'
    assert world['xen01'].api.pool.add_to_other_config.call_count == 1
    [(kind, _, outcome)] = mocked_pool.stories(plugin, row)
    assert (kind, outcome) == ('set-up', 'succeeded')


def test_a_set_up_whose_host_is_gone_ends_in_error_never_in_changing(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.aggregate(plugin)
    die_at(dying, 'stamp')
    with pytest.raises(Died):
        dying.add_to_aggregate(None, row, 'xen01')
    world['xen01'].die()
    world.clock.sleep(LEASE)

    [finding] = plugin.recover_aggregate(None, row).findings

    assert 'not done' in finding.message
    assert row.state == pool_states.ERROR


def test_the_next_request_settles_what_lies_there(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.aggregate(plugin)
    die_at(dying, 'name')
    with pytest.raises(Died):
        dying.add_to_aggregate(None, row, 'xen01')
    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='setup in progress'
    ):
        plugin.add_to_aggregate(None, row, 'xen01')
    world.clock.sleep(LEASE)

    plugin.add_to_aggregate(None, row, 'xen01')

    assert row.state == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == 'xen01'


def test_a_service_settles_the_operations_of_its_hosts_when_it_starts(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.aggregate(plugin)
    die_at(dying, 'name')
    with pytest.raises(Died):
        dying.add_to_aggregate(None, row, 'xen01')
    world.clock.sleep(LEASE)

    plugin.init_host('xen02')
    row.refresh()
    assert row.state == pool_states.CHANGING
    plugin.init_host('xen01')

    row.refresh()
    assert row.state == pool_states.ACTIVE
    with pytest.raises(exceptions.ConfigurationError, match="'nobody'"):
        plugin.init_host('nobody')


@pytest.mark.parametrize('phase', ['join', 'restart'])
def test_a_join_is_settled_by_looking_never_made_again(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
    phase: str,
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    die_at(dying, phase)
    with pytest.raises(Died):
        dying.add_to_aggregate(None, row, 'xen02')
    called = phase == 'restart'
    assert world.changes() == ['xen02 Async.pool.join'] * called
    assert row.hosts == ['xen01', 'xen02']
    world.forget_calls()
    world.clock.sleep(LEASE)

    [finding] = plugin.recover_aggregate(None, row).findings

    assert world.changes() == [mocked_pool.SPREAD] * called
    assert row.state == pool_states.ACTIVE
    if called:
        assert finding.message.endswith('it is done')
        assert row.metadata['xen02'] == world['xen02'].uuid
    else:
        assert 'not done' in finding.message
        assert row.hosts == ['xen01']
        assert 'xen02' not in row.metadata


def test_an_eject_is_settled_by_looking(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.formed(world, plugin)
    die_at(dying, 'eject', after=True)
    with pytest.raises(Died):
        dying.remove_from_aggregate(None, row, 'xen03')
    world.clock.sleep(LEASE)

    [finding] = plugin.recover_aggregate(None, row).findings

    assert 'not done' in finding.message
    assert row.hosts == ['xen01', 'xen02', 'xen03']
    assert world.changes() == []


@pytest.mark.parametrize(('wiping', 'seconds'), [(False, 20.0), (True, 90.0)])
def test_an_eject_of_a_dead_worker_is_given_time_to_show(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
    wiping: bool,
    seconds: float,
) -> None:
    """The master has lost the task; the host goes on alone."""
    row = mocked_pool.formed(world, plugin)
    die_at(dying, 'eject', after=True)
    with pytest.raises(Died):
        dying.remove_from_aggregate(None, row, 'xen03')
    world.clock.sleep(LEASE)
    raw, ref = world['xen01'].raw, world['xen03'].ref
    if wiping:
        del raw['VM'][raw['host'][ref]['control_domain']]
    world.clock.later(seconds, lambda: raw['host'].pop(ref))

    [finding] = plugin.recover_aggregate(None, row).findings

    assert finding.message.endswith('it is done')
    assert row.hosts == ['xen01', 'xen02']


def test_a_change_of_master_is_settled_by_looking(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.formed(world, plugin)
    die_at(dying, 'restart')
    with pytest.raises(Died):
        dying.set_aggregate_master(None, row, 'xen02')
    assert row.metadata[pool_states.MASTER] == 'xen01'
    world.clock.sleep(LEASE)

    [finding] = plugin.recover_aggregate(None, row).findings

    assert finding.message.endswith('it is done')
    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert world.changes() == ['xen01 Async.pool.designate_new_master']


def test_a_clearing_is_finished_by_the_heir(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    die_at(dying, 'clear stamp')
    with pytest.raises(Died):
        dying.remove_from_aggregate(None, row, 'xen01')
    world.clock.sleep(LEASE)

    [finding] = plugin.recover_aggregate(None, row).findings

    assert finding.message.endswith('it is done')
    assert row.hosts == []
    assert pool_states.OWNER_KEY not in world['xen01'].pool['other_config']


def test_an_adoption_is_finished_by_the_heir(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    spoilers.pool_of_three(world)
    row = mocked_pool.aggregate(plugin)
    die_at(dying, 'name')
    with pytest.raises(Died):
        dying.adopt_aggregate(None, row, 'xen02')
    world.clock.sleep(LEASE)

    [finding] = plugin.recover_aggregate(None, row).findings

    assert finding.message.endswith('it is done')
    assert row.state == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert sorted(row.hosts) == ['xen01', 'xen02', 'xen03']


def test_a_promotion_is_settled_by_looking(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.formed(world, plugin)
    world['xen01'].die()
    die_at(dying, 'recover members')
    with pytest.raises(Died):
        dying.recover_aggregate(None, row, promote='xen02')
    world['xen03'].master = world['xen02']
    world.clock.sleep(LEASE)

    [finding, left] = plugin.recover_aggregate(None, row).findings

    assert finding.message.endswith('it is done')
    assert left.remedy.endswith('remove host rack1 xen01 --forget --yes')
    assert row.metadata[pool_states.MASTER] == 'xen02'


def test_a_member_that_the_promoted_host_does_not_know_is_not_sent_for(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    """Its copy of the database is older than the member's join."""
    row = mocked_pool.formed(world, plugin)
    world['xen01'].die()
    die_at(dying, 'recover members', after=True)
    with pytest.raises(Died):
        dying.recover_aggregate(None, row, promote='xen02')
    del world['xen02'].raw['host'][world['xen03'].ref]
    world.clock.sleep(LEASE)

    [finding] = plugin.recover_aggregate(None, row).findings

    assert 'not done' in finding.message
    assert row.metadata[pool_states.MASTER] == 'xen02'
    world['xen02'].api.Async.pool.recover_slaves.assert_not_called()


def test_the_dead_worker_can_write_no_more(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    """It only slept: when it wakes, the operation is somebody else's."""
    row = mocked_pool.formed(world, plugin, 1)
    naming = world['xen02'].api.Async.pool.join

    def oversleep(*args: str) -> typing.NoReturn:
        world.clock.sleep(LEASE)
        plugin.recover_aggregate(None, row)
        raise ConnectionRefusedError(111, 'refused')

    naming.side_effect = oversleep

    with pytest.raises(exceptions.LeaseLost):
        dying.add_to_aggregate(None, row, 'xen02')

    assert row.hosts == ['xen01']
    assert mocked_pool.stories(plugin, row)[-1] == ('join', 'xen02', 'undone')


# Undo, as Nova's manager asks for it


class Caller:
    """An aggregate of Nova's shape, whose caller wrote the host already."""

    def __init__(self, row: typing.Any, hosts: list[str]) -> None:
        self.id, self.uuid, self.name = row.id, row.uuid, row.name
        self.metadata = dict(row.metadata)
        self.hosts = hosts
        self.done: list[str] = []

    def update_metadata(self, metadata: dict[str, str | None]) -> None:
        """Merge; None deletes."""
        for key, value in metadata.items():
            if value is None:
                self.metadata.pop(key, None)
            else:
                self.metadata[key] = value

    def add_host(self, host: str) -> None:
        """Put a host back."""
        self.done.append(f"add {host}")

    def delete_host(self, host: str) -> None:
        """Take a host out."""
        self.done.append(f"delete {host}")


@pytest.mark.parametrize('set_error', [False, True])
def test_undo_follows_the_pool_not_the_request(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    set_error: bool,
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    caller = Caller(row, ['xen01', 'xen02', 'xen03'])
    before = mocked_pool.frozen(world, plugin, row)

    def undo(op: typing.Callable[[str], object], host: str) -> list[str]:
        caller.done = []
        added = op == caller.delete_host
        caller.hosts = ['xen01', host] if added else ['xen01']
        plugin.undo_aggregate_operation(None, op, caller, host, set_error)
        return caller.done

    # a failed add whose host is no member, one whose host is one after all
    assert undo(caller.delete_host, 'xen03') == ['delete xen03']
    assert undo(caller.delete_host, 'xen02') == []
    # a failed remove whose host still is a member, one whose host has left
    assert undo(caller.add_host, 'xen02') == ['add xen02']
    assert undo(caller.add_host, 'xen03') == []
    # a caller that knows already
    caller.hosts = ['xen01', 'xen02']
    plugin.undo_aggregate_operation(None, caller.add_host, caller, 'xen02')
    plugin.undo_aggregate_operation(None, caller.delete_host, caller, 'xen03')
    assert caller.done == []
    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.calls() == []


def test_an_undo_that_fails_is_said(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 1)

    def delete_host(host: str) -> typing.NoReturn:
        raise RuntimeError('the conductor is gone')

    caller = Caller(row, ['xen01', 'xen02'])
    with pytest.raises(
        exceptions.AggregateError, match='undo for xen02.*conductor is gone'
    ):
        plugin.undo_aggregate_operation(None, delete_host, caller, 'xen02')


def test_ha_that_another_join_left_off_is_switched_on_by_the_heir(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.formed(world, plugin, 1)
    spoilers.protect(world['xen01'])
    die_at(dying, 'join', after=True)
    with pytest.raises(Died):
        dying.add_to_aggregate(None, row, 'xen02', suspend_ha=True)

    plugin.add_to_aggregate(None, row, 'xen03', suspend_ha=True)
    assert not world['xen01'].pool['ha_enabled']  # its worker may live
    world.clock.sleep(LEASE)
    plugin.recover_aggregate(None, row)

    assert world['xen01'].pool['ha_enabled']
    switches = [one for one in world.changes() if one.endswith('_ha')]
    assert switches == [
        'xen01 Async.pool.disable_ha',
        'xen01 Async.pool.enable_ha',
    ]


def test_a_pool_that_has_its_new_name_is_not_named_again(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
) -> None:
    row = mocked_pool.formed(world, plugin)
    naming = world['xen01'].api.pool.set_name_label
    naming.reset_mock()  # the set-up has named it
    store: typing.Any = dying.site.store
    store.finish = mock.Mock(side_effect=Died)
    with pytest.raises(Died):
        dying.rename_aggregate(None, row, 'rack9')
    world.clock.sleep(LEASE)

    [finding] = plugin.recover_aggregate(None, row).findings

    assert 'it is done' in finding.message
    assert world['xen01'].pool['name_label'] == 'rack9'
    assert naming.call_count == 1


def leave_domain(
    world: mocked_pool.World, master: str
) -> dict[str, typing.Any]:
    """Let a pool keep the control domain of a host that was forgotten."""
    vms: dict[str, typing.Any] = world[master].raw['VM']
    own = next(vm for vm in vms.values() if vm['is_control_domain'])
    vms['OpaqueRef:left'] = {
        **own,
        'uuid': 'left',
        'power_state': 'Halted',
        'resident_on': 'OpaqueRef:NULL',
    }
    return vms


@pytest.mark.parametrize('dead', [False, True])
def test_a_control_domain_that_is_left_over_is_destroyed_once(
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
    dying: driver.XenAPIPoolDriver,
    dead: bool,
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    vms = leave_domain(world, 'xen01')
    kept = vms.keys() - {'OpaqueRef:left'}
    if dead:
        die_at(dying, 'destroy domains')
        with pytest.raises(Died):
            dying.audit_aggregate(None, row, fix=True)
        world.clock.sleep(LEASE)
        plugin.recover_aggregate(None, row)
    else:
        plugin.audit_aggregate(None, row, fix=True)

    assert world.changes() == ['xen01 Async.VM.destroy']
    assert vms.keys() == kept
    last = mocked_pool.stories(plugin, row)[-1]
    assert last == ('destroy-domains', None, 'succeeded')
    assert row.metadata[pool_states.FAILED_REQUESTS] == '0'


def test_control_domains_of_a_pool_with_another_stamp_are_left_alone(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    row = mocked_pool.formed(world, plugin, 2)
    vms = leave_domain(world, 'xen01')
    spoilers.stamp(world, 'xen01')

    report = plugin.audit_aggregate(None, row, fix=True)

    assert world.changes() == []
    assert 'OpaqueRef:left' in vms
    told = [
        one for one in report.findings if 'were not destroyed' in one.message
    ]
    assert 'belongs to another aggregate' in told[0].message
