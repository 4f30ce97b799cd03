# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Any mix of broken rules: the first foreseen is the first answered."""

from __future__ import annotations

import dataclasses
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import conftest
from tests.contract import agreement, breakages, doors
from tests.unit import raw_pools
from tests.unit import test_preflight_join as broken
from xenpool_driver import snapshot
from xenpool_driver.simulator import profiles

EXAMPLES = {'ci': 100, 'matrix': 2000}.get(conftest.PROFILE, 400)
MIXED = hypothesis.settings(max_examples=EXAMPLES, deadline=None)

pytestmark = pytest.mark.timeout(1800)

LATE = 'POOL_JOINING_MASTER_CERTIFICATE_NOT_IN_POOL_BUNDLE'
"""The one refusal that comes when something has happened already."""


@dataclasses.dataclass(frozen=True)
class Mix:
    """A random topology.

    :ivar members: of the pool.
    :ivar broken: what is wrong, done in this order; what cannot be spoilt
        any more beside the rest is left out.
    :ivar seed: of what the breakages leave to chance.
    """

    members: int
    joiner_profile: str
    pool_profile: str
    broken: tuple[str, ...]
    harmless: tuple[str, ...]
    force: bool
    password: str
    seed: int

    def build(self) -> tuple[doors.Door, doors.Door]:
        """Return the joiner and the pool."""
        joiner, pool = agreement.topology_of(
            self.members, self.joiner_profile, self.pool_profile
        )
        rng = random.Random(self.seed)
        for spoil in (
            *(breakages.HARMLESS[name] for name in self.harmless),
            *(breakages.BREAKAGES[name].spoil for name in self.broken),
        ):
            try:
                spoil(*agreement.sides_of(joiner, pool), rng)
            except LookupError:
                continue
        return joiner, pool


def mixes() -> st.SearchStrategy[Mix]:
    names = sorted(profiles.PROFILES)
    same = st.sampled_from(names).map(lambda name: (name, name))
    differing = st.tuples(st.sampled_from(names), st.sampled_from(names))
    rules = list(breakages.BREAKAGES)
    wrong = st.integers(0, len(rules) - 1).flatmap(
        # The first of many is mostly an early one: so let some be whole.
        lambda first: st.lists(
            st.sampled_from(rules[first:]), max_size=6, unique=True
        )
    )
    return st.builds(
        lambda releases, **rest: Mix(
            joiner_profile=releases[0], pool_profile=releases[1], **rest
        ),
        releases=st.one_of(*[same] * 5, differing),
        members=st.integers(0, 3),
        broken=wrong.map(tuple),
        harmless=st.lists(
            st.sampled_from(sorted(breakages.HARMLESS)),
            max_size=4,
            unique=True,
        ).map(tuple),
        force=st.booleans(),
        password=st.sampled_from([doors.PASSWORD] * 19 + ['wrong']),
        seed=st.integers(0, 999),
    )


@MIXED
@hypothesis.given(mix=mixes())
def test_any_mix_of_broken_rules(mix: Mix) -> None:
    joiner, pool = mix.build()
    mine, theirs = agreement.sides_of(joiner, pool)
    report = agreement.foreseen(joiner, pool, mix.force, password=mix.password)
    before = mine.db.dump(), theirs.db.dump()
    got = agreement.answered(joiner, pool, mix.force, password=mix.password)
    hypothesis.event(f"refused: {(got or ('no',))[0]}")
    assert agreement.comparable(report.first_refusal) == (
        agreement.comparable(got)
    )
    if got is None and not report.failures:
        assert agreement.is_a_member(joiner, pool)
    if got is not None and got[0] != LATE:
        assert (mine.db.dump(), theirs.db.dump()) == before


@MIXED
@hypothesis.given(
    names=st.lists(st.sampled_from(sorted(agreement.RECORDED)), max_size=8),
    force=st.booleans(),
    release=st.sampled_from(sorted(profiles.PROFILES)),
)
def test_any_mix_in_recorded_records(
    names: list[str], force: bool, release: str
) -> None:
    profile = profiles.get(release)

    def spoil(joiner: raw_pools.Raw, pool: raw_pools.Raw) -> None:
        for raw in (joiner, pool):
            broken.set_version(raw, 'xapi_build', profile.xapi)
        for name in dict.fromkeys(names):
            try:
                agreement.RECORDED[name](joiner, pool)
            except (KeyError, ValueError):
                continue  # two of them want to be the only one of a kind

    joiner, pool = agreement.recorded_pair(spoil, profile)
    report = agreement.foreseen(
        joiner, pool, force, classes=snapshot.DUMP_CLASSES
    )
    got = agreement.answered(joiner, pool, force)
    assert agreement.comparable(report.first_refusal) == (
        agreement.comparable(got)
    )
