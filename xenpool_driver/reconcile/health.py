# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit: where an aggregate and its pool disagree, and what ails it."""

from __future__ import annotations

import collections.abc
import dataclasses

from xenpool_driver import findings, model, objects, snapshot
from xenpool_driver.reconcile import declared as declarations

CLOCK_TOLERANCE = 2.0
"""Seconds between two clocks that are still harmless."""

CERTIFICATE_WARNING = 30 * 86400.0
"""Seconds before its end when a certificate is worth a warning."""

_Found = collections.abc.Iterator[model.Finding]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditCase:
    """What an audit looks at; see :func:`audit`."""

    declared: declarations.Declared
    records: snapshot.PoolSnapshot
    views: collections.abc.Mapping[str, str | None]
    now: float | None = None
    clocks: collections.abc.Mapping[str, float | None] | None = None
    joining: frozenset[str] = frozenset()

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


def _fail(
    check: str,
    message: str,
    remedy: str = '',
    at_fault: tuple[model.ObjectRef, ...] = (),
) -> model.Finding:
    return model.Finding(
        check, model.Severity.FAIL, message, remedy, objects=at_fault
    )


def _warn(
    check: str,
    message: str,
    remedy: str = '',
    at_fault: tuple[model.ObjectRef, ...] = (),
) -> model.Finding:
    return model.Finding(
        check, model.Severity.WARN, message, remedy, objects=at_fault
    )


def _unknown(check: str, message: str, remedy: str = '') -> model.Finding:
    return model.Finding(check, model.Severity.UNKNOWN, message, remedy)


def membership(case: AuditCase, check: str) -> _Found:
    """Hosts that are only declared, or only there."""
    aggregate = case.declared.name
    for host in case.declared.hosts:
        uuid = case.declared.uuids.get(host)
        if uuid is None:
            yield _fail(
                check,
                f"the aggregate has no XenServer uuid for '{host}'",
                f"xenpool aggregate add host {aggregate} {host}",
            )
        elif case.records.host_by_uuid(uuid) is None:
            yield _fail(
                check,
                f"'{host}' ({uuid}) is in the aggregate, but not in the pool",
                f"xenpool aggregate add host {aggregate} {host}, or xenpool "
                f"aggregate remove host {aggregate} {host}",
            )
    for host_record in case.records.hosts.values():
        known = case.declared.host_of(host_record.uuid)
        if known is None and host_record.uuid not in case.joining:
            yield from _stranger(case, check, host_record)


def _stranger(case: AuditCase, check: str, host: objects.Host) -> _Found:
    """A member that nobody declared, or what a failed join left behind."""
    at_fault = findings.at_fault(host)
    if case.records.is_live(host) is False and not host.enabled:
        yield _warn(
            'residue',
            f"the pool has a dead record of {host.name} at {host.address}, "
            f"left by a failed join or eject",
            f"xe host-forget uuid={host.uuid}",
            at_fault,
        )
        return
    yield _fail(
        check,
        f"{host.name} at {host.address} is in the pool, but not in the "
        f"aggregate",
        f"xenpool aggregate add host {case.declared.name} HOST",
        at_fault,
    )


def master(case: AuditCase, check: str) -> _Found:
    """Who is the master, by metadata and by XAPI."""
    actual = case.declared.host_of(case.master.uuid)
    if actual != case.declared.master:
        yield _fail(
            check,
            f"the aggregate says that the master is "
            f"'{case.declared.master or 'nobody'}', the pool that it is "
            f"'{actual or case.master.name}'",
            f"xenpool aggregate audit {case.declared.name} --fix",
            findings.at_fault(case.master),
        )


def pool_uuid(case: AuditCase, check: str) -> _Found:
    """Whether it is the pool that the aggregate began with."""
    if case.pool.uuid != case.declared.pool_uuid:
        yield _fail(
            check,
            f"the aggregate is the pool "
            f"{case.declared.pool_uuid or 'without uuid'}, its hosts are in "
            f"{case.pool.uuid}",
            f"xenpool aggregate audit {case.declared.name} --fix",
            findings.at_fault(case.pool, name=case.records.name),
        )


def stamp(case: AuditCase, check: str) -> _Found:
    """Whose pool it is, by its own record."""
    owner = case.pool.other_config.get(model.OWNER_KEY)
    at_fault = findings.at_fault(case.pool, name=case.records.name)
    if owner and owner != case.declared.uuid:
        yield _fail(
            check,
            f"the pool belongs to another aggregate, {owner}",
            f"if that one is gone for good: xe pool-param-set "
            f"uuid={case.pool.uuid} "
            f"other-config:{model.OWNER_KEY}={case.declared.uuid}",
            at_fault,
        )
    elif not owner:
        yield _warn(
            check,
            "the pool does not carry the aggregate's stamp",
            f"xe pool-param-set uuid={case.pool.uuid} "
            f"other-config:{model.OWNER_KEY}={case.declared.uuid}",
            at_fault,
        )


def name(case: AuditCase, check: str) -> _Found:
    """Whether pool and aggregate have one name."""
    if case.pool.name_label != case.declared.name:
        yield _warn(
            check,
            f"the pool is named '{case.pool.name_label}', the aggregate "
            f"'{case.declared.name}'",
            f"xe pool-param-set uuid={case.pool.uuid} "
            f"name-label='{case.declared.name}'",
            findings.at_fault(case.pool, name=case.records.name),
        )


def live(case: AuditCase, check: str) -> _Found:
    """Who is alive, and enabled."""
    for label, host in case.names:
        if host.uuid in case.joining:
            continue
        alive = case.records.is_live(host)
        declared = case.declared.host_of(host.uuid) is not None
        at_fault = findings.at_fault(host)
        if alive is None:
            yield _unknown(
                check, f"whether '{label}' is alive shows in no record"
            )
        elif not alive and declared:
            yield _fail(
                check,
                f"'{label}' at {host.address} is dead",
                f"start it, or: xenpool aggregate remove host "
                f"{case.declared.name} {label} --forget",
                at_fault,
            )
        elif alive and not host.enabled:
            yield _warn(
                check,
                f"'{label}' is disabled",
                f"xe host-enable uuid={host.uuid}",
                at_fault,
            )


def versions(case: AuditCase, check: str) -> _Found:
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
            yield _warn(
                check,
                f"'{label}' runs other software than the master: "
                f"{findings.listed(differing)}",
                f"on {label}: yum update, then reboot it",
                findings.at_fault(host),
            )


_VERSIONS = ('product_version', 'platform_version', 'xapi_build', 'xen')


def _version(host: objects.Host) -> dict[str, str]:
    return {key: host.software_version.get(key, '') for key in _VERSIONS}


def updates(case: AuditCase, check: str) -> _Found:
    """Updates that not every member has, or that are not complete."""
    wanted = _updates(case, case.master)
    for label, host in case.names:
        found = _updates(case, host)
        if found != wanted:
            yield _warn(
                check,
                f"'{label}' has other updates than the master: "
                f"{findings.listed(sorted(found ^ wanted))}",
                f"xe update-apply uuid=UPDATE host={host.uuid}",
                findings.at_fault(host),
            )
        if host.pending_guidances:
            yield _warn(
                check,
                f"updates of '{label}' are not complete: "
                f"{findings.listed(host.pending_guidances)}",
                f"xe host-disable uuid={host.uuid}; "
                f"xe host-reboot uuid={host.uuid}",
                findings.at_fault(host),
            )


def _updates(case: AuditCase, host: objects.Host) -> set[str]:
    known = {u.ref: u for u in case.records.updates.values()}
    return {
        known[ref].name_label or known[ref].uuid
        for ref in host.updates
        if ref in known
    }


def shared_storage(case: AuditCase, check: str) -> _Found:
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
                yield _warn(
                    check,
                    f"'{label}' has no connection to the shared storage "
                    f"{sr.name}",
                    f"xe pbd-create sr-uuid={sr.uuid} host-uuid={host.uuid} "
                    f"device-config:...",
                    findings.at_fault(sr, host),
                )
            elif pbd is not None and not pbd.currently_attached:
                yield _warn(
                    check,
                    f"the shared storage {sr.name} is not plugged on "
                    f"'{label}'",
                    f"xe pbd-plug uuid={pbd.uuid}",
                    findings.at_fault(sr, host),
                )


def tls(case: AuditCase, check: str) -> _Found:
    """Members whose TLS verification is not as the pool's."""
    wanted = case.pool.tls_verification_enabled
    for label, host in case.names:
        knows = 'tls_verification_enabled' in host.fields
        if knows and host.tls_verification_enabled != wanted:
            yield _warn(
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


def ha(case: AuditCase, check: str) -> _Found:
    """HA that could not keep its promise."""
    if not case.pool.ha_enabled:
        return
    wanted = case.pool.ha_host_failures_to_tolerate
    if case.pool.ha_overcommitted or case.pool.ha_plan_exists_for < wanted:
        yield _warn(
            check,
            f"HA shall tolerate {wanted} dead hosts and has a plan for "
            f"{case.pool.ha_plan_exists_for}",
            f"xe pool-param-set uuid={case.pool.uuid} "
            f"ha-host-failures-to-tolerate={case.pool.ha_plan_exists_for}",
            findings.at_fault(case.pool, name=case.records.name),
        )


def clocks(case: AuditCase, check: str) -> _Found:
    """How far the clocks are apart, ours among them."""
    offsets = dict(case.clocks or {})
    label = case.declared.host_of(case.master.uuid) or case.master.name
    offsets.setdefault(label, case.records.clock_offset)
    known = {k: v for k, v in offsets.items() if v is not None}
    for silent in sorted(offsets.keys() - known.keys()):
        yield _unknown(check, f"the clock of '{silent}' was not compared")
    known['this machine'] = 0.0
    first = min(known, key=known.__getitem__)
    last = max(known, key=known.__getitem__)
    if known[last] - known[first] > CLOCK_TOLERANCE:
        yield _warn(
            check,
            f"the clock of {last} is {known[last] - known[first]:.1f} s "
            f"ahead of that of {first}",
            'give all the same time servers, then: chronyc makestep',
        )


def certificates(case: AuditCase, check: str) -> _Found:
    """Certificates that end soon, or that belong to nobody."""
    hosts = {host.ref: label for label, host in case.names}
    for cert in case.records.certificates.values():
        at_fault = findings.at_fault(cert, name=cert.type)
        if cert.type in ('host', 'host_internal') and cert.host not in hosts:
            yield _warn(
                'residue',
                f"the pool keeps a certificate ({cert.type}) of a host that "
                f"it does not know",
                'xe pool-certificate-sync',
                at_fault,
            )
        elif case.now is not None and cert.not_after is not None:
            yield from _validity(
                check, case.now, cert, hosts.get(cert.host or '', 'the pool')
            )


def _validity(
    check: str, now: float, cert: objects.Certificate, label: str
) -> _Found:
    left = (cert.not_after or 0.0) - now
    what = f"the certificate ({cert.name or cert.type}) of '{label}'"
    remedy = f"on {label}: xe host-refresh-server-certificate host={label}"
    at_fault = findings.at_fault(cert, name=label)
    if left <= 0:
        yield _fail(check, f"{what} has expired", remedy, at_fault)
    elif left < CERTIFICATE_WARNING:
        days = int(left // 86400)
        yield _warn(check, f"{what} expires in {days} days", remedy, at_fault)


def views(case: AuditCase, check: str) -> _Found:
    """Members that take somebody else for their master."""
    leader = case.declared.host_of(case.master.uuid)
    for host, view in case.views.items():
        if view is None:
            yield _unknown(
                check,
                f"'{host}' does not answer, so its own view is unknown",
                f"xenpool host list ({host})",
            )
        elif host == leader:
            if view:
                yield _fail(
                    check,
                    f"'{host}' is the master, and itself takes {view} for it",
                    f"on {host}: xe pool-emergency-transition-to-master",
                    findings.at_fault(case.master),
                )
        elif view != case.master.address:
            yield _fail(
                check,
                f"'{host}' takes {view or 'itself'} for its master, which is "
                f"{case.master.address}",
                f"on {host}: xe pool-emergency-reset-master "
                f"master-address={case.master.address}",
            )


_AUDIT = collections.abc.Callable[[AuditCase, str], _Found]

CHECKS: tuple[tuple[str, str, _AUDIT, tuple[str, ...]], ...] = (
    ('members', 'declared and real members agree', membership, ()),
    ('master', 'metadata and pool name the same master', master, ()),
    ('pool-uuid', 'it is the pool that was recorded', pool_uuid, ()),
    ('owner', "the pool carries the aggregate's stamp", stamp, ()),
    ('name', 'pool and aggregate have one name', name, ()),
    ('live', 'all members are alive and enabled', live, ('host_metrics',)),
    ('member-views', 'all members name the same master', views, ()),
    ('versions', 'all members run the same software', versions, ()),
    ('updates', 'all members have the same updates', updates, ()),
    (
        'shared-storage',
        'the shared storage is plugged everywhere',
        shared_storage,
        ('SR', 'PBD'),
    ),
    ('tls', 'TLS verification is the same everywhere', tls, ()),
    ('ha', 'HA can keep its promise, or is off', ha, ()),
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
    member_views: collections.abc.Mapping[str, str | None],
    *,
    now: float | None = None,
    clocks: collections.abc.Mapping[str, float | None] | None = None,
    joining: collections.abc.Iterable[str] = (),
) -> tuple[model.Finding, ...]:
    """Return where the aggregate and its pool disagree, and what ails it.

    :param declared: what the aggregate says.
    :param pool: the pool's records, from its coordinator
        (``snapshot.AUDIT_CLASSES``).
    :param member_views: ``{compute host: the address that it names as its
        master, '' for itself, None for no answer}``.
    :param now: seconds since 1970, for the dates of certificates.
    :param clocks: ``{compute host: seconds by which its clock is ahead of
        ours}``; default: the coordinator's alone, as the snapshot has it.
    :param joining: uuids of hosts whose join is under way.
    """
    case = AuditCase(
        declared=declared,
        records=pool,
        views=member_views,
        now=now,
        clocks=clocks,
        joining=frozenset(joining),
    )
    return tuple(
        finding
        for check, holds, run, needs in CHECKS
        for finding in _evaluate(case, check, holds, run, needs)
    )


def _evaluate(
    case: AuditCase,
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
        return (_unknown(check, f"cannot be decided: {'; '.join(reasons)}"),)
    return tuple(run(case, check)) or (
        model.Finding(check, model.Severity.PASS, holds),
    )
