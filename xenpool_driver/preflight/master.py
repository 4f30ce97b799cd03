# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Everything that speaks against making a member the master.

A change that fails half-way leaves the new master broken and the pool split
(``xapi_pool.ml``, ``designate_new_master``): it needs every member, and time.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import re

from xenpool_driver import findings, model, objects, snapshot
from xenpool_driver.preflight import check as checks

SETTLING_TIME = 60.0
"""Seconds after a change of master before the next one (xen-api#6056)."""

_BLOCKING = {
    'ha_enable': 'HA_ENABLE_IN_PROGRESS',
    'ha_disable': 'HA_DISABLE_IN_PROGRESS',
    'cluster_create': 'CLUSTER_CREATE_IN_PROGRESS',
    'designate_new_master': 'DESIGNATE_NEW_MASTER_IN_PROGRESS',
    'tls_verification_enable': 'TLS_VERIFICATION_ENABLE_IN_PROGRESS',
    'configure_repositories': 'CONFIGURE_REPOSITORIES_IN_PROGRESS',
    'sync_updates': 'SYNC_UPDATES_IN_PROGRESS',
    'sync_bundle': 'SYNC_BUNDLE_IN_PROGRESS',
    'apply_updates': 'APPLY_UPDATES_IN_PROGRESS',
}
"""Pool operations that refuse others at once (``xapi_pool_helpers.ml``)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MasterCase:
    """A member that shall become the master.

    :ivar pool: the pool's records.
    :ivar host: the member's record.
    :ivar suspend_ha: whether HA will be switched off around it.
    :ivar unreachable: ``{uuid: why}`` of members that do not answer.
    :ivar emergency: the code with which the member says that it is in
        emergency mode; '' when it is not.
    :ivar designated_at: when the master last changed, seconds since 1970.
    :ivar now: seconds since 1970, or None.
    """

    pool: snapshot.PoolSnapshot
    host: objects.Host
    suspend_ha: bool = False
    unreachable: collections.abc.Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )
    emergency: str = ''
    designated_at: float | None = None
    now: float | None = None

    def lacks(self, need: str) -> str | None:
        """Say why ``pool.class`` is not known."""
        return self.pool.lacks(need.partition('.')[2])

    @property
    def record(self) -> objects.Pool:
        """The pool record."""
        if self.pool.pool is None:
            raise LookupError('a check does not declare what it needs')
        return self.pool.pool


def operations(case: MasterCase) -> checks.Problems:
    """What is going on forbids it, or delays it."""
    at_fault = findings.at_fault(case.record, name=case.pool.name)
    if case.record.is_psr_pending:
        yield checks.Problem(
            f"the pool {case.pool.name} is changing its secret",
            'xe pool-secret-rotate, with every member up',
            ('POOL_SECRET_ROTATION_PENDING',),
            at_fault,
        )
    for operation in sorted(set(case.record.current_operations.values())):
        code = _BLOCKING.get(operation)
        message = f"'{operation}' is going on in the pool {case.pool.name}"
        if code:
            yield checks.Problem(
                message, 'wait; see xe task-list', (code,), at_fault
            )
        else:
            yield checks.warning(
                f"{message}; the change will wait for it",
                'wait; see xe task-list',
                at_fault,
            )


def target_live(case: MasterCase) -> checks.Problems:
    """The new master must answer itself."""
    alive = case.pool.is_live(case.host)
    if alive is None:
        yield checks.undecided(
            f"whether {case.host.name} is alive shows in no record"
        )
    elif not alive:
        yield checks.Problem(
            f"{case.host.name} is dead",
            'name a member that lives',
            ('HOST_OFFLINE', case.host.ref),
            findings.at_fault(case.host),
        )
    elif not case.host.enabled:
        yield checks.warning(
            f"{case.host.name} is disabled",
            f"xe host-enable uuid={case.host.uuid}",
            findings.at_fault(case.host),
        )


_DISARMED = 'HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED'


def target_healthy(case: MasterCase) -> checks.Problems:
    """In emergency mode the new master would serve nobody.

    One whose HA was switched off on the host itself
    (``host.emergency_ha_disable``), while it is on in the pool, stays in
    that mode from its next start on (``xapi.ml``, ``on_server_restart`` of
    ``xapi_ha.ml``).
    """
    if not case.emergency:
        return
    why = f"it says {case.emergency}"
    remedy = f"on {case.host.name}: xe-toolstack-restart, then repeat"
    if case.emergency == _DISARMED:
        why = 'HA is switched off on it, and on in the pool'
        remedy = 'xe pool-ha-disable, wait until it is back, then repeat'
    yield checks.Problem(
        f"{case.host.name} is in emergency mode: {why}",
        remedy,
        (case.emergency,),
        findings.at_fault(case.host),
    )


def target_storage(case: MasterCase) -> checks.Problems:
    """What the master does for shared storage, it does through its own
    connection (``SRmaster`` in the device configuration, ``sm.ml``).

    XAPI tries to plug it at the start of the new master. Where that fails
    nobody can create or delete disks there (xen-api#2468).
    """
    for sr in case.pool.srs.values():
        if not sr.shared or sr.is_tools_sr:
            continue
        pbds = {pbd.host: pbd for pbd in case.pool.pbds_of_sr(sr)}
        present = pbds.get(case.record.master)
        mine = pbds.get(case.host.ref)
        if present is None or not present.currently_attached:
            continue
        if mine is not None and mine.currently_attached:
            continue
        remedy = (
            f"xe pbd-plug uuid={mine.uuid}"
            if mine is not None
            else findings.connecting(sr, case.host, present)
        )
        what = 'plugged' if mine is not None else 'connected'
        yield checks.warning(
            f"the shared storage {sr.name} is not {what} on "
            f"{case.host.name}: as the master it may not be able to create "
            f"or delete disks there",
            remedy,
            findings.at_fault(sr, case.host),
        )


def ha(case: MasterCase) -> checks.Problems:
    """With HA the pool elects its master itself."""
    if not case.record.ha_enabled:
        return
    at_fault = findings.at_fault(case.record, name=case.pool.name)
    if case.suspend_ha:
        yield checks.warning(
            f"HA of {case.pool.name} will be switched off meanwhile",
            objects=at_fault,
        )
        return
    yield checks.Problem(
        f"HA is enabled on the pool {case.pool.name}",
        'repeat with --suspend-ha, or: xe pool-ha-disable',
        ('HA_IS_ENABLED',),
        at_fault,
    )


def members_live(case: MasterCase) -> checks.Problems:
    """Every member takes part; one that does not answer fails it late.

    Recorded: with a dead member the call blocks for over a minute, and its
    pool operation stays.
    """
    for host in case.pool.hosts.values():
        alive = case.pool.is_live(host)
        reason = case.unreachable.get(host.uuid)
        if host.ref == case.host.ref and not reason:
            continue
        if reason or alive is False:
            yield checks.Problem(
                f"the member {host.name} at {host.address} is dead or "
                f"unreachable ({reason or 'no heartbeat'}); the change needs "
                f"every member",
                f"switch on {host.typed}, or, if it is gone for good: "
                + findings.forgetting(
                    case.pool.aggregate, host, case.pool.coordinator
                ),
                objects=findings.at_fault(host),
            )
        elif alive is None:
            yield checks.undecided(
                f"whether the member {host.name} is alive shows in no record"
            )


def _version(host: objects.Host) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(
            int(number)
            for number in re.findall(
                '[0-9]+', host.software_version.get(key, '')
            )
        )
        for key in ('platform_version', 'xapi_build', 'build_number')
    )


def versions(case: MasterCase) -> checks.Problems:
    """A member that is newer than its master does not start again."""
    newer = [
        host
        for host in case.pool.hosts.values()
        if _version(host) > _version(case.host)
    ]
    if newer:
        yield checks.Problem(
            f"{case.host.name} runs an older version than "
            f"{findings.listed(host.name for host in newer)}, which would "
            f"not come back (HOST_XAPI_VERSION_HIGHER_THAN_COORDINATOR)",
            f"on {case.host.name}: yum update, then reboot it",
            objects=findings.at_fault(case.host, *newer),
        )


def settled(case: MasterCase) -> checks.Problems:
    """A change soon after another one has broken pools (xen-api#6056)."""
    if case.now is None:
        return
    moments = {'the master has changed': case.designated_at}
    master = case.pool.coordinator
    if master is not None:
        started = master.other_config.get('agent_start_time', '')
        moments[f"the toolstack of {master.name} has started"] = _seconds(
            started
        )
    for what, moment in moments.items():
        if moment is not None and 0 <= case.now - moment < SETTLING_TIME:
            ago = case.now - moment
            is_refused = moment == case.designated_at
            danger = 'a change of the master so soon can leave it broken'
            nevertheless = '' if is_refused else '; it is made all the same'
            yield checks.Problem(
                f"{what} only {ago:.0f} s ago; {danger}{nevertheless}",
                f"wait {SETTLING_TIME - ago:.0f} s" if is_refused else '',
                severity=(
                    model.Severity.FAIL if is_refused else model.Severity.WARN
                ),
            )


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


Check = checks.Check[MasterCase]

CHECKS: tuple[Check, ...] = (
    Check(
        'pool-operations',
        'nothing else is going on in the pool',
        operations,
        ('pool.pool',),
    ),
    Check(
        'target-live',
        'the new master is alive',
        target_live,
        ('pool.host_metrics',),
    ),
    Check(
        'target-healthy',
        'the new master is not in emergency mode',
        target_healthy,
    ),
    Check(
        'target-storage',
        'the shared storage is plugged on the new master',
        target_storage,
        ('pool.pool', 'pool.SR', 'pool.PBD'),
    ),
    Check('ha', 'HA is off', ha, ('pool.pool',)),
    Check(
        'members-live',
        'every member is alive',
        members_live,
        ('pool.host_metrics',),
    ),
    Check('versions', 'no member is newer than the new master', versions),
    Check('settled', 'the master has not changed just now', settled),
)
"""Everything, XAPI's own rules first and in its order."""


def check(
    pool: snapshot.PoolSnapshot,
    host_uuid: str,
    *,
    suspend_ha: bool = False,
    unreachable: collections.abc.Mapping[str, str] | None = None,
    emergency: str = '',
    designated_at: float | None = None,
    now: float | None = None,
) -> model.Report:
    """Return everything that speaks against making a member the master.

    :param pool: the pool's records, from its coordinator.
    :param host_uuid: the new master.
    :param suspend_ha: HA will be switched off around it.
    :param unreachable: ``{uuid: why}`` of members that were asked and do
        not answer.
    :param emergency: the code with which the member says that it is in
        emergency mode.
    :param designated_at: when the master last changed, seconds since 1970.
    :param now: seconds since 1970.
    """
    host = pool.host_by_uuid(host_uuid)
    if host is None or host is pool.coordinator:
        return _no_change(pool, host, host_uuid)
    case = MasterCase(
        pool=pool,
        host=host,
        suspend_ha=suspend_ha,
        unreachable=unreachable or {},
        emergency=emergency,
        designated_at=designated_at,
        now=now,
    )
    return checks.report(
        host.name,
        [f for one in CHECKS for f in checks.evaluate(one, case)],
    )


def _no_change(
    pool: snapshot.PoolSnapshot, host: objects.Host | None, host_uuid: str
) -> model.Report:
    """Return the report on a stranger, or on the present master."""
    if host is None:
        finding = model.Finding(
            'membership',
            model.Severity.FAIL,
            f"{host_uuid} is no member of {pool.name}",
            'name a member of the pool',
        )
    else:
        finding = model.Finding(
            'membership',
            model.Severity.PASS,
            f"{host.name} is the master already",
        )
    return checks.report(host.name if host else host_uuid, [finding])
