# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A reader of JSON that takes what XAPI takes and complains as XAPI does.

XAPI reads JSON with Yojson, which also takes comments, bare names of
members, NaN and the infinities. The standard library's reader does all the
ordinary work; only what it refuses is read again here, with care.
"""

from __future__ import annotations

import json
import re
import typing

from xenpool_driver.simulator import values

JUNK = 32
"""How much of what it met Yojson shows beyond the offending character."""

_SPACE = re.compile(r'(?:[ \t\r]+|\n|//[^\n]*|/\*.*?\*/)*', re.DOTALL)
_NUMBER = re.compile(r'-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?')
_IDENT = re.compile('[A-Za-z_][A-Za-z_0-9]*')
_STRING = re.compile(r'[^"\\]+')
_ESCAPES = {
    '"': '"',
    '\\': '\\',
    '/': '/',
    'b': '\b',
    'f': '\f',
    'n': '\n',
    'r': '\r',
    't': '\t',
}
_WORDS = {
    'true': True,
    'false': False,
    'null': None,
    'NaN': float('nan'),
    'Infinity': float('inf'),
    '-Infinity': float('-inf'),
}


class Malformed(Exception):
    """The body cannot be read; the text is what XAPI shows of it."""


def parse(body: bytes) -> typing.Any:
    """Return the value in ``body``.

    Bytes that are no UTF-8 come through as lone surrogates.

    :raises Malformed: with the text that XAPI shows.
    """
    text = body.decode('utf-8', 'surrogateescape')
    try:
        return _PLAIN.decode(text)
    except (ValueError, RecursionError):
        return _Reader(text).document()


def _first_wins(pairs: list[tuple[str, typing.Any]]) -> typing.Any:
    """Build an object; of members with one name the first counts."""
    out: dict[str, typing.Any] = {}
    for key, value in pairs:
        out.setdefault(key, value)
    return out


def _integer(text: str) -> int:
    number = int(text)
    if not values.INT64_MIN <= number <= values.INT64_MAX:
        raise OverflowError
    return number


class _Decoder(json.JSONDecoder):
    """The standard library's reader; an integer too large is an error."""

    def decode(self, s: str, _w: typing.Any = None) -> typing.Any:
        """Return the value in ``s``.

        :raises Malformed: for an integer beyond 64 bits.
        :raises ValueError: for anything else that is not JSON.
        """
        try:
            value = super().decode(s)
        except OverflowError:
            raise Malformed('Failure("Int64.of_string")') from None
        if '\\ud' in s or '\\uD' in s:
            raise ValueError('surrogates are looked at with care')
        return value


_PLAIN = _Decoder(
    object_pairs_hook=_first_wins, parse_int=_integer, strict=False
)


class _Reader:
    """Reads as Yojson does, and complains as Yojson does."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def document(self) -> typing.Any:
        """Read the one value that the text must hold."""
        if self._skip_space() >= len(self._text):
            raise _error('Blank input data')
        try:
            value = self._value()
        except RecursionError:
            raise Malformed('Stack_overflow') from None
        if self._skip_space() < len(self._text):
            self._fail('Junk after end of JSON value:')
        return value

    def _skip_space(self) -> int:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _fail(self, description: str) -> typing.NoReturn:
        """Complain about the character that is looked at."""
        if self._at >= len(self._text):
            description = 'Unexpected end of input'
        else:
            junk = self._text[self._at : self._at + JUNK + 1]
            description = f"{description} '{junk}'"
        self._fail_at(description)

    def _fail_at(self, description: str) -> typing.NoReturn:
        before = self._text[: self._at]
        line = before.count('\n') + 1
        start = _length(before[before.rfind('\n') + 1 :])
        found = self._text[self._at : self._at + JUNK + 1]
        if not found:
            raise _error(f'Line {line}, byte {start}:\n{description}')
        end = start + _length(found)
        if self._at + len(found) < len(self._text):
            # Yojson passed over one more before it noticed it had enough.
            end += 1
        raise _error(f'Line {line}, bytes {start}-{end}:\n{description}')

    def _value(self) -> typing.Any:
        self._skip_space()
        char = self._text[self._at : self._at + 1]
        if char == '"':
            self._at += 1
            return self._string()
        if char == '{':
            self._at += 1
            return self._object()
        if char == '[':
            self._at += 1
            return self._array()
        if char == '<':
            self._variant()
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return value
        return self._number()

    def _variant(self) -> typing.NoReturn:
        """Read what Yojson takes for a variant, which no call may hold."""
        self._at += 1
        self._skip_space()
        name = values.quote(self._member_name())
        text = values.quote(f'Unable to parse <{name}>')
        raise Malformed(f'Jsonrpc.Malformed_method_request({text})')

    def _number(self) -> typing.Any:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            self._fail('Invalid token')
        self._at = match.end()
        if match.group(1) or match.group(2):
            return float(match.group())
        try:
            return _integer(match.group())
        except OverflowError:
            raise Malformed('Failure("Int64.of_string")') from None

    def _object(self) -> dict[str, typing.Any]:
        pairs = []
        self._skip_space()
        if self._text[self._at : self._at + 1] == '}':
            self._at += 1
            return {}
        while True:
            name = self._member_name()
            self._skip_space()
            self._mark(':', "Expected ':' but found")
            pairs.append((name, self._value()))
            self._skip_space()
            if self._text[self._at : self._at + 1] == '}':
                self._at += 1
                out: dict[str, typing.Any] = _first_wins(pairs)
                return out
            self._mark(',', "Expected ',' or '}' but found")
            self._skip_space()

    def _member_name(self) -> str:
        if self._text[self._at : self._at + 1] == '"':
            self._at += 1
            return self._string()
        match = _IDENT.match(self._text, self._at)
        if match is None:
            self._fail('Expected string or identifier but found')
        self._at = match.end()
        return match.group()

    def _array(self) -> list[typing.Any]:
        items: list[typing.Any] = []
        self._skip_space()
        if self._text[self._at : self._at + 1] == ']':
            self._at += 1
            return items
        while True:
            items.append(self._value())
            self._skip_space()
            if self._text[self._at : self._at + 1] == ']':
                self._at += 1
                return items
            self._mark(',', "Expected ',' or ']' but found")

    def _mark(self, mark: str, complaint: str) -> None:
        if self._text[self._at : self._at + 1] != mark:
            self._fail(complaint)
        self._at += 1

    def _string(self) -> str:
        out = []
        while True:
            match = _STRING.match(self._text, self._at)
            if match is not None:
                out.append(match.group())
                self._at = match.end()
            char = self._text[self._at : self._at + 1]
            if not char:
                self._fail_at('Unexpected end of input')
            self._at += 1
            if char == '"':
                return ''.join(out)
            out.append(self._escape())

    def _escape(self) -> str:
        char = self._text[self._at : self._at + 1]
        if char in _ESCAPES and char:
            self._at += 1
            return _ESCAPES[char]
        code = self._unicode('u')
        if code is None:
            self._fail('Invalid escape sequence')
        if not 0xD800 <= code <= 0xDBFF:
            return _of_code(code)
        low = self._unicode('\\u')
        if low is None:
            self._fail(
                'Missing escape sequence representing low surrogate for code '
                'point beyond U+FFFF'
            )
        if not 0xDC00 <= low <= 0xDFFF:
            self._at -= 6
            self._fail('Invalid low surrogate for code point beyond U+FFFF')
        return chr(0x10000 + ((code - 0xD800) << 10) + low - 0xDC00)

    def _unicode(self, mark: str) -> int | None:
        """Read ``mark`` and four hexadecimal digits, if they are there."""
        start = self._at + len(mark)
        digits = self._text[start : start + 4]
        if not self._text.startswith(mark, self._at):
            return None
        if len(digits) < 4 or not re.fullmatch('[0-9a-fA-F]{4}', digits):
            return None
        self._at = start + 4
        return int(digits, 16)


def _of_code(code: int) -> str:
    """Return a character; a lone low surrogate as the bytes of it."""
    raw = chr(code).encode('utf-8', 'surrogatepass')
    return raw.decode('utf-8', 'surrogateescape')


def _length(text: str) -> int:
    return len(text.encode('utf-8', 'surrogateescape'))


def _error(text: str) -> Malformed:
    return Malformed(f'Yojson__Common.Json_error({values.quote(text)})')
