# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Which control domains keep a member from being ready, or are left over."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from xenpool_driver import domains, objects

HOST = objects.Host(ref='host', uuid='h', control_domain='dom0')
DOM0 = objects.Vm(ref='dom0', uuid='d', is_control_domain=True)


def test_one_on_no_host_blocks_its_host_and_is_not_left_over() -> None:
    assert domains.blocking(HOST, [DOM0], {'host'}) == DOM0
    assert domains.left_over([DOM0], [HOST]) == []
    assert domains.left_over([DOM0], []) == [DOM0]


@pytest.mark.parametrize(
    'differs',
    [
        {'resident_on': 'host'},  # as a join has just brought it
        {'power_state': 'Running'},
        {'is_control_domain': False},
        {'other_config': {'is_system_domain': 'true'}},
        {'other_config': {'storage_driver_domain': 'OpaqueRef:pbd'}},
    ],
    ids=str,
)
def test_others_are_well(differs: dict[str, typing.Any]) -> None:
    vm = dataclasses.replace(DOM0, **differs)
    assert domains.blocking(HOST, [vm], {'host'}) is None
    other = objects.Host(ref='host', uuid='h', control_domain='another')
    assert domains.left_over([vm], [other]) == []


def test_an_enabled_host_is_not_stuck() -> None:
    host = dataclasses.replace(HOST, enabled=True)
    assert domains.blocking(host, [DOM0], {'host'}) is None


def test_one_whose_host_was_forgotten_is_left_over() -> None:
    gone = dataclasses.replace(DOM0, resident_on='a host that is no more')
    assert domains.left_over([gone], [HOST]) == []  # HOST still names it
    assert domains.left_over([gone], []) == [gone]


def test_nothing_is_left_over_for_sure_while_a_host_has_no_domain() -> None:
    """So it is until a joiner has restarted (recorded)."""
    joiner = objects.Host(ref='joiner', uuid='j', control_domain=None)
    gone = dataclasses.replace(DOM0, ref='gone', uuid='g')
    assert domains.left_over([DOM0, gone], [HOST, joiner]) == []
    assert domains.unclaimed([DOM0, gone], [HOST, joiner]) == [gone]
    assert domains.left_over([DOM0, gone], [HOST]) == [gone]
