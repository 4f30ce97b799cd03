# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Which NICs of a host XAPI makes a bond of (``xapi_bond.ml``, ``create``).

It refuses NICs of different primary address types
(``PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE``), and more than one NIC with an
address (``PIF_BOND_MORE_THAN_ONE_IP``). A member that makes the bonds of its
master only logs the refusal (``sync_networking.ml``).
"""

from __future__ import annotations

import collections.abc

from xenpool_driver import objects

_Nics = collections.abc.Sequence[objects.Pif]


def mode(pif: objects.Pif) -> str:
    """Return how an interface gets its address of the primary type."""
    return _mode(pif, pif.primary_address_type)


def _mode(pif: objects.Pif, family: str) -> str:
    if family == 'IPv6':
        return pif.ipv6_configuration_mode
    return pif.ip_configuration_mode


def is_addressed(pif: objects.Pif) -> bool:
    """Say whether an interface is set up to have an address.

    XAPI looks at the mode of the primary type, not at the address.
    """
    return mode(pif) != 'None'


def addressed(nics: _Nics) -> list[objects.Pif]:
    """Return the NICs that are set up to have an address."""
    return [pif for pif in nics if is_addressed(pif)]


def primary(nics: _Nics) -> objects.Pif:
    """Return the NIC whose address the bond takes over.

    :param nics: at least one.
    """
    management = [pif for pif in nics if pif.management]
    return [*management, *addressed(nics), *nics][0]


def of_another_type(nics: _Nics) -> list[objects.Pif]:
    """Return the NICs whose primary address type is not the bond's."""
    if not nics:
        return []
    wanted = primary(nics).primary_address_type
    return [pif for pif in nics if pif.primary_address_type != wanted]


def without_address(pif: objects.Pif, family: str = '') -> str:
    """Return what to type to take an interface's address away.

    :param family: ``IPv4`` or ``IPv6``; '' for the primary type.
    """
    family = family or pif.primary_address_type
    command = 'pif-reconfigure-ip' + 'v6' * (family == 'IPv6')
    return f"xe {command} uuid={pif.uuid} mode=none"


def clearing(nics: _Nics) -> list[str]:
    """Return what to type so that XAPI will bond these NICs; may be empty.

    The management interface stays as it is: XAPI refuses to change the
    primary address type of that one (``PIF_IS_MANAGEMENT_IFACE``).
    """
    if not nics:
        return []
    steps = []
    first = primary(nics)
    wanted = first.primary_address_type
    for pif in nics:
        if pif is first:
            continue
        for family in dict.fromkeys((pif.primary_address_type, wanted)):
            if _mode(pif, family) != 'None':
                steps.append(without_address(pif, family))
        if pif.primary_address_type != wanted and not pif.management:
            steps.append(
                f"xe pif-set-primary-address-type uuid={pif.uuid} "
                f"primary_address_type={wanted}"
            )
    return steps
