# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Every command as its user meets it: output, messages, exit status.

The driver is the paper one; the store is real.
"""

from __future__ import annotations

import collections.abc
import csv
import datetime
import io
import json
import logging
import pathlib
import sqlite3
import typing

import pytest
import yaml

from tests import paper_driver
from xenpool_driver import base, exceptions, model, store
from xenpool_driver.cli import main, progress

SECRET = 'n0b0dy-sees-this'


class Result(typing.NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


Run = typing.Callable[..., Result]


@pytest.fixture
def config_file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / 'xenpool.conf'
    sections = ''.join(
        f"[xen0{number}]\nconnection_url = https://192.0.2.{number}\n"
        f"connection_password = {SECRET}\n"
        for number in range(1, 5)
    )
    path.write_text(
        '[DEFAULT]\nenabled_hosts = xen01, xen02, xen03, xen04\n'
        f"[database]\nconnection = sqlite:///{tmp_path}/store.db\n{sections}"
    )
    path.chmod(0o600)
    return path


@pytest.fixture
def database(
    tmp_path: pathlib.Path,
) -> collections.abc.Iterator[store.Store]:
    with store.Store(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


@pytest.fixture
def driver(
    database: store.Store, monkeypatch: pytest.MonkeyPatch
) -> paper_driver.PaperDriver:
    paper = paper_driver.PaperDriver(database)
    monkeypatch.setattr(base, 'load_driver', lambda *_: paper)
    return paper


@pytest.fixture
def xenpool(
    config_file: pathlib.Path,
    driver: paper_driver.PaperDriver,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    def run(*argv: str) -> Result:
        status = main.main(['--config-file', str(config_file), *argv])
        out, err = (
            text.replace(f"xenpool --config-file {config_file} ", 'xenpool ')
            for text in capsys.readouterr()
        )
        return Result(status, out, err)

    return run


def test_create_then_show_in_every_format(xenpool: Run) -> None:
    created = xenpool(
        'aggregate', 'create', 'prod', '--property', 'rack=7', '-f', 'json'
    )

    assert created.status == 0
    assert created.err == ''
    shown = json.loads(created.out)
    assert shown['name'] == 'prod'
    assert shown['state'] == 'created'
    assert shown['hosts'] == []
    assert shown['properties'] == {
        'hypervisor_pool': 'true',
        'operational_state': 'created',
        'rack': '7',
    }
    as_yaml = xenpool('aggregate', 'show', shown['uuid'], '-f', 'yaml')
    assert yaml.safe_load(as_yaml.out) == shown
    as_csv = xenpool('aggregate', 'show', 'prod', '-f', 'csv')
    [line] = csv.DictReader(io.StringIO(as_csv.out))
    assert line['uuid'] == shown['uuid']
    assert (
        "| state           | created"
        in xenpool('aggregate', 'show', 'prod').out
    )


def test_list_in_every_format(xenpool: Run) -> None:
    xenpool('aggregate', 'create', 'prod')
    xenpool('aggregate', 'add', 'host', 'prod', 'xen01', 'xen02')

    [listed] = json.loads(xenpool('aggregate', 'list', '-f', 'json').out)

    assert listed['Hosts'] == ['xen01', 'xen02']
    assert listed['Master'] == 'xen01'
    assert yaml.safe_load(xenpool('aggregate', 'list', '-f', 'yaml').out) == [
        listed
    ]
    as_csv = xenpool('aggregate', 'list', '-f', 'csv').out
    assert as_csv.splitlines()[0] == 'ID,Name,State,Master,Hosts,UUID'
    assert '"xen01, xen02"' in as_csv
    assert 'xen01, xen02' in xenpool('aggregate', 'list').out


def test_deleted_aggregates_are_listed_when_asked_for(xenpool: Run) -> None:
    xenpool('aggregate', 'create', 'old')
    assert xenpool('aggregate', 'delete', 'old').status == 0

    assert json.loads(xenpool('aggregate', 'list', '-f', 'json').out) == []
    [old] = json.loads(xenpool('aggregate', 'list', '--all', '-f', 'json').out)
    assert (old['Name'], old['State']) == ('old', 'dismissed')


def test_set_renames_and_changes_own_metadata(xenpool: Run) -> None:
    xenpool('aggregate', 'create', 'prod', '--property', 'rack=7')

    changed = xenpool(
        *('aggregate', 'set', 'prod', '--name', 'blue', '-f', 'json'),
        *('--property', 'row=2', '--unset-property', 'rack'),
    )

    assert changed.status == 0
    shown = json.loads(changed.out)
    assert shown['name'] == 'blue'
    assert shown['properties']['row'] == '2'
    assert 'rack' not in shown['properties']


@pytest.mark.parametrize(
    'key', ['operational_state', 'master_compute', 'hypervisor_pool', 'xen01']
)
def test_the_drivers_own_metadata_is_not_the_users(
    xenpool: Run, key: str
) -> None:
    xenpool('aggregate', 'create', 'prod')

    refused = xenpool('aggregate', 'set', 'prod', '--property', f"{key}=x")

    assert refused.status == 3
    assert f"'{key}'" in refused.err


def test_add_hosts_shows_a_result_per_host(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['xen02'] = paper_driver.refused_add()
    driver.trouble['xen03'] = exceptions.AggregateError(
        'prod', 'join', 'it did not boot'
    )
    xenpool('aggregate', 'create', 'prod')

    added = xenpool(
        *('aggregate', 'add', 'host', 'prod'),
        *('xen01', 'xen02', 'xen03', 'xen04', '-f', 'json'),
    )

    assert added.status == 1
    assert [
        (each['Host'], each['Result']) for each in json.loads(added.out)
    ] == [
        ('xen01', 'succeeded'),
        ('xen02', 'refused'),
        ('xen03', 'failed'),
        ('xen04', 'succeeded'),
    ]
    assert 'it did not boot' in added.err


def test_a_refusal_prints_every_finding(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['xen02'] = paper_driver.refused_add()
    xenpool('aggregate', 'create', 'prod')

    refused = xenpool('aggregate', 'add', 'host', 'prod', 'xen02')

    assert refused.status == 3
    assert refused.err.splitlines() == [
        'xenpool: Cannot add a host to aggregate prod: HA is enabled',
        "  fail: joiner-ha: high availability is enabled on 'xen02'",
        '    remedy: xe pool-ha-disable',
        "  warn: joiner-vms: VM 'web' is halted on the joiner",
    ]


def test_when_the_first_host_is_refused_the_next_becomes_master(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['xen01'] = paper_driver.refused_add()
    xenpool('aggregate', 'create', 'prod')

    added = xenpool('aggregate', 'add', 'host', 'prod', 'xen01', 'xen02')

    assert added.status == 1
    shown = json.loads(xenpool('aggregate', 'show', 'prod', '-f', 'json').out)
    assert (shown['master'], shown['hosts']) == ('xen02', ['xen02'])


def test_progress_is_plain_lines_where_there_is_no_terminal(
    xenpool: Run,
) -> None:
    xenpool('aggregate', 'create', 'prod')

    added = xenpool('aggregate', 'add', 'host', 'prod', 'xen01')

    assert added.err.splitlines() == [
        'xen01: join',
        'xen01: restart',
        'xen01: joining',
        'xen01: done',
    ]


def test_options_of_add_reach_the_driver(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    xenpool('aggregate', 'create', 'prod')

    xenpool(
        *('aggregate', 'add', 'host', 'prod', 'xen01'),
        *('--force', '--suspend-ha', '--restore-settings'),
    )

    [(_, _, options)] = driver.calls
    assert options['force']
    assert options['suspend_ha']
    assert options['restore_settings']


def _pool(xenpool: Run) -> None:
    xenpool('aggregate', 'create', 'prod')
    xenpool('aggregate', 'add', 'host', 'prod', 'xen01', 'xen02', 'xen03')


def test_remove_without_a_terminal_is_refused_with_the_list(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    _pool(xenpool)
    driver.reports['xen02'] = model.Report(
        'xen02',
        (
            model.Finding(
                'local-disks',
                model.Severity.WARN,
                "disk 'backup' (80 GiB) on SR 'Local storage' is wiped",
                'move it to shared storage',
            ),
        ),
    )

    refused = xenpool('aggregate', 'remove', 'host', 'prod', 'xen02')

    assert refused.status == 3
    assert "disk 'backup' (80 GiB)" in refused.err
    assert '--yes' in refused.err
    shown = json.loads(xenpool('aggregate', 'show', 'prod', '-f', 'json').out)
    assert 'xen02' in shown['hosts']


def test_remove_with_yes_passes_all_options_on(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    _pool(xenpool)

    removed = xenpool(
        *('aggregate', 'remove', 'host', 'prod', 'xen01', '--yes'),
        *('--drain', '--wait', '--successor', 'xen02'),
        *('--suspend-ha', '--keep-disabled'),
    )

    assert removed.status == 0
    method, host, options = driver.calls[-1]
    options.pop('progress')
    assert (method, host) == ('remove_from_aggregate', 'xen01')
    assert options == {
        'successor': 'xen02',
        'allow_data_loss': True,
        'forget': False,
        'drain': True,
        'keep_disabled': True,
        'wait': True,
        'suspend_ha': True,
    }
    removed = xenpool(
        *('aggregate', 'remove', 'host', 'prod', 'xen02', '--yes', '--forget')
    )
    assert removed.status == 0
    assert driver.calls[-1][2]['forget'] is True


class Terminal(io.StringIO):
    """Somebody sits there."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ('answer', 'status'), [('y\n', 0), ('yes\n', 0), ('n\n', 3), ('', 3)]
)
def test_remove_asks_on_a_terminal(
    xenpool: Run,
    driver: paper_driver.PaperDriver,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    status: int,
) -> None:
    _pool(xenpool)
    stderr = Terminal()
    monkeypatch.setattr('sys.stdin', Terminal(answer))
    monkeypatch.setattr('sys.stderr', stderr)

    removed = xenpool('aggregate', 'remove', 'host', 'prod', 'xen02')

    assert removed.status == status
    assert "Remove 'xen02'" in stderr.getvalue()
    asked = [call[0] for call in driver.calls]
    assert ('remove_from_aggregate' in asked) is (status == 0)


def test_set_master(xenpool: Run) -> None:
    _pool(xenpool)

    assert xenpool('aggregate', 'set', 'master', 'prod', 'xen03').status == 0

    shown = json.loads(xenpool('aggregate', 'show', 'prod', '-f', 'json').out)
    assert shown['master'] == 'xen03'


def test_delete_with_hosts_is_refused(xenpool: Run) -> None:
    _pool(xenpool)

    assert xenpool('aggregate', 'delete', 'prod').status == 3


def test_adopt(xenpool: Run) -> None:
    adopted = xenpool(
        'aggregate', 'adopt', 'lab', '--from', 'xen02', '-f', 'json'
    )

    assert adopted.status == 0
    shown = json.loads(adopted.out)
    assert (shown['master'], shown['state']) == ('xen02', 'active')


def test_a_refused_adoption_leaves_no_aggregate(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    driver.trouble['xen02'] = exceptions.InvalidAggregateActionAdd(
        'lab', 'the pool belongs to another aggregate'
    )

    refused = xenpool('aggregate', 'adopt', 'lab', '--from', 'xen02')

    assert refused.status == 3
    assert json.loads(xenpool('aggregate', 'list', '-f', 'json').out) == []


def _refusal_report() -> model.Report:
    refusal = paper_driver.refused_add()
    assert isinstance(refusal, exceptions.InvalidAggregateAction)
    assert refusal.report is not None
    return refusal.report


def test_check_prints_host_by_rule_worst_first(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    driver.reports['xen02'] = _refusal_report()
    xenpool('aggregate', 'create', 'prod')

    checked = xenpool(
        'aggregate', 'check', 'prod', 'xen01', 'xen02', '-f', 'csv'
    )

    assert checked.status == 3
    rows = list(csv.reader(io.StringIO(checked.out)))
    assert [row[:3] for row in rows] == [
        ['Host', 'Verdict', 'Check'],
        ['xen02', 'fail', 'joiner-ha'],
        ['xen02', 'warn', 'joiner-vms'],
        ['xen01', 'pass', 'all'],
    ]
    everything = xenpool('aggregate', 'check', 'prod', 'xen02', '--all')
    assert 'clock' in everything.out


@pytest.mark.parametrize(
    ('form', 'parse'), [('json', json.loads), ('yaml', yaml.safe_load)]
)
def test_check_gives_programs_the_whole_report(
    xenpool: Run,
    driver: paper_driver.PaperDriver,
    form: str,
    parse: typing.Callable[[str], typing.Any],
) -> None:
    report = driver.reports['xen02'] = _refusal_report()
    xenpool('aggregate', 'create', 'prod')

    checked = xenpool(
        'aggregate', 'check', 'prod', 'xen01', 'xen02', '-f', form
    )

    found = parse(checked.out)
    assert found['xen02'] == report.to_dict()
    assert found['xen02']['first_refusal'] == ['HA_IS_ENABLED']
    assert found['xen01'] == {'first_refusal': None, 'findings': []}


def test_check_with_warnings_only_is_done(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    warning = _refusal_report().findings[1]
    driver.reports['xen02'] = model.Report('xen02', (warning,))
    xenpool('aggregate', 'create', 'prod')

    assert xenpool('aggregate', 'check', 'prod', 'xen02').status == 0


def test_audit_of_everything(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    xenpool('aggregate', 'create', 'prod')
    xenpool('aggregate', 'create', 'lab')

    audited = xenpool('aggregate', 'audit', '--fix', '-f', 'json')

    assert audited.status == 0
    assert sorted(json.loads(audited.out)) == ['lab', 'prod']
    assert [call[2] for call in driver.calls] == [{'fix': True}] * 2
    driver.reports['audit'] = _refusal_report()
    assert xenpool('aggregate', 'audit', 'prod').status == 1


def test_recover_can_promote(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    xenpool('aggregate', 'create', 'prod')
    xenpool('aggregate', 'add', 'host', 'prod', 'xen01', 'xen02')

    assert (
        xenpool('aggregate', 'recover', 'prod', '--promote', 'xen02').status
        == 0
    )

    assert driver.calls[-1][2] == {
        'promote': 'xen02',
        'master_is_off': False,
        'force': None,
    }
    words = ('aggregate', 'recover', 'prod', '--promote', 'xen02')
    assert xenpool(*words, '--the-master-is-off').status == 0
    assert driver.calls[-1][2] == {
        'promote': 'xen02',
        'master_is_off': True,
        'force': None,
    }
    uuid = '0f0e0d0c-0000-4000-8000-000000000000'
    assert xenpool('aggregate', 'recover', 'prod', '--force', uuid).status == 0
    assert driver.calls[-1][2] == {
        'promote': None,
        'master_is_off': False,
        'force': uuid,
    }


def test_release_lets_go_and_can_be_repeated(
    xenpool: Run, driver: paper_driver.PaperDriver
) -> None:
    _pool(xenpool)
    driver.reports['release'] = model.Report(
        'prod',
        (
            model.Finding(
                'released',
                model.Severity.WARN,
                'the pool keeps the stamp',
                'xenpool aggregate adopt prod --from xen01',
            ),
        ),
    )

    released = xenpool('aggregate', 'release', 'prod')

    assert released.status == 0
    assert 'xenpool aggregate adopt prod --from xen01' in released.out
    assert json.loads(xenpool('aggregate', 'list', '-f', 'json').out) == []
    driver.trouble['release_aggregate'] = exceptions.XenpoolError('asked')
    assert xenpool('aggregate', 'release', 'prod').err == 'xenpool: asked\n'


def test_host_list_joins_configuration_and_aggregates(xenpool: Run) -> None:
    _pool(xenpool)

    listed = json.loads(xenpool('host', 'list', '-f', 'json').out)

    assert [
        (each['Host'], each['Aggregate'], each['Role']) for each in listed
    ] == [
        ('xen01', 'prod', 'master'),
        ('xen02', 'prod', 'member'),
        ('xen03', 'prod', 'member'),
        ('xen04', None, None),
    ]
    assert listed[0]['URL'] == 'https://192.0.2.1'


def test_operations_tell_their_story(
    xenpool: Run, database: store.Store
) -> None:
    prod = database.create_aggregate('prod')
    operation, _ = database.begin(
        *(
            prod.uuid,
            'join',
            'xen01',
            'worker',
            60.0,
            {'address': '192.0.2.9'},
        ),
        lambda row, running: store.Changes(),
    )
    operation = database.phase(operation, 'restart', 'as a member')

    [listed] = json.loads(
        xenpool('operation', 'list', '--running', '-f', 'json').out
    )
    assert (listed['Kind'], listed['Outcome']) == ('join', 'running')
    database.finish(operation, 'failed', 'it did not boot')

    shown = json.loads(
        xenpool('operation', 'show', operation.uuid[:8], '-f', 'json').out
    )
    assert shown['error'] == 'it did not boot'
    assert shown['details'] == {'address': '192.0.2.9'}
    assert [each['phase'] for each in shown['story']][:2] == [
        'begun',
        'restart',
    ]
    human = xenpool('operation', 'show', operation.uuid).out
    assert 'restart  as a member' in human
    [of_prod] = json.loads(
        xenpool('operation', 'list', '--aggregate', 'prod', '-f', 'json').out
    )
    assert of_prod['Outcome'] == 'failed'


@pytest.mark.parametrize('lease', [1e12, 1e308, float('inf')])
def test_a_lease_of_an_older_release_that_never_ends(
    xenpool: Run,
    database: store.Store,
    tmp_path: pathlib.Path,
    lease: float,
) -> None:
    row = database.create_aggregate('prod')
    left, _ = database.begin(
        *(row.uuid, 'join', 'xen01', 'dead', 60.0, {}),
        lambda row, running: store.Changes(),
    )
    with sqlite3.connect(tmp_path / 'store.db') as connection:
        connection.execute(
            'UPDATE xenpool_operations SET lease = ?, lease_expires = ? '
            'WHERE uuid = ?',
            (lease, lease, left.uuid),
        )
    connection.close()

    assert xenpool('operation', 'list').status == 0
    shown = xenpool('operation', 'show', left.uuid, '-f', 'json')
    assert json.loads(shown.out)['lease_expires'] == 'never'
    assert database.expired_operations() == []
    shown = xenpool('operation', 'show', left.uuid, '-f', 'json')
    until = datetime.datetime.fromisoformat(
        json.loads(shown.out)['lease_expires']
    )
    left_over = until - datetime.datetime.now(datetime.UTC)
    assert left_over <= datetime.timedelta(days=1)


def test_db_upgrade_and_version(xenpool: Run) -> None:
    upgraded = xenpool('db', 'upgrade')
    shown = json.loads(xenpool('db', 'version', '-f', 'json').out)

    assert upgraded.status == 0
    assert shown['database'] == shown['program']
    assert shown['program'] in upgraded.out


def test_progress_of_no_host_names_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    tell = progress.Lines()
    tell('', 'look for the pool', None)
    tell('xen01', 'join', None)
    assert caplog.messages == ['look for the pool', 'xen01: join']
