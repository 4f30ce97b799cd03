# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit of a pool's storage: what points to nothing, what is unplugged.

An eject unplugs the storage of its host first, and does not plug it again
when it fails later (``xapi_pool.ml``, ``eject_self``); the SRs that it takes
away may be those that the pool uses by default.
"""

from __future__ import annotations

import collections.abc

from xenpool_driver import findings, model, objects, storage_roles
from xenpool_driver.reconcile import cases


def roles(case: cases.AuditCase, check: str) -> cases.Found:
    """Fields of the pool and its hosts that name an SR which is gone, or
    which no host is connected to."""
    known = case.records.srs
    target = storage_roles.refuge(case.records)
    for owner, name, found in storage_roles.pointers(
        case.records, lambda ref: ref not in known
    ):
        yield model.Finding(
            check,
            model.Severity.WARN,
            f"the {' and the '.join(found)} of {name} is gone: the field "
            f"points to nothing",
            storage_roles.pointing(owner, found.values(), target),
            objects=findings.at_fault(owner, name=name),
        )
    for sr in known.values():
        if case.records.is_connected(sr):
            continue
        for owner, name, found in storage_roles.pointers(
            case.records, sr.ref.__eq__
        ):
            yield model.Finding(
                check,
                model.Severity.WARN,
                f"{sr.name} is the {' and the '.join(found)} of {name}, and "
                f"no host is connected to it",
                storage_roles.pointing(owner, found.values(), target),
                objects=findings.at_fault(owner, sr, name=name),
            )


def unconnected(case: cases.AuditCase, check: str) -> cases.Found:
    """Storage that no host is connected to: a forgotten host leaves it."""
    leaving: list[objects.Storage] = []
    left: list[objects.Storage] = []
    for sr in case.records.srs.values():
        if case.records.is_connected(sr):
            continue
        # Connections of a host that has left go with the next garbage
        # collection; until then XAPI says SR_HAS_PBD.
        (leaving if case.records.pbds_of_sr(sr) else left).append(sr)
    for found, tell, first in (
        (left, cases.warn, ''),
        (leaving, cases.unknown, 'wait a minute, then: '),
    ):
        if found:
            names = findings.listed(sr.name for sr in found)
            forget = '; '.join(f"xe sr-forget uuid={sr.uuid}" for sr in found)
            yield tell(
                check,
                f"storage is connected to no host: {names}; a host that was "
                f"forgotten leaves it so{_users(case, found)}",
                first + forget,
                findings.at_fault(*found),
            )


def _users(
    case: cases.AuditCase, found: collections.abc.Iterable[objects.Storage]
) -> str:
    """Return what is lost with the records of storage, for a sentence."""
    told = [
        f"{findings.listed(vm.name for vm in users)} on {sr.name}"
        for sr in found
        if (users := case.records.users_of(sr))
    ]
    if not told:
        return ''
    return (
        f"; virtual machines have disks or memory recorded there, which "
        f"sr-forget takes from them: {'; '.join(told)}"
    )


def unplugged(case: cases.AuditCase, check: str) -> cases.Found:
    """Storage of one host alone that is not plugged there.

    What is shared is looked at for every member (``shared-storage``).
    """
    for label, host in case.names:
        if host.uuid in case.joining or case.records.is_live(host) is False:
            continue
        for pbd in case.records.pbds_of(host):
            sr = case.records.srs.get(pbd.sr) if pbd.sr else None
            if sr is None or pbd.currently_attached:
                continue
            if sr.shared and not sr.is_tools_sr:
                continue
            yield model.Finding(
                check,
                model.Severity.WARN,
                f"the storage {sr.name} is not plugged on '{label}'; "
                f"an eject that failed half-way leaves it so",
                f"xe pbd-plug uuid={pbd.uuid}",
                objects=findings.at_fault(sr, host),
            )
