# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Whatever is called, no host breaks, and none says what XAPI would not."""

from __future__ import annotations

import typing

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import conftest
from tests.contract import fuzz, fuzz_world
from xenpool_driver.simulator import errors, machine

EXAMPLES = {'ci': 200, 'matrix': 5000}.get(conftest.PROFILE, 500)

pytestmark = pytest.mark.timeout(3600)

SETTLED = 600.0
"""Simulated seconds after which everything that starts has started."""

EMERGENCIES = {
    'HOST_BROKEN',
    'HOST_STILL_BOOTING',  # its coordinator does not answer
    'HOST_IS_SLAVE',  # its coordinator is none any more
    'HOST_UNKNOWN_TO_MASTER',
    'HOST_ITS_OWN_SLAVE',
}
"""What a host may be stuck with for ever (xapi.ml, xapi_host_helpers.ml)."""


@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(calls=st.lists(fuzz.calls(), min_size=1, max_size=8))
def test_any_calls(calls: list[fuzz.Call]) -> None:
    with fuzz_world.single_threaded(), fuzz_world.no_complaints():
        where = fuzz_world.world()
        caller = fuzz.Caller(where)
        for call in calls:
            caller.make(call)
        where.clock.advance(SETTLED)
        for target in where.machines:
            still_answers(target)


def still_answers(target: machine.Machine) -> None:
    """Assert that a host that is on answers a login, one way or another."""
    if not target.powered:
        return
    assert target.process is not None
    try:
        target.gate('session.login_with_password')
    except errors.ApiError as error:
        assert error.code in EMERGENCIES
        return
    if target.role[0] == machine.MASTER:
        params: list[typing.Any] = ['root', target.password]
        assert fuzz_world.answer(target, 'session.login_with_password', params)
