# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool watch``."""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import dataclasses
import json
import queue
import signal
import typing

from xenpool_driver.cli import command, status

if typing.TYPE_CHECKING:
    from xenpool_driver.compute import watcher


class Watch(command.Command):
    """Tell what changes in pools, until stopped; record moved masters"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'aggregates',
            metavar='AGGREGATE',
            nargs='*',
            help='name, id or uuid (default: all, also those that are made '
            'later)',
        )
        parser.add_argument(
            '--hosts',
            action='store_true',
            help='also each configured host that is in no aggregate',
        )
        parser.add_argument(
            '-f',
            '--format',
            choices=('line', 'json'),
            default='line',
            help='a line of words or a JSON object for each change '
            '(default: %(default)s)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from xenpool_driver.compute import watcher

        only = [
            self.workbench.store.get_aggregate(ident).uuid
            for ident in parsed_args.aggregates
        ]
        changes: queue.SimpleQueue[watcher.Change | None] = queue.SimpleQueue()
        watching = watcher.Watcher(
            self.workbench.conf,
            self.workbench.store,
            changes.put,
            only,
            parsed_args.hosts,
        )
        show = _as_json if parsed_args.format == 'json' else _as_line
        with _signals(lambda: changes.put(None)):
            watching.start()
            try:
                while (change := changes.get()) is not None:
                    self.say(show(change))
            finally:
                watching.stop()
        return status.DONE


def _as_line(change: watcher.Change) -> str:
    return f"{command.stamp(change.at)} {change.pool}: {change.text}"


def _as_json(change: watcher.Change) -> str:
    told = {**dataclasses.asdict(change), 'at': command.stamp(change.at)}
    return json.dumps(told)


@contextlib.contextmanager
def _signals(
    act: collections.abc.Callable[[], None],
) -> collections.abc.Iterator[None]:
    """Let SIGINT and SIGTERM do something inside."""
    before = {
        number: signal.signal(number, lambda *_: act())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
