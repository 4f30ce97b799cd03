# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Operations begun and ended per second, on each database.

Usage: ``python benchmarks/store.py [--quick] [--operations N]``
(``[--workers N,M]``).

An operation is begun (which moves the aggregate), announces two phases, and is
finished (which moves the aggregate again): four durable transactions. With
more than one worker, each a process, the workers share one aggregate
(``shared``: they wait for its lock) or have one each (``own``).

Databases: an SQLite file in the working directory's file system, and the
servers of XENPOOL_TEST_POSTGRESQL_URL and XENPOOL_TEST_MYSQL_URL, in a
database of the benchmark's own that is dropped afterwards. One that does not
answer is left out, with the reason. Ratios are to the first line.
"""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
import typing
import uuid

import sqlalchemy
import sqlalchemy.exc

from xenpool_driver import pool_states, store

PROCESSES = multiprocessing.get_context('spawn')

SERVERS = {
    'postgresql': (
        'XENPOOL_TEST_POSTGRESQL_URL',
        'postgresql+psycopg://postgres@127.0.0.1:5432/test',
    ),
    'mariadb': (
        'XENPOOL_TEST_MYSQL_URL',
        'mysql+pymysql://root@127.0.0.1:3306/test',
    ),
}


@contextlib.contextmanager
def own_sqlite() -> collections.abc.Iterator[str]:
    """Yield the URL of a file that is removed afterwards."""
    with tempfile.TemporaryDirectory(dir='.') as directory:
        yield f"sqlite:///{os.path.abspath(directory)}/bench.db"


@contextlib.contextmanager
def own_database(kind: str) -> collections.abc.Iterator[str]:
    """Yield the URL of a new database that is dropped afterwards."""
    variable, default = SERVERS[kind]
    url = sqlalchemy.make_url(os.environ.get(variable, default))
    name = f"xenpool_bench_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(url, isolation_level='AUTOCOMMIT')
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
    engine.dispose()


def admit(
    row: store.Aggregate, running: list[store.Operation]
) -> store.Changes:
    """Grant it, as a set-up is granted."""
    return store.Changes({pool_states.STATE: pool_states.CHANGING})


def settle(row: store.Aggregate) -> store.Changes:
    """Settle it, as a set-up is settled."""
    return store.Changes({pool_states.STATE: pool_states.ACTIVE})


def work(
    url: str, aggregate: str, count: int, barrier: typing.Any, out: typing.Any
) -> None:
    """Begin and end ``count`` operations; report when, and how long each."""
    with store.Store(url) as database:
        database.get_aggregate(aggregate)
        barrier.wait()
        began = time.time()
        times = []
        for _ in range(count):
            start = time.perf_counter()
            operation, _ = database.begin(
                aggregate, 'set-up', 'xen01', 'bench', 60.0, {}, admit
            )
            for phase in ('name', 'stamp'):
                operation = database.phase(operation, phase)
            database.finish(operation, 'succeeded', settle=settle)
            times.append(time.perf_counter() - start)
        out.put((began, time.time(), times))


def measure(
    url: str, workers: int, shared: bool, count: int
) -> tuple[float, float, float]:
    """Return operations per second, and median and p99 milliseconds."""
    with store.Store(url) as database:
        names = [
            f"bench-{uuid.uuid4().hex[:8]}-{number}"
            for number in range(1 if shared else workers)
        ]
        flag = {pool_states.POOL_FLAG: 'true'}
        made = [database.create_aggregate(name, flag).uuid for name in names]
    barrier, out = PROCESSES.Barrier(workers), PROCESSES.SimpleQueue()
    children = [
        PROCESSES.Process(
            target=work,
            args=(url, made[n % len(made)], count, barrier, out),
        )
        for n in range(workers)
    ]
    for child in children:
        child.start()
    results = [out.get() for _ in children]
    for child in children:
        child.join()
    seconds = max(end for _, end, _ in results) - min(
        began for began, _, _ in results
    )
    times = sorted(one for _, _, each in results for one in each)
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    return len(times) / seconds, statistics.median(times) * 1e3, p99 * 1e3


def measure_kind(
    kind: str, sizes: list[int], operations: int, first: float
) -> float:
    """Print a line for each number of workers.

    :param first: operations per second of the very first line; 0 if this is
        going to be it.
    :returns: the same, of the first line now.
    """
    place = own_sqlite() if kind == 'sqlite' else own_database(kind)
    with place as url:
        store.migrate(url)
        for workers in sizes:
            for shared in (True, False)[: 1 + (workers > 1)]:
                rate, median, p99 = measure(
                    url, workers, shared, operations // workers
                )
                first = first or rate
                whose = 'shared' if shared else 'own'
                print(
                    f"{kind:<12}{workers:>8} {whose:<11}{rate:>9.1f}"
                    f"{rate / first:>7.2f}{median:>11.2f}{p99:>9.2f}",
                    flush=True,
                )
    return first


def main() -> None:
    """Measure each database."""
    parser = argparse.ArgumentParser(description='The store, measured.')
    parser.add_argument(
        '--operations', type=int, default=200, help='in each line'
    )
    parser.add_argument(
        '--workers', default='1,4', help='numbers of processes'
    )
    parser.add_argument(
        '--quick', action='store_true', help='a few operations only'
    )
    given = parser.parse_args()
    operations = min(given.operations, 20) if given.quick else given.operations
    sizes = [int(number) for number in given.workers.split(',')]
    print(
        f"{'database':<12}{'workers':>8} {'aggregates':<11}{'ops/s':>9}"
        f"{'ratio':>7}{'median ms':>11}{'p99 ms':>9}"
    )
    first = 0.0
    for kind in ('sqlite', *SERVERS):
        try:
            first = measure_kind(kind, sizes, operations, first)
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            print(f"{kind:<12} left out: {str(error).splitlines()[0]}")


if __name__ == '__main__':
    main()
