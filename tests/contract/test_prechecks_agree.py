# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Two independent statements of XAPI's rules say the same.

The simulator states them as XAPI does, over its databases, and stops at the
first; the prechecks foresee them all from snapshots. They share nothing.
"""

from __future__ import annotations

import random
import typing

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.unit import raw_pools
from tests.unit import test_preflight_join as broken
from xenpool_driver.preflight import join
from xenpool_driver.simulator import (
    clock,
    database,
    errors,
    prechecks,
    profiles,
)

# What is asserted after the prechecks, and what only a server older than
# any that is simulated has.
ELSEWHERE = {'secret rotation', 'an old tools SR'}

BREAKS: dict[str, broken.Break] = {
    **{
        name: spoil
        for name, (spoil, _) in broken.RULES.items()
        if name not in ELSEWHERE
    },
    **{
        f"allowed: {name}": spoil
        for name, spoil in broken.ALLOWED.items()
        if name not in ELSEWHERE
    },
}


def asserted(
    joiner: raw_pools.Raw,
    pool: raw_pools.Raw,
    profile: profiles.Profile,
    force: bool,
) -> tuple[str, ...] | None:
    """Return what the simulator's join raises first."""
    ticking = clock.Clock()
    try:
        local, remote = (
            database.Database.from_records(raw, ticking, random.Random(0))
            for raw in (joiner, pool)
        )
        mine = prechecks.only_pool(local)
        uuid = local.get('host', mine['master'])['uuid']
        if not prechecks.feature(mine, 'restrict_pooling'):
            return ('LICENCE_RESTRICTION',)
        prechecks.run(prechecks.Sides(local, remote, uuid, profile), force)
    except errors.ApiError as error:
        return tuple(error.details)
    finally:
        ticking.stop()
    return None


def foreseen(
    joiner: raw_pools.Raw, pool: raw_pools.Raw, force: bool
) -> tuple[str, ...] | None:
    """Return what the prechecks expect to be raised first."""
    _, me = raw_pools.host(joiner)
    ranks = {edition: n for n, edition in enumerate(me['editions'])}
    report = join.check(
        raw_pools.parse(joiner),
        raw_pools.parse(pool),
        force=force,
        live=join.LiveFacts(edition_orders=ranks),
    )
    later = {'pool-bundle', 'pool-secret'}
    return next(
        (
            finding.predicts
            for finding in report.failures
            if finding.predicts and finding.check not in later
        ),
        None,
    )


@pytest.mark.parametrize('force', [False, True])
@pytest.mark.parametrize('name', BREAKS)
def test_rule_broken_alone(name: str, force: bool) -> None:
    joiner, pool = raw_pools.pair()
    BREAKS[name](joiner, pool)
    assert foreseen(joiner, pool, force) == asserted(
        joiner, pool, profiles.CURRENT, force
    )


PROFILES = {
    'current': None,
    'xcp-ng-8.3': '26.4.0',
    'xcp-ng-8.2': '1.249.41',
}


@hypothesis.given(
    names=st.lists(st.sampled_from(sorted(BREAKS)), max_size=8),
    force=st.booleans(),
    release=st.sampled_from(sorted(PROFILES)),
)
def test_any_mix_of_broken_rules(
    names: list[str], force: bool, release: str
) -> None:
    joiner, pool = raw_pools.pair()
    build = PROFILES[release]
    if build is not None:
        for raw in (joiner, pool):
            broken.set_version(raw, 'xapi_build', build)
    applied = []
    for name in dict.fromkeys(names):
        sides: typing.Any = (joiner, pool)
        try:
            BREAKS[name](*sides)
        except (KeyError, ValueError):
            continue  # two of them want to be the only one of a kind
        applied.append(name)
    hypothesis.note(f"broken: {applied}")
    assert foreseen(joiner, pool, force) == asserted(
        joiner, pool, profiles.get(release), force
    )
