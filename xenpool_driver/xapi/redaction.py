# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Keeps passwords out of whatever a person or a log might see."""

from __future__ import annotations

import collections.abc
import json
import typing
import urllib.parse
import xml.sax.saxutils

HIDDEN = '***'
"""What stands in a text where a secret stood."""


class Secret:
    """A secret on its way: it shows itself to :func:`reveal` only.

    Calls pass secrets in this shape through every frame that may end up in
    a traceback, because traceback printers show local variables.
    """

    __slots__ = ('_value',)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __reduce__(self) -> typing.NoReturn:
        raise TypeError('a secret cannot be copied or pickled')


def reveal(value: typing.Any) -> typing.Any:
    """Return the value itself, taken out if it is a :class:`Secret`."""
    return value._value if isinstance(value, Secret) else value


def scrub(text: str, secrets: collections.abc.Iterable[str]) -> str:
    """Return ``text`` with each secret hidden, however it is escaped.

    :param text: what is going to be shown.
    :param secrets: the secrets that it might hold; '' is ignored.
    """
    for secret in secrets:
        for form in _forms(secret):
            text = text.replace(form, HIDDEN)
    return text


def _forms(secret: str) -> list[str]:
    """Return the spellings of a secret, the longest first."""
    if not secret:
        return []
    forms = {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        xml.sax.saxutils.escape(secret),
        xml.sax.saxutils.escape(secret, {'"': '&quot;', "'": '&apos;'}),
        urllib.parse.quote(secret, safe=''),
        urllib.parse.quote_plus(secret),
    }
    return sorted(forms, key=len, reverse=True)
