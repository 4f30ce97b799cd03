# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The plug-in in a process that eventlet has patched, as Nova's was."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

from tests.functional import driver_lab
from xenpool_driver import pool_states

ROOT = pathlib.Path(__file__).parents[2]

SECONDS = 120.0
"""How long the whole life may take, on a busy machine."""


def test_a_pool_lives_through_a_patched_service(
    tmp_path: pathlib.Path,
) -> None:
    with driver_lab.simulation(3) as lab:
        path = driver_lab.configuration(lab, tmp_path, allow_data_loss=True)
        hosts = [host.name for host in lab.hosts]
        done = subprocess.run(
            [
                sys.executable,
                '-m',
                'tests.functional.patched_service',
                str(path),
                *hosts,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout.splitlines()[-1])
        driver_lab.settle(lab)
        pools = driver_lab.pools(lab)
        uuids = {host.name: host.uuid for host in lab.hosts}
    assert seen['patched']
    assert seen['raised'] == []
    formed, metadata = seen['formed']
    assert formed == hosts
    assert metadata[pool_states.MASTER] == hosts[1]
    assert {host: metadata[host] for host in hosts} == uuids
    assert seen['audit'] == []
    assert seen['left'] == []
    assert seen['stood still'] < seen['lasted'] / 2
    assert [pool.members for pool in pools] == [{host} for host in hosts]
    assert {pool.stamp for pool in pools} == {''}
