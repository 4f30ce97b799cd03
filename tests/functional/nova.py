# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A compute service of another maker, shaped as Nova's was up to release 21.

Its aggregates know no generation, its copies go stale, its API writes the
host before the driver hears of the request, and its manager undoes what it
undoes. Written after ``nova/compute/api.py``, ``nova/compute/manager.py`` and
``nova/objects/aggregate.py``, for tests.
"""

from __future__ import annotations

import copy
import typing
import uuid

from xenpool_driver import base, exceptions


class Conflict(Exception):
    """What the API answers with status 409 or 400."""


class Aggregate:
    """``nova.objects.Aggregate`` 1.3, as far as drivers know it.

    Its writes go to the database at once; of the copy in hand only the
    writer's own fields change.
    """

    def __init__(self, service: Service, name: str) -> None:
        self._service = service
        self.id = len(service.rows) + 1
        self.uuid = str(uuid.uuid4())
        self.name = name
        self.hosts: list[str] = []
        self.metadata: dict[str, str] = {}

    def loaded(self) -> Aggregate:
        """Return a copy, as a request or a message carries it."""
        found = copy.copy(self)
        found.hosts = list(self.hosts)
        found.metadata = dict(self.metadata)
        return found

    def update_metadata(self, metadata: dict[str, str | None]) -> None:
        """Merge; None deletes, an absent key too; the last writer wins."""
        for key, value in metadata.items():
            if not isinstance(value, str | None) or len(value or '') > 255:
                raise ValueError(f"{key}: {value!r}")
        for each in (self._service.rows[self.uuid], self):
            for key, value in metadata.items():
                if value is None:
                    each.metadata.pop(key, None)
                else:
                    each.metadata[key] = value

    def add_host(self, host: str) -> None:
        """Add a host; a second time is a conflict."""
        row = self._service.rows[self.uuid]
        if host in row.hosts:
            raise Conflict('AggregateHostExists')
        row.hosts.append(host)
        self.hosts = list(row.hosts)

    def delete_host(self, host: str) -> None:
        """Take a host out."""
        row = self._service.rows[self.uuid]
        if host not in row.hosts:
            raise Conflict('AggregateHostNotFound')
        row.hosts.remove(host)
        self.hosts = list(row.hosts)


class Cast(typing.NamedTuple):
    """A message to the host's own service, which nobody waits for."""

    method: str
    aggregate: Aggregate
    host: str


class Service:
    """API, database and manager.

    :ivar rows: the database, by uuid.
    :ivar casts: what was sent and not handled yet.
    :param driver: what its manager calls.
    :param errors: the module whose exceptions its manager catches.
    """

    def __init__(
        self, driver: base.PoolDriver, errors: typing.Any = exceptions
    ) -> None:
        self.driver = driver
        self.errors = errors
        self.rows: dict[str, Aggregate] = {}
        self.casts: list[Cast] = []

    # The API

    def create(self, name: str, metadata: dict[str, str]) -> str:
        """Create an aggregate; return its uuid. The driver is not told."""
        made = Aggregate(self, name)
        self.rows[made.uuid] = made
        made.metadata.update(metadata)
        return made.uuid

    def read(self, ident: str) -> Aggregate:
        """Return a copy of an aggregate."""
        return self.rows[ident].loaded()

    def add_host(self, ident: str, host: str) -> None:
        """Write the host, then tell the host's own service."""
        loaded = self.read(ident)
        loaded.add_host(host)
        self.casts.append(Cast('add', loaded.loaded(), host))

    def remove_host(self, ident: str, host: str) -> None:
        """Delete the host, then tell the host's own service."""
        loaded = self.read(ident)
        loaded.delete_host(host)
        self.casts.append(Cast('remove', loaded.loaded(), host))

    def delete(self, ident: str) -> None:
        """Delete an aggregate. The driver is not told."""
        if self.rows[ident].hosts:
            raise Conflict('InvalidAggregateActionDelete')
        del self.rows[ident]

    # The manager

    def handle(self) -> list[Exception]:
        """Handle all casts; return what they raised, which nobody hears."""
        raised: list[Exception] = []
        while self.casts:
            cast = self.casts.pop(0)
            try:
                self._handle(cast)
            except Exception as error:
                raised.append(error)
        return raised

    def _handle(self, cast: Cast) -> None:
        _, aggregate, host = cast
        if cast.method == 'add':
            try:
                self.driver.add_to_aggregate(
                    None, aggregate, host, slave_info=None
                )
            except self.errors.AggregateError:
                self.driver.undo_aggregate_operation(
                    None, aggregate.delete_host, aggregate, host
                )
                raise
            return
        try:
            self.driver.remove_from_aggregate(
                None, aggregate, host, slave_info=None
            )
        except (
            self.errors.AggregateError,
            self.errors.InvalidAggregateAction,
        ) as error:
            self.driver.undo_aggregate_operation(
                None,
                aggregate.add_host,
                aggregate,
                host,
                isinstance(error, self.errors.AggregateError),
            )
            raise
