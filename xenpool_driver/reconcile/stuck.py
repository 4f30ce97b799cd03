# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit of control domains that run nowhere: stuck members, and what
they leave behind; see :mod:`xenpool_driver.domains`."""

from __future__ import annotations

from xenpool_driver import domains, findings, identity, model, objects
from xenpool_driver.identity import Who
from xenpool_driver.reconcile import cases
from xenpool_driver.reconcile.cases import fail, unknown, warn

IDLE = frozenset({Who.MEMBER, Who.STARTING, Who.NOBODY})
"""Who answers where a member is stuck, or was switched off because of it. Its
toolstack restarts every minute or two, and names its master until then."""


def blocking(case: cases.AuditCase, host: str) -> objects.Vm | None:
    """Return the record that keeps a member from being ready, or None.

    :param host: its compute host name.
    """
    record = case.records.host_by_uuid(case.declared.uuids.get(host, ''))
    if record is None or record.uuid in case.joining:
        return None
    return domains.blocking(record, case.domains, case.records.hosts)


def tell(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
    vm: objects.Vm,
    forgetting: str,
) -> model.Finding:
    """Return the finding about a member that is stuck.

    :param vm: the record that keeps it from being ready.
    :param forgetting: the command that forgets the member.
    """
    return fail(
        check,
        f"'{host}' {identity.words(found.seen)}, and will never be ready: "
        f"the record of its control domain ({vm.uuid}) is halted and on no "
        f"host, as happens when the toolstack of the master restarts during "
        f"a join",
        f"switch off {host}, then: {forgetting}; "
        f"then: {domains.destroying(case.declared.name)}",
        findings.at_fault(found.record, vm),
    )


def left_over(case: cases.AuditCase, check: str) -> cases.Found:
    """Records of control domains whose hosts are no members any more."""
    if case.domains_unread:
        yield unknown(check, f"cannot be decided: VM: {case.domains_unread}")
        return
    if case.joining:  # what a join brings looks the same for a while
        return
    for vm in domains.left_over(case.domains, case.records.hosts.values()):
        yield warn(
            check,
            f"the pool keeps the record {vm.uuid} ({vm.name}) of a control "
            f"domain whose host is no member; if that host joins again, it "
            f"will never be ready",
            domains.destroying(case.declared.name),
            findings.at_fault(vm),
        )
