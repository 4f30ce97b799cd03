# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the store hands out and takes in. Times are seconds since 1970, UTC."""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import typing

from xenpool_driver import exceptions, pool_states

Metadata = collections.abc.Mapping[str, str]
MetadataChanges = collections.abc.Mapping[str, str | None]


class Keeper(typing.Protocol):
    """What an aggregate needs of the store that it came from."""

    def get_aggregate(
        self, ident: str | int, dismissed: bool = False
    ) -> Aggregate:
        """Return the aggregate as it is now."""

    def update_metadata(
        self, uuid: str, generation: int, changes: MetadataChanges
    ) -> Aggregate:
        """Merge ``changes`` if nobody wrote since ``generation``."""


@dataclasses.dataclass(frozen=True)
class Changes:
    """What one write does to an aggregate. Sets are meant, not steps: a host
    to add that is there already, or one to remove that is not, is no error.

    :ivar metadata: merged; None deletes a key.
    :ivar add_hosts: hosts that shall be in the aggregate, in this order.
    :ivar remove_hosts: hosts that shall not; removed before others are added.
    :ivar dismiss: delete the aggregate: it keeps its row and its history.
    :ivar name: its new name, or None to keep the present one.
    """

    metadata: MetadataChanges = dataclasses.field(default_factory=dict)
    add_hosts: collections.abc.Sequence[str] = ()
    remove_hosts: collections.abc.Sequence[str] = ()
    dismiss: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        for hosts in (self.add_hosts, self.remove_hosts):
            if isinstance(hosts, str):
                raise TypeError(
                    f"a sequence of hosts is needed, not {hosts!r}"
                )

    def __bool__(self) -> bool:
        return bool(
            self.metadata
            or self.add_hosts
            or self.remove_hosts
            or self.dismiss
            or self.name is not None
        )


@dataclasses.dataclass
class Aggregate:
    """An aggregate of Nova's shape, as it was at one generation.

    :ivar id: small number, never used again.
    :ivar uuid: lower-case, with hyphens.
    :ivar hosts: compute host names in the order in which they were added.
    :ivar generation: grows by one with each write; a write names the one
        that it read.
    :ivar deleted_at: when it was dismissed, or None.
    :ivar tracked: it belongs to a foreign service, which named it.
    """

    id: int
    uuid: str
    name: str
    hosts: list[str]
    metadata: dict[str, str]
    generation: int
    created_at: float
    deleted_at: float | None = None
    tracked: bool = False
    _store: Keeper | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    def __str__(self) -> str:
        return f"'{self.name}' ({self.uuid})"

    @property
    def state(self) -> str:
        """One of ``pool_states.STATES``."""
        return pool_states.state_of(self.metadata)

    def update_metadata(self, metadata: MetadataChanges) -> None:
        """Merge ``metadata``, then be what the store now holds.

        :param metadata: None as a value deletes the key.
        :raises StaleAggregate: somebody wrote since this copy was read.
        """
        self.become(
            self._bound().update_metadata(self.uuid, self.generation, metadata)
        )

    def refresh(self) -> None:
        """Be what the store now holds."""
        self.become(self._bound().get_aggregate(self.uuid, dismissed=True))

    def _bound(self) -> Keeper:
        if self._store is None:
            raise exceptions.StoreError(
                f"aggregate {self} is a copy without a store; read it anew"
            )
        return self._store

    def become(self, other: Aggregate) -> None:
        """Be what ``other``, read later, is."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(other, field.name))

    def __getstate__(self) -> dict[str, typing.Any]:
        return {**self.__dict__, '_store': None}

    def __copy__(self) -> Aggregate:
        return dataclasses.replace(self)

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> Aggregate:
        return dataclasses.replace(
            self,
            hosts=copy.copy(self.hosts),
            metadata=copy.copy(self.metadata),
        )


@dataclasses.dataclass(frozen=True)
class Operation:
    """One request, as the journal knows it.

    :ivar kind: what was asked, for example ``join``.
    :ivar host: the compute host concerned, or None.
    :ivar phase: the last phase that was announced.
    :ivar owner: who works on it.
    :ivar epoch: grows by one with each take-over; a write carries the one it
        holds.
    :ivar lease: seconds for which a renewal holds.
    :ivar lease_expires: from when on another worker may take it over, by the
        database's clock.
    :ivar ended_at: when it ended; None while it runs.
    :ivar outcome: how it ended, for example ``succeeded``.
    :ivar details: what later phases, or who takes over, must know.
    """

    uuid: str
    aggregate_uuid: str
    kind: str
    host: str | None
    phase: str
    owner: str
    epoch: int
    lease: float
    lease_expires: float
    started_at: float
    ended_at: float | None = None
    outcome: str | None = None
    error: str | None = None
    details: dict[str, typing.Any] = dataclasses.field(default_factory=dict)
    request_id: str | None = None

    @property
    def running(self) -> bool:
        """Whether it has no end yet (its worker may be dead all the same)."""
        return self.ended_at is None

    def expired(self, now: float) -> bool:
        """Whether another worker may take it over at ``now``.

        :param now: by the clock that ends leases (``Store.lease_time``).
        """
        return self.running and self.lease_expires <= now


@dataclasses.dataclass(frozen=True)
class Phase:
    """One line of an operation's story.

    :ivar seq: 1 for the first.
    :ivar phase: its name; the last line of an operation is its outcome.
    :ivar note: for people; '' when there is nothing to add.
    :ivar owner: who wrote it.
    :ivar epoch: under which epoch.
    """

    seq: int
    phase: str
    at: float
    note: str
    owner: str
    epoch: int


@dataclasses.dataclass(frozen=True)
class SentRequest:
    """A request that was sent to a compute service over the bus.

    :ivar kind: the method of the service, for example
        ``add_aggregate_host``.
    :ivar host: the compute host concerned, or None.
    :ivar until: until when a service may take it.
    :ivar service: who took it; None while nobody has.
    :ivar operation_uuid: the last operation that it began; None while it is
        judged.
    :ivar withdrawn_at: when its caller stopped waiting; it begins no
        operation from then on.
    :ivar answer: what the service answered, as JSON values.
    """

    uuid: str
    aggregate_uuid: str
    kind: str
    host: str | None
    request_id: str | None
    sent_at: float
    until: float
    service: str | None = None
    taken_at: float | None = None
    operation_uuid: str | None = None
    withdrawn_at: float | None = None
    ended_at: float | None = None
    answer: dict[str, typing.Any] | None = None
