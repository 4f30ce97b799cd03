# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Time that our code adds to a verb, over its bare XAPI calls, at 20 ms.

Usage: ``python benchmarks/overhead.py [--quick]``

The simulator delays every call by 20 ms. Each exchange is clocked at the last
place before the network, under ``XenAPI.Session`` and ``/jsonrpc``, and so is
each pause between two looks at a host that restarts: whoever makes the bare
calls waits for both as well. All other time is added by our code and by the
database, whose journal is on disk before each call that changes something.
The time-scale is 20, so that a join's waiting is a twentieth of life's, and
the part that is added shows up to twenty times as large.
"""

from __future__ import annotations

import collections.abc
import statistics
import time
import typing

import lab

from xenpool_driver import clock
from xenpool_driver.xapi import transport

DELAY = 0.02

Span = tuple[float, float]

PLACES = ((transport.Transport, 'post'), (clock.SystemClock, 'sleep'))
"""Where whoever makes the bare calls would spend time, too."""


class Recorder:
    """Clocks exchanges and pauses, as the caller sees them."""

    def __init__(self) -> None:
        self.exchanges: list[Span] = []
        self.pauses: list[Span] = []
        self._originals = [getattr(cls, name) for cls, name in PLACES]

    def __enter__(self) -> Recorder:
        for (cls, name), original, spans in zip(
            PLACES,
            self._originals,
            (self.exchanges, self.pauses),
            strict=True,
        ):
            setattr(cls, name, _clocked(original, spans))
        return self

    def __exit__(self, *exc_info: object) -> None:
        for (cls, name), original in zip(PLACES, self._originals, strict=True):
            setattr(cls, name, original)

    def busy(self) -> float:
        """Return the seconds in which at least one of them was going on."""
        total, until = 0.0, 0.0
        for began, ended in sorted(self.exchanges + self.pauses):
            total += max(0.0, ended - max(began, until))
            until = max(until, ended)
        return total


def _clocked(
    original: collections.abc.Callable[..., typing.Any], spans: list[Span]
) -> collections.abc.Callable[..., typing.Any]:
    """Return ``original``, with a note of when it was under way."""

    def call(*args: typing.Any) -> typing.Any:
        began = time.perf_counter()
        try:
            return original(*args)
        finally:
            spans.append((began, time.perf_counter()))

    return call


def measure(act: collections.abc.Callable[[], object]) -> tuple[float, ...]:
    """Return seconds in all, seconds of bare calls, and their number."""
    with Recorder() as recorder:
        began = time.perf_counter()
        act()
        seconds = time.perf_counter() - began
    return seconds, recorder.busy(), float(len(recorder.exchanges))


def show(name: str, rounds: list[tuple[float, ...]]) -> float:
    """Print the median of some rounds; return the added part."""
    seconds, bare, calls = map(statistics.median, zip(*rounds, strict=True))
    added = (seconds - bare) / bare
    print(
        f"{name:<14}{calls:>6.0f}{bare * 1e3:>10.1f}{seconds * 1e3:>10.1f}"
        f"{added * 100:>9.1f}  {lab.verdict(added * 100, 5)}",
        flush=True,
    )
    return added


def main() -> None:
    """Measure each verb."""
    rounds = 2 if lab.arguments(__doc__).quick else 6
    print(
        f"{'verb':<14}{'calls':>6}{'bare ms':>10}{'verb ms':>10}{'added %':>9}"
    )
    with (
        lab.running('--hosts', '3') as hosts,
        lab.desk(hosts.conf()) as desk,
    ):
        rule = {'kind': 'delay', 'seconds': DELAY * lab.SCALE}
        hosts.ask('POST', 'faults', {'actions': [rule], 'times': None})
        found: dict[str, list[tuple[float, ...]]] = {}
        for number in range(rounds + 1):  # the first one warms up
            row = desk.create(f"a{number}")
            for name, act in story(desk, row.uuid, *hosts.names):
                found.setdefault(name, []).append(measure(act))
        for name, each in found.items():
            show(name, each[1:])


def story(
    desk: lab.Desk, uuid: str, one: str, two: str, three: str
) -> collections.abc.Iterator[
    tuple[str, collections.abc.Callable[[], object]]
]:
    """Yield the verbs of a pool's life, in order."""
    api = desk.api
    yield 'set-up', lambda: add(desk, uuid, one)
    yield 'check', lambda: api.check_hosts(None, uuid, [two])
    yield 'join', lambda: add(desk, uuid, two)
    yield 'join', lambda: add(desk, uuid, three)
    yield 'join again', lambda: add(desk, uuid, two)
    yield 'audit', lambda: api.audit(None, uuid)
    yield 'set master', lambda: api.set_master(None, uuid, two)
    for host in (three, one):
        yield (
            'remove, wait',
            lambda host=host: api.remove_host(
                None, uuid, host, allow_data_loss=True, wait=True
            ),
        )
    yield 'last host', lambda: api.remove_host(None, uuid, two)


def add(desk: lab.Desk, uuid: str, host: str) -> None:
    """Add a host, which must succeed."""
    (result,) = desk.api.add_hosts(None, uuid, [host])
    assert result.error is None, result.error


if __name__ == '__main__':
    main()
