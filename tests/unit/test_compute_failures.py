# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Errors and reports survive the message bus whole."""

from __future__ import annotations

import inspect
import json

import pytest

from tests import paper_driver
from xenpool_driver import exceptions, pool_states
from xenpool_driver.compute import failures


def _sent(error: exceptions.XenpoolError) -> exceptions.XenpoolError:
    return failures.unpack_error(
        json.loads(json.dumps(failures.pack_error(error)))
    )


def test_a_refusal_keeps_its_whole_report() -> None:
    refusal = paper_driver.refused_add()
    assert isinstance(refusal, exceptions.InvalidAggregateActionAdd)

    arrived = _sent(refusal)

    assert isinstance(arrived, exceptions.InvalidAggregateActionAdd)
    assert str(arrived) == str(refusal)
    assert arrived.reason == refusal.reason
    assert arrived.report == refusal.report


@pytest.mark.parametrize(
    'error',
    [
        exceptions.AggregateError('prod', 'add_to_aggregate', 'it broke'),
        exceptions.XapiRefused('HOST_OFFLINE', ['OpaqueRef:1'], 'xen01'),
        exceptions.NotPoolMaster('192.0.2.1', 'xen02'),
        exceptions.XapiUnavailable('no route', 'xen03'),
        exceptions.AggregateNotFound("there is no aggregate 'x'"),
        pool_states.IllegalTransition('created', 'deleted'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was_raised(
    error: exceptions.XenpoolError,
) -> None:
    arrived = _sent(error)

    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_every_error_of_ours_can_travel() -> None:
    for _, kind in inspect.getmembers(exceptions, inspect.isclass):
        if issubclass(kind, exceptions.XenpoolError):
            error = kind.__new__(kind)
            Exception.__init__(error, 'words')
            assert type(_sent(error)) is kind


def test_an_error_of_a_newer_service_is_still_an_error() -> None:
    packed = {'class': 'BrandNew', 'message': 'words', 'state': {}}

    arrived = failures.unpack_error(packed)

    assert isinstance(arrived, exceptions.ServiceError)
    assert str(arrived) == 'BrandNew: words'
