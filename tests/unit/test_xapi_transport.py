# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What goes over the wire: how often, to whom, and for how long."""

from __future__ import annotations

import collections.abc
import errno
import hashlib
import http.client
import pathlib
import socket
import ssl
import typing

import pytest
import trustme

from tests import permits
from tests.unit import scripted_host
from xenpool_driver import exceptions
from xenpool_driver.xapi import session, transport


@pytest.fixture
def host() -> collections.abc.Iterator[scripted_host.ScriptedHost]:
    with scripted_host.ScriptedHost() as found:
        found.answers['pool.get_all'] = lambda: ['OpaqueRef:pool']
        yield found


@pytest.fixture(scope='module')
def authority() -> trustme.CA:
    return trustme.CA()


class Secured(typing.NamedTuple):
    """A host that speaks TLS, and its certificate."""

    host: scripted_host.ScriptedHost
    certificate: trustme.LeafCert

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate."""
        pem = self.certificate.cert_chain_pems[0].bytes().decode()
        der = ssl.PEM_cert_to_DER_cert(pem)
        return hashlib.sha256(der).hexdigest()


@pytest.fixture
def secured(authority: trustme.CA) -> collections.abc.Iterator[Secured]:
    address = scripted_host.next_address()
    certificate = authority.issue_cert(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with scripted_host.ScriptedHost(context, address) as found:
        found.answers['pool.get_all'] = lambda: ['OpaqueRef:pool']
        yield Secured(found, certificate)


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: pathlib.Path) -> str:
    path = tmp_path / 'ca.pem'
    authority.cert_pem.write_to_path(path)
    return str(path)


def fail(error: Exception) -> collections.abc.Callable[..., typing.Any]:
    def answer(*args: typing.Any) -> typing.Any:
        raise error

    return answer


def test_call_that_is_cut_off_is_carried_out_once(
    host: scripted_host.ScriptedHost,
) -> None:
    host.answers['Async.pool.join'] = fail(scripted_host.Drop())
    home = permits.home(host.access())
    with pytest.raises(exceptions.XapiOutcomeUnknown, match='carried out'):
        home.change('Async.pool.join', '127.0.0.1', 'root', 'x')
    assert host.count('Async.pool.join') == 1


def test_call_after_idle_connections_died_is_carried_out_once(
    host: scripted_host.ScriptedHost,
) -> None:
    host.answers['pool.set_name_label'] = lambda *args: ''
    home = permits.home(host.access())
    home.read('pool.get_all')
    host.cut()
    home.change('pool.set_name_label', 'OpaqueRef:pool', 'a')
    assert host.count('pool.set_name_label') == 1


def test_read_survives_a_connection_that_died_idle(
    host: scripted_host.ScriptedHost,
) -> None:
    host.close_after_answer = True  # and never says so beforehand
    home = session.HostSession(host.access())
    for _ in range(5):
        assert home.read('pool.get_all') == ['OpaqueRef:pool']
    assert host.count('session.login_with_password') == 1


def test_reads_share_a_connection_and_changes_do_not(
    host: scripted_host.ScriptedHost,
) -> None:
    host.answers['pool.set_name_label'] = lambda *args: ''
    home = permits.home(host.access())
    for _ in range(5):
        home.read('pool.get_all')
    assert host.connections == 1
    for number in range(3):
        home.change('pool.set_name_label', 'OpaqueRef:pool', str(number))
    assert host.connections == 4
    home.read('pool.get_all')
    assert host.connections == 4


def test_transport_never_sends_twice(host: scripted_host.ScriptedHost) -> None:
    host.sessions.add('s')
    host.answers['pool.eject'] = fail(scripted_host.Drop())
    wire = transport.Transport(host.access())
    real = session.FACTORY(f"{host.url}/", transport=wire)
    with wire.reading():
        for _ in range(2):
            with pytest.raises(transport.ExchangeError):
                real.pool.eject('s', 'OpaqueRef:host')
    assert host.count('pool.eject') == 2


@pytest.mark.parametrize(
    'error',
    [
        ConnectionResetError(errno.ECONNRESET, 'reset'),
        BrokenPipeError(errno.EPIPE, 'broken'),
        http.client.RemoteDisconnected('closed'),
        TimeoutError(),
    ],
)
def test_no_error_makes_the_transport_try_again(
    host: scripted_host.ScriptedHost,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    attempts: list[object] = []

    def single_request(*args: object) -> object:
        attempts.append(args)
        raise error

    wire = transport.Transport(host.access())
    monkeypatch.setattr(wire, 'single_request', single_request)
    with pytest.raises(type(error)):
        wire.request('host', '/', b'')
    assert len(attempts) == 1


def test_silence_after_a_change_leaves_its_outcome_open(
    host: scripted_host.ScriptedHost,
) -> None:
    host.answers['Async.pool.eject'] = fail(scripted_host.Silence())
    home = permits.home(host.access(read_timeout=0.2))
    with pytest.raises(exceptions.XapiOutcomeUnknown, match='no answer'):
        home.change('Async.pool.eject', 'OpaqueRef:host')
    assert host.count('Async.pool.eject') == 1


def test_silence_after_a_read_can_be_asked_again(
    host: scripted_host.ScriptedHost,
) -> None:
    home = session.HostSession(host.access(read_timeout=0.2))
    home.login()
    host.answers['pool.get_all'] = fail(scripted_host.Silence())
    with pytest.raises(exceptions.XapiUnavailable, match='no answer'):
        home.read('pool.get_all')
    assert host.count('pool.get_all') == 1


def test_host_that_sends_a_byte_now_and_then_holds_nobody(
    host: scripted_host.ScriptedHost,
) -> None:
    home = session.HostSession(host.access(read_timeout=0.3))
    home.login()
    host.answers['pool.get_all'] = fail(scripted_host.Drip())
    with pytest.raises(exceptions.XapiUnavailable, match='no answer'):
        home.read('pool.get_all')


def test_time_limit_of_one_call_counts(
    host: scripted_host.ScriptedHost,
) -> None:
    home = session.HostSession(host.access(read_timeout=600.0))
    home.login()
    host.answers['pool.get_all'] = fail(scripted_host.Silence())
    with pytest.raises(exceptions.XapiUnavailable):
        home.read('pool.get_all', timeout=0.2)


def test_nothing_was_sent_when_nobody_listens() -> None:
    with socket.create_server((scripted_host.next_address(), 0)) as closed:
        address, port = closed.getsockname()
    host = scripted_host.ScriptedHost()
    with host:
        access = host.access(url=f"http://{address}:{port}")
    with pytest.raises(exceptions.XapiUnavailable, match='refuses'):
        permits.home(access).change('Async.pool.eject', 'x')


def test_nothing_was_sent_when_tls_never_answers(
    host: scripted_host.ScriptedHost,
) -> None:
    with socket.create_server((scripted_host.next_address(), 0)) as silent:
        address, port = silent.getsockname()
        access = host.access(
            url=f"https://{address}:{port}", connect_timeout=0.2
        )
        home = permits.home(access)
        with pytest.raises(exceptions.XapiUnavailable, match='no connection'):
            home.change('Async.pool.eject', 'OpaqueRef:host')


def test_host_that_accepts_no_connection_is_unavailable(
    host: scripted_host.ScriptedHost,
) -> None:
    full = socket.socket()
    waiting = []
    try:
        full.bind((scripted_host.next_address(), 0))
        full.listen(0)
        for _ in range(4):  # fill what the system keeps for it
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            waiting.append(one)
        address, port = full.getsockname()
        access = host.access(
            url=f"http://{address}:{port}", connect_timeout=0.2
        )
        with pytest.raises(exceptions.XapiUnavailable, match='no connection'):
            permits.home(access).change('Async.pool.eject', 'x')
    finally:
        for one in (*waiting, full):
            one.close()


def test_unknown_name_is_unavailable(host: scripted_host.ScriptedHost) -> None:
    access = host.access(url='http://nobody.invalid')
    with pytest.raises(exceptions.XapiUnavailable, match='resolved'):
        session.HostSession(access).login()


def test_certificate_of_the_configured_authority_is_accepted(
    secured: Secured, ca_file: str
) -> None:
    home = session.HostSession(secured.host.access(ca_file=ca_file))
    assert home.read('pool.get_all') == ['OpaqueRef:pool']


def test_certificate_of_no_known_authority_is_refused(
    secured: Secured,
) -> None:
    home = permits.home(secured.host.access())
    with pytest.raises(exceptions.XapiUnavailable) as caught:
        home.change('Async.pool.eject', 'OpaqueRef:host')
    assert 'certificate_fingerprint' in str(caught.value)
    assert '[xen01]' in str(caught.value)
    assert secured.host.calls == []


def test_certificate_of_another_address_is_refused(
    authority: trustme.CA, ca_file: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert('192.0.2.1').configure_cert(context)
    with scripted_host.ScriptedHost(context) as host:
        home = session.HostSession(host.access(ca_file=ca_file))
        with pytest.raises(exceptions.XapiUnavailable, match='not trusted'):
            home.login()
        assert host.calls == []


def test_pinned_certificate_needs_no_authority(secured: Secured) -> None:
    access = secured.host.access(fingerprint=secured.fingerprint)
    home = session.HostSession(access)
    assert home.read('pool.get_all') == ['OpaqueRef:pool']


@pytest.mark.parametrize('insecure', [False, True])
def test_other_certificate_than_the_pinned_one_gets_no_byte(
    secured: Secured, insecure: bool
) -> None:
    access = secured.host.access(fingerprint='0' * 64, insecure=insecure)
    with pytest.raises(exceptions.XapiUnavailable) as caught:
        session.HostSession(access).login()
    shown = secured.fingerprint.upper()
    assert shown[:2] + ':' + shown[2:4] in str(caught.value)
    assert secured.host.calls == []


def test_insecure_takes_any_certificate(secured: Secured) -> None:
    home = session.HostSession(secured.host.access(insecure=True))
    assert home.read('pool.get_all') == ['OpaqueRef:pool']


def test_plain_text_at_the_tls_port_is_unavailable(
    host: scripted_host.ScriptedHost,
) -> None:
    access = host.access(url=host.url.replace('http:', 'https:'))
    with pytest.raises(exceptions.XapiUnavailable, match='TLS'):
        permits.home(access).change('Async.pool.eject', 'x')
    assert host.calls == []


def test_tls_connection_that_is_cut_off_is_one_execution(
    secured: Secured, ca_file: str
) -> None:
    secured.host.answers['Async.pool.join'] = fail(scripted_host.Drop())
    home = permits.home(secured.host.access(ca_file=ca_file))
    with pytest.raises(exceptions.XapiOutcomeUnknown):
        home.change('Async.pool.join', '127.0.0.1', 'root', 'x')
    assert secured.host.count('Async.pool.join') == 1


def test_missing_ca_file_is_named(host: scripted_host.ScriptedHost) -> None:
    access = host.access(url='https://192.0.2.1', ca_file='/nowhere/ca.pem')
    with pytest.raises(exceptions.ConfigurationError) as caught:
        session.HostSession(access)
    assert '/nowhere/ca.pem' in str(caught.value)
    assert '[xen01]' in str(caught.value)


@pytest.mark.parametrize(
    'answer',
    [
        scripted_host.Raw(b'<html>welcome</html>'),
        scripted_host.Raw(b''),
        scripted_host.Raw(b'\xff\xfe'),
        scripted_host.Raw(b'<methodResponse><params>'),
        scripted_host.Raw(
            b'<methodResponse><params><param><value>x</value></param>'
            b'</params></methodResponse>'
        ),
        scripted_host.Raw(b'oops', 500),
        scripted_host.Raw(b'', 502),
    ],
)
def test_answer_that_is_not_xapis(
    host: scripted_host.ScriptedHost, answer: scripted_host.Raw
) -> None:
    host.answers['pool.get_all'] = fail(answer)
    host.answers['Async.pool.eject'] = fail(answer)
    home = permits.home(host.access())
    with pytest.raises(exceptions.XapiUnavailable):
        home.read('pool.get_all')
    with pytest.raises(exceptions.XapiOutcomeUnknown):
        home.change('Async.pool.eject', 'OpaqueRef:host')
    assert host.count('Async.pool.eject') == 1


@pytest.mark.parametrize('status', [301, 403, 404, 501])
def test_server_that_looks_at_no_call(
    host: scripted_host.ScriptedHost, status: int
) -> None:
    answer = scripted_host.Raw(b'', status)
    host.answers['Async.pool.eject'] = fail(answer)
    home = permits.home(host.access())
    with pytest.raises(exceptions.XapiUnavailable, match=str(status)):
        home.change('Async.pool.eject', 'OpaqueRef:host')
