# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What is raised is ours and the service's own at the same time."""

from __future__ import annotations

import copy
import pickle
import sys
import types
import typing

import pytest

from tests import paper_driver
from tests.functional import nova_exceptions
from xenpool_driver import base, conf, exceptions, foreign_errors, model


@pytest.fixture
def errors() -> foreign_errors.ForeignErrors:
    return foreign_errors.ForeignErrors('tests.functional.nova_exceptions')


@pytest.mark.parametrize(
    ('error', 'theirs'),
    [
        (
            exceptions.AggregateError('prod', 'join xen02', 'it broke'),
            nova_exceptions.AggregateError,
        ),
        (
            exceptions.InvalidAggregateAction('prod', 'not now'),
            nova_exceptions.InvalidAggregateAction,
        ),
        (
            exceptions.InvalidAggregateActionAdd('prod', 'not now'),
            nova_exceptions.InvalidAggregateActionAdd,
        ),
        (
            exceptions.InvalidAggregateActionDelete('prod', 'not now'),
            nova_exceptions.InvalidAggregateActionDelete,
        ),
        (
            exceptions.InvalidAggregateActionUpdate('prod', 'not now'),
            nova_exceptions.InvalidAggregateActionUpdate,
        ),
        (
            exceptions.AggregateNotFound("no aggregate 'prod'"),
            nova_exceptions.AggregateNotFound,
        ),
        # These have no namesake: the request was not carried out.
        (exceptions.StoreError('a full disk'), nova_exceptions.AggregateError),
        (exceptions.LeaseLost('too late'), nova_exceptions.AggregateError),
        (
            exceptions.ConfigurationError("no host 'xen77'"),
            nova_exceptions.AggregateError,
        ),
    ],
    ids=lambda value: getattr(value, '__name__', type(value).__name__),
)
def test_an_error_is_both(
    errors: foreign_errors.ForeignErrors,
    error: exceptions.XenpoolError,
    theirs: type[nova_exceptions.NovaException],
) -> None:
    found = errors.both(error)

    assert isinstance(found, type(error))
    assert isinstance(found, theirs)
    assert str(found) == found.format_message() == str(error)
    assert vars(found).items() >= vars(error).items()
    assert found.kwargs['code'] == theirs.code
    assert errors.both(found) is found
    # oslo.messaging sends this name; the other end makes their class of it.
    assert type(found).__module__ == nova_exceptions.__name__
    assert getattr(nova_exceptions, type(found).__name__) is theirs
    for again in (pickle.loads(pickle.dumps(found)), copy.copy(found)):
        assert type(again) is type(found)
        assert (str(again), again.args) == (str(found), found.args)
        assert vars(again) == vars(found)


def test_the_report_of_a_refusal_is_kept(
    errors: foreign_errors.ForeignErrors,
) -> None:
    refusal = paper_driver.refused_add()
    assert isinstance(refusal, exceptions.InvalidAggregateActionAdd)

    found = errors.both(refusal)

    assert isinstance(found, exceptions.InvalidAggregateActionAdd)
    assert isinstance(found.report, model.Report)
    assert found.report == refusal.report


def test_a_class_that_they_lack_is_its_nearest_base() -> None:
    small = types.ModuleType('small')

    class Refused(Exception):
        """Made with a message only."""

    class Failed(Exception):
        """Made with a message only."""

    vars(small).update(InvalidAggregateAction=Refused, AggregateError=Failed)
    errors = foreign_errors.ForeignErrors(small)

    refused = errors.both(exceptions.InvalidAggregateActionAdd('a', 'no'))

    assert isinstance(refused, Refused)
    assert not isinstance(refused, Failed)


def test_other_errors_and_results_pass_as_they_are(
    errors: foreign_errors.ForeignErrors,
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        errors.guarded(broken)()
    assert errors.guarded(lambda number: number + 1)(2) == 3


def test_where_an_error_comes_from_is_kept(
    errors: foreign_errors.ForeignErrors,
) -> None:
    cause = OSError('broken pipe')

    def failing() -> None:
        raise exceptions.StoreError('the database is gone') from cause

    with pytest.raises(nova_exceptions.AggregateError) as raised:
        errors.guarded(failing)()

    assert raised.value.__cause__ is cause
    assert [frame.name for frame in raised.traceback][-1] == 'failing'


class Demanding(Exception):
    """Cannot be made with a message."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one + two)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({}, "no exception class 'InvalidAggregateAction'"),
        (
            {'InvalidAggregateAction': Exception, 'AggregateError': 7},
            "no exception class 'AggregateError'",
        ),
        (
            {'InvalidAggregateAction': Demanding, 'AggregateError': Demanding},
            'cannot be raised with a message',
        ),
    ],
)
def test_a_module_that_cannot_serve_fails_at_load(
    content: dict[str, typing.Any], words: str
) -> None:
    module = types.ModuleType('theirs')
    vars(module).update(content)

    with pytest.raises(exceptions.ConfigurationError, match=words) as raised:
        foreign_errors.ForeignErrors(module)

    assert "'theirs'" in str(raised.value)


def test_a_module_that_is_not_there_fails_at_load() -> None:
    options = conf.load([])

    with pytest.raises(exceptions.ConfigurationError, match='no.such.module'):
        base.load_driver(options, service_exceptions='no.such.module')

    assert 'no.such.module' not in sys.modules
