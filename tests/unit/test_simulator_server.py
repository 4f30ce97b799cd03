# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The sockets of the simulated machines."""

from __future__ import annotations

import gc
import http.client
import pathlib
import socket
import ssl
import struct
import typing

import pytest
import XenAPI

from tests import broken_off, simulated
from xenpool_driver.simulator import faults, server, tls

LOGIN = (
    '{"jsonrpc":"2.0","method":"session.login_with_password",'
    '"params":["root","xenroot"],"id":1}'
)


@pytest.fixture
def machine() -> typing.Iterator[simulated.Machine]:
    made = simulated.Machine()
    yield made
    made.clock.stop()


@pytest.fixture
def serving(tmp_path: pathlib.Path) -> typing.Iterator[server.Server]:
    made = server.Server(https_port=0, http_port=0, state_dir=tmp_path)
    yield made
    made.stop()


def _place(
    serving: server.Server, machine: simulated.Machine, kind: str
) -> tuple[str, int]:
    return machine.address, serving.port(machine, kind)


def _post(connection: http.client.HTTPConnection) -> int:
    connection.request('POST', '/jsonrpc', LOGIN)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_xapis_own_client_works_unmodified(
    machine: simulated.Machine, serving: server.Server
) -> None:
    serving.listen(machine)
    address, port = _place(serving, machine, server.HTTP)
    client = XenAPI.Session(f'http://{address}:{port}')
    client.xenapi.login_with_password('root', 'xenroot', '1.0', 'test')
    host = client.xenapi.host.get_all()[0]
    record = client.xenapi.host.get_record(host)
    assert record['memory_overhead'] == '4296015872'
    assert record['enabled'] is True
    with pytest.raises(XenAPI.Failure) as caught:
        client.xenapi.host.get_record('x')
    assert caught.value.details == ['HANDLE_INVALID', 'host', 'x']
    client('close')()


def test_certificates_are_valid_and_kept(
    machine: simulated.Machine, serving: server.Server, tmp_path: pathlib.Path
) -> None:
    serving.open(machine, server.HTTPS)
    trust = ssl.create_default_context(cadata=serving.ca_pem().decode())
    connection = http.client.HTTPSConnection(
        *_place(serving, machine, server.HTTPS), context=trust, timeout=10
    )
    assert _post(connection) == 200
    assert _post(connection) == 200
    connection.close()
    again = server.Server(https_port=0, http_port=None, state_dir=tmp_path)
    first = serving.authority.fingerprint(machine.address, machine.name)
    assert again.authority.fingerprint(machine.address, machine.name) == first
    assert again.ca_pem() == serving.ca_pem()
    assert (tmp_path / 'ca-key.pem').stat().st_mode & 0o077 == 0
    again.stop()


def test_closed_sockets_refuse_cut_and_come_back(
    machine: simulated.Machine, serving: server.Server
) -> None:
    serving.listen(machine)
    place = _place(serving, machine, server.HTTP)
    secure = socket.create_connection(_place(serving, machine, server.HTTPS))
    connection = http.client.HTTPConnection(*place, timeout=10)
    assert _post(connection) == 200
    serving.close(machine, server.HTTP)
    with pytest.raises(broken_off.BROKEN_OFF):
        _post(connection)
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place)
    socket.create_connection(_place(serving, machine, server.HTTPS)).close()
    serving.open(machine, server.HTTP)
    assert _place(serving, machine, server.HTTP) == place
    connection = http.client.HTTPConnection(*place, timeout=10)
    assert _post(connection) == 200
    connection.close()
    secure.close()


@pytest.mark.filterwarnings('error::ResourceWarning')
@pytest.mark.parametrize('said', [b'', b'hello'])
def test_a_caller_who_hung_up_leaves_no_socket_behind(
    said: bytes, tmp_path: pathlib.Path
) -> None:
    context = tls.Authority(tmp_path).context('127.0.0.1', 'xen')
    with socket.create_server(('127.0.0.1', 0)) as listening:
        caller = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        caller.sendall(said)
        at_once = struct.pack('ii', 1, 0)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        caller.close()
    with (
        context.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False
        ) as secured,
        pytest.raises(OSError),
    ):
        secured.do_handshake()
    gc.collect()


def test_requests_may_follow_each_other_without_waiting(
    machine: simulated.Machine, serving: server.Server
) -> None:
    serving.open(machine, server.HTTP)
    request = (
        f'POST /jsonrpc HTTP/1.1\r\nContent-Length: {len(LOGIN)}\r\n\r\n'
        f'{LOGIN}'
    ).encode()
    last = request.replace(b'\r\n\r\n', b'\r\nConnection: close\r\n\r\n', 1)
    place = _place(serving, machine, server.HTTP)
    with socket.create_connection(place, timeout=10) as connection:
        connection.sendall(request + request + last)
        data = b''
        while chunk := connection.recv(65536):
            data += chunk
    assert data.count(b'HTTP/1.1 200 OK') == 3


def test_a_dropped_call_gets_no_answer(
    machine: simulated.Machine,
    serving: server.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drop(call: typing.Any) -> None:
        raise faults.Drop

    monkeypatch.setattr(machine.faults, 'before', drop)
    serving.open(machine, server.HTTP)
    connection = http.client.HTTPConnection(
        *_place(serving, machine, server.HTTP), timeout=10
    )
    with pytest.raises(broken_off.BROKEN_OFF):
        _post(connection)
    connection.close()


def test_garbage_is_answered_as_if_it_were_an_answer(
    machine: simulated.Machine,
    serving: server.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def garble(call: typing.Any) -> None:
        raise faults.Garbage(b'garbage <')

    monkeypatch.setattr(machine.faults, 'before', garble)
    serving.open(machine, server.HTTP)
    connection = http.client.HTTPConnection(
        *_place(serving, machine, server.HTTP), timeout=10
    )
    connection.request('POST', '/', LOGIN.encode())
    assert connection.getresponse().status == 500
    connection.request('POST', '/jsonrpc', LOGIN)
    assert connection.getresponse().read() == b'garbage <'
    connection.close()


def test_an_address_in_use_is_named(
    machine: simulated.Machine, serving: server.Server
) -> None:
    serving.open(machine, server.HTTP)
    other = server.Server(
        https_port=0, http_port=serving.port(machine, server.HTTP)
    )
    with pytest.raises(OSError, match=machine.address):
        other.open(machine, server.HTTP)
    other.stop()


def _raw(serving: server.Server, machine: simulated.Machine, head: str) -> str:
    """Send bytes over plain HTTP; return the whole answer."""
    place = _place(serving, machine, server.HTTP)
    with socket.create_connection(place, 10) as caller:
        caller.sendall(head.replace('\n', '\r\n').encode('latin-1'))
        caller.shutdown(socket.SHUT_WR)
        received = b''
        while chunk := caller.recv(65536):
            received += chunk
    return received.decode()


@pytest.mark.parametrize(
    ('head', 'status', 'text'),
    [
        # a length that is none spoils any request, whatever it asks for
        (
            'GET / HTTP/1.0\ncontent-length: x\n\n',
            '1.1 500',
            'Int64.of_string',
        ),
        ('GET / X\n\n', '1.1 500', 'String.sub / Bytes.sub'),
        ('GET / HTTP\n\n', '1.1 500', 'String.sub / Bytes.sub'),
        ('GET /\n\n', '1.1 500', 'could not be parsed'),
        ('PUT /any HTTP/1.1\n\n', '1.1 403', 'forbidden'),
        ('DELETE / HTTP/1.1\n\n', '1.1 501', 'Unknown DELETE not supported'),
        ('HEAD / HTTP/1.0\n\n', '1.0 501', 'Unknown HEAD not supported'),
        # what is served to those who say who they are
        ('GET /export?uuid=x HTTP/1.1\n\n', '1.1 401', 'realm="get_export"'),
        ('GET /rrd_updates HTTP/1.1\n\n', '1.1 401', 'realm="rrd_updates"'),
        ('PUT /import HTTP/1.0\n\n', '1.0 401', 'realm="put_import"'),
        ('POST /services HTTP/1.1\n\n', '1.1 401', 'realm="post_services"'),
        ('GET /export?session_id=x HTTP/1.1\n\n', '1.1 403', 'forbidden'),
    ],
)
def test_requests_that_are_no_calls(
    machine: simulated.Machine,
    serving: server.Server,
    head: str,
    status: str,
    text: str,
) -> None:
    serving.listen(machine)
    answer = _raw(serving, machine, head)
    assert answer.startswith(f'HTTP/{status} ')
    assert text in answer


@pytest.mark.parametrize(
    'target', ['/jsonrpc', '/%6Asonrpc', '/jsonrpc?a=b', 'http://x/jsonrpc']
)
def test_a_path_may_be_written_in_several_ways(
    machine: simulated.Machine, serving: server.Server, target: str
) -> None:
    serving.listen(machine)
    answer = _raw(
        serving,
        machine,
        f'POST {target} HTTP/1.1\ncontent-length: {len(LOGIN)}\n\n{LOGIN}',
    )
    assert 'content-type: application/json' in answer


@pytest.mark.parametrize('kind', ['sha-256', 'sha-1'])
def test_who_is_sent_on_may_learn_whom_he_will_find(
    machine: simulated.Machine, serving: server.Server, kind: str
) -> None:
    """The certificate of the coordinator, whose address is answered."""
    serving.listen(machine)
    machine.role = ('slave', '127.0.0.1')
    db = machine.db
    assert db is not None
    (pool,) = db.all('pool').values()
    field = f'fingerprint_{kind.replace("-", "")}'
    (wanted,) = {
        record[field]
        for record in db.all('Certificate').values()
        if (record['host'], record['type']) == (pool['master'], 'host')
    }
    request = (
        f'POST /jsonrpc HTTP/1.1\ncontent-length: {len(LOGIN)}\n'
        f'x-xenapi-request-host-certificate-thumbprint: {kind}:master\n\n'
        f'{LOGIN}'
    )
    header = f'x-xenapi-response-host-certificate-thumbprint: {wanted}\r\n'
    assert header in _raw(serving, machine, request)
    unasked = request.replace('thumbprint', 'nothing')
    assert 'thumbprint' not in _raw(serving, machine, unasked)


def test_many_machines_share_one_server(serving: server.Server) -> None:
    first = simulated.Machine()
    machines = [first]
    for _ in range(60):
        other = object.__new__(simulated.Machine)
        other.__dict__.update(first.__dict__)
        other.address = simulated.free_address()
        machines.append(other)
    for one in machines:
        serving.listen(one)
    for one in machines[::10]:
        connection = http.client.HTTPConnection(
            *_place(serving, one, server.HTTP), timeout=10
        )
        assert _post(connection) == 200
        connection.close()
    first.clock.stop()
