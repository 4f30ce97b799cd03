# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The same over real connections, with other people's client.

Each of XAPI's rules is broken alone. What the prechecks foresee, from what
our own client reads in at most 16 calls to either side, is what a plain
``XenAPI.Session`` is told when it calls ``pool.join``.
"""

from __future__ import annotations

import collections.abc
import os
import pathlib
import random

import pytest
import XenAPI

from tests.contract import agreement, breakages, sides
from xenpool_driver import conf, snapshot
from xenpool_driver.preflight import join
from xenpool_driver.simulator import simulation
from xenpool_driver.xapi import connections

ADDRESS = f"127.90.{20 + os.getpid() % 80}.1"
PASSWORD = 'xenroot'
SCALE = 100.0
BUDGET = 16
"""Calls to either side that a judgement may cost."""


@pytest.fixture(scope='module')
def state_dir(
    tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
    """Where the certificates are kept: they are made once."""
    return tmp_path_factory.mktemp('certificates')


@pytest.fixture
def lab(
    state_dir: pathlib.Path,
) -> collections.abc.Iterator[simulation.Simulation]:
    """Two stand-alone hosts: xen01, to join, and xen02, the pool."""
    with simulation.Simulation(
        hosts=2,
        address=ADDRESS,
        http_port=None,
        time_scale=SCALE,
        state_dir=state_dir,
        seed=1,
    ) as running:
        yield running


@pytest.fixture
def doors(
    lab: simulation.Simulation,
) -> collections.abc.Iterator[connections.Connections]:
    access = {
        host.name: conf.HostAccess(
            host.name, host.url, 'root', PASSWORD, ca_file=str(lab.ca_file)
        )
        for host in lab.hosts
    }
    made = connections.Connections(access)
    yield made
    made.close()


def pair(lab: simulation.Simulation) -> tuple[sides.Side, sides.Side]:
    return sides.Side(lab.named('xen01')), sides.Side(lab.named('xen02'))


def read(
    lab: simulation.Simulation, doors: connections.Connections, name: str
) -> snapshot.PoolSnapshot:
    """Read what a live precheck reads, within its budget."""
    found = doors.client(name).snapshot()
    calls = lab.calls(name)
    assert sum(calls.values()) <= BUDGET, calls
    return found


def told(lab: simulation.Simulation, force: bool) -> agreement.Refusal:
    """Let a plain session join; return what it was told."""
    joiner, pool = lab.hosts
    session = XenAPI.Session(joiner.url, ignore_ssl=True)
    session.xenapi.login_with_password('root', PASSWORD, '1.0', 'test')
    pool_of = session.xenapi.pool
    verb = pool_of.join_force if force else pool_of.join
    try:
        verb(pool.address, 'root', PASSWORD)
    except XenAPI.Failure as failure:
        return tuple(failure.details)
    finally:
        session('close')()
    return None


@pytest.mark.parametrize('name', breakages.BREAKAGES)
def test_a_rule_broken_alone(
    name: str, lab: simulation.Simulation, doors: connections.Connections
) -> None:
    breakage = breakages.BREAKAGES[name]
    breakage.spoil(*pair(lab), random.Random(1))
    mine, theirs = (read(lab, doors, host) for host in ('xen01', 'xen02'))
    assert mine.coordinator is not None
    live = join.LiveFacts(
        pool_login=(),
        edition_orders={
            edition: rank
            for rank, edition in enumerate(mine.coordinator.editions)
        },
    )
    for force in (False, True):
        report = join.check(mine, theirs, force=force, live=live)
        got = told(lab, force)
        assert agreement.comparable(report.first_refusal) == (
            agreement.comparable(got)
        )
        if not force:
            assert got is not None
            assert got[0] == breakage.code


def test_nothing_broken(
    lab: simulation.Simulation, doors: connections.Connections
) -> None:
    mine, theirs = (read(lab, doors, host) for host in ('xen01', 'xen02'))
    assert join.check(mine, theirs).failures == ()
    assert told(lab, False) is None
