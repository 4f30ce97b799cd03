# Licensed under the Apache License, Version 2.0; see LICENSE.
"""However an address is written: it works, or one line says what is wrong."""

from __future__ import annotations

import collections.abc
import json
import pathlib
import re

import pytest

from tests.functional import cli_lab
from xenpool_driver import simulator
from xenpool_driver.cli import main

HTTP = 8080


@pytest.fixture(scope='module')
def lab() -> collections.abc.Iterator[simulator.Simulation]:
    with simulator.Simulation(
        1, address=cli_lab.address(), port=cli_lab.PORT, http_port=HTTP
    ) as running:
        yield running


def dump(
    lab: simulator.Simulation,
    directory: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    **options: str,
) -> tuple[int, list[str], pathlib.Path]:
    """Read a host whose section has these options.

    :returns: the exit status, the lines on stderr, and where the records are
        when they could be read.
    """
    host = lab.hosts[0].name
    conf = cli_lab.write_config(
        directory / 'xenpool.conf', lab, sections={host: options}
    )
    if 'certificate_fingerprint' in options:
        text = re.sub('(?m)^ca_file.*$', '', conf.read_text())
        conf.write_text(text)
    records = directory / 'records.json'
    words = ['records', 'dump', host, '-o', str(records)]
    status = main.main(['--config-file', str(conf), *words])
    return status, capsys.readouterr().err.splitlines(), records


@pytest.mark.parametrize('form', ['https://{0}:8443', 'https://{0}:8443/'])
def test_a_form_that_works(
    lab: simulator.Simulation,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    url = form.format(lab.hosts[0].address)
    status, lines, records = dump(lab, tmp_path, capsys, connection_url=url)
    assert (status, lines) == (0, [])
    assert json.loads(records.read_text())['host']


def test_a_connection_without_encryption_is_warned_of(
    lab: simulator.Simulation,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"http://{lab.hosts[0].address}:{HTTP}"
    status, _, records = dump(lab, tmp_path, capsys, connection_url=url)
    assert status == 0
    assert json.loads(records.read_text())['host']
    assert 'is not encrypted' in caplog.text


WRONG = {
    '{0}:8443': (2, r'\[xen01\]: connection_url must be https://ADDRESS'),
    '{0}': (2, r'\[xen01\]: connection_url must be https://ADDRESS'),
    'https://root:xenroot@{0}:8443': (2, r'without user, password or path'),
    'http://{0}:8443': (1, r'HTTPS, connection_url must begin with https://'),
    'https://{0}:8080': (
        1,
        r'agrees on no TLS. Either it is that of plain HTTP',
    ),
    'https://{0}:99999': (2, r'The port 99999 is none'),
    'https://fd00::1': (2, r'in brackets: https://\[fd00::1\]'),
    'https://[::1]:8443': (1, r'\[::1\]:8443'),
    'https://127.0.0.1:8443': (1, r'127.0.0.1:8443'),
}
"""form -> (exit status, what the one line says)"""


@pytest.mark.parametrize('form', WRONG)
def test_a_form_that_does_not(
    lab: simulator.Simulation,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    expected, words = WRONG[form]
    url = form.format(lab.hosts[0].address)
    status, lines, records = dump(
        lab, tmp_path, capsys, connection_url=url, connect_timeout='0.5'
    )
    assert status == expected
    [line] = [one for one in lines if 'is not encrypted' not in one]
    assert re.search(words, line)
    assert 'xenroot' not in line
    assert not records.exists()


def test_a_wrong_fingerprint_shows_the_one_that_the_host_has(
    lab: simulator.Simulation,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = ':'.join(['AA'] * 32)
    status, lines, _ = dump(
        lab, tmp_path, capsys, certificate_fingerprint=wrong
    )
    assert status == 1
    [line] = lines
    found = re.search(
        r'fingerprint is ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})', line
    )
    assert found
    assert found[1] != wrong
    assert 'certificate_fingerprint into section [xen01]' in line
    status, lines, _ = dump(
        lab, tmp_path, capsys, certificate_fingerprint=found[1]
    )
    assert (status, lines) == (0, [])
