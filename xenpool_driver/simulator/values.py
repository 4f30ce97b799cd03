# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Values on their way in: from what the wire carried to typed arguments.

Both encodings are decoded to the same few Python types: int, float, bool,
str, :class:`DateTime`, list, dict and None. :func:`coerce` makes of them
what the data model demands, and refuses as XAPI does: the texts are those of
the code that XAPI's build generates for its types (``ocaml/idl/ocaml_backend/
gen_api.ml`` and ocaml-rpc's ``rpc.ml``), as recorded.
"""

from __future__ import annotations

import collections.abc
import re
import typing

from xenpool_driver.simulator import datamodel, errors

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class DateTime(str):
    """A text that came as ``<dateTime.iso8601>``."""

    __slots__ = ()


def failure(text: str) -> errors.ApiError:
    """Return the answer to an OCaml ``Failure`` that nobody caught."""
    return errors.internal_error(f'Failure({quote(text)})')


def quote(text: str) -> str:
    """Return ``text`` as OCaml prints a string: in quotes, escaped."""
    out = ['"']
    for byte in text.encode('utf-8', 'surrogateescape'):
        char = chr(byte)
        if char in '"\\':
            out.append(f'\\{char}')
        elif char in _OCAML_ESCAPES:
            out.append(_OCAML_ESCAPES[char])
        elif 0x20 <= byte < 0x7F:
            out.append(char)
        else:
            out.append(f'\\{byte:03d}')
    return ''.join(out) + '"'


_OCAML_ESCAPES = {'\n': '\\n', '\t': '\\t', '\r': '\\r', '\b': '\\b'}


def dump(value: typing.Any) -> str:
    """Return ``value`` as XAPI shows it in its complaints."""
    if value is None:
        return 'N'
    if isinstance(value, bool):
        return f'B({str(value).lower()})'
    if isinstance(value, int):
        return f'I({value})'
    if isinstance(value, float):
        return f'F({float_text(value, 6)})'
    if isinstance(value, DateTime):
        return f'D({value})'
    if isinstance(value, str):
        return f'S({value})'
    if isinstance(value, list):
        return f'[{";".join(dump(item) for item in value)}]'
    items = ';'.join(f'{key}:{dump(item)}' for key, item in value.items())
    return f'{{{items}}}'


def float_text(value: float, digits: int) -> str:
    """Return ``value`` as C's ``%.<digits>g`` prints it."""
    return format(value, f'.{digits}g')


_INTEGER = re.compile(
    r'[-+]?(0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|0u[0-9_]+|[0-9][0-9_]*)'
)


def int_of_text(text: str) -> int:
    """Return the integer that OCaml's ``Int64.of_string`` reads.

    :raises ValueError: when it reads none.
    """
    if not _INTEGER.fullmatch(text):
        raise ValueError('Int64.of_string')
    sign = -1 if text.startswith('-') else 1
    digits = text.lstrip('+-').replace('_', '')
    base = {'x': 16, 'o': 8, 'b': 2}.get(digits[1:2].lower(), 10)
    if digits[1:2] == 'u':
        digits = digits[2:]
    try:
        number = int(digits, base)
    except ValueError:
        raise ValueError('Int64.of_string') from None
    if base != 10 and number <= 2 * INT64_MAX + 1:
        number = number - 2**64 if number > INT64_MAX else number
    number *= sign
    if not INT64_MIN <= number <= INT64_MAX:
        raise ValueError('Int64.of_string')
    return number


def float_of_text(text: str) -> float:
    """Return the number that OCaml's ``float_of_string`` reads.

    :raises ValueError: when it reads none.
    """
    cleaned = text.replace('_', '')
    try:
        if cleaned != cleaned.strip():
            raise ValueError
        if cleaned.lower().lstrip('+-').startswith('0x'):
            return float.fromhex(cleaned)
        return float(cleaned)
    except ValueError:
        raise ValueError('float_of_string') from None


_DATE = re.compile(
    r'(\d{4})-?(\d\d)-?(\d\d)[T ](\d\d):?(\d\d):?(\d\d)(?:\.\d*)?'
    r'(Z|[-+]\d\d:?\d\d)?',
)


def datetime_of_text(text: str) -> str:
    """Return a date in the one form that the database keeps.

    :raises ApiError: INTERNAL_ERROR for what is no date.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise errors.internal_error(
            f'Invalid argument: Clock__Date.of_iso8601: {text}'
        )
    year, month, day, hour, minute, second, _ = match.groups()
    return f'{year}{month}{day}T{hour}:{minute}:{second}Z'


def coerce(kind: datamodel.Type, value: typing.Any) -> typing.Any:
    """Return ``value`` as an argument of type ``kind``.

    :raises ApiError: INTERNAL_ERROR with XAPI's text when it is none.
    """
    return _COERCERS[kind.kind](kind, value)


def _string(kind: datamodel.Type, value: typing.Any) -> str:
    if type(value) is str:
        return value
    raise failure(f"Expected string, got '{dump(value)}'")


def _int(kind: datamodel.Type, value: typing.Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if type(value) is str:
        try:
            return int_of_text(value)
        except ValueError as error:
            raise failure(str(error)) from None
    raise failure(f"Expected int64, got '{dump(value)}'")


def _float(kind: datamodel.Type, value: typing.Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is str:
        try:
            return float_of_text(value)
        except ValueError as error:
            raise failure(str(error)) from None
    raise failure(f"Expected float, got '{dump(value)}'")


def _bool(kind: datamodel.Type, value: typing.Any) -> bool:
    if isinstance(value, bool):
        return value
    raise failure(f"Expected bool, got '{dump(value)}'")


def _datetime(kind: datamodel.Type, value: typing.Any) -> str:
    if isinstance(value, str):
        return datetime_of_text(value)
    raise failure('Date.t_of_rpc')


def _enum(kind: datamodel.Type, value: typing.Any) -> str:
    """Return the name of an enum's value; XAPI ignores its case."""
    names = _enum_names(kind.name)
    if isinstance(value, str) and value.lower() in names:
        return names[value.lower()]
    raise failure('Unknown tag/contents')


_ENUM_NAMES: dict[str, dict[str, str]] = {}


def _enum_names(name: str) -> dict[str, str]:
    names = _ENUM_NAMES.get(name)
    if names is None:
        values = datamodel.load().enums.get(name, frozenset())
        names = _ENUM_NAMES[name] = {item.lower(): item for item in values}
    return names


def _set(kind: datamodel.Type, value: typing.Any) -> list[typing.Any]:
    if isinstance(value, list) and kind.of is not None:
        return [coerce(kind.of, item) for item in value]
    raise failure(f"Expecting Rpc.Enum, but found '{dump(value)}'")


def _map(
    kind: datamodel.Type, value: typing.Any
) -> dict[typing.Any, typing.Any]:
    key_type, value_type = datamodel.map_types(kind)
    if not isinstance(value, dict):
        if key_type.kind == 'int':
            raise failure('Unmarshalling error')
        raise failure(f"Expecting Rpc.Dict, but found '{dump(value)}'")
    return {
        coerce(key_type, key): coerce(value_type, item)
        for key, item in value.items()
    }


def _record(kind: datamodel.Type, value: typing.Any) -> dict[str, typing.Any]:
    """Return a constructor's struct; absent fields get their defaults.

    Unknown members are ignored (gen_server.ml, from_ctor_record).
    """
    if not isinstance(value, dict):
        raise failure('bad __structure')
    out = {}
    for field in datamodel.load().classes[kind.name].fields.values():
        if field.qualifier == 'DynamicRO' or field.name == 'uuid':
            continue
        if field.name in value:
            out[field.name] = coerce(field.type, value[field.name])
        elif field.default is datamodel.MISSING:
            raise errors.internal_error(
                f'Server_helpers.Dispatcher_FieldNotFound("{field.name}")'
            )
        else:
            out[field.name] = datamodel.default_of(field)
    return out


def _option(kind: datamodel.Type, value: typing.Any) -> typing.Any:
    if value is None or value == [] or kind.of is None:
        return None
    inner = value[0] if isinstance(value, list) else value
    return coerce(kind.of, inner)


_Coercer = collections.abc.Callable[[datamodel.Type, typing.Any], typing.Any]

_COERCERS: dict[str, _Coercer] = {
    'string': _string,
    'ref': _string,
    'int': _int,
    'float': _float,
    'bool': _bool,
    'datetime': _datetime,
    'enum': _enum,
    'set': _set,
    'map': _map,
    'record': _record,
    'option': _option,
}

_UNSTORABLE = re.compile(
    '[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]'
)


def check_storable(value: typing.Any) -> None:
    """Refuse what the database cannot hold: what XML cannot hold.

    :raises ApiError: INTERNAL_ERROR [Db_exn.Invalid_value] (recorded).
    """
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise errors.internal_error('Db_exn.Invalid_value')
    elif isinstance(value, list):
        for item in value:
            check_storable(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_storable(key)
            check_storable(item)
