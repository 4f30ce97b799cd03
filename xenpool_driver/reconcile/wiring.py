# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit of a pool's networks: bonds that a member did not make.

A member makes the bonds of its master at each start. What it cannot make it
logs, and nobody else hears of it (``sync_networking.ml``).
"""

from __future__ import annotations

from xenpool_driver import bonding, findings, objects
from xenpool_driver.reconcile import cases


def bonds(case: cases.AuditCase, check: str) -> cases.Found:
    """Bonds of the master that a living member lacks."""
    records = case.records
    for bond in records.bonds:
        master = records.pifs.get(bond.master or '')
        if master is None or master.host != case.master.ref:
            continue
        devices = {
            records.pifs[ref].device
            for ref in bond.slaves
            if ref in records.pifs
        }
        for label, host in case.names:
            if host.uuid in case.joining or not records.is_live(host):
                continue
            pifs = records.pifs_of(host)
            if any(pif.network == master.network for pif in pifs):
                continue
            nics = [p for p in pifs if p.physical and p.device in devices]
            yield cases.warn(
                check,
                f"'{label}' lacks {master.device}, the master's bond of "
                f"{findings.listed(sorted(devices))}",
                _remedy(label, nics),
                findings.at_fault(host, *nics),
            )


def _remedy(label: str, nics: list[objects.Pif]) -> str:
    """Return how the member makes the bond: when it starts again."""
    steps = [*bonding.clearing(nics), 'xe-toolstack-restart']
    return f"on {label}: {findings.in_order(steps)}"
