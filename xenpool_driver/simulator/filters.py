# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The little language of get_all_records_where.

``field "name" = "value"``, ``and``, ``or``, ``not``, ``true``, ``false`` and
parentheses, as in XAPI's ``db_filter_lex.mll`` and ``db_filter_parse.mly``.
``and`` and ``or`` bind equally, to the left; ``not`` reaches as far as it
can. Values are compared as the database writes them.
"""

from __future__ import annotations

import collections.abc
import re
import typing

from xenpool_driver.simulator import clock, datamodel, errors, values

Predicate = collections.abc.Callable[[dict[str, typing.Any]], bool]
_Value = collections.abc.Callable[[dict[str, typing.Any]], str]

PARSE_ERROR = 'Xapi_database.Db_filter_parse.MenhirBasics.Error'
LEX_ERROR = 'Failure("lexing: empty token")'

_TOKEN = re.compile(
    r'[ \t\n]*(?:(?P<word>true|false|field|and|or|not)|(?P<mark>[=()])'
    r'|"(?P<text>[^"]*)"|(?P<end>$)|(?P<bad>.))',
    re.DOTALL,
)


def parse(cls: datamodel.Class, text: str) -> Predicate:
    """Return what tells whether a record of ``cls`` fits ``text``.

    :raises ApiError: INVALID_VALUE [text, reason] for text that is no
        filter.
    """
    try:
        return _Parser(cls, text).whole()
    except _Refused as error:
        raise errors.ApiError('INVALID_VALUE', text, str(error)) from None


class _Refused(Exception):
    pass


class _Parser:
    """A recursive descent; it lexes only as far as it parses."""

    def __init__(self, cls: datamodel.Class, text: str) -> None:
        self._cls = cls
        self._text = text
        self._at = 0
        self._kind = ''
        self._value = ''
        self._next()

    def whole(self) -> Predicate:
        """Read all of the text."""
        predicate = self._expression()
        if self._kind != 'end':
            raise _Refused(PARSE_ERROR)
        return predicate

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup in (None, 'bad'):
            raise _Refused(LEX_ERROR)
        self._kind = match.lastgroup or ''
        self._value = match.group(self._kind)
        self._at = match.end()

    def _is(self, value: str) -> bool:
        return self._kind in ('word', 'mark') and self._value == value

    def _expression(self) -> Predicate:
        left = self._term()
        while self._is('and') or self._is('or'):
            both = self._is('and')
            self._next()
            left = _combine(left, self._term(), both)
        return left

    def _term(self) -> Predicate:
        if self._is('not'):
            self._next()
            # "not" is declared below "and" and "or": it takes all that
            # follows it.
            inner = self._expression()
            return lambda record: not inner(record)
        if self._is('('):
            self._next()
            inner = self._expression()
            self._demand(')')
            return inner
        for word, truth in (('true', True), ('false', False)):
            if self._is(word):
                self._next()
                return lambda record, truth=truth: truth  # type: ignore[misc]
        return self._comparison()

    def _comparison(self) -> Predicate:
        left = self._operand()
        self._demand('=')
        right = self._operand()
        return lambda record: left(record) == right(record)

    def _demand(self, mark: str) -> None:
        if not self._is(mark):
            raise _Refused(PARSE_ERROR)
        self._next()

    def _operand(self) -> _Value:
        named = self._is('field')
        if named:
            self._next()
        if self._kind != 'text':
            raise _Refused(PARSE_ERROR)
        text = self._value
        self._next()
        return self._field(text) if named else lambda record: text

    def _field(self, name: str) -> _Value:
        field = self._cls.fields.get(name)

        def look_up(record: dict[str, typing.Any]) -> str:
            if field is None:
                raise errors.ApiError(
                    'INTERNAL_ERROR', 'missing field', name, ''
                )
            return stored(field.type, record[name])

        return look_up


def _combine(left: Predicate, right: Predicate, both: bool) -> Predicate:
    if both:
        return lambda record: left(record) and right(record)
    return lambda record: left(record) or right(record)


def stored(kind: datamodel.Type, value: typing.Any) -> str:
    """Return ``value`` as the database's text of it."""
    if kind.kind == 'bool':
        return 'true' if value else 'false'
    if kind.kind == 'float':
        return values.float_text(value, 17)
    if kind.kind == 'datetime':
        return clock.to_iso(clock.from_iso(value))
    if kind.kind == 'set' and kind.of is not None:
        inner = ' '.join(_quoted(stored(kind.of, item)) for item in value)
        return f'({inner})'
    if kind.kind == 'map' and kind.of is not None:
        pairs = ' '.join(
            f'({_quoted(str(key))} {_quoted(stored(kind.of, item))})'
            for key, item in value.items()
        )
        return f'({pairs})'
    return str(value)


def _quoted(text: str) -> str:
    escaped = text.replace('\\', '\\\\').replace("'", "\\'")
    return f"'{escaped}'"
