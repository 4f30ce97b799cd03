# Licensed under the Apache License, Version 2.0; see LICENSE.
"""HTTP/1.1 as XAPI's own server speaks it (``http-lib``).

What it reads, what it refuses and with which page, and the order of the
headers in its answers.
"""

from __future__ import annotations

import dataclasses
import html
import urllib.parse

from xenpool_driver.simulator import values

HEADER_LIMIT = 1006
"""Bytes of a request's head: 1024 less a frame's header (http.ml)."""

BODY_LIMIT = 300 * 1024
"""Bytes of a request's body (constants.ml)."""

READ_TIMEOUT = 10.0
"""Real seconds to wait for the first request's head."""

XML, JSON = 'text/xml', 'application/json'

_CLOSE = 'connection: close\r\ncache-control: no-cache, no-store\r\n'
_CORS = (
    'Access-Control-Allow-Origin: *\r\n'
    'Access-Control-Allow-Headers: X-Requested-With\r\n'
)


class Refused(Exception):
    """A request that is answered with a page, after which the line is cut.

    :ivar page: the whole answer, ready to send.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__('refused')
        self.page = page


@dataclasses.dataclass
class Request:
    """The head of a request.

    :ivar path: unescaped, without what follows a question mark.
    :ivar length: of the body, None when it is not said.
    """

    method: str
    path: str
    version: str
    close: bool
    headers: dict[str, str]
    query: str = ''
    length: int | None = None

    @property
    def answer_version(self) -> str:
        """1.0 for callers that speak that, else 1.1."""
        return '1.0' if self.version == '1.0' else '1.1'


def parse_head(head: bytes) -> Request:
    """Return the head of a request.

    :raises Refused: when it is none.
    """
    text = head.decode('latin-1')
    lines = text.split('\n')
    words = lines[0].split()
    if len(words) != 3:
        raise Refused(
            server_error('The HTTP headers could not be parsed.', raw=True)
        )
    if len(words[2]) < len('HTTP/'):
        text = 'Invalid_argument("String.sub / Bytes.sub")'
        raise Refused(server_error(text))
    version = words[2][len('HTTP/') :]
    path, query = _parse_target(words[1])
    request = Request(words[0], path, version, version == '1.0', {}, query)
    for line in lines[1:]:
        key, colon, value = line.partition(':')
        if colon:
            request.headers[key.strip().lower()] = value.strip()
    request.length = _parse_length(request.headers.get('content-length'))
    connection = request.headers.get('connection', '').lower()
    if connection in ('close', 'keep-alive'):
        request.close = connection == 'close'
    return request


def _parse_target(target: str) -> tuple[str, str]:
    """Return path and query of what a request line asks for."""
    try:
        parts = urllib.parse.urlsplit(target)
    except ValueError:
        return target, ''
    return urllib.parse.unquote(parts.path, 'latin-1'), parts.query


def _parse_length(text: str | None) -> int | None:
    """Return the length of a body, which no request may garble.

    :raises Refused: when it is no number; answered before anything else is
        known of the request, and so as version 1.1.
    """
    if text is None:
        return None
    try:
        return values.int_of_text(text)
    except ValueError as error:
        shown = f'Failure({values.quote(str(error))})'
        raise Refused(server_error(shown)) from None


def body_length(request: Request) -> int:
    """Return how long the body of a request is.

    :raises Refused: when it does not say, or is too long.
    """
    length = request.length
    if length is None:
        raise _failure('We require a content-length: HTTP header', request)
    if length > BODY_LIMIT:
        raise Refused(
            server_error(
                'Http_svr.Client_requested_size_over_limit',
                version=request.answer_version,
            )
        )
    if length < 0:
        raise Refused(
            server_error(
                'Invalid_argument("Bytes.create")',
                version=request.answer_version,
            )
        )
    return length


def _failure(text: str, request: Request) -> Refused:
    return Refused(
        server_error(
            f'Failure({values.quote(text)})', version=request.answer_version
        )
    )


def page(
    status: str, body: str, version: str = '1.1', extra: str = ''
) -> bytes:
    """Return an answer that is a page for people; the line is then cut."""
    content = body.encode('utf-8', 'surrogateescape')
    head = (
        f'HTTP/{version} {status}\r\ncontent-length: {len(content)}\r\n'
        f'content-type: text/html\r\n{_CLOSE}{extra}\r\n'
    )
    return head.encode('latin-1') + content


def server_error(
    text: str, *, version: str = '1.1', raw: bool = False
) -> bytes:
    """Return the page of status 500.

    :param text: the exception, as XAPI prints it.
    :param raw: do not escape it.
    """
    shown = text if raw else html.escape(text).replace('&#x27;', '&apos;')
    return page(
        '500 Internal Error',
        '<html><body><h1>HTTP 500 internal server error</h1>An unexpected '
        'error occurred; please wait a while and try again. If the problem '
        'persists, please contact your support representative.'
        f'<h1> Additional information </h1>{shown}</body></html>',
        version,
    )


GUARDED = {
    'GET': (
        'services',
        'services/xenops',
        'services/SM',
        'export',
        'export_metadata',
        'export_raw_vdi',
        'host_backup',
        'host_logs_download',
        'vncsnapshot',
        'pool/xmldbdump',
        'sync_config_files',
        'system-status',
        'vm_rrd',
        'vm_rrds',
        'host_rrd',
        'host_rrds',
        'sr_rrd',
        'rrd_updates',
        'wlb_report',
        'wlb_diagnostics',
        'audit_log',
        'repository',
        'host_updates',
        'updates',
    ),
    'PUT': (
        'services',
        'services/xenops',
        'services/SM',
        'import',
        'import_metadata',
        'import_raw_vdi',
        'host_restore',
        'pool_patch_upload',
        'pool/xmldbdump',
        'rrd',
        'blob',
        'messages',
        'bundle',
    ),
    'POST': (
        'services',
        'services/xenops',
        'services/SM',
        'remote_db_access',
        'remote_db_access_v2',
    ),
    'CONNECT': ('console', 'remotecmd'),
}
"""What XAPI serves beside calls, to those who say who they are
(``http_actions`` of the data model)."""

_REALMS = {
    'GET pool/xmldbdump': 'get_pool_xml_db_sync',
    'PUT pool/xmldbdump': 'put_pool_xml_db_sync',
    'GET sync_config_files': 'get_config_sync',
    'GET vm_rrd': 'vm_rrd',
    'GET host_rrd': 'host_rrd',
    'GET sr_rrd': 'sr_rrd',
    'GET rrd_updates': 'rrd_updates',
    'PUT rrd': 'rrd',
}


def guarded(request: Request) -> bytes | None:
    """Return the page for who asks for such a thing, None for others.

    None of it is simulated: who says who he is may not have it.
    """
    known = [
        path
        for path in GUARDED.get(request.method, ())
        if request.path.startswith(f'/{path}')
    ]
    if not known:
        return None
    given = request.headers.get('cookie', ''), request.query
    if 'authorization' in request.headers or 'session_id=' in ''.join(given):
        return FORBIDDEN
    action = f'{request.method} {max(known, key=len)}'
    name = action.lower().replace(' ', '_').replace('/', '_')
    realm = _REALMS.get(action, name.replace('-', '_'))
    return page(
        '401 Unauthorised',
        '<html><body><h1>HTTP 401 unauthorised</h1>Please check your '
        'credentials and retry.</body></html>',
        request.answer_version,
        f'WWW-Authenticate: Basic realm="{realm}"\r\n',
    )


FORBIDDEN = page(
    '403 Forbidden',
    '<html><body><h1>HTTP 403 forbidden</h1>Access to the requested resource '
    'is forbidden.</body></html>',
)

HEADERS_TOO_LARGE = page(
    '431 Request Header Fields Too Large',
    '<html><body><h1>HTTP 431 request header fields too large</h1>Exceeded '
    'the maximum header size.</body></html>',
)

TIMED_OUT = page(
    '408 Request Timeout',
    '<html><body><h1>HTTP 408 request timeout</h1>Timed out waiting for the '
    'request.</body></html>',
)


def not_implemented(request: Request) -> bytes:
    """Return the page for a method of HTTP that XAPI does not know."""
    return page(
        '501 Method not implemented',
        '<html><body><h1>HTTP 501 Method Not Implemented</h1><p>Unknown '
        f'{request.method} not supported.<br /></p></body></html>',
        request.answer_version,
    )


def answer(
    request: Request,
    content: str,
    kind: str,
    *,
    cors: bool = True,
    extra: str = '',
) -> bytes:
    """Return an answer of status 200.

    :param kind: the type of the content, none when empty.
    :param cors: whether browsers of other sites may read it.
    :param extra: more headers, each with its end of line.
    """
    body = content.encode('utf-8', 'surrogateescape')
    line = 'close' if request.close else 'keep-alive'
    head = (
        f'HTTP/{request.answer_version} 200 OK\r\n'
        f'content-length: {len(body)}\r\nconnection: {line}\r\n'
        'cache-control: no-cache, no-store\r\n'
        f'content-type: {kind}\r\n{_CORS if cors else ""}{extra}\r\n'
    )
    return head.encode('latin-1') + body


def options(request: Request) -> bytes:
    """Return the answer to OPTIONS."""
    wanted = request.headers.get('access-control-request-headers')
    allowed = f'{wanted}, X-Requested-With' if wanted else 'X-Requested-With'
    line = 'close' if request.close else 'keep-alive'
    return (
        f'HTTP/{request.answer_version} 200 OK\r\ncontent-length: 0\r\n'
        f'connection: {line}\r\ncache-control: no-cache, no-store\r\n'
        'Access-Control-Allow-Origin: *\r\n'
        f'Access-Control-Allow-Headers: {allowed}\r\n'
        'Access-Control-Allow-Methods: PUT\r\n\r\n'
    ).encode('latin-1')
