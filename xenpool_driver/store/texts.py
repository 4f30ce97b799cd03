# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Which texts the database is given. Checked before anything is written, so
that every database answers alike (SQLite takes any length, PostgreSQL no NUL,
MariaDB takes ``a`` and ``a `` for one key)."""

from __future__ import annotations

import re

from xenpool_driver import exceptions

MAX_LENGTH = 255
"""Characters that a name, a key or a value may have, as in Nova."""

_UUID = re.compile('[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}', re.I)
_HYPHENS = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', re.I)


def aggregate_name(name: object, foreign: bool = False) -> str:
    """Return ``name`` if an aggregate may be called so.

    A command finds an aggregate by its name, its id or its uuid; a name that
    looks like one of the others would some day hit the wrong aggregate.

    :param foreign: another service gave the name: its looks are not ours to
        judge.
    :raises InvalidText: it may not.
    """
    text = line('aggregate name', name)
    if not foreign and text.isascii() and text.isdigit():
        raise exceptions.InvalidText(
            f"aggregate name '{text}' would be taken for an id; "
            f"choose a name with a letter in it"
        )
    if not foreign and text.startswith('-'):
        raise exceptions.InvalidText(
            f"aggregate name '{text}' would be taken for an option by every "
            f"command; choose a name that does not begin with a hyphen"
        )
    if not foreign and _UUID.fullmatch(text):
        raise exceptions.InvalidText(
            f"aggregate name '{text}' would be taken for a uuid; "
            f"choose another name"
        )
    return text


def line(what: str, text: object, longest: int = MAX_LENGTH) -> str:
    """Return ``text`` if it can be a name or a key.

    :param what: what it is, for the error.
    :param longest: in characters.
    :raises InvalidText: it is empty or too long, begins or ends with white
        space, or holds an unprintable character.
    """
    checked = value(what, text, longest)
    if not checked:
        raise exceptions.InvalidText(f"{what} is empty")
    if checked != checked.strip():
        raise exceptions.InvalidText(
            f"{what} {checked!r} begins or ends with white space"
        )
    if not checked.isprintable():
        raise exceptions.InvalidText(
            f"{what} {checked!r} holds an unprintable character"
        )
    return checked


def value(what: str, text: object, longest: int = MAX_LENGTH) -> str:
    """Return ``text`` if every database can hold it.

    :raises InvalidText: it is no text, too long, or not to be stored.
    """
    if not isinstance(text, str):
        raise exceptions.InvalidText(
            f"{what} must be text, not {type(text).__name__}"
        )
    if len(text) > longest:
        raise exceptions.InvalidText(
            f"{what} '{text[:20]}...' has {len(text)} characters; at most "
            f"{longest} can be stored"
        )
    if '\0' in text or prose(text) != text:
        raise exceptions.InvalidText(
            f"{what} {text!r} holds a character that cannot be stored"
        )
    return text


def prose(text: str) -> str:
    """Return ``text`` as every database can hold it, whatever is in it.

    For the words of others (an error, a note): they must never keep an
    operation from being ended.
    """
    return text.replace('\0', '�').encode('utf-8', 'replace').decode()


def canonical_uuid(ident: str) -> str:
    """Return ``ident`` in lower case if it looks like a uuid."""
    return ident.lower() if _HYPHENS.fullmatch(ident) else ident
