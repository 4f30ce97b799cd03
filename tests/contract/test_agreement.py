# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Two independent statements of XAPI's rules say the same.

The simulator states them as XAPI does and stops at the first; the prechecks
foresee them all, from what a client can read. They share nothing. Here
``pool.join`` is called for real, on topologies that break one rule: what is
foreseen must be what it answers, and what is not objected to must join.
"""

from __future__ import annotations

import random

import pytest

from tests.contract import agreement, breakages, doors
from tests.unit import test_preflight_join as broken
from xenpool_driver import model, snapshot
from xenpool_driver.preflight import join
from xenpool_driver.preflight.join import xapi_rules
from xenpool_driver.simulator import prechecks, profiles

FORCE = pytest.mark.parametrize('force', [False, True])


def spoilt(
    spoil: breakages.Break, profile: str = 'current'
) -> tuple[doors.Door, doors.Door]:
    """Return a joiner and a pool of one release, between them one wrong."""
    joiner, pool = agreement.topology_of(0, profile, profile)
    spoil(*agreement.sides_of(joiner, pool), random.Random(1))
    return joiner, pool


@FORCE
@pytest.mark.parametrize('name', agreement.RECORDED)
def test_a_rule_broken_alone_in_recorded_records(
    name: str, force: bool
) -> None:
    joiner, pool = agreement.recorded_pair(agreement.RECORDED[name])
    report = agreement.foreseen(
        joiner, pool, force, classes=snapshot.DUMP_CLASSES
    )
    got = agreement.answered(joiner, pool, force)
    assert agreement.comparable(report.first_refusal) == (
        agreement.comparable(got)
    )
    if name in broken.RULES and not force:
        assert got == broken.RULES[name][1]


@FORCE
@pytest.mark.parametrize('profile', profiles.PROFILES)
@pytest.mark.parametrize('name', breakages.BREAKAGES)
def test_a_rule_broken_alone(name: str, profile: str, force: bool) -> None:
    breakage = breakages.BREAKAGES[name]
    joiner, pool = spoilt(breakage.spoil, profile)
    report = agreement.foreseen(joiner, pool, force)
    got = agreement.answered(joiner, pool, force)
    assert agreement.comparable(report.first_refusal) == (
        agreement.comparable(got)
    )
    asked = profile not in breakage.unasked
    skipped = force and name.startswith('13')
    if asked and not skipped:
        assert got is not None
        assert got[0] == breakage.code
    else:
        assert got is None
        assert agreement.is_a_member(joiner, pool)


def test_every_rule_of_both_halves_is_broken_by_some_topology() -> None:
    """Neither half has a rule that the other does not know of."""
    numbers = {name.split()[0].rstrip('b') for name in breakages.BREAKAGES}
    simulated = {identifier for identifier, _ in prechecks.CHECKS}
    assert simulated - numbers == {'7'}  # a test of its own, below
    foretold = {
        finding.check
        for breakage in breakages.BREAKAGES.values()
        for finding in agreement.foreseen(*spoilt(breakage.spoil)).failures
    }
    known = {check.name for check in xapi_rules.CHECKS}
    assert known - foretold == {'pool-login', 'not-itself'}  # likewise


@FORCE
@pytest.mark.parametrize('name', breakages.HARMLESS)
def test_what_only_looks_wrong_joins(name: str, force: bool) -> None:
    joiner, pool = spoilt(breakages.HARMLESS[name])
    assert agreement.foreseen(joiner, pool, force).failures == ()
    assert agreement.answered(joiner, pool, force) is None
    assert agreement.is_a_member(joiner, pool)


# -- what is in no record --------------------------------------------------


@FORCE
def test_a_wrong_password(force: bool) -> None:
    joiner, pool = agreement.topology_of()
    report = agreement.foreseen(joiner, pool, force, password='wrong')
    got = agreement.answered(joiner, pool, force, password='wrong')
    assert got is not None
    assert got[:2] == ('SESSION_AUTHENTICATION_FAILED', 'root')
    assert report.first_refusal == got


@FORCE
def test_the_address_of_a_member(force: bool) -> None:
    joiner, pool = agreement.topology_of(members=1)
    address = joiner.machine.world.named('xen02').address
    report = agreement.foreseen(joiner, pool, force, address=address)
    got = agreement.answered(joiner, pool, force, address=address)
    assert got == ('HOST_IS_SLAVE', pool.machine.address)
    assert report.first_refusal == got


@FORCE
@pytest.mark.parametrize(
    ('members', 'text'),
    [
        (0, 'Host cannot become slave of itself'),
        (1, 'Host is already part of a pool'),
    ],
)
def test_joining_itself(members: int, text: str, force: bool) -> None:
    _, pool = agreement.topology_of(members)
    report = agreement.foreseen(pool, pool, force)
    got = agreement.answered(pool, pool, force)
    assert got == ('OPERATION_NOT_ALLOWED', text)
    assert report.first_refusal == got


def test_without_a_licence_daemon_nobody_can_tell() -> None:
    joiner, pool = agreement.topology_of()
    mine, _ = agreement.sides_of(joiner, pool)
    mine.set_host(edition='free', editions=[])
    report = join.check(joiner.snapshot(), pool.snapshot())
    (said,) = [f for f in report.findings if f.check == 'licence-edition']
    assert said.severity is model.Severity.UNKNOWN
    got = agreement.answered(joiner, pool)
    assert got is not None
    assert got[0] == 'V6D_FAILURE'
