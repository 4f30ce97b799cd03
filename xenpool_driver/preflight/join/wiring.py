# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Networks: what XAPI does not ask, and what hurts afterwards."""

from __future__ import annotations

import ipaddress

from xenpool_driver import findings, objects, snapshot
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases


def _nics(
    records: snapshot.PoolSnapshot, host: objects.Host
) -> dict[str, objects.Pif]:
    return {pif.device: pif for pif in records.pifs_of(host) if pif.physical}


def nic_names(case: cases.JoinCase) -> check.Problems:
    """A pool's network is tied to a NIC's name: eth0 is eth0 everywhere."""
    mine = _nics(case.joiner, case.me)
    theirs = _nics(case.pool, case.master)
    missing = sorted(theirs.keys() - mine.keys())
    extra = sorted(mine.keys() - theirs.keys())
    remedy = (
        f"on {case.me.name}: interface-rename -l, then interface-rename -u "
        f"DEVICE=MAC, and reboot it"
    )
    if missing:
        yield check.warning(
            f"{case.me.name} has no {findings.listed(missing)}, on which the "
            f"pool has networks",
            remedy,
            findings.at_fault(*(theirs[name] for name in missing)),
        )
    if extra:
        yield check.warning(
            f"{case.me.name} has {findings.listed(extra)}, which "
            f"{case.master.name} has not; they get networks of their own",
            remedy,
            findings.at_fault(*(mine[name] for name in extra)),
        )
    ours = case.joiner.management_pif(case.me)
    other = case.pool.management_pif(case.master)
    if ours and other and ours.device != other.device:
        yield check.warning(
            f"the management of {case.me.name} is on {ours.device}, that of "
            f"the pool on {other.device}",
            remedy,
            findings.at_fault(ours, other),
        )


def mtu(case: cases.JoinCase) -> check.Problems:
    """The joiner's networks take the MTU of the pool's of the same bridge."""
    theirs = {
        case.pool.bridge_of(pif): pif for pif in case.pool.pifs_of(case.master)
    }
    for pif in case.joiner.pifs_of(case.me):
        other = theirs.get(case.joiner.bridge_of(pif))
        if other is not None and pif.physical and pif.mtu != other.mtu:
            network = case.joiner.networks.get(pif.network or '')
            yield check.warning(
                f"{pif.name} of {case.me.name} has MTU {pif.mtu}, the pool "
                f"uses {other.mtu} there",
                f"on {case.me.name}: xe network-param-set "
                f"uuid={network.uuid if network else 'NETWORK'} "
                f"MTU={other.mtu}",
                findings.at_fault(pif, other),
            )


def vlans(case: cases.JoinCase) -> check.Problems:
    """The pool's VLANs are made on the joiner too; its NIC must be there."""
    mine = _nics(case.joiner, case.me)
    for pif in case.pool.pifs_of(case.master):
        if pif.vlan < 0 or not pif.vlan_master_of or pif.device in mine:
            continue
        if pif.device.startswith('bond'):
            continue
        network = case.pool.networks.get(pif.network or '')
        label = network.name_label if network else pif.name
        yield check.warning(
            f"the pool has VLAN {pif.vlan} ('{label}') on {pif.device}, "
            f"which {case.me.name} has not",
            f"cable it, and see on {case.me.name}: "
            f"xe pif-scan host-uuid={case.me.uuid}",
            findings.at_fault(pif, network),
        )


def bonds(case: cases.JoinCase) -> check.Problems:
    """The pool's bonds are made on the joiner too, of NICs of these names."""
    mine = _nics(case.joiner, case.me)
    theirs = {pif.ref: pif for pif in case.pool.pifs_of(case.master)}
    for bond in case.pool.bonds:
        missing = sorted(
            theirs[ref].device
            for ref in bond.slaves
            if ref in theirs and theirs[ref].device not in mine
        )
        if missing:
            yield check.warning(
                f"the pool bonds {findings.listed(missing)}, which "
                f"{case.me.name} has not",
                f"cable it, and see on {case.me.name}: "
                f"xe pif-scan host-uuid={case.me.uuid}",
                findings.at_fault(bond, name=findings.listed(missing)),
            )


def management_kind(case: cases.JoinCase) -> check.Problems:
    """XenCenter's rule: management on a VLAN needs a licence for it."""
    mine = case.joiner.management_pif(case.me)
    flag = case.me.license_params.get('restrict_management_on_vlan')
    if mine is not None and not mine.physical and flag == 'true':
        yield check.warning(
            f"the management of {case.me.name} is on {mine.name}, and its "
            f"licence wants it on a NIC",
            f"on {case.me.name}: xe host-management-reconfigure pif-uuid=PIF",
            findings.at_fault(mine),
        )


def pool_address(case: cases.JoinCase) -> check.Problems:
    """The address that is handed over must be one where it can be met."""
    address = case.master.address
    asked = case.live.answering_uuid
    if not address:
        yield check.Problem(
            f"the coordinator {case.master.name} has no address in its "
            f"record; it may still be in its first boot",
            f"wait, or on {case.master.name}: "
            f"xe host-management-reconfigure pif-uuid=PIF",
            objects=findings.at_fault(case.master),
        )
        return
    if asked is not None and asked != case.master.uuid:
        yield check.Problem(
            f"at {address} answers another host ({asked}) than the "
            f"coordinator {case.master.name}",
            'correct connection_url of the master in the configuration',
            objects=findings.at_fault(case.master),
        )
        return
    theirs = case.pool.management_pif(case.master)
    mine = case.joiner.management_pif(case.me)
    if theirs is not None and address not in _addresses(theirs):
        yield check.warning(
            f"the record of {case.master.name} says {address}, its "
            f"management interface has "
            f"{findings.listed(_addresses(theirs)) or 'no address'}",
            f"on {case.master.name}: xe host-management-reconfigure "
            f"pif-uuid={theirs.uuid}",
            findings.at_fault(case.master, theirs),
        )
    if mine is not None and not _same_subnet(mine, address):
        yield check.undecided(
            f"{address} is in no subnet of the management of "
            f"{case.me.name}; whether a router leads there shows in no "
            f"record",
            f"on {case.me.name}: curl -k https://{_host_part(address)}/",
        )


def _host_part(address: str) -> str:
    return f"[{address}]" if ':' in address else address


def _addresses(pif: objects.Pif) -> list[str]:
    found = [pif.ip] if pif.ip else []
    return found + [text.partition('/')[0] for text in pif.ipv6]


def _same_subnet(pif: objects.Pif, address: str) -> bool:
    try:
        return pif.is_beside(ipaddress.ip_address(address))
    except ValueError:
        return False
