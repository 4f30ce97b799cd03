# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What is said of a host that shall leave, where not the member answers."""

from __future__ import annotations

import collections.abc

from xenpool_driver import findings, identity
from xenpool_driver.identity import Who
from xenpool_driver.preflight import check as checks
from xenpool_driver.preflight import leaving

EjectCase = leaving.EjectCase


def problem(case: EjectCase, found: identity.Identified) -> checks.Problem:
    """Return what speaks against ejecting, and the way out.

    :param found: who answers; not the member.
    """
    dead = case.pool.is_live(case.host) is False
    return checks.Problem(
        said(case, found),
        way_out(case, found),
        ('HOST_OFFLINE', case.host.ref) if dead else None,
        findings.at_fault(case.host),
    )


def said(case: EjectCase, found: identity.Identified) -> str:
    """Return who answers at the address of the host."""
    return f"'{case.host.name}' {_SAID[found.who](found)}"


def way_out(case: EjectCase, found: identity.Identified) -> str:
    """Return what to do about a host that is not the member."""
    forget = case.removing('--forget', '--yes')
    host = case.host.typed
    master = case.pool.coordinator
    if found.who is Who.NOBODY:
        return f"switch on {host}, or, if it is gone for good: {forget}"
    if found.who is Who.STARTING:
        return (
            f"wait a minute; if it stays so, switch off {host}, then: {forget}"
        )
    if found.who is Who.RIVAL and master is not None:
        return (
            f"on {host}: xe pool-emergency-reset-master "
            f"master-address={master.address}"
        )
    if found.who is Who.LOCKED:
        return f"correct section [{host}] of the configuration"
    if found.who is Who.COPY:
        return (
            f"switch off the copy, or correct connection_url in section "
            f"[{host}]"
        )
    return forget


_Words = collections.abc.Callable[[identity.Identified], str]

_SAID: collections.abc.Mapping[Who, _Words] = {
    Who.MEMBER: lambda found: 'answers, so it is not dead',
    Who.LEFT: lambda found: 'serves a pool of its own already',
    Who.LOST: lambda found: 'is not known to the pool any more',
    Who.ANEW: lambda found: (
        f"was installed anew: the host that answers there is {found.uuid}"
    ),
    Who.COPY: lambda found: (
        'is not what answers at its address: that is a copy of it'
    ),
    Who.RIVAL: lambda found: (
        'is the master of a second copy of this pool'
        + (f", with {', '.join(found.others)}" if found.others else '')
    ),
    Who.STRANGER: lambda found: (
        f"{identity.answer(found)}, which is another pool"
    ),
    Who.ALONE: lambda found: 'serves a pool of its own already',
    Who.STARTING: lambda found: (
        f"answers {found.seen.code}: its toolstack is starting, or looks for "
        f"its master"
    ),
    Who.LOCKED: lambda found: f"does not let us in: {identity.answer(found)}",
    Who.NOBODY: lambda found: f"does not answer ({identity.answer(found)})",
}
"""What is said of each."""
