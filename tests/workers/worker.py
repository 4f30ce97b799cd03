# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A process that asks for one thing after the other until its time is up."""

from __future__ import annotations

import collections
import collections.abc
import json
import logging
import os
import pathlib
import random
import time
import traceback
import typing

from tests.functional import driver_lab
from tests.workers import clock
from xenpool_driver import conf as config
from xenpool_driver import driver, exceptions, pool_states, store
from xenpool_driver.store import engine

REFUSED = (
    exceptions.InvalidAggregateAction,
    exceptions.AggregateNotFound,
    exceptions.AggregateHostExists,
    exceptions.AggregateNameExists,
)

Ask = collections.abc.Callable[[], object]


class Told(typing.NamedTuple):
    """What came of a request.

    :ivar text: what was asked for.
    :ivar outcome: ``done``, ``refused``, ``failed``, ``taken over``, or
        ``broken``, which must not be.
    :ivar error: the name of what it raised; '' for nothing.
    :ivar reason: in words.
    :ivar seconds: how long it took.
    :ivar wait: the longest that it waited for the database, in seconds.
    :ivar retries: transactions that the database had begin anew, by reason.
    """

    text: str
    outcome: str
    error: str
    reason: str
    seconds: float
    wait: float
    retries: dict[str, int]


class Ears:
    """Hears how long transactions take, and which are begun anew."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._retries: collections.Counter[str] = collections.Counter()
        self._listen_to('read')
        self._listen_to('write')
        transient = engine.transient

        def heard(error: BaseException) -> bool:
            again = transient(error)
            if again:
                self._retries[_name(error)] += 1
            return again

        engine.transient = heard

    def _listen_to(self, method: str) -> None:
        original = getattr(engine.Database, method)

        def timed(database: engine.Database, work: typing.Any) -> typing.Any:
            began = time.monotonic()
            try:
                return original(database, work)
            finally:
                took = time.monotonic() - began
                self._longest = max(self._longest, took)

        setattr(engine.Database, method, timed)

    def take(self) -> tuple[float, dict[str, int]]:
        """Return what was heard since it was asked last."""
        longest, self._longest = self._longest, 0.0
        retries, self._retries = self._retries, collections.Counter()
        return longest, dict(retries)


def _name(error: BaseException) -> str:
    """Return what a database calls an error."""
    cause: typing.Any = getattr(error, 'orig', error)
    code = getattr(cause, 'sqlite_errorname', None) or cause.args[0]
    kind = type(cause).__name__
    return f'{kind} {code}' if len(str(code)) < 20 else kind


class Worker:
    """Somebody who asks.

    :param path: the configuration.
    :param names: of the aggregates.
    :param seed: decides what is asked for.
    """

    def __init__(
        self, path: str, names: collections.abc.Sequence[str], seed: int
    ) -> None:
        conf = config.load([path])
        self._store = store.open_store(conf)
        self._driver = driver.XenAPIPoolDriver(
            conf=conf, database=self._store, time=clock.FastClock()
        )
        self._hosts = config.known_hosts(conf)
        self._names = names
        self._random = random.Random(seed)

    def close(self) -> None:
        """Log out."""
        self._driver.close()

    def next_request(self) -> tuple[str, Ask]:
        """Return what to ask for next: in words, and how."""
        name = self._random.choice(self._names)
        try:
            row = self._store.get_aggregate(name)
        except exceptions.AggregateNotFound:
            return f'create {name}', lambda: self._create(name)
        if row.state == pool_states.ERROR:
            return self._clean_up(row)
        wishes = (self._add, self._remove, self._set_master)
        usual = (5, 3, 2) if row.hosts else (10, 1, 1)
        [wish] = self._random.choices(wishes, usual)
        return wish(row)

    def _create(self, name: str) -> None:
        self._store.create_aggregate(name, driver_lab.FLAGS)

    def _clean_up(self, row: store.Aggregate) -> tuple[str, Ask]:
        if row.hosts:
            return self._remove(row)
        return (
            f'dismiss {row.name}',
            lambda: self._driver.dismiss_aggregate(None, row),
        )

    def _add(self, row: store.Aggregate) -> tuple[str, Ask]:
        host = self._free_host()
        return (
            f'add {host} to {row.name}',
            lambda: self._driver.add_to_aggregate(None, row, host),
        )

    def _free_host(self) -> str:
        """Return a host that seems to be free; now and then any one."""
        taken = {
            host for row in self._store.list_aggregates() for host in row.hosts
        }
        free = sorted(set(self._hosts) - taken)
        if not free or self._random.random() < 0.1:
            free = sorted(self._hosts)
        return self._random.choice(free)

    def _remove(self, row: store.Aggregate) -> tuple[str, Ask]:
        host = self._member(row)
        others = [each for each in row.hosts if each != host]
        successor = self._random.choice(others) if others else None
        return (
            f'remove {host} from {row.name}',
            lambda: self._driver.remove_from_aggregate(
                None, row, host, successor=successor, allow_data_loss=True
            ),
        )

    def _set_master(self, row: store.Aggregate) -> tuple[str, Ask]:
        host = self._member(row)
        return (
            f'make {host} the master of {row.name}',
            lambda: self._driver.set_aggregate_master(None, row, host),
        )

    def _member(self, row: store.Aggregate) -> str:
        return self._random.choice(row.hosts or sorted(self._hosts))


def ask(request: Ask) -> tuple[str, str, str]:
    """Make a request; return its outcome, the error's name, and reason."""
    try:
        request()
    except exceptions.AggregateError as error:
        return 'failed', type(error).__name__, str(error)
    except REFUSED as error:
        return 'refused', type(error).__name__, str(error)
    except exceptions.LeaseLost as error:
        return 'taken over', type(error).__name__, str(error)
    except Exception as error:
        return 'broken', type(error).__name__, traceback.format_exc()
    return 'done', '', ''


def run(
    path: str,
    names: collections.abc.Sequence[str],
    seed: int,
    until: float,
    notes: pathlib.Path,
) -> None:
    """Ask for one thing after the other; the body of the process.

    :param path: the configuration.
    :param names: of the aggregates.
    :param seed: decides what is asked for.
    :param until: when to ask for nothing more, by the monotonic clock.
    :param notes: takes a line per request, a :class:`Told` in JSON.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    ears = Ears()
    worker = Worker(path, names, seed)
    end = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while time.monotonic() < until:
        began = time.monotonic()
        text, request = worker.next_request()
        outcome, error, reason = ask(request)
        seconds = time.monotonic() - began
        told = Told(text, outcome, error, reason, seconds, *ears.take())
        # At once and whole, for this process may be killed at any time.
        os.write(end, json.dumps(told).encode() + b'\n')
    worker.close()
