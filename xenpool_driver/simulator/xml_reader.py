# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A careful reader of XML-RPC calls, which words its complaints as XAPI does.

XAPI answers a body that is no XML-RPC with HTTP 500 and the text of the
exception. There are two sorts: those of its XML parser (Xmlm: line, column,
what it met) and those of its XML-RPC parser (ocaml-rpc: what it got, what it
expected). Which comes first depends on who looks first, so this reader is
built like theirs: a pull parser of signals, one signal ahead, with a
recursive descent above it.
"""

from __future__ import annotations

import collections.abc
import re
import typing

from xenpool_driver.simulator import values

EXPECTED_TYPES = (
    'open_tag(int/i8/i4/boolean/double/string/dateTime.iso8601/array/struct'
    '/nil)'
)

_WHITE = ' \t\n'
_NAME_START = 'A-Za-z_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0370-\u037d'
_NAME_START += '\u037f-\u1fff\u200c-\u200d\u2070-\u218f\u2c00-\u2fef'
_NAME_START += '\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd'
_NAME = re.compile(
    f'[{_NAME_START}][{_NAME_START}0-9\\-.\u00b7\u0300-\u036f\u203f-\u2040]*'
)
_SPACE = re.compile(f'[{_WHITE}]*')
_PLAIN = re.compile(r'[^<&\]]+')
_ILLEGAL = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')
_ENTITIES = {'lt': '<', 'gt': '>', 'amp': '&', 'apos': "'", 'quot': '"'}
_BOMS = (b'\xef\xbb\xbf',)

START, END, DATA, DTD = 'start', 'end', 'data', 'dtd'
_TEXT, _STAG, _ETAG, _PI, _COMMENT, _CDATA, _DOCTYPE, _EOI = range(8)


class Malformed(Exception):
    """The body cannot be read; the text is what XAPI shows of it."""


class Signal(typing.NamedTuple):
    """What the XML holds next: a tag opens or closes, or text."""

    kind: str
    text: str = ''


_END_OF_DOCUMENT = Signal(END, 'document')


def _parse_error(got: str, expected: str) -> Malformed:
    return Malformed(
        f'Xmlrpc.Parse_error({values.quote(got)}, {values.quote(expected)}, _)'
    )


class Reader:
    """Signals of an XML document, one at a time.

    :param body: the document, UTF-8.
    """

    def __init__(self, body: bytes) -> None:
        for mark in _BOMS:
            body = body.removeprefix(mark)
        try:
            text, self._broken = body.decode(), False
        except UnicodeDecodeError as error:
            text, self._broken = body[: error.start].decode(), True
        text = text.replace('\r\n', '\n').replace('\r', '\n')
        illegal = _ILLEGAL.search(text)
        if illegal is not None:
            text, self._broken = text[: illegal.start()], True
        self._text = text
        self._at = 0
        self._limit = _TEXT
        self._name = ''
        self._scopes: list[str] = []
        self._done = False
        self._begin()

    # -- what the XML-RPC parser asks --------------------------------------

    def peek(self) -> Signal:
        """Return the next signal without taking it."""
        if self._done:
            # Xmlm starts to look for a second document, finds none.
            self._end_of_input(len(self._text))
        return self._next

    def take(self) -> Signal:
        """Take the next signal, and find the one after it."""
        signal = self.peek()
        if signal == _END_OF_DOCUMENT:
            self._done = True
        else:
            self._next = self._signal(signal)
        return signal

    # -- where we are --------------------------------------------------------

    def _fail(self, text: str, at: int | None = None) -> typing.NoReturn:
        """Complain about the character that is looked at."""
        at = self._at if at is None else at
        newline = self._text.rfind('\n', 0, at)
        line = self._text.count('\n', 0, at) + 1
        raise Malformed(
            f'Xmlm.Error({line}:{at - newline}, {values.quote(text)})'
        )

    def _end_of_input(self, at: int) -> typing.NoReturn:
        what = (
            'malformed character stream'
            if self._broken
            else ('unexpected end of input')
        )
        self._fail(what, at)

    def _char(self) -> str:
        if self._at >= len(self._text):
            self._end_of_input(len(self._text))
        return self._text[self._at]

    def _skip(self, count: int = 1) -> None:
        """Pass over characters; the one behind them must be there."""
        self._at += count
        self._char()

    def _skip_white(self) -> None:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
        self._char()

    def _expect(self, char: str) -> None:
        found = self._char()
        if found != char:
            self._fail_expected((char,), found)
        self._skip()

    def _fail_expected(
        self, expected: collections.abc.Sequence[str], found: str
    ) -> typing.NoReturn:
        names = ''.join(f'"{item}", ' for item in expected)
        self._fail(
            f'expected one of these character sequence: {names}found "{found}"'
        )

    def _illegal(self, text: str) -> typing.NoReturn:
        self._fail(f'character sequence illegal here ("{text}")')

    # -- the lexer -----------------------------------------------------------

    def _begin(self) -> None:
        self._char()
        self._find_limit()
        if self._limit == _PI and self._name == 'xml':
            self._declaration()
        self._misc()
        if self._limit == _DOCTYPE:
            self._doctype()
            self._misc()
        self._next = Signal(DTD)

    def _declaration(self) -> None:
        """Pass over ``<?xml ...?>``; version 1.0 or 1.1 is demanded."""
        self._skip_white()
        name = self._ncname()
        if name != 'version':
            self._fail_expected(('version',), name)
        version = self._attribute()
        if version not in ('1.0', '1.1'):
            self._fail_expected(('1.0', '1.1'), version)
        self._skip_white()
        while self._char() != '?':
            name = self._ncname()
            if name not in ('encoding', 'standalone'):
                self._fail_expected(('encoding', 'standalone', '?>'), name)
            value = self._attribute()
            if name == 'encoding' and value.lower() not in (
                'utf-8',
                'us-ascii',
                'ascii',
                'iso-8859-1',
            ):
                self._fail(f'unknown encoding ({value.lower()})')
            self._skip_white()
        self._expect('?')
        self._expect('>')
        self._find_limit()

    def _doctype(self) -> None:
        """Pass over ``<!DOCTYPE ...>``, nested or quoted ``>`` included."""
        depth = 1
        while depth:
            char = self._char()
            if char in '"\'':
                self._skip()
                while self._char() != char:
                    self._skip()
            depth += {'<': 1, '>': -1}.get(char, 0)
            self._skip()
        self._find_limit()

    def _misc(self) -> None:
        """Pass over comments, instructions and white space."""
        while True:
            if self._limit == _PI:
                if self._name.lower() == 'xml':
                    self._illegal(self._name)
                self._pass('?>')
            elif self._limit == _COMMENT:
                self._pass('-->')
            elif self._limit == _TEXT and self._text[self._at] in _WHITE:
                self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            else:
                return
            self._find_limit()

    def _pass(self, mark: str) -> None:
        found = self._text.find(mark, self._at)
        if found < 0:
            self._end_of_input(len(self._text))
        self._at = found + len(mark)

    def _find_limit(self) -> None:
        """Say what begins at the character that is looked at."""
        if self._at >= len(self._text):
            if self._broken:
                self._end_of_input(len(self._text))
            self._limit = _EOI
        elif self._text[self._at] != '<':
            self._limit = _TEXT
        else:
            self._skip()
            self._markup()

    def _markup(self) -> None:
        char = self._char()
        if char == '?':
            self._skip()
            self._limit, self._name = _PI, self._qname()
        elif char == '/':
            self._skip()
            self._limit, self._name = _ETAG, self._qname()
            self._skip_white()
        elif char == '!':
            self._skip()
            self._declared()
        else:
            self._limit, self._name = _STAG, self._qname()

    def _declared(self) -> None:
        char = self._char()
        if char == '-':
            self._skip()
            self._expect('-')
            self._limit = _COMMENT
        elif char == 'D':
            self._limit = _DOCTYPE
        elif char == '[':
            self._skip()
            found = self._text[self._at : self._at + 6]
            self._skip(6)
            if found != 'CDATA[':
                self._fail_expected(('CDATA[',), found)
            self._limit = _CDATA
        else:
            self._illegal(f'<!{char}')

    def _ncname(self) -> str:
        char = self._char()
        match = _NAME.match(self._text, self._at)
        if match is None:
            self._illegal(char)
        self._at = match.end()
        self._char()
        return match.group()

    def _qname(self) -> str:
        name = self._ncname()
        if self._char() != ':':
            return name
        self._skip()
        return f'{name}:{self._ncname()}'

    def _attribute(self) -> str:
        """Return the value behind an attribute's name."""
        self._skip_white()
        self._expect('=')
        self._skip_white()
        delimiter = self._char()
        if delimiter not in '"\'':
            self._fail_expected(('"', "'"), delimiter)
        self._skip()
        out = []
        while (char := self._char()) != delimiter:
            if char == '<':
                self._illegal('<')
            if char == '&':
                out.append(self._reference())
            else:
                out.append(char)
                self._skip()
        self._skip()
        return ' '.join(''.join(out).split())

    def _reference(self) -> str:
        """Return what ``&...;`` stands for."""
        self._skip()
        if self._char() == '#':
            return self._char_reference()
        name = self._ncname()
        self._expect(';')
        if name not in _ENTITIES:
            self._fail(f'unknown entity reference ({name})')
        return _ENTITIES[name]

    def _char_reference(self) -> str:
        self._skip()
        start = self._at
        end = self._text.find(';', start)
        if end < 0:
            self._end_of_input(len(self._text))
        digits = self._text[start:end]
        if not digits:
            self._fail('illegal character reference (#)')
        self._at = end
        self._skip()
        code = _code(digits)
        if code is None:
            self._fail(f'illegal character reference (#{digits})')
        return chr(code)

    # -- the signals ---------------------------------------------------------

    def _signal(self, before: Signal) -> Signal:
        """Return the signal that follows ``before``."""
        if before.kind == START:
            self._finish_start()
        if not self._scopes:
            if self._limit != _STAG:
                self._fail('expected root element')
            return self._start()
        while self._limit not in (_STAG, _ETAG):
            if self._limit in (_TEXT, _CDATA):
                text = self._data()
                if text:
                    return Signal(DATA, text)
            else:
                self._pass_other()
        return self._start() if self._limit == _STAG else self._end()

    def _pass_other(self) -> None:
        """Pass over what is neither tag nor text inside an element."""
        if self._limit == _DOCTYPE:
            self._illegal('<!D')
        if self._limit == _EOI:
            self._end_of_input(len(self._text))
        self._pass('?>' if self._limit == _PI else '-->')
        self._find_limit()

    def _start(self) -> Signal:
        name = self._name
        while self._char() in _WHITE:
            self._skip_white()
            if self._char() in '/>':
                break
            self._qname()
            self._attribute()
        self._scopes.append(name)
        return Signal(START, name.rpartition(':')[2])

    def _finish_start(self) -> None:
        self._skip_white()
        char = self._char()
        if char == '>':
            self._at += 1
            self._needs_more()
            self._find_limit()
        elif char == '/':
            self._skip()
            self._limit, self._name = _ETAG, self._scopes[-1]
        else:
            self._fail_expected(('/', '>'), char)

    def _needs_more(self) -> None:
        if self._at >= len(self._text):
            self._end_of_input(len(self._text))

    def _end(self) -> Signal:
        char = self._char()
        if char != '>':
            self._fail_expected(('>',), char)
        if self._name != self._scopes[-1]:
            self._fail_expected((self._scopes[-1],), self._name)
        self._scopes.pop()
        if not self._scopes:
            return _END_OF_DOCUMENT
        self._at += 1
        self._needs_more()
        self._find_limit()
        return Signal(END)

    def _data(self) -> str:
        """Return all text up to the next tag."""
        out: list[str] = []
        while True:
            if self._limit == _TEXT:
                self._chardata(out)
            elif self._limit == _CDATA:
                start = self._at
                self._pass(']]>')
                out.append(self._text[start : self._at - 3])
                self._needs_more()
            elif self._limit in (_STAG, _ETAG):
                return ''.join(out)
            else:
                self._pass_other()
                continue
            self._find_limit()

    def _chardata(self, out: list[str]) -> None:
        while (char := self._char()) != '<':
            if char == '&':
                out.append(self._reference())
            elif char == ']':
                end = self._at
                while self._text[end : end + 1] == ']':
                    end += 1
                out.append(self._text[self._at : end])
                run = end - self._at
                self._at = end
                if self._char() == '>' and run > 1:
                    self._illegal(']]>')
            else:
                end = _PLAIN.match(self._text, self._at).end()  # type: ignore[union-attr]
                out.append(self._text[self._at : end])
                self._at = end


def _code(digits: str) -> int | None:
    """Return the character that a reference names, None for no character."""
    try:
        if digits[0] == 'x':
            code = int(digits[1:], 16) if digits[1:].isalnum() else 0
        else:
            code = int(digits) if digits.isdecimal() else -1
    except ValueError:
        return None
    if code in (9, 10, 13) or 0x20 <= code <= 0xD7FF:
        return code
    if 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF:
        return code
    return None


def _is_empty(text: str) -> bool:
    return not text.strip(' \t\n')


def _escaped(text: str) -> str:
    return values.quote(text)[1:-1]


class _Parser:
    """The grammar of a call (ocaml-rpc, ``xmlrpc.ml``)."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def call(self) -> tuple[str, list[typing.Any]]:
        """Read a whole call."""
        if self._reader.peek().kind == DTD:
            self._reader.take()
        self._open('methodCall')
        self._open('methodName')
        name = self._text()
        self._close('methodName')
        self._open('params')
        params = []
        self._skip_empty()
        while self._reader.peek().kind != END:
            self._open('param')
            params.append(self._value())
            self._close('param')
            self._skip_empty()
        self._close('params')
        self._close('methodCall')
        return name, params

    def _skip_empty(self) -> None:
        while True:
            signal = self._reader.peek()
            if signal.kind != DATA or not _is_empty(signal.text):
                return
            self._reader.take()

    def _open_any(self) -> str:
        while True:
            signal = self._reader.take()
            if signal.kind == START:
                return signal.text
            if signal.kind == END:
                raise _parse_error('close_tag', 'open_tag')
            if signal.kind == DATA and not _is_empty(signal.text):
                got = f'data({_escaped(signal.text)})'
                raise _parse_error(got, 'open_tag')

    def _open(self, tag: str) -> None:
        found = self._open_any()
        if found != tag:
            raise _parse_error(f'open_tag({found})', f'open_tag({tag})')

    def _close(self, tag: str) -> None:
        while True:
            signal = self._reader.take()
            if signal.kind == END:
                return
            if signal.kind == START:
                got = f'open_tag({signal.text})'
                raise _parse_error(got, f'close_tag({tag})')
            if not _is_empty(signal.text):
                got = f'data({_escaped(signal.text)})'
                raise _parse_error(got, f'close_tag({tag})')

    def _text(self) -> str:
        """Read text. An element without any is over with that.

        Its closing tag is taken for the missing text, and the next closing
        tag for its own; XAPI stumbles in the same way.
        """
        signal = self._reader.take()
        if signal.kind == START:
            raise _parse_error(f'open_tag({signal.text})', 'data')
        return signal.text

    def _value(self) -> typing.Any:
        found = self._open_any()
        if found != 'value':
            raise _parse_error('open_tag(value)', f'open_tag({found})')
        signal = self._reader.peek()
        if signal.kind == END:
            value: typing.Any = ''
        elif signal.kind == DATA:
            self._reader.take()
            inner = self._reader.peek().kind == START
            if inner and _is_empty(signal.text):
                value = self._typed()
            else:
                value = signal.text
        else:
            value = self._typed()
        self._close('value')
        return value

    def _typed(self) -> typing.Any:
        tag = self._open_any()
        if self._reader.peek().kind == END:
            value = self._empty(tag)
        else:
            value = self._filled(tag)
        self._close(tag)
        return value

    def _empty(self, tag: str) -> typing.Any:
        if tag in ('string', 'value'):
            return ''
        if tag == 'array':
            return []
        if tag == 'struct':
            return {}
        if tag == 'nil':
            return None
        raise _parse_error(f'empty_{tag}', tag)

    def _filled(self, tag: str) -> typing.Any:
        if tag == 'string':
            return self._text()
        if tag == 'dateTime.iso8601':
            return values.DateTime(self._text())
        if tag == 'boolean':
            return self._text() == '1'
        if tag in ('int', 'i8', 'i4', 'double'):
            return self._number(tag)
        if tag == 'array':
            return self._array()
        if tag == 'struct':
            return self._struct()
        if tag == 'nil':
            return None
        raise _parse_error(f'open_tag({tag})', EXPECTED_TYPES)

    def _number(self, tag: str) -> int | float:
        try:
            if tag == 'double':
                return values.float_of_text(self._text())
            return values.int_of_text(self._text())
        except ValueError as error:
            raise Malformed(f'Failure({values.quote(str(error))})') from None

    def _array(self) -> list[typing.Any]:
        self._open('data')
        items = []
        self._skip_empty()
        while self._reader.peek().kind != END:
            items.append(self._value())
            self._skip_empty()
        self._close('data')
        return items

    def _struct(self) -> dict[str, typing.Any]:
        members: dict[str, typing.Any] = {}
        self._skip_empty()
        while self._reader.peek().kind != END:
            self._open('member')
            self._open('name')
            name = self._text()
            self._close('name')
            members.setdefault(name, self._value())
            self._close('member')
            self._skip_empty()
        return members


def parse_call(body: bytes) -> tuple[str, list[typing.Any]]:
    """Return the name of the method and its parameters.

    :raises Malformed: with the text that XAPI shows.
    """
    try:
        return _Parser(Reader(body)).call()
    except RecursionError:
        raise Malformed('Stack_overflow') from None
