# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The output formats of lists and single objects: table, json, yaml, csv.

They are named here instead of being searched among all installed packages,
which makes every list quicker, and gives single objects a csv form as well.
"""

from __future__ import annotations

import argparse
import collections.abc
import csv
import importlib.metadata
import typing

from cliff import columns
from cliff.formatters import base, json_format, table, value, yaml_format
from stevedore import extension

from xenpool_driver import redaction

_Row = collections.abc.Sequence[typing.Any]


class Names(columns.FormattableColumn[collections.abc.Sequence[str]]):
    """Several names: one text for people, a list for programs."""

    def human_readable(self) -> str:
        """Return the names with commas between them."""
        return ', '.join(map(redaction.visible, self._value))

    def machine_readable(self) -> list[str]:
        """Return the list."""
        return list(self._value)


class Pairs(columns.FormattableColumn[collections.abc.Mapping[str, str]]):
    """Metadata: ``key='value'`` for people, an object for programs."""

    def human_readable(self) -> str:
        """Return one pair per line, by key."""
        return '\n'.join(
            redaction.visible(f"{key}='{text}'")
            for key, text in sorted(self._value.items())
        )

    def machine_readable(self) -> dict[str, str]:
        """Return the object."""
        return dict(self._value)


class Lines(columns.FormattableColumn[collections.abc.Sequence[typing.Any]]):
    """A story: one line per entry for people, objects for programs.

    The value is a sequence of mappings.
    """

    def human_readable(self) -> str:
        """Return the entries' values, a line per entry."""
        return '\n'.join(
            redaction.visible(
                '  '.join(str(text) for text in entry.values() if text != '')
            )
            for entry in self._value
        )

    def machine_readable(self) -> list[dict[str, typing.Any]]:
        """Return the entries."""
        return [dict(entry) for entry in self._value]


class Csv(base.ListFormatter, base.SingleFormatter):
    """Comma-separated values with a header line, for lists and objects."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        """Have no options of its own."""

    def emit_list(
        self,
        column_names: collections.abc.Sequence[str],
        data: collections.abc.Iterable[_Row],
        stdout: typing.TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write a line per object."""
        writer = csv.writer(stdout, lineterminator='\n')
        writer.writerow(column_names)
        for row in data:
            writer.writerow([_plain(item) for item in row])

    def emit_one(
        self,
        column_names: collections.abc.Sequence[str],
        data: _Row,
        stdout: typing.TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write one line, with the fields' names above it."""
        self.emit_list(column_names, [data], stdout, parsed_args)


def shown(row: _Row, form: str) -> _Row:
    """Return a row as a terminal may be shown it.

    A form for programs has escapes of its own for control characters.

    :param row: the values of one object.
    :param form: the name of the output format.
    """
    if form in ('json', 'yaml'):
        return row
    return [
        redaction.visible(item) if isinstance(item, str) else item
        for item in row
    ]


def _plain(item: typing.Any) -> typing.Any:
    if isinstance(item, columns.FormattableColumn):
        return item.human_readable()
    return '' if item is None else item


def plugins() -> extension.ExtensionManager[typing.Any]:
    """Return the formats, in the form in which cliff looks them up."""
    formats = {
        'csv': Csv(),
        'json': json_format.JSONFormatter(),
        'table': table.TableFormatter(),
        'value': value.ValueFormatter(),
        'yaml': yaml_format.YAMLFormatter(),
    }
    return extension.ExtensionManager.make_test_instance(
        [
            extension.Extension(
                name,
                importlib.metadata.EntryPoint(
                    name, type(plugin).__module__, 'cliff.formatter'
                ),
                type(plugin),
                plugin,
            )
            for name, plugin in formats.items()
        ]
    )
