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

from tests import simulated
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
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
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
    with pytest.raises(http.client.RemoteDisconnected):
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
