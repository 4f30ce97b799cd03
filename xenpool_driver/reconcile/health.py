# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit: where an aggregate and its pool disagree, and what ails it."""

from __future__ import annotations

import collections.abc
import shlex

from xenpool_driver import findings, identity, model, objects, snapshot
from xenpool_driver.reconcile import (
    availability,
    cases,
    lifecycle,
    members,
    storage,
    stuck,
    wiring,
)
from xenpool_driver.reconcile import declared as declarations
from xenpool_driver.reconcile.cases import fail, unknown, warn

CLOCK_TOLERANCE = 2.0
"""Seconds between two clocks that are still harmless."""

CERTIFICATE_WARNING = 30 * 86400.0
"""Seconds before its end when a certificate is worth a warning."""


def master(case: cases.AuditCase, check: str) -> cases.Found:
    """Who is the master, by metadata and by XAPI."""
    actual = case.declared.host_of(case.master.uuid)
    if actual != case.declared.master:
        yield fail(
            check,
            f"the aggregate says that the master is "
            f"'{case.declared.master or 'nobody'}', the pool that it is "
            f"'{actual or case.master.name}'",
            case.fixing,
            findings.at_fault(case.master),
        )


def pool_uuid(case: cases.AuditCase, check: str) -> cases.Found:
    """Whether it is the pool that the aggregate began with."""
    if case.pool.uuid != case.declared.pool_uuid:
        yield fail(
            check,
            f"the aggregate is the pool "
            f"{case.declared.pool_uuid or 'without uuid'}, its hosts are in "
            f"{case.pool.uuid}",
            case.fixing,
            findings.at_fault(case.pool, name=case.records.name),
        )


def stamp(case: cases.AuditCase, check: str) -> cases.Found:
    """Whose pool it is, by its own record."""
    owner = case.pool.other_config.get(model.OWNER_KEY)
    at_fault = findings.at_fault(case.pool, name=case.records.name)
    known = case.owner
    if owner and owner != case.declared.uuid:
        whose = f"'{known}' ({owner})" if known else owner
        take = (
            f"xe pool-param-set uuid={case.pool.uuid} "
            f"other-config:{model.OWNER_KEY}={case.declared.uuid}"
        )
        letting_go = cases.typed('aggregate', 'release', case.declared.name)
        yield fail(
            check,
            f"the pool belongs to another aggregate, {whose}",
            f"let it go, which touches no host: {letting_go}; or, if the "
            f"other aggregate is gone for good: on {case.master.typed}: "
            f"{take}",
            at_fault,
        )
    elif not owner:
        yield warn(
            check,
            "the pool does not carry the aggregate's stamp",
            case.fixing,
            at_fault,
        )


def name(case: cases.AuditCase, check: str) -> cases.Found:
    """Whether pool and aggregate have one name."""
    if case.pool.name_label != case.declared.name:
        yield warn(
            check,
            f"the pool is named '{case.pool.name_label}', the aggregate "
            f"'{case.declared.name}'",
            f"xe pool-param-set uuid={case.pool.uuid} "
            f"name-label={shlex.quote(case.declared.name)}",
            findings.at_fault(case.pool, name=case.records.name),
        )


def versions(case: cases.AuditCase, check: str) -> cases.Found:
    """Members that run something else than the coordinator."""
    wanted = _version(case.master)
    for label, host in case.names:
        differing = [
            f"{key} {_version(host)[key] or 'unknown'} against "
            f"{value or 'unknown'}"
            for key, value in wanted.items()
            if _version(host)[key] != value
        ]
        if differing:
            yield warn(
                check,
                f"'{label}' runs other software than the master: "
                f"{findings.listed(differing)}",
                f"on {label}: yum update, then reboot it",
                findings.at_fault(host),
            )


_VERSIONS = ('product_version', 'platform_version', 'xapi_build', 'xen')


def _version(host: objects.Host) -> dict[str, str]:
    return {key: host.software_version.get(key, '') for key in _VERSIONS}


def updates(case: cases.AuditCase, check: str) -> cases.Found:
    """Updates that not every member has, or that are not complete."""
    wanted = _updates(case, case.master)
    for label, host in case.names:
        found = _updates(case, host)
        if found != wanted:
            lacked = [(uuid, host) for uuid in sorted(wanted - found)]
            lacked += [(uuid, case.master) for uuid in sorted(found - wanted)]
            yield warn(
                check,
                f"'{label}' has other updates than the master: "
                f"{findings.listed(_named(case, found ^ wanted))}",
                findings.in_order(
                    f"xe update-apply uuid={uuid} host={where.uuid}"
                    for uuid, where in lacked
                ),
                findings.at_fault(host),
            )
        if host.pending_guidances:
            yield warn(
                check,
                f"updates of '{label}' are not complete: "
                f"{findings.listed(host.pending_guidances)}",
                f"xe host-disable uuid={host.uuid}; "
                f"xe host-evacuate uuid={host.uuid}; "
                f"xe host-reboot uuid={host.uuid}",
                findings.at_fault(host),
            )


def _updates(case: cases.AuditCase, host: objects.Host) -> set[str]:
    known = {u.ref: u.uuid for u in case.records.updates.values()}
    return {known[ref] for ref in host.updates if ref in known}


def _named(case: cases.AuditCase, uuids: set[str]) -> list[str]:
    """Return the names of updates."""
    return sorted(
        update.name_label or update.uuid
        for update in case.records.updates.values()
        if update.uuid in uuids
    )


def shared_storage(case: cases.AuditCase, check: str) -> cases.Found:
    """Shared storage that a member is not connected to."""
    for sr in case.records.srs.values():
        if not sr.shared or sr.is_tools_sr:
            continue
        pbds = {pbd.host: pbd for pbd in case.records.pbds_of_sr(sr)}
        for label, host in case.names:
            pbd = pbds.get(host.ref)
            if host.uuid in case.joining:
                continue
            if pbd is None and pbds:
                yield warn(
                    check,
                    f"'{label}' has no connection to the shared storage "
                    f"{sr.name}",
                    findings.connecting(sr, host, next(iter(pbds.values()))),
                    findings.at_fault(sr, host),
                )
            elif pbd is not None and not pbd.currently_attached:
                yield warn(
                    check,
                    f"the shared storage {sr.name} is not plugged on "
                    f"'{label}'",
                    f"xe pbd-plug uuid={pbd.uuid}",
                    findings.at_fault(sr, host),
                )


def tls(case: cases.AuditCase, check: str) -> cases.Found:
    """Members whose TLS verification is not as the pool's."""
    wanted = case.pool.tls_verification_enabled
    for label, host in case.names:
        knows = 'tls_verification_enabled' in host.fields
        if knows and host.tls_verification_enabled != wanted:
            yield warn(
                check,
                f"TLS verification is "
                f"{'on' if host.tls_verification_enabled else 'off'} on "
                f"'{label}' and {'on' if wanted else 'off'} in the pool",
                'xe pool-enable-tls-verification'
                if not wanted
                else f"on {label}: xe host-emergency-reenable-tls-"
                f"verification",
                findings.at_fault(host),
            )


def clocks(case: cases.AuditCase, check: str) -> cases.Found:
    """How far the clocks are apart, ours among them."""
    offsets = dict(case.clocks or {})
    label = case.declared.host_of(case.master.uuid) or case.master.name
    offsets.setdefault(label, case.records.clock_offset)
    known = {k: v for k, v in offsets.items() if v is not None}
    for silent in sorted(offsets.keys() - known.keys()):
        yield unknown(check, f"the clock of '{silent}' was not compared")
    known['this machine'] = 0.0
    first = min(known, key=known.__getitem__)
    last = max(known, key=known.__getitem__)
    if known[last] - known[first] > CLOCK_TOLERANCE:
        yield warn(
            check,
            f"the clock of {last} is {known[last] - known[first]:.1f} s "
            f"ahead of that of {first}",
            'give all the same time servers, then: chronyc makestep',
        )


def certificates(case: cases.AuditCase, check: str) -> cases.Found:
    """Certificates that end soon, or that belong to nobody."""
    hosts = {host.ref: (label, host) for label, host in case.names}
    for cert in case.records.certificates.values():
        at_fault = findings.at_fault(cert, name=cert.type)
        if cert.type in ('host', 'host_internal') and cert.host not in hosts:
            # Recorded: XAPI removes them up to 40 s after their host.
            if not case.left_lately:
                yield warn(
                    'residue',
                    f"the pool keeps a certificate ({cert.type}) of a host "
                    f"that it does not know",
                    f"wait a minute, then: {case.auditing}",
                    at_fault,
                )
        elif case.now is not None and cert.not_after is not None:
            label, host = hosts.get(cert.host or '', ('the pool', None))
            ahead = (case.clocks or {}).get(label, case.records.clock_offset)
            now = case.now + (ahead or 0.0)
            yield from _validity(check, now, cert, label, host)


def _uninstalling(cert: objects.Certificate) -> str:
    """Return what to type to take away a certificate that is no host's; a
    newer kind has no name."""
    if cert.name:
        name = shlex.quote(cert.name)
        return f"xe pool-uninstall-ca-certificate name={name}"
    return (
        f"xe pool-uninstall-trusted-certificate certificate-uuid={cert.uuid}"
    )


def _validity(
    check: str,
    now: float,
    cert: objects.Certificate,
    label: str,
    host: objects.Host | None,
) -> cases.Found:
    left = (cert.not_after or 0.0) - now
    what = f"the certificate ({cert.name or cert.type}) of '{label}'"
    if host is not None:
        remedy = f"on {label}: {findings.renewing(cert, host)}"
    else:
        remedy = f"install a newer one, then: {_uninstalling(cert)}"
    at_fault = findings.at_fault(cert, name=label)
    if left <= 0:
        yield fail(check, f"{what} has expired", remedy, at_fault)
    elif left < CERTIFICATE_WARNING:
        days = int(left // 86400)
        when = findings.counted(days, 'day')
        yield warn(check, f"{what} expires in {when}", remedy, at_fault)


_AUDIT = collections.abc.Callable[[cases.AuditCase, str], cases.Found]

CHECKS: tuple[tuple[str, str, _AUDIT, tuple[str, ...]], ...] = (
    *lifecycle.CHECKS,
    (
        'identity',
        'at the address of each member the member answers',
        members.identities,
        (),
    ),
    ('members', 'declared and real members agree', members.membership, ()),
    ('master', 'metadata and pool name the same master', master, ()),
    ('pool-uuid', 'it is the pool that was recorded', pool_uuid, ()),
    ('owner', "the pool carries the aggregate's stamp", stamp, ()),
    ('name', 'pool and aggregate have one name', name, ()),
    (
        'live',
        'all members are alive and enabled',
        members.live,
        ('host_metrics',),
    ),
    ('member-views', 'all members name the same master', members.views, ()),
    ('versions', 'all members run the same software', versions, ()),
    ('updates', 'all members have the same updates', updates, ()),
    (
        'shared-storage',
        'the shared storage is plugged everywhere',
        shared_storage,
        ('SR', 'PBD'),
    ),
    (
        'local-storage',
        'the storage of each host alone is plugged there',
        storage.unplugged,
        ('host_metrics', 'SR', 'PBD'),
    ),
    (
        'unconnected-storage',
        'all storage is connected to a host',
        storage.unconnected,
        ('SR', 'PBD'),
    ),
    (
        'storage-roles',
        'pool and hosts use storage that is there',
        storage.roles,
        ('SR', 'PBD'),
    ),
    (
        'left-over-domain',
        'no control domain of a former host is left',
        stuck.left_over,
        (),
    ),
    (
        'bonds',
        "all members have the master's bonds",
        wiring.bonds,
        ('host_metrics', 'PIF'),
    ),
    ('tls', 'TLS verification is the same everywhere', tls, ()),
    (
        'ha',
        'HA is as it was, and can keep its promise or is off',
        availability.ha,
        (),
    ),
    ('clocks', 'the clocks agree', clocks, ()),
    (
        'certificates',
        'no certificate ends soon',
        certificates,
        ('Certificate',),
    ),
)
"""(name, what holds when nothing is found, function, classes it needs
beside pool and host)"""


def audit(
    declared: declarations.Declared,
    pool: snapshot.PoolSnapshot,
    answers: collections.abc.Mapping[str, identity.Identified],
    *,
    now: float | None = None,
    clocks: collections.abc.Mapping[str, float | None] | None = None,
    joining: collections.abc.Iterable[str] = (),
    placed: collections.abc.Iterable[str] = (),
    pending: collections.abc.Iterable[cases.Pending] = (),
    left_lately: bool = False,
    owner: str = '',
    domains: collections.abc.Iterable[objects.Vm] = (),
    domains_unread: str = '',
) -> tuple[model.Finding, ...]:
    """Return where the aggregate and its pool disagree, and what ails it.

    :param declared: what the aggregate says.
    :param pool: the pool's records, from its coordinator
        (``snapshot.AUDIT_CLASSES``).
    :param answers: ``{compute host: who answers at its address}``.
    :param now: seconds since 1970, for the dates of certificates.
    :param clocks: ``{compute host: seconds by which its clock is ahead of
        ours}``; default: the coordinator's alone, as the snapshot has it.
    :param joining: uuids of hosts whose join is under way.
    :param placed: uuids of the hosts that the configuration knows and no
        other aggregate has.
    :param pending: operations that have not ended.
    :param owner: the name of the aggregate whose stamp the pool carries, if
        it is known.
    :param left_lately: whether a host has left the pool within the last
        minute.
    :param domains: the pool's control domains.
    :param domains_unread: why they could not be read, or ''.
    """
    case = cases.AuditCase(
        declared=declared,
        records=pool,
        answers=answers,
        now=now,
        clocks=clocks,
        joining=frozenset(joining),
        placed=frozenset(placed),
        pending=tuple(pending),
        left_lately=left_lately,
        owner=owner,
        domains=tuple(domains),
        domains_unread=domains_unread,
    )
    return tuple(
        finding
        for check, holds, run, needs in CHECKS
        for finding in _evaluate(case, check, holds, run, needs)
    )


def _evaluate(
    case: cases.AuditCase,
    check: str,
    holds: str,
    run: _AUDIT,
    needs: tuple[str, ...],
) -> tuple[model.Finding, ...]:
    reasons = [
        f"{cls}: {reason}"
        for cls in ('pool', 'host', *needs)
        if (reason := case.records.lacks(cls)) is not None
    ]
    if reasons:
        return (unknown(check, f"cannot be decided: {'; '.join(reasons)}"),)
    return tuple(run(case, check)) or (
        model.Finding(check, model.Severity.PASS, holds),
    )
