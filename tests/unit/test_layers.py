# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Who may import whom: downward only, and nobody the simulator."""

from __future__ import annotations

import ast
import collections.abc
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[2] / 'xenpool_driver'

# From the top down. A room imports the rows below its own, and nothing of
# its neighbours in the same row.
ROWS = [
    {'cli', 'api'},
    {'compute'},
    {'driver'},
    {'verbs'},
    {'operation'},
    {'takeover'},
    {'xapi', 'store'},
    {'base'},
    {'requests', 'foreign_errors'},
    {'pool_states', 'preflight', 'reconcile', 'inventory'},
    {'bonding', 'domains', 'identity', 'storage_roles'},
    {'snapshot', 'findings'},
    {'model', 'conf', 'objects'},
    {'exceptions', 'clock', 'redaction', 'sharing'},
]
LEVEL = {room: level for level, row in enumerate(ROWS) for room in row}

# Libraries that only one place knows.
DOORS = {
    'XenAPI': 'xapi/session.py',
    'sqlalchemy': 'store/',
    'alembic': 'store/',
    'oslo_messaging': 'compute/',
    'oslo_service': 'compute/',
    'cliff': 'cli/',
    'rich': 'cli/',
    'trustme': 'simulator/',
}

FILES = sorted(
    str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob('*.py')
)


def imports(tree: ast.AST) -> collections.abc.Iterator[str]:
    """Yield the dotted names that a module imports when it runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, 'relative imports hide the room'
            yield from (f"{node.module}.{name.name}" for name in node.names)
        else:
            yield from imports(node)


def parse(name: str) -> ast.Module:
    """Return the syntax tree of a file of the package."""
    return ast.parse((PACKAGE / name).read_text())


@pytest.mark.parametrize('name', FILES)
def test_imports_run_downward(name: str) -> None:
    room = pathlib.PurePath(name).with_suffix('').parts[0]
    for dotted in imports(parse(name)):
        parts = dotted.split('.')
        if parts[0] != 'xenpool_driver' or room in ('__init__', parts[1]):
            continue
        if room == 'simulator' or parts[1] == 'simulator':
            assert room == 'cli', f"{name} imports {dotted}"
        else:
            assert LEVEL[room] < LEVEL[parts[1]], f"{name} imports {dotted}"


@pytest.mark.parametrize('name', FILES)
def test_each_library_has_one_door(name: str) -> None:
    for dotted in imports(parse(name)):
        library = dotted.split('.')[0]
        place = DOORS.get(library)
        assert place is None or name.startswith(place), f"imports {library}"


@pytest.mark.parametrize('name', FILES)
def test_only_clocks_sleep(name: str) -> None:
    sleeps = [
        node.lineno
        for node in ast.walk(parse(name))
        if isinstance(node, ast.Attribute)
        and node.attr == 'sleep'
        and isinstance(node.value, ast.Name)
        and node.value.id == 'time'
    ]
    assert not sleeps or name in ('clock.py', 'simulator/clock.py'), sleeps
