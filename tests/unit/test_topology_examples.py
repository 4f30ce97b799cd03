# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The example topologies can be built, and show what they say they show."""

from __future__ import annotations

import pathlib
import typing

import pytest

from xenpool_driver import simulator
from xenpool_driver.preflight import join
from xenpool_driver.xapi import records

EXAMPLES = pathlib.Path(__file__).parents[2] / 'etc/xenpool/topologies'


@pytest.fixture
def build(
    request: pytest.FixtureRequest,
) -> typing.Callable[[str], simulator.Simulation]:
    """Return a simulation of an example, on any free ports."""

    def build(name: str) -> simulator.Simulation:
        simulated = simulator.Simulation(
            topology_file=EXAMPLES / name,
            address='127.61.1.1',
            port=0,
            http_port=None,
        )
        request.addfinalizer(simulated.stop)
        simulated.start()
        return simulated

    return build


@pytest.mark.parametrize(
    ('name', 'hosts', 'pools'),
    [('first-pool.yaml', 4, 4), ('three-member-pool.yaml', 3, 1)],
)
def test_an_example_is_what_it_says(
    build: typing.Callable[[str], simulator.Simulation],
    name: str,
    hosts: int,
    pools: int,
) -> None:
    simulated = build(name)
    names = [host.name for host in simulated.hosts]
    databases = {id(simulated.named(host).db) for host in names}
    assert len(names) == hosts
    assert len(databases) == pools


def test_every_example_has_its_test() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {
        'first-pool.yaml',
        'three-member-pool.yaml',
    }


@pytest.mark.parametrize(
    ('joiner', 'code'),
    [
        ('xen02', None),
        ('xen03', 'JOINING_HOST_CANNOT_HAVE_RUNNING_VMS'),
        ('xen04', 'HOSTS_NOT_HOMOGENEOUS'),
    ],
)
def test_the_first_pool_meets_what_it_says(
    build: typing.Callable[[str], simulator.Simulation],
    joiner: str,
    code: str | None,
) -> None:
    simulated = build('first-pool.yaml')
    sides = [
        records.snapshot(simulated.named(name).db.dump())
        for name in (joiner, 'xen01')
    ]
    report = join.check(*sides)
    assert (report.first_refusal or (None,))[0] == code, report.failures
