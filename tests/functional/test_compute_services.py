# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Two services in two processes, one database, one broker, one pool."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import typing
import urllib.parse
import uuid

import pytest

from tests import services
from tests.functional import cli_lab
from xenpool_driver import simulator, store
from xenpool_driver.cli import main
from xenpool_driver.store import core
from xenpool_driver.xapi import session

pytest.importorskip(
    'xenpool_driver.compute.bus', reason='needs the extra [service]'
)

TOPOLOGY = """
pools:
  - hosts: [{0}]
  - hosts: [{1}]
    vms:
      - {{name: compute, host: {1}, power_state: Running, memory_gib: 1}}
  - hosts: [{2}]
"""


@dataclasses.dataclass
class Site:
    """Hosts, the services that own them, and somebody who asks."""

    lab: simulator.Simulation
    hosts: list[str]
    directory: pathlib.Path
    database: str
    rabbit: str
    capsys: pytest.CaptureFixture[str]
    guest: str = ''

    def config(self, name: str, *enabled: str) -> pathlib.Path:
        """Write the configuration of a process."""
        sections = {}
        if self.guest:
            sections[self.hosts[1]] = {'compute_vm_uuid': self.guest}
        return cli_lab.write_config(
            self.directory / f"{name}.conf",
            self.lab,
            default=f"transport_url = {self.rabbit}",
            database=self.database,
            enabled=enabled,
            sections=sections,
        )

    def xenpool(self, *words: str) -> cli_lab.Result:
        """Run a command of somebody who owns no host."""
        path = self.config('user', self.hosts[0])
        status = main.main(['--config-file', str(path), *words])
        out, err = self.capsys.readouterr()
        return cli_lab.Result(status, out, err)

    @contextlib.contextmanager
    def service(
        self, *enabled: str
    ) -> collections.abc.Iterator[subprocess.Popen[str]]:
        """Run a service of these hosts; see that it ends cleanly."""
        log = self.directory / f"{enabled[0]}.log"
        with self.started(*enabled) as process:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        assert process.returncode == 0, log.read_text()
        assert cli_lab.PASSWORD not in log.read_text()

    @contextlib.contextmanager
    def started(
        self, *enabled: str
    ) -> collections.abc.Iterator[subprocess.Popen[str]]:
        """Run a service of these hosts; kill it in the end."""
        path = self.config(f"service-{enabled[0]}", *enabled)
        log = self.directory / f"{enabled[0]}.log"
        with (
            log.open('w') as stream,
            subprocess.Popen(
                [
                    *(sys.executable, '-m', 'xenpool_driver.compute.service'),
                    *('--config-file', str(path)),
                ],
                stderr=stream,
                text=True,
            ) as process,
        ):
            try:
                _wait_for(log, 'Serving', process)
                yield process
            finally:
                process.kill()

    def shown(self, name: str) -> dict[str, typing.Any]:
        """Return an aggregate."""
        result = self.xenpool('aggregate', 'show', name, '-f', 'json')
        return typing.cast(dict[str, typing.Any], json.loads(result.out))


def _wait_for(
    log: pathlib.Path, word: str, process: subprocess.Popen[str]
) -> None:
    """Return when the word is in the log, or fail with all of it."""
    while word not in log.read_text():
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the service has ended: {log.read_text()}")


@pytest.fixture
def site(
    tmp_path: pathlib.Path,
    postgresql_url: str,
    rabbit_url: str,
    capsys: pytest.CaptureFixture[str],
) -> collections.abc.Iterator[Site]:
    tag = uuid.uuid4().hex[:6]
    hosts = [f"xen0{number}-{tag}" for number in (1, 2, 3)]
    store.migrate(postgresql_url)
    lab = cli_lab.described(
        tmp_path / 'topology.yaml', TOPOLOGY.format(*hosts)
    )
    with lab:
        yield Site(lab, hosts, tmp_path, postgresql_url, rabbit_url, capsys)


def _guest_of(site: Site) -> tuple[str, str]:
    """Return uuid and power state of the guest, as XAPI says."""
    for host in site.lab.hosts:
        plain = session.FACTORY(host.url, ignore_ssl=True)
        with contextlib.ExitStack() as at_end:
            at_end.callback(plain('close'))
            try:
                plain.xenapi.login_with_password('root', cli_lab.PASSWORD)
            except session.FAILURE:
                continue
            for ref in plain.xenapi.VM.get_by_name_label('compute'):
                return (
                    plain.xenapi.VM.get_uuid(ref),
                    plain.xenapi.VM.get_power_state(ref),
                )
    pytest.fail('the guest is gone')


def test_two_services_form_one_pool(site: Site) -> None:
    first, second, third = site.hosts
    with site.service(first, third), site.service(second):
        assert site.xenpool('aggregate', 'create', 'prod').status == 0
        # The guest on the second host would forbid the join.
        added = site.xenpool(
            'aggregate', 'add', 'host', 'prod', first, third, '--remote'
        )
        assert added.status == 0, added.err

        refused = site.xenpool(
            'aggregate', 'add', 'host', 'prod', second, '--remote'
        )
        assert refused.status == 3, refused.err
        assert "compute" in refused.err
        assert 'remedy' in refused.err

        moved = site.xenpool(
            'aggregate', 'set', 'master', 'prod', third, '--remote'
        )
        assert moved.status == 0, moved.err
        assert cli_lab.memberships(site.lab) == {(third, first), (second,)}

        removed = site.xenpool(
            *('aggregate', 'remove', 'host', 'prod', first),
            *('--yes', '--wait', '--remote'),
        )
        assert removed.status == 0, removed.err
        audited = site.xenpool('aggregate', 'audit', 'prod', '--remote')
        assert audited.status == 0, audited.out

    shown = site.shown('prod')
    assert (shown['state'], shown['master'], shown['hosts']) == (
        'active',
        third,
        [third],
    )
    assert cli_lab.memberships(site.lab) == {(first,), (second,), (third,)}


def test_a_service_in_a_guest_on_the_joiner(site: Site) -> None:
    first, second, _ = site.hosts
    site.guest, power_state = _guest_of(site)
    assert power_state == 'Running'

    with site.service(first), site.service(second):
        site.xenpool('aggregate', 'create', 'prod')
        for host in (first, second):
            added = site.xenpool(
                'aggregate', 'add', 'host', 'prod', host, '--remote'
            )
            assert added.status == 0, added.err

    assert (first, second) in cli_lab.memberships(site.lab)
    assert _guest_of(site) == (site.guest, 'Running')
    operations = json.loads(
        site.xenpool('operation', 'list', '-f', 'json').out
    )
    join = next(each for each in operations if each['Kind'] == 'join')
    told = json.loads(
        site.xenpool('operation', 'show', join['UUID'], '-f', 'json').out
    )
    phases = [each['phase'] for each in told['story']]
    assert phases.index('stop compute guest') < phases.index('join')
    assert phases.index('join') < phases.index('start compute guest')


def test_an_absent_service_is_known_at_once(site: Site) -> None:
    first = site.hosts[0]
    site.xenpool('aggregate', 'create', 'prod')

    added = site.xenpool('aggregate', 'add', 'host', 'prod', first, '--remote')

    assert added.status == 1
    assert f"no compute service answers for host '{first}'" in added.err
    assert site.shown('prod')['state'] == 'created'


def test_a_service_that_has_ended_is_absent(site: Site) -> None:
    first = site.hosts[0]
    site.xenpool('aggregate', 'create', 'prod')
    with site.service(first):
        added = site.xenpool(
            'aggregate', 'add', 'host', 'prod', first, '--remote'
        )
        assert added.status == 0, added.err

    removed = site.xenpool(
        'aggregate', 'remove', 'host', 'prod', first, '--yes', '--remote'
    )

    assert removed.status == 1
    assert f"no compute service answers for host '{first}'" in removed.err


def test_a_broker_that_is_not_there(site: Site) -> None:
    site.rabbit = 'rabbit://guest:guest@127.50.0.250:5672//'
    site.xenpool('aggregate', 'create', 'prod')

    added = site.xenpool(
        'aggregate', 'add', 'host', 'prod', site.hosts[0], '--remote'
    )

    assert added.status == 1
    assert 'the message bus cannot be reached' in added.err
    assert '127.50.0.250' in added.err


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('[xenpool]\ncompute_driver = frobnicate', 'frobnicate'),
        ('[xenpool]\ncompute_drivr = xenapi', 'compute_drivr'),
        ('[DEFAULT]\nenabled_hosts =', 'enabled_hosts'),
        ('[DEFAULT]\nenabled_hosts = xen77', 'xen77'),
    ],
)
def test_a_service_that_cannot_work_ends_with_one_line(
    site: Site, line: str, words: str
) -> None:
    path = site.config('wrong', site.hosts[0])
    more = site.directory / 'more.conf'
    more.write_text(f"{line}\n")

    done = subprocess.run(
        [
            *(sys.executable, '-m', 'xenpool_driver.compute.service'),
            *('--config-file', str(path), '--config-file', str(more)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('xenpool-compute: ')
    assert words in last
    assert 'Traceback' not in done.stderr


def _silence(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Let the callers of this process wait for so long only."""
    from xenpool_driver.compute import rpcapi

    monkeypatch.setattr(rpcapi, 'MONITOR_SECONDS', seconds)


def _requests(site: Site) -> list[dict[str, typing.Any]]:
    """Return what the journal shows, the latest first."""
    listed = site.xenpool('operation', 'list', '-f', 'json')
    return typing.cast(list[dict[str, typing.Any]], json.loads(listed.out))


def test_a_frozen_service_does_nothing_for_a_caller_that_has_gone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _silence(monkeypatch, 2)
    first = site.hosts[0]
    site.xenpool('aggregate', 'create', 'prod')
    words = ('aggregate', 'add', 'host', 'prod', first, '--remote')
    with site.service(first) as process:
        process.send_signal(signal.SIGSTOP)
        added = site.xenpool(*words)
        process.send_signal(signal.SIGCONT)
        _wait_for(site.directory / f"{first}.log", 'Dropped', process)

        assert added.status == 3
        assert 'nothing happened' in added.err
        [request] = _requests(site)
        assert (request['Kind'], request['Host']) == ('add host', first)
        assert (request['Phase'], request['Outcome']) == ('sent', 'withdrawn')
        shown = site.shown('prod')
        assert (shown['state'], shown['hosts']) == ('created', [])

        # The way out that was named.
        assert site.xenpool(*words).status == 0
    assert [each['Outcome'] for each in _requests(site)] == [
        'succeeded',
        'withdrawn',
    ]


def test_a_service_that_starts_later_drops_what_was_sent_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frozen one is killed: the broker hands its message on."""
    _silence(monkeypatch, 2)
    first = site.hosts[0]
    site.xenpool('aggregate', 'create', 'prod')
    with site.started(first) as frozen:
        frozen.send_signal(signal.SIGSTOP)
        added = site.xenpool(
            'aggregate', 'add', 'host', 'prod', first, '--remote'
        )
        with site.service(first) as later:
            frozen.kill()
            _wait_for(site.directory / f"{first}.log", 'Dropped', later)

    assert added.status == 3
    assert 'nothing happened' in added.err
    assert [each['Outcome'] for each in _requests(site)] == ['withdrawn']
    assert site.shown('prod')['state'] == 'created'


def test_a_request_whose_service_falls_silent_is_followed_to_its_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _silence(monkeypatch, 2)
    first, _, third = site.hosts
    site.xenpool('aggregate', 'create', 'prod')
    with site.service(first, third) as process:
        words = ('aggregate', 'add', 'host', 'prod', '--remote')
        assert site.xenpool(*words, first).status == 0

        def freeze() -> None:
            while len(store_.running_operations()) == 0:
                time.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
            time.sleep(5.0)
            process.send_signal(signal.SIGCONT)

        with core.Store(site.database) as store_:
            freezer = threading.Thread(target=freeze)
            freezer.start()
            added = site.xenpool(*words, third)
            freezer.join()

    assert added.status == 0, added.err
    assert site.shown('prod')['hosts'] == [first, third]


AWKWARD = 'pa/ss?w#rd%@:,;+ü'
"""A password in which every character counts."""


@pytest.fixture
def user(site: Site) -> collections.abc.Iterator[str]:
    """A user of the broker who has the awkward password."""
    name = f"xenpool-{uuid.uuid4().hex[:8]}"
    control = shutil.which('rabbitmqctl')
    if control is None:
        services.missing('no rabbitmqctl')
    for words in (
        ('add_user', name, AWKWARD),
        ('set_permissions', '-p', '/', name, '.*', '.*', '.*'),
    ):
        done = subprocess.run(
            [control, '-q', *words], capture_output=True, text=True
        )
        if done.returncode:
            services.missing(f"rabbitmqctl: {done.stderr.strip()}")
    yield name
    subprocess.run([control, '-q', 'delete_user', name], check=True)


def _login(site: Site, user: str, password: str) -> None:
    """Let everybody use the broker as this user."""
    where = site.rabbit.rpartition('@')[2]
    quoted = urllib.parse.quote(password, '')
    site.rabbit = f"rabbit://{user}:{quoted}@{where}"


def test_any_character_may_be_in_the_password_of_the_bus(
    site: Site, user: str
) -> None:
    _login(site, user, AWKWARD)
    first = site.hosts[0]
    site.xenpool('aggregate', 'create', 'prod')

    words = ('aggregate', 'add', 'host', 'prod', first, '--remote')
    with site.service(first):
        # A process of its own: the bus keeps threads, and the user goes.
        added = subprocess.run(
            [
                *(sys.executable, '-m', 'xenpool_driver.cli.main'),
                *('--config-file', str(site.config('user', first)), *words),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert added.returncode == 0, added.stderr
    told = (site.directory / f"{first}.log").read_text() + added.stderr
    assert 'pa/ss' not in told
    assert 'pa%2Fss' not in told


def test_a_wrong_password_of_the_bus_is_told_in_one_line(site: Site) -> None:
    _login(site, 'nobody', 'wr0ng/w0rd')
    site.xenpool('aggregate', 'create', 'prod')
    path = site.config('wrong', site.hosts[0])

    added = site.xenpool(
        'aggregate', 'add', 'host', 'prod', site.hosts[0], '--remote'
    )
    served = subprocess.run(
        [
            *(sys.executable, '-m', 'xenpool_driver.compute.service'),
            *('--config-file', str(path)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (added.status, served.returncode) == (2, 2)
    for text in (added.err, served.stderr):
        line = text.splitlines()[-1]
        assert "refuses the login of user 'nobody'" in line
        assert 'transport_url' in line
        assert 'Traceback' not in text
        assert 'wr0ng' not in text
    assert len(added.err.splitlines()) == 1


def test_a_service_that_waits_for_its_broker_can_be_stopped(
    site: Site,
) -> None:
    site.rabbit = 'rabbit://guest:guest@127.50.0.250:5672//'
    path = site.config('early', site.hosts[0])
    log = site.directory / 'early.log'
    with (
        log.open('w') as stream,
        subprocess.Popen(
            [
                *(sys.executable, '-m', 'xenpool_driver.compute.service'),
                *('--config-file', str(path)),
            ],
            stderr=stream,
            text=True,
        ) as process,
    ):
        _wait_for(log, '127.50.0.250:5672', process)
        _wait_for(log, 'waiting for it', process)
        process.send_signal(signal.SIGTERM)

    assert process.returncode == -signal.SIGTERM
