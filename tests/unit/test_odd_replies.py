# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Replies that no XAPI would send: an error of ours, whatever they are.

A host that is broken, or not what it seems, can answer anything. What it
sends may cost no more memory than the option allows, and what comes of it is
always an error that says what may be concluded.
"""

from __future__ import annotations

import collections.abc
import contextlib
import gzip
import itertools
import tracemalloc
import typing
import xmlrpc.client

import hypothesis
import orjson
import pytest
from hypothesis import strategies as st

from tests import permits
from tests.unit import scripted_host
from xenpool_driver import clock, exceptions
from xenpool_driver.xapi import (
    changes,
    client,
    connections,
    discovery,
    errors,
    events,
    session,
    transport,
)

MIB = 1 << 20

Wire = collections.abc.Callable[[bytes], bytes]


class Canned(transport.Transport):
    """Carries nothing: each exchange is answered with what stands here.

    :ivar xml: the body of each answer to XML-RPC.
    :ivar json: of each answer to JSON-RPC.
    """

    def __init__(self, host: scripted_host.ScriptedHost) -> None:
        super().__init__(host.access())
        self.xml = b''
        self.json = b''

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        """Answer; logins succeed."""
        if b'login_with_password' in body or b'session.get_uuid' in body:
            return _xml({'Status': 'Success', 'Value': 'OpaqueRef:s'})
        return self.json if path == '/jsonrpc' else self.xml


@pytest.fixture(scope='module')
def idle() -> collections.abc.Iterator[scripted_host.ScriptedHost]:
    with scripted_host.ScriptedHost() as found:
        yield found


@pytest.fixture
def host() -> collections.abc.Iterator[scripted_host.ScriptedHost]:
    with scripted_host.ScriptedHost() as found:
        yield found


def _xml(value: typing.Any) -> bytes:
    return xmlrpc.client.dumps(
        (value,), methodresponse=True, allow_none=True
    ).encode()


def _door(wire: Canned, by_json: bool) -> client.Client:
    home = session.HostSession(wire._access)
    home.transport = wire
    home._json = by_json
    return client.Client(home, clock.SYSTEM)


def _changed(door: client.Client) -> changes.PoolChanges:
    """Return what changes something over the same wire."""
    home = permits.home(door.access)
    home.transport = door._home.transport
    return changes.PoolChanges(door, home, clock.SYSTEM)


CALLS: tuple[collections.abc.Callable[[client.Client], object], ...] = (
    lambda door: door.pool(),
    lambda door: door.hosts(),
    lambda door: door.host('u'),
    lambda door: door.this_host(),
    lambda door: door.records('host', 'PIF'),
    lambda door: door.snapshot(),
    lambda door: door.excerpt({'r': 'u'}, ['u'], ['u']),
    lambda door: door.is_disabled('r', 0.0),
    lambda door: door.has_pending('pool.join'),
    lambda door: door.vms_preventing_evacuation('u'),
    lambda door: door.ha_heartbeat_srs(),
    lambda door: _changed(door).join('192.0.2.1', 'root', 'secret').status(),
    lambda door: _changed(door).eject('u'),
    lambda door: _changed(door).set_pool_name('x'),
    lambda door: _changed(door).enable_host('u'),
    lambda door: _changed(door).set_ha_tolerance(1),
    lambda door: door.task('OpaqueRef:t', _changed(door)._home).status(),
    lambda door: events.Feed(door).next(),
    lambda door: discovery.ask(door._home, 5.0),
)
"""What the driver asks of a host."""

TEXTS = st.sampled_from(
    ['', 'x', 'OpaqueRef:NULL', 'SESSION_INVALID', 'HOST_IS_SLAVE', '\x1b[2J']
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            TEXTS
            | st.sampled_from(
                [
                    'Status',
                    'Value',
                    'ErrorDescription',
                    'result',
                    'error',
                    'data',
                ]
                + ['uuid', 'master', 'events', 'token', 'status', 'error_info']
                + [
                    'snapshot',
                    'class',
                    'ref',
                    'operation',
                    'progress',
                    'message',
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
ANSWERS = VALUES | st.builds(
    lambda status, value: {
        'Status': status,
        'Value': value,
        'ErrorDescription': value,
        'result': value,
    },
    st.sampled_from(['Success', 'Failure', 'Else']),
    VALUES,
)


@hypothesis.settings(max_examples=40)
@hypothesis.given(answer=ANSWERS, by_json=st.booleans())
def test_any_reply_is_understood_or_an_error_of_ours(
    idle: scripted_host.ScriptedHost, answer: typing.Any, by_json: bool
) -> None:
    wire = Canned(idle)
    with contextlib.suppress(TypeError, xmlrpc.client.Fault):
        wire.xml = _xml(answer)
    wire.json = orjson.dumps(answer)
    for call in CALLS:
        with contextlib.suppress(exceptions.XapiError):
            call(_door(wire, by_json))


@hypothesis.settings(max_examples=40)
@hypothesis.given(body=st.binary(max_size=200), by_json=st.booleans())
def test_any_bytes_are_an_error_of_ours(
    idle: scripted_host.ScriptedHost, body: bytes, by_json: bool
) -> None:
    wire = Canned(idle)
    wire.xml = wire.json = body
    with pytest.raises(exceptions.XapiError):
        _door(wire, by_json).pool()
    with pytest.raises(exceptions.XapiOutcomeUnknown):
        _changed(_door(wire, by_json)).recover_slaves()


def _nested_xml(depth: int) -> bytes:
    opened = b'<value><array><data>' * depth
    closed = b'</data></array></value>' * depth
    head = b'<methodResponse><params><param><value><struct>'
    head += b'<member><name>Status</name><value>Success</value></member>'
    head += b'<member><name>Value</name>'
    tail = b'</member></struct></value></param></params></methodResponse>'
    return head + opened + closed + tail


@pytest.mark.parametrize('depth', [40, 900, 1500, 50_000])
@pytest.mark.parametrize('by_json', [True, False])
def test_deeply_nested_replies(
    idle: scripted_host.ScriptedHost, depth: int, by_json: bool
) -> None:
    wire = Canned(idle)
    wire.xml = _nested_xml(depth)
    wire.json = b'{"result":' + b'[' * depth + b']' * depth + b'}'
    for call in CALLS if depth < 50_000 else ():
        with contextlib.suppress(exceptions.XapiError):
            call(_door(wire, by_json))
    with pytest.raises(exceptions.XapiUnavailable, match='levels deep'):
        _door(wire, by_json).read('VM.get_platform', 'OpaqueRef:v')


def test_entities_do_not_grow(idle: scripted_host.ScriptedHost) -> None:
    wire = Canned(idle)
    entities = ''.join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 9}">' for n in range(1, 9)
    )
    wire.xml = (
        f'<!DOCTYPE x [<!ENTITY e0 "xxxxxxxxxx">{entities}]>'
        '<methodResponse><params><param><value>&e8;</value></param></params>'
        '</methodResponse>'
    ).encode()
    with pytest.raises(exceptions.XapiUnavailable, match='document type'):
        _door(wire, False).read('pool.get_all')


@pytest.mark.parametrize(
    'params',
    [
        [],
        [''],
        ['not an address'],
        ['192.0.2.1/x'],
        ['user@192.0.2.1'],
        ['x' * 300],
        ['a\0b'],
        ['\x1b[2J'],
        ['fe80::1%\n'],
        ['ü' * 70],
        ['..'],
    ],
)
def test_a_master_without_an_address_is_an_error_of_ours(
    idle: scripted_host.ScriptedHost, params: list[str]
) -> None:
    peer = errors.Peer('xen01', 'https://192.0.2.9')
    error = errors.from_answer(['HOST_IS_SLAVE', *params], peer)
    assert type(error) is exceptions.XapiUnavailable
    assert 'master without an address' in str(error)


@hypothesis.settings(max_examples=40)
@hypothesis.given(address=st.text(max_size=20))
@hypothesis.example('a..b')
@hypothesis.example('::ffff:192.0.2.1%1')
@hypothesis.example('1.2.3.4.5')
def test_a_master_at_any_address_is_followed_or_refused(
    idle: scripted_host.ScriptedHost, address: str
) -> None:
    error = errors.from_answer(
        ['HOST_IS_SLAVE', address], errors.Peer('xen01', idle.url)
    )
    if isinstance(error, exceptions.NotPoolMaster):
        doors = connections.Connections({'xen01': idle.access()})
        found = doors._access_at(error.address, idle.access())
        assert found.port == idle.port
        discovery.resolved(found.address)


@pytest.mark.parametrize(
    'address', ['192.0.2.1', '2001:db8::1', '[2001:db8::1]', 'xen-01.lab', 'a']
)
def test_addresses_of_masters(address: str) -> None:
    peer = errors.Peer('xen01', 'https://192.0.2.9')
    error = errors.from_answer(['HOST_IS_SLAVE', address], peer)
    assert isinstance(error, exceptions.NotPoolMaster)
    assert error.address == address


def _endless(chunked: bool) -> collections.abc.Iterator[bytes]:
    yield b'HTTP/1.1 200 OK\r\n'
    yield b'Transfer-Encoding: chunked\r\n\r\n' if chunked else b'\r\n'
    piece = b' ' * 65536
    while True:
        yield b'10000\r\n' + piece + b'\r\n' if chunked else piece


def _small_chunks() -> collections.abc.Iterator[bytes]:
    yield b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
    while True:
        yield b'2\r\n  \r\n' * 10_000


def _said(*head: bytes) -> collections.abc.Iterator[bytes]:
    yield b'\r\n'.join([b'HTTP/1.1 200 OK', *head, b'', b''])
    yield b'x' * 100


HUGE = str(1 << 62).encode()
LARGE: dict[str, collections.abc.Callable[[], typing.Any]] = {
    'without length': lambda: _endless(False),
    'chunked': lambda: _endless(True),
    'small chunks': _small_chunks,
    'a length': lambda: _said(b'Content-Length: ' + HUGE),
    'a chunk': lambda: itertools.chain(
        _said(b'Transfer-Encoding: chunked', b'', b'%x' % (1 << 62)),
        itertools.repeat(b'x' * 65536),
    ),
    'headers': lambda: _said(*[b'X-A: ' + b'x' * 60_000] * 90),
    'continue': lambda: iter(lambda: b'HTTP/1.1 100 C\r\n\r\n' * 9999, b''),
}


@pytest.mark.parametrize(
    ('kind', 'changing'),
    [
        *((kind, False) for kind in LARGE),
        ('chunked', True),
        ('a length', True),
    ],
)
def test_a_reply_has_a_limit(
    host: scripted_host.ScriptedHost, kind: str, changing: bool
) -> None:
    access = host.access(max_reply_mib=1, read_timeout=120.0)
    home = permits.home(access)
    home.login()
    host.stream = LARGE[kind]
    tracemalloc.start()
    try:
        with pytest.raises(exceptions.XapiError) as caught:
            if changing:
                home.change('Async.pool.eject', 'OpaqueRef:h')
            else:
                home.read('pool.get_all')
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 'more than 1 MiB' in str(caught.value)
    assert 'max_reply_mib in section [xen01]' in str(caught.value)
    assert most < 8 * MIB  # a few times the limit, in both threads
    assert isinstance(caught.value, exceptions.XapiOutcomeUnknown) is changing


def test_a_compressed_reply_is_not_inflated(
    host: scripted_host.ScriptedHost,
) -> None:
    home = session.HostSession(host.access(max_reply_mib=1))
    home.login()
    bomb = gzip.compress(b' ' * (64 * MIB))
    host.stream = lambda: iter(
        [
            b'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n'
            b'Content-Length: %d\r\n\r\n' % len(bomb),
            bomb,
        ]
    )
    tracemalloc.start()
    try:
        with pytest.raises(exceptions.XapiUnavailable, match='not as XAPI'):
            home.read('pool.get_all')
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_a_reply_below_the_limit_comes_whole(
    host: scripted_host.ScriptedHost,
) -> None:
    names = ['x' * 1000] * 900
    host.answers['pool.get_all'] = lambda: names
    home = session.HostSession(host.access(max_reply_mib=1))
    for _ in range(3):  # of each reply anew, on one connection
        assert home.read('pool.get_all') == names
    assert host.connections == 1
    body = _xml({'Status': 'Success', 'Value': names})
    host.stream = lambda: iter(
        [
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
            *(
                b'%x\r\n%b\r\n' % (len(body[i : i + 7000]), body[i : i + 7000])
                for i in range(0, len(body), 7000)
            ),
            b'0\r\n\r\n',
        ]
    )
    assert home.read('pool.get_all') == names
