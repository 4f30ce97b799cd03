# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Xen Orchestra's own client works against simulated hosts, unmodified.

It is installed from wherever npm gets its packages; where that, or node, is
not to be had, the test is skipped with the reason.
"""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import shutil
import subprocess
import typing

import pytest

from tests import services
from xenpool_driver.simulator import simulation

CLIENT = pathlib.Path(__file__).parent / 'xen_api_client'
ADDRESS = f"127.90.{100 + os.getpid() % 80}.1"
PASSWORD = 'xenroot'
SCALE = 20.0
INSTALL_TIMEOUT = 150
RUN_TIMEOUT = 100

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Steps = dict[str, dict[str, typing.Any]]


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a directory with the client in its node_modules."""
    for program in ('node', 'npm'):
        if shutil.which(program) is None:
            services.missing(f"{program} is not installed")
    place = tmp_path_factory.mktemp('xen-api')
    for name in ('package.json', 'watch.mjs'):
        shutil.copy(CLIENT / name, place)
    command = ['npm', 'install', '--no-audit', '--no-fund']
    command += ['--no-package-lock', '--ignore-scripts']
    try:
        done = subprocess.run(
            command,
            cwd=place,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        services.missing(f"npm install: no end in {INSTALL_TIMEOUT} s")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ['no reason given'])[0]
        services.missing(f"npm install: {reason}")
    return place


@pytest.fixture
def lab() -> collections.abc.Iterator[simulation.Simulation]:
    with simulation.Simulation(
        hosts=2,
        address=ADDRESS,
        http_port=None,
        time_scale=SCALE,
        seed=1,
    ) as running:
        yield running


def watch(
    place: pathlib.Path, lab: simulation.Simulation, transport: str
) -> tuple[Steps, str]:
    """Let the client watch; return its steps and what it complained of."""
    pool, joiner = lab.hosts
    done = subprocess.run(
        ['node', 'watch.mjs'],
        cwd=place,
        env={
            'PATH': os.environ['PATH'],
            'NODE_EXTRA_CA_CERTS': str(lab.ca_file),
            'POOL_URL': pool.url,
            'POOL_ADDRESS': pool.address,
            'JOINER_URL': joiner.url,
            'PASSWORD': PASSWORD,
            'TRANSPORT': transport,
        },
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    return {step.pop('step'): step for step in steps}, done.stderr


@pytest.mark.parametrize('transport', ['json-rpc', 'xml-rpc', 'auto'])
def test_it_watches_a_join_through_events(
    installed: pathlib.Path, lab: simulation.Simulation, transport: str
) -> None:
    steps, complaints = watch(installed, lab, transport)
    pool, joiner = lab.hosts
    assert steps['loaded']['master'] == pool.uuid
    assert steps['loaded']['counts']['host'] == 1
    assert steps['enabled']['uuid'] == joiner.uuid
    seen = steps['enabled']['seen']
    assert seen[0] == 'absent'
    assert seen[-1] == 'enabled=true live=true'
    assert any(word.startswith('enabled=false') for word in seen)
    assert steps['enabled']['hosts'] == 2
    assert steps['enabled']['pifs'] == ['eth0', 'eth1']
    assert steps['enabled']['networks'] is True
    assert steps['redirected']['pool'] == steps['loaded']['pool']
    assert steps['refused'] == {
        'code': 'HANDLE_INVALID',
        'params': ['host', 'OpaqueRef:none'],
    }
    assert list(steps)[-2:] == ['ejected', 'done']
    assert complaints == ''
