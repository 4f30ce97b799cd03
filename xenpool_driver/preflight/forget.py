# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Everything that speaks against forgetting a member, and what stays behind.

``host.destroy`` deletes the record of a dead host and touches no machine. It
deletes the host and its control domain only (``xapi_host.ml``): storage that
only this host was connected to keeps its records, and nothing collects them
(``db_gc_util.ml``).
"""

from __future__ import annotations

from xenpool_driver import (
    domains,
    findings,
    identity,
    model,
    snapshot,
)
from xenpool_driver.identity import Who
from xenpool_driver.preflight import answers, eject, leaving
from xenpool_driver.preflight import check as checks

EjectCase = leaving.EjectCase


def not_coordinator(case: EjectCase) -> checks.Problems:
    """The master is alive by itself."""
    if case.record.master == case.host.ref:
        yield checks.Problem(
            f"{case.host.name} is the master of the pool, and answers",
            eject.handing_over(case),
            ('HOST_IS_LIVE', case.host.ref),
            findings.at_fault(case.host),
        )


def identities(case: EjectCase) -> checks.Problems:
    """A member that answers is not dead, whatever it answers."""
    found = case.found
    if found is None or found.who in identity.GONE:
        return
    yield checks.Problem(
        answers.said(case, found),
        _instead(case, found),
        objects=findings.at_fault(case.host),
    )


def _instead(case: EjectCase, found: identity.Identified) -> str:
    """Return what to do with a host that is there."""
    if found.who is Who.STARTING or case.is_stuck:
        return case.switched_off
    if found.who is Who.MEMBER:
        return f"remove it without --forget: {case.removing()}"
    return answers.way_out(case, found)


def not_alive(case: EjectCase) -> checks.Problems:
    """XAPI asks a host itself that it takes for alive."""
    if case.pool.is_live(case.host) and case.record.master != case.host.ref:
        yield checks.warning(
            f"the master still takes {case.host.name} for alive; it "
            f"will ask it, and refuse if it answers (HOST_IS_LIVE)",
            objects=findings.at_fault(case.host),
        )


def no_residents(case: EjectCase) -> checks.Problems:
    """Virtual machines that are recorded on the host must be declared off."""
    if case.guests:
        names = findings.listed(vm.name for vm in case.guests)
        yield checks.Problem(
            f"virtual machines are recorded on the dead host "
            f"{case.host.name}: {names}",
            findings.after_guests(case.host, case.guests),
            ('HOST_HAS_RESIDENT_VMS', case.host.ref),
            findings.at_fault(*case.guests),
        )


def domain_left(case: EjectCase) -> checks.Problems:
    """A control domain's record that ``host.destroy`` does not delete."""
    vm = case.blocking
    if vm is not None:
        yield checks.warning(
            f"the record {vm.uuid} of the control domain of {case.host.name} "
            f"stays; with it the host would never be ready after another "
            f"join",
            f"when {case.host.typed} is forgotten: "
            + domains.destroying(case.pool.aggregate or case.pool.name),
            findings.at_fault(vm),
        )


def roles(case: EjectCase) -> checks.Problems:
    """What pool and hosts use by default, and no host will be connected to."""
    return leaving.roles(case, '; no host will be connected to it')


def suspended(case: EjectCase) -> checks.Problems:
    """Suspended machines whose memory image lies on storage that only the
    dead host was connected to."""
    for vm, kind, image, sr in leaving.memories(case):
        yield checks.warning(
            f"the {kind} {vm.name} cannot be resumed any more: its memory "
            f"image {image.name} lies on {sr.name}, which only "
            f"{case.host.name} was connected to",
            objects=findings.at_fault(vm, image, sr),
        )


def storage_left(case: EjectCase) -> checks.Problems:
    """Storage whose records stay without any connection."""
    for sr in case.leaving_srs:
        disks = case.pool.vdis_of(sr)
        users = case.pool.users_of(sr)
        yield checks.warning(
            f"the record of the storage {sr.name} stays, connected to no "
            f"host"
            + (
                f", with {findings.counted(len(disks), 'disk')} "
                f"({findings.sized(sum(d.virtual_size for d in disks))})"
                if disks
                else ''
            )
            + (
                f" of {findings.listed(vm.name for vm in users)}" * bool(users)
            ),
            f"a minute after {case.host.typed} is forgotten: xe sr-forget "
            f"uuid={sr.uuid}",
            findings.at_fault(sr, *disks),
        )


Check = checks.Check[EjectCase]

CHECKS: tuple[Check, ...] = (
    Check(
        'not-master',
        'the host is not the master',
        not_coordinator,
        ('pool.pool',),
    ),
    Check('identity', 'the member does not answer', identities),
    Check('ha', 'HA is off', eject.ha, ('pool.pool',)),
    Check(
        'dead',
        'the coordinator agrees that it is dead',
        not_alive,
        ('pool.pool', 'pool.host_metrics'),
    ),
    Check(
        'resident-vms',
        'no virtual machine is recorded there',
        no_residents,
        ('pool.VM',),
    ),
    Check(
        'left-over-domain',
        'no control domain is left without a host',
        domain_left,
        ('pool.VM',),
    ),
    Check(
        'storage-roles',
        'hosts stay connected to what pool and hosts use by default',
        roles,
        ('pool.pool', 'pool.PBD', 'pool.SR'),
    ),
    Check(
        'suspended-vms',
        'no suspended virtual machine loses its memory',
        suspended,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VM'),
    ),
    Check(
        'storage-left',
        'no storage is left without a host',
        storage_left,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VBD', 'pool.VM'),
    ),
)
"""``host.destroy``: for a host that is dead."""


def check(
    pool: snapshot.PoolSnapshot,
    host_uuid: str,
    *,
    suspend_ha: bool = False,
    found: identity.Identified | None = None,
) -> model.Report:
    """Return everything that speaks against forgetting a dead member.

    :param pool: the pool's records, from its coordinator.
    :param host_uuid: the dead member.
    :param suspend_ha: HA will be switched off around it.
    :param found: who answers at the address of the member; None: not asked.
    """
    host = pool.host_by_uuid(host_uuid)
    if host is None:
        return eject.absent(pool, host_uuid)
    case = EjectCase(pool=pool, host=host, suspend_ha=suspend_ha, found=found)
    return checks.report(
        host.name,
        [f for one in CHECKS for f in checks.evaluate(one, case)],
    )
