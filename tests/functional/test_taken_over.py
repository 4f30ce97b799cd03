# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Two controllers, one pool: who has lost it changes it no more."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

from tests.functional import cli_lab, refusals
from xenpool_driver import simulator
from xenpool_driver.cli import main
from xenpool_driver.simulator import records_dir


class Controller(typing.NamedTuple):
    """A configuration with a database of its own."""

    conf: pathlib.Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> cli_lab.Result:
        status = main.main(
            ['--config-file', str(self.conf), 'aggregate', *words]
        )
        return cli_lab.Result(status, *self.capsys.readouterr())

    def shown(self) -> dict[str, typing.Any]:
        """Return the aggregate."""
        return typing.cast(
            dict[str, typing.Any],
            json.loads(self('show', 'web', '-f', 'json').out),
        )


def _records(lab: simulator.Simulation) -> refusals.State:
    return {host.name: records_dir.dump(host) for host in lab.world.machines}


COMMANDS = (
    ('set', 'master', 'web', 'xen02'),
    ('remove', 'host', 'web', 'xen03', '--yes'),
    ('remove', 'host', 'web', 'xen03', '--forget', '--yes'),
    ('remove', 'host', 'web', 'xen03', '--drain', '--yes'),
    ('remove', 'host', 'web', 'xen01', '--successor', 'xen02', '--yes'),
    ('set', 'web', '--name', 'hijack'),
    ('add', 'host', 'web', 'xen04'),
    ('recover', 'web', '--promote', 'xen02'),
)


def test_who_has_lost_the_pool_is_refused_and_can_let_it_go(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with cli_lab.simulation(4, 60.0) as lab:
        first, second = (
            Controller(
                cli_lab.write_config(
                    tmp_path / f"{name}.conf",
                    lab,
                    database=f"sqlite:///{tmp_path}/{name}.db",
                ),
                capsys,
            )
            for name in ('a', 'b')
        )
        assert first('create', 'web').status == 0
        hosts = ('xen01', 'xen02', 'xen03')
        assert first('add', 'host', 'web', *hosts).status == 0
        stamp = first.shown()['uuid']
        took = second(
            'adopt', 'web', '--from', 'xen01', '--replace-stamp', stamp
        )
        assert took.status == 0, took

        known, before = first.shown(), _records(lab)
        for words in COMMANDS:
            refused = first(*words)
            assert refused.status == 3, (words, refused)
            told = cli_lab.plain(refused.out + refused.err, first.conf)
            assert 'xenpool aggregate release web' in told, (words, told)
            changed = refusals.differences(before, _records(lab))
            assert not changed, (words, changed)
            assert first.shown() == known, words

        assert first('release', 'web').status == 0
        assert not refusals.differences(before, _records(lab))
        assert second('audit', 'web').status == 0
