# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Every option of every request arrives: over the bus, and forwarded."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import pathlib
import typing

import pytest

from tests.unit import mocked_pool, spoilers
from xenpool_driver import base, driver, exceptions, model, requests
from xenpool_driver.compute import manager, virtapi

paper_bus = pytest.importorskip(
    'tests.unit.paper_bus', reason='needs the extra [service]'
)

METHODS: dict[type[requests.Options], tuple[str, str]] = {
    requests.AddHost: ('add_hosts', 'add_to_aggregate'),
    requests.RemoveHost: ('remove_host', 'remove_from_aggregate'),
    requests.SetMaster: ('set_master', 'set_aggregate_master'),
    requests.CheckHosts: ('check_hosts', 'check_hosts'),
    requests.Audit: ('audit', 'audit_aggregate'),
    requests.Recover: ('recover', 'recover_aggregate'),
}
"""{options: (the front door's method, the driver's method)}."""

PLAIN = {
    type(each): each
    for each in vars(requests).values()
    if dataclasses.is_dataclass(each) and not isinstance(each, type)
}
"""{options: what asks for nothing special}."""

NAMES = {
    name
    for kind in METHODS
    for name in ('self', 'context', 'aggregate', 'host', 'hosts', 'ident')
} | {'progress', 'slave_info'}
"""Parameters that are no options."""

EACH = [
    (kind, field.name)
    for kind in METHODS
    for field in dataclasses.fields(kind)
]


def unusual(kind: type[requests.Options], name: str, host: str) -> typing.Any:
    """Return a value of an option that is not its usual one."""
    return host if getattr(PLAIN[kind], name) is None else True


@pytest.fixture(scope='module')
def stage(
    tmp_path_factory: pytest.TempPathFactory,
) -> collections.abc.Iterator[typing.Any]:
    directory = tmp_path_factory.mktemp('options')
    conf = paper_bus.configuration(directory, paper_bus.host_names())
    with paper_bus.running(conf) as running:
        running.api.create('prod')
        running.api.add_hosts(paper_bus.context(), 'prod', running.hosts)
        yield running


def test_every_kind_of_options_has_its_methods() -> None:
    assert set(METHODS) == set(PLAIN) == set(typing.get_args(requests.Options))


@pytest.mark.parametrize('kind', METHODS)
def test_every_layer_has_exactly_these_options(
    kind: type[requests.Options],
) -> None:
    from xenpool_driver.compute import aggregates

    front, back = METHODS[kind]
    options = {field.name for field in dataclasses.fields(kind)}
    for owner, name in (
        (aggregates.AggregateAPI, front),
        (base.PoolDriver, back),
        (driver.XenAPIPoolDriver, back),
    ):
        parameters = set(inspect.signature(getattr(owner, name)).parameters)
        found = parameters - NAMES
        assert found in (options, {'options'}), (owner, name)


@pytest.mark.parametrize(('kind', 'name'), EACH)
def test_every_option_arrives_over_the_bus(
    stage: typing.Any, kind: type[requests.Options], name: str
) -> None:
    front, back = METHODS[kind]
    host = stage.hosts[0]
    aggregate = stage.api.get('prod')
    if kind is requests.RemoveHost:
        stage.driver.trouble['remove_from_aggregate'] = (
            exceptions.InvalidAggregateActionDelete('prod', 'stays')
        )
    whom = {
        requests.AddHost: [[host]],
        requests.CheckHosts: [[host]],
        requests.RemoveHost: [host],
        requests.SetMaster: [host],
    }.get(kind, [])
    value = unusual(kind, name, host)
    asked: dict[str, typing.Any] = {name: value}
    if 'options' in inspect.signature(getattr(stage.api, front)).parameters:
        asked = {'options': dataclasses.replace(PLAIN[kind], **asked)}
    del stage.driver.calls[:]

    try:
        getattr(stage.api, front)(
            paper_bus.context(), aggregate.uuid, *whom, **asked
        )
    except exceptions.InvalidAggregateActionDelete:
        assert kind is requests.RemoveHost

    found = [call for call in stage.driver.calls if call[0] == back]
    [(_, _, options)] = found
    arrived = {key: options[key] for key in options if key not in NAMES}
    assert arrived == {**requests.pack(PLAIN[kind]), name: value}


class MastersService:
    """The way to the service of the master, which runs the plug-in, too."""

    def __init__(self) -> None:
        self.compute: manager.ComputeManager | None = None
        self.arrived: list[requests.AddHost] = []

    def add_aggregate_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.AddHost,
        slave_info: base.SlaveInfo | None = None,
        *,
        server: str | None = None,
    ) -> None:
        """Have the master's service make the join."""
        assert server == 'xen01'
        assert self.compute is not None
        self.arrived.append(options)
        self.compute.add_aggregate_host(
            context, aggregate, host, options, slave_info
        )


@pytest.mark.parametrize(
    'name', [field.name for field in dataclasses.fields(requests.AddHost)]
)
def test_every_option_of_a_forwarded_join_is_carried_out(
    tmp_path: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = mocked_pool.World()
    spoilers.run_guest(world, 'xen02')
    guest = {'xen02': 'compute_vm_uuid = guest'}
    remote = MastersService()
    mine = world.driver(tmp_path, virtapi.ComputeVirtAPI(remote), guest)
    masters = world.driver(tmp_path, None, guest)
    remote.compute = manager.ComputeManager({'xen01': masters})
    row = mocked_pool.formed(world, mine, 1)
    joins: list[dict[str, typing.Any]] = []
    verb = driver.verbs.Join

    def join(*arguments: typing.Any, **options: typing.Any) -> verb:
        joins.append(options)
        return verb(*arguments, **options)

    monkeypatch.setattr(driver.verbs, 'Join', join)
    asked = {**requests.pack(requests.ADD_HOST), name: True}

    mine.add_to_aggregate(None, row, 'xen02', **asked)

    assert [requests.pack(each) for each in remote.arrived] == [asked]
    assert joins == [asked]
    forced = world['xen02'].api.Async.pool.join_force.called
    assert forced == (name == 'force')
    row.refresh()
    assert row.hosts == ['xen01', 'xen02']
    for each in (mine, masters):
        each.close()


def test_an_option_that_is_not_known_is_refused() -> None:
    with pytest.raises(exceptions.ServiceError, match="option 'gently'"):
        requests.unpack(requests.ADD_HOST, {'gently': True})


def test_an_option_that_an_older_release_lacks_is_not_asked_for() -> None:
    assert requests.unpack(requests.ADD_HOST, {'force': True}) == (
        dataclasses.replace(requests.ADD_HOST, force=True)
    )
