# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the tests of the store share: a clock, worker processes, short words
for what they do again and again."""

from __future__ import annotations

import collections.abc
import multiprocessing
import traceback
import typing

import sqlalchemy

from xenpool_driver import exceptions, pool_states, store

POOL = {pool_states.POOL_FLAG: 'true'}

CHILDREN = multiprocessing.get_context('fork')
"""Real processes that run a function of the test's own module."""

PATIENCE = 120
"""Seconds after which a worker is taken for stuck; no test measures it."""


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def time(self) -> float:
        """Return what it shows."""
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.now += seconds


def nothing(
    aggregate: store.Aggregate, running: list[store.Operation]
) -> store.Changes:
    """Admit, and change nothing."""
    return store.Changes()


def begin(
    database: store.Store,
    aggregate: store.Aggregate,
    admit: typing.Any = nothing,
    **given: typing.Any,
) -> store.Operation:
    """Begin a join, or what is given, and return the operation."""
    wanted = {
        'kind': 'join',
        'host': 'xen01',
        'owner': 'worker-1',
        'lease': 60.0,
        'details': None,
        **given,
    }
    operation, _ = database.begin(aggregate.uuid, admit=admit, **wanted)
    return operation


def dump(url: str) -> dict[str, list[tuple[typing.Any, ...]]]:
    """Return every row of every table."""
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            return {
                table: sorted(
                    (
                        tuple(row)
                        for row in connection.execute(
                            sqlalchemy.text(f"SELECT * FROM {table}")
                        )
                    ),
                    key=repr,
                )
                for table in tables
                if table.startswith('xenpool_')
            }
    finally:
        engine.dispose()


def run(
    function: collections.abc.Callable[..., typing.Any],
    *argument_lists: tuple[typing.Any, ...],
) -> list[typing.Any]:
    """Run the function in one process for each list of arguments, all at
    once; return what each returned.

    A worker that raises fails the test; one that is killed returns its
    negative exit code.
    """
    results = [CHILDREN.SimpleQueue() for _ in argument_lists]
    children = [
        CHILDREN.Process(target=_report, args=(queue, function, arguments))
        for queue, arguments in zip(results, argument_lists, strict=True)
    ]
    for child in children:
        child.start()
    try:
        return [
            _result(child, queue)
            for child, queue in zip(children, results, strict=True)
        ]
    finally:
        for child in children:
            if child.is_alive():
                child.kill()
            child.join()


def _report(
    queue: typing.Any,
    function: collections.abc.Callable[..., typing.Any],
    arguments: tuple[typing.Any, ...],
) -> None:
    try:
        queue.put((True, function(*arguments)))
    except BaseException:
        queue.put((False, traceback.format_exc()))


def _result(child: typing.Any, queue: typing.Any) -> typing.Any:
    child.join(PATIENCE)
    assert child.exitcode is not None, 'a worker is stuck'
    if child.exitcode:
        return child.exitcode
    worked, result = queue.get()
    assert worked, result
    return result


def outcome(
    function: collections.abc.Callable[..., typing.Any],
    *arguments: typing.Any,
) -> str:
    """Return 'done', or the name of the error of ours that was raised."""
    try:
        function(*arguments)
    except exceptions.XenpoolError as error:
        return type(error).__name__
    return 'done'
