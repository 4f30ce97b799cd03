# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What is said of a host that shall leave, where not the member answers."""

from __future__ import annotations

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
    if case.is_stuck and (vm := case.blocking):
        return (
            f"'{case.host.name}' {identity.words(found.seen)}, and will never "
            f"be ready: the record of its control domain ({vm.uuid}) is "
            f"halted and on no host"
        )
    return f"'{case.host.name}' {identity.said(found)}"


def way_out(case: EjectCase, found: identity.Identified) -> str:
    """Return what to do about a host that is not the member."""
    forget = case.forgetting
    host = case.host.typed
    master = case.pool.coordinator
    if found.who is Who.STARTING or case.is_stuck:
        return case.switched_off
    if found.who is Who.NOBODY:
        return f"switch on {host}, or, if it is gone for good: {forget}"
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
