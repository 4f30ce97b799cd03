# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What only looks: adoptions, removals, audits, inventories."""

from __future__ import annotations

import collections.abc
import dataclasses
import shlex

from xenpool_driver import (
    exceptions,
    identity,
    model,
    operation,
    pool_states,
    reconcile,
    snapshot,
    store,
)
from xenpool_driver.preflight import first
from xenpool_driver.verbs import (
    common,
    judging,
    leaving,
    leftovers,
    naming,
    passwords,
    sight,
    stamps,
)
from xenpool_driver.xapi import client

LINGERING = 60.0
"""Seconds for which XAPI may keep certificates of a host that has left: its
garbage collection runs every 30 s (recorded: up to 40 s)."""


def check_adoption(
    site: operation.Site,
    row: store.Aggregate,
    host: str,
    named_stamp: str = '',
) -> model.Report:
    """Judge a pool that shall be adopted through one of its members.

    :param named_stamp: another controller's stamp that may be replaced.
    :raises XapiError: it cannot be read.
    """
    pool = site.connections.coordinator_of(host).snapshot()
    former = stamps.replaceable(site, pool.pool, named_stamp)
    return first.check_adoption(
        pool, host, row, stamps.claim(site, pool.pool, former)
    )


def check_remove(
    row: store.Aggregate,
    verb: leaving.Leaving | leaving.Clear,
    handover: operation.Verb | None = None,
) -> model.Report:
    """Say what speaks against a removal, and what would be lost.

    :param verb: the removal that is asked for.
    :param handover: what comes before it, where the host is the master.
    :raises InvalidAggregateActionDelete: nobody who could tell answers.
    """
    findings = judging.lifecycle_findings(row, pool_states.REMOVE)
    if handover is not None:
        findings = (*findings, *_against(handover))
    report = verb.judged()
    return dataclasses.replace(report, findings=(*findings, *report.findings))


def _against(verb: operation.Verb) -> tuple[model.Finding, ...]:
    """Return what a request would be refused for; nothing is changed."""
    try:
        operation.refuse_early(verb)
        verb.prepare()
    except exceptions.InvalidAggregateAction as error:
        if error.report is not None:
            return error.report.failures
        finding = model.Finding('hand-over', model.Severity.FAIL, error.reason)
        return (finding,)
    return ()


def audit(
    site: operation.Site, row: store.Aggregate, fix: bool
) -> model.Report:
    """Compare what the aggregate says with what XAPI says.

    :param fix: settle what touches only our own metadata, put back a lost
        stamp, and destroy the records of control domains that stuck joins
        have left.
    """
    pending = _pending(site, row)
    try:
        seen = sight.led(
            site, row, _pool_of(site, row), snapshot.AUDIT_CLASSES
        )
        door, pool, answers = seen.door, seen.pool, seen.answers
    except exceptions.XapiError as error:
        return _masterless(site, row, pending, str(error))
    fixed = []
    if fix and (restored := restamp(site, row, door)):
        fixed += restored
        try:
            pool = door.snapshot(*snapshot.AUDIT_CLASSES)
        except exceptions.XapiError as error:
            return _masterless(site, row, pending, str(error))
    placed = _placed(site, row, pool)
    if fix:
        declared = reconcile.Declared.of(row)
        needed = reconcile.find_fixes(declared, pool, placed)
        fixed += _fix(site, row, needed)
        if needed:
            answers = sight.members(site, row, pool, door.name)
        fixed += leftovers.destroy(site, row, door)
    pool = _with_contents(door, pool, answers)
    domains, domains_unread = leftovers.read(door)
    findings = reconcile.audit(
        reconcile.Declared.of(row),
        pool.called(sight.names(row, placed), row.name),
        answers,
        now=site.clock.time(),
        joining=judging.joining(site, row),
        placed=placed.values(),
        pending=pending,
        left_lately=_left_lately(site, row),
        owner=_owner_name(site, pool),
        domains=domains,
        domains_unread=domains_unread,
    )
    logins = _logins(site, row, answers, door.name)
    return model.Report(row.name, (*fixed, *findings, *logins))


def _logins(
    site: operation.Site,
    row: store.Aggregate,
    answers: collections.abc.Mapping[str, identity.Identified],
    master: str,
) -> tuple[model.Finding, ...]:
    """Return what is to be said of the logins of members that answer.

    :param answers: who answers at the address of each member.
    :param master: the host whose login has just worked.
    """
    members = identity.by_who(answers, identity.Who.MEMBER)
    borrowed = site.connections.password_of
    hosts = [host for host in members if host != master or borrowed(host)]
    found = passwords.check(site, row, hosts)
    return passwords.findings(found, hosts) or (
        model.Finding(
            passwords.CHECK,
            model.Severity.PASS,
            'all members that answer let us in',
        ),
    )


def _with_contents(
    door: client.Client,
    pool: snapshot.PoolSnapshot,
    answers: collections.abc.Mapping[str, identity.Identified],
) -> snapshot.PoolSnapshot:
    """Return the pool with its virtual machines and disks, where the way out
    depends on them: a member is not there, or storage is left alone.

    :param answers: who answers at the address of each member.
    """
    gone = any(
        one.record is not None and one.who is not identity.Who.MEMBER
        for one in answers.values()
    )
    if not gone and all(map(pool.is_connected, pool.srs.values())):
        return pool
    try:
        read = door.snapshot(
            *('pool', 'host', 'VM', 'VBD', 'VDI'), with_clock=False
        )
    except exceptions.XapiError:
        return pool  # what is recorded there is not told, and no more
    return dataclasses.replace(
        pool, vms=read.vms, vbds=read.vbds, vdis=read.vdis
    )


def restamp(
    site: operation.Site, row: store.Aggregate, door: client.Client
) -> list[model.Finding]:
    """Give a pool of ours that has lost its stamp the stamp back.

    :param row: is brought up to date.
    :param door: the pool's master.
    """
    check = 'owner'
    try:
        pool = door.pool()
        if site.store.running_operations(row.uuid) or not naming.lacks_stamp(
            row, pool, common.identified(door, pool)
        ):
            return []
        operation.perform(naming.Restamp(site, row, ''))
    except (
        exceptions.XapiError,
        exceptions.InvalidAggregateAction,
        exceptions.AggregateError,
    ) as error:
        return [
            model.Finding(
                check,
                model.Severity.WARN,
                f"the pool has lost the stamp of its aggregate, and it could "
                f"not be put back: {error}",
                common.typed('aggregate', 'audit', row.name, '--fix'),
            )
        ]
    row.refresh()
    return [
        model.Finding(
            check,
            model.Severity.PASS,
            'fixed: the pool had lost the stamp of its aggregate, and has it '
            'again',
        )
    ]


def last_look(
    site: operation.Site, row: store.Aggregate
) -> list[model.Finding]:
    """Return what is not well when a recovery has done its work.

    A pool that has lost its stamp gets it back.

    :param row: the aggregate as it is now.
    """
    settled = row.state in (pool_states.ACTIVE, pool_states.ERROR)
    if not settled or not common.members(row):
        return []
    try:
        door = sight.led(site, row, common.find_master(site, row).door).door
    except exceptions.XapiError as error:
        found = _masterless(site, row, (), str(error))
        return [
            one for one in found.findings if one.check == 'master-reachable'
        ]
    return restamp(site, row, door)


def _masterless(
    site: operation.Site,
    row: store.Aggregate,
    pending: collections.abc.Sequence[reconcile.Pending],
    reason: str,
) -> model.Report:
    """Say what ails an aggregate whose pool has no master that answers."""
    findings = reconcile.audit_masterless(
        reconcile.Declared.of(row),
        sight.members(site, row, None, ''),
        reason,
        pending,
    )
    return model.Report(row.name, findings)


def unrestored_ha(
    site: operation.Site, row: store.Aggregate
) -> list[model.Finding]:
    """Say what of HA is not as it was before a request switched it off."""
    declared = reconcile.Declared.of(row)
    if declared.ha is None:
        return []
    try:
        master = common.find_master(site, row)
        pool = master.door.pool()
    except exceptions.XapiError as error:
        return [
            model.Finding(
                'ha',
                model.Severity.UNKNOWN,
                f"HA may not be as it was before a request: {error}",
                shlex.join(('xenpool', 'aggregate', 'audit', row.name)),
            )
        ]
    name = declared.host_of(master.uuid) or master.address
    return list(reconcile.ha_unrestored(declared, pool, name))


def _pending(
    site: operation.Site, row: store.Aggregate
) -> tuple[reconcile.Pending, ...]:
    """Return the aggregate's operations that have not ended."""
    orphaned = {one.uuid for one in site.store.expired_operations(row.uuid)}
    return tuple(
        reconcile.Pending(
            uuid=one.uuid,
            story=f"{one.kind} of {one.host or 'the pool'}",
            phase=one.phase,
            orphaned=one.uuid in orphaned,
            owner=one.owner,
        )
        for one in site.store.running_operations(row.uuid)
    )


def _owner_name(site: operation.Site, pool: snapshot.PoolSnapshot) -> str:
    """Return the name of the aggregate whose stamp a pool carries, or ''."""
    found = stamps.owner(site, stamps.stamp_of(pool.pool))
    return found.name if found else ''


def _left_lately(site: operation.Site, row: store.Aggregate) -> bool:
    """Say whether a host has left the pool a moment ago."""
    since = site.clock.time() - LINGERING
    return any(
        one.kind in ('eject', 'forget') and (one.ended_at or 0.0) > since
        for one in site.store.list_operations(row.uuid, limit=8)
    )


def _pool_of(site: operation.Site, row: store.Aggregate) -> client.Client:
    """Return the master of the aggregate's pool.

    A set-up of which nothing is known has hosts, but no member: what pool
    those are in is the question.

    :raises XapiError: nobody who could tell answers.
    """
    if common.members(row) or not row.hosts:
        return common.find_master(site, row).door
    patience = site.conf.xenpool.probe_timeout
    return site.connections.coordinator_of(row.hosts[0], patience)


def correct_master(
    site: operation.Site, row: store.Aggregate
) -> list[model.Finding]:
    """Record who is the pool's master now, and nothing else.

    :raises XapiError: no member names a master that answers.
    """
    door = common.find_master(site, row).door
    pool = door.snapshot('pool', 'host', with_clock=False)
    declared = reconcile.Declared.of(row)
    return _fix(site, row, reconcile.find_master_fix(declared, pool))


def _fix(
    site: operation.Site, row: store.Aggregate, fixes: reconcile.Fixes
) -> list[model.Finding]:
    """Make the aggregate true, and say what that took.

    :param fixes: what must change.
    """
    check = 'fix'
    running = site.store.running_operations(row.uuid)
    if running:
        return [
            model.Finding(
                check,
                model.Severity.UNKNOWN,
                f"nothing is fixed while {running[0].kind} of "
                f"{running[0].host or 'the pool'} is in progress",
                f"if its worker is dead: xenpool aggregate recover {row.name}",
            )
        ]
    if not fixes:
        return []
    changes = store.Changes(
        fixes.metadata, fixes.add_hosts, fixes.remove_hosts
    )
    try:
        site.store.change(row.uuid, row.generation, changes)
    except exceptions.StaleAggregate:
        return [
            model.Finding(
                check,
                model.Severity.UNKNOWN,
                'the aggregate has changed meanwhile',
                f"xenpool aggregate audit {row.name} --fix",
            )
        ]
    row.refresh()
    return [
        model.Finding(check, model.Severity.PASS, f"fixed: {line}")
        for line in fixes.told
    ]


def _placed(
    site: operation.Site, row: store.Aggregate, pool: snapshot.PoolSnapshot
) -> dict[str, str]:
    """Return ``{compute host: XenServer uuid}`` of the pool's members that
    the configuration knows and no other aggregate has."""
    placed = {}
    for record in pool.hosts.values():
        host = site.connections.name_at(record.address)
        owner = host and site.store.aggregate_of_host(host)
        if host and (not owner or owner.uuid == row.uuid):
            placed[host] = record.uuid
    return placed
