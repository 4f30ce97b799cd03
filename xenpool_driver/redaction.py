# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Keeps passwords out of whatever a person or a log might see.

Texts are searched for the secrets that are known, and for what is called a
password: ``password = ...``, ``--password ...``, ``<password>``, the password
of a URL. What is taken for a secret is hidden whole. The other thing that
must not reach a terminal is what it would obey: :func:`visible`.
"""

from __future__ import annotations

import collections.abc
import json
import re
import typing
import urllib.parse
import xml.sax.saxutils

HIDDEN = '***'
"""What stands in a text where a secret stood."""

SHORTEST = 4
"""Characters of a secret that texts are searched for."""

_WORDS = (
    r'pass(?:word|wd|phrase)|admin_?pass|secret|token|'
    r'(?:access|api|private)[_-]?key'
)
"""What the name of a secret ends with, in a text that may be about anything.
"""

_NAME = rf'[\w-]*(?:{_WORDS})'

_KEY = re.compile(rf'{_WORDS}|passw|chap|credential', re.IGNORECASE)
"""What the key of a secret has in it, in a map of a record."""

_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_NO_SECRET = re.compile(r'true|false|OpaqueRef:.*', re.DOTALL)
"""Values of what only sounds like one: ``restrict_pool_secret_rotation``,
``repository_proxy_password``, which refers to an object."""

_FIELDS = (
    # 'password': 'it\'s secret', password = "secret"
    re.compile(
        rf"""(?<![\w/.-])({_NAME}['"]?\s*[=:]\s*[ub]?(?P<q>['"]))"""
        r"""(?:\\.|(?!(?P=q)).)*(?=(?P=q))""",
        re.IGNORECASE | re.DOTALL,
    ),
    # password=secret, and not /etc/password=store/xenpool.conf
    re.compile(
        rf"""(?<![\w/.-])({_NAME}\s*=\s*)(?!['"\s])[^\s,;)]+""",
        re.IGNORECASE,
    ),
    # --password secret
    re.compile(rf"""(?<!\S)(--{_NAME}[ =])(?!['"\s])\S+""", re.IGNORECASE),
    # <password>secret</password>
    re.compile(
        rf"(<{_NAME}>)[^<]+(?=</)",
        re.IGNORECASE,
    ),
)

_URL = re.compile(r'[a-zA-Z][\w+.-]*://\S+')
_FIRST_PASSWORD = re.compile(r'(://[^@/:,]*:)[^@]+@')
_NEXT_PASSWORD = re.compile(r'(,[^@/:,]*:)[^@]+@')
_PASSWORD = re.compile('[/,][^/,@:]*:([^@/,]+)@')

_TURNING = '\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069'
_OBEYED_IN_LINES = re.compile(
    f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_TURNING}\ud800-\udfff]"
)
_OBEYED = re.compile(f"[\x00-\x08\n-\x1f\x7f-\x9f{_TURNING}\ud800-\udfff]")


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
    :param secrets: the secrets that it might hold. One that is shorter than
        :data:`SHORTEST` would turn up in words that have nothing to do with
        it; it is hidden only where it is all of the text.
    """
    known = set(secrets) - {''}
    if text in known:
        return HIDDEN
    forms = {
        form
        for secret in known
        if len(secret) >= SHORTEST
        for form in _forms(secret)
    }
    # The longest first: one secret may be a part of another one.
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text


def hide_fields(text: str) -> str:
    """Return ``text`` without the values of what is called a password.

    :param text: what is going to be shown, whoever wrote it.
    """
    for pattern in _FIELDS:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return _URL.sub(lambda url: _hide_in_url(url.group()), text)


def hides(key: str, value: str) -> bool:
    """Say whether a value of a record's map is one that nobody may see.

    ``password_secret`` and its like hold the uuid of an object of the class
    ``secret``, which is no secret itself: the password is in that object.

    :param key: for example ``cifspassword`` of ``PBD.device_config``, or
        ``auth_token`` of ``pool.other_config``.
    :param value: what it stands for.
    """
    if not value or not _KEY.search(key) or _NO_SECRET.fullmatch(value):
        return False
    return not (key.endswith('_secret') and _UUID.fullmatch(value))


def without_secrets(value: typing.Any, key: str = '') -> typing.Any:
    """Return records, or a part of them, without the secrets they hold.

    All keys stay, and every other value, so that checks judge them the same.

    :param value: maps, lists and plain values, as XAPI returns them. The
        values of the class ``secret`` are hidden as well.
    :param key: under which it stands.
    """
    if isinstance(value, collections.abc.Mapping):
        if key == 'secret':
            return {
                ref: {**without_secrets(record), 'value': HIDDEN}
                for ref, record in value.items()
            }
        return {name: without_secrets(v, name) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(each, key) for each in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if hides(key, value) else hide_fields(value)


def passwords_in(url: str | None) -> set[str]:
    """Return the passwords of a URL, which may name several servers.

    :param url: for example ``rabbit://a:secret@one,b:other@two/``.
    """
    written = set(_PASSWORD.findall(url or ''))
    return written | {urllib.parse.unquote(secret) for secret in written}


def visible(text: str, lines: bool = False) -> str:
    """Return ``text`` with all characters shown that a terminal would obey.

    Those are control characters, and those that turn the direction of
    writing; each becomes its escape, for example ``\\x1b``.

    :param text: what is going to be shown, whoever wrote it.
    :param lines: let line breaks be what they are.
    """
    obeyed = _OBEYED_IN_LINES if lines else _OBEYED
    return obeyed.sub(
        lambda found: found.group().encode('unicode_escape').decode(), text
    )


def _hide_in_url(url: str) -> str:
    """Return a URL without its passwords."""
    for pattern in (_FIRST_PASSWORD, _NEXT_PASSWORD):
        url = pattern.sub(rf"\g<1>{HIDDEN}@", url)
    return url


def _forms(secret: str) -> list[str]:
    """Return the spellings of a secret."""
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
    return sorted(forms)
