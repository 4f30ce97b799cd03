# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How interfaces are put right: the commands of remedies, filled in."""

from __future__ import annotations

import collections.abc
import ipaddress

from xenpool_driver import bonding, identity, objects, snapshot

_Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_LOOKED_AT = 1024
"""How many addresses of a subnet are looked at for a free one."""


def bond_members(
    records: snapshot.PoolSnapshot, host: objects.Host, device: str
) -> tuple[objects.Pif, ...]:
    """Return the NICs of a bond of a host; empty if it is no bond.

    :param device: the bond's device, such as ``bond0``.
    """
    pifs = {pif.ref: pif for pif in records.pifs_of(host)}
    for bond in records.bonds:
        master = pifs.get(bond.master or '')
        if master is not None and master.device == device:
            return tuple(pifs[ref] for ref in bond.slaves if ref in pifs)
    return ()


def with_fixed_address(pif: objects.Pif) -> str:
    """Return what to type to keep the address that DHCP has given."""
    if pif.primary_address_type == 'IPv6':
        words = [
            f"xe pif-reconfigure-ipv6 uuid={pif.uuid} mode=static",
            *(f"IPv6={text}" for text in lasting(pif)[:1]),
            _word('gateway', pif.ipv6_gateway),
        ]
    else:
        words = [
            f"xe pif-reconfigure-ip uuid={pif.uuid} mode=static",
            _word('IP', pif.ip),
            _word('netmask', pif.netmask),
            _word('gateway', pif.gateway),
        ]
    words.append(_word('DNS', pif.dns))
    return ' '.join(filter(None, words))


def with_address(
    pif: objects.Pif,
    beside: objects.Pif | None,
    family: str = '',
    taken: collections.abc.Container[str] = (),
) -> str:
    """Return what to type to give an interface an address that lasts.

    :param beside: an interface in the wanted subnet.
    :param family: ``IPv4`` or ``IPv6``; '' for that of ``beside``.
    :param taken: addresses that the records show to be in use.
    """
    family = family or (beside or pif).primary_address_type
    is_ipv6 = family == 'IPv6'
    command = 'pif-reconfigure-ipv6' if is_ipv6 else 'pif-reconfigure-ip'
    free = _free(beside, family, taken) if beside else None
    if free is None:
        return (
            f"xe {command} uuid={pif.uuid} mode={_dynamic(family)} (or "
            f"mode=static with a free address"
            f"{'' if is_ipv6 else ' and its netmask'})"
        )
    address = f"IP={free.ip} netmask={free.netmask}"
    if is_ipv6:
        address = f"IPv6={free}"
    return (
        f"xe {command} uuid={pif.uuid} mode=static {address} "
        f"({free.ip} is used in no record; any other free address of "
        f"{free.network} will do, too)"
    )


def _dynamic(family: str) -> str:
    return 'autoconf' if family == 'IPv6' else 'dhcp'


def _free(
    beside: objects.Pif,
    family: str,
    taken: collections.abc.Container[str],
) -> _Interface | None:
    """Return the next address in a subnet that no record shows."""
    found = _own(beside, family)
    if found is None:
        return None
    last = found.network.broadcast_address
    for step in range(1, _LOOKED_AT):
        try:
            address = found.ip + step
        except ValueError:  # the last one that there is
            return None
        if int(address) >= int(last):
            return None
        if str(address) not in taken:
            return ipaddress.ip_interface(
                f"{address}/{found.network.prefixlen}"
            )
    return None


def addresses(*sides: snapshot.PoolSnapshot) -> set[str]:
    """Return all addresses that the records of pools show."""
    found: set[str] = set()
    for side in sides:
        for pif in side.pifs.values():
            found |= {pif.ip, pif.gateway, pif.ipv6_gateway}
            found |= {identity.normal(t.partition('/')[0]) for t in pif.ipv6}
        found |= {identity.normal(h.address) for h in side.hosts.values()}
    return found


def onto(pif: objects.Pif, device: str, vlan: int = -1) -> str:
    """Return what to type to move a host's management, address and all.

    ``xe-reset-networking`` sets the network of a host up anew and reboots
    it; it keeps nothing but the management interface that it is told.

    :param pif: the present management interface.
    :param device: the NIC that shall carry it.
    :param vlan: the tag that it shall have; -1 for none.
    """
    is_ipv6 = pif.primary_address_type == 'IPv6'
    words = [f"--mode={pif.ip_configuration_mode.lower()}"]
    if is_ipv6:
        mode = pif.ipv6_configuration_mode.lower()
        words = [f"--mode=none --mode-v6={mode}"]
    if bonding.mode(pif) == 'Static':
        words += _static(pif, pif.primary_address_type)
    return _resetting(device, vlan, [*words, _option('dns', pif.dns)])


def _resetting(device: str, vlan: int, words: list[str]) -> str:
    tag = f"--vlan={vlan}" if vlan >= 0 else '--novlan'
    command = [f"xe-reset-networking --device={device}", tag, *words]
    return ' '.join(filter(None, command)) + ', which reboots it'


def _static(pif: objects.Pif, family: str) -> list[str]:
    """Return the options that keep an address of an interface."""
    if family == 'IPv6':
        return [
            *(f"--ipv6={text}" for text in lasting(pif)[:1]),
            _option('gateway-v6', pif.ipv6_gateway),
        ]
    return [
        f"--ip={pif.ip} --netmask={pif.netmask}",
        _option('gateway', pif.gateway),
    ]


def to_family(
    pif: objects.Pif,
    theirs: objects.Pif,
    taken: collections.abc.Container[str],
) -> str:
    """Return what to type to manage a host by the other kind of address.

    XAPI refuses to change the primary address type of a management interface
    (``PIF_IS_MANAGEMENT_IFACE``, ``xapi_pif.ml``) and to move the management
    to an interface of another one (``PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE``,
    ``xapi_host.ml``). An address of that kind that is there is kept.

    :param pif: the management interface that shall change.
    :param theirs: that of the other side.
    :param taken: addresses that the records show to be in use.
    """
    wanted = theirs.primary_address_type
    anew = f"or install it anew with {wanted} management"
    if _own(pif, wanted) is not None:
        reset = _resetting(
            pif.device,
            pif.vlan,
            [
                _modes(wanted),
                *_static(pif, wanted),
                _option('dns', pif.dns),
            ],
        )
        return f"{reset}; {anew}"
    free = _free(theirs, wanted, taken)
    words = [_modes(wanted)]
    if free is not None:
        gateway = theirs.gateway
        words += [f"--ip={free.ip} --netmask={free.netmask}"]
        if wanted == 'IPv6':
            gateway = theirs.ipv6_gateway
            words = [_modes(wanted), f"--ipv6={free}"]
        name = 'gateway-v6' if wanted == 'IPv6' else 'gateway'
        words.append(_option(name, gateway))
    else:
        words = [_modes(wanted, _dynamic(wanted))]
    reset = _resetting(pif.device, pif.vlan, words)
    giving = with_address(pif, theirs, wanted, taken)
    return f"{giving}; then {reset}; {anew}"


def _modes(family: str, mode: str = 'static') -> str:
    """Return the options of ``xe-reset-networking`` for a kind of address."""
    if family == 'IPv6':
        return f"--mode=none --mode-v6={mode}"
    return f"--mode={mode}"


def management_candidate(
    records: snapshot.PoolSnapshot, host: objects.Host
) -> str:
    """Return what to type to give a host a management interface."""
    for pif in records.pifs_of(host):
        if bonding.is_addressed(pif) and not pif.bond_slave_of:
            return f"xe host-management-reconfigure pif-uuid={pif.uuid}"
    return f"xe pif-list host-uuid={host.uuid}"


def lasting(pif: objects.Pif) -> list[str]:
    """Return the IPv6 addresses of an interface, link-local ones apart."""
    found = []
    for text in pif.ipv6:
        try:
            if not ipaddress.ip_interface(text).is_link_local:
                found.append(text)
        except ValueError:
            continue
    return found


def _own(pif: objects.Pif, family: str) -> _Interface | None:
    """Return an interface's address of one kind with its subnet, or None."""
    if family == 'IPv6':
        texts = lasting(pif)
    else:
        texts = [f"{pif.ip}/{pif.netmask}"] if pif.ip else []
    for text in texts:
        try:
            return ipaddress.ip_interface(text)
        except ValueError:
            continue
    return None


def _word(name: str, value: str) -> str:
    return f"{name}={value}" if value else ''


def _option(name: str, value: str) -> str:
    return f"--{name}={value}" if value else ''
