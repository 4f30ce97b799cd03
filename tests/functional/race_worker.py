# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A process that adds hosts to aggregates when it is told to."""

from __future__ import annotations

import multiprocessing.connection
import multiprocessing.synchronize
import pathlib
import typing

from tests.functional import driver_lab
from xenpool_driver import exceptions


class Job(typing.NamedTuple):
    """Add a host."""

    aggregate: str
    host: str


class Answer(typing.NamedTuple):
    """What came of a job: ``done``, ``refused`` or ``failed``, and why."""

    outcome: str
    reason: str


def work(
    configuration: pathlib.Path,
    pipe: multiprocessing.connection.Connection,
    barrier: multiprocessing.synchronize.Barrier,
) -> None:
    """Do jobs until there are no more.

    :param configuration: the driver's.
    :param pipe: where jobs come from, and answers go.
    :param barrier: lets all workers begin at the same moment.
    """
    plugin = driver_lab.make_driver(configuration)
    pipe.send(Answer('ready', ''))
    while (job := pipe.recv()) is not None:
        aggregate = plugin.site.store.get_aggregate(job.aggregate)
        barrier.wait()
        try:
            plugin.add_to_aggregate(None, aggregate, job.host)
        except exceptions.InvalidAggregateActionAdd as error:
            pipe.send(Answer('refused', error.reason))
        except Exception as error:
            pipe.send(Answer('failed', repr(error)))
        else:
            pipe.send(Answer('done', ''))
    plugin.close()
