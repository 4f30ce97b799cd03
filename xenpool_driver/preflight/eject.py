# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Everything that speaks against an eject, and all that it would destroy.

An ejected host wipes its local disks and reboots (``xapi_pool.ml``,
``eject_self``); there is no way back.
"""

from __future__ import annotations

import re

from xenpool_driver import findings, identity, model, snapshot
from xenpool_driver.preflight import answers, evacuation, leaving, losses
from xenpool_driver.preflight import check as checks

EjectCase = leaving.EjectCase
"""A member that shall leave."""


def secret_rotation(case: EjectCase) -> checks.Problems:
    """No pool operation starts while the pool's secret changes."""
    if case.record.is_psr_pending:
        yield checks.Problem(
            f"the pool {case.pool.name} is changing its secret",
            'xe pool-secret-rotate, with every member up',
            ('POOL_SECRET_ROTATION_PENDING',),
            findings.at_fault(case.record, name=case.pool.name),
        )


def operations(case: EjectCase) -> checks.Problems:
    """The eject would wait for up to two hours (``xapi_pool_helpers.ml``)."""
    for operation in sorted(set(case.record.current_operations.values())):
        if operation != 'apply_updates':
            yield checks.warning(
                f"'{operation}' is going on in the pool; the eject will wait "
                f"for it",
                'wait; see xe task-list',
                findings.at_fault(case.record, name=case.pool.name),
            )


def identities(case: EjectCase) -> checks.Problems:
    """The eject is carried out by the host itself, so it must be there.

    XAPI forwards the call to the host: with a dead one that it still takes
    for alive this takes 100 s (recorded).
    """
    if case.found is not None and not case.answers:
        yield answers.problem(case, case.found)


def live(case: EjectCase) -> checks.Problems:
    """The master must take the host for alive."""
    if not case.answers:
        return
    alive = case.pool.is_live(case.host)
    if alive is None:
        yield checks.undecided(
            f"whether {case.host.name} is alive shows in no record"
        )
    elif not alive:
        yield checks.Problem(
            f"{case.host.name} is dead, so it cannot eject itself",
            f"switch on {case.host.typed}, or, if it is gone for good: "
            f"{case.forgetting}",
            ('HOST_OFFLINE', case.host.ref),
            findings.at_fault(case.host),
        )


def not_master(case: EjectCase) -> checks.Problems:
    """The master cannot go while others remain."""
    if case.record.master != case.host.ref:
        return
    if case.has_left_mastership:
        yield checks.warning(
            f"{case.host.name} is the master of the pool, and hands it over "
            f"first",
            objects=findings.at_fault(case.host),
        )
    else:
        yield checks.Problem(
            f"{case.host.name} is the master of the pool",
            handing_over(case),
            ('INTERNAL_ERROR', 'Xapi_pool.Cannot_eject_master'),
            findings.at_fault(case.host),
        )


def handing_over(case: EjectCase) -> str:
    """Return how another host of the pool becomes the master first."""
    others = [
        host
        for host in case.pool.hosts.values()
        if host.ref != case.host.ref and case.pool.is_live(host) is not False
    ]
    if not others:
        return 'switch on another member, which can become the master'
    return (
        f"hand the pool over first: "
        f"{case.removing('--successor', others[0].typed)}"
    )


def ha(case: EjectCase) -> checks.Problems:
    """HA forbids it."""
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


def updating(case: EjectCase) -> checks.Problems:
    """Updates forbid it.

    Since ejects are operations of the pool they do not even begin before the
    updates have ended: XAPI tries for two hours.
    """
    if 'apply_updates' in case.record.current_operations.values():
        yield checks.Problem(
            f"updates are being applied in the pool {case.pool.name}",
            'wait until they have ended; see: xe task-list',
            None if _waits(case) else ('NOT_SUPPORTED_DURING_UPGRADE',),
            findings.at_fault(case.record, name=case.pool.name),
        )


def _waits(case: EjectCase) -> bool:
    """Say whether ejects are operations of the pool: since 1.316."""
    master = case.pool.coordinator
    version = master.software_version.get('xapi_build', '') if master else ''
    found = re.match(r'(\d+)\.(\d+)', version)
    known = tuple(map(int, found.groups())) if found else (0, 0)
    # Some builds say 0.0; all of them are newer.
    return known == (0, 0) or known >= (1, 316)


def residents(case: EjectCase) -> checks.Problems:
    """No machine may be there that is not halted; paused ones count."""
    if not case.guests:
        return
    names = findings.listed(
        f"{vm.name} ({vm.power_state.lower()})" for vm in case.guests
    )
    at_fault = findings.at_fault(*case.guests)
    if case.drain:
        yield checks.warning(
            f"virtual machines will be moved away from {case.host.name}: "
            f"{names}",
            objects=at_fault,
        )
        return
    if case.is_gone:
        yield checks.Problem(
            f"virtual machines are recorded on {case.host.name}, which is "
            f"not there: {names}",
            findings.after_guests(case.host, case.guests),
            ('OPERATION_NOT_ALLOWED', 'VM resident on host'),
            at_fault,
        )
        return
    yield checks.Problem(
        f"virtual machines are on {case.host.name}: {names}",
        'repeat with --drain, or: '
        + findings.in_order(evacuation.shutdown(vm) for vm in case.guests),
        ('OPERATION_NOT_ALLOWED', 'VM resident on host'),
        at_fault,
    )


def stuck(case: EjectCase) -> checks.Problems:
    """What ``host.evacuate`` would refuse, found before anything is done."""
    if case.drain and case.stuck is not None:
        yield from evacuation.problems(
            case.pool, case.host, case.stuck, suspend_ha=case.suspend_ha
        )


def unpluggable(case: EjectCase) -> checks.Problems:
    """Storage that is in use on the host cannot be unplugged."""
    guests = {vm.ref for vm in case.guests}
    here = {
        vm.ref
        for vm in case.pool.vms.values()
        if vm.resident_on == case.host.ref and vm.ref not in guests
    }
    for pbd in case.pool.pbds_of(case.host):
        sr = case.pool.srs.get(pbd.sr) if pbd.sr else None
        if sr is None or not pbd.currently_attached:
            continue
        held = [
            (vdi, vbd)
            for vdi in case.pool.vdis_of(sr)
            for vbd in case.pool.vbds_of(vdi)
            if vbd.currently_attached and vbd.vm in here
        ]
        if held:
            names = findings.listed(vdi.name for vdi, _ in held)
            yield checks.Problem(
                f"the storage {sr.name} cannot be unplugged from "
                f"{case.host.name}: its control domain uses {names}",
                findings.in_order(
                    f"xe vbd-unplug uuid={vbd.uuid}" for _, vbd in held
                ),
                objects=findings.at_fault(sr, *(vdi for vdi, _ in held)),
            )


Check = checks.Check[EjectCase]

CHECKS: tuple[Check, ...] = (
    Check(
        'pool-secret',
        "the pool's secret is not being changed",
        secret_rotation,
        ('pool.pool',),
        '1',
    ),
    Check(
        'pool-operations',
        'nothing else is going on in the pool',
        operations,
        ('pool.pool',),
        '1',
    ),
    Check('identity', 'the host answers, and is the member', identities),
    Check('live', 'the host is alive', live, ('pool.host_metrics',), '2'),
    Check(
        'not-master',
        'the host is not the master',
        not_master,
        ('pool.pool',),
        '2a',
    ),
    Check('ha', 'HA is off', ha, ('pool.pool',), '2b'),
    Check(
        'updating',
        'no updates are being applied',
        updating,
        ('pool.pool',),
        '2c',
    ),
    Check(
        'resident-vms',
        'no virtual machine is on the host',
        residents,
        ('pool.VM',),
        '2d',
    ),
    Check(
        'evacuation',
        'every virtual machine can move away, where that was asked for',
        stuck,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VBD', 'pool.VM'),
    ),
    Check(
        'storage-in-use',
        "the host's storage can be unplugged",
        unpluggable,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VBD', 'pool.VM'),
        '2e',
    ),
    *losses.CHECKS,
)
"""Everything, XAPI's own rules first and in its order."""

_OF_THE_GONE = tuple(
    one
    for one in CHECKS
    if one not in losses.CHECKS
    and one.name not in ('evacuation', 'storage-in-use')
)
"""What speaks against ejecting a host that is not there."""


def check(
    pool: snapshot.PoolSnapshot,
    host_uuid: str,
    *,
    allow_data_loss: bool = False,
    drain: bool = False,
    suspend_ha: bool = False,
    stuck: evacuation.Evacuation | None = None,
    successor: str = '',
    found: identity.Identified | None = None,
) -> model.Report:
    """Return everything that speaks against ejecting a member.

    :param pool: the pool's records, from its coordinator; read
        ``snapshot.EJECT_CLASSES``.
    :param host_uuid: the member.
    :param allow_data_loss: the loss of local disks was agreed to.
    :param drain: its virtual machines will be moved away first.
    :param suspend_ha: HA will be switched off around it.
    :param stuck: what XAPI answered about moving them away.
    :param successor: uuid of the host that will be the master by then.
    :param found: who answers at the address of the member; None: not asked.
    """
    host = pool.host_by_uuid(host_uuid)
    if host is None:
        return absent(pool, host_uuid)
    case = EjectCase(
        pool=pool,
        host=host,
        found=found,
        allow_data_loss=allow_data_loss,
        drain=drain,
        suspend_ha=suspend_ha,
        stuck=stuck,
        successor=successor,
    )
    # A host that is not there wipes nothing, and nothing is moved off it.
    asked = _OF_THE_GONE if case.is_gone else CHECKS
    return checks.report(
        host.name,
        [f for one in asked for f in checks.evaluate(one, case)],
    )


def absent(pool: snapshot.PoolSnapshot, host_uuid: str) -> model.Report:
    """Return the report about a host that the pool does not know."""
    reason = pool.lacks('host')
    return checks.report(
        host_uuid,
        [
            model.Finding(
                'membership',
                model.Severity.UNKNOWN if reason else model.Severity.PASS,
                reason or f"{host_uuid} is no member of {pool.name}",
            )
        ],
    )
