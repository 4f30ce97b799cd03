# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The defects of Nova's resource pools, which must not come back.

Nova's XenAPI driver (``nova/virt/xenapi/pool.py``, up to release 21) and what
surrounded it had the defects that are numbered here; each has a test of its
own, below, unless it cannot apply:

== ==================================== =====================================
10 ``independent_compute`` was not      There is no such option. A service
   checked on removal                   need not run on the host it owns.
20 A request was answered before its    The driver returns when the outcome
   outcome was known; placement and     is known, and raises otherwise. It
   zone caches were not undone          knows no placement. (Its undo does
                                        have tests below.)
26 No test made any XAPI call           These tests do, on mocks; those in
                                        ``tests/functional`` on sockets.
== ==================================== =====================================

Where the defect needs Nova's own sequence of calls, an imitation of its API
and manager makes them (:mod:`tests.functional.nova`).
"""

from __future__ import annotations

import collections.abc
import json
import logging
import pathlib
import traceback
import typing

import pytest

from tests.functional import nova
from tests.unit import mocked_pool, raw_pools, spoilers
from xenpool_driver import driver, exceptions, model, pool_states, requests

FLAGS = {
    pool_states.POOL_FLAG: 'true',
    pool_states.STATE: pool_states.CREATED,
}


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


@pytest.fixture
def service(plugin: driver.XenAPIPoolDriver) -> nova.Service:
    """A compute service of Nova's shape."""
    return nova.Service(plugin)


def formed(service: nova.Service, hosts: int) -> str:
    """Return an aggregate of Nova's with the first so many hosts."""
    ident = service.create('rack1', FLAGS)
    for number in range(hosts):
        service.add_host(ident, f"xen0{number + 1}")
        assert service.handle() == []
    return ident


class Forwarder:
    """The way to other services: hands on what Nova's RPC would carry."""

    def __init__(self) -> None:
        self.plugin: driver.XenAPIPoolDriver | None = None
        self.sent: list[typing.Any] = []

    def forward_add(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        master: str,
        slave_info: typing.Mapping[str, str],
        options: requests.AddHost,
    ) -> None:
        """Have the master's service act."""
        self.sent.append((host, master, dict(slave_info)))
        assert self.plugin is not None
        self.plugin.add_to_aggregate(
            context,
            aggregate,
            host,
            slave_info=slave_info,
            **requests.pack(options),
        )


@pytest.mark.parametrize('fails', [False, True])
def test_01_forwarding_names_the_joiner_and_reaches_the_master(
    world: mocked_pool.World, tmp_path: pathlib.Path, fails: bool
) -> None:
    """Defect 1: a forwarded request went back to the joiner's own queue."""
    virtapi = Forwarder()
    spoilers.run_guest(world, 'xen02')
    guest = {'xen02': 'compute_vm_uuid = guest'}
    mine = world.driver(tmp_path, virtapi, guest)
    masters = virtapi.plugin = world.driver(tmp_path, None, guest)
    row = mocked_pool.formed(world, mine, 1)
    if fails:
        world.failing['Async.pool.join'] = ['HOSTS_NOT_HOMOGENEOUS', 'x']

    try:
        mine.add_to_aggregate(None, row, 'xen02')
    except exceptions.AggregateError:
        assert fails

    [(host, master, slave_info)] = virtapi.sent
    assert (host, master) == ('xen02', 'xen01')
    assert slave_info == {
        'host': 'xen02',
        'host_uuid': world['xen02'].uuid,
        'compute_vm_uuid': 'guest',
    }
    assert world.changes()[:2] == [
        'xen02 Async.VM.clean_shutdown',
        'xen02 Async.pool.join',
    ]
    assert world.changes()[2:] == (
        ['xen02 Async.VM.start']
        if fails
        else ['xen01 Async.VM.start', mocked_pool.SPREAD]
    )
    row.refresh()
    assert row.hosts == (['xen01'] if fails else ['xen01', 'xen02'])
    for each in (mine, masters):
        each.close()


def test_02_the_master_of_two_hosts_is_not_removed(
    service: nova.Service, world: mocked_pool.World
) -> None:
    """Defect 2: the guard counted hosts when the API had taken one out."""
    ident = formed(service, 2)
    world.forget_calls()

    service.remove_host(ident, 'xen01')
    [error] = service.handle()

    assert isinstance(error, exceptions.InvalidAggregateActionDelete)
    row = service.read(ident)
    assert sorted(row.hosts) == ['xen01', 'xen02']
    assert row.metadata[pool_states.MASTER] == 'xen01'
    assert world.changes() == []


def test_03_a_stale_copy_does_not_open_changing_again(
    service: nova.Service,
) -> None:
    """Defect 3: an add cast before another had ended wrote ``changing``."""
    ident = service.create('rack1', FLAGS)
    service.add_host(ident, 'xen01')
    service.add_host(ident, 'xen02')
    assert service.casts[1].aggregate.metadata == FLAGS

    assert service.handle() == []

    row = service.read(ident)
    assert row.metadata[pool_states.STATE] == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == 'xen01'
    service.remove_host(ident, 'xen02')
    service.handle()
    assert service.read(ident).hosts == ['xen01']


def test_04_two_first_hosts_do_not_make_two_masters(
    service: nova.Service, world: mocked_pool.World
) -> None:
    """Defect 4: two copies that each listed one host made two masters."""
    ident = service.create('rack1', FLAGS)
    stale = service.read(ident)
    service.add_host(ident, 'xen01')
    stale.hosts = ['xen02']
    service.rows[ident].hosts.append('xen02')
    service.casts.append(nova.Cast('add', stale, 'xen02'))

    assert service.handle() == []

    assert service.read(ident).metadata[pool_states.MASTER] == 'xen01'
    stamped = [
        host.name
        for host in world.hosts
        if host.master is host
        and pool_states.OWNER_KEY in host.pool['other_config']
    ]
    assert stamped == ['xen01']
    assert world['xen02'].master.name == 'xen01'


@pytest.mark.parametrize('state', [pool_states.ERROR, pool_states.CHANGING])
def test_05_a_refused_add_leaves_no_host_behind(
    service: nova.Service, plugin: driver.XenAPIPoolDriver, state: str
) -> None:
    """Defect 5: the manager took back what failed, not what was refused."""
    ident = formed(service, 1)
    plugin.site.store.get_aggregate(ident).update_metadata(
        {pool_states.STATE: state}
    )

    service.add_host(ident, 'xen02')
    [error] = service.handle()

    assert isinstance(error, exceptions.InvalidAggregateActionAdd)
    assert service.read(ident).hosts == ['xen01']


def test_06_one_failure_is_no_error_yet(
    service: nova.Service, world: mocked_pool.World
) -> None:
    """Defect 6: nobody counted; the first failure was the last."""
    ident = formed(service, 1)
    world.failing['Async.pool.join'] = ['HOSTS_NOT_HOMOGENEOUS', 'x']

    seen = []
    for _ in range(3):
        service.add_host(ident, 'xen02')
        service.handle()
        metadata = service.read(ident).metadata
        seen.append(
            (
                metadata[pool_states.STATE],
                metadata[pool_states.FAILED_REQUESTS],
            )
        )

    assert seen == [('active', '1'), ('active', '2'), ('error', '3')]


@pytest.mark.parametrize('joins', [False, True])
def test_07_a_broken_connection_is_an_outcome_like_any_other(
    service: nova.Service, world: mocked_pool.World, joins: bool
) -> None:
    """Defect 7: what was no XenAPI.Failure passed through, pool unknown."""
    ident = formed(service, 1)
    if joins:
        world.lose_answer('xen02', 'Async.pool.join')
    else:
        joining = world['xen02'].api.Async.pool.join
        joining.side_effect = ConnectionResetError(104, 'reset')

    service.add_host(ident, 'xen02')
    raised = service.handle()

    row = service.read(ident)
    if joins:
        assert raised == []
        assert row.hosts == ['xen01', 'xen02']
        assert row.metadata['xen02'] == world['xen02'].uuid
    else:
        assert [type(error) for error in raised] == [exceptions.AggregateError]
        assert row.hosts == ['xen01']
        assert 'xen02' not in row.metadata


def test_08_the_password_is_told_to_nobody_but_xapi(
    world: mocked_pool.World,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Defect 8: a failed join put it on the bus, in clear text."""
    caplog.set_level(logging.DEBUG)
    virtapi = Forwarder()
    guest = {'xen02': 'compute_vm_uuid = guest'}
    spoilers.run_guest(world, 'xen02')
    mine = world.driver(tmp_path, virtapi, guest)
    virtapi.plugin = mine
    row = mocked_pool.formed(world, mine, 1)
    world['xen02'].api.Async.pool.join.side_effect = mocked_pool.failure(
        'INTERNAL_ERROR', f"join(root, {mocked_pool.PASSWORD})"
    )

    with pytest.raises(exceptions.AggregateError) as caught:
        mine.add_to_aggregate(None, row, 'xen02')

    joined = world['xen02'].api.Async.pool.join.call_args
    assert mocked_pool.PASSWORD in joined.args
    journal = mine.site.store.list_operations(row.uuid)
    written = [
        repr(virtapi.sent),
        caplog.text,
        ''.join(traceback.format_exception(caught.value)),
        json.dumps(row.metadata),
        repr(journal),
        repr([mine.site.store.phases(each.uuid) for each in journal]),
        repr(mine.site),
    ]
    for text in written:
        assert mocked_pool.PASSWORD not in text
    mine.close()


@pytest.mark.parametrize('lacks', [pool_states.STATE, pool_states.MASTER])
def test_09_missing_keys_have_a_meaning(
    plugin: driver.XenAPIPoolDriver, lacks: str
) -> None:
    """Defect 9: no state or no master key raised KeyError."""
    metadata = {**FLAGS, pool_states.STATE: pool_states.ACTIVE}
    metadata.pop(lacks, None)
    row = plugin.site.store.create_aggregate('rack1', metadata)
    if lacks == pool_states.STATE:
        with pytest.raises(
            exceptions.InvalidAggregateActionDelete, match='no hosts'
        ):
            plugin.remove_from_aggregate(None, row, 'xen01')

    plugin.add_to_aggregate(None, row, 'xen01')

    assert row.state == pool_states.ACTIVE
    assert row.metadata[pool_states.MASTER] == 'xen01'


def test_09_an_unknown_state_is_not_usable(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 9, too: any word that was not known counted as active."""
    row = mocked_pool.formed(world, plugin, 1)
    row.update_metadata({pool_states.STATE: 'splendid'})
    before = mocked_pool.frozen(world, plugin, row)

    requests: list[typing.Callable[[], object]] = [
        lambda: plugin.add_to_aggregate(None, row, 'xen02'),
        lambda: plugin.remove_from_aggregate(None, row, 'xen01'),
        lambda: plugin.set_aggregate_master(None, row, 'xen01'),
        lambda: plugin.dismiss_aggregate(None, row),
    ]
    for request in requests:
        with pytest.raises(exceptions.ConfigurationError, match='splendid'):
            request()

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_11_no_machine_without_a_uuid_is_looked_for(
    service: nova.Service, world: mocked_pool.World
) -> None:
    """Defect 11: without slave_info a guest called None was shut down."""
    service.driver.site.conf.set_override(  # type: ignore[attr-defined]
        'allow_data_loss', True, group='xenpool'
    )
    ident = formed(service, 2)
    world.forget_calls()

    service.remove_host(ident, 'xen02')
    assert service.handle() == []

    assert world.changes() == ['xen01 Async.pool.eject']
    for host in world.hosts:
        host.api.VM.get_by_uuid.assert_not_called()


def test_12_created_and_dismissed_are_written_by_the_driver(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 12: the operator wrote the one state, nobody the other."""
    row = plugin.site.store.create_aggregate(
        'rack1', {pool_states.POOL_FLAG: ''}
    )
    assert row.state == pool_states.CREATED
    plugin.add_to_aggregate(None, row, 'xen01')
    plugin.remove_from_aggregate(None, row, 'xen01')
    plugin.dismiss_aggregate(None, row)
    assert row.metadata[pool_states.STATE] == pool_states.DISMISSED


def test_13_joins_and_ejects_exclude_each_other(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 13: on an active pool everything ran at the same time."""
    row = mocked_pool.formed(world, plugin, 2)
    joining = world['xen03'].api.Async.pool.join
    joins = joining.side_effect
    refused: list[str] = []

    def meddle(*args: typing.Any) -> object:
        requests: list[typing.Callable[[], object]] = [
            lambda: plugin.remove_from_aggregate(None, row, 'xen02'),
            lambda: plugin.set_aggregate_master(None, row, 'xen02'),
            lambda: plugin.add_to_aggregate(None, row, 'xen03'),
        ]
        for request in requests:
            with pytest.raises(
                exceptions.InvalidAggregateAction, match='join of xen03'
            ):
                request()
            refused.append('join of xen03')
        return joins(*args)

    joining.side_effect = meddle

    plugin.add_to_aggregate(None, row, 'xen03')

    assert len(refused) == 3
    assert row.hosts == ['xen01', 'xen02', 'xen03']
    assert world.changes() == ['xen03 Async.pool.join', mocked_pool.SPREAD]


def test_14_a_crash_does_not_leave_changing_behind(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 14: nothing ended a set-up whose worker had died."""

    class Died(BaseException):
        pass

    row = mocked_pool.aggregate(plugin)
    naming = world['xen01'].api.pool.set_name_label
    names = naming.side_effect
    naming.side_effect = Died
    with pytest.raises(Died):
        plugin.add_to_aggregate(None, row, 'xen01')
    row.refresh()
    assert row.state == pool_states.CHANGING
    naming.side_effect = names
    world.clock.sleep(61)

    plugin.init_host('xen01')

    row.refresh()
    assert row.state == pool_states.ACTIVE


def test_15_nobody_talks_an_aggregate_out_of_error(
    service: nova.Service, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 15: a call of set_metadata made an error active again."""
    ident = formed(service, 1)
    plugin.site.store.get_aggregate(ident).update_metadata(
        {pool_states.STATE: pool_states.ERROR}
    )
    service.rows[ident].update_metadata(
        {pool_states.STATE: pool_states.ACTIVE}
    )

    service.add_host(ident, 'xen02')
    [error] = service.handle()

    assert 'aggregate in error' in str(error)
    assert service.read(ident).metadata[pool_states.STATE] == 'error'
    service.remove_host(ident, 'xen01')
    assert service.handle() == []
    row = service.read(ident)
    assert (row.hosts, row.metadata[pool_states.STATE]) == ([], 'error')


def test_16_an_active_pool_without_master_takes_the_next_host(
    service: nova.Service, world: mocked_pool.World
) -> None:
    """Defect 16: a state that was described nowhere, and a KeyError."""
    ident = formed(service, 1)
    service.remove_host(ident, 'xen01')
    service.add_host(ident, 'xen02')

    assert service.handle() == []

    metadata = service.read(ident).metadata
    assert metadata[pool_states.MASTER] == 'xen02'
    assert metadata['xen02'] == world['xen02'].uuid
    assert 'xen01' not in metadata


def test_17_no_pool_but_the_hosts_own_is_named(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 17: after a redirect another pool got the name."""
    spoilers.pool_of_three(world)
    row = mocked_pool.aggregate(plugin)
    before = mocked_pool.frozen(world, plugin, row)

    for host in ('xen02', 'xen01'):
        with pytest.raises(exceptions.InvalidAggregateActionAdd):
            plugin.add_to_aggregate(None, row, host)

    assert mocked_pool.frozen(world, plugin, row) == before
    assert world.changes() == []


def test_18_a_master_that_has_moved_is_noticed(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 18: after a failover the metadata named the old one."""
    row = mocked_pool.formed(world, plugin)
    world['xen01'].api.Async.pool.designate_new_master(world['xen02'].ref)
    world.clock.sleep(mocked_pool.FUSE)

    report = plugin.audit_aggregate(None, row)
    assert any(finding.check == 'master' for finding in report.failures)
    plugin.audit_aggregate(None, row, fix=True)

    assert row.metadata[pool_states.MASTER] == 'xen02'
    plugin.set_aggregate_master(None, row, 'xen03')
    assert row.metadata[pool_states.MASTER] == 'xen03'


def test_19_the_dead_block_nothing(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 19: a dead member stayed for ever, a dead master ruled."""
    row = mocked_pool.formed(world, plugin)
    world['xen01'].die()

    plugin.recover_aggregate(None, row, promote='xen02')
    plugin.remove_from_aggregate(None, row, 'xen01', forget=True)

    assert row.hosts == ['xen02', 'xen03']
    assert row.metadata[pool_states.MASTER] == 'xen02'


def test_20_an_undo_that_fails_is_not_swallowed(
    service: nova.Service, world: mocked_pool.World
) -> None:
    """Defect 20, its second half: failures of an undo were only logged."""
    ident = formed(service, 1)
    world.failing['Async.pool.join'] = ['HOSTS_NOT_HOMOGENEOUS', 'x']
    service.add_host(ident, 'xen02')
    service.rows[ident].hosts.remove('xen02')  # so that the undo conflicts

    [error] = service.handle()

    assert isinstance(error, exceptions.AggregateError)
    assert 'undo for xen02' in str(error)


def test_21_a_late_flag_a_new_name_and_a_second_aggregate(
    service: nova.Service,
    world: mocked_pool.World,
    plugin: driver.XenAPIPoolDriver,
) -> None:
    """Defect 21: each of the three left aggregate and pool at odds."""
    ident = service.create('late', {})
    service.add_host(ident, 'xen01')
    assert service.handle() == []
    service.rows[ident].update_metadata({pool_states.POOL_FLAG: '1'})
    service.add_host(ident, 'xen02')
    assert service.handle() == []
    assert service.read(ident).metadata[pool_states.MASTER] == 'xen02'
    assert 'xen01' not in service.read(ident).metadata

    plugin.rename_aggregate(None, service.read(ident), 'punctual')
    assert world['xen02'].pool['name_label'] == 'punctual'

    other = service.create('other', FLAGS)
    service.add_host(other, 'xen02')
    [error] = service.handle()
    assert 'already' in str(error)
    assert service.read(other).hosts == []


def test_22_cpus_are_compared_and_nothing_is_forced(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 22: join_force was the default, prechecks were none."""
    row = mocked_pool.formed(world, plugin, 1)
    plugin.add_to_aggregate(None, row, 'xen02')
    assert world.changes() == ['xen02 Async.pool.join', mocked_pool.SPREAD]
    world['xen03'].record['cpu_info']['vendor'] = 'Transmeta'

    with pytest.raises(
        exceptions.InvalidAggregateActionAdd, match='Transmeta'
    ):
        plugin.add_to_aggregate(None, row, 'xen03')

    assert world.changes() == ['xen02 Async.pool.join', mocked_pool.SPREAD]


def test_23_no_disk_is_wiped_unasked_and_the_end_is_awaited(
    world: mocked_pool.World, plugin: driver.XenAPIPoolDriver
) -> None:
    """Defect 23: an eject wiped the disks and was done when it began."""
    row = mocked_pool.formed(world, plugin, 2)
    two = world['xen02']
    local = raw_pools.add_sr(two.raw, 'local', [two.ref])
    raw_pools.add(
        two.raw,
        'VDI',
        'data',
        SR=local,
        name_label='data',
        managed=True,
    )
    with pytest.raises(exceptions.InvalidAggregateActionDelete, match='local'):
        plugin.remove_from_aggregate(None, row, 'xen02')
    assert world.changes() == []

    ejecting = world['xen01'].api.Async.pool.eject
    ejects = ejecting.side_effect

    def slowly(ref: str) -> str:
        task = f"OpaqueRef:{ref}"
        world['xen01'].raw['task'][task] = {
            'uuid': 'slow',
            'name_label': 'Async.pool.eject',
            'status': 'pending',
            'progress': 0.5,
            'error_info': [],
        }

        def end() -> None:
            world['xen01'].raw['task'][task]['status'] = 'success'
            ejects(ref)

        world.clock.later(30, end)
        return task

    ejecting.side_effect = slowly
    began = world.clock.now
    plugin.remove_from_aggregate(None, row, 'xen02', allow_data_loss=True)

    assert world.clock.now - began >= 30
    assert row.hosts == ['xen01']


def test_24_metadata_that_cannot_be_written_loses_no_uuid(
    service: nova.Service, world: mocked_pool.World
) -> None:
    """Defect 24: a joined host without its uuid could not be ejected."""
    ident = formed(service, 1)
    service.add_host(ident, 'xen02')
    [cast] = service.casts

    def fail(metadata: object) -> typing.NoReturn:
        raise RuntimeError('the conductor is gone')

    setattr(cast.aggregate, 'update_metadata', fail)  # noqa: B010

    [error] = service.handle()

    assert isinstance(error, exceptions.AggregateError)
    assert 'the conductor is gone' in str(error)
    row = service.read(ident)
    assert row.hosts == ['xen01', 'xen02']  # as in the pool: not undone
    assert 'xen02' not in row.metadata
    service.remove_host(ident, 'xen02')
    assert service.handle() == []
    assert service.read(ident).hosts == ['xen01']
    assert world['xen01'].api.Async.pool.eject.call_count == 1


@pytest.mark.parametrize('name', sorted(pool_states.RESERVED_KEYS))
def test_25_no_host_is_called_like_a_key(
    world: mocked_pool.World, tmp_path: pathlib.Path, name: str
) -> None:
    """Defect 25: a host's key could overwrite master or state."""
    world['xen03'].name = name

    with pytest.raises(exceptions.ConfigurationError, match=f"'{name}'"):
        world.driver(tmp_path)
