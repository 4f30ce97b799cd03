# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit of the members: who they are, alive or dead, and of one mind."""

from __future__ import annotations

import collections.abc

from xenpool_driver import findings, identity, model, objects
from xenpool_driver.identity import Who
from xenpool_driver.reconcile import cases, stuck
from xenpool_driver.reconcile.cases import fail, unknown, warn

Found = cases.Found


def identities(case: cases.AuditCase, check: str) -> Found:
    """Members at whose address somebody else answers, or nobody."""
    for host, uuid in case.declared.uuids.items():
        if uuid not in case.joining and case.records.host_by_uuid(uuid):
            yield from _told(case, check, host)


def _told(case: cases.AuditCase, check: str, host: str) -> Found:
    """Say who answers at the address of a host, unless it is the member."""
    found = case.answers.get(host)
    vm = stuck.blocking(case, host)
    if found and vm is not None and found.who in stuck.IDLE:
        forget = forgetting(case, host)
        yield stuck.tell(case, check, host, found, vm, forget)
        return
    tell = _TELLS.get(found.who) if found else None
    if found and tell:
        yield tell(case, check, host, found)


def forgetting(case: cases.AuditCase, host: str) -> str:
    """Return the commands that let a host go without touching it."""
    forget = cases.typed(
        *('aggregate', 'remove', 'host', case.declared.name, host),
        *('--forget', '--yes'),
    )
    record = case.records.host_by_uuid(case.declared.uuids.get(host, ''))
    if record is None:
        return forget
    guests = case.records.guests_on(record)
    return findings.after_guests(record, guests, forget)


def _dropping(
    case: cases.AuditCase, host: str, found: identity.Identified
) -> str:
    """Return the command after which the host is no member any more."""
    if found.record is not None:
        return forgetting(case, host)
    return case.fixing


def _silent(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    record = found.record
    believed = ''
    if record is not None and case.records.is_live(record):
        believed = '; the master still takes it for alive'
    return fail(
        check,
        f"'{host}' does not answer ({identity.answer(found)}){believed}",
        f"switch on {host}, or, if it is gone for good: "
        f"{_dropping(case, host, found)}",
        findings.at_fault(record),
    )


def _anew(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    old = case.declared.uuids.get(host, '')
    left = (
        f"; the pool still has the record {old} of the old installation"
        if found.record
        else ''
    )
    return fail(
        check,
        f"'{host}' was installed anew: the host that answers there is "
        f"{found.uuid}{left}",
        _dropping(case, host, found),
        findings.at_fault(found.record),
    )


def _left(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    listed = (
        'the pool still has its record'
        if found.record
        else 'the pool has no record of it'
    )
    return fail(
        check,
        f"'{host}' serves a pool of its own; {listed}",
        _dropping(case, host, found),
        findings.at_fault(found.record),
    )


def _lost(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    return fail(
        check,
        f"'{host}' takes itself for a member of this pool, which has no "
        f"record of it: its record was destroyed, or its join broke off",
        case.fixing,
    )


def _copy(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    record = found.record
    where = f" at {record.address}" if record else ''
    return fail(
        check,
        f"the host that answers at the address of '{host}' is a copy: it has "
        f"the host uuid {found.uuid} of {record.name if record else '?'}"
        f"{where}",
        f"switch off the copy, or correct connection_url in section [{host}]",
        findings.at_fault(record),
    )


def _rival(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    others = findings.listed(found.others)
    second = f"'{host}' is the master of a second copy of this pool" + (
        f", with {others}" if others else ''
    )
    remedy = (
        _obeying(host, case.master.address)
        if found.record is not None
        else case.fixing
    )
    leader = case.declared.host_of(case.master.uuid) or case.master.typed
    if identity.followers(host, case.answers) < identity.followers(
        leader, case.answers
    ):
        return fail(
            check,
            f"{second}; the master of this aggregate is {case.master.name}",
            remedy,
            findings.at_fault(found.record),
        )
    return fail(
        check,
        f"{second}; '{leader}' is the master of the other one, and as many "
        f"members follow the one as the other: both claim the pool. What was "
        f"changed since then on the one that gives way is lost: if "
        f"'{leader}' stays the master, what was changed on '{host}'; if "
        f"'{host}' does, what was changed on '{leader}'",
        f"{remedy}, or, if {host} shall be the master: "
        f"{_yielding(case, leader, found)}",
        findings.at_fault(found.record),
    )


def _obeying(host: str, address: str) -> str:
    """Return what lets a host follow the master at an address."""
    return (
        f"on {host}: xe pool-emergency-reset-master master-address={address}"
    )


def _yielding(
    case: cases.AuditCase, leader: str, found: identity.Identified
) -> str:
    """Return what lets the pool's master give way to a second one.

    One that the second master does not know cannot follow it
    (``HOST_UNKNOWN_TO_MASTER``); the pool goes on without it.

    :param leader: the compute host name of the master.
    :param found: the second master.
    """
    own = found.seen.own
    second = own.coordinator if own else None
    if own and second and own.host_by_uuid(case.master.uuid):
        return _obeying(leader, second.address)
    return f"switch off {leader}, then: {case.fixing}"


def _stranger(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    if found.others:
        what = f"is the master of another pool, with {', '.join(found.others)}"
    else:
        what = f"{identity.answer(found)}, which is another pool"
    record = found.record
    if record is not None and case.records.is_live(record):
        return fail(
            check,
            f"the host that answers at the address of '{host}' {what}; "
            f"the member itself is alive at {record.address}",
            f"correct connection_url in section [{host}]",
            findings.at_fault(record),
        )
    return fail(
        check,
        f"'{host}' {what}",
        _dropping(case, host, found),
        findings.at_fault(record),
    )


def _starting(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    return warn(
        check,
        f"'{host}' answers {found.seen.code}: its toolstack is starting, or "
        f"looks for its master",
        f"wait a minute, then: {case.auditing}",
        findings.at_fault(found.record),
    )


def _locked(
    case: cases.AuditCase,
    check: str,
    host: str,
    found: identity.Identified,
) -> model.Finding:
    return fail(
        check,
        f"'{host}' does not let us in: {identity.answer(found)}",
        locked_remedy(host, found),
        findings.at_fault(found.record),
    )


def locked_remedy(host: str, found: identity.Identified) -> str:
    """Return what opens a host that does not let us in."""
    if found.seen.untrusted:
        return (
            f"make sure that it is the right host, then set ca_file or "
            f"certificate_fingerprint in section [{host}]"
        )
    return (
        f"correct connection_username and connection_password in section "
        f"[{host}]"
    )


_Tell = collections.abc.Callable[
    [cases.AuditCase, str, str, identity.Identified], model.Finding
]

_TELLS: collections.abc.Mapping[Who, _Tell] = {
    Who.NOBODY: _silent,
    Who.ANEW: _anew,
    Who.LEFT: _left,
    Who.LOST: _lost,
    Who.COPY: _copy,
    Who.RIVAL: _rival,
    Who.STRANGER: _stranger,
    Who.STARTING: _starting,
    Who.LOCKED: _locked,
}
"""What is said of each; of a member nothing."""


def membership(case: cases.AuditCase, check: str) -> Found:
    """Hosts that are only declared, or only there."""
    for host in case.declared.hosts:
        uuid = case.declared.uuids.get(host)
        if uuid is None:
            yield fail(
                check,
                f"the aggregate has no XenServer uuid for '{host}'",
                case.fixing,
            )
        elif case.records.host_by_uuid(uuid):
            continue
        elif case.tells(host):
            yield from _told(case, check, host)
        else:
            yield fail(
                check,
                f"'{host}' ({uuid}) is in the aggregate, but not in the pool",
                case.fixing,
            )
    for record in case.records.hosts.values():
        known = case.declared.host_of(record.uuid)
        if known is None and record.uuid not in case.joining:
            yield from _undeclared(case, check, record)


def _undeclared(
    case: cases.AuditCase, check: str, host: objects.Host
) -> Found:
    """A member that nobody declared, or what a failed join left behind."""
    at_fault = findings.at_fault(host)
    if case.records.is_live(host) is False and not host.enabled:
        yield warn(
            'residue',
            f"the pool has a dead record of {host.name} at {host.address}, "
            f"left by a failed join or eject",
            f"xe host-forget uuid={host.uuid}",
            at_fault,
        )
        return
    placed = host.uuid in case.placed
    yield fail(
        check,
        f"{host.name} at {host.address} is in the pool, but not in the "
        f"aggregate",
        case.fixing
        if placed or case.is_foreign
        else f"add a section for it to the configuration, then: {case.fixing}",
        at_fault,
    )


def live(case: cases.AuditCase, check: str) -> Found:
    """Who is alive, and enabled, as the master has it."""
    for label, host in case.names:
        if host.uuid in case.joining or case.tells(label):
            continue
        if stuck.blocking(case, label) is not None:
            continue  # which its identity tells of
        alive = case.records.is_live(host)
        declared = case.declared.host_of(host.uuid) is not None
        at_fault = findings.at_fault(host)
        if alive is None:
            yield unknown(
                check, f"whether '{label}' is alive shows in no record"
            )
        elif not alive and declared:
            yield fail(
                check,
                f"'{host.name}' at {host.address} is dead",
                f"switch on {label}, or, if it is gone for good: "
                f"{forgetting(case, label)}",
                at_fault,
            )
        elif alive and not host.enabled:
            yield warn(
                check,
                f"'{host.name}' is disabled",
                f"xe host-enable uuid={host.uuid}",
                at_fault,
            )


def views(case: cases.AuditCase, check: str) -> Found:
    """Members that take somebody else for their master."""
    leader = case.declared.host_of(case.master.uuid)
    for host, found in case.answers.items():
        view = found.seen.master
        if found.who is not Who.MEMBER or view is None:
            continue
        if host == leader:
            if view:
                yield fail(
                    check,
                    f"'{host}' is the master, and itself takes {view} for it",
                    f"on {host}: xe pool-emergency-transition-to-master",
                    findings.at_fault(case.master),
                )
        elif not identity.same_address(view, case.master.address):
            yield fail(
                check,
                f"'{host}' takes {view or 'itself'} for its master, which is "
                f"{case.master.address}",
                f"on {host}: xe pool-emergency-reset-master "
                f"master-address={case.master.address}",
            )
