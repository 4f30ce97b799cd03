# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Records on their way out: encoded once per change, not once per call."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from xenpool_driver.simulator import (
    database,
    datamodel,
    wire_json,
    wire_xml,
)


@dataclasses.dataclass(frozen=True, slots=True)
class RowValue:
    """A record, as the result of a call or the snapshot of an event."""

    cls: str
    row: database.Row

    def xml(self) -> str:
        """Return it as ``<value>``."""
        return wire_xml.row(self.cls, self.row)

    def json(self) -> str:
        """Return it as JSON."""
        return wire_json.row(self.cls, self.row)


@dataclasses.dataclass(frozen=True, slots=True)
class RowMap:
    """Records by reference: what get_all_records returns."""

    cls: str
    rows: collections.abc.Sequence[tuple[str, database.Row]]

    def xml(self) -> str:
        """Return it as ``<value>``."""
        members = ''.join(
            [
                f'<member><name>{ref}</name>{wire_xml.row(self.cls, row)}'
                '</member>'
                for ref, row in self.rows
            ]
        )
        return f'<value><struct>{members}</struct></value>'

    def json(self) -> str:
        """Return it as JSON."""
        members = ','.join(
            [
                f'"{ref}":{wire_json.row(self.cls, row)}'
                for ref, row in self.rows
            ]
        )
        return f'{{{members}}}'


@dataclasses.dataclass(frozen=True, slots=True)
class EventList:
    """Events one by one: what event.next returns."""

    events: collections.abc.Sequence[dict[str, typing.Any]]

    def xml(self) -> str:
        """Return them as ``<value>``."""
        inner = ''.join([wire_xml.event_xml(event) for event in self.events])
        return f'<value><array><data>{inner}</data></array></value>'

    def json(self) -> str:
        """Return them as JSON."""
        inner = ','.join(
            [wire_json.event_json(event) for event in self.events]
        )
        return f'[{inner}]'


_ENCODED = RowValue, RowMap, EventList


class Result(typing.NamedTuple):
    """What a call returns, and the type that says how to write it."""

    type: datamodel.Type
    value: typing.Any

    def xml(self) -> str:
        """Return it as ``<value>``."""
        value = self.value
        if isinstance(value, _ENCODED):
            return value.xml()
        return wire_xml.encoder(self.type)(value)

    def json(self) -> str:
        """Return it as JSON."""
        value = self.value
        if isinstance(value, _ENCODED):
            return value.json()
        return wire_json.encoder(self.type)(value)
