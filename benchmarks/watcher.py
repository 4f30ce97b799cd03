# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What watching costs while nothing happens.

Usage: ``python benchmarks/watcher.py [--quick]``

``xenpool watch --hosts`` in a process of its own over stand-alone hosts, each
of which holds a call to it for 30 s, as XAPI does; time is life's. First one
host, then 1,000. When all were found and what the logins left is settled,
its memory and processor time are read from /proc for two minutes. XAPI calls
are counted by the simulator.
"""

from __future__ import annotations

import collections.abc
import contextlib
import os
import pathlib
import subprocess
import sys
import time
import typing

import lab

SETTLE = 35.0
"""Seconds after which each host has answered once with nothing new."""

TICKS = os.sysconf('SC_CLK_TCK')


class Cost(typing.NamedTuple):
    """What a watcher takes while it is idle.

    :ivar memory: resident, MB.
    :ivar cpu: seconds of a processor per minute.
    :ivar calls: XAPI calls per host and minute.
    """

    memory: float
    cpu: float
    calls: float


@contextlib.contextmanager
def watching(hosts: lab.Lab) -> collections.abc.Iterator[int]:
    """Run ``xenpool watch`` until all hosts were found; yield its id."""
    [path] = hosts.conf().default_config_files
    command = [
        *(sys.executable, '-m', 'xenpool_driver.cli.main'),
        *('--config-file', path, 'watch', '--hosts'),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = typing.cast(typing.TextIO, process.stdout)
            for _ in hosts.names:
                line = lines.readline()
                assert ' is master of 1' in line, line
            yield process.pid
        finally:
            process.terminate()


def memory(pid: int) -> float:
    """Return how many MB a process holds."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    [line] = (x for x in status.splitlines() if x.startswith('VmRSS:'))
    return int(line.split()[1]) / 1000


def cpu(pid: int) -> float:
    """Return the seconds of a processor that a process has used."""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    fields = text.rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(count: int, seconds: float) -> Cost:
    """Watch so many hosts; print and return what that takes."""
    with lab.running('--hosts', str(count), scale=1.0) as hosts:
        began = time.monotonic()
        with watching(hosts) as pid:
            found = time.monotonic() - began
            start = cpu(pid)
            time.sleep(SETTLE)
            hosts.ask('DELETE', 'calls')
            before = cpu(pid)
            time.sleep(seconds)
            used = cpu(pid) - before
            told = [
                n for calls in hosts.calls().values() for n in calls.items()
            ]
            size = memory(pid)
    methods = {method for method, _ in told}
    assert methods == {'event.from'}, methods
    minutes = seconds / 60
    cost = Cost(
        size,
        used / minutes,
        sum(number for _, number in told) / count / minutes,
    )
    print(
        f"{count:>6}{found:>10.1f}{start:>10.1f}{cost.memory:>10.0f}"
        f"{cost.cpu:>12.2f}{cost.calls:>12.2f}",
        flush=True,
    )
    return cost


def main() -> None:
    """Measure one host and many."""
    quick = lab.arguments(__doc__).quick
    count, seconds = (50, 60.0) if quick else (1000, 120.0)
    print(
        f"{'hosts':>6}{'found s':>10}{'CPU s':>10}{'RSS MB':>10}"
        f"{'CPU s/min':>12}{'calls/min':>12}"
    )
    one = measure(1, seconds)
    many = measure(count, seconds)
    each = (many.memory - one.memory) * 1000 / (count - 1)
    print(
        f"  each host: {each:.0f} kB, "
        f"{(many.cpu - one.cpu) / (count - 1) * 1e3:.2f} ms/min; "
        f"all: {many.cpu / 60:.1%} of a processor, "
        f"{many.memory / one.memory:.1f} times one host's memory"
    )


if __name__ == '__main__':
    main()
