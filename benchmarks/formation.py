# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Formation of pools of 16, 32 and 64 hosts, in one request each.

Usage: ``python benchmarks/formation.py [--quick]``

The simulator runs in a process of its own at 1/20 of life's time. The unit is
one join alone: from the request until it is settled, measured in the same
run. The sequential way (join, wait, next) is measured with 16 hosts and not
extrapolated.

In the current release joins queue for the exchange of certificates, 0.4 s
each, as XAPI lets them; the column ``queue`` says how many joins' time that
queue alone takes, whoever asks. XCP-ng 8.2 has no such exchange. ``ours`` and
``sim`` are CPU per join. At 1/20 of life's time our CPU weighs twenty times as
much as in life, so the largest pool is also formed at a fifth of life's time.
"""

from __future__ import annotations

import statistics
import time

import lab

EXCHANGE = 0.4
"""Seconds that a join holds the queue (simulator/timings.py)."""

SLOW = 5.0
"""The time-scale at which our CPU weighs less."""

PROFILES = {'current': EXCHANGE, 'xcp-ng-8.2': 0.0}


def alone(profile: str, rounds: int, scale: float) -> float:
    """Print and return the seconds of one join alone."""
    found = []
    options = ('--hosts', str(rounds + 1), '--version-profile', profile)
    with (
        lab.running(*options, scale=scale) as hosts,
        lab.desk(hosts.conf(poll_interval=1 / scale)) as desk,
    ):
        row = desk.create()
        lab.add(desk, row, hosts.names[:1])
        for name in hosts.names[1:]:
            found.append(lab.add(desk, row, [name]))
    one = statistics.median(found)
    print(
        f"{profile:<12}{'one join alone':<15}{one:>9.2f}"
        f"{one * scale:>9.0f}{1:>7.2f}",
        flush=True,
    )
    return one


def form(
    profile: str,
    count: int,
    parallel: int,
    one: float,
    scale: float = lab.SCALE,
) -> float:
    """Form a pool, print a line, return the joins' time that it took."""
    options = ('--hosts', str(count), '--version-profile', profile)
    with lab.running(*options, scale=scale) as hosts:
        conf = hosts.conf(max_parallel_joins=parallel, poll_interval=1 / scale)
        with lab.desk(conf) as desk:
            row = desk.create()
            before = time.process_time(), hosts.cpu()
            seconds = lab.add(desk, row, hosts.names)
            ours = time.process_time() - before[0]
            theirs = hosts.cpu() - before[1]
            assert len(row.hosts) == count
    queue = (count - 1) * PROFILES[profile] / scale / one
    print(
        f"{profile:<12}{count:>6}{parallel:>9}{seconds:>9.2f}"
        f"{seconds * scale:>9.0f}{seconds / one:>7.2f}{queue:>7.2f}"
        f"{ours / (count - 1) * 1e3:>9.0f}{theirs / (count - 1) * 1e3:>9.0f}",
        flush=True,
    )
    return seconds / one


def main() -> None:
    """Measure each size."""
    quick = lab.arguments(__doc__).quick
    sizes = [16] if quick else [16, 32, 64]
    print(
        f"{'release':<12}{'hosts':>6}{'parallel':>9}{'s':>9}{'life s':>9}"
        f"{'joins':>7}{'queue':>7}{'ours ms':>9}{'sim ms':>9}"
    )
    for profile in PROFILES:
        one = alone(profile, 3 if quick else 5, lab.SCALE)
        sequential = form(profile, 16, 1, one)
        found = {}
        for count in sizes:
            for parallel in (8, 32):
                found[count, parallel] = form(profile, count, parallel, one)
        print(
            f"  16 hosts, 8 at a time: {sequential / found[16, 8]:.1f} times "
            f"as fast as one after the other"
        )
        if not quick:
            judge(8, 12.0, found[64, 8])
            judge(32, 3.0, found[64, 32])
            print(f"  at 1/{SLOW:g} of life's time:")
            one = alone(profile, 3, SLOW)
            judge(8, 12.0, form(profile, 64, 8, one, SLOW))
            judge(32, 3.0, form(profile, 64, 32, one, SLOW))


def judge(parallel: int, limit: float, joins: float) -> None:
    """Say whether 64 hosts took no longer than they should."""
    print(
        f"  64 hosts, {parallel} at a time: {joins:.2f} joins' time "
        f"{lab.verdict(joins, limit)}",
        flush=True,
    )


if __name__ == '__main__':
    main()
