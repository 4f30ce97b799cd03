# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The domain's words become the right calls, once; tasks are followed."""

from __future__ import annotations

import collections.abc
import json
import pathlib
import typing
import xmlrpc.client
from unittest import mock

import pytest
import XenAPI

from tests import permits
from xenpool_driver import conf, exceptions, snapshot
from xenpool_driver.xapi import changes as xapi_changes
from xenpool_driver.xapi import client, connections, tasks

OTHER = 'OpaqueRef:other'


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []

    def time(self) -> float:
        """Return seconds since 1970."""
        return self.now

    def monotonic(self) -> float:
        """Return seconds."""
        return self.now

    def boottime(self) -> float:
        """Return seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let seconds pass."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def xapi() -> mock.MagicMock:
    """Stand for XenAPI.Session."""
    fake = mock.MagicMock(name='session')
    fake.handle = 'OpaqueRef:session'
    xapi = fake.xenapi
    xapi.pool.get_all.return_value = ['OpaqueRef:pool']
    xapi.host.get_by_uuid.return_value = OTHER
    xapi.VM.get_by_uuid.return_value = 'OpaqueRef:vm'
    xapi.SR.get_by_uuid.return_value = 'OpaqueRef:sr'
    return fake


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(xapi: mock.MagicMock, clock: Clock) -> client.Client:
    doors = connections.Connections(
        {'xen01': conf.HostAccess('xen01', 'https://192.0.2.1', 'root', 'pw')},
        clock,
        session_factory=lambda url, transport: xapi,
    )
    return doors.client('xen01')


@pytest.fixture
def changes(
    door: client.Client, xapi: mock.MagicMock, clock: Clock
) -> xapi_changes.PoolChanges:
    return permits.changing_pool(door, clock, lambda url, transport: xapi)


def task_record(status: str, **fields: typing.Any) -> dict[str, typing.Any]:
    return {'status': status, 'progress': 0.5, 'error_info': [], **fields}


def test_join_is_asynchronous_and_hands_the_password_over(
    changes: xapi_changes.PoolChanges, xapi: mock.MagicMock
) -> None:
    task = changes.join('192.0.2.9', 'admin', 'theirs')
    xapi.xenapi.Async.pool.join.assert_called_once_with(
        '192.0.2.9', 'admin', 'theirs'
    )
    assert task.ref == xapi.xenapi.Async.pool.join.return_value
    changes.join('192.0.2.9', 'admin', 'theirs', force=True)
    xapi.xenapi.Async.pool.join_force.assert_called_once_with(
        '192.0.2.9', 'admin', 'theirs'
    )


@pytest.mark.parametrize(
    ('verb', 'call'),
    [
        ('eject', 'Async.pool.eject'),
        ('designate', 'Async.pool.designate_new_master'),
        ('evacuate', 'Async.host.evacuate'),
        ('disable_host', 'Async.host.disable'),
        ('enable_host', 'Async.host.enable'),
        ('destroy_host', 'Async.host.destroy'),
    ],
)
def test_verbs_about_a_host_name_it_by_reference(
    changes: xapi_changes.PoolChanges,
    xapi: mock.MagicMock,
    verb: str,
    call: str,
) -> None:
    xapi.xenapi.task.get_record.return_value = task_record('success')
    getattr(changes, verb)('uuid-2')
    xapi.xenapi.host.get_by_uuid.assert_called_once_with('uuid-2')
    made = xapi.xenapi
    for part in call.split('.'):
        made = getattr(made, part)
    made.assert_called_once_with(OTHER)


def test_verbs_about_the_pool(
    changes: xapi_changes.PoolChanges, xapi: mock.MagicMock
) -> None:
    xapi.xenapi.task.get_record.return_value = task_record('success')
    changes.set_pool_name('blue')
    changes.add_pool_other_config('k', 'v')
    changes.remove_pool_other_config('k')
    changes.set_ha_tolerance(2)
    pool, ref = xapi.xenapi.pool, 'OpaqueRef:pool'
    pool.set_name_label.assert_called_once_with(ref, 'blue')
    pool.add_to_other_config.assert_called_once_with(ref, 'k', 'v')
    pool.remove_from_other_config.assert_called_once_with(ref, 'k')
    changes.recover_slaves()
    later = xapi.xenapi.Async.pool
    later.set_ha_host_failures_to_tolerate.assert_called_once_with(ref, '2')
    later.recover_slaves.assert_called_once_with()


def test_a_machine_is_destroyed_as_a_task(
    changes: xapi_changes.PoolChanges, xapi: mock.MagicMock
) -> None:
    xapi.xenapi.task.get_record.return_value = task_record('success')
    changes.destroy_vm('uuid-2')
    xapi.xenapi.VM.get_by_uuid.assert_called_once_with('uuid-2')
    xapi.xenapi.Async.VM.destroy.assert_called_once()


def test_taken_key_is_refused(
    changes: xapi_changes.PoolChanges, xapi: mock.MagicMock
) -> None:
    xapi.xenapi.pool.add_to_other_config.side_effect = XenAPI.Failure(
        ['MAP_DUPLICATE_KEY', 'pool', 'other_config', 'ref', 'k']
    )
    with pytest.raises(exceptions.XapiRefused) as caught:
        changes.add_pool_other_config('k', 'v')
    assert caught.value.code == 'MAP_DUPLICATE_KEY'


def test_long_calls_return_when_their_task_has_ended(
    changes: xapi_changes.PoolChanges, xapi: mock.MagicMock, clock: Clock
) -> None:
    statuses = xapi.xenapi.task.get_record
    calls: list[collections.abc.Callable[[], None]] = [
        lambda: changes.vm_shutdown('vm'),
        lambda: changes.vm_start('vm'),
        lambda: changes.vm_start('vm', 'uuid-2'),
        lambda: changes.enable_ha(['sr'], {'timeout': '60'}),
        changes.disable_ha,
    ]
    for call in calls:
        statuses.side_effect = [task_record('pending'), task_record('success')]
        call()
    assert clock.slept == [xapi_changes.POLL] * 5
    later = xapi.xenapi.Async
    later.VM.clean_shutdown.assert_called_once_with('OpaqueRef:vm')
    later.VM.start.assert_called_once_with('OpaqueRef:vm', False, False)
    later.VM.start_on.assert_called_once_with(
        'OpaqueRef:vm', OTHER, False, False
    )
    later.pool.enable_ha.assert_called_once_with(
        ['OpaqueRef:sr'], {'timeout': '60'}
    )
    later.pool.disable_ha.assert_called_once_with()


def test_long_calls_raise_what_their_task_failed_with(
    changes: xapi_changes.PoolChanges, xapi: mock.MagicMock
) -> None:
    xapi.xenapi.task.get_record.return_value = task_record(
        'failure', error_info=['VM_BAD_POWER_STATE', 'vm', 'running', 'halted']
    )
    with pytest.raises(exceptions.XapiRefused) as caught:
        changes.vm_shutdown('vm')
    assert caught.value.params == ('vm', 'running', 'halted')


def test_this_host(door: client.Client, xapi: mock.MagicMock) -> None:
    xapi.xenapi.session.get_this_host.return_value = 'OpaqueRef:me'
    xapi.xenapi.host.get_uuid.return_value = 'uuid-1'
    assert door.this_host() == ('OpaqueRef:me', 'uuid-1')
    xapi.xenapi.session.get_this_host.assert_called_once_with(
        'OpaqueRef:session'
    )


@pytest.mark.parametrize('gone', ['UUID_INVALID', 'HANDLE_INVALID'])
def test_host_that_left_is_none(
    door: client.Client, xapi: mock.MagicMock, gone: str
) -> None:
    xapi.xenapi.host.get_by_uuid.side_effect = XenAPI.Failure([gone, 'host'])
    assert door.host('uuid-2') is None


def test_who_cannot_be_read_is_not_gone(
    door: client.Client, xapi: mock.MagicMock
) -> None:
    xapi.xenapi.host.get_by_uuid.side_effect = XenAPI.Failure(
        ['RBAC_PERMISSION_DENIED']
    )
    with pytest.raises(exceptions.XapiRefused):
        door.host('uuid-2')


@pytest.fixture
def recorded(
    xapi: mock.MagicMock, recordings: pathlib.Path
) -> dict[str, dict[str, typing.Any]]:
    """Let the mock answer with the records of a real pool."""
    raw: dict[str, dict[str, typing.Any]] = json.loads(
        (recordings / 'pools' / 'three-host-pool.json').read_text()
    )
    for cls, table in raw.items():
        getattr(xapi.xenapi, cls).get_all_records.return_value = table
    xapi.xenapi.host.get_servertime.return_value = xmlrpc.client.DateTime(
        '20270115T08:00:07Z'
    )
    return raw


def test_hosts_show_whether_they_are_live(
    door: client.Client, recorded: dict[str, dict[str, typing.Any]]
) -> None:
    hosts = door.hosts()
    assert len(hosts) == len(recorded['host']) == 3
    for host in hosts:
        raw = recorded['host'][host.ref]
        metrics = recorded['host_metrics'][raw['metrics']]
        assert (host.uuid, host.address, host.enabled, host.live) == (
            raw['uuid'],
            raw['address'],
            raw['enabled'],
            metrics['live'],
        )


def test_one_host_shows_whether_it_is_live(
    door: client.Client,
    xapi: mock.MagicMock,
    recorded: dict[str, dict[str, typing.Any]],
) -> None:
    ref, raw = next(iter(recorded['host'].items()))
    xapi.xenapi.host.get_by_uuid.return_value = ref
    xapi.xenapi.host.get_record.return_value = raw
    xapi.xenapi.host_metrics.get_live.return_value = True
    found = door.host(raw['uuid'])
    assert found is not None
    assert (found.ref, found.live) == (ref, True)
    xapi.xenapi.host_metrics.get_live.side_effect = XenAPI.Failure(
        ['HANDLE_INVALID', 'host_metrics', 'x']
    )
    found = door.host(raw['uuid'])
    assert found is not None
    assert not found.live


def test_snapshot_takes_sixteen_calls_at_most(
    door: client.Client,
    xapi: mock.MagicMock,
    recorded: dict[str, dict[str, typing.Any]],
) -> None:
    found = door.snapshot()
    assert found.pool is not None
    assert set(found.read_classes) >= set(snapshot.LIVE_CLASSES)
    assert found.clock_offset == pytest.approx(7.0)
    calls = [
        str(call)
        for call in xapi.xenapi.mock_calls
        if not str(call).startswith('call.__')
    ]
    assert len(calls) <= 16


def test_class_that_is_refused_is_unreadable(
    door: client.Client,
    xapi: mock.MagicMock,
    recorded: dict[str, dict[str, typing.Any]],
) -> None:
    xapi.xenapi.SM.get_all_records.side_effect = XenAPI.Failure(
        ['RBAC_PERMISSION_DENIED', 'sm.get_all_records', 'no']
    )
    raw = door.records('pool', 'SM')
    assert list(raw) == ['pool']
    assert raw.unreadable == {
        'SM': 'RBAC_PERMISSION_DENIED sm.get_all_records no'
    }
    assert 'SM' in door.snapshot().unreadable


def test_what_nothing_refers_to_is_not_asked_for(
    door: client.Client,
    xapi: mock.MagicMock,
    recorded: dict[str, dict[str, typing.Any]],
) -> None:
    assert not recorded.get('Cluster_host')
    assert {'Cluster', 'pool_update'} <= door.snapshot().read_classes
    xapi.xenapi.Cluster.get_all_records.assert_not_called()
    xapi.xenapi.pool_update.get_all_records.assert_not_called()


def test_pool_that_changes_while_it_is_read_can_be_read_again(
    door: client.Client,
    xapi: mock.MagicMock,
    recorded: dict[str, dict[str, typing.Any]],
) -> None:
    xapi.xenapi.host.get_all_records.return_value = {}
    with pytest.raises(exceptions.XapiUnavailable, match='no sense'):
        door.snapshot()
    xapi.xenapi.pool.get_all_records.return_value = {}
    with pytest.raises(exceptions.XapiUnavailable, match='no pool'):
        door.pool()


def test_clock_that_cannot_be_read_is_unknown(
    door: client.Client,
    xapi: mock.MagicMock,
    recorded: dict[str, dict[str, typing.Any]],
) -> None:
    xapi.xenapi.host.get_servertime.side_effect = XenAPI.Failure(
        ['HOST_OFFLINE', 'x']
    )
    assert door.snapshot().clock_offset is None


def test_pending_calls_are_seen_under_either_name(
    door: client.Client, xapi: mock.MagicMock
) -> None:
    tables = xapi.xenapi.task.get_all_records
    done = {'status': 'success', 'name_label': 'Async.pool.eject'}
    tables.return_value = {'a': done}
    assert not client.pending(door, 'pool.eject')
    for label in ('Async.pool.eject', 'pool.eject'):
        tables.return_value = {
            'a': done,
            'b': {'status': 'pending', 'name_label': label},
        }
        assert client.pending(door, 'pool.join', 'pool.eject')
        assert not client.pending(door, 'pool.join')


def test_blockers_of_an_evacuation_are_read(
    door: client.Client, xapi: mock.MagicMock
) -> None:
    xapi.xenapi.host.get_vms_which_prevent_evacuation.return_value = {
        'OpaqueRef:vm': ['VM_REQUIRES_SR', 'OpaqueRef:vm', 'OpaqueRef:sr']
    }
    assert door.vms_preventing_evacuation('uuid-2') == {
        'OpaqueRef:vm': ('VM_REQUIRES_SR', 'OpaqueRef:vm', 'OpaqueRef:sr')
    }


def test_heartbeat_srs_are_those_of_the_state_files(
    door: client.Client,
    xapi: mock.MagicMock,
    recorded: dict[str, dict[str, typing.Any]],
) -> None:
    (pool,) = recorded['pool'].values()
    pool['ha_statefiles'] = ['OpaqueRef:vdi']
    xapi.xenapi.VDI.get_SR.return_value = 'OpaqueRef:sr'
    xapi.xenapi.SR.get_uuid.return_value = 'uuid-sr'
    assert door.ha_heartbeat_srs() == ['uuid-sr']


def test_local_client_makes_emergency_calls(xapi: mock.MagicMock) -> None:
    doors = connections.Connections(
        {'xen01': conf.HostAccess('xen01', 'https://192.0.2.1', 'root', 'pw')},
        session_factory=lambda url, transport: xapi,
    )
    local = doors.local_client('xen01')
    xapi.slave_local_login_with_password.assert_called_once_with('root', 'pw')
    xapi.xenapi.host.is_in_emergency_mode.return_value = True
    assert local.is_in_emergency_mode()
    permit = permits.Permit()
    changes = doors.logins(permit).host(local)
    changes.emergency_transition_to_master()
    changes.emergency_reset_master('192.0.2.9')
    assert permit.logins == [('xen01', '192.0.2.1', '')]
    pool = xapi.xenapi.pool
    pool.emergency_transition_to_master.assert_called_once_with()
    pool.emergency_reset_master.assert_called_once_with('192.0.2.9')
    xapi.xenapi.host.local_assert_healthy.side_effect = XenAPI.Failure(
        ['HOST_STILL_BOOTING']
    )
    with pytest.raises(exceptions.XapiUnavailable):
        local.assert_healthy()


# Tasks


@pytest.fixture
def task(changes: xapi_changes.PoolChanges) -> client.Task:
    return changes.eject('uuid-2')


@pytest.mark.parametrize(
    ('status', 'state'),
    [
        ('pending', tasks.TaskState.PENDING),
        ('cancelling', tasks.TaskState.PENDING),
        ('success', tasks.TaskState.SUCCESS),
        ('failure', tasks.TaskState.FAILURE),
        ('cancelled', tasks.TaskState.CANCELLED),
        ('whatever', tasks.TaskState.LOST),
    ],
)
def test_task_states(
    task: client.Task,
    xapi: mock.MagicMock,
    status: str,
    state: tasks.TaskState,
) -> None:
    xapi.xenapi.task.get_record.return_value = task_record(status)
    assert task.status().state is state


@pytest.mark.parametrize(
    'error',
    [
        XenAPI.Failure(['SESSION_INVALID', 'x']),
        XenAPI.Failure(['HANDLE_INVALID', 'task', 'x']),
        XenAPI.Failure(['HOST_IS_SLAVE', '192.0.2.9']),
        XenAPI.Failure(['HOST_STILL_BOOTING']),
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=str,
)
def test_task_that_cannot_be_seen_is_lost(
    task: client.Task, xapi: mock.MagicMock, clock: Clock, error: Exception
) -> None:
    xapi.xenapi.task.get_record.side_effect = error
    status = task.status()
    assert status.state is tasks.TaskState.LOST
    assert status.reason
    with pytest.raises(exceptions.XapiOutcomeUnknown, match='seen'):
        client.wait(task, clock, 60, 1)


def test_refused_look_at_a_task_proves_nothing(
    task: client.Task, xapi: mock.MagicMock
) -> None:
    xapi.xenapi.task.get_record.side_effect = XenAPI.Failure(
        ['RBAC_PERMISSION_DENIED']
    )
    status = task.status()
    assert status.state is tasks.TaskState.LOST
    assert 'RBAC_PERMISSION_DENIED' in status.reason


def test_waiting_tells_progress_and_ends_with_the_task(
    task: client.Task, xapi: mock.MagicMock, clock: Clock
) -> None:
    xapi.xenapi.task.get_record.side_effect = [
        task_record('pending', progress=0.0),
        task_record('pending', progress=0.25),
        task_record('success', progress=1.0),
    ]
    heard: list[float] = []
    status = client.wait(task, clock, 60, 2, heard.append)
    assert status.state is tasks.TaskState.SUCCESS
    xapi.xenapi.task.destroy.assert_called_once_with(task.ref)
    assert heard == [0.0, 0.25, 1.0]
    assert clock.slept == [2, 2]


def test_waiting_ends_when_time_is_over(
    task: client.Task, xapi: mock.MagicMock, clock: Clock
) -> None:
    xapi.xenapi.task.get_record.return_value = task_record('pending')
    with pytest.raises(exceptions.XapiOutcomeUnknown, match='after 5 s'):
        client.wait(task, clock, 5, 2)
    assert clock.slept == [2, 2, 1]
    xapi.xenapi.task.destroy.assert_not_called()


@pytest.mark.parametrize(
    ('record', 'kind'),
    [
        (
            task_record('failure', error_info=['HA_IS_ENABLED']),
            exceptions.XapiRefused,
        ),
        (
            task_record('failure', error_info=['INTERNAL_ERROR', 'boom']),
            exceptions.XapiOutcomeUnknown,
        ),
        (
            task_record('failure', error_info=['HOST_IS_SLAVE', '192.0.2.9']),
            exceptions.NotPoolMaster,
        ),
        (task_record('cancelled'), exceptions.XapiOutcomeUnknown),
    ],
)
def test_waiting_raises_what_the_task_failed_with(
    task: client.Task,
    xapi: mock.MagicMock,
    clock: Clock,
    record: dict[str, typing.Any],
    kind: type[Exception],
) -> None:
    xapi.xenapi.task.get_record.return_value = record
    with pytest.raises(kind):
        client.wait(task, clock, 60, 1)
    xapi.xenapi.task.destroy.assert_called_once_with(task.ref)


def test_tasks_are_destroyed_if_that_can_be(
    task: client.Task, xapi: mock.MagicMock
) -> None:
    task.cancel()
    task.destroy()
    xapi.xenapi.task.cancel.assert_called_once_with(task.ref)
    xapi.xenapi.task.destroy.side_effect = ConnectionResetError()
    task.destroy()
    assert xapi.xenapi.task.destroy.call_count == 2
