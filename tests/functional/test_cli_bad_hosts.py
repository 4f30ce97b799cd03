# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Hosts that cannot be worked with: each its own message and status.

Nothing is half-written: after each refusal aggregate and pools are as they
were.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import fcntl
import json
import os
import pathlib
import stat
import typing

import pytest
import trustme

from tests.functional import cli_lab
from xenpool_driver import simulator
from xenpool_driver.cli import main


@pytest.fixture(scope='module')
def lab() -> collections.abc.Iterator[simulator.Simulation]:
    with cli_lab.simulation(3) as running:
        yield running


@dataclasses.dataclass
class Desk:
    """Where somebody types commands."""

    lab: simulator.Simulation
    path: pathlib.Path
    capsys: pytest.CaptureFixture[str]

    def configure(self, host: str, **options: str) -> None:
        """Give a host's section other options."""
        cli_lab.write_config(self.path, self.lab, sections={host: options})

    def __call__(self, *words: str) -> cli_lab.Result:
        status = main.main(['--config-file', str(self.path), *words])
        out, err = self.capsys.readouterr()
        return cli_lab.Result(status, out, err)

    def shown(self) -> dict[str, typing.Any]:
        """Return the aggregate."""
        result = self('aggregate', 'show', 'prod', '-f', 'json')
        return typing.cast(dict[str, typing.Any], json.loads(result.out))


@pytest.fixture
def xenpool(
    lab: simulator.Simulation,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> Desk:
    desk = Desk(lab, tmp_path / 'xenpool.conf', capsys)
    desk.configure('xen01')
    assert desk('aggregate', 'create', 'prod').status == 0
    return desk


def _refused(desk: Desk, status: int, *words: str) -> None:
    """Assert that xen01 cannot be added, and that nothing has changed."""
    before = desk.shown(), cli_lab.memberships(desk.lab)

    added = desk('aggregate', 'add', 'host', 'prod', 'xen01')

    assert added.status == status, added.err
    assert 'Traceback' not in added.err
    assert cli_lab.PASSWORD not in added.err
    for word in words:
        assert word in added.err
    assert (desk.shown(), cli_lab.memberships(desk.lab)) == before


def test_wrong_password(xenpool: Desk) -> None:
    xenpool.configure('xen01', connection_password='wr0ng-one')

    _refused(xenpool, 3, 'xen01', 'SESSION_AUTHENTICATION_FAILED')


def test_certificate_of_another_authority(
    xenpool: Desk, tmp_path: pathlib.Path
) -> None:
    other = tmp_path / 'other.pem'
    trustme.CA().cert_pem.write_to_path(str(other))
    xenpool.configure('xen01', ca_file=str(other))

    _refused(xenpool, 3, 'xen01', 'certificate')


def test_certificate_with_another_fingerprint(xenpool: Desk) -> None:
    xenpool.configure('xen01', certificate_fingerprint='ab' * 32)

    _refused(xenpool, 3, 'xen01', 'fingerprint')


def test_unreachable_host(xenpool: Desk) -> None:
    xenpool.configure('xen01', connection_url='https://127.50.255.254:8443')

    _refused(xenpool, 3, 'xen01', 'refuses the connection')


def test_password_is_missing(xenpool: Desk) -> None:
    xenpool.configure('xen01', connection_password='')

    result = xenpool('aggregate', 'add', 'host', 'prod', 'xen01')

    assert result.status == 2
    assert '[xen01]: connection_password is missing' in result.err


def test_a_host_that_is_in_another_aggregate(xenpool: Desk) -> None:
    assert xenpool('aggregate', 'create', 'lab').status == 0
    added = xenpool('aggregate', 'add', 'host', 'lab', 'xen01')
    assert added.status == 0, added.err

    _refused(xenpool, 3, 'xen01', 'lab')

    removed = xenpool('aggregate', 'remove', 'host', 'lab', 'xen01', '--yes')
    assert removed.status == 0, removed.err


def test_a_url_that_points_at_a_pool_member(xenpool: Desk) -> None:
    assert xenpool('aggregate', 'create', 'lab').status == 0
    added = xenpool('aggregate', 'add', 'host', 'lab', 'xen02', 'xen03')
    assert added.status == 0, added.err
    member = xenpool.lab.hosts[2].url
    xenpool.configure('xen01', connection_url=member)

    _refused(xenpool, 3, 'xen01', 'member')
    for twin in xenpool.lab.hosts[1:]:  # the master, and the member
        xenpool.configure('xen01', connection_url=twin.url)
        again = xenpool('aggregate', 'add', 'host', 'lab', 'xen01')
        assert again.status == 3, again.err
        assert f"has as '{twin.name}' ({twin.uuid})" in again.err
        shown = xenpool('aggregate', 'show', 'lab', '-f', 'json')
        assert json.loads(shown.out)['hosts'] == ['xen02', 'xen03']

    for host in ('xen03', 'xen02'):
        removed = xenpool(
            *('aggregate', 'remove', 'host', 'lab', host, '--yes', '--wait')
        )
        assert removed.status == 0, removed.err


def test_records_are_dumped_and_judged_offline(
    xenpool: Desk, tmp_path: pathlib.Path
) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ('xen01', 'xen02')}
    for name, path in files.items():
        dumped = xenpool('records', 'dump', name, '--output', str(path))
        assert dumped.status == 0, dumped.err
        assert len(json.loads(path.read_text())['host']) == 1

    judged = xenpool(
        *('preflight', 'join', '-f', 'json'),
        *('--joiner', str(files['xen02']), '--pool', str(files['xen01'])),
    )

    report = json.loads(judged.out)
    assert judged.status == 0
    assert report['first_refusal'] is None
    assert {'check', 'severity', 'predicts', 'force_passes', 'objects'} < set(
        report['findings'][0]
    )
    assert 'fail' not in {each['severity'] for each in report['findings']}


def test_records_are_dumped_into_what_is_there(
    xenpool: Desk, tmp_path: pathlib.Path
) -> None:
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)  # it holds more than the records take
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 1 << 20)
    link = tmp_path / 'link'
    link.symlink_to(tmp_path / 'target')

    for path in (pipe, link):
        dumped = xenpool('records', 'dump', 'xen01', '--output', str(path))
        assert dumped.status == 0, dumped.err

    assert pipe.is_fifo()
    assert json.loads(os.read(reader, 1 << 20))['host']
    os.close(reader)
    assert link.is_symlink()
    assert json.loads((tmp_path / 'target').read_text())['host']
    assert stat.S_IMODE((tmp_path / 'target').stat().st_mode) == 0o600
    assert not list(tmp_path.glob('tmp*'))


def test_live_check_of_a_good_host(xenpool: Desk) -> None:
    checked = xenpool('aggregate', 'check', 'prod', 'xen01', '-f', 'json')

    assert checked.status == 0, checked.out
    assert list(json.loads(checked.out)) == ['xen01']
