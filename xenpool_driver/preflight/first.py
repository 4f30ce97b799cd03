# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What speaks against the pool that an aggregate begins with."""

from __future__ import annotations

from xenpool_driver import findings, model, snapshot
from xenpool_driver.preflight import check


def check_first(
    pool: snapshot.PoolSnapshot, subject: str, aggregate_uuid: str
) -> model.Report:
    """Judge the pool of the first host: it must be free, and alone.

    :param pool: the records of the host's own pool.
    :param subject: the compute host name.
    :param aggregate_uuid: the aggregate that begins with it.
    """
    found = [_owner(pool, subject, aggregate_uuid)]
    if 'host' in pool.read_classes:
        found.append(_alone(pool, subject))
    found.append(_name(pool, subject))
    return check.report(subject, found)


def check_adoption(
    pool: snapshot.PoolSnapshot, subject: str, aggregate_uuid: str
) -> model.Report:
    """Judge a pool that shall be adopted as it stands.

    :param pool: the records of the pool.
    :param subject: the compute host name by which it was named.
    :param aggregate_uuid: the aggregate that adopts it.
    """
    return check.report(
        subject,
        [
            _owner(pool, subject, aggregate_uuid),
            *_dead_members(pool),
        ],
    )


def _owner(
    pool: snapshot.PoolSnapshot, subject: str, aggregate_uuid: str
) -> model.Finding:
    if pool.pool is None:
        return model.Finding(
            'owner',
            model.Severity.FAIL,
            f"the pool record of '{subject}' cannot be read: "
            f"{pool.lacks('pool')}",
            'give the login the right to read it',
        )
    stamp = pool.pool.other_config.get(model.OWNER_KEY)
    if stamp and stamp != aggregate_uuid:
        return model.Finding(
            'owner',
            model.Severity.FAIL,
            f"the pool of '{subject}' belongs to the aggregate {stamp}",
            f"use that aggregate, or, when it is gone for good, on "
            f"{subject}: xe pool-param-remove uuid={pool.pool.uuid} "
            f"param-name=other-config param-key={model.OWNER_KEY}",
            objects=findings.at_fault(pool.pool, name=pool.name),
        )
    return model.Finding(
        'owner', model.Severity.PASS, 'no other aggregate owns the pool'
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
            f"take the whole pool over instead: xenpool aggregate adopt NAME "
            f"--from {subject}",
            objects=findings.at_fault(*others),
        )
    return model.Finding(
        'alone', model.Severity.PASS, 'the host is a pool of its own'
    )


def _name(pool: snapshot.PoolSnapshot, subject: str) -> model.Finding:
    label = pool.pool.name_label if pool.pool else ''
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


def _dead_members(pool: snapshot.PoolSnapshot) -> list[model.Finding]:
    return [
        model.Finding(
            'members',
            model.Severity.WARN,
            f"the member {host.name} at {host.address} is dead",
            f"start {host.name}, or forget it once the pool is adopted: "
            f"xenpool aggregate remove host AGGREGATE {host.name} --forget",
            objects=findings.at_fault(host),
        )
        for host in pool.hosts.values()
        if pool.is_live(host) is False
    ]
