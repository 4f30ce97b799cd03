# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The program ``xenpool``: global options, the table of commands, logging."""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import importlib.metadata
import io
import logging
import os
import sys
import typing

from cliff import app, commandmanager

from xenpool_driver.cli import repeating, status, workbench

_HERE = 'xenpool_driver.cli'

COMMANDS = {
    'aggregate create': 'aggregate:Create',
    'aggregate list': 'aggregate:List',
    'aggregate show': 'aggregate:Show',
    'aggregate set': 'aggregate:Set',
    'aggregate delete': 'aggregate:Delete',
    'aggregate add host': 'members:AddHost',
    'aggregate remove host': 'members:RemoveHost',
    'aggregate set master': 'members:SetMaster',
    'aggregate adopt': 'members:Adopt',
    'aggregate check': 'checks:Check',
    'aggregate audit': 'checks:Audit',
    'aggregate recover': 'checks:Recover',
    'aggregate release': 'checks:Release',
    'preflight join': 'checks:PreflightJoin',
    'operation list': 'operations:List',
    'operation show': 'operations:Show',
    'host list': 'hosts:List',
    'watch': 'watch:Watch',
    'records dump': 'hosts:DumpRecords',
    'db upgrade': 'database:Upgrade',
    'db version': 'database:Version',
    'rehearse add host': 'rehearse:AddHost',
    'rehearse remove host': 'rehearse:RemoveHost',
    'rehearse set master': 'rehearse:SetMaster',
    'simulator run': 'simulate:Run',
    'demo': 'demo:Demo',
}
"""Each command and the class behind it, which is imported when it is run."""


class Commands(commandmanager.CommandManager):
    """Finds commands in :data:`COMMANDS`.

    A command is its full words: an aggregate may be called ``m`` without
    ``aggregate set m`` being taken for ``aggregate set master``.
    """

    def load_commands(self, namespace: str) -> None:
        """Fill the table; nothing is imported yet."""
        for name, place in COMMANDS.items():
            self.commands[name] = importlib.metadata.EntryPoint(
                name=name, value=f"{_HERE}.{place}", group=namespace
            )

    def find_command(
        self, argv: list[str]
    ) -> tuple[type[typing.Any], str, list[str]]:
        """Return the class, the name and the arguments of a command.

        :raises ValueError: there is no such command.
        """
        for length in range(min(len(argv), 3), 0, -1):
            name = ' '.join(argv[:length])
            if name in self.commands:
                return self.commands[name].load(), name, argv[length:]
        raise ValueError(f"unknown command: {' '.join(argv)}")


class App(app.App):
    """The program.

    :ivar exits: what is undone when the program ends.
    :ivar workbench: configuration, store and managers, opened when needed.
    :ivar repeater: repeats the global options in commands that are printed.
    :ivar mask: takes passwords out of whatever is printed.
    """

    NAME = 'xenpool'
    LOG = logging.getLogger('xenpool_driver.cli')

    def __init__(self) -> None:
        super().__init__(
            description='Host aggregates for XenServer and XCP-ng pools.',
            version=_version(),
            command_manager=Commands(_HERE),
            deferred_help=True,
        )
        self.exits = contextlib.ExitStack()
        self.mask = Mask()
        self.repeater = repeating.Repeater(None)
        self.workbench = workbench.Workbench(None, self.mask.learn)

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, typing.Any] | None = None,
    ) -> argparse.ArgumentParser:
        """Return the parser of the global options."""
        from xenpool_driver.cli import command

        parser = command.one_line(
            super().build_option_parser(
                description,
                version,
                {'prog': self.NAME, 'allow_abbrev': False},
            )
        )
        parser.add_argument(
            '--config-file',
            action='append',
            metavar='FILE',
            help='Configuration file; repeatable, later ones win '
            '(default: xenpool.conf in the usual places).',
        )
        return parser

    def initialize_app(self, argv: list[str]) -> None:
        """Prepare for the command; without one, show what there is."""
        self.workbench = workbench.Workbench(
            self.options.config_file, self.mask.learn
        )
        if not argv:
            self.options.deferred_help = True

    def configure_logging(self) -> None:
        """Log to stderr: warnings, and progress where no bar shows it."""
        self.repeater = repeating.Repeater(self.options.config_file)
        root = logging.getLogger()
        others = list(root.handlers)
        try:
            super().configure_logging()
        except OSError as error:
            self.parser.error(f"--log-file: {error}")
        level = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO}.get(
            self.options.verbose_level, logging.DEBUG
        )
        root.setLevel(level)
        for handler in root.handlers:
            if handler not in others:
                handler.addFilter(self.mask.filter)
                handler.addFilter(self._repeat)
                self.exits.callback(root.removeHandler, handler)
        if level == logging.WARNING and not self.stderr.isatty():
            self.LOG.setLevel(logging.INFO)

    def _repeat(self, record: logging.LogRecord) -> bool:
        """Repeat the global options in a log record; let it pass."""
        record.msg, record.args = self.repeater.text(record.getMessage()), ()
        return True

    def print_help_if_requested(self) -> None:
        """Print the options and all commands, if that was asked for."""
        if not self.options.deferred_help:
            return
        self.parser.print_help(self.stdout)
        width = max(map(len, COMMANDS))
        print('\ncommands:', file=self.stdout)
        for name, place in sorted(self.command_manager):
            words = (place.load().__doc__ or '').partition('\n')[0]
            print(f"  {name:{width}}  {words}", file=self.stdout)
        raise SystemExit(0)

    def run_subcommand(self, argv: list[str]) -> int:
        """Run a command; say which ones there are if it is none."""
        words = argv[1:] if argv[0] == 'help' and argv[1:] else argv
        near = ', '.join(
            name for name in COMMANDS if name.split()[0] == words[0]
        )
        try:
            if words is argv or not near:
                self.command_manager.find_command(words)
        except ValueError as error:
            hint = f"; there are: {near}" if near else "; see 'xenpool --help'"
            print(f"xenpool: {error}{hint}", file=self.stderr)
            return status.USAGE
        return super().run_subcommand(argv)

    def clean_up(
        self, cmd: typing.Any, result: int, err: BaseException | None
    ) -> None:
        """Close what the command opened."""
        self.workbench.close()


class Mask:
    """Takes passwords out of text; costs nothing until there is some."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def learn(self, secrets: set[str]) -> None:
        """Hide these texts from now on."""
        self._secrets |= secrets

    def clean(self, text: str) -> str:
        """Return the text without any password."""
        from xenpool_driver.compute import logs

        return logs.Mask(self._secrets).clean(text)

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a log record; let every record pass."""
        from xenpool_driver.compute import logs

        return logs.Mask(self._secrets).filter(record)


def _version() -> str:
    try:
        return importlib.metadata.version('xenpool-driver')
    except importlib.metadata.PackageNotFoundError:
        return '(not installed)'


def _open_streams() -> None:
    """Let any text be printed, wherever output goes, even if nowhere."""
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before the program began
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


@contextlib.contextmanager
def _flushed() -> collections.abc.Iterator[None]:
    """Let go of output that cannot be written: a command has told it.

    Python would try once more at its end, and fail in words of its own.
    """
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            pass
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def main(argv: list[str] | None = None) -> int:
    """Run a command line.

    :param argv: the arguments; those of the process by default.
    :returns: 0 done, 1 failed, 2 wrong usage, 3 refused (nothing happened).
    """
    _open_streams()
    program = App()
    try:
        with program.exits, _flushed():
            return program.run(sys.argv[1:] if argv is None else argv)
    except SystemExit as end:  # argparse, after --help or a wrong option
        return end.code if isinstance(end.code, int) else status.FAILED


if __name__ == '__main__':
    sys.exit(main())
