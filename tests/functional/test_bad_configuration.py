# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A configuration with a slip in it, by the real commands: one line, status 2.

Nothing that stands in a file is passed over in silence.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.unit import test_cli_commands as commands
from xenpool_driver import conf, store
from xenpool_driver.cli import main
from xenpool_driver.conf import foreign

config_file = commands.config_file
database = commands.database
driver = commands.driver
xenpool = commands.xenpool

Run = commands.Run


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of ours in a process of its own."""
    return subprocess.run(
        [sys.executable, '-m', *words], capture_output=True, text=True
    )


def edit(path: pathlib.Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


SLIPS = [
    ('[database]', '[databse]', 'no section [databse]', '[database]'),
    ('[database]', '[Databases]', 'no section [Databases]', '[database]'),
    ('[DEFAULT]', '[Default]', 'no section [Default]', '[DEFAULT]'),
    ('[database]', '[xenpol]\na = b\n[database]', '[xenpol]', '[xenpool]'),
    ('[database]', '[simulater]\n[database]', '[simulater]', '[simulator]'),
    (
        '[database]',
        '[oslo_mesaging_rabbit]\n[database]',
        '[oslo_mesaging_rabbit]',
        '[oslo_messaging_rabbit]',
    ),
    ('enabled_hosts', 'enabled_host', "'enabled_host'", 'enabled_hosts'),
    ('[DEFAULT]\n', '[DEFAULT]\ndebgu = 1\n', "'debgu'", 'debug'),
    ('[DEFAULT]\n', '[DEFAULT]\nx = 1\n', "[DEFAULT]: there is no", "'x'"),
    ('connection_url', 'conection_url', "[xen01]", 'connection_url'),
    ('connection_password', 'connection_pasword', '[xen01]', '_password?'),
    (
        '[xen01]\n',
        '[xen01]\ninsecur = 1\n',
        "[xen01]: there is no option 'insecur'",
        'insecure?',
    ),
    (
        '[database]\n',
        '[database]\nbusy_timeuot = 1\n',
        "[database]: there is no option 'busy_timeuot'",
        'busy_timeout?',
    ),
    (
        '[database]\n',
        '[XenPool]\nfailure_treshold = 1\n[database]\n',
        "[XenPool]: there is no option 'failure_treshold'",
        'failure_threshold?',
    ),
]


@pytest.mark.parametrize(('old', 'new', 'named', 'meant'), SLIPS)
def test_a_slip_is_refused_and_what_was_meant_is_said(
    xenpool: Run,
    config_file: pathlib.Path,
    old: str,
    new: str,
    named: str,
    meant: str,
) -> None:
    edit(config_file, old, new)
    result = xenpool('host', 'list')
    assert result.status == 2
    [line] = result.err.splitlines()
    assert line.startswith('xenpool: ')
    assert named in line
    assert meant in line
    if "'x'" not in meant:
        assert 'did you mean' in line
    assert result.out == ''


def test_the_service_refuses_a_slip(config_file: pathlib.Path) -> None:
    edit(config_file, '[database]', '[databse]')
    done = run(
        'xenpool_driver.compute.service', '--config-file', str(config_file)
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'xenpool-compute: there is no section [databse]; did you mean '
        '[database]?'
    ]


def test_options_of_oslos_libraries_are_no_slips(
    xenpool: Run, config_file: pathlib.Path
) -> None:
    lines = [f"{name} =" for name in sorted(foreign.DEFAULTS)]
    edit(config_file, '[DEFAULT]\n', '\n'.join(['[DEFAULT]', *lines, '']))
    with config_file.open('a') as stream:
        for section in sorted(foreign.SECTIONS):
            stream.write(f"[{section}]\nanything = 1\n")
    result = xenpool('host', 'list', '-f', 'value', '-c', 'Host')
    assert (result.status, result.err) == (0, '')
    assert result.out.split() == ['xen01', 'xen02', 'xen03', 'xen04']


@pytest.mark.filterwarnings('ignore:.*ventlet')
@pytest.mark.parametrize(
    'library',
    ['oslo_log._options', 'oslo_messaging.opts'],
)
def test_every_option_of_oslos_libraries_is_known(library: str) -> None:
    options = pytest.importorskip(library).list_opts()
    for group, opts in options:
        name = str(getattr(group, 'name', group) or 'DEFAULT')
        if name != 'DEFAULT':
            assert name in foreign.SECTIONS
            continue
        found = {opt.dest for opt in opts}
        assert found - foreign.DEFAULTS == set()


def test_a_section_that_nobody_reads_is_told(
    xenpool: Run, config_file: pathlib.Path
) -> None:
    with config_file.open('a') as stream:
        stream.write('[api_database]\nconnection = x\n[empty]\n')
    result = xenpool('host', 'list')
    assert result.status == 0
    assert result.err.splitlines() == [
        f"{config_file}: nothing reads section [api_database]"
    ]


def test_an_option_that_stands_twice_is_told(
    xenpool: Run, config_file: pathlib.Path
) -> None:
    edit(config_file, '[xen02]\n', '[xen02]\nread_timeout = 1\n')
    edit(config_file, '[xen03]\n', '[xen02]\nread_timeout = 2\n[xen03]\n')
    result = xenpool('host', 'list')
    assert result.status == 0
    assert result.err.splitlines() == [
        f"{config_file}: section [xen02]: read_timeout stands there 2 times; "
        'the last one holds'
    ]


@pytest.mark.parametrize(
    ('mode', 'told'), [(0o644, True), (0o640, False), (0o602, True)]
)
def test_a_file_with_passwords_that_others_can_read(
    config_file: pathlib.Path, database: store.Store, mode: int, told: bool
) -> None:
    config_file.chmod(mode)
    words = ('--config-file', str(config_file), 'host', 'list')
    done = run('xenpool_driver.cli.main', *words)
    assert done.returncode == 0
    line = (
        f"{config_file}: passwords stand in it and everybody can read it "
        f"(mode {mode:04o}): chmod 600 {config_file}"
    )
    assert done.stderr.splitlines() == ([line] if told else [])
    if told:
        remedy = line.rpartition(': ')[2]
        subprocess.run(remedy.split(), check=True)
        assert run('xenpool_driver.cli.main', *words).stderr == ''


def test_a_file_without_passwords_may_be_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'x.conf'
    path.write_text('[database]\nconnection = sqlite:////tmp/x.db\n')
    assert conf.cautions(conf.load([str(path)])) == []
    path.write_text('[database]\nconnection = postgresql://a:secret@b/c\n')
    path.chmod(0o644)
    assert len(conf.cautions(conf.load([str(path)]))) == 1


def test_a_password_too_short_to_be_hidden_is_told(
    xenpool: Run, config_file: pathlib.Path
) -> None:
    edit(config_file, commands.SECRET, 'e')
    result = xenpool('host', 'list')
    assert result.status == 0
    assert 'xen04' in result.out
    assert result.err.splitlines() == [
        'section [xen01]: connection_password: a password of fewer than 4 '
        'characters cannot be kept out of messages and logs: set a longer one'
    ]


def test_no_host_is_configured(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(['host', 'list']) == 2
    said = capsys.readouterr()
    assert said.out == ''
    assert said.err == (
        'xenpool: no host is configured: no xenpool.conf in ~/.xenpool, ~, '
        '/etc/xenpool, /etc, and --config-file names none\n'
    )
    path = tmp_path / 'some.conf'
    path.write_text('[xenpool]\n')
    options = ['--config-file', str(path)]
    assert main.main([*options, 'host', 'list']) == 2
    assert capsys.readouterr().err == (
        'xenpool: no host is configured: no section with a connection_url in '
        f'{path}\n'
    )
    assert main.main([*options, 'records', 'dump', 'xen01']) == 2
    assert capsys.readouterr().err == (
        "xenpool: host 'xen01' is unknown: no host is configured: no section "
        f'with a connection_url in {path}\n'
    )


def test_an_unknown_host_is_asked_for(
    xenpool: Run, config_file: pathlib.Path
) -> None:
    result = xenpool('records', 'dump', 'xen1')
    assert result.status == 2
    assert result.err == (
        "xenpool: host 'xen1' is unknown: no section [xen1] with a "
        f"connection_url in {config_file}; did you mean 'xen01'?\n"
    )
