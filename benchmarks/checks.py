# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The precheck of 63 joiners against one's; the audit of 64 members.

Usage: ``python benchmarks/checks.py [--quick]``

The simulator delays every call by 20 ms. The precheck of many reads the pool
once and all joiners at the same time. The audit asks each member for its own
view of the master by a login of its own.
"""

from __future__ import annotations

import collections.abc
import pathlib
import statistics
import tempfile
import time

import lab

DELAY = 0.02
LIMIT_CHECK, LIMIT_AUDIT = 4.0, 2.0


def seconds(act: collections.abc.Callable[[], object], rounds: int) -> float:
    """Return the median seconds of some rounds, after one to warm up."""
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def slow(hosts: lab.Lab, scale: float) -> None:
    """Let every call take 20 ms longer."""
    rule = {'kind': 'delay', 'seconds': DELAY * scale}
    hosts.ask('POST', 'faults', {'actions': [rule], 'times': None})


def prechecks(count: int, rounds: int) -> None:
    """Measure the precheck of many joiners against that of one."""
    with (
        lab.running('--hosts', str(count)) as hosts,
        lab.desk(hosts.conf()) as desk,
    ):
        row = desk.create()
        lab.add(desk, row, hosts.names[:1])
        slow(hosts, lab.SCALE)

        def check(names: list[str]) -> None:
            for report in desk.api.check_hosts(None, row.uuid, names):
                assert not report.failures, report.failures

        # as a command does it: nobody is logged in before
        one = seconds(lambda: fresh(hosts, desk, row, 1), rounds)
        many = seconds(lambda: fresh(hosts, desk, row, count - 1), rounds)
        print(f"precheck of one joiner       {one:>8.3f} s")
        print(
            f"precheck of {count - 1:>2} joiners      {many:>8.3f} s"
            f"{many / one:>7.2f} {lab.verdict(many / one, LIMIT_CHECK)}"
        )
        warm = seconds(lambda: check(hosts.names[1:2]), rounds)
        hot = seconds(lambda: check(hosts.names[1:]), rounds)
        print(
            f"the same, logged in already  {warm:>8.3f} s{hot:>9.3f} s"
            f"{hot / warm:>7.2f}",
            flush=True,
        )


def fresh(
    hosts: lab.Lab, desk: lab.Desk, row: lab.store.Aggregate, count: int
) -> None:
    """Check joiners by a driver that has just started."""
    with lab.desk(desk.conf) as other:
        names = hosts.names[1 : count + 1]
        for report in other.api.check_hosts(None, row.uuid, names):
            assert not report.failures, report.failures


def audit(count: int, rounds: int) -> None:
    """Measure the audit of a pool of many members."""
    pool = '\n'.join(
        ['pools:', '  - name: rack1', '    hosts:']
        + [f"      - name: xen{number:02}" for number in range(count)]
    )
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / 'pool.yaml'
        path.write_text(pool + '\n')
        with (
            lab.running('--topology', str(path)) as hosts,
            lab.desk(hosts.conf()) as desk,
        ):
            row = desk.api.adopt(None, 'rack1', hosts.names[0])
            assert len(row.hosts) == count, row.hosts
            slow(hosts, lab.SCALE)
            found = seconds(lambda: desk.api.audit(None, row.uuid), rounds)
            print(
                f"audit of {count} members         {found:>8.3f} s "
                f"{lab.verdict(found, LIMIT_AUDIT)}",
                flush=True,
            )


def main() -> None:
    """Measure both."""
    quick = lab.arguments(__doc__).quick
    prechecks(16 if quick else 64, 2 if quick else 5)
    audit(16 if quick else 64, 2 if quick else 5)


if __name__ == '__main__':
    main()
