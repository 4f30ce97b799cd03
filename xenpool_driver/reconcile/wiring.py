# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit of a pool's networks: bonds that a member did not make.

A member makes the bonds of its master at each start. What it cannot make it
logs, and nobody else hears of it (``sync_networking.ml``).
"""

from __future__ import annotations

from xenpool_driver import findings, objects
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
    """Return how the member makes the bond: when it starts again.

    It bonds no two NICs with addresses (PIF_BOND_MORE_THAN_ONE_IP).
    """
    addressed = [pif for pif in nics if pif.ip_configuration_mode != 'None']
    stays = next((pif for pif in addressed if pif.management), None)
    others = [pif for pif in addressed if pif is not stays]
    if stays is None:
        others = others[1:]
    return f"on {label}: " + '; '.join(
        [
            *(
                f"xe pif-reconfigure-ip uuid={pif.uuid} mode=none"
                for pif in others
            ),
            'xe-toolstack-restart',
        ]
    )
