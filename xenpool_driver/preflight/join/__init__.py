# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Everything that speaks against a join, all at once.

XAPI's own rules come first, in XAPI's own order, so that the first failure
among them is what ``pool.join`` would raise.
"""

from __future__ import annotations

import collections.abc
import dataclasses

from xenpool_driver import findings, identity, model, objects, snapshot
from xenpool_driver.preflight import check as checks
from xenpool_driver.preflight.join import case as cases
from xenpool_driver.preflight.join import own_rules, xapi_rules

LiveFacts = cases.LiveFacts
"""What no record shows, found out by asking."""

CHECKS = (*xapi_rules.CHECKS, *own_rules.CHECKS)
"""Everything, in the order of the report."""


def check(
    joiner: snapshot.PoolSnapshot,
    pool: snapshot.PoolSnapshot,
    *,
    force: bool = False,
    aggregate_uuid: str | None = None,
    batch: collections.abc.Iterable[snapshot.PoolSnapshot] = (),
    joining: collections.abc.Iterable[str] = (),
    address: str | None = None,
    now: float | None = None,
    live: LiveFacts | None = None,
    host_uuid: str | None = None,
    former: str = '',
    owners: objects.Strings | None = None,
    extra: collections.abc.Iterable[model.Finding] = (),
) -> model.Report:
    """Return everything that speaks against a join.

    :param joiner: the records of the joiner's own pool.
    :param pool: the records of the pool, from its coordinator.
    :param force: judge ``join_force`` instead of ``join``: what it skips
        becomes a warning.
    :param aggregate_uuid: the aggregate that the host is added to.
    :param batch: snapshots of the other hosts of the same request.
    :param joining: uuids of hosts whose join into this pool is under way;
        they need not be live yet.
    :param address: the address that will be handed over; default: the one
        in the coordinator's record.
    :param now: seconds since 1970, for the dates of certificates.
    :param live: what was asked live.
    :param host_uuid: the host that is meant, when ``joiner`` may be the pool
        that it is a member of; default: the joiner's coordinator.
    :param former: the host uuid that the aggregate has for the joiner.
    :param owners: ``{aggregate uuid: its name}``, as far as they are known.
    :param extra: more findings for the report, such as those of site rules.
    """
    member = _membership(joiner, pool, host_uuid)
    if member is not None:
        return member
    case = cases.JoinCase(
        joiner=joiner,
        pool=pool,
        force=force,
        aggregate_uuid=aggregate_uuid,
        batch=tuple(batch),
        joining=frozenset(joining),
        address=address,
        now=now,
        live=live or LiveFacts(),
        former=former,
        owners=owners or {},
    )
    return checks.report(_subject(joiner), [*_judged(case), *extra])


def _subject(joiner: snapshot.PoolSnapshot) -> str:
    return joiner.coordinator.name if joiner.coordinator else '?'


def _judged(case: cases.JoinCase) -> list[model.Finding]:
    return [
        _as_asked(finding, one, case)
        for one in CHECKS
        for finding in checks.evaluate(one, case)
    ]


_OR_FORCE = '; or repeat with --force'
"""How remedies offer it; whoever did so already need not read it."""


def _as_asked(
    finding: model.Finding, one: cases.Check, case: cases.JoinCase
) -> model.Finding:
    """Make a warning of a failure that this very join would pass.

    That is what force skips, and what the joiner's release does not ask: it
    may still hurt later.
    """
    if finding.severity is not model.Severity.FAIL:
        return finding
    if case.force and finding.force_passes:
        return dataclasses.replace(
            finding,
            severity=model.Severity.WARN,
            message=f"{finding.message} (skipped by force)",
            remedy=finding.remedy.partition(_OR_FORCE)[0],
        )
    if not case.asks(one.since, one.sign):
        return dataclasses.replace(
            finding, severity=model.Severity.WARN, predicts=None
        )
    return finding


def _leaving(
    pool: objects.Pool, master: objects.Host, host: objects.Host
) -> str:
    """Return how a host leaves its pool: by its owner, if it has one."""
    stamp = pool.other_config.get(model.OWNER_KEY)
    if stamp:
        return (
            f"let the controller of the aggregate {stamp}, which owns that "
            f"pool, remove it; what it owns is told by: xenpool aggregate list"
        )
    return (
        f"on {master.name}: xe pool-eject host-uuid={host.uuid} (wipes its "
        f"local disks)"
    )


def _membership(
    joiner: snapshot.PoolSnapshot,
    pool: snapshot.PoolSnapshot,
    host_uuid: str | None,
) -> model.Report | None:
    """Return the whole report for a host that is a member of some pool."""
    host = joiner.host_by_uuid(host_uuid) if host_uuid else None
    if host is None or joiner.pool is None or pool.pool is None:
        return None
    if identity.tell_records(joiner, pool).who is identity.Who.MEMBER:
        return checks.report(
            host.name,
            [
                model.Finding(
                    'membership',
                    model.Severity.PASS,
                    f"{host.name} is already a member of {pool.name}",
                    objects=findings.at_fault(host),
                )
            ],
        )
    if joiner.coordinator is None or host.ref == joiner.coordinator.ref:
        return None
    master = joiner.coordinator
    return checks.report(
        host.name,
        [
            model.Finding(
                'membership',
                model.Severity.FAIL,
                f"{host.name} is a member of another pool, {joiner.name}, "
                f"whose coordinator is {master.name} at {master.address}",
                _leaving(joiner.pool, master, host),
                ('HOST_IS_SLAVE', master.address),
                objects=findings.at_fault(host),
            )
        ],
    )
