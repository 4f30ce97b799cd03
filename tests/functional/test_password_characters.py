# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Passwords with any characters: each logs in, or it is said how to write it.

oslo.config gives some characters a meaning, and takes quotes and blanks off.
A password that is written as it is must not end with a bare refusal.
"""

from __future__ import annotations

import pathlib

import pytest
import XenAPI

from tests.functional import driver_lab
from xenpool_driver import simulator
from xenpool_driver.cli import main

PASSWORDS = [
    'amp&er',
    'le<s>s',
    'per%cent%s',
    'ha#sh',
    '#lead;',
    'back\\slash\\',
    'ümläut ß€',
    'in"si\'de',
    '$500',
    'do$lar',
    'dol$$lar',
    'va$insecure',
    'back\\$dollar',
    '"quoted"',
    "'single'",
    ' leading',
    'trailing ',
    'equal = colon: [x]',
]

PLAIN = frozenset(PASSWORDS[:9]) | {'equal = colon: [x]'}
"""Those that may be written as they are."""


def as_told(password: str) -> str:
    """Return a password as the message says that it is to be written."""
    password = password.replace('\\$', '\\\\$').replace('$', '$$')
    password = password.replace('\\\\$$', '\\\\$')
    return f'"{password}"' if password not in PLAIN else password


@pytest.mark.parametrize('password', PASSWORDS)
def test_each_password_logs_in_or_it_is_said_how_to_write_it(
    password: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / 'a password = here'
    directory.mkdir()
    path = directory / 'xenpool.conf'
    with simulator.Simulation(
        hosts=1,
        address=driver_lab.address(),
        port=0,
        http_port=None,
        password=password,
    ) as lab:

        def dump(written: str) -> tuple[int, str]:
            path.touch(0o600)
            path.write_text(
                f"[xen01]\nconnection_url = {lab.hosts[0].url}\n"
                f"ca_file = {lab.ca_file}\nconnection_password = {written}\n"
            )
            status = main.main(
                ['--config-file', str(path), 'records', 'dump', 'xen01']
            )
            said = capsys.readouterr()
            assert password not in said.err
            assert ('"uuid"' in said.out) is (status == 0)
            return status, said.err

        status, said = dump(password)
        assert (status == 0) is (password in PLAIN), said
        if status:
            [line] = said.splitlines()
            assert '$$' in line
            if 'SESSION_AUTHENTICATION_FAILED' in line:
                assert 'quotes and blanks around a value are taken off' in line
            else:
                assert status == 2
                assert 'section [xen01]: connection_password' in line
        assert dump(as_told(password)) == (0, '')


def test_a_pool_with_such_a_password_is_formed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = '$a&<b>%#\\"ü '
    with simulator.Simulation(
        hosts=2,
        address=driver_lab.address(),
        port=0,
        http_port=None,
        time_scale=50.0,
        password=password,
    ) as lab:
        path = driver_lab.configuration(lab, tmp_path)
        path.write_text(
            path.read_text().replace(
                f"password = {driver_lab.PASSWORD}",
                f"password = {as_told(password)}",
            )
        )
        options = ['--config-file', str(path), 'aggregate']
        assert main.main([*options, 'create', 'web']) == 0
        assert main.main([*options, 'add', 'host', 'web', 'xen01']) == 0
        assert main.main([*options, 'add', 'host', 'web', 'xen02']) == 0
        said = capsys.readouterr()
        assert password.strip() not in said.out + said.err
        session = XenAPI.Session(lab.hosts[0].url, ignore_ssl=True)
        session.xenapi.login_with_password('root', password)
        assert len(session.xenapi.host.get_all()) == 2
        session('close')()


def test_a_path_with_the_word_password_is_shown(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ('password.conf', 'my password dir/password=x.conf', 'passwd'):
        path = tmp_path / name
        assert main.main(['--config-file', str(path), 'host', 'list']) == 2
        said = capsys.readouterr().err
        assert said == f"xenpool: {path}: configuration file not found\n"
