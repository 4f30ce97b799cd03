# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What every test may use."""

from __future__ import annotations

import collections.abc
import os
import pathlib

import hypothesis
import pytest

from tests import typed

pytest_plugins = ('tests.services',)

RECORDINGS = pathlib.Path(__file__).parent / 'data' / 'recordings'

# Profiles of one and the same code: CI's is short, the matrix is whole.
hypothesis.settings.register_profile('default', deadline=None)
hypothesis.settings.register_profile(
    'ci', deadline=None, max_examples=30, derandomize=True
)
hypothesis.settings.register_profile(
    'matrix', deadline=None, max_examples=2000
)
PROFILE = os.environ.get('XENPOOL_TEST_PROFILE', 'default')
hypothesis.settings.load_profile(PROFILE)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test out of the configuration and state of its user."""
    home = tmp_path / 'home'
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.setenv('XDG_STATE_HOME', str(home / 'state'))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(home / 'config'))


@pytest.fixture(scope='session')
def profile() -> str:
    """How much is wanted: ``ci`` (short), ``default`` or ``matrix``."""
    return PROFILE


@pytest.fixture(scope='session')
def recordings() -> pathlib.Path:
    """The directory of what a real XAPI answered (see its README)."""
    return RECORDINGS


@pytest.fixture(scope='session')
def records_dir() -> pathlib.Path:
    """The directory of more pools' records, too large to be kept here."""
    name = os.environ.get('XENPOOL_RECORDS_DIR')
    if not name:
        pytest.skip('XENPOOL_RECORDS_DIR names no directory of records')
    return pathlib.Path(name)


@pytest.fixture(scope='session', autouse=True)
def _remedies() -> collections.abc.Iterator[list[str]]:
    """Yield what is wrong with the commands that were told so far."""
    found: list[str] = []
    seen: set[tuple[str, bool]] = set()

    def told(text: str, is_remedy: bool) -> None:
        if (text, is_remedy) not in seen:
            seen.add((text, is_remedy))
            found.extend(typed.complaints(text, is_remedy))

    stop = typed.listen(told)
    yield found
    stop()


@pytest.fixture(autouse=True)
def _remedies_work(
    request: pytest.FixtureRequest, _remedies: list[str]
) -> collections.abc.Iterator[None]:
    """Hold every remedy that a test makes against the real parsers."""
    _remedies.clear()
    yield
    if request.node.get_closest_marker('odd_names') is None:
        assert _remedies == [], 'a remedy cannot be typed as it stands'
