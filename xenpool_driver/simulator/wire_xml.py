# Licensed under the Apache License, Version 2.0; see LICENSE.
"""XML-RPC as XAPI speaks it.

What goes out: strings and integers untyped, ``dateTime.iso8601``,
``double``, ``boolean``, arrays and structs; ``i4`` for the counts of
event.from only. What comes in is read in two ways: a quick one for the plain
calls that clients send all day, and :mod:`~xenpool_driver.simulator.
xml_reader` for all else, which knows how XAPI words its complaints.
"""

from __future__ import annotations

import collections.abc
import functools
import re
import typing

from xenpool_driver.simulator import (
    database,
    datamodel,
    errors,
    values,
    xml_reader,
)

HEAD = (
    '<?xml version="1.0"?><methodResponse><params><param><value><struct>'
    '<member><name>Status</name><value>'
)
SUCCESS = f'{HEAD}Success</value></member><member><name>Value</name>'
FAILURE = (
    f'{HEAD}Failure</value></member><member><name>ErrorDescription</name>'
)
TAIL = '</member></struct></value></param></params></methodResponse>'

_SPECIAL = re.compile('[&<>"\x00-\x08\x0b\x0c\x0e-\x1f]')
_ESCAPES = {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'}

Encoder = collections.abc.Callable[[typing.Any], str]


def text(value: str) -> str:
    """Return ``value`` escaped; control characters are dropped."""
    if _SPECIAL.search(value) is None:
        return value
    return _SPECIAL.sub(lambda m: _ESCAPES.get(m.group(), ''), value)


@functools.cache
def encoder(kind: datamodel.Type) -> Encoder:
    """Return what turns a value of type ``kind`` into ``<value>``."""
    if kind.kind == 'set' and kind.of is not None:
        return _set_encoder(encoder(kind.of))
    if kind.kind == 'map' and kind.of is not None:
        return _map_encoder(encoder(kind.of))
    if kind.kind == 'record' and kind.name:
        return _record_encoder(kind.name)
    return _SIMPLE.get(kind.kind, _string)


def _string(value: typing.Any) -> str:
    return f'<value>{text(value)}</value>'


def _int(value: typing.Any) -> str:
    return f'<value>{value}</value>'


def _bool(value: typing.Any) -> str:
    return f'<value><boolean>{1 if value else 0}</boolean></value>'


def _float(value: typing.Any) -> str:
    number = values.float_text(value, 16)
    return f'<value><double>{number}</double></value>'


def _datetime(value: typing.Any) -> str:
    return f'<value><dateTime.iso8601>{value}</dateTime.iso8601></value>'


def _void(value: typing.Any) -> str:
    return '<value></value>'


def _any(value: typing.Any) -> str:
    """Encode a value that says by itself what it is."""
    if value is None:
        return '<value><nil/></value>'
    if isinstance(value, bool):
        return _bool(value)
    if isinstance(value, int):
        return _int(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        return _map_encoder(_any)(value)
    return _set_encoder(_any)(value)


def _i4(value: typing.Any) -> str:
    return f'<value><i4>{value}</i4></value>'


def _set_encoder(item: Encoder) -> Encoder:
    def encode(value: typing.Any) -> str:
        inner = ''.join([item(one) for one in value])
        return f'<value><array><data>{inner}</data></array></value>'

    return encode


def _map_encoder(item: Encoder) -> Encoder:
    def encode(value: typing.Any) -> str:
        inner = ''.join(
            [_member(str(key), item(one)) for key, one in value.items()]
        )
        return f'<value><struct>{inner}</struct></value>'

    return encode


def _record_encoder(cls: str) -> Encoder:
    known = datamodel.load().classes.get(cls)
    if known is None:
        return _map_encoder(_any)
    fields = {name: encoder(f.type) for name, f in known.fields.items()}

    def encode(value: typing.Any) -> str:
        inner = ''.join(
            [
                _member(name, fields.get(name, _any)(one))
                for name, one in value.items()
            ]
        )
        return f'<value><struct>{inner}</struct></value>'

    return encode


def _member(name: str, value: str) -> str:
    return f'<member><name>{text(name)}</name>{value}</member>'


def _batch(value: typing.Any) -> str:
    """Encode what event.from returns."""
    events = ''.join([event_xml(event) for event in value['events']])
    counts = _map_encoder(_i4)(value['valid_ref_counts'])
    events = f'<value><array><data>{events}</data></array></value>'
    return (
        f'<value><struct>{_member("events", events)}'
        f'{_member("valid_ref_counts", counts)}'
        f'{_member("token", _string(value["token"]))}</struct></value>'
    )


def event_xml(event: typing.Any) -> str:
    """Encode one event; its snapshot is a row, whose encoding is kept."""
    members = [
        _member(name, _string(event[name]))
        for name in ('id', 'timestamp', 'class', 'operation', 'ref')
    ]
    if event.get('snapshot') is not None:
        members.append(_member('snapshot', event['snapshot'].xml()))
    return f'<value><struct>{"".join(members)}</struct></value>'


_SIMPLE: dict[str, Encoder] = {
    'int': _int,
    'bool': _bool,
    'float': _float,
    'datetime': _datetime,
    'void': _void,
    'record': _any,
    'option': _any,
    'batch': _batch,
}


def row(cls: str, kept: database.Row) -> str:
    """Return the encoded record of a row; it is kept until it changes."""
    encoded: str | None = kept.cache.get('xml')
    if encoded is None:
        cache = kept.cache
        encoded = _record_encoder_of(cls)(kept.record)
        cache['xml'] = encoded
    return encoded


@functools.cache
def _record_encoder_of(cls: str) -> Encoder:
    return encoder(datamodel.Type('record', name=cls))


def success(encoded: str) -> str:
    """Return the answer that holds ``encoded``, a ``<value>``."""
    return f'{SUCCESS}{encoded}{TAIL}'


def refusal(error: errors.ApiError) -> str:
    """Return the answer that refuses."""
    return f'{FAILURE}{_set_encoder(_string)(error.details)}{TAIL}'


def bare(encoded: str) -> str:
    """Return the answer of system.listMethods: no Status around it."""
    return (
        f'<?xml version="1.0"?><methodResponse><params><param>{encoded}'
        '</param></params></methodResponse>'
    )


_S = r'[ \t\n]*'
_START = re.compile(
    rf'(?:<\?xml version=(?:\'1\.0\'|"1\.0")\?>)?{_S}<methodCall>{_S}'
    rf'<methodName>([A-Za-z0-9_.]+)</methodName>{_S}<params>{_S}'
)
_PARAM = re.compile(
    rf'<param>{_S}<value>(?:<string>([^<&\]\x00-\x08\x0b-\x1f]+)</string>'
    rf'|([^<&\]\x00-\x1f]*[^<&\]\x00-\x20]))</value>{_S}</param>{_S}'
)
_END = re.compile(rf'</params>{_S}</methodCall>{_S}')


def parse_call(body: bytes) -> tuple[str, list[typing.Any]]:
    """Return the name of the method and its parameters.

    :raises xml_reader.Malformed: with the text that XAPI shows.
    """
    quick = _quick(body)
    return xml_reader.parse_call(body) if quick is None else quick


def _quick(body: bytes) -> tuple[str, list[typing.Any]] | None:
    """Read a call of plain string parameters, None for any other."""
    try:
        whole = body.decode('ascii')
    except UnicodeDecodeError:
        return None
    start = _START.match(whole)
    if start is None:
        return None
    position = start.end()
    params: list[typing.Any] = []
    while (match := _PARAM.match(whole, position)) is not None:
        params.append(match.group(1) or match.group(2))
        position = match.end()
    if _END.fullmatch(whole, position) is None:
        return None
    return start.group(1), params
