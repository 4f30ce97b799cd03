# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Two processes add the first host of one aggregate at the same moment.

The one that wins is held up in its first call to XAPI until the other one
has its answer: so the race is for the set-up itself, however the machine
that runs the test divides its time.
"""

from __future__ import annotations

import collections.abc
import contextlib
import multiprocessing
import multiprocessing.connection
import pathlib

import pytest

from tests.functional import driver_lab, race_worker
from xenpool_driver import driver, pool_states, simulator

ROUNDS = 50
HELD_UP = 10_000.0
"""Simulated seconds: until somebody moves the clock."""
PATIENCE = 100.0
"""Real seconds after which an answer is no longer expected."""

Pipe = multiprocessing.connection.Connection


@contextlib.contextmanager
def workers(
    configuration: pathlib.Path, number: int
) -> collections.abc.Iterator[list[Pipe]]:
    """Start processes that are ready for work; end them."""
    spawn = multiprocessing.get_context('spawn')
    barrier = spawn.Barrier(number)
    pairs = [spawn.Pipe() for _ in range(number)]
    processes = [
        spawn.Process(
            target=race_worker.work,
            args=(configuration, theirs, barrier),
            daemon=True,
        )
        for _, theirs in pairs
    ]
    pipes = [ours for ours, _ in pairs]
    for process in processes:
        process.start()
    try:
        for pipe in pipes:
            assert answer(pipe).outcome == 'ready'
        yield pipes
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            with contextlib.suppress(OSError):
                pipe.send(None)
            process.join(PATIENCE)
            pipe.close()


def answer(pipe: Pipe) -> race_worker.Answer:
    """Return the next answer of a worker."""
    assert pipe.poll(PATIENCE), 'no answer'
    found: race_worker.Answer = pipe.recv()
    return found


def race(
    lab: simulator.Simulation,
    pipes: list[Pipe],
    jobs: list[race_worker.Job],
) -> str:
    """Let two workers race; return the host of the winner."""
    for pipe, job in zip(pipes, jobs, strict=True):
        pipe.send(job)
    [first, *_] = multiprocessing.connection.wait(pipes, PATIENCE)
    loser = pipes.index(first)  # type: ignore[arg-type]
    refused = answer(pipes[loser])
    assert refused.outcome == 'refused', refused
    assert 'setup in progress' in refused.reason
    winning = pipes[1 - loser]
    while not winning.poll(0.01):
        lab.clock.advance(HELD_UP)
    won = answer(winning)
    assert won.outcome == 'done', won
    return jobs[1 - loser].host


def check(
    lab: simulator.Simulation,
    plugin: driver.XenAPIPoolDriver,
    ident: str,
    winner: str,
) -> None:
    """Make sure that there is one pool and one master, and nothing half."""
    row = plugin.site.store.get_aggregate(ident)
    assert row.state == pool_states.ACTIVE
    assert row.hosts == [winner]
    assert row.metadata[pool_states.MASTER] == winner
    others = {host.name for host in lab.hosts} - {winner}
    assert not others & set(row.metadata)
    assert sorted(driver_lab.pools(lab)) == sorted(
        [
            driver_lab.Pool(winner, frozenset({winner}), row.name, ident),
            *(
                driver_lab.Pool(other, frozenset({other}), '', '')
                for other in others
            ),
        ]
    )
    [entry] = plugin.site.store.list_operations(ident)
    assert (entry.kind, entry.host, entry.outcome) == (
        'set-up',
        winner,
        'succeeded',
    )


@pytest.mark.slow
def test_one_of_two_first_hosts_wins(tmp_path: pathlib.Path) -> None:
    with driver_lab.simulation(2) as lab:
        one, two = (host.name for host in lab.hosts)
        path = driver_lab.configuration(lab, tmp_path)
        plugin = driver_lab.make_driver(path)
        lab.faults.delay('pool.add_to_other_config', HELD_UP, times=None)
        with workers(path, 2) as pipes:
            for number in range(ROUNDS):
                row = plugin.site.store.create_aggregate(
                    f"race{number}", driver_lab.FLAGS
                )
                # now and then both want the very same host
                second = one if number % 10 == 9 else two
                jobs = [
                    race_worker.Job(row.uuid, one),
                    race_worker.Job(row.uuid, second),
                ]
                winner = race(lab, pipes, jobs)
                check(lab, plugin, row.uuid, winner)
                plugin.remove_from_aggregate(None, row, winner)
                plugin.dismiss_aggregate(None, row)
        plugin.close()
