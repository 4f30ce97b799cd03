# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the README says of the tests is so."""

from __future__ import annotations

import ast
import collections.abc
import pathlib
import re

TOP = pathlib.Path(__file__).parents[2]
README = ' '.join((TOP / 'README.md').read_text().split())

SKIPPING = ('skip', 'skipif', 'importorskip', 'missing')


def words(node: ast.AST) -> collections.abc.Iterator[str]:
    """Yield what is written of a reason; values are left out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            if isinstance(part, ast.Constant):
                yield from words(part)


def reasons() -> collections.abc.Iterator[str]:
    """Yield every reason for which a test is skipped."""
    for path in sorted((TOP / 'tests').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
            if name not in SKIPPING:
                continue
            given = [each.value for each in node.keywords if each.arg]
            if name in ('skip', 'missing'):
                given += node.args
            for each in given:
                yield from words(each)


def test_every_reason_to_skip_a_test_is_named() -> None:
    found = {text.split(':')[0].strip() for text in reasons()}
    assert 'XENPOOL_TEST_URL names no host' in found
    assert {text for text in found if text and text not in README} == set()


def test_every_kind_of_server_is_named() -> None:
    text = (TOP / 'tests' / 'services.py').read_text()
    kinds = set(re.findall(r"XENPOOL_TEST_([A-Z]+)_URL", text))
    assert {kind for kind in kinds if f"`{kind.lower()}`" not in README} == (
        set()
    )
