# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A toolstack that restarts, as clients meet it.

What speaks TLS on port 443 is a program of its own: it lets callers in while
there is nobody behind it, and they get no answer. So it was recorded; a
client must not take that for a refused connection, after which nothing can
have happened.
"""

from __future__ import annotations

import collections.abc
import http.client
import os
import ssl
import threading
import time

import pytest
import XenAPI

from tests import broken_off
from xenpool_driver.simulator import mishaps, simulation

ADDRESS = f"127.90.{2 + os.getpid() % 100}.201"
PATIENCE = 20.0
"""Real seconds for threads to do what the clock let them."""


@pytest.fixture
def lab() -> collections.abc.Iterator[simulation.Simulation]:
    """One host; time stands still unless it is pushed."""
    with simulation.Simulation(
        hosts=1, address=ADDRESS, port=0, http_port=0, time_scale=0, seed=1
    ) as running:
        yield running


def knock(lab: simulation.Simulation, kind: str) -> str:
    """Return what comes of a request."""
    host = lab.hosts[0]
    url = host.url if kind == 'https' else host.http_url
    port = int(url.rpartition(':')[2])
    connection: http.client.HTTPConnection
    if kind == 'https':
        context = ssl.create_default_context(cafile=str(lab.ca_file))
        connection = http.client.HTTPSConnection(
            host.address, port, timeout=PATIENCE, context=context
        )
    else:
        connection = http.client.HTTPConnection(host.address, port, PATIENCE)
    try:
        connection.request('POST', '/', '<methodCall/>')
        return f"status {connection.getresponse().status}"
    except ConnectionRefusedError:
        return 'refused'
    except broken_off.BROKEN_OFF:
        return 'let in, no answer'
    finally:
        connection.close()


def until(lab: simulation.Simulation, kind: str, wanted: str) -> None:
    """Wait until a request ends like this; time does not pass meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while (said := knock(lab, kind)) != wanted:
        assert time.monotonic() < deadline, said


def test_a_restart_of_the_toolstack(lab: simulation.Simulation) -> None:
    durations = lab.world.timings
    until(lab, 'https', 'status 500')
    mishaps.MISHAPS['kill-toolstack'](lab.named('xen01'))
    assert knock(lab, 'http') == 'refused'
    assert knock(lab, 'https') == 'let in, no answer'
    lab.clock.advance(durations.restart)
    until(lab, 'http', 'status 500')
    assert knock(lab, 'https') == 'refused'
    lab.clock.advance(durations.master_https)
    until(lab, 'https', 'status 500')


def test_a_call_that_was_under_way_gets_no_answer(
    lab: simulation.Simulation,
) -> None:
    number = lab.faults.delay('pool.sync_database', 5.0)
    session = XenAPI.Session(lab.hosts[0].url, ignore_ssl=True)
    session.xenapi.login_with_password('root', 'xenroot', '1.0', 'test')
    ends: list[BaseException] = []

    def call() -> None:
        try:
            session.xenapi.pool.sync_database()
        except broken_off.BROKEN_OFF as error:
            ends.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    deadline = time.monotonic() + PATIENCE
    while not lab.faults.rules()[number][1]:
        assert time.monotonic() < deadline
    mishaps.MISHAPS['kill-toolstack'](lab.named('xen01'))
    caller.join(PATIENCE)
    assert ends
    assert not isinstance(ends[0], ConnectionRefusedError)
    session('close')()


def test_a_machine_that_is_off_refuses(lab: simulation.Simulation) -> None:
    mishaps.MISHAPS['kill'](lab.named('xen01'))
    assert knock(lab, 'http') == 'refused'
    assert knock(lab, 'https') == 'refused'
