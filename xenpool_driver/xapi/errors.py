# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What everything that can go wrong with a call means to the caller.

Two tables decide. :data:`FOREIGN` sorts the exceptions of Python and its
libraries; together with the :class:`Stage` that the exchange had reached it
says whether a call may have been carried out. The codes that XAPI answers
with are in :mod:`xenpool_driver.xapi.codes`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import http.client
import re
import socket
import ssl
import typing
import xml.parsers.expat
import xmlrpc.client

from xenpool_driver import exceptions, redaction
from xenpool_driver.xapi import codes, replies


class Stage(enum.Enum):
    """How far an exchange had come when it broke off."""

    CONNECT = 'before the request was sent'
    """Connecting, agreeing on TLS, checking the certificate."""

    SENT = 'after the first byte of the request was sent'
    """The host may have carried the call out."""


class WrongCertificate(Exception):
    """The peer shows another certificate than the one configured.

    :ivar shown: the SHA-256 fingerprint of what it shows.
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        super().__init__(shown)


class NoTls(TimeoutError):
    """The peer takes the connection, and agrees on no TLS in time."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Whom a call was for, in words for messages.

    :ivar name: what the user calls the host; its configuration section.
    :ivar url: where it was looked for.
    :ivar secrets: what must not be shown, whoever sends it back.
    """

    name: str
    url: str
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)


@dataclasses.dataclass(frozen=True)
class Foreign:
    """What one kind of foreign exception means.

    :ivar kind: the exception class; its children are meant too, unless
        they have a row of their own above.
    :ivar stage: where it arises when nobody saw how far the exchange was.
    :ivar connecting: what to tell the user if it arose while connecting.
    :ivar sent: what to tell the user if it arose later.
    """

    kind: type[BaseException]
    stage: Stage
    connecting: str
    sent: str


_PIN = (
    'set certificate_fingerprint (or ca_file) in section [{name}], or '
    'restore the certificate of the host'
)
_CLOSED = 'closed the connection without an answer'
_ODD = (
    'answers, but not as XAPI does ({why}): check that connection_url in '
    'section [{name}] is that of a XenServer or XCP-ng host'
)
_TOO_LARGE = (
    'answers with more than {limit} MiB; a host that means it needs a larger '
    'max_reply_mib in section [{name}]'
)
_NOT_XAPI = 'answers, but not as XAPI does ({kind}); check connection_url'

FOREIGN: tuple[Foreign, ...] = (
    Foreign(
        WrongCertificate,
        Stage.CONNECT,
        'shows another certificate than the one configured: its SHA-256 '
        'fingerprint is {shown}. If that is the right one, put it as '
        'certificate_fingerprint into section [{name}]',
        _CLOSED,
    ),
    Foreign(replies.OddReply, Stage.SENT, _ODD, _ODD),
    Foreign(replies.TooLarge, Stage.SENT, _TOO_LARGE, _TOO_LARGE),
    Foreign(
        ssl.SSLCertVerificationError,
        Stage.CONNECT,
        'certificate not trusted ({verify_message}): ' + _PIN,
        'certificate not trusted ({verify_message}): ' + _PIN,
    ),
    Foreign(
        ssl.SSLEOFError,
        Stage.SENT,
        'closed the connection before TLS was agreed on; is its toolstack up?',
        _CLOSED,
    ),
    Foreign(
        ssl.SSLZeroReturnError,
        Stage.SENT,
        'closed the connection before TLS was agreed on; is its toolstack up?',
        _CLOSED,
    ),
    Foreign(
        socket.gaierror,
        Stage.CONNECT,
        'its name cannot be resolved: check connection_url in section '
        '[{name}]',
        'its name cannot be resolved',
    ),
    Foreign(
        UnicodeError,  # of a label that is empty or too long
        Stage.SENT,
        'its name cannot be resolved: check connection_url in section '
        '[{name}]',
        _NOT_XAPI,
    ),
    Foreign(
        ConnectionRefusedError,
        Stage.CONNECT,
        'refuses the connection to {url}; is the host up?',
        'refuses the connection',
    ),
    Foreign(
        NoTls,
        Stage.CONNECT,
        'no connection to {url} in time: the port is open, but agrees on no '
        'TLS. Either it is that of plain HTTP, and that of HTTPS belongs into '
        'connection_url (443, which need not be written, on XenServer and '
        'XCP-ng), or the host hangs',
        'agreed on no TLS in time',
    ),
    Foreign(
        TimeoutError,
        Stage.SENT,
        'no connection to {url} in time; is the host up?',
        'no answer in time',
    ),
    Foreign(
        ssl.SSLError,
        Stage.SENT,
        'no TLS at {url} ({reason}): check scheme and port',
        'TLS broke off ({reason})',
    ),
    Foreign(
        http.client.RemoteDisconnected,
        Stage.SENT,
        _CLOSED,
        _CLOSED,
    ),
    Foreign(
        ConnectionError,
        Stage.SENT,
        'broke the connection off while it was made',
        'broke the connection off before the answer was complete',
    ),
    Foreign(
        OSError,
        Stage.SENT,
        'cannot be reached at {url} ({strerror})',
        'connection lost ({strerror})',
    ),
    Foreign(
        http.client.IncompleteRead,
        Stage.SENT,
        _NOT_XAPI,
        'broke the connection off before the answer was complete',
    ),
    Foreign(http.client.HTTPException, Stage.SENT, _NOT_XAPI, _NOT_XAPI),
    Foreign(
        xmlrpc.client.ProtocolError,
        Stage.SENT,
        'answers HTTP status {errcode}; check connection_url',
        'answers HTTP status {errcode}; check connection_url',
    ),
    Foreign(xmlrpc.client.Error, Stage.SENT, _NOT_XAPI, _NOT_XAPI),
    Foreign(xml.parsers.expat.ExpatError, Stage.SENT, _NOT_XAPI, _NOT_XAPI),
    Foreign(Exception, Stage.SENT, _NOT_XAPI, _NOT_XAPI),
)
"""Read from the top; the first row whose kind fits holds. All other rows
being silent, the last one treats the unforeseen as sent."""

_CUT_OFF = (ConnectionError, http.client.HTTPException)
"""What a port of HTTPS makes of a request without TLS."""

_MAYBE_TLS = (
    '. If that is the port of HTTPS, connection_url must begin with https://'
)

UNTRUSTED: frozenset[type[BaseException]] = frozenset(
    {WrongCertificate, ssl.SSLCertVerificationError}
)
"""Kinds of a peer that is there, but need not be the one that was meant."""

NOT_EXECUTED = frozenset(
    {301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 411, 413, 414, 431, 501}
)
"""HTTP statuses of a server that has not looked at the call. 500 is not
among them: XAPI gives it for malformed bodies, others for anything."""

EXPIRED_FAULT = 401
"""Fault that ``XenAPI.Session`` raises on SESSION_INVALID when it has no
credentials to log in again with, which is how this package keeps it."""


def from_foreign(
    error: Exception,
    peer: Peer,
    stage: Stage | None = None,
    changing: bool = False,
) -> exceptions.XapiError:
    """Return our error for an exception of Python or one of its libraries.

    :param error: the exception. Nothing of it but words goes into ours.
    :param peer: whom the call was for.
    :param stage: how far the exchange had come, if that was seen.
    :param changing: whether the call would change something.
    """
    row = next(row for row in FOREIGN if isinstance(error, row.kind))
    reached = stage or row.stage
    if getattr(error, 'errcode', None) in NOT_EXECUTED:
        reached = Stage.CONNECT
    form = row.connecting if reached is Stage.CONNECT else row.sent
    text = form.format_map(_Words(error, peer))
    if peer.url.startswith('http://') and isinstance(error, _CUT_OFF):
        text += _MAYBE_TLS
    text = redaction.scrub(text, peer.secrets)
    if changing and reached is Stage.SENT:
        return exceptions.XapiOutcomeUnknown(
            f"{text}; the call may have been carried out", peer.name
        )
    unavailable = exceptions.XapiUnavailable(text, peer.name)
    unavailable.untrusted = row.kind in UNTRUSTED
    return unavailable


def from_answer(
    details: collections.abc.Sequence[typing.Any],
    peer: Peer,
    changing: bool = False,
) -> exceptions.XapiError:
    """Return our error for an error that XAPI answered with.

    Also for the ``error_info`` of a task that failed, with ``changing``.

    :param details: the code, then its parameters.
    :param peer: who answered.
    :param changing: whether the call would change something.
    """
    texts = [str(part) for part in details] or ['INTERNAL_ERROR']
    code, params = texts[0], texts[1:]
    row = codes.find(code, params)
    kind = row.changing if changing else row.reading
    if kind is exceptions.NotPoolMaster:
        if not (params and replies.is_address(params[0])):
            return from_foreign(_NOWHERE, peer, changing=changing)
        return exceptions.NotPoolMaster(params[0], peer.name)
    shown = [redaction.scrub(param, peer.secrets) for param in params]
    told = row.told(peer.name)
    if kind is exceptions.XapiRefused:
        return exceptions.XapiRefused(code, shown, peer.name, told)
    text = f"{code} [{', '.join(shown)}]" if shown else code
    found = kind(f"{text}: {told}", peer.name)
    found.code = code
    return found


_NOWHERE = replies.OddReply('it names a master without an address')


def no_longer_logged_in(peer: Peer) -> exceptions.XapiUnavailable:
    """Return the error of a changing call whose session had ended."""
    return exceptions.XapiUnavailable(
        'SESSION_INVALID: the session had ended, so nothing was done; '
        + codes.CODES['SESSION_INVALID'].told(peer.name),
        peer.name,
    )


class _Words(dict[str, str]):
    """The words that a row's text may ask for."""

    def __init__(self, error: Exception, peer: Peer) -> None:
        super().__init__(
            name=peer.name,
            url=peer.url,
            kind=type(error).__name__,
            reason=_plain(getattr(error, 'reason', None)) or 'no reason given',
            strerror=_plain(getattr(error, 'strerror', None))
            or type(error).__name__,
            verify_message=_plain(getattr(error, 'verify_message', None))
            or 'verification failed',
            errcode=str(getattr(error, 'errcode', '')),
            shown=_colons(getattr(error, 'shown', '')),
            why=_plain(getattr(error, 'why', None)),
            limit=str(getattr(error, 'limit', '')),
        )


def _plain(value: object) -> str:
    """Return a library's words without line breaks and control codes."""
    return re.sub(r'[^ -~]+', ' ', value) if isinstance(value, str) else ''


def _colons(digits: str) -> str:
    pairs = (digits[i : i + 2] for i in range(0, len(digits), 2))
    return ':'.join(pairs).upper()
