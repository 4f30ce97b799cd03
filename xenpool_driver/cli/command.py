# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What all commands share: errors become one clear line and a status."""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import traceback
import typing

from cliff import command, display, lister, show

from xenpool_driver import clock, exceptions, model, redaction
from xenpool_driver.cli import formats, interrupts, progress, status

if typing.TYPE_CHECKING:
    from xenpool_driver.cli import main
    from xenpool_driver.cli.workbench import Workbench


class _Base(command.Command):
    """Runs a command and turns what it raises into an exit status.

    :ivar exit_status: set by commands that succeed with bad news.
    """

    app: main.App
    exit_status = status.DONE

    @property
    def workbench(self) -> Workbench:
        """Configuration, store, managers."""
        return self.app.workbench

    def get_description(self) -> str:
        """Return what ``--help`` says; its heading is a sentence there."""
        heading, _, rest = str(super().get_description()).partition('\n\n')
        return f"{heading}.\n\n{rest}" if rest else heading

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return a parser that complains in one line."""
        return one_line(super().get_parser(prog_name))

    def _load_hooks(self) -> None:
        """Let no other package hook into commands; searching takes time."""
        self._hooks = []

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; print every error in the same form."""
        try:
            result = super().run(parsed_args) or self.exit_status
            self.app.stdout.flush()
            return result
        except BrokenPipeError:
            raise
        except Exception as error:  # the last one who can say it plainly
            return self.report(error)

    def report(self, error: Exception) -> int:
        """Print an error on stderr; return its exit status."""
        if self.app.options.debug:
            self.complain(
                ''.join(traceback.format_exception(error)).rstrip('\n'),
                lines=True,
            )
        for number, line in enumerate(status.lines(error)):
            self.complain(f"{self.app.NAME}: {line}" if not number else line)
        return status.of(error)

    @contextlib.contextmanager
    def under_way(
        self, aggregate: str, is_remote: bool
    ) -> collections.abc.Iterator[model.Progress]:
        """Show how a request goes on, and answer signals meanwhile.

        :param aggregate: the aggregate, as it was typed.
        :param is_remote: whether a service on the bus carries it out.
        :returns: whom to tell of progress.
        """
        with progress.shown(self.app.stderr) as listener:
            show = getattr(listener, 'tell', self.complain)
            watch = interrupts.Watch(
                self.workbench,
                aggregate,
                is_remote,
                lambda text: show(
                    self.app.repeater.text(self.app.mask.clean(text))
                ),
            )
            with interrupts.answered(watch):
                yield listener

    def complain(self, text: str, lines: bool = False) -> None:
        """Print on stderr what a terminal may be shown, without a password.

        :param lines: whether the text has more lines than one.
        """
        told = self.app.repeater.text(self.app.mask.clean(text))
        shown = redaction.visible(told, lines)
        print(shown, file=self.app.stderr)

    def say(self, text: str) -> None:
        """Print lines on stdout."""
        shown = redaction.visible(text, lines=True)
        print(shown, file=self.app.stdout, flush=True)


class Command(_Base):
    """A command whose result is its exit status."""


# Before release 4.13, which wants a stevedore newer than many services bring,
# cliff's class takes no parameter.
if typing.TYPE_CHECKING:
    _CliffDisplay = display.DisplayCommandBase[typing.Any]
else:
    _CliffDisplay = display.DisplayCommandBase


class _Display(_Base, _CliffDisplay):
    """A command that prints objects in the form that the user wants."""

    def _load_formatter_plugins(self) -> typing.Any:
        return formats.plugins()

    def _generate_columns_and_selector(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
    ) -> tuple[list[str], list[bool] | None]:
        try:
            return super()._generate_columns_and_selector(
                parsed_args, column_names
            )
        except ValueError:
            raise exceptions.ConfigurationError(
                f"no column is called {', '.join(parsed_args.columns)}; "
                f"there are {', '.join(column_names)}"
            ) from None


class Lister(_Display, lister.Lister):
    """A command that lists objects."""

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: collections.abc.Iterable[collections.abc.Sequence[typing.Any]],
    ) -> int:
        """Print the objects."""
        rows = [
            formats.shown(self.app.repeater.value(row), parsed_args.formatter)
            for row in map(list, data)
        ]
        return super().produce_output(parsed_args, column_names, rows)


class ShowOne(_Display, show.ShowOne):
    """A command that shows one object."""

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: collections.abc.Sequence[typing.Any],
    ) -> int:
        """Print the object."""
        told = self.app.repeater.value(list(data))
        row = formats.shown(told, parsed_args.formatter)
        return super().produce_output(parsed_args, column_names, row)


def one_line(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Let a parser name what is wrong, without its whole usage before it."""

    def error(message: str) -> typing.NoReturn:
        words = ' '.join(message.split())
        parser.exit(
            status.USAGE, f"xenpool: {words} (see '{parser.prog} --help')\n"
        )

    parser.error = error  # type: ignore[method-assign]
    return parser


def positive(text: str) -> int:
    """Return a number of things, of which there is at least one.

    :raises argparse.ArgumentTypeError: it is none.
    """
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


def add_remote(parser: argparse.ArgumentParser) -> None:
    """Add the option that sends a request to the services on the bus."""
    parser.add_argument(
        '--remote',
        action='store_true',
        help='have the compute services on the message bus do it, instead '
        'of this process',
    )


def key_value(text: str) -> tuple[str, str]:
    """Return a ``KEY=VALUE`` argument as a pair.

    :raises argparse.ArgumentTypeError: it has no '=' or no key.
    """
    key, equals, value = text.partition('=')
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    return key, value


def stamp(seconds: float | None) -> str | None:
    """Return a time of the store as ISO 8601 in UTC; None stays None."""
    return None if seconds is None else clock.moment(seconds)


Rows = tuple[
    collections.abc.Sequence[str],
    collections.abc.Iterable[collections.abc.Sequence[typing.Any]],
]
"""What a list command returns: column names and rows."""
