# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A compute service of another maker that eventlet has patched.

A program of its own, since a patched process stays patched: it patches
first, as ``nova/monkey_patch.py`` of Nova 21 did, and then leads aggregates
through the driver. The answer on its last line is JSON.

Arguments: the configuration file, then the hosts: the first becomes master.
"""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import json  # noqa: E402 - after the patching
import select  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import typing  # noqa: E402

from tests.functional import driver_lab, nova  # noqa: E402
from xenpool_driver import base  # noqa: E402
from xenpool_driver import conf as config  # noqa: E402

TICK = 0.02
"""Seconds between two signs of life of the rest of the service."""


class Beat:
    """Shows whether the rest of the service goes on meanwhile.

    :ivar longest: the longest time, in seconds, for which it stood still.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


def main(path: str, hosts: list[str]) -> dict[str, typing.Any]:
    """Form a pool, change its master, empty it; return what was seen."""
    conf = config.load([path])
    driver = base.load_driver(conf)
    for host in hosts:
        driver.init_host(host)
    service = nova.Service(driver)
    beat = Beat()
    began = time.monotonic()
    ident = service.create('patched', driver_lab.FLAGS)
    raised: list[Exception] = []
    for host in hosts:
        service.add_host(ident, host)
        raised += service.handle()
    driver.set_aggregate_master(None, service.read(ident), hosts[1])
    formed = service.read(ident)
    audit = driver.audit_aggregate(None, service.read(ident))
    for host in (*hosts[2:], hosts[0], hosts[1]):
        service.remove_host(ident, host)
        raised += service.handle()
    left = service.read(ident)
    return {
        'patched': not hasattr(select, 'poll'),
        'raised': [f"{type(each).__name__}: {each}" for each in raised],
        'formed': [formed.hosts, formed.metadata],
        'audit': [each.message for each in audit.failures],
        'left': left.hosts,
        'stood still': beat.longest,
        'lasted': time.monotonic() - began,
    }


if __name__ == '__main__':
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
