# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Bulk reads of 64 hosts and 2,000 VMs: JSON-RPC with orjson and XML-RPC.

Usage: ``python benchmarks/reads.py [--quick]``

Both go through the driver's own session, over TLS, to the same simulated
pool, in turns; the records must be equal. ``in all`` includes the simulator's
work, ``parse`` is what is left of it when the answer is there: the time of
this process's CPU.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
import typing

import lab

from xenpool_driver import conf as config
from xenpool_driver.xapi import session


def topology(hosts: int, vms: int) -> str:
    """Return a pool as a topology file describes it."""
    lines = ['pools:', '  - name: rack1', '    hosts:']
    lines += [f"      - name: xen{number:02}" for number in range(hosts)]
    lines += ['    vms:']
    lines += [
        f"      - {{name: vm{number}, host: xen{number % hosts:02}, "
        f"memory_gib: 1}}"
        for number in range(vms)
    ]
    return '\n'.join(lines) + '\n'


def measure(
    home: session.HostSession, method: str
) -> tuple[float, float, typing.Any]:
    """Return seconds in all, seconds of our CPU, and the records."""
    began, cpu = time.perf_counter(), time.process_time()
    found = home.read_all(method)
    return (
        time.perf_counter() - began,
        time.process_time() - cpu,
        found,
    )


def compare(
    homes: dict[str, session.HostSession], cls: str, rounds: int
) -> None:
    """Read a class both ways in turns, and print a line for each."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in homes}
    records = {}
    for _ in range(rounds + 1):
        for name, home in homes.items():
            took, cpu, records[name] = measure(home, f"{cls}.get_all_records")
            times[name].append((took, cpu))
    one, other = records.values()
    assert one == other, f"{cls}: the two ways differ"
    first: tuple[float, float] | None = None
    for name, found in times.items():
        took = statistics.median(each[0] for each in found[1:])
        cpu = statistics.median(each[1] for each in found[1:])
        first = first or (took, cpu)
        print(
            f"{cls:<6}{len(one):>6} {name:<9}{took * 1e3:>9.1f}"
            f"{first[0] / took:>7.2f}{cpu * 1e3:>9.1f}{first[1] / cpu:>7.2f}",
            flush=True,
        )


def main() -> None:
    """Measure both classes."""
    quick = lab.arguments(__doc__).quick
    hosts, vms, rounds = (8, 100, 3) if quick else (64, 2000, 7)
    print(
        f"{'class':<6}{'count':>6} {'way':<9}{'in all':>9}{'times':>7}"
        f"{'parse':>9}{'times':>7}  (ms; times as fast as XML-RPC)"
    )
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / 'pool.yaml'
        path.write_text(topology(hosts, vms))
        with lab.running('--topology', str(path)) as running:
            conf = running.conf()
            access = config.host_access(conf, running.names[0])
            homes = {
                'XML-RPC': session.HostSession(access),
                'JSON-RPC': session.HostSession(access),
            }
            homes['XML-RPC'].read_all = (  # type: ignore[method-assign]
                by_xml(homes['XML-RPC'])
            )
            for cls in ('host', 'VM'):
                compare(homes, cls, rounds)
            for home in homes.values():
                home.logout()


def by_xml(home: session.HostSession) -> typing.Any:
    """Return a bulk read that does not try JSON-RPC."""
    return lambda method: session.jsonrpc.alike(home.read(method))


if __name__ == '__main__':
    main()
