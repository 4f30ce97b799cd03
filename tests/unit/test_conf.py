# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Configuration files: what is read, what is refused, what is not shown."""

from __future__ import annotations

import collections.abc
import io
import pathlib
import re

import pytest
from oslo_config import cfg, generator, types

from xenpool_driver import conf, exceptions
from xenpool_driver.conf import options

TOP = pathlib.Path(__file__).parents[2]
SECRET = 'correct horse'  # nobody may ever read it in a message
FINGERPRINT = ':'.join(['AB'] * 32)

Write = collections.abc.Callable[..., str]

HOST = f"""
[xen01]
connection_url = https://192.0.2.11
connection_password = {SECRET}
"""


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Write:
    """Write a configuration file and return its name."""

    def write(text: str | bytes, name: str = 'xenpool.conf') -> str:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def refused(call: collections.abc.Callable[[], object]) -> str:
    """Return the one clear line with which ``call`` refuses."""
    with pytest.raises(exceptions.ConfigurationError) as caught:
        call()
    text = str(caught.value)
    assert '\n' not in text
    assert SECRET not in text
    return text


def test_defaults_need_no_file() -> None:
    loaded = conf.load([])
    assert loaded.xenpool.compute_driver == 'xenapi'
    assert loaded.xenpool.failure_threshold == 3
    assert loaded.enabled_hosts == []


def test_the_global_configuration_is_left_alone(write: Write) -> None:
    conf.load([write(HOST)])
    assert 'xenpool' not in cfg.CONF


def test_two_configurations_know_nothing_of_each_other() -> None:
    first, second = conf.load([]), conf.load([])
    first.set_override('failure_threshold', 9, group='xenpool')
    assert second.xenpool.failure_threshold == 3
    assert conf.load([]).xenpool.failure_threshold == 3


def test_later_files_win(write: Write) -> None:
    first = write('[xenpool]\njoin_timeout = 5\npoll_interval = 2\n', 'a')
    second = write('[xenpool]\njoin_timeout = 7\n', 'b')
    loaded = conf.load([first, second])
    assert loaded.xenpool.join_timeout == 7
    assert loaded.xenpool.poll_interval == 2


def test_without_files_the_usual_places_are_looked_in(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    place = tmp_path / '.xenpool'
    (place / 'xenpool.conf.d').mkdir(parents=True)
    (place / 'xenpool.conf').write_text('[xenpool]\njoin_timeout = 5\n')
    (place / 'xenpool.conf.d' / '1.conf').write_text(
        '[xenpool]\neject_timeout = 6\n'
    )
    loaded = conf.load()
    assert loaded.xenpool.join_timeout == 5
    assert loaded.xenpool.eject_timeout == 6


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('no assignment', ['line 1', "No ':' or '='"]),
        (f"[xen01]\nconnection_password {SECRET}\n", ['line 2']),
        ('a = b\n', ['line 1', 'Section must be started']),
        (b'\xff\xfe', ['not UTF-8']),
        ('[xenpool]\nfailure_threshold = no\n', ['failure_threshold']),
        ('[xenpool]\nfailure_threshold = 0\n', ['failure_threshold', '1']),
        (
            '[xenpool]\nfailure_treshold = 2\n',
            ['[xenpool]', "'failure_treshold'", 'failure_threshold?'],
        ),
        (HOST + 'conection_username = x\n', ['[xen01]', 'conection_user']),
        ('[database]\nconnection = a://b:$c@d\n', ['connection', '$$']),
    ],
)
def test_a_wrong_file_is_refused(
    write: Write, text: str | bytes, words: list[str]
) -> None:
    name = write(text)
    message = refused(lambda: conf.load([name]))
    assert [word for word in words if word not in message] == []


def test_a_missing_file_is_named() -> None:
    message = refused(lambda: conf.load(['/nowhere/xenpool.conf']))
    assert message == '/nowhere/xenpool.conf: configuration file not found'


def test_a_directory_is_no_file(tmp_path: pathlib.Path) -> None:
    assert str(tmp_path) in refused(lambda: conf.load([str(tmp_path)]))


def test_other_programs_sections_are_left_alone(write: Write) -> None:
    name = write('[oslo_messaging_rabbit]\nanything = 1\n' + HOST)
    assert list(conf.known_hosts(conf.load([name]))) == ['xen01']


def test_a_host(write: Write) -> None:
    text = (
        HOST + 'connection_username = pool-operator\nread_timeout = 5\n'
        f"certificate_fingerprint = {FINGERPRINT}\n"
    )
    access = conf.host_access(conf.load([write(text)]), 'xen01')
    assert access == conf.HostAccess(
        name='xen01',
        url='https://192.0.2.11',
        username='pool-operator',
        password=SECRET,
        read_timeout=5.0,
        fingerprint='ab' * 32,
    )
    assert (access.address, access.port) == ('192.0.2.11', 443)
    assert SECRET not in repr(access)


@pytest.mark.parametrize(
    ('url', 'address', 'port'),
    [
        ('https://192.0.2.11', '192.0.2.11', 443),
        ('https://192.0.2.11:8443/', '192.0.2.11', 8443),
        ('http://xen01.example.org', 'xen01.example.org', 80),
        ('https://[2001:db8::1]', '2001:db8::1', 443),
    ],
)
def test_addresses(write: Write, url: str, address: str, port: int) -> None:
    text = HOST.replace('https://192.0.2.11', url)
    access = conf.host_access(conf.load([write(text)]), 'xen01')
    assert (access.address, access.port) == (address, port)


@pytest.mark.parametrize(
    'url',
    [
        '192.0.2.11',
        'ftp://192.0.2.11',
        'https://',
        'https://192.0.2.11/jsonrpc',
        'https://192.0.2.11?a=b',
        'https://192.0.2.11:99999',
        'https://192.0.2.11:0',
        'https://[2001:db8::1',
        f"https://root:{SECRET.replace(' ', '')}@192.0.2.11",
        f"https://:{SECRET.replace(' ', '')}@192.0.2.11",
    ],
)
def test_an_odd_url_is_refused_and_not_repeated(
    write: Write, url: str
) -> None:
    loaded = conf.load([write(HOST.replace('https://192.0.2.11', url))])
    message = refused(lambda: conf.host_access(loaded, 'xen01'))
    assert '[xen01]' in message
    assert 'https://ADDRESS[:PORT]' in message
    assert SECRET.replace(' ', '') not in message


@pytest.mark.parametrize(
    ('url', 'words'),
    [
        ('https://fd00::1', 'in brackets: https://[fd00::1]'),
        (
            'https://fd00:1:2:3:4:5:6:7:8443',
            'https://[fd00:1:2:3:4:5:6:7]:8443',
        ),
        ('https://192.0.2.11:99999', 'port 99999 is none: it must be from 1'),
        ('https://192.0.2.11:0', 'port 0 is none'),
        ('https://192.0.2.11 :443', 'There is a blank in it'),
    ],
)
def test_what_is_wrong_with_an_odd_url_is_said(
    write: Write, url: str, words: str
) -> None:
    loaded = conf.load([write(HOST.replace('https://192.0.2.11', url))])
    assert words in refused(lambda: conf.host_access(loaded, 'xen01'))


@pytest.mark.parametrize('written', ["'", '"', "''"])
def test_a_password_of_quotes_alone(write: Write, written: str) -> None:
    line = f"connection_password = {written}\n"
    loaded = conf.load([write(HOST + line)])
    message = refused(lambda: conf.host_access(loaded, 'xen01'))
    assert 'Quotes and blanks around a value are taken off' in message
    other = '"' if "'" in written else "'"
    line = f"connection_password = {other}{written}{other}\n"
    access = conf.host_access(conf.load([write(HOST + line)]), 'xen01')
    assert access.password == written


@pytest.mark.parametrize(
    ('line', 'word'),
    [
        ('certificate_fingerprint = abc', 'SHA-256'),
        ('read_timeout = soon', 'read_timeout'),
        ('connection_password =', 'connection_password is missing'),
        ('connection_password = two$words', 'write $$'),
    ],
)
def test_an_odd_host_is_refused(write: Write, line: str, word: str) -> None:
    loaded = conf.load([write(HOST + line + '\n')])
    message = refused(lambda: conf.host_access(loaded, 'xen01'))
    assert '[xen01]' in message
    assert word in message
    assert 'words' not in message


def test_an_unknown_host_is_named() -> None:
    message = refused(lambda: conf.host_access(conf.load([]), 'xen09'))
    assert "host 'xen09' is unknown" in message


def test_known_hosts_are_the_enabled_and_their_neighbours(
    write: Write,
) -> None:
    section = '[{0}]\nconnection_url = https://{0}\nconnection_password = x\n'
    text = '[DEFAULT]\nenabled_hosts = xen02, xen01\n[other]\na = b\n'
    text += ''.join(section.format(f"xen0{number}") for number in (1, 2, 3))
    loaded = conf.load([write(text)])
    for _ in range(2):  # the second look finds the same
        assert list(conf.known_hosts(loaded)) == ['xen02', 'xen01', 'xen03']


def test_an_enabled_host_needs_its_section(write: Write) -> None:
    loaded = conf.load([write('[DEFAULT]\nenabled_hosts = xen01\n')])
    assert "'xen01'" in refused(lambda: conf.known_hosts(loaded))


def test_a_service_of_its_own_making_can_carry_our_options() -> None:
    foreign = cfg.ConfigOpts()
    foreign.register_opt(cfg.StrOpt('connection_url'), group='libvirt')
    conf.register_opts(foreign)
    foreign([], default_config_files=[])
    assert conf.known_hosts(foreign) == {}


def test_every_option_is_read_somewhere() -> None:
    text = '\n'.join(
        path.read_text()
        for path in (TOP / 'xenpool_driver').rglob('*.py')
        if path.name != 'options.py'
    )
    # the simulator's options are read as a whole, by their names
    unread = {
        opt.dest
        for group, opts in conf.list_opts()
        for opt in opts
        if str(getattr(group, 'name', group)) != 'simulator'
        and not re.search(rf"[.'\"]{opt.dest}\b", text)
    }
    assert unread == set()


def test_every_option_explains_itself() -> None:
    opts = [opt for _, group in conf.list_opts() for opt in group]
    assert [opt.name for opt in opts if not opt.help] == []
    secrets = {opt.name for opt in opts if opt.secret}
    assert secrets == {'connection_password', 'connection', 'password'}
    seconds = [opt for opt in opts if opt.name.endswith('timeout')]
    assert [opt.name for opt in seconds if 'Seconds' not in opt.help] == []


def test_the_sample_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    generated = io.StringIO()
    monkeypatch.chdir(TOP)
    settings = cfg.ConfigOpts()
    generator.register_cli_opts(settings)
    settings(['--config-file', 'etc/xenpool/config-generator.conf'])
    generator.generate(settings, generated)
    sample = TOP / 'etc' / 'xenpool' / 'xenpool.conf.sample'
    assert sample.read_text() == generated.getvalue(), 'run tox -e genconfig'


@pytest.mark.parametrize(
    'name', sorted(path.name for path in (TOP / 'etc').rglob('*hosts.conf'))
)
def test_the_examples_load(name: str) -> None:
    loaded = conf.load([str(TOP / 'etc' / 'xenpool' / name)])
    assert len(conf.known_hosts(loaded)) == 3
    assert loaded.enabled_hosts


def test_host_options_are_those_of_the_record() -> None:
    fields = set(conf.HostAccess.__dataclass_fields__)
    renamed = {
        'connection_url': 'url',
        'connection_username': 'username',
        'connection_password': 'password',
        'certificate_fingerprint': 'fingerprint',
    }
    names = {renamed.get(opt.dest, opt.dest) for opt in options.HOST_OPTS}
    assert names | {'name'} == fields


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf', '1e12', '-1', 'soon'])
def test_seconds_are_a_day_at_most(write: Write, value: str) -> None:
    groups = {
        'xenpool': options.XENPOOL_OPTS,
        'database': options.DATABASE_OPTS,
        'simulator': options.SIMULATOR_OPTS,
        'xen01': options.HOST_OPTS,
    }
    tried = []
    for section, opts in groups.items():
        for opt in opts:
            if not isinstance(opt.type, types.Float):
                continue
            head = HOST if section == 'xen01' else f"[{section}]\n"
            name = write(f"{head}{opt.name} = {value}\n")
            message = refused(lambda: conf.known_hosts(conf.load([name])))  # noqa: B023
            assert message == (
                f"section [{section}]: {opt.name}: '{value}' is no number "
                f"from {opt.type.min} to {opt.type.max}"
            )
            tried.append(opt.name)
    assert {'lease_duration', 'read_timeout', 'time_scale'} < set(tried)
