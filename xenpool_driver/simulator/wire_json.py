# Licensed under the Apache License, Version 2.0; see LICENSE.
"""JSON-RPC 1.0 and 2.0 as XAPI speaks them."""

from __future__ import annotations

import collections.abc
import functools
import json
import json.encoder
import math
import typing

from xenpool_driver.simulator import (
    database,
    datamodel,
    errors,
    json_reader,
    values,
)

V1, V2 = 1, 2
ERROR_CODE = 1
"""The number of every error of version 2 (api_server_common.ml)."""

Encoder = collections.abc.Callable[[typing.Any], str]

_quote = json.encoder.encode_basestring


def text(value: str) -> str:
    """Return ``value`` as a JSON string; only ASCII's controls escaped."""
    quoted: str = _quote(value)
    return quoted.replace('\x7f', '\\u007f')


def _int(value: typing.Any) -> str:
    return str(value)


def _bool(value: typing.Any) -> str:
    return 'true' if value else 'false'


def _float(value: typing.Any) -> str:
    """Return the number as Yojson writes it: always with point or e."""
    if not math.isfinite(value):
        return {math.inf: 'Infinity', -math.inf: '-Infinity'}.get(value, 'NaN')
    number = values.float_text(value, 16)
    if float(number) != value:
        number = values.float_text(value, 17)
    return number if set(number) & set('.e') else f'{number}.0'


def _void(value: typing.Any) -> str:
    return '""'


def _any(value: typing.Any) -> str:
    """Encode a value that says by itself what it is."""
    if value is None:
        return 'null'
    if isinstance(value, bool):
        return _bool(value)
    if isinstance(value, int):
        return _int(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return _map_encoder(_any)(value)
    return _set_encoder(_any)(value)


@functools.cache
def encoder(kind: datamodel.Type) -> Encoder:
    """Return what turns a value of type ``kind`` into JSON."""
    if kind.kind == 'set' and kind.of is not None:
        return _set_encoder(encoder(kind.of))
    if kind.kind == 'map' and kind.of is not None:
        return _map_encoder(encoder(kind.of))
    if kind.kind == 'record' and kind.name:
        return _record_encoder(kind.name)
    return _SIMPLE.get(kind.kind, text)


def _set_encoder(item: Encoder) -> Encoder:
    def encode(value: typing.Any) -> str:
        return f'[{",".join([item(one) for one in value])}]'

    return encode


def _map_encoder(item: Encoder) -> Encoder:
    def encode(value: typing.Any) -> str:
        inner = ','.join(
            [f'{text(str(key))}:{item(one)}' for key, one in value.items()]
        )
        return f'{{{inner}}}'

    return encode


def _record_encoder(cls: str) -> Encoder:
    known = datamodel.load().classes.get(cls)
    if known is None:
        return _map_encoder(_any)
    fields = {name: encoder(f.type) for name, f in known.fields.items()}

    def encode(value: typing.Any) -> str:
        inner = ','.join(
            [
                f'{text(name)}:{fields.get(name, _any)(one)}'
                for name, one in value.items()
            ]
        )
        return f'{{{inner}}}'

    return encode


def _batch(value: typing.Any) -> str:
    """Encode what event.from returns."""
    events = ','.join([event_json(event) for event in value['events']])
    return (
        f'{{"events":[{events}],'
        f'"valid_ref_counts":{_any(value["valid_ref_counts"])},'
        f'"token":{text(value["token"])}}}'
    )


def event_json(event: typing.Any) -> str:
    """Encode one event; its snapshot is a row, whose encoding is kept."""
    members = [
        f'"{name}":{text(event[name])}'
        for name in ('id', 'timestamp', 'class', 'operation', 'ref')
    ]
    if event.get('snapshot') is not None:
        members.append(f'"snapshot":{event["snapshot"].json()}')
    return f'{{{",".join(members)}}}'


_SIMPLE: dict[str, Encoder] = {
    'int': _int,
    'bool': _bool,
    'float': _float,
    'void': _void,
    'record': _any,
    'option': _any,
    'batch': _batch,
}


def row(cls: str, kept: database.Row) -> str:
    """Return the encoded record of a row; it is kept until it changes."""
    encoded: str | None = kept.cache.get('json')
    if encoded is None:
        cache = kept.cache
        encoded = encoder(datamodel.Type('record', name=cls))(kept.record)
        cache['json'] = encoded
    return encoded


class Request(typing.NamedTuple):
    """A call: which version of the protocol, its id, method, parameters."""

    version: int
    id: int | str
    method: str
    params: list[typing.Any]


def success(request: Request, encoded: str) -> str:
    """Return the answer that holds ``encoded``."""
    ident = _any(request.id)
    if request.version == V1:
        return f'{{"result":{encoded},"error":null,"id":{ident}}}'
    return f'{{"jsonrpc":"2.0","result":{encoded},"id":{ident}}}'


def refusal(request: Request, error: errors.ApiError) -> str:
    """Return the answer that refuses."""
    ident = _any(request.id)
    if request.version == V1:
        return f'{{"result":null,"error":{_any(error.details)},"id":{ident}}}'
    return (
        f'{{"jsonrpc":"2.0","error":{{"code":{ERROR_CODE},'
        f'"message":{text(error.code)},"data":{_any(list(error.params))}}},'
        f'"id":{ident}}}'
    )


def gate_refusal(error: errors.ApiError) -> str:
    """Return the refusal of a call that was not dispatched at all.

    It is of version 2 with the id 0, and its error is a plain array,
    whatever the caller spoke (api_server.ml, jsoncallback).
    """
    return f'{{"jsonrpc":"2.0","error":{_any(error.details)},"id":0}}'


def parse_call(body: bytes) -> Request:
    """Return the call in ``body``.

    :raises json_reader.Malformed: with the text that XAPI shows.
    """
    call = json_reader.parse(body)
    if not isinstance(call, dict):
        raise _bad('Invalid request body')
    if 'method' not in call:
        raise _bad('Required field method is missing')
    method = call['method']
    if not isinstance(method, str):
        raise _bad("Invalid field 'method' in request body")
    version = _version(call)
    params = _params(call, version)
    return Request(version, _ident(call), method, params)


def _version(call: dict[str, typing.Any]) -> int:
    if 'jsonrpc' not in call:
        return V1
    if call['jsonrpc'] == '2.0':
        return V2
    raise _bad("Invalid field 'jsonrpc' in request body")


def _params(call: dict[str, typing.Any], version: int) -> list[typing.Any]:
    if version == V1 and 'params' not in call:
        raise _bad('Required field params is missing')
    params = call.get('params')
    if isinstance(params, list):
        return params
    if version == V2 and params is None:
        return []
    if version == V2 and isinstance(params, dict):
        return [params]
    raise _bad("Invalid field 'params' in request body")


def _ident(call: dict[str, typing.Any]) -> int | str:
    ident = call.get('id')
    if isinstance(ident, (int, str)) and not isinstance(ident, bool):
        return ident
    raise _bad("Invalid field 'id' in request body")


def _bad(text: str) -> json_reader.Malformed:
    return json_reader.Malformed(
        f'Jsonrpc.Malformed_method_request({values.quote(text)})'
    )
