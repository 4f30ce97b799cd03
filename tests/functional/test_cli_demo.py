# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The demo, and the same story as commands typed by hand."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from tests.functional import cli_lab
from xenpool_driver.cli import demo_story, demo_views, main


def test_the_demo_ends_as_expected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main.main(['demo', '--address', cli_lab.address()])

    out, err = capsys.readouterr()
    assert status == 0, err
    assert out.splitlines()[-1] == 'All as expected.'
    commands = [
        line.split(' demo')[0]
        for line in out.splitlines()
        if line.startswith('$')
    ]
    assert commands == [
        '$ xenpool aggregate create',
        '$ xenpool aggregate add host',
        '$ xenpool aggregate set master',
        '$ xenpool aggregate remove host',
        '$ xenpool aggregate remove host',
        '$ xenpool aggregate remove host',
        '$ xenpool aggregate delete',
    ]
    assert 'metadata: dismissed, no hosts' in out


def test_the_demo_on_recorded_pools(
    recordings: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main.main(
        [
            *('demo', '--records', str(recordings / 'pools')),
            *('--address', cli_lab.address()),
        ]
    )

    out, err = capsys.readouterr()
    assert status == 0, err
    assert 'aggregate adopt demo' in out
    assert 'aggregate add host demo' in out
    assert out.splitlines()[-1] == 'All as expected.'


@pytest.mark.parametrize(
    'argv',
    [
        ('--records', '/nowhere'),
        ('--address', '192.0.2.1'),
    ],
    ids=' '.join,
)
def test_a_demo_that_cannot_start_says_why(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main.main(['demo', *argv])

    err = capsys.readouterr().err
    assert status == 2
    assert err.startswith('xenpool: the simulator does not start: ')
    assert 'Traceback' not in err


def test_differences_are_seen() -> None:
    expected = demo_story.Expected(
        demo_views.Declared('active', frozenset({'a', 'b'}), 'a'),
        frozenset({('demo', frozenset({'a', 'b'}), 'a')}),
    )
    right = demo_views.Pool('demo', 'u-1', frozenset({'a', 'b'}), 'a', True)
    assert not demo_story.differences(
        expected, expected.declared, [right], 'u-1'
    )

    wrong = [
        (demo_views.Declared('error', frozenset({'a', 'b'}), 'a'), right),
        (
            expected.declared,
            demo_views.Pool('demo', 'u-1', frozenset({'a', 'b'}), 'b', True),
        ),
        (
            expected.declared,
            demo_views.Pool('demo', 'u-2', frozenset({'a', 'b'}), 'a', True),
        ),
        (
            expected.declared,
            demo_views.Pool('demo', 'u-1', frozenset({'a', 'b'}), 'a', False),
        ),
    ]
    for declared, pool in wrong:
        assert demo_story.differences(expected, declared, [pool], 'u-1')


def test_the_story_typed_by_hand(tmp_path: pathlib.Path) -> None:
    with cli_lab.simulation(3) as lab:
        path = cli_lab.write_config(tmp_path / 'xenpool.conf', lab)

        def xenpool(*words: str) -> str:
            done = subprocess.run(
                [
                    *(sys.executable, '-m', 'xenpool_driver.cli.main'),
                    *('--config-file', str(path), *words),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert cli_lab.PASSWORD not in done.stdout + done.stderr
            return done.stdout

        def shown() -> tuple[str, list[str], str | None]:
            found = json.loads(
                xenpool('aggregate', 'show', 'prod', '-f', 'json')
            )
            return found['state'], found['hosts'], found['master']

        xenpool('aggregate', 'create', 'prod')
        assert shown() == ('created', [], None)

        hosts = ['xen01', 'xen02', 'xen03']
        xenpool('aggregate', 'add', 'host', 'prod', *hosts)
        state, members, master = shown()
        assert (state, sorted(members), master) == ('active', hosts, 'xen01')
        assert cli_lab.memberships(lab) == {('xen01', 'xen02', 'xen03')}

        xenpool('aggregate', 'set', 'master', 'prod', 'xen02')
        assert shown()[2] == 'xen02'
        assert cli_lab.memberships(lab) == {('xen02', 'xen01', 'xen03')}

        xenpool('aggregate', 'audit', 'prod')
        for host in ('xen03', 'xen01', 'xen02'):
            xenpool(
                *('aggregate', 'remove', 'host', 'prod', host),
                *('--yes', '--wait'),
            )
        assert shown() == ('active', [], None)
        assert cli_lab.memberships(lab) == {
            ('xen01',),
            ('xen02',),
            ('xen03',),
        }
        xenpool('aggregate', 'delete', 'prod')
        story = json.loads(xenpool('operation', 'list', '-f', 'json'))
        assert {each['Outcome'] for each in story} == {'succeeded'}
