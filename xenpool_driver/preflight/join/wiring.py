# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Networks: what XAPI does not ask, and what hurts afterwards."""

from __future__ import annotations

import ipaddress

from xenpool_driver import bonding, findings, objects, snapshot
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases
from xenpool_driver.preflight.join import rewiring

_FLEETING = {'DHCP': 'DHCP', 'Autoconf': 'IPv6 autoconfiguration'}
"""Modes by which an address may change, and what they are called."""


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
    if missing:
        yield check.warning(
            f"{case.me.name} has no {findings.listed(missing)}, on which the "
            f"pool has networks",
            _renaming(case, missing, [mine[name] for name in extra]),
            findings.at_fault(*(theirs[name] for name in missing)),
        )
    if extra:
        yield check.warning(
            f"{case.me.name} has {findings.listed(extra)}, which "
            f"{case.master.name} has not; they get networks of their own",
            objects=findings.at_fault(*(mine[name] for name in extra)),
        )
    yield from _management_nic(case)


def _renaming(
    case: cases.JoinCase, missing: list[str], extra: list[objects.Pif]
) -> str:
    """Return how the joiner gets NICs of the missing names."""
    pairs = [
        f"{name}={pif.mac}"
        for name, pif in zip(missing, extra, strict=False)
        if pif.mac
    ]
    if not pairs:
        return (
            f"cable it, and see on {case.me.name}: "
            f"xe pif-scan host-uuid={case.me.uuid}"
        )
    return (
        f"on {case.me.name}: interface-rename --update {' '.join(pairs)}, "
        f"then reboot it"
    )


def _management_nic(case: cases.JoinCase) -> check.Problems:
    """A member's management is where the master's is.

    On a bond it is, too, when the joiner has it on a NIC of that bond: a
    member makes the bond itself at its first start, and the management moves
    with the NIC (``sync_networking.ml``, ``copy_bonds_from_master``).
    """
    ours = case.joiner.management_pif(case.me)
    other = case.pool.management_pif(case.master)
    if ours is None or other is None or ours.device == other.device:
        return
    members = rewiring.bond_members(case.pool, case.master, other.device)
    wanted = [pif.device for pif in members] or [other.device]
    if ours.device in wanted:
        return
    nics = _nics(case.joiner, case.me)
    device = next((name for name in wanted if name in nics), '')
    where = f", a bond of {findings.listed(wanted)}" if members else ''
    yield check.warning(
        f"the management of {case.me.name} is on {ours.device}, that of the "
        f"pool on {other.device}{where}",
        f"on {case.me.name}: {rewiring.onto(ours, device, ours.vlan)}"
        if device
        else '',
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
                f"uuid={network.uuid} MTU={other.mtu}"
                if network
                else '',
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
        names = [theirs[ref].device for ref in bond.slaves if ref in theirs]
        missing = sorted(name for name in names if name not in mine)
        if missing:
            yield check.warning(
                f"the pool bonds {findings.listed(missing)}, which "
                f"{case.me.name} has not",
                f"cable it, and see on {case.me.name}: "
                f"xe pif-scan host-uuid={case.me.uuid}",
                findings.at_fault(bond, name=findings.listed(missing)),
            )
        yield from _no_bond(
            case, bond, [mine[name] for name in names if name in mine]
        )


def _no_bond(
    case: cases.JoinCase, bond: objects.Bond, members: list[objects.Pif]
) -> check.Problems:
    """What the joiner would not bond, and nobody is told: see ``bonding``.

    :param members: its NICs that the pool bonds.
    """
    addressed = bonding.addressed(members)
    strange = bonding.of_another_type(members)
    if len(addressed) > 1:
        told = findings.listed(
            f"{pif.device} {_shown_address(pif)}" for pif in addressed
        )
        yield _not_bonded(
            case,
            bond,
            members,
            f"more than one of them has an address on {case.me.name} ({told})",
            'PIF_BOND_MORE_THAN_ONE_IP',
        )
    elif strange:
        told = findings.listed(
            f"{pif.device} {pif.primary_address_type}" for pif in members
        )
        yield _not_bonded(
            case,
            bond,
            members,
            f"their primary address types differ on {case.me.name} ({told})",
            'PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE',
        )


def _not_bonded(
    case: cases.JoinCase,
    bond: objects.Bond,
    members: list[objects.Pif],
    why: str,
    code: str,
) -> check.Problem:
    names = findings.listed(pif.device for pif in members)
    first = bonding.primary(members)
    return check.warning(
        f"the pool bonds {names}, and {why}: XAPI will not bond them there, "
        f"and only its log will say so ({code})",
        f"on {case.me.name}: " + findings.in_order(bonding.clearing(members)),
        findings.at_fault(
            *(pif for pif in members if pif is not first), bond, name=names
        ),
    )


def _shown_address(pif: objects.Pif) -> str:
    return findings.listed(_addresses(pif)) or f"by {bonding.mode(pif)}"


def sriovs(case: cases.JoinCase) -> check.Problems:
    """The pool's SR-IOV networks are made on the joiner, where they can be.

    Where they cannot, the joiner's log alone says so
    (``sync_networking.ml``, ``copy_network_sriovs_from_master``).
    """
    mine = _nics(case.joiner, case.me)
    theirs = {pif.ref: pif for pif in case.pool.pifs_of(case.master)}
    for sriov in case.pool.sriovs:
        logical = theirs.get(sriov.logical_pif or '')
        if logical is None:
            continue
        nic = mine.get(logical.device)
        network = case.pool.networks.get(logical.network or '')
        label = network.name_label if network else logical.device
        what = f"the SR-IOV network '{label}' of the pool is on"
        see = (
            f"on {case.me.name}: xe pif-param-get uuid={nic.uuid} "
            f"param-name=capabilities"
            if nic
            else f"on {case.me.name}: xe pif-scan host-uuid={case.me.uuid}"
        )
        if nic is not None and nic.capabilities is None:
            yield check.undecided(
                f"{what} {logical.device}; whether that of {case.me.name} "
                f"can serve it shows in no record",
                see,
            )
        elif nic is None or 'sriov' not in (nic.capabilities or ()):
            lacks = 'is not there' if nic is None else 'cannot do SR-IOV'
            yield check.warning(
                f"{what} {logical.device}, which {lacks} on {case.me.name}: "
                f"virtual machines on it cannot run there",
                f"use a NIC that can, or switch SR-IOV on in the BIOS of "
                f"{case.me.name}; {see}",
                findings.at_fault(network, nic, name=label),
            )


def dhcp(case: cases.JoinCase) -> check.Problems:
    """Members find their master by its address only, which must last.

    Neither does one that a host makes of what a router advertises: it
    changes with the router's prefix and with the NIC.
    """
    for host, pif in (
        (case.me, case.joiner.management_pif(case.me)),
        (case.master, case.pool.management_pif(case.master)),
    ):
        mode = bonding.mode(pif) if pif else 'None'
        if pif is None or mode not in _FLEETING:
            continue
        lease = 'fix the lease in the DHCP server, or ' * (mode == 'DHCP')
        yield check.warning(
            f"{pif.name} of {host.name} has its management address "
            f"{findings.listed(_addresses(pif))} by {_FLEETING[mode]}: when "
            f"it changes, the pool falls apart",
            f"{lease}on {host.name}: {rewiring.with_fixed_address(pif)}",
            findings.at_fault(pif, name=pif.name),
        )


def management_kind(case: cases.JoinCase) -> check.Problems:
    """XenCenter's rule: management on a VLAN needs a licence for it."""
    mine = case.joiner.management_pif(case.me)
    flag = case.me.license_params.get('restrict_management_on_vlan')
    if mine is not None and not mine.physical and flag == 'true':
        yield check.warning(
            f"the management of {case.me.name} is on {mine.name}, and its "
            f"licence wants it on a NIC",
            f"on {case.me.name}: {rewiring.onto(mine, mine.device)}",
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
            f"{rewiring.management_candidate(case.pool, case.master)}",
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
            # host-management-reconfigure does nothing with the present
            # management interface; a start writes the address down
            # (dbsync_slave.ml)
            f"on {case.master.name}: xe-toolstack-restart",
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
