# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What remedies tell operators to type exists, with those arguments.

Here the sources are searched for commands of ``xe``; :mod:`tests.xe` knows
what XAPI's own command line takes.
"""

from __future__ import annotations

import ast
import collections.abc
import pathlib
import re

import pytest

import xenpool_driver
from tests import xe

PACKAGE = pathlib.Path(xenpool_driver.__file__).parent

TYPED = re.compile(
    r'\bxe ([a-z][a-z0-9-]*[a-z0-9])((?: (?:--)?[A-Za-z][\w:-]*=\S*'
    r'| --[a-z]+)*)'
)


def typed() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (file, command, names of its arguments) of the sources."""
    found = set()
    for path in sorted(PACKAGE.rglob('*.py')):
        if 'simulator' in path.parts:
            continue
        text = re.sub(r"""['"]\s*\n\s*f?['"]""", '', path.read_text())
        text = re.sub(r'\{[^{}]*\}', 'X', text)
        for command, arguments in TYPED.findall(text):
            names = re.findall(
                r' ((?:--)?[A-Za-z][\w:-]*)(?==| |$)', arguments
            )
            place = str(path.relative_to(PACKAGE))
            found.add((place, command, tuple(names)))
    return sorted(found)


@pytest.mark.parametrize(('place', 'command', 'given'), typed())
def test_a_command_exists_and_takes_what_it_is_given(
    place: str, command: str, given: tuple[str, ...]
) -> None:
    words = ['xe', command]
    words += [f"{name}=X" if name[0] != '-' else name for name in given]
    if given or command not in NAMED:
        assert xe.complaints(words) == [], place


NAMED = {
    'host-declare-dead',
    'host-forget',
    'host-refresh-server-certificate',
    'pool-eject',
    'update-apply',
}
"""Commands that some remedy only mentions."""

UNFILLED = re.compile(
    r'(?:\bxe |xenpool )[^;,()\n]*(?<=[ =])[A-Z]{3,}\b(?![_=])'
)


def test_no_command_of_the_sources_holds_a_placeholder() -> None:
    """Texts for the parser of our own options are the only ones with some."""
    found = [
        (str(path.relative_to(PACKAGE)), match.group())
        for path in sorted(PACKAGE.rglob('*.py'))
        if 'simulator' not in path.parts
        for text in _texts(ast.parse(path.read_text()))
        for match in UNFILLED.finditer(text)
    ]
    assert found == []


def test_something_was_found() -> None:
    assert len(typed()) > 30


def _texts(module: ast.Module) -> collections.abc.Iterator[str]:
    """Yield each text, with a small letter for each value filled in."""
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            yield ''.join(
                str(part.value) if isinstance(part, ast.Constant) else 'x'
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
