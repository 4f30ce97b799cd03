# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Bad input: one clear line that names the offender, and the right status."""

from __future__ import annotations

import json
import pathlib
import sqlite3
import subprocess
import sys

import pytest

from tests import paper_driver
from tests.unit import test_cli_commands as commands
from xenpool_driver import base, compute, exceptions, store
from xenpool_driver.cli import main
from xenpool_driver.compute import program

config_file = commands.config_file
database = commands.database
driver = commands.driver
xenpool = commands.xenpool

Run = commands.Run


def _says(result: commands.Result, status: int, *words: str) -> None:
    """Assert one line on stderr with these words, and no traceback."""
    assert result.status == status, result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert result.err.startswith('xenpool: ')
    assert 'Traceback' not in result.err
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    'argv',
    [
        ('aggregate', 'show', 'nope'),
        ('aggregate', 'set', 'nope', '--name', 'x'),
        ('aggregate', 'delete', 'nope'),
        ('aggregate', 'add', 'host', 'nope', 'xen01'),
        ('aggregate', 'remove', 'host', 'nope', 'xen01', '--yes'),
        ('aggregate', 'set', 'master', 'nope', 'xen01'),
        ('aggregate', 'check', 'nope', 'xen01'),
        ('aggregate', 'audit', 'nope'),
        ('aggregate', 'recover', 'nope'),
        ('operation', 'list', '--aggregate', 'nope'),
    ],
    ids=' '.join,
)
def test_unknown_aggregate(xenpool: Run, argv: tuple[str, ...]) -> None:
    _says(xenpool(*argv), 2, "'nope'")


@pytest.mark.parametrize(
    'argv',
    [
        ('aggregate', 'add', 'host', 'prod', 'xen09'),
        ('aggregate', 'check', 'prod', 'xen09'),
        ('aggregate', 'adopt', 'lab', '--from', 'xen09'),
        ('aggregate', 'remove', 'host', 'prod', 'xen09', '--yes'),
        ('aggregate', 'set', 'master', 'prod', 'xen09'),
        ('records', 'dump', 'xen09'),
    ],
    ids=' '.join,
)
def test_unknown_host(xenpool: Run, argv: tuple[str, ...]) -> None:
    xenpool('aggregate', 'create', 'prod')

    _says(xenpool(*argv), 2, "'xen09'")


def test_unknown_operation(xenpool: Run) -> None:
    _says(xenpool('operation', 'show', 'f00'), 2, 'f00')


@pytest.mark.parametrize(
    'argv',
    [
        ('frobnicate',),
        ('aggregate', 'frobnicate'),
        ('--frobnicate', 'aggregate', 'list'),
    ],
    ids=' '.join,
)
def test_unknown_command(xenpool: Run, argv: tuple[str, ...]) -> None:
    _says(xenpool(*argv), 2, 'frobnicate')


@pytest.mark.parametrize(
    ('argv', 'offender'),
    [
        (('aggregate', 'list', '--frobnicate'), '--frobnicate'),
        (('aggregate', 'list', '-f', 'frobnicate'), "'frobnicate'"),
        (('aggregate', 'create'), 'NAME'),
        (('aggregate', 'create', 'x', '--property', 'frob'), "'frob'"),
        (('aggregate', 'adopt', 'x'), '--from'),
        (('operation', 'list', '--limit', 'frobnicate'), "'frobnicate'"),
        (('operation', 'list', '--limit', '-1'), "'-1'"),
        (('simulator', 'run', '--hosts', '0'), "'0'"),
        (('simulator', 'run', '--port', '65536'), "'65536'"),
        (('simulator', 'run', '--time-scale', 'nan'), "'nan'"),
        (('simulator', 'run', '--address', 'nowhere'), "'nowhere'"),
        (('simulator', 'run', '--address', '192.0.2.1'), "'192.0.2.1'"),
        (('simulator', 'run', '--topology', '/nowhere'), '/nowhere: No such'),
        (('simulator', 'run', '--records', '/nowhere'), '/nowhere'),
        (('--log-file', '/nowhere/log', 'host', 'list'), '/nowhere/log'),
    ],
    ids=lambda value: value if isinstance(value, str) else ' '.join(value),
)
def test_wrong_options(
    xenpool: Run, argv: tuple[str, ...], offender: str
) -> None:
    result = xenpool(*argv)

    _says(result, 2, offender)
    assert result.out == ''


def test_a_topology_that_is_no_yaml(
    xenpool: Run, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / 'lab.yaml'
    path.write_text('hosts:\n  - {name: xen01\n')

    result = xenpool('simulator', 'run', '--topology', str(path))

    _says(result, 2, f"{path}: line 3")


def test_an_empty_new_name(xenpool: Run) -> None:
    xenpool('aggregate', 'create', 'prod')

    _says(xenpool('aggregate', 'set', 'prod', '--name', ''), 2, 'empty')


def test_unknown_column(xenpool: Run) -> None:
    _says(xenpool('aggregate', 'list', '-c', 'Colour'), 2, 'Colour', 'Name')


def test_name_in_use(xenpool: Run) -> None:
    xenpool('aggregate', 'create', 'prod')
    xenpool('aggregate', 'create', 'lab')

    _says(xenpool('aggregate', 'create', 'prod'), 3, "'prod'")
    _says(xenpool('aggregate', 'set', 'lab', '--name', 'prod'), 3, "'prod'")


@pytest.mark.parametrize('name', ['', 'x' * 256])
def test_name_of_the_wrong_length(xenpool: Run, name: str) -> None:
    _says(xenpool('aggregate', 'create', name), 2, 'name')
    assert json.loads(xenpool('aggregate', 'list', '-f', 'json').out) == []


def test_metadata_that_is_too_long(xenpool: Run) -> None:
    xenpool('aggregate', 'create', 'prod')

    _says(
        xenpool('aggregate', 'set', 'prod', '--property', f"k={'x' * 256}"),
        2,
        "'k'",
    )


@pytest.mark.parametrize('command', ['add host', 'check'])
def test_the_same_host_twice(
    xenpool: Run, driver: paper_driver.PaperDriver, command: str
) -> None:
    xenpool('aggregate', 'create', 'prod')

    result = xenpool(
        'aggregate', *command.split(), 'prod', 'xen01', 'xen02', 'xen01'
    )

    _says(result, 2, "'xen01'", 'twice')
    assert driver.calls == []


def test_the_host_is_in_another_aggregate(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    xenpool('aggregate', 'create', 'prod')
    xenpool('aggregate', 'create', 'lab')
    xenpool('aggregate', 'add', 'host', 'prod', 'xen01')

    added = xenpool('aggregate', 'add', 'host', 'lab', 'xen01')

    assert added.status == 3
    assert "'xen01'" in added.err
    assert "'prod'" in added.err


def test_missing_configuration_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main.main(['--config-file', '/nowhere.conf', 'host', 'list'])

    assert status == 2
    assert '/nowhere.conf' in capsys.readouterr().err


def test_malformed_configuration_file(
    xenpool: Run, config_file: pathlib.Path
) -> None:
    config_file.write_text('[xen01\n')

    _says(xenpool('host', 'list'), 2, str(config_file))


def test_missing_password(xenpool: Run, config_file: pathlib.Path) -> None:
    text = config_file.read_text()
    config_file.write_text(
        text.replace(f"connection_password = {commands.SECRET}\n", '', 1)
    )

    _says(xenpool('aggregate', 'list'), 2, '[xen01]', 'connection_password')


def test_unknown_plugin(
    config_file: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with config_file.open('a') as stream:
        stream.write('[xenpool]\ncompute_driver = frobnicate\n')
    options = ['--config-file', str(config_file), 'aggregate']
    assert main.main([*options, 'create', 'prod']) == 0
    capsys.readouterr()

    status = main.main([*options, 'delete', 'prod'])

    assert status == 2
    assert 'compute_driver = frobnicate' in capsys.readouterr().err


def test_a_database_that_is_newer(
    xenpool: Run, tmp_path: pathlib.Path
) -> None:
    xenpool('aggregate', 'create', 'prod')
    file = sqlite3.connect(tmp_path / 'store.db')
    file.execute("UPDATE xenpool_version SET version_num = '9999'")
    file.commit()
    file.close()

    _says(xenpool('aggregate', 'list'), 3, '9999')
    _says(xenpool('db', 'upgrade'), 3, '9999')


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (None, 'No such file'),
        ('{"host":', 'not records'),
        ('[1, 2]', 'not records'),
        ('{"pool": {"OpaqueRef:1": 7}}', 'not records'),
    ],
)
def test_malformed_records(
    xenpool: Run, tmp_path: pathlib.Path, text: str | None, words: str
) -> None:
    path = tmp_path / 'joiner.json'
    if text is not None:
        path.write_text(text)

    result = xenpool(
        'preflight', 'join', '--joiner', str(path), '--pool', str(path)
    )

    _says(result, 2, str(path), words)


@pytest.mark.parametrize(
    ('error', 'status'),
    [
        (exceptions.XapiUnavailable('connection refused', 'xen01'), 1),
        (
            exceptions.XapiRefused(
                'SESSION_AUTHENTICATION_FAILED', ['root'], 'xen01'
            ),
            1,
        ),
        (exceptions.NotPoolMaster('192.0.2.9', 'xen01'), 1),
        (exceptions.AggregateError('prod', 'join', 'xen01 is gone'), 1),
        (exceptions.InvalidAggregateActionAdd('prod', 'xen01 has HA'), 3),
        (exceptions.AggregateHostExists("'xen01' is in 'lab'"), 3),
        (exceptions.LeaseLost('xen01: another worker'), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_status_of_each_kind_of_error(
    xenpool: Run,
    driver: paper_driver.PaperDriver,
    error: Exception,
    status: int,
) -> None:
    driver.trouble['set_aggregate_master'] = error
    xenpool('aggregate', 'create', 'prod')
    xenpool('aggregate', 'add', 'host', 'prod', 'xen01')

    result = xenpool('aggregate', 'set', 'master', 'prod', 'xen01')

    _says(result, status, 'xen01')


def test_a_bug_is_one_line_unless_debug_is_on(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['set_aggregate_master'] = ZeroDivisionError('nothing')
    xenpool('aggregate', 'create', 'prod')
    xenpool('aggregate', 'add', 'host', 'prod', 'xen01')
    words = ('aggregate', 'set', 'master', 'prod', 'xen01')

    _says(xenpool(*words), 1, 'ZeroDivisionError: nothing', '--debug')
    assert 'Traceback' in xenpool('--debug', *words).err


def test_no_output_holds_a_password(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    secret = commands.SECRET
    driver.trouble['xen01'] = ValueError(f"cannot log in with {secret}")
    xenpool('aggregate', 'create', 'prod')

    result = xenpool('--debug', 'aggregate', 'check', 'prod', 'xen01')

    assert 'cannot log in with ***' in result.err
    assert secret not in result.out + result.err


def test_a_host_cannot_write_to_the_terminal(
    xenpool: Run,
    driver: paper_driver.PaperDriver,
    config_file: pathlib.Path,
) -> None:
    error = exceptions.XapiRefused('X\x1b[2J', ['a\r\nxenpool: done'], 'xen01')
    driver.trouble['set_aggregate_master'] = error
    xenpool('aggregate', 'create', 'prod', '--property', 'k=\x1b]0;x\x07')
    xenpool('aggregate', 'add', 'host', 'prod', 'xen01')

    refused = xenpool('aggregate', 'set', 'master', 'prod', 'xen01')

    _says(refused, 1, 'X\\x1b[2J', 'a\\r\\nxenpool: done')
    for form in ('table', 'csv', 'value', 'yaml', 'json'):
        shown = xenpool('aggregate', 'show', 'prod', '-f', form).out
        assert not set(shown) & set('\x1b\x07\r'), form
        assert '1b]0;x' in shown or '\\e]0;x' in shown, form
    for words in (('operation', 'list'), ('aggregate', 'list')):
        assert '\x1b' not in xenpool(*words).out


def test_remote_without_the_extra(
    xenpool: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    xenpool('aggregate', 'create', 'prod')
    for name in ('bus', 'rpcapi'):
        monkeypatch.delitem(
            sys.modules, f"xenpool_driver.compute.{name}", raising=False
        )
        monkeypatch.delattr(compute, name, raising=False)
    monkeypatch.setitem(sys.modules, 'oslo_service', None)
    monkeypatch.setitem(sys.modules, 'oslo_service.backend', None)

    result = xenpool('aggregate', 'delete', 'prod', '--remote')

    _says(result, 2, '[service]')


def test_the_service_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ('bus', 'rpcapi', 'service'):
        monkeypatch.delitem(
            sys.modules, f"xenpool_driver.compute.{name}", raising=False
        )
        monkeypatch.delattr(compute, name, raising=False)
    monkeypatch.setitem(sys.modules, 'oslo_service', None)
    monkeypatch.setitem(sys.modules, 'oslo_service.backend', None)

    assert program.main([]) == 2

    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert '[service]' in err


def test_help_imports_nothing_heavy() -> None:
    code = (
        'import sys\n'
        'from xenpool_driver.cli import main\n'
        "status = main.main(['--help'])\n"
        'heavy = {"sqlalchemy", "alembic", "oslo_messaging", "rich",\n'
        '    "oslo_config", "XenAPI", "cmd2"}\n'
        'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
        'sys.exit(status)\n'
    )

    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    for command in main.COMMANDS:
        assert f"  {command} " in done.stdout


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in main.COMMANDS:
        if command == 'simulator run':
            continue
        assert main.main([*command.split(), '--help']) == 0, command
        assert f"usage: xenpool {command}" in capsys.readouterr().out


def test_the_modules_used_here_are_the_real_ones() -> None:
    assert base.load_driver.__module__ == 'xenpool_driver.base'
    assert store.Store.__module__.startswith('xenpool_driver.store')


def test_a_name_that_would_be_an_option(xenpool: Run) -> None:
    result = xenpool('aggregate', 'create', '--', '-rf')
    assert result.status == 2
    assert 'does not begin with a hyphen' in result.err
    assert xenpool('aggregate', 'create', 'web').status == 0
    renamed = xenpool('aggregate', 'set', 'web', '--name=-rf')
    assert renamed.status == 2


def test_an_unknown_name_deletes_none(xenpool: Run) -> None:
    assert xenpool('aggregate', 'create', 'one').status == 0
    result = xenpool('aggregate', 'delete', 'one', 'nosuch')
    assert result.status == 2
    assert xenpool('aggregate', 'show', 'one').status == 0


def test_an_unknown_successor_is_wrong_usage(xenpool: Run) -> None:
    assert xenpool('aggregate', 'create', 'web').status == 0
    assert xenpool('aggregate', 'add', 'host', 'web', 'xen01').status == 0
    remove = ('aggregate', 'remove', 'host', 'web', 'xen01', '--yes')
    result = xenpool(*remove, '--successor', 'xen77')
    assert result.status == 2
    assert "'xen77' is not in aggregate 'web'" in result.err
    promoted = xenpool('aggregate', 'recover', 'web', '--promote', 'xen77')
    assert promoted.status == 2


def test_help_of_an_unknown_command(xenpool: Run) -> None:
    result = xenpool('help', 'nosuch')
    assert result.status == 2
    assert result.err.startswith('xenpool: unknown command: nosuch')
    assert xenpool('help', 'aggregate').status == 0
    assert xenpool('help', 'aggregate', 'list').status == 0


@pytest.mark.parametrize(
    ('argv', 'word'),
    [
        (('aggregate', 'recover', 'prod', '--the-master-is-off'), '--promote'),
        (
            ('aggregate', 'remove', 'host', 'prod', 'xen01', '--forget')
            + ('--drain',),
            '--drain',
        ),
        (
            ('aggregate', 'remove', 'host', 'prod', 'xen01', '--forget')
            + ('--successor', 'xen02'),
            '--successor',
        ),
    ],
    ids=lambda argv: ' '.join(argv) if isinstance(argv, tuple) else argv,
)
def test_options_that_make_no_sense_together(
    xenpool: Run, argv: tuple[str, ...], word: str
) -> None:
    xenpool('aggregate', 'create', 'prod')

    _says(xenpool(*argv), 2, word)


def test_another_number_is_no_slip(xenpool: Run) -> None:
    xenpool('aggregate', 'create', 'prod')

    told = xenpool('aggregate', 'check', 'prod', 'xen77')

    _says(told, 2, "'xen77' is unknown")
    assert 'did you mean' not in told.err


def test_help_is_made_of_whole_sentences(xenpool: Run) -> None:
    shown = ' '.join(xenpool('operation', 'list', '--help').out.split())

    assert 'the latest first. A request' in shown


def test_output_to_a_full_disk(config_file: pathlib.Path) -> None:
    argv = ('--config-file', str(config_file), 'aggregate', 'list')
    store.Store(_url(config_file)).close()
    with open('/dev/full', 'w') as full:
        told = subprocess.run(
            [sys.executable, '-m', 'xenpool_driver.cli.main', *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert told.returncode == 1, told.stderr
    [line] = told.stderr.splitlines()
    assert 'No space left on device' in line and 'unexpected' not in line


def _url(config_file: pathlib.Path) -> str:
    return f"sqlite:///{config_file.parent}/store.db"
