# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What holds for every command that these tests type."""

from __future__ import annotations

import collections.abc

import pytest

from tests.functional import refusals


@pytest.fixture(scope='session', autouse=True)
def _watch() -> collections.abc.Iterator[refusals.Watch]:
    with refusals.watched() as watch:
        yield watch


@pytest.fixture(autouse=True)
def _refused_means_nothing_happened(
    _watch: refusals.Watch,
) -> collections.abc.Iterator[None]:
    """Hold that status 3 is true, for every command that ends with it."""
    yield
    told, _watch.lies = _watch.lies, []
    assert told == [], 'a command said that nothing had happened'
