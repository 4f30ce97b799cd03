# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Printed commands repeat the configuration that was named."""

from __future__ import annotations

import json
import pathlib
import shlex

import pytest

from tests.functional import cli_lab
from xenpool_driver.cli import formats, main, repeating


def test_every_command_of_ours_and_nothing_else() -> None:
    repeater = repeating.Repeater(['a b.conf', 'c.conf'])
    options = "xenpool --config-file 'a b.conf' --config-file c.conf"
    text = 'on xen01: xe host-list; then: xenpool aggregate audit web'
    told = repeater.text(text)
    assert told.endswith(f"then: {options} aggregate audit web")
    assert repeater.text(told) == told
    offline = 'xenpool preflight join; the group xenpool'
    assert repeater.text(offline) == offline
    story = repeater.value(formats.Lines([{'note': 'xenpool host list'}]))
    assert story.machine_readable() == [{'note': f"{options} host list"}]
    assert repeating.Repeater(None).text(text) == text


def test_a_printed_command_works_as_it_stands(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The database is that of the file, which is in no usual place."""
    with cli_lab.simulation(1) as lab:
        path = cli_lab.write_config(tmp_path / 'x.conf', lab)
        options = ['--config-file', str(path), 'aggregate']
        assert main.main([*options, 'create', 'web']) == 0
        assert main.main([*options, 'add', 'host', 'web', 'xen01']) == 0
        database = lab.named('xen01').db
        assert database is not None
        [pool] = database.all('pool')
        database.set('pool', pool, other_config={})
        capsys.readouterr()

        assert main.main([*options, 'audit', 'web', '-f', 'json']) == 0

        found = json.loads(capsys.readouterr().out)['web']['findings']
        [owner] = [each for each in found if each['check'] == 'owner']
        fix = f"xenpool --config-file {path} aggregate audit web --fix"
        assert owner['remedy'] == fix
        assert main.main(shlex.split(fix)[1:]) == 0
        assert database.get('pool', pool)['other_config']
