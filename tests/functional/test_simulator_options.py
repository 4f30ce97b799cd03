# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool simulator run`` takes section [simulator] of the configuration."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import urllib.parse

import XenAPI

from tests.functional import driver_lab


def test_the_configuration_is_read_and_the_command_line_wins(
    tmp_path: pathlib.Path,
) -> None:
    address = driver_lab.address()
    path = tmp_path / 'xenpool.conf'
    path.write_text(
        f"[simulator]\naddress = {address}\nport = 0\nhttp_port = 0\n"
        'password = from the file\ntime_scale = 50\n'
    )
    path.chmod(0o600)

    def login(*words: str) -> tuple[str, list[str]]:
        """Return where the first host is, and the passwords that it takes."""
        with subprocess.Popen(
            [
                *(sys.executable, '-m', 'xenpool_driver.cli.main'),
                *('--config-file', str(path), 'simulator', 'run', *words),
            ],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[2]
            while process.stdout.readline() not in ('ready\n', ''):
                pass
            taken = []
            for password in ('from the file', 'typed'):
                session = XenAPI.Session(url, ignore_ssl=True)
                try:
                    session.login_with_password('root', password)
                    taken.append(password)
                except XenAPI.Failure:
                    pass
                session('close')()
            process.terminate()
        return urllib.parse.urlsplit(url).hostname or '', taken

    assert login() == (address, ['from the file'])
    assert login('--password', 'typed') == (address, ['typed'])
