# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a reply must look like before anybody relies on it.

A host that is broken, or not what it seems, may answer anything that its
protocol can carry. It is looked at here, once per call, by the name of the
call: nobody further on meets a map where XAPI sends a text. The types are
those of XAPI's data model; the fields of records are looked at where they
are parsed.
"""

from __future__ import annotations

import collections.abc
import ipaddress
import re
import typing
import xmlrpc.client

MAX_DEPTH = 32
"""How deep a reply may be nested. XAPI's deepest, ``event.from``, has 5."""

MAX_SHOWN = 2000
"""How many characters of one text of a host a message may hold."""

_ON_THE_WIRE = (
    *(str, bool, int, float, dict, list, tuple, type(None)),
    *(xmlrpc.client.DateTime, xmlrpc.client.Binary),
)
"""What the two protocols can carry. Whoever puts something else in the place
of ``XenAPI.Session``, as tests do, may return what they like."""

_NAME = re.compile(r'(?=.{1,254}$)[\w-]{1,63}(\.[\w-]{1,63})*\.?', re.ASCII)


class OddReply(Exception):
    """A reply is none of XAPI's. It never leaves this package.

    :ivar why: what is odd about it, in words of ours.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class TooLarge(Exception):
    """A reply is larger than it may be. It never leaves this package.

    :ivar limit: how many MiB it may have.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"more than {limit} MiB")


def checked(method: str, value: typing.Any) -> typing.Any:
    """Return the reply to a call.

    :param method: the call, for example ``pool.get_all``.
    :param value: the reply.
    :raises OddReply: XAPI would not reply so to this call.
    """
    if type(value) is not str:
        _measure(value, MAX_DEPTH)
    return typed(method, value)


def typed(method: str, value: typing.Any) -> typing.Any:
    """Return the reply to a call, however deep it is nested.

    :param method: the call.
    :param value: the reply.
    :raises OddReply: XAPI would not reply so to this call.
    """
    kind = _kind(method)
    if (
        kind is not None
        and isinstance(value, _ON_THE_WIRE)
        and not kind.fits(value)
    ):
        raise OddReply(f"the reply to {method} is no {kind.name}")
    return value


def too_deep() -> OddReply:
    """Return what is raised about a reply that is nested too deep."""
    return OddReply(f"the reply is nested more than {MAX_DEPTH} levels deep")


def details(found: object) -> list[str]:
    """Return code and parameters of an error.

    :param found: what came in their place.
    :raises OddReply: XAPI would not send this.
    """
    if isinstance(found, list | tuple) and all(
        isinstance(part, str | int | float) for part in found
    ):
        return [short(str(part)) for part in found]
    raise OddReply('the error is no list of texts')


def is_address(text: str) -> bool:
    """Say whether a text is an address or name to connect to.

    :param text: what a host calls an address.
    """
    try:
        ipaddress.ip_address(text.strip('[]').partition('%')[0])
    except ValueError:
        return bool(_NAME.fullmatch(text))
    return bool(re.fullmatch(r'[\[\]0-9A-Za-z.:]+(%[\w.-]+)?\]?', text))


def short(text: str) -> str:
    """Return a text of a host, cut where no reader would follow."""
    if len(text) <= MAX_SHOWN:
        return text
    return f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


class _Kind(typing.NamedTuple):
    """A type of XAPI's.

    :ivar name: how messages call it.
    :ivar fits: says whether a value is of this type.
    """

    name: str
    fits: collections.abc.Callable[[typing.Any], bool]


def _is_map_of(kind: type) -> collections.abc.Callable[[typing.Any], bool]:
    return lambda value: (
        isinstance(value, dict)
        and all(isinstance(item, kind) for item in value.values())
    )


_TEXT = _Kind('text', lambda value: isinstance(value, str))
_TRUTH = _Kind('truth value', lambda value: isinstance(value, bool))
_TEXTS = _Kind(
    'list of texts',
    lambda value: (
        isinstance(value, list | tuple)
        and all(isinstance(item, str) for item in value)
    ),
)
_RECORD = _Kind('record', lambda value: isinstance(value, dict))
_RECORDS = _Kind('map of records', _is_map_of(dict))
_STRINGS = _Kind('map of texts', _is_map_of(str))
_LISTS = _Kind('map of lists', _is_map_of(list))

_KINDS: collections.abc.Mapping[str, _Kind] = {
    'event.from': _RECORD,
    'get_SR': _TEXT,
    'get_all': _TEXTS,
    'get_all_records': _RECORDS,
    'get_all_records_where': _RECORDS,
    'get_by_uuid': _TEXT,
    'get_live': _TRUTH,
    'get_name_label': _TEXT,
    'get_other_config': _STRINGS,
    'get_record': _RECORD,
    'get_tasks': _TEXTS,
    'get_this_host': _TEXT,
    'get_uuid': _TEXT,
    'get_vms_which_prevent_evacuation': _LISTS,
    'is_in_emergency_mode': _TRUTH,
}
"""Call, or its last part, -> what it returns. Of others only the depth of
the reply is looked at."""


def _kind(method: str) -> _Kind | None:
    if method.startswith('Async.'):
        return _TEXT  # the reference of a task
    return _KINDS.get(method) or _KINDS.get(method.rpartition('.')[2])


def _measure(value: typing.Any, left: int) -> None:
    """Make sure that a value is nested no deeper than ``left``."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    if not left:
        raise too_deep()
    for item in value:
        if type(item) is not str:
            _measure(item, left - 1)
