# Licensed under the Apache License, Version 2.0; see LICENSE.
"""One thing for many: made once, closed when the last has done with it."""

from __future__ import annotations

import os
import threading

import pytest

from xenpool_driver import sharing


class Thing:
    """Something that is made."""


def test_one_thing_for_all_who_take_it() -> None:
    shared: sharing.Shared[Thing] = sharing.Shared()
    first = shared.take('a', Thing)
    assert shared.take('a', Thing) is first
    assert shared.take('b', Thing) is not first
    assert not shared.give_back(first)
    assert shared.give_back(first)
    assert shared.take('a', Thing) is not first


def test_what_is_not_shared_may_be_closed() -> None:
    shared: sharing.Shared[Thing] = sharing.Shared()
    shared.take('a', Thing)
    assert shared.give_back(Thing())


def test_nothing_is_kept_of_what_could_not_be_made() -> None:
    shared: sharing.Shared[Thing] = sharing.Shared()

    def fail() -> Thing:
        raise OSError('no')

    with pytest.raises(OSError, match='no'):
        shared.take('a', fail)
    assert shared.give_back(shared.take('a', Thing))


def test_threads_that_take_at_once_get_the_same() -> None:
    shared: sharing.Shared[Thing] = sharing.Shared()
    barrier = threading.Barrier(8)
    got: list[Thing] = []

    def take() -> None:
        barrier.wait(60)
        got.append(shared.take('a', Thing))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert set(got) == {got[0]}
    assert [shared.give_back(got[0]) for _ in range(8)] == [
        *[False] * 7,
        True,
    ]


def test_a_forked_child_has_its_own() -> None:
    shared: sharing.Shared[Thing] = sharing.Shared()
    mine = shared.take('a', Thing)
    child = os.fork()
    if not child:
        os._exit(0 if shared.take('a', Thing) is not mine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shared.take('a', Thing) is mine
