# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A stage with a driver on it, for tests of one request at a time."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import time
import typing

from tests import permits
from tests.matrix import judge, scenarios, stage
from xenpool_driver import driver, store


class Lab(typing.NamedTuple):
    """What a test works with.

    :ivar stage: the simulated site.
    :ivar driver: a worker's driver.
    :ivar row: the aggregate.
    """

    stage: stage.Stage
    driver: driver.XenAPIPoolDriver
    row: store.Aggregate

    @property
    def truth(self) -> judge.Truth:
        """The pool as its master has it."""
        found = judge.truth(self.stage)
        assert found is not None
        return found

    def phases(self) -> list[str]:
        """Return what the journal tells of the last operation."""
        [last, *_] = self.stage.store.list_operations()
        return [one.phase for one in self.stage.store.phases(last.uuid)]

    def last(self) -> store.Operation:
        """Return the last operation."""
        return self.stage.store.list_operations()[0]


@contextlib.contextmanager
def make(
    directory: pathlib.Path, **scenario: typing.Any
) -> collections.abc.Iterator[Lab]:
    """Build a site and a driver for it.

    :param scenario: as for :class:`scenarios.Scenario`.
    """
    kept = stage.Kept(directory)
    found = scenarios.Scenario('lab', lambda *_: None, **scenario)
    with stage.Stage(found, kept) as where:
        worker, database = stage.open_driver(str(where.conf_file))
        try:
            row = database.get_aggregate(scenarios.AGGREGATE)
            yield Lab(where, worker, row)
        finally:
            worker.close()
    kept.close()


def designate(lab: Lab, host: str) -> None:
    """Let somebody else make a host the master, and wait for it."""
    worker, database = stage.open_driver(str(lab.stage.conf_file))
    door = worker.site.connections.coordinator_of('xen01')
    permits.changing_pool(door).designate(lab.stage.machine(host).uuid)
    worker.close()
    database.close()
    deadline = time.monotonic() + 20
    while not lab.stage.machine(host).is_master:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lab.stage.await_quiet()


def agree(lab: Lab) -> None:
    """Make sure that aggregate and pool say the same, and all is well.

    :raises AssertionError: it is not.
    """
    where = lab.stage
    where.await_quiet()
    assert judge.unfinished(where) + judge.disagreements(where) == []
