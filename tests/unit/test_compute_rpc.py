# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Requests over the bus: what arrives, what comes back, what never travels.

The bus is oslo.messaging's ``fake://``, which lives in this process.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import subprocess
import sys
import typing

import pytest

from tests import paper_driver
from xenpool_driver import exceptions, requests, store

rpcapi = pytest.importorskip(
    'xenpool_driver.compute.rpcapi',
    reason='needs the extra [service]',
)

from oslo_config import cfg  # noqa: E402

from tests.unit import paper_bus  # noqa: E402
from xenpool_driver.compute import (  # noqa: E402
    aggregates,
    broker,
    bus,
    service,
    virtapi,
)

SECRET = paper_bus.SECRET
context = paper_bus.context
FORCED = dataclasses.replace(requests.ADD_HOST, force=True)


@pytest.fixture
def hosts() -> list[str]:
    return paper_bus.host_names()


@pytest.fixture
def conf(tmp_path: pathlib.Path, hosts: list[str]) -> cfg.ConfigOpts:
    return paper_bus.configuration(tmp_path, hosts)


@pytest.fixture
def stage(
    conf: cfg.ConfigOpts,
) -> collections.abc.Iterator[paper_bus.Stage]:
    with paper_bus.running(conf) as running:
        yield running


def test_a_service_starts_with_each_of_its_hosts(
    stage: paper_bus.Stage, hosts: list[str]
) -> None:
    assert [call[:2] for call in stage.driver.calls] == [
        ('init_host', host) for host in hosts
    ]


def test_the_whole_life_over_the_bus(
    stage: paper_bus.Stage, hosts: list[str]
) -> None:
    stage.api.create('prod')

    results = stage.api.add_hosts(context(), 'prod', hosts, force=True)
    assert [each.outcome for each in results] == ['succeeded', 'succeeded']
    assert stage.api.get('prod').hosts == hosts

    stage.api.set_master(context(), 'prod', hosts[1])
    assert stage.api.get('prod').metadata['master_compute'] == hosts[1]

    for host in hosts:
        stage.api.remove_host(context(), 'prod', host, drain=True)
    stage.api.delete(context(), 'prod')
    with pytest.raises(exceptions.AggregateNotFound):
        stage.api.get('prod')

    options = {call[0]: call[2] for call in stage.driver.calls}
    assert options['add_to_aggregate']['force'] is True
    assert options['remove_from_aggregate']['drain'] is True


def test_a_refusal_comes_back_with_its_report(
    stage: paper_bus.Stage, hosts: list[str]
) -> None:
    refusal = paper_driver.refused_add()
    stage.driver.trouble[hosts[0]] = refusal
    stage.api.create('prod')

    [result] = stage.api.add_hosts(context(), 'prod', hosts[:1])

    assert result.outcome == 'refused'
    assert result.error is not None
    assert vars(result.error) == vars(refusal)


def test_reports_come_back_whole(
    stage: paper_bus.Stage, hosts: list[str]
) -> None:
    refusal = paper_driver.refused_add()
    report = typing.cast(exceptions.InvalidAggregateAction, refusal).report
    assert report is not None
    stage.driver.reports.update(
        {
            hosts[0]: report,
            'audit': report,
            'recover': report,
            'release': report,
        }
    )
    prod = stage.api.create('prod')

    assert stage.api.check_hosts(context(), 'prod', hosts[:1]) == [report]
    judged = stage.remote.check_removal(
        context(), prod, hosts[0], requests.REMOVE_HOST
    )
    assert judged == report
    assert stage.api.audit(context(), 'prod') == report
    assert stage.api.recover(context(), 'prod') == report
    assert stage.api.release(context(), 'prod') == report


def test_a_bug_in_a_service_is_told_in_one_line(
    stage: paper_bus.Stage, hosts: list[str]
) -> None:
    stage.driver.trouble[hosts[0]] = ZeroDivisionError('one by nothing')
    prod = stage.api.create('prod')

    with pytest.raises(exceptions.ServiceError) as caught:
        stage.remote.add_aggregate_host(
            context(), prod, hosts[0], requests.ADD_HOST
        )

    assert str(caught.value) == 'ZeroDivisionError: one by nothing'


def test_an_aggregate_that_the_database_lacks_is_not_found(
    stage: paper_bus.Stage, hosts: list[str]
) -> None:
    prod = stage.api.create('prod')
    stage.api.delete(context(), 'prod')

    with pytest.raises(exceptions.AggregateNotFound):
        stage.remote.add_aggregate_host(
            context(), prod, hosts[0], requests.ADD_HOST
        )


def test_forwarding_names_the_slave_and_reaches_the_master(
    stage: paper_bus.Stage, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str | None, dict[str, typing.Any]]] = []
    prepare = stage.remote._client.prepare

    def spy(server: str | None = None, **how: typing.Any) -> typing.Any:
        asked.append((server, how))
        return prepare(server=server, **how)

    monkeypatch.setattr(stage.remote._client, 'prepare', spy)
    prod = stage.api.create('prod')
    slave_info = {
        'host': hosts[1],
        'host_uuid': 'u-2',
        'compute_vm_uuid': 'vm-2',
    }

    virtapi.ComputeVirtAPI(stage.remote).forward_add(
        context(), prod, hosts[1], hosts[0], slave_info, FORCED
    )

    [(server, how)] = asked
    assert server == hosts[0]
    assert how['transport_options'].at_least_once
    method, host, options = stage.driver.calls[-1]
    assert (method, host) == ('add_to_aggregate', hosts[1])
    assert options['slave_info'] == slave_info
    assert options['force'] is True
    assert isinstance(stage.virtapi, virtapi.ComputeVirtAPI)


def test_no_password_travels(
    stage: paper_bus.Stage, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    transport = stage.remote._client.transport
    send = transport._driver.send

    def spy(
        target: typing.Any,
        context: typing.Any,
        message: typing.Any,
        **how: typing.Any,
    ) -> typing.Any:
        sent.append(json.dumps([context, message]))
        answer = send(target, context, message, **how)
        sent.append(json.dumps(answer))
        return answer

    monkeypatch.setattr(transport._driver, 'send', spy)
    stage.api.create('prod')
    stage.driver.trouble[hosts[1]] = paper_driver.refused_add()

    stage.api.add_hosts(context(), 'prod', hosts)

    assert len(sent) == 6  # one check, two requests, an answer each
    assert SECRET not in ''.join(sent)


def test_the_request_keeps_its_id(
    stage: paper_bus.Stage, hosts: list[str]
) -> None:
    seen: list[str] = []
    stage.driver.set_aggregate_master = (  # type: ignore[method-assign]
        lambda context, *_args, **_options: seen.append(context.request_id)
    )
    prod = stage.api.create('prod')

    stage.remote.set_aggregate_master(
        context(), prod, hosts[0], requests.SET_MASTER
    )

    assert seen == ['req-1']


@pytest.mark.parametrize(
    ('host', 'successor', 'server'),
    [('b', None, 'a'), ('a', None, 'a'), ('a', 'c', 'c')],
)
def test_a_removal_is_served_by_a_host_that_stays(
    host: str, successor: str | None, server: str
) -> None:
    aggregate = store.Aggregate(
        1, 'u', 'prod', ['a', 'b', 'c'], {'master_compute': 'a'}, 1, 0.0
    )

    assert rpcapi.remaining_server(aggregate, host, successor) == server


def test_versions_of_the_bus_agree() -> None:
    assert bus.TOPIC == 'compute'
    assert bus.VERSION == '1.0'


def test_without_hosts_a_service_does_not_start(
    conf: cfg.ConfigOpts,
) -> None:
    conf.set_override('enabled_hosts', [])

    with pytest.raises(exceptions.ConfigurationError, match='enabled_hosts'):
        service.ComputeService(conf)


def test_a_command_without_a_broker_ends(
    conf: cfg.ConfigOpts, hosts: list[str], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / 'xenpool.conf'
    text = path.read_text()
    path.write_text(text.replace('fake://', 'rabbit://127.0.0.1:1/'))
    with store.open_store(conf) as database:
        aggregates.AggregateAPI(conf, database, lambda: None).create('prod')
    words = ('aggregate', 'add', 'host', 'prod', hosts[0], '--remote')

    done = subprocess.run(  # a process that has not imported the bus yet
        [
            *(sys.executable, '-m', 'xenpool_driver.cli.main'),
            *('--config-file', str(path), *words),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 1, done.stderr
    assert 'message bus cannot be reached: 127.0.0.1:1' in done.stderr


@pytest.mark.parametrize(
    'url',
    [
        'nonsense',
        'nonsense://guest:s3cret@h/',
        'rabbit://g:s3cret@h:p/',
        'rabbit://g:12/s3cret@h:5672/',
        'rabbit://g:12?s3cret@h:5672/',
        'rabbit://g:12#s3cret@h:5672/',
        'rabbit://g:12,s3cret@h:5672/',
        'rabbit://g:[s3cret@h:5672/',
    ],
)
def test_a_transport_url_that_is_none(conf: cfg.ConfigOpts, url: str) -> None:
    bus.register_opts(conf)
    conf.set_override('transport_url', url)

    with pytest.raises(exceptions.ConfigurationError) as raised:
        broker.connect(conf)

    assert 'transport_url' in str(raised.value)
    assert 's3cret' not in str(raised.value)
    assert '12' not in str(raised.value)
