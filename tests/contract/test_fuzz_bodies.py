# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Whatever is sent, a host answers as XAPI would, and goes on answering.

Over real connections: bytes, recorded requests that were damaged, and
well-formed requests with senseless contents.
"""

from __future__ import annotations

import collections.abc
import http.client
import json
import os
import re
import socket
import typing
import xmlrpc.client

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import conftest
from tests.contract import fuzz, fuzz_world
from xenpool_driver.simulator import simulation, wire_http

EXAMPLES = {'ci': 200, 'matrix': 5000}.get(conftest.PROFILE, 500)

ADDRESS = f"127.90.{180 + os.getpid() % 60}.1"
PASSWORD = 'xenroot'
PATIENCE = 20
"""Real seconds for an answer; what waits on purpose is not sent."""

pytestmark = pytest.mark.timeout(3600)

STATUSES = {200, 400, 403, 404, 405, 408, 411, 413, 431, 500, 501, 505}
"""What XAPI's HTTP server says."""


@pytest.fixture(scope='module')
def lab() -> collections.abc.Iterator[simulation.Simulation]:
    with simulation.Simulation(
        hosts=1, address=ADDRESS, port=0, http_port=0, time_scale=1000, seed=1
    ) as running:
        yield running


# -- what is sent -----------------------------------------------------------


def recorded() -> list[tuple[str, bytes]]:
    """Return (path, body) of recorded requests."""
    found = []
    for path in sorted((conftest.RECORDINGS / 'wire').glob('*.json')):
        for cell in json.loads(path.read_text()):
            body = cell.get('request_body')
            if body and '... (' not in body and 'event.' not in body:
                found.append((cell['path'], body.encode()))
    return found


RECORDED = recorded()

XML_PIECES = [
    b'<value>',
    b'</value>',
    b'<array><data>',
    b'</data></array>',
    b'<struct>',
    b'<member><name>x</name>',
    b'<i4>5</i4>',
    b'<int>99999999999999999999</int>',
    b'<double>nan</double>',
    b'<boolean>2</boolean>',
    b'<dateTime.iso8601>now</dateTime.iso8601>',
    b'<base64>AAA</base64>',
    b'<nil/>',
    b'<!-- -->',
    b'<![CDATA[x]]>',
    b'<!DOCTYPE a [<!ENTITY b "c">]>',
    b'&b;',
    b'&#0;',
    b'&#x110000;',
    b'&lt;',
    b'<?xml version="1.0" encoding="UTF-16"?>',
    b'\xff\xfe',
]
JSON_PIECES = [
    b'{',
    b'}',
    b'[',
    b']',
    b'"',
    b',',
    b':',
    b'null',
    b'1e999',
    b'-0',
    b'NaN',
    b'Infinity',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"jsonrpc":"2.0"',
    b'"id":{}',
    b'/* */',
    b'99999999999999999999999',
]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a recorded request with some damage."""
    path, body = draw(st.sampled_from(RECORDED))
    pieces = JSON_PIECES if path == '/jsonrpc' else XML_PIECES
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(['cut', 'put', 'twice', 'byte']))
        if kind == 'cut':
            body = body[:start] + body[end:]
        elif kind == 'twice':
            body = body[:end] + body[start:end] + body[end:]
        else:
            piece = (
                draw(st.sampled_from(pieces))
                if kind == 'put'
                else draw(st.binary(min_size=1, max_size=3))
            )
            body = body[:start] + piece + body[start:]
    if draw(st.integers(0, 9)) == 0:
        path = draw(st.sampled_from(['/', '/RPC2', '/jsonrpc', '/x', '/%00']))
    return path, body


def json_body() -> st.SearchStrategy[tuple[str, bytes]]:
    """Return well-formed JSON, a call or not."""
    envelope = st.fixed_dictionaries(
        {},
        optional={
            'jsonrpc': fuzz.mostly(st.sampled_from(['1.0', '2.0']), JUNK),
            'method': fuzz.mostly(METHODS, JUNK),
            'params': fuzz.mostly(st.lists(JUNK, max_size=4), JUNK),
            'id': fuzz.mostly(st.integers(), JUNK),
        },
    )
    return fuzz.mostly(envelope, JUNK).map(
        lambda value: ('/jsonrpc', json.dumps(value).encode())
    )


def xml_body() -> st.SearchStrategy[tuple[str, bytes]]:
    """Return well-formed XML-RPC calls."""
    return st.builds(
        lambda method, params: ('/', _xml(method, params)),
        METHODS,
        st.lists(JUNK, max_size=4),
    )


def _xml(method: str, params: list[typing.Any]) -> bytes:
    """Write a call down, whatever is in it."""
    inside = ''.join(f"<param>{_xml_value(p)}</param>" for p in params)
    text = (
        f"<?xml version='1.0'?><methodCall><methodName>{_escape(method)}"
        f"</methodName><params>{inside}</params></methodCall>"
    )
    return text.encode('utf-8', 'surrogatepass')


def _xml_value(value: typing.Any) -> str:
    if isinstance(value, bool):
        return f"<value><boolean>{int(value)}</boolean></value>"
    if isinstance(value, int):
        return f"<value><int>{value}</int></value>"
    if isinstance(value, float):
        return f"<value><double>{value!r}</double></value>"
    if isinstance(value, list):
        inside = ''.join(map(_xml_value, value))
        return f"<value><array><data>{inside}</data></array></value>"
    if isinstance(value, dict):
        inside = ''.join(
            f"<member><name>{_escape(key)}</name>{_xml_value(item)}</member>"
            for key, item in value.items()
        )
        return f"<value><struct>{inside}</struct></value>"
    if value is None:
        return '<value><nil/></value>'
    return f"<value>{_escape(value)}</value>"


def _escape(text: str) -> str:
    return text.replace('&', '&amp;').replace('<', '&lt;')


JUNK: st.SearchStrategy[typing.Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=6),
        st.sampled_from(['root', PASSWORD, 'OpaqueRef:NULL']),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ),
    max_leaves=8,
)
METHODS = fuzz.mostly(
    st.sampled_from(
        [
            'session.login_with_password',
            'session.slave_local_login_with_password',
            'system.listMethods',
            'host.get_all',
            'pool.join',
            'Async.pool.eject',
            'VM_get_record',
            'no.such',
            'Async.',
            '',
        ]
    ),
    st.text(max_size=10),
)

NONSENSE = st.one_of(
    st.tuples(
        st.sampled_from(['/', '/RPC2', '/jsonrpc']), st.binary(max_size=200)
    ),
    st.integers(1, 60_000).map(lambda n: ('/jsonrpc', b'[' * n)),
    st.integers(1, 10_000).map(lambda n: ('/', b'<value><array><data>' * n)),
)
REQUESTS = fuzz.mostly(
    st.one_of(damaged(), json_body(), xml_body()), NONSENSE, times=12
)


# -- what is answered ---------------------------------------------------------


def post(
    lab: simulation.Simulation, path: str, body: bytes
) -> tuple[int, str, bytes]:
    """Return status, type and body of the answer."""
    (host,) = lab.hosts
    port = int(host.http_url.rpartition(':')[2])
    connection = http.client.HTTPConnection(host.address, port, PATIENCE)
    try:
        connection.request('POST', path, body, {'Content-Type': 'text/xml'})
        response = connection.getresponse()
        kind = response.headers.get('Content-Type', '')
        return response.status, kind, response.read()
    finally:
        connection.close()


def check_xml(body: bytes) -> None:
    """Assert that an answer is XML-RPC as XAPI writes it."""
    (answer,), method = xmlrpc.client.loads(
        _printable(body), use_builtin_types=False
    )
    assert method is None
    if isinstance(answer, list):  # system.listMethods has no envelope
        return
    assert isinstance(answer, dict)
    if answer['Status'] == 'Success':
        assert set(answer) == {'Status', 'Value'}
        return
    assert answer['Status'] == 'Failure'
    fuzz_world.check_refusal(answer['ErrorDescription'])


def _printable(body: bytes) -> bytes:
    """Return what a lenient reader makes of it: XAPI sends what it got."""
    return re.sub(
        rb'[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]', b'', body
    )


def check_json(body: bytes) -> None:
    """Assert that an answer is JSON-RPC as XAPI writes it.

    Bytes that are no UTF-8 come back as they were sent (recorded).
    """
    answer = json.loads(body.decode('utf-8', 'replace'))
    assert isinstance(answer, dict)
    error = answer.get('error')
    if error is None:
        assert 'result' in answer
        return
    if isinstance(error, list):  # before dispatch, or version 1
        fuzz_world.check_refusal(error)
        return
    assert error['code'] == 1
    fuzz_world.check_refusal([error['message'], *error['data']])


@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(request=REQUESTS)
def test_any_body(
    lab: simulation.Simulation, request: tuple[str, bytes]
) -> None:
    path, body = request
    with fuzz_world.no_complaints():
        status, kind, answer = post(lab, path, body)
    hypothesis.event(f"status {status}")
    assert status in STATUSES
    if status == 200:
        check = check_json if 'json' in kind else check_xml
        check(answer)
    still_answers(lab)


def still_answers(lab: simulation.Simulation) -> None:
    status, _, body = post(
        lab,
        '/jsonrpc',
        b'{"jsonrpc":"2.0","method":"session.login_with_password",'
        b'"params":["root","xenroot"],"id":1}',
    )
    assert status == 200
    assert 'OpaqueRef:' in json.loads(body)['result']


@hypothesis.settings(max_examples=EXAMPLES // 4, deadline=None)
@hypothesis.given(
    head=st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda method, path, version, headers: (
                f"{method} {path} {version}\r\n".encode('latin-1', 'replace')
                + headers
            ),
            st.sampled_from(['GET', 'POST', 'HEAD', 'OPTIONS', 'PUT', 'X']),
            st.text('/ab%?#.\x00é ', max_size=8),
            st.sampled_from(['HTTP/1.1', 'HTTP/1.0', 'HTTP/9', '', 'x']),
            st.lists(
                st.one_of(
                    st.sampled_from(
                        [
                            b'Content-Length: 0',
                            b'Content-Length: -1',
                            b'Content-Length: 1e3',
                            b'Content-Length: 99999999999999999999',
                            b'Transfer-Encoding: chunked',
                            b'Host:',
                            b': x',
                            b'no colon',
                            b'Connection: close',
                            b'Expect: 100-continue',
                        ]
                    ),
                    st.binary(max_size=20),
                ),
                max_size=4,
            ).map(b'\r\n'.join),
        ),
    )
)
def test_any_head(lab: simulation.Simulation, head: bytes) -> None:
    """However a request begins, its sender hears an end, and others go on."""
    (host,) = lab.hosts
    port = int(host.http_url.rpartition(':')[2])
    with (
        fuzz_world.no_complaints(),
        socket.create_connection((host.address, port), PATIENCE) as sending,
    ):
        sending.sendall(head + b'\r\n\r\n')
        sending.shutdown(socket.SHUT_WR)
        received = b''
        while chunk := sending.recv(65536):
            received += chunk
    if received:
        assert re.match(rb'HTTP/1\.[01] \d{3} ', received)
        assert int(received[9:12]) in STATUSES
    still_answers(lab)


def test_a_body_beyond_the_limit(lab: simulation.Simulation) -> None:
    status, _, _ = post(lab, '/', b'x' * (wire_http.BODY_LIMIT + 1))
    assert status in STATUSES - {200}
    still_answers(lab)
