# Licensed under the Apache License, Version 2.0; see LICENSE.
"""XAPI's data model: classes, fields, messages, roles, errors.

The facts come from ``data/datamodel.json.gz`` (made by
``tools/make_datamodel.py``); this file gives them types.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import gzip
import importlib.resources
import json
import typing

MISSING: typing.Final = object()
"""Stands for 'no default'."""

ENUM = 'enum'
LOCAL_ROOT_ONLY = 'local-root-only'


@dataclasses.dataclass(frozen=True)
class Type:
    """The type of a field, parameter or result.

    :ivar kind: string, int, float, bool, datetime, void, ref, record, enum,
        set, map, option, or 'batch' for the result of event.from.
    :ivar name: the class of a ref or record, the name of an enum.
    :ivar of: what a set or option holds, the values of a map.
    :ivar key: the keys of a map.
    """

    kind: str
    name: str = ''
    of: Type | None = None
    key: Type | None = None


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a class.

    :ivar qualifier: RW, StaticRO (set at creation only) or DynamicRO.
    """

    name: str
    type: Type
    qualifier: str
    default: typing.Any = MISSING
    persisted: bool = True


@dataclasses.dataclass(frozen=True)
class Param:
    """A parameter of a message; ``default`` is MISSING when demanded."""

    name: str
    type: Type
    default: typing.Any = MISSING


@dataclasses.dataclass(frozen=True)
class Message:
    """A message of a class.

    :ivar origin: custom, ctor, dtor, get_record, field-getter and so on.
    :ivar params: without the session.
    :ivar async_: whether ``Async.`` may precede its name.
    :ivar roles: the roles that may send it; empty: local root and pool
        sessions only; None: anybody.
    :ivar session: whether a session comes first on the wire.
    :ivar pool_internal: only for sessions that know the pool secret.
    :ivar lifecycle: published, prototyped, deprecated or removed.
    """

    cls: str
    name: str
    origin: str
    params: tuple[Param, ...]
    result: Type
    roles: frozenset[str] | None
    async_: bool = False
    session: bool = True
    pool_internal: bool = False
    hidden: bool = False
    lifecycle: str = 'published'

    @functools.cached_property
    def wire_name(self) -> str:
        """``class.message``."""
        return f'{self.cls}.{self.name}'

    @functools.cached_property
    def required(self) -> int:
        """How many parameters have no default."""
        return sum(param.default is MISSING for param in self.params)

    @functools.cached_property
    def has_defaults(self) -> bool:
        """Whether any parameter has a default (surplus is then ignored)."""
        return self.required < len(self.params)


@dataclasses.dataclass(frozen=True)
class Class:
    """A class: a table of the database, or a group of messages."""

    name: str
    in_database: bool
    persisted: bool
    emits_events: bool
    enums: dict[str, tuple[str, ...]]
    fields: dict[str, Field]
    messages: dict[str, Message]


@dataclasses.dataclass(frozen=True)
class Relation:
    """``cls.field`` (one or many) and ``other.back`` (many) are one fact."""

    cls: str
    field: str
    other: str
    back: str


@dataclasses.dataclass(frozen=True)
class DataModel:
    """All that is known of XAPI's classes."""

    api_version: str
    classes: dict[str, Class]
    enums: dict[str, frozenset[str]]
    errors: dict[str, tuple[str, ...]]
    relations: tuple[Relation, ...]
    emergency_calls: frozenset[str]
    event_classes: frozenset[str]
    pool_blocking_operations: dict[str, str]
    pool_waiting_operations: frozenset[str]
    removed_classes: frozenset[str]
    messages: dict[str, Message]
    """By ``class.message``."""
    aliases: dict[str, str]
    """``class_message`` -> ``class.message``."""

    @functools.cached_property
    def by_lower_case(self) -> dict[str, Class]:
        """The classes by their names in lower case, as events say them."""
        return {name.lower(): cls for name, cls in self.classes.items()}


@functools.cache
def parse_type(text: str) -> Type:
    """Return the type that ``text`` describes.

    :raises ValueError: for text that describes none.
    """
    text = text.strip()
    if text.startswith('event batch'):
        return Type('batch')
    if text == '<class> record':
        return Type('record')
    for suffix, kind in ((' set', 'set'), (' option', 'option')):
        if text.endswith(suffix):
            return Type(kind, of=parse_type(text[: -len(suffix)]))
    if text.endswith(' map'):
        return _parse_map(text[1 : -len(') map')])
    if text.startswith('enum '):
        return Type(ENUM, name=text.removeprefix('enum '))
    for suffix in ('ref', 'record'):
        if text.endswith(f' {suffix}'):
            return Type(suffix, name=text[: -len(suffix) - 1])
    if text in ('string', 'int', 'float', 'bool', 'datetime', 'void'):
        return Type(text)
    raise ValueError(f'unknown type {text!r}')


def _parse_map(text: str) -> Type:
    key, _, value = text.partition(' -> ')
    return Type('map', key=parse_type(key), of=parse_type(value))


def map_types(kind: Type) -> tuple[Type, Type]:
    """Return the types of the keys and the values of a map.

    :raises ValueError: when ``kind`` is no map.
    """
    if kind.key is None or kind.of is None:
        raise ValueError(f'{kind} is no map')
    return kind.key, kind.of


def zero(kind: Type) -> typing.Any:
    """Return the value that a field of type ``kind`` has by default."""
    makers: dict[str, collections.abc.Callable[[], typing.Any]] = {
        'int': int,
        'float': float,
        'bool': bool,
        'set': list,
        'map': dict,
        'ref': lambda: 'OpaqueRef:NULL',
        'datetime': lambda: '19700101T00:00:00Z',
    }
    return makers.get(kind.kind, str)()


def default_of(field: Field) -> typing.Any:
    """Return a fresh default of ``field``."""
    if field.default is MISSING:
        return zero(field.type)
    if field.type.kind == 'datetime':
        return field.default.replace('-', '')
    if isinstance(field.default, (list, dict)):
        return field.default.copy()
    return field.default


def _message(
    cls: str, raw: dict[str, typing.Any], roles: list[frozenset[str] | None]
) -> Message:
    params = tuple(
        Param(p['name'], parse_type(p['type']), p.get('default', MISSING))
        for p in raw['params']
    )
    return Message(
        cls=cls,
        name=raw['name'],
        origin=raw['origin'],
        params=params,
        result=parse_type(raw['result']),
        roles=roles[raw['roles']],
        async_=raw.get('async', False),
        session=raw.get('session', True),
        pool_internal=raw.get('pool_internal', False),
        hidden=raw.get('hidden', False),
        lifecycle=raw.get('state', 'published'),
    )


def _class(
    name: str, raw: dict[str, typing.Any], roles: list[frozenset[str] | None]
) -> Class:
    fields = {
        f['name']: Field(
            name=f['name'],
            type=parse_type(f['type']),
            qualifier=f['qualifier'],
            default=f.get('default', MISSING),
            persisted=not f.get('volatile', False),
        )
        for f in raw['fields']
    }
    messages = {m['name']: _message(name, m, roles) for m in raw['messages']}
    enums = {enum: tuple(values) for enum, values in raw['enums'].items()}
    return Class(
        name=name,
        in_database=raw['in_database'],
        persisted=raw['persisted'],
        emits_events=raw['events'],
        enums=enums,
        fields=fields,
        messages=messages,
    )


def _role_set(raw: str | list[str] | None) -> frozenset[str] | None:
    if raw is None:
        return None
    return frozenset() if raw == LOCAL_ROOT_ONLY else frozenset(raw)


@functools.cache
def load() -> DataModel:
    """Return the data model; it is read once per process."""
    resource = importlib.resources.files('xenpool_driver.simulator')
    packed = (resource / 'data' / 'datamodel.json.gz').read_bytes()
    raw = json.loads(gzip.decompress(packed))
    roles = [_role_set(item) for item in raw['roles']]
    classes = {
        name: _class(name, item, roles)
        for name, item in raw['classes'].items()
    }
    messages = {
        message.wire_name: message
        for cls in classes.values()
        for message in cls.messages.values()
    }
    return DataModel(
        api_version=raw['api_version'],
        classes=classes,
        enums={
            enum: frozenset(values)
            for cls in classes.values()
            for enum, values in cls.enums.items()
        },
        errors={code: tuple(p) for code, p in raw['errors'].items()},
        relations=tuple(Relation(*item) for item in raw['relations']),
        emergency_calls=frozenset(raw['emergency_calls']),
        event_classes=frozenset(raw['event_classes']),
        pool_blocking_operations=raw['pool_blocking_operations'],
        pool_waiting_operations=frozenset(raw['pool_waiting_operations']),
        removed_classes=frozenset(raw['removed_classes']),
        messages=messages,
        aliases={name.replace('.', '_', 1): name for name in messages},
    )
