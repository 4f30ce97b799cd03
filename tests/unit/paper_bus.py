# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A compute service with a driver of paper, on a bus inside this process."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import typing
import uuid

import pytest
from oslo_config import cfg
from oslo_context import context as request_context

from tests import paper_driver
from xenpool_driver import base, store
from xenpool_driver import conf as config
from xenpool_driver.compute import aggregates, rpcapi, service

SECRET = 'n0b0dy-sees-this'


class Stage(typing.NamedTuple):
    """A running service and whoever calls it."""

    hosts: list[str]
    driver: paper_driver.PaperDriver
    remote: rpcapi.ComputeAPI
    database: store.Store
    api: aggregates.AggregateAPI
    virtapi: typing.Any


def host_names() -> list[str]:
    """Return two names that no other test uses: the bus is one per
    process."""
    tag = uuid.uuid4().hex[:8]
    return [f"xen01-{tag}", f"xen02-{tag}"]


def configuration(
    directory: pathlib.Path, hosts: collections.abc.Sequence[str]
) -> cfg.ConfigOpts:
    """Return the options of a service of these hosts."""
    sections = ''.join(
        f"[{host}]\nconnection_url = https://192.0.2.{number}\n"
        f"connection_password = {SECRET}\n"
        for number, host in enumerate(hosts, 1)
    )
    path = directory / 'xenpool.conf'
    path.write_text(
        '[DEFAULT]\n'
        f"enabled_hosts = {', '.join(hosts)}\n"
        'transport_url = fake://\n'
        f"[database]\nconnection = sqlite:///{directory}/store.db\n"
        f"{sections}"
    )
    return config.load([str(path)])


@contextlib.contextmanager
def running(conf: cfg.ConfigOpts) -> collections.abc.Iterator[Stage]:
    """Run the service of the hosts that the options name."""
    loaded = []
    with (
        store.open_store(conf) as database,
        pytest.MonkeyPatch.context() as at,
    ):
        driver = paper_driver.PaperDriver(database)

        def load(
            _conf: cfg.ConfigOpts, callbacks: typing.Any
        ) -> base.PoolDriver:
            loaded.append(callbacks)
            return driver

        at.setattr(base, 'load_driver', load)
        served = service.ComputeService(conf)
        served.start()
        remote = rpcapi.ComputeAPI(conf, database)
        api = aggregates.AggregateAPI(conf, database, lambda: remote)
        yield Stage(
            conf.enabled_hosts, driver, remote, database, api, loaded[0]
        )
        assert served.stop()


def context() -> request_context.RequestContext:
    """Return the context of a request."""
    return request_context.RequestContext(request_id='req-1', overwrite=False)
