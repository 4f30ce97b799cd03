# Licensed under the Apache License, Version 2.0; see LICENSE.
"""One raw XAPI record, read field by field.

The same field looks different on each wire: over XML-RPC an integer is text
('1500'), over JSON-RPC a number; a null reference is the text
``OpaqueRef:NULL``; a date is an ``xmlrpc.client.DateTime`` or text. It is
parsed here, once. A field that an older XAPI does not have gets XAPI's own
default; one that is there but makes no sense is an error that names class,
reference and field.
"""

from __future__ import annotations

import collections.abc
import datetime
import types
import typing

from xenpool_driver import exceptions

NULL_REF = 'OpaqueRef:NULL'
"""How XAPI writes that there is no object."""

MAX_SHOWN = 100
"""How many characters of a value that makes no sense are shown."""


class MalformedRecords(exceptions.ConfigurationError):
    """Records are not what XAPI returns.

    :param cls: the class, or '' when it is not about one.
    :param ref: the reference, or ''.
    :param field: the field, or ''.
    :param reason: what is wrong with it.
    """

    def __init__(self, cls: str, ref: str, field: str, reason: str) -> None:
        self.cls = cls
        self.ref = ref
        self.field = field
        self.reason = reason
        where = ' '.join(part for part in (cls, ref, field) if part)
        super().__init__(f"{where}: {reason}" if where else reason)

    def __reduce__(self) -> tuple[typing.Any, ...]:
        return type(self), (self.cls, self.ref, self.field, self.reason)


class Struct:
    """One raw record.

    :param cls: its class.
    :param ref: its reference.
    :param record: the struct, as ``get_record`` returns it.
    :raises MalformedRecords: it is no struct, or has no uuid.
    """

    def __init__(self, cls: str, ref: str, record: object) -> None:
        if not isinstance(record, collections.abc.Mapping):
            raise MalformedRecords(cls, ref, '', 'the record is no struct')
        self.cls = cls
        self.ref = ref
        self.record = record
        if 'uuid' not in record:
            raise self._wrong('uuid', 'is missing')
        self.uuid = self.text('uuid')

    def _odd(self, field: str, value: object, what: str) -> MalformedRecords:
        """Return the error about a value, shown as far as anybody reads."""
        shown = repr(value)
        if len(shown) > MAX_SHOWN:
            shown = f"{shown[:MAX_SHOWN]}..."
        return self._wrong(field, f"{shown} {what}")

    def _wrong(self, field: str, reason: str) -> MalformedRecords:
        return MalformedRecords(self.cls, self.ref, field, reason)

    def text(self, field: str, default: str = '') -> str:
        """Return a text."""
        value = self.record.get(field, default)
        if not isinstance(value, str):
            raise self._odd(field, value, 'is no text')
        return value

    def flag(self, field: str, default: bool = False) -> bool:
        """Return a truth value."""
        value = self.record.get(field, default)
        if not isinstance(value, bool):
            raise self._odd(field, value, 'is neither true nor false')
        return value

    def number(self, field: str, default: int = 0) -> int:
        """Return an integer, whatever it came as."""
        return self._as_int(field, self.record.get(field, default))

    def _as_int(self, field: str, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str):
            try:
                return int(value)
            except ValueError:
                raise self._odd(field, value, 'is no integer') from None
        raise self._odd(field, value, 'is no integer')

    def reference(self, field: str) -> str | None:
        """Return a reference; None for the null one."""
        value = self.text(field, NULL_REF)
        return None if value in (NULL_REF, '') else value

    def texts(self, field: str) -> tuple[str, ...]:
        """Return a set of texts, in its order.

        An empty text is no member: XAPI writes ``['']`` for an empty set,
        such as ``PIF.IPv6`` of every host that was booted once (recorded).
        """
        value = self.record.get(field, ())
        if not isinstance(value, list | tuple) or not all(
            isinstance(item, str) for item in value
        ):
            raise self._odd(field, value, 'is no list of texts')
        return tuple(item for item in value if item)

    def references(self, field: str) -> tuple[str, ...]:
        """Return a set of references, without null ones."""
        return tuple(ref for ref in self.texts(field) if ref != NULL_REF)

    def _mapping(self, field: str) -> collections.abc.Mapping[str, object]:
        value = self.record.get(field, {})
        if not isinstance(value, collections.abc.Mapping):
            raise self._odd(field, value, 'is no map')
        return value

    def strings(self, field: str) -> collections.abc.Mapping[str, str]:
        """Return a map of texts to texts."""
        found = dict[str, str]()
        for key, value in self._mapping(field).items():
            if not isinstance(value, str):
                raise self._odd(field, {key: value}, 'is no map of texts')
            found[key] = value
        return types.MappingProxyType(found)

    def numbers(self, field: str) -> collections.abc.Mapping[str, int]:
        """Return a map of texts to integers."""
        return types.MappingProxyType(
            {
                key: self._as_int(field, value)
                for key, value in self._mapping(field).items()
            }
        )

    def moment(self, field: str) -> float | None:
        """Return seconds since 1970; None where there is nothing."""
        value = self.record.get(field)
        if value is None or value == '':
            return None
        text = str(value).replace('-', '').removesuffix('Z')
        try:
            parsed = datetime.datetime.strptime(text, '%Y%m%dT%H:%M:%S')
        except ValueError:
            raise self._odd(field, value, 'is no date') from None
        return parsed.replace(tzinfo=datetime.UTC).timestamp()
