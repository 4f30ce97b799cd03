# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What an audit looks at, and how its findings are made."""

from __future__ import annotations

import collections.abc
import dataclasses
import shlex

from xenpool_driver import identity, model, objects, snapshot
from xenpool_driver.reconcile import declared as declarations

Found = collections.abc.Iterator[model.Finding]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pending:
    """An operation that has not ended.

    :ivar uuid: its uuid.
    :ivar story: its kind and host, for a sentence.
    :ivar phase: the last phase that was announced.
    :ivar orphaned: whether its worker has stopped renewing its lease.
    :ivar owner: who works on it.
    """

    uuid: str
    story: str
    phase: str
    orphaned: bool
    owner: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditCase:
    """What an audit looks at; see ``reconcile.audit``.

    :ivar domains_unread: why the control domains could not be read, or ''.
    """

    declared: declarations.Declared
    records: snapshot.PoolSnapshot
    answers: collections.abc.Mapping[str, identity.Identified]
    now: float | None = None
    clocks: collections.abc.Mapping[str, float | None] | None = None
    joining: frozenset[str] = frozenset()
    placed: frozenset[str] = frozenset()
    pending: tuple[Pending, ...] = ()
    left_lately: bool = False
    owner: str = ''
    domains: tuple[objects.Vm, ...] = ()
    domains_unread: str = ''

    @property
    def pool(self) -> objects.Pool:
        """The pool record; checks that need it declare so."""
        if self.records.pool is None:
            raise LookupError('a check does not declare what it needs')
        return self.records.pool

    @property
    def master(self) -> objects.Host:
        """The coordinator's record."""
        if self.records.coordinator is None:
            raise LookupError('a check does not declare what it needs')
        return self.records.coordinator

    @property
    def names(self) -> collections.abc.Iterator[tuple[str, objects.Host]]:
        """The members, as the aggregate calls them, else as XAPI does."""
        for host in self.records.hosts.values():
            yield self.declared.host_of(host.uuid) or host.name, host

    def tells(self, host: str) -> bool:
        """Say whether what answers there is no plain member, which its
        identity tells of."""
        found = self.answers.get(host)
        return found is not None and found.who is not identity.Who.MEMBER

    @property
    def auditing(self) -> str:
        """The command that makes this audit again."""
        return typed('aggregate', 'audit', self.declared.name)

    @property
    def is_foreign(self) -> bool:
        """Whether the pool carries the stamp of another aggregate."""
        owner = self.pool.other_config.get(model.OWNER_KEY)
        return bool(owner) and owner != self.declared.uuid

    @property
    def fixing(self) -> str:
        """The command that makes aggregate and pool agree.

        Nothing is mended in a pool that another aggregate owns: this one can
        only let it go.
        """
        if self.is_foreign:
            return typed('aggregate', 'release', self.declared.name)
        return f"{self.auditing} --fix"


def typed(*words: str) -> str:
    """Return a command of ours, as it is typed into a shell."""
    return shlex.join(('xenpool', *words))


def fail(
    check: str,
    message: str,
    remedy: str = '',
    at_fault: tuple[model.ObjectRef, ...] = (),
) -> model.Finding:
    """Return a finding that forbids to go on."""
    return model.Finding(
        check, model.Severity.FAIL, message, remedy, objects=at_fault
    )


def warn(
    check: str,
    message: str,
    remedy: str = '',
    at_fault: tuple[model.ObjectRef, ...] = (),
) -> model.Finding:
    """Return a finding that somebody should look at."""
    return model.Finding(
        check, model.Severity.WARN, message, remedy, objects=at_fault
    )


def unknown(
    check: str,
    message: str,
    remedy: str = '',
    at_fault: tuple[model.ObjectRef, ...] = (),
) -> model.Finding:
    """Return what could not be decided."""
    return model.Finding(
        check, model.Severity.UNKNOWN, message, remedy, objects=at_fault
    )
