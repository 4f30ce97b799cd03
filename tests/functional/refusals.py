# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Whether a command that says "refused, nothing happened" says the truth.

While :func:`watched` holds, every command that a test types in this process
and that ends with status 3 is compared: every record of every class of every
simulated host (sessions, tasks and measurements apart), and the aggregates,
their hosts and metadata in an SQLite database, before and after. A host that
starts meanwhile by itself is left out.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import sqlite3
import typing
import weakref

from tests.functional import desk
from xenpool_driver import conf, simulator
from xenpool_driver.cli import main, status
from xenpool_driver.simulator import machine, records_dir

TABLES = ('xenpool_aggregates', 'xenpool_hosts', 'xenpool_metadata')
"""The tables that are compared, dismissed aggregates included."""

NOTHING: dict[str, list[str]] = {table: [] for table in TABLES}
"""What stands in a database that there is not yet."""

State = dict[str, typing.Any]
"""What a command could have changed."""


@dataclasses.dataclass
class Watch:
    """What was seen.

    :ivar labs: the simulations that were started.
    :ivar compared: how many refusals were compared.
    :ivar lies: what had changed, by command.
    """

    labs: weakref.WeakSet[simulator.Simulation] = dataclasses.field(
        default_factory=weakref.WeakSet
    )
    compared: int = 0
    lies: list[str] = dataclasses.field(default_factory=list)

    def state(self, argv: collections.abc.Sequence[str]) -> State:
        """Return the records of all hosts, and what the database holds."""
        found: State = {
            f"{host.name} {host.address}": records_dir.dump(host)
            for lab in self.labs
            for host in lab.world.machines
            if host.db is not None and not _moves_by_itself(host)
        }
        if '--config-file' in argv:
            path = argv[argv.index('--config-file') + 1]
            found['aggregates'] = aggregates(path)
        return found

    def judge(
        self, argv: collections.abc.Sequence[str], before: State
    ) -> None:
        """Compare with what was there before a command that was refused."""
        self.compared += 1
        after = self.state(argv)
        both = before.keys() & after.keys()
        changed = differences(
            {key: before[key] for key in both},
            {key: after[key] for key in both},
        )
        if changed:
            self.lies.append(f"xenpool {' '.join(argv)}: {changed}")


def _moves_by_itself(host: machine.Machine) -> bool:
    """Say whether a host starts, or has not ended its first boot.

    Near the end of that it switches TLS verification on.
    """
    return desk.is_restless(host) or host.first_boot


def aggregates(path: str) -> State:
    """Return the rows of the database that a configuration names.

    SQLite itself reads the file, in the library that the product uses, too:
    it keeps the locks that others of this process hold.
    """
    try:
        url = str(conf.load([path]).database.connection or '')
    except Exception:  # the command says what is wrong with it
        return NOTHING
    name = url.removeprefix('sqlite:///')
    if name == url or not pathlib.Path(name).is_file():
        return NOTHING
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{name}?mode=rw", uri=True)
        ) as link:
            return {
                table: sorted(
                    map(repr, link.execute(f"SELECT * FROM {table}"))
                )
                for table in TABLES
            }
    except sqlite3.Error:  # no database of ours
        return NOTHING


def differences(before: typing.Any, after: typing.Any) -> list[str]:
    """Return the paths of what differs, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            f"{key}/{rest}"
            for key in sorted({*before, *after}, key=str)
            for rest in differences(before.get(key), after.get(key))
        ]
    return [] if before == after else [f" {before!r} -> {after!r}"]


@contextlib.contextmanager
def watched() -> collections.abc.Iterator[Watch]:
    """Watch every command of this process, and every simulation."""
    watch = Watch()
    program: typing.Any = main
    lab: typing.Any = simulator.Simulation
    run, start, stop = program.main, lab.start, lab.stop

    def running(argv: list[str] | None = None) -> int:
        words = list(argv or ())
        if 'aggregate' not in words:
            return typing.cast(int, run(argv))
        before = watch.state(words)
        ended = typing.cast(int, run(argv))
        if ended == status.REFUSED:
            watch.judge(words, before)
        return ended

    def starting(self: simulator.Simulation) -> None:
        watch.labs.add(self)
        start(self)

    def stopping(self: simulator.Simulation) -> None:
        watch.labs.discard(self)
        stop(self)

    program.main, lab.start, lab.stop = running, starting, stopping
    try:
        yield watch
    finally:
        program.main, lab.start, lab.stop = run, start, stop
