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
from tests import typed as typed_texts
from tests import xe

PACKAGE = pathlib.Path(xenpool_driver.__file__).parent

PLACES = sorted(
    str(path.relative_to(PACKAGE))
    for path in PACKAGE.rglob('*.py')
    if 'simulator' not in path.parts
    and re.search(r'\b(xe|xenpool) [a-z]|\bxe-', path.read_text())
)

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


VALUE = 'x1'
"""Stands in a text for a value that is filled in."""


@pytest.mark.parametrize('place', PLACES)
def test_every_command_of_the_sources_can_be_typed(place: str) -> None:
    """Messages and logs, too; what is put together later is heard there."""
    text = (PACKAGE / place).read_text()
    found = [
        wrong
        for text in _texts(ast.parse(text))
        for command in typed_texts.commands(text)
        if not _is_unfinished(command, text)
        for wrong in typed_texts.complaints(command, is_remedy=False)
    ]
    assert found == []


def _is_unfinished(command: str, text: str) -> bool:
    """Say whether a value stands for words of the command itself."""
    name, *rest = command.split(' ')
    if name == 'xenpool':
        return VALUE in rest[:1]
    bare = [word for word in rest if not word.startswith('-')]
    return (
        VALUE in rest
        or any(VALUE in word and '=' not in word for word in bare)
        or (text.endswith(command) and command.endswith('='))
    )


def _texts(module: ast.Module) -> collections.abc.Iterator[str]:
    """Yield each text that is no docstring and no part of another."""
    apart = {
        id(part)
        for node in ast.walk(module)
        for part in (
            node.values
            if isinstance(node, ast.JoinedStr)
            else [node.value]
            if isinstance(node, ast.Expr)
            else []
        )
    }
    for node in ast.walk(module):
        if id(node) in apart:
            continue
        if isinstance(node, ast.JoinedStr):
            yield ''.join(
                str(part.value) if isinstance(part, ast.Constant) else VALUE
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
