# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How interfaces are put right: the commands of remedies, filled in."""

from __future__ import annotations

import ipaddress

from xenpool_driver import objects, snapshot


def is_addressed(pif: objects.Pif) -> bool:
    """Say whether an interface is set up to have an address.

    XAPI looks at the mode, not at the address (``xapi_bond.ml``, ``create``).
    """
    if pif.primary_address_type == 'IPv6':
        return pif.ipv6_configuration_mode != 'None'
    return pif.ip_configuration_mode != 'None'


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


def without_address(pif: objects.Pif) -> str:
    """Return what to type to take an interface's address away."""
    if pif.primary_address_type == 'IPv6':
        return f"xe pif-reconfigure-ipv6 uuid={pif.uuid} mode=none"
    return f"xe pif-reconfigure-ip uuid={pif.uuid} mode=none"


def with_fixed_address(pif: objects.Pif) -> str:
    """Return what to type to keep the address that DHCP has given."""
    if pif.primary_address_type == 'IPv6':
        words = [
            f"xe pif-reconfigure-ipv6 uuid={pif.uuid} mode=static",
            *(f"IPv6={text}" for text in _lasting(pif)[:1]),
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


def with_address(pif: objects.Pif, beside: objects.Pif | None) -> str:
    """Return what to type to give an interface an address.

    :param beside: an interface in the wanted subnet.
    """
    command = f"xe pif-reconfigure-ip uuid={pif.uuid} mode=dhcp"
    subnet = _subnet(beside) if beside else ''
    return (
        f"{command} (or mode=static with a free address"
        f"{f' of {subnet}' if subnet else ''} and its netmask)"
    )


def onto(pif: objects.Pif, device: str, vlan: int = -1) -> str:
    """Return what to type to move a host's management, address and all.

    ``xe-reset-networking`` sets the network of a host up anew and reboots
    it; it keeps nothing but the management interface that it is told.

    :param pif: the present management interface.
    :param device: the NIC that shall carry it.
    :param vlan: the tag that it shall have; -1 for none.
    """
    words = [f"xe-reset-networking --device={device}"]
    words.append(f"--vlan={vlan}" if vlan >= 0 else '--novlan')
    if pif.primary_address_type == 'IPv6':
        mode = pif.ipv6_configuration_mode.lower()
        words.append(f"--mode=none --mode-v6={mode}")
        if mode == 'static':
            words += [f"--ipv6={text}" for text in _lasting(pif)[:1]]
            words.append(_option('gateway-v6', pif.ipv6_gateway))
    else:
        mode = pif.ip_configuration_mode.lower()
        words.append(f"--mode={mode}")
        if mode == 'static':
            words.append(f"--ip={pif.ip} --netmask={pif.netmask}")
            words.append(_option('gateway', pif.gateway))
    words.append(_option('dns', pif.dns))
    return ' '.join(filter(None, words)) + ', which reboots it'


def to_family(pif: objects.Pif, theirs: objects.Pif) -> str:
    """Return what to type to manage a host by the other kind of address.

    XAPI refuses to change the primary address type of a management interface
    (``PIF_IS_MANAGEMENT_IFACE``, ``xapi_pif.ml``) and to move the management
    to an interface of another one (``PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE``,
    ``xapi_host.ml``).

    :param pif: the management interface that shall change.
    :param theirs: that of the other side.
    """
    wanted = theirs.primary_address_type
    is_ipv6 = wanted == 'IPv6'
    mode = 'autoconf' if is_ipv6 else 'dhcp'
    command = 'pif-reconfigure-ipv6' if is_ipv6 else 'pif-reconfigure-ip'
    subnet = _subnet(theirs)
    tag = f"--vlan={pif.vlan}" if pif.vlan >= 0 else '--novlan'
    modes = '--mode=none --mode-v6=autoconf' if is_ipv6 else '--mode=dhcp'
    free = f" of {subnet}" if subnet else ''
    return (
        f"xe {command} uuid={pif.uuid} mode={mode} (or mode=static with a "
        f"free {wanted} address{free}); then xe-reset-networking "
        f"--device={pif.device} {tag} {modes} (with the same modes and "
        f"addresses), which reboots it; or install it anew with {wanted} "
        f"management"
    )


def management_candidate(
    records: snapshot.PoolSnapshot, host: objects.Host
) -> str:
    """Return what to type to give a host a management interface."""
    for pif in records.pifs_of(host):
        if is_addressed(pif) and not pif.bond_slave_of:
            return f"xe host-management-reconfigure pif-uuid={pif.uuid}"
    return f"xe pif-list host-uuid={host.uuid}"


def _lasting(pif: objects.Pif) -> list[str]:
    """Return the IPv6 addresses of an interface, link-local ones apart."""
    found = []
    for text in pif.ipv6:
        try:
            if not ipaddress.ip_interface(text).is_link_local:
                found.append(text)
        except ValueError:
            continue
    return found


def _subnet(pif: objects.Pif) -> str:
    """Return the subnet of an interface's main address, or ''."""
    if pif.primary_address_type == 'IPv6':
        texts = _lasting(pif)
    else:
        texts = [f"{pif.ip}/{pif.netmask}"] if pif.ip else []
    for text in texts:
        try:
            return str(ipaddress.ip_interface(text).network)
        except ValueError:
            continue
    return ''


def _word(name: str, value: str) -> str:
    return f"{name}={value}" if value else ''


def _option(name: str, value: str) -> str:
    return f"--{name}={value}" if value else ''
