# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the matrices share."""

from __future__ import annotations

import collections.abc

import pytest

from tests.matrix import stage


@pytest.fixture(scope='module')
def kept(
    tmp_path_factory: pytest.TempPathFactory,
) -> collections.abc.Iterator[stage.Kept]:
    """What the stages of a module keep."""
    found = stage.Kept(tmp_path_factory.mktemp('stages'))
    yield found
    found.close()
