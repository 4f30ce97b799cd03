# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Replaying recorded requests against the simulator.

A recorded exchange is sent as it was, but for what only the recorded XAPI
could know: references and tokens that it had handed out are replaced by the
ones that the simulator handed out in their place. Of both answers, what
depends on the moment (references, uuids, dates, generations, the wording of
stack traces) is replaced by numbered names in order of appearance; the rest
must be equal, byte by byte.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import re
import socket
import ssl
import typing

from xenpool_driver.simulator import (
    clock,
    machine,
    records_dir,
    server,
    sessions,
    timings,
    world,
)

REF = re.compile(
    r'OpaqueRef:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
)
UUID = re.compile(
    r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
)
TOKEN = re.compile(r'\d{20},\d{20}')
DATE = re.compile(r'\d{8}T\d\d:\d\d:\d\dZ')
ID = re.compile(r'("id":"|<name>id</name><value>)\d+')
BACKTRACE = re.compile(
    r'("backtrace":").*?("[,}])(?=[,"}])'
    r'|(<name>backtrace</name><value>).*?(</value>)',
    re.DOTALL,
)
COUNT = re.compile(
    r'("(?:session|task|network)":|<name>(?:session|task|network)</name>'
    r'<value><i4>)\d+'
)
EVENT_KEY = re.compile(r'evk\d+')
DEAD = 'OpaqueRef:00000000-dead-0000-0000-000000000000'

HEADERS = (
    'content-length',
    'connection',
    'cache-control',
    'content-type',
    'Access-Control-Allow-Origin',
    'Access-Control-Allow-Headers',
    'Access-Control-Allow-Methods',
)

START = '20261122T07:45:00Z'
"""When the recordings were made: what is older than that is old here too."""

SCALE = 40.0
"""Simulated seconds per real one: the recordings wait for timeouts."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One recorded exchange."""

    file: str
    index: int
    raw: dict[str, typing.Any] = dataclasses.field(repr=False)

    @property
    def ident(self) -> str:
        """How it is called in tables and test output."""
        return f'{self.file}[{self.index}] {self.raw["name"]}'

    @property
    def body(self) -> bytes:
        """The request's body, bytes that were no UTF-8 included."""
        text = self.raw.get('request_body') or ''
        escaped = re.compile(r'\\x([89a-f][0-9a-f])')
        return escaped.sub(
            lambda m: chr(0xDC00 + int(m.group(1), 16)), text
        ).encode('utf-8', 'surrogateescape')

    @property
    def full_body(self) -> bytes:
        """The body, with what the recording cut out of it put back."""
        cut = re.search(rb'x\.\.\. \((\d+) bytes\)$', self.body)
        if cut is None:
            return self.body
        kept = self.body[: cut.start() + 1]
        tail = b'</string></value></param></params></methodCall>'
        if self.raw['path'] == '/jsonrpc':
            tail = b'"], "id": 1}'
        filler = b'x' * (int(cut.group(1)) - len(kept) - len(tail))
        return kept + filler + tail


def load(path: pathlib.Path) -> list[Cell]:
    """Return the exchanges in a file that were real requests."""
    raw = json.loads(path.read_text(encoding='utf-8'))
    return [
        Cell(path.stem, index, item)
        for index, item in enumerate(raw)
        if item.get('http_method')
    ]


@dataclasses.dataclass
class Answer:
    """What came back: status line, headers in order, body."""

    status_line: str
    headers: list[list[str]]
    body: str


class Stage:
    """A simulated pool that a file of recordings is played to.

    :param durations: how long things take.
    :ivar known: recorded references that mean nothing to the simulator ->
        the simulator's own in their place.
    """

    def __init__(
        self,
        records: dict[str, typing.Any],
        addresses: dict[str, str],
        durations: timings.Timings = timings.DEFAULT,
    ) -> None:
        self.clock = clock.Clock(scale=SCALE, start=clock.from_iso(START))
        self.server = server.Server(https_port=0, http_port=0)
        self.world = world.World(self.clock, self.server, 1, durations)
        self.machines: dict[str, machine.Machine] = {}
        self.addresses: dict[str, str] = {}
        self.known: dict[str, str] = {}
        self.stable = {DEAD}
        self.stable_uuids: set[str] = set()
        self.add_pool(records, addresses)

    def add_pool(
        self, records: dict[str, typing.Any], addresses: dict[str, str]
    ) -> None:
        """Put one more pool into the world.

        :param addresses: recorded address -> the one it gets here.
        """
        placed = records_dir.add_pool(
            self.world, records, iter(addresses.values()), 'xenroot'
        )
        self.machines.update(zip(addresses, placed, strict=False))
        self.addresses.update(addresses)
        text = json.dumps(records)
        self.stable.update(REF.findall(text))
        self.stable_uuids.update(UUID.findall(text))

    def stop(self) -> None:
        """Take everything down."""
        self.clock.stop()
        self.server.stop()

    def add_session(self, ref: str, peer: str, *, local: bool) -> None:
        """Let the recorded session ``ref`` be a good one."""
        target = self.machines[peer]
        if local:
            target.local_sessions[ref] = 'root'
        elif target.db is not None and target.db.find('session', ref) is None:
            now = self.clock.iso()
            fields = {
                'last_active': now,
                'validation_time': now,
                'is_local_superuser': True,
                'auth_user_name': 'root',
                'originator': 'wire',
                'this_host': target.me,
            }
            target.db.create('session', fields, ref=ref)

    def log_out_later(self, session: str, peer: str) -> None:
        """End a session a (simulated) second from now."""
        db = self.machines[peer].db
        if db is not None:
            self.clock.call_later(1.0, sessions.destroy, db, session)

    def translate(self, body: bytes) -> bytes:
        """Return a recorded request in the simulator's terms."""
        text = body.decode('utf-8', 'surrogateescape')
        for theirs, ours in self.known.items():
            text = text.replace(theirs, ours)
        for theirs, ours in self.addresses.items():
            text = re.sub(rf'{re.escape(theirs)}\b', ours, text)
        return text.encode('utf-8', 'surrogateescape')

    def send(self, cell: Cell, body: bytes) -> Answer:
        """Send a recorded request, and return what came back."""
        peer, scheme = cell.raw['peer'], cell.raw['scheme']
        target = self.machines[peer]
        headers = {**cell.raw['request_headers'], 'Host': target.address}
        length = headers.get('Content-Length')
        if length is not None and int(length) == len(cell.full_body):
            headers['Content-Length'] = str(len(body))
        head = f'{cell.raw["http_method"]} {cell.raw["path"]} HTTP/1.1\r\n'
        head += ''.join(f'{k}: {v}\r\n' for k, v in headers.items())
        place = (target.address, self.server.port(target, scheme))
        with socket.create_connection(place, timeout=30) as plain:
            connection = self._secure(plain) if scheme == 'https' else plain
            with connection:
                connection.sendall(head.encode() + b'\r\n' + body)
                return _receive(connection)

    def _secure(self, plain: socket.socket) -> socket.socket:
        context = ssl.create_default_context(
            cadata=self.server.ca_pem().decode()
        )
        host = plain.getpeername()[0]
        return context.wrap_socket(plain, server_hostname=host)

    def learn(self, theirs: str, ours: str) -> None:
        """Note which of our references stands for which recorded one."""
        for kind in (REF, TOKEN):
            mine = [r for r in kind.findall(ours) if r not in self.stable]
            recorded = [
                r for r in kind.findall(theirs) if r not in self.stable
            ]
            if len(mine) == len(recorded):
                self.known.update(zip(recorded, mine, strict=True))

    def normal(self, text: str, *, mine: bool) -> str:
        """Return ``text`` without what depends on the moment.

        :param mine: whether it is the simulator's, else the recorded.
        """
        if mine:
            for theirs, ours in self.addresses.items():
                text = text.replace(ours, theirs)
        text = BACKTRACE.sub(r'\1\3<trace>\2\4', text)
        text = TOKEN.sub('<token>', text)
        text = DATE.sub('<date>', text)
        text = ID.sub(r'\1<n>', text)
        text = COUNT.sub(r'\1<n>', text)
        text = EVENT_KEY.sub('<key>', text)
        text = _numbered(REF, text, self.stable, 'ref')
        return _numbered(UUID, text, self.stable_uuids | self.stable, 'uuid')


def _numbered(
    pattern: re.Pattern[str], text: str, kept: set[str], name: str
) -> str:
    seen: dict[str, str] = {}

    def replace(match: re.Match[str]) -> str:
        found = match.group()
        if found in kept or f'OpaqueRef:{found}' in kept:
            return found
        return seen.setdefault(found, f'<{name} {len(seen)}>')

    return pattern.sub(replace, text)


def _receive(connection: socket.socket) -> Answer:
    data = b''
    while b'\r\n\r\n' not in data:
        data += _more(connection)
    head, _, rest = data.partition(b'\r\n\r\n')
    lines = head.decode('latin-1').split('\r\n')
    headers = [line.split(': ', 1) for line in lines[1:]]
    length = int(dict(headers)['content-length'])
    while len(rest) < length:
        rest += _more(connection)
    text = rest.decode('utf-8', 'backslashreplace')
    return Answer(lines[0], headers, text)


def _more(connection: socket.socket) -> bytes:
    chunk = connection.recv(65536)
    if not chunk:
        raise EOFError('the connection was closed without an answer')
    return chunk


def compare(
    stage: Stage,
    cell: Cell,
    answer: Answer,
    mask: collections.abc.Callable[[Cell, str], str],
) -> str | None:
    """Return what differs from the recorded answer, None when nothing."""
    if answer.status_line != cell.raw['status_line']:
        return f'{answer.status_line} for {cell.raw["status_line"]}'
    recorded = [
        header
        for header in cell.raw['response_headers']
        if header[0] in HEADERS
    ]
    for ours, theirs in zip(answer.headers, recorded, strict=False):
        if ours[0] != theirs[0]:
            return f'header {ours} for {theirs}'
        if ours[0] != 'content-length' and ours != theirs:
            return f'header {ours} for {theirs}'
    if len(answer.headers) != len(recorded):
        return f'{len(answer.headers)} headers for {len(recorded)}'
    stage.learn(cell.raw['response_body'], answer.body)
    mine = stage.normal(answer.body, mine=True)
    theirs = stage.normal(cell.raw['response_body'], mine=False)
    mine, theirs = mask(cell, mine), mask(cell, theirs)
    if cell.raw.get('truncated_from') or len(theirs) in (300, 6000):
        trace = theirs.find('"backtrace":"(')
        length = min(len(mine), len(theirs)) - 40
        length = trace if trace > 0 else length
        mine, theirs = mine[:length], theirs[:length]
    return None if mine == theirs else _difference(mine, theirs)


def _difference(mine: str, theirs: str) -> str:
    at = next(
        (
            i
            for i, (a, b) in enumerate(zip(mine, theirs, strict=False))
            if a != b
        ),
        min(len(mine), len(theirs)),
    )
    start = max(0, at - 60)
    return (
        f'at {at}:\n   ours     ...{mine[start : at + 160]}'
        f'\n   recorded ...{theirs[start : at + 160]}'
    )
