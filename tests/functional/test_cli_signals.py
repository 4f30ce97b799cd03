# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Ctrl-C and SIGTERM while a request changes a pool."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import shlex
import signal
import subprocess
import sys
import typing

import pytest

from tests.functional import cli_lab
from xenpool_driver import simulator
from xenpool_driver.cli import main

XENPOOL = [sys.executable, '-m', 'xenpool_driver.cli.main']

Child = subprocess.Popen[str]


@pytest.fixture
def lab() -> collections.abc.Iterator[simulator.Simulation]:
    hosts = cli_lab.simulation(2, scale=10.0)
    hosts.start()
    yield hosts
    hosts.stop()


@contextlib.contextmanager
def joining(
    lab: simulator.Simulation, tmp_path: pathlib.Path
) -> collections.abc.Iterator[tuple[Child, list[str]]]:
    """Run a command that lets a host join, up to the join itself."""
    path = cli_lab.write_config(tmp_path / 'x.conf', lab)
    options = ['--config-file', str(path)]
    assert main.main([*options, 'aggregate', 'create', 'web']) == 0
    add = ['aggregate', 'add', 'host', 'web']
    assert main.main([*options, *add, 'xen01']) == 0
    with subprocess.Popen(
        [*XENPOOL, *options, *add, 'xen02'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            until(child, 'xen02: join')
            yield child, options
        finally:
            child.kill()


def until(child: Child, text: str) -> str:
    """Return the first line on stderr that has a text in it."""
    stderr = typing.cast(typing.TextIO, child.stderr)
    for line in stderr:
        if text in line:
            return line
    raise AssertionError(f"the command ended without {text!r}")


def run(options: list[str], words: list[str]) -> int:
    """Type a command that was printed."""
    start = words.index('aggregate' if 'aggregate' in words else 'operation')
    return main.main([*options, *words[start:]])


def test_the_first_one_waits_for_the_end(
    lab: simulator.Simulation,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is answered, and the request's result is that of the command."""
    with joining(lab, tmp_path) as (child, options):
        child.send_signal(signal.SIGINT)
        line = until(child, 'Ctrl-C: the request for web goes on')
        assert 'A second Ctrl-C leaves at once' in line
        shown = line.partition('Follow it: ')[2].partition('. ')[0]
        assert 'operation show' in shown
        assert run(options, shlex.split(shown)) == 0
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
    assert 'xen02' in out
    assert 'succeeded' in out
    capfd.readouterr()


@pytest.mark.parametrize(
    ('number', 'name', 'status'),
    [(signal.SIGINT, 'Ctrl-C', 130), (signal.SIGTERM, 'SIGTERM', 143)],
)
def test_the_second_one_leaves_and_names_the_way_on(
    lab: simulator.Simulation,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    name: str,
    status: int,
) -> None:
    """The process ends at once; the printed command settles what it left."""
    with joining(lab, tmp_path) as (child, options):
        child.send_signal(number)
        until(child, f"{name}: the request for web goes on")
        child.send_signal(number)
        line = until(child, 'left before the end')
        assert child.wait(timeout=20) == status
    words = shlex.split(line.partition('Settle it: ')[2])
    assert words[-3:] == ['aggregate', 'recover', 'web']
    assert run(options, words) in (0, 1)  # its lease may hold it still
    capfd.readouterr()
