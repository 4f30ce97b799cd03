# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The error tree: complete, as drawn, and fit to travel."""

from __future__ import annotations

import inspect
import pathlib
import pickle
import re

import pytest

from xenpool_driver import exceptions, model


def classes() -> list[type[exceptions.XenpoolError]]:
    """Return every error that the module defines."""
    return [
        member
        for _, member in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(member, exceptions.XenpoolError)
        and member.__module__ == exceptions.__name__
    ]


def drawn() -> dict[str, str]:
    """Return ``{class: parent}`` as the drawing in the docstring has it."""
    parents: dict[str, str] = {}
    stack: list[str] = []
    for line in (exceptions.__doc__ or '').splitlines():
        match = re.match(r"^    ([ │├└─]*)([A-Z]\w+)", line)
        if match is None or (not match[1] and stack):
            continue
        depth = len(match[1]) // 4
        del stack[depth:]
        if stack:
            parents[match[2]] = stack[-1]
        stack.append(match[2])
    return parents


def test_the_tree_is_as_drawn() -> None:
    actual = {
        error.__name__: error.__bases__[0].__name__
        for error in classes()
        if error is not exceptions.XenpoolError
    }
    assert drawn() == actual


def test_every_error_says_what_it_is_for() -> None:
    assert [error for error in classes() if not error.__doc__] == []


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (
            exceptions.InvalidAggregateActionAdd('web', 'setup in progress'),
            'Cannot add a host to aggregate web: setup in progress',
        ),
        (
            exceptions.AggregateError('web', 'add_to_aggregate', 'no answer'),
            'Aggregate web: add_to_aggregate failed: no answer',
        ),
        (
            exceptions.XapiRefused('HA_IS_ENABLED', [], 'xen01'),
            'xen01: HA_IS_ENABLED',
        ),
        (
            exceptions.XapiRefused('HANDLE_INVALID', ['host', 'Ref:1']),
            'HANDLE_INVALID [host, Ref:1]',
        ),
        (
            exceptions.NotPoolMaster('192.0.2.1', 'xen02'),
            'xen02: is a pool member, its master is at 192.0.2.1',
        ),
        (exceptions.XapiUnavailable('refused', 'xen03'), 'xen03: refused'),
    ],
)
def test_messages_name_the_offender(error: Exception, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    'error',
    [
        exceptions.InvalidAggregateActionAdd(
            'web', 'no', model.Report('xen01')
        ),
        exceptions.AggregateError('web', 'add_to_aggregate', 'no answer'),
        exceptions.XapiRefused('HANDLE_INVALID', ['host', 'Ref:1'], 'xen01'),
        exceptions.NotPoolMaster('192.0.2.1', 'xen02'),
        exceptions.XapiOutcomeUnknown('cut off', 'xen02'),
        exceptions.AggregateNotFound('web'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_a_journey(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_nova_catches_the_right_ones() -> None:
    for name in ('Add', 'Delete', 'Update'):
        error = getattr(exceptions, f"InvalidAggregateAction{name}")
        assert issubclass(error, exceptions.InvalidAggregateAction)
    assert not issubclass(
        exceptions.AggregateError, exceptions.InvalidAggregateAction
    )


def test_the_documentation_has_a_word_on_every_error() -> None:
    page = pathlib.Path(__file__).parents[2] / 'doc/source/troubleshooting.rst'
    text = page.read_text()
    names = {error.__name__ for error in classes()} - {'XenpoolError'}
    assert {name for name in names if f"``{name}``" not in text} == set()
