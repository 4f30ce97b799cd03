# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the package announces to others exists and loads."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.metadata
import pathlib
import re
import sys
import typing

import pytest

import xenpool_driver
from xenpool_driver import base, conf, driver, exceptions

TOP = pathlib.Path(__file__).parents[2]

SETUP = configparser.ConfigParser()
SETUP.read(TOP / 'setup.cfg')

# What a package of another name provides.
PROVIDED_BY = {
    'yaml': 'pyyaml',
    'pymysql': 'pymysql',
    'oslo_config': 'oslo.config',
    'oslo_context': 'oslo.context',
    'oslo_log': 'oslo.log',
    'oslo_messaging': 'oslo.messaging',
    'oslo_service': 'oslo.service',
}


def declared() -> list[importlib.metadata.EntryPoint]:
    """Return the entry points that setup.cfg declares."""
    return [
        importlib.metadata.EntryPoint(name.strip(), value.strip(), group)
        for group, lines in SETUP['options.entry_points'].items()
        for name, _, value in (
            line.partition('=') for line in lines.strip().splitlines() if line
        )
    ]


def requirements(*sections: str) -> set[str]:
    """Return the lower-case names of the required distributions."""
    return {
        re.split(r'[\[<>=!~; ]', line.strip())[0].lower()
        for text in sections
        for line in text.strip().splitlines()
    }


@pytest.mark.parametrize(
    'point', declared(), ids=lambda point: f"{point.group}:{point.name}"
)
def test_every_entry_point_loads(
    point: importlib.metadata.EntryPoint,
) -> None:
    assert callable(point.load())


def test_the_installed_package_announces_what_is_declared() -> None:
    installed = importlib.metadata.distribution('xenpool-driver').entry_points
    known = {(point.group, point.name, point.value) for point in installed}
    assert {(p.group, p.name, p.value) for p in declared()} <= known


def test_the_driver_is_found_by_its_name() -> None:
    point = next(
        point for point in declared() if point.group == base.NAMESPACE
    )
    assert point.name == conf.load([]).xenpool.compute_driver
    assert issubclass(point.load(), base.PoolDriver)


def test_an_unknown_driver_is_named() -> None:
    loaded = conf.load([])
    loaded.set_override('compute_driver', 'abacus', group='xenpool')
    with pytest.raises(exceptions.ConfigurationError, match='abacus'):
        base.load_driver(loaded)


def test_a_driver_that_breaks_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: typing.Any, **kwargs: typing.Any) -> None:
        raise ImportError('no abacus here')

    monkeypatch.setattr(driver.XenAPIPoolDriver, '__init__', broken)
    with pytest.raises(exceptions.ConfigurationError) as caught:
        base.load_driver(conf.load([]))
    assert 'xenapi' in str(caught.value)
    assert 'no abacus here' in str(caught.value)


def test_every_public_module_is_there_and_explained() -> None:
    names = xenpool_driver.__all__
    assert names == sorted(names)
    for name in names:
        assert importlib.import_module(f"xenpool_driver.{name}").__doc__


def test_imports_and_declared_dependencies_are_the_same() -> None:
    extras = SETUP['options.extras_require']
    wanted = requirements(
        SETUP['options']['install_requires'],
        *(extras[name] for name in ('simulator', 'service')),
    )
    servers = requirements(*(extras[name] for name in ('postgresql', 'mysql')))
    missing, used = set(), set()
    for path in (TOP / 'xenpool_driver').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for library in {name.split('.')[0] for name in names}:
                if library in sys.stdlib_module_names | {'xenpool_driver'}:
                    continue
                package = PROVIDED_BY.get(library, library.lower())
                used.add(package)
                if package not in wanted | servers:
                    missing.add((library, str(path.relative_to(TOP))))
    assert missing == set()
    assert wanted - used == set()


def test_every_data_file_is_packaged() -> None:
    patterns = SETUP['options.package_data']
    unpacked = [
        str(path.relative_to(TOP))
        for path in (TOP / 'xenpool_driver').rglob('*')
        if path.is_file()
        and path.suffix not in ('.py', '.pyc')
        and not any(
            path.match(f"{package.replace('.', '/')}/{pattern}")
            for package, lines in patterns.items()
            for pattern in lines.split()
        )
    ]
    assert unpacked == []


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in (TOP / 'xenpool_driver').rglob('*.py')}
    assert [f for f in folders if not (f / '__init__.py').exists()] == []
