# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The tables of errors: complete, and right about what may be concluded."""

from __future__ import annotations

import http.client
import json
import pathlib
import socket
import ssl
import typing
import xml.parsers.expat
import xmlrpc.client

import pytest

from tests import typed
from xenpool_driver import exceptions
from xenpool_driver.xapi import codes, errors, replies

PEER = errors.Peer('xen01', 'https://192.0.2.1', ('s3cret',))

CODES: dict[str, list[str]] = json.loads(
    (pathlib.Path(__file__).parents[1] / 'data/xapi/codes.json').read_text()
)
CODES.pop('source')

NEVER_SENT = (
    errors.WrongCertificate('00' * 32),
    errors.NoTls(),
    ssl.SSLCertVerificationError(1, 'self-signed certificate'),
    socket.gaierror(socket.EAI_NONAME, 'Name or service not known'),
    ConnectionRefusedError(111, 'Connection refused'),
)
"""What can only arise before anything is sent."""

MAYBE_SENT = (
    TimeoutError('timed out'),
    ConnectionResetError(104, 'Connection reset by peer'),
    ConnectionAbortedError(),
    BrokenPipeError(),
    http.client.RemoteDisconnected(''),
    ssl.SSLEOFError(8, 'EOF occurred in violation of protocol'),
    ssl.SSLZeroReturnError(),
    ssl.SSLError(1, 'sslv3 alert'),
    OSError(113, 'No route to host'),
    http.client.ResponseNotReady('Idle'),
    http.client.CannotSendRequest(),
    http.client.IncompleteRead(b''),
    http.client.BadStatusLine('x'),
    http.client.LineTooLong('x'),
    replies.OddReply('the reply to pool.get_all is no list of texts'),
    replies.TooLarge(256),
    xml.parsers.expat.ExpatError('syntax error'),
    xmlrpc.client.ResponseError(),
    xmlrpc.client.Fault(500, 'Missing Value in response from server'),
    xmlrpc.client.ProtocolError('192.0.2.1/', 500, 'oops', {}),
    TypeError('can only concatenate str'),
    UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'),
    ValueError('whatever'),
)
"""What can arise at any time."""


@pytest.mark.parametrize('error', NEVER_SENT, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize('changing', [True, False])
def test_not_sent_whatever_the_call(error: Exception, changing: bool) -> None:
    ours = errors.from_foreign(error, PEER, changing=changing)
    assert type(ours) is exceptions.XapiUnavailable
    assert ours.host == 'xen01'


@pytest.mark.parametrize('error', MAYBE_SENT, ids=lambda e: type(e).__name__)
def test_where_it_happened_decides(error: Exception) -> None:
    def kind(stage: errors.Stage | None, changing: bool) -> type:
        return type(errors.from_foreign(error, PEER, stage, changing))

    unavailable = exceptions.XapiUnavailable
    for changing in (True, False):
        assert kind(errors.Stage.CONNECT, changing) is unavailable
    for stage in (errors.Stage.SENT, None):
        assert kind(stage, True) is exceptions.XapiOutcomeUnknown
        assert kind(stage, False) is unavailable


def test_every_row_for_foreign_errors_is_tried_here() -> None:
    tried = {
        next(row for row in errors.FOREIGN if isinstance(error, row.kind))
        for error in (*NEVER_SENT, *MAYBE_SENT)
    }
    assert tried == set(errors.FOREIGN)


def test_no_row_for_foreign_errors_is_hidden_by_one_above() -> None:
    for index, row in enumerate(errors.FOREIGN):
        for above in errors.FOREIGN[:index]:
            assert not issubclass(row.kind, above.kind), row.kind


@pytest.mark.parametrize(
    'error', [*NEVER_SENT, *MAYBE_SENT], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize('stage', list(errors.Stage))
def test_messages_are_whole(error: Exception, stage: errors.Stage) -> None:
    text = str(errors.from_foreign(error, PEER, stage))
    assert text.startswith('xen01: ')
    assert '{' not in text
    assert '\n' not in text


def test_libraries_words_show_no_secret() -> None:
    error = OSError(1, 's3cret')
    assert 's3cret' not in str(errors.from_foreign(error, PEER))


def codes_of_all_calls() -> list[tuple[str, str]]:
    return [(call, code) for call, names in CODES.items() for code in names]


@pytest.mark.parametrize(('call', 'code'), codes_of_all_calls())
def test_every_code_of_a_call_has_a_row(call: str, code: str) -> None:
    assert codes.CODES[code].remedy


PARAMS = ['OpaqueRef:1', 'OpaqueRef:2', 'a name', '7', 'x']


@pytest.mark.parametrize('params', [[], PARAMS], ids=['bare', 'with params'])
@pytest.mark.parametrize('code', [*codes.CODES, 'NEVER_HEARD_OF_IT'])
def test_every_answer_tells_what_to_do(code: str, params: list[str]) -> None:
    """Its commands work as they stand: :mod:`tests.typed` reads them."""
    if code == 'HOST_IS_SLAVE':
        return
    text = str(errors.from_answer([code, *params], PEER))
    told = codes.find(code, params).told(PEER.name)
    assert told
    assert text.startswith(f"xen01: {code}")
    assert text.endswith(f": {told}")
    assert '{' not in text
    assert '\n' not in text
    assert typed.complaints(told) == []


def test_every_code_exists() -> None:
    published = pytest.importorskip('xenpool_driver.simulator.datamodel')
    known = set(published.load().errors)
    assert set(codes.CODES) <= known


def kinds(code: str, *params: str) -> tuple[type, type]:
    """Return our error for a read, and for a change."""
    return (
        type(errors.from_answer([code, *params], PEER)),
        type(errors.from_answer([code, *params], PEER, changing=True)),
    )


EMERGENCY = (
    'HOST_STILL_BOOTING',
    'HOST_HAS_NO_MANAGEMENT_IP',
    'HOST_ITS_OWN_SLAVE',
    'HOST_MASTER_CANNOT_TALK_BACK',
    'HOST_UNKNOWN_TO_MASTER',
    'HOST_XAPI_VERSION_HIGHER_THAN_COORDINATOR',
    'HOST_BROKEN',
    'HA_HOST_CANNOT_ACCESS_STATEFILE',
    'HA_HEARTBEAT_DAEMON_STARTUP_FAILED',
    'HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED',
    'SESSION_INVALID',
)


@pytest.mark.parametrize('code', EMERGENCY)
def test_emergency_answers_are_no_answers(code: str) -> None:
    assert kinds(code) == (
        exceptions.XapiUnavailable,
        exceptions.XapiUnavailable,
    )
    text = str(errors.from_answer([code], PEER))
    assert text == f"xen01: {code}: {codes.CODES[code].told('xen01')}"


def test_member_sends_to_its_master() -> None:
    error = errors.from_answer(['HOST_IS_SLAVE', '192.0.2.9'], PEER, True)
    assert isinstance(error, exceptions.NotPoolMaster)
    assert error.address == '192.0.2.9'


@pytest.mark.parametrize(
    ('text', 'harmless'),
    [
        ('Xapi_pool.Cannot_eject_master', True),
        ('Connection failed: connection refused.', True),
        ('Failure("Expected string, got \'I(5)\'")', True),
        ('Failure("Unknown tag/contents")', True),
        ('Stunnel.Stunnel_error("x")', False),
        ('Unix.Unix_error(Unix.ECONNRESET, "read", "")', False),
        ('', False),
    ],
)
def test_internal_error_is_definite_only_where_it_is_known(
    text: str, harmless: bool
) -> None:
    reading, changing = kinds('INTERNAL_ERROR', text)
    assert reading is exceptions.XapiRefused
    assert (changing is exceptions.XapiRefused) is harmless


def test_lost_contact_behind_the_master_is_an_open_outcome() -> None:
    assert kinds('CANNOT_CONTACT_HOST', 'OpaqueRef:h') == (
        exceptions.XapiUnavailable,
        exceptions.XapiOutcomeUnknown,
    )


def test_refusals_keep_code_and_params() -> None:
    error = errors.from_answer(
        ['MAP_DUPLICATE_KEY', 'pool', 'other_config', 'ref', 'key'], PEER
    )
    assert isinstance(error, exceptions.XapiRefused)
    assert error.code == 'MAP_DUPLICATE_KEY'
    assert error.params == ('pool', 'other_config', 'ref', 'key')


@pytest.mark.parametrize('details', [[], ['NEVER_HEARD_OF_IT', 'x'], [7]])
def test_unknown_code_is_a_definite_answer(details: list[typing.Any]) -> None:
    error = errors.from_answer(details, PEER)
    assert isinstance(error, exceptions.XapiRefused)


def test_numbered_storage_errors_share_a_row() -> None:
    found = codes.find('SR_BACKEND_FAILURE_47')
    assert found is codes.CODES['SR_BACKEND_FAILURE']
