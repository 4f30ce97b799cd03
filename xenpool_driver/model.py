# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Frozen records that the rooms hand to each other. Pure data, no I/O."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import typing


class Severity(enum.StrEnum):
    """How bad a finding is, in the words of the machine-readable form."""

    PASS = 'pass'  # noqa: S105 - a verdict, no password
    UNKNOWN = 'unknown'
    WARN = 'warn'
    FAIL = 'fail'

    @property
    def rank(self) -> int:
        """The higher, the worse."""
        return _RANKS[self]


_RANKS = {
    Severity.PASS: 0,
    Severity.UNKNOWN: 1,
    Severity.WARN: 2,
    Severity.FAIL: 3,
}


@dataclasses.dataclass(frozen=True)
class ObjectRef:
    """An object at fault, as a person would look it up.

    :ivar cls: its XAPI class, for example ``SR``.
    :ivar uuid: its uuid, or '' where it has none.
    :ivar name: its name label, or what stands for it (a PIF's device).
    """

    cls: str
    uuid: str
    name: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check has to say.

    :ivar check: the name of the check, for example ``joiner-ha``.
    :ivar severity: how bad it is.
    :ivar message: one line that names the offender.
    :ivar remedy: what to type or do about it; '' when there is nothing. A
        command in it stands as it is typed: it ends with the text, before a
        bracket or at one of ``, ; :``; behind ``on HOST:`` nothing else
        stands.
    :ivar predicts: (code, params...) that XAPI would raise, or None.
    :ivar force_passes: whether ``join_force`` would go on in spite of it.
    :ivar objects: the objects at fault.
    """

    check: str
    severity: Severity
    message: str
    remedy: str = ''
    predicts: tuple[str, ...] | None = None
    force_passes: bool = False
    objects: tuple[ObjectRef, ...] = ()

    def to_dict(self) -> dict[str, typing.Any]:
        """Return the machine-readable form."""
        return {
            'check': self.check,
            'severity': self.severity.value,
            'predicts': list(self.predicts) if self.predicts else None,
            'force_passes': self.force_passes,
            'objects': [
                {'class': ref.cls, 'uuid': ref.uuid, 'name': ref.name}
                for ref in self.objects
            ],
            'message': self.message,
            'remedy': self.remedy,
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """The findings about one subject (a host, an aggregate).

    :ivar subject: the name of what was judged.
    :ivar findings: everything that was found, passes included.
    :ivar first_refusal: (code, params...) that XAPI itself would raise
        first, or None when it would raise nothing that is foreseen.
    """

    subject: str
    findings: tuple[Finding, ...] = ()
    first_refusal: tuple[str, ...] | None = None

    @property
    def worst(self) -> Severity:
        """The worst severity among the findings."""
        return max(
            (finding.severity for finding in self.findings),
            key=lambda severity: severity.rank,
            default=Severity.PASS,
        )

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that forbid to go on."""
        return tuple(
            finding
            for finding in self.findings
            if finding.severity is Severity.FAIL
        )

    def to_dict(self) -> dict[str, typing.Any]:
        """Return the machine-readable form."""
        return {
            'first_refusal': (
                list(self.first_refusal) if self.first_refusal else None
            ),
            'findings': [finding.to_dict() for finding in self.findings],
        }


STATE_KEY = 'operational_state'
"""Metadata key; ``pool_states.STATE`` is its name above here."""

FAILED_KEY = 'failed_requests'
"""Metadata key; ``pool_states.FAILED_REQUESTS`` is its name above here."""

MASTER_KEY = 'master_compute'
"""Metadata key; ``pool_states.MASTER`` is its name above here."""

HA_KEY = 'ha_suspended'
"""Metadata key; ``pool_states.HA_SUSPENDED`` is its name above here."""

POOL_UUID_KEY = 'pool_uuid'
"""Metadata key; ``pool_states.POOL_UUID`` is its name above here."""

OWNER_KEY = 'xenpool_aggregate'
"""Key of ``pool.other_config``; ``pool_states.OWNER_KEY`` above here."""

Metadata = collections.abc.Mapping[str, str]
"""An aggregate's metadata, as read."""

MetadataChanges = collections.abc.Mapping[str, str | None]
"""Changes to metadata; None deletes the key, as in Nova."""


class AggregateLike(typing.Protocol):
    """Any aggregate of Nova's shape (``nova.objects.Aggregate`` 1.3)."""

    id: typing.Any
    uuid: str
    name: str
    hosts: list[str]
    metadata: dict[str, str]

    def update_metadata(self, metadata: dict[str, str | None]) -> None:
        """Merge ``metadata`` into the aggregate; None deletes a key."""


class Progress(typing.Protocol):
    """Who wants to hear how a request goes on."""

    def __call__(self, host: str, phase: str, fraction: float | None) -> None:
        """Hear that ``host`` is in ``phase``.

        :param host: the compute host name.
        :param phase: one of the verb's phases, such as ``join``, ``restart``.
        :param fraction: how much of the phase is done, 0 to 1, if known.
        """
