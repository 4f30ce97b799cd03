# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What happens to a pool happens in the recorded order, for every observer.

The calls that were recorded are made again, watched by the same observers.
Each must see the same things one after another; and what two of them saw
clearly apart they must see in the same order. Durations are not compared:
those of the recordings are the machine's that they were made on.
"""

from __future__ import annotations

import functools
import itertools
import typing

import pytest

from tests import conftest
from tests.contract import differences, play, plays
from tests.contract import recorded_timelines as recorded

APART = 1.0
"""Seconds between two things that are clearly apart."""

EACH = pytest.mark.parametrize(
    'timeline', plays.TIMELINES, ids=lambda timeline: timeline.name
)

Streams = dict[str, recorded.Steps]


@functools.cache
def played(timeline: plays.Timeline) -> play.Stage:
    return plays.played(timeline)


@functools.cache
def streams(timeline: plays.Timeline) -> tuple[Streams, Streams]:
    """Return what was seen then, and what is seen now."""
    stage = played(timeline)
    then: Streams = {}
    now: Streams = {}
    for observer, seen in recorded.load(timeline.name).items():
        then.update(recorded.streams(observer, seen))
        again = recorded.streams(observer, stage.seen.get(observer, []))
        now.update({k: settled(steps) for k, steps in again.items()})
    if timeline.endless:
        now = {k: steps[: len(then[k])] for k, steps in now.items()}
    return then, now


def settled(steps: recorded.Steps) -> recorded.Steps:
    """Drop what the play itself did before its beginning."""
    old = [step for step in steps if step.time < -2.0]
    return [*old[-1:], *steps[len(old) :]]


@EACH
def test_each_observer_sees_the_same_steps(timeline: plays.Timeline) -> None:
    then, now = streams(timeline)
    assert {k: _words(steps) for k, steps in now.items()} == {
        k: _words(steps) for k, steps in then.items()
    }


def _words(steps: recorded.Steps) -> list[str]:
    return [step.word for step in steps]


class Moment(typing.NamedTuple):
    """A step as it was seen then and is seen now."""

    what: str
    then: float
    now: float


@EACH
def test_observers_agree_on_the_order_of_what_is_clearly_apart(
    timeline: plays.Timeline,
) -> None:
    then, now = streams(timeline)
    moments = [
        Moment(f"{observer}: {was.word}", was.time, step.time)
        for observer in then
        # What was seen first was so before.
        for was, step in zip(
            then[observer][1:], now[observer][1:], strict=True
        )
    ]
    turned = [
        f"{late.what} before {early.what}"
        for early, late in itertools.permutations(moments, 2)
        if late.then - early.then > APART and late.now < early.now
    ]
    assert not turned


@EACH
def test_what_was_seen_for_a_moment_is_there(
    timeline: plays.Timeline,
) -> None:
    then = recorded.load(timeline.name).values()
    assert set().union(*map(recorded.brief, then)) <= played(timeline).brief


@EACH
def test_operations_on_the_pool_are_shown(timeline: plays.Timeline) -> None:
    then = recorded.operations(timeline.name)
    assert then - played(timeline).operations == {
        difference.what
        for difference in differences.OPERATIONS
        if difference.where == timeline.name
    }


def test_no_timeline_was_left_out() -> None:
    known = (conftest.RECORDINGS / 'timelines').glob('*.json')
    assert {timeline.name for timeline in plays.TIMELINES} == {
        path.stem for path in known
    }


def test_two_plays_are_the_same_to_the_last_event() -> None:
    timeline = plays.TIMELINES[0]
    assert plays.played(timeline).seen == plays.played(timeline).seen
