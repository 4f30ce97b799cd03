# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What speaks against the pool that an aggregate begins with."""

from __future__ import annotations

import dataclasses
import shlex

from xenpool_driver import findings, model, snapshot
from xenpool_driver.preflight import check


@dataclasses.dataclass(frozen=True)
class Claim:
    """Whose a pool is, by its stamp.

    :ivar stamp: the uuid of the aggregate that owns it; '' for nobody.
    :ivar name: what our own store calls that aggregate; '' when it does not
        know it: then another controller has made the stamp.
    :ivar is_replaced: whether the stamp gives way to a new one.
    """

    stamp: str = ''
    name: str = ''
    is_replaced: bool = False


def check_first(
    pool: snapshot.PoolSnapshot,
    subject: str,
    aggregate_uuid: str,
    claim: Claim,
) -> model.Report:
    """Judge the pool of the first host: it must be free, and alone.

    :param pool: the records of the host's own pool.
    :param subject: the compute host name.
    :param aggregate_uuid: the aggregate that begins with it.
    :param claim: whose the pool is now.
    """
    by_hand = ''
    if pool.pool is not None:
        by_hand = (
            f"use that controller, or, when it is gone for good, on "
            f"{subject}: xe pool-param-remove uuid={pool.pool.uuid} "
            f"param-name=other-config param-key={model.OWNER_KEY}"
        )
    found = [_owner(pool, subject, aggregate_uuid, claim, by_hand)]
    if 'host' in pool.read_classes:
        found.append(_alone(pool, subject))
    found.append(_name(pool, subject))
    return check.report(subject, found)


def check_adoption(
    pool: snapshot.PoolSnapshot,
    subject: str,
    aggregate: model.AggregateLike,
    claim: Claim,
) -> model.Report:
    """Judge a pool that shall be adopted as it stands.

    :param pool: the records of the pool.
    :param subject: the compute host name by which it was named.
    :param aggregate: the aggregate that adopts it.
    :param claim: whose the pool is now.
    """
    name = shlex.quote(aggregate.name)
    by_force = (
        f"use that controller, or, when it is gone for good: xenpool "
        f"aggregate adopt {name} --from {subject} "
        f"--replace-stamp {claim.stamp}"
    )
    return check.report(
        subject,
        [
            _owner(pool, subject, aggregate.uuid, claim, by_force),
            *_dead_members(pool, name),
        ],
    )


def _owner(
    pool: snapshot.PoolSnapshot,
    subject: str,
    aggregate_uuid: str,
    claim: Claim,
    if_gone: str,
) -> model.Finding:
    """Say whose the pool is.

    :param if_gone: what to do about the stamp of another controller.
    """
    if pool.pool is None:
        return model.Finding(
            'owner',
            model.Severity.FAIL,
            f"the pool record of '{subject}' cannot be read: "
            f"{pool.lacks('pool')}",
            'give the login the right to read it',
        )
    if claim.stamp in ('', aggregate_uuid):
        return model.Finding(
            'owner', model.Severity.PASS, 'no other aggregate owns the pool'
        )
    if claim.is_replaced:
        return _replaced(claim)
    if claim.name:
        whose = f"'{claim.name}' ({claim.stamp})"
        remedy = f"xenpool aggregate release {shlex.quote(claim.name)}"
    else:
        whose = f"{claim.stamp}, which another controller has made"
        remedy = if_gone
    return model.Finding(
        'owner',
        model.Severity.FAIL,
        f"the pool of '{subject}' belongs to the aggregate {whose}",
        remedy,
        objects=findings.at_fault(pool.pool, name=pool.name),
    )


def _replaced(claim: Claim) -> model.Finding:
    """Say that a stamp gives way."""
    if claim.name:
        return model.Finding(
            'owner',
            model.Severity.PASS,
            f"the stamp of the aggregate '{claim.name}' ({claim.stamp}), "
            f"which is dismissed, is replaced",
        )
    return model.Finding(
        'owner',
        model.Severity.WARN,
        f"the stamp of another controller's aggregate ({claim.stamp}) is "
        f"replaced, as was asked for",
    )


def _alone(pool: snapshot.PoolSnapshot, subject: str) -> model.Finding:
    others = [
        host
        for host in pool.hosts.values()
        if pool.coordinator is None or host.ref != pool.coordinator.ref
    ]
    if others:
        names = findings.listed(host.name for host in others)
        return model.Finding(
            'alone',
            model.Severity.FAIL,
            f"host '{subject}' is the coordinator of a pool with {names}",
            f"take the whole pool over instead: xenpool aggregate adopt "
            f"{shlex.quote(_label(pool) or subject)} --from {subject}",
            objects=findings.at_fault(*others),
        )
    return model.Finding(
        'alone', model.Severity.PASS, 'the host is a pool of its own'
    )


def _label(pool: snapshot.PoolSnapshot) -> str:
    return pool.pool.name_label if pool.pool else ''


def _name(pool: snapshot.PoolSnapshot, subject: str) -> model.Finding:
    label = _label(pool)
    if label:
        return model.Finding(
            'pool-name',
            model.Severity.WARN,
            f"the pool of '{subject}' is named '{label}'; it takes the name "
            f"of the aggregate",
        )
    return model.Finding(
        'pool-name', model.Severity.PASS, 'the pool has no name yet'
    )


def _dead_members(
    pool: snapshot.PoolSnapshot, aggregate: str
) -> list[model.Finding]:
    return [
        model.Finding(
            'members',
            model.Severity.WARN,
            f"the member {host.name} at {host.address} is dead",
            f"start {host.name}, or forget it once the pool is adopted: "
            f"xenpool aggregate remove host {aggregate} {host.name} --forget",
            objects=findings.at_fault(host),
        )
        for host in pool.hosts.values()
        if pool.is_live(host) is False
    ]
