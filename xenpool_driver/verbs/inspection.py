# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What only looks: checks before a request, audits of an aggregate."""

from __future__ import annotations

import dataclasses
import typing

from xenpool_driver import conf as config
from xenpool_driver import (
    exceptions,
    inventory,
    model,
    operation,
    pool_states,
    reconcile,
    snapshot,
    store,
)
from xenpool_driver.preflight import check, first
from xenpool_driver.preflight import eject as eject_rules
from xenpool_driver.preflight import join as join_rules
from xenpool_driver.preflight import site as site_rules
from xenpool_driver.verbs import common
from xenpool_driver.xapi import client


@dataclasses.dataclass(frozen=True)
class JoinJudgement:
    """What is known of a joiner before it joins.

    :ivar report: everything that was found.
    :ivar host_uuid: the joiner's XenServer uuid.
    :ivar is_member: whether it is a member of this very pool already.
    :ivar inventory: its settings, to be compared afterwards; None for a
        member.
    """

    report: model.Report
    host_uuid: str
    is_member: bool
    inventory: inventory.Inventory | None


def check_first(
    site: operation.Site, row: store.Aggregate, host: str
) -> model.Report:
    """Judge a host that shall become the first one of an aggregate.

    :raises XapiError: it cannot be read.
    """
    own = site.connections.client(host).snapshot()
    return first.check_first(own, host, row.uuid)


def check_adoption(
    site: operation.Site, row: store.Aggregate, host: str
) -> model.Report:
    """Judge a pool that shall be adopted through one of its members.

    :raises XapiError: it cannot be read.
    """
    pool = site.connections.coordinator_of(host).snapshot()
    return first.check_adoption(pool, host, row.uuid)


def judge_join(
    site: operation.Site,
    row: store.Aggregate,
    host: str,
    master: client.Client,
    *,
    force: bool = False,
    suspend_ha: bool = False,
) -> JoinJudgement:
    """Judge both sides of a join from bulk reads.

    :param master: the pool's master.
    :raises XapiError: one of the sides cannot be read.
    """
    try:
        joiner = site.connections.client(host)
    except exceptions.NotPoolMaster as error:
        return _judge_member(site, row, host, master, error)
    own = _without_guest(site, host, joiner.snapshot())
    if own.coordinator is None:
        raise exceptions.XapiUnavailable('has no pool yet', host)
    uuid = own.coordinator.uuid
    pool = master.snapshot()
    report = join_rules.check(
        own,
        pool,
        force=force,
        aggregate_uuid=row.uuid,
        joining=joining(site, row),
        live=join_rules.LiveFacts(
            pool_login=(),
            joiner_login=(),
            answering_uuid=pool.coordinator.uuid if pool.coordinator else None,
            unreachable=common.unreachable(site, row),
        ),
        now=site.clock.time(),
        host_uuid=uuid,
        extra=_site_findings(site, own, pool),
    )
    if suspend_ha:
        report = _without_ha(report)
    report = dataclasses.replace(report, subject=host)
    if _are_same(own, pool):
        return JoinJudgement(report, uuid, True, None)
    return JoinJudgement(report, uuid, False, inventory.take(own, uuid))


def _are_same(own: snapshot.PoolSnapshot, pool: snapshot.PoolSnapshot) -> bool:
    """Say whether the joiner is the pool's master itself."""
    if own.pool is None or pool.pool is None:
        return False
    return own.pool.uuid == pool.pool.uuid


def _without_guest(
    site: operation.Site, host: str, own: snapshot.PoolSnapshot
) -> snapshot.PoolSnapshot:
    """Judge the joiner as it will be: the compute service's guest is shut
    down before the join."""
    guest = config.host_access(site.conf, host).compute_vm_uuid
    vms = {
        ref: dataclasses.replace(vm, power_state='Halted')
        if guest and vm.uuid == guest
        else vm
        for ref, vm in own.vms.items()
    }
    return dataclasses.replace(own, vms=vms)


def _site_findings(
    site: operation.Site,
    joiner: snapshot.PoolSnapshot,
    pool: snapshot.PoolSnapshot,
) -> tuple[model.Finding, ...]:
    """Return what the rules of other packages have to say."""
    return site_rules.run(
        site_rules.load(),
        joiner,
        pool,
        site.conf.xenpool.preflight_plugin_timeout,
        site.clock,
    )


def joining(site: operation.Site, row: store.Aggregate) -> list[str]:
    """Return the uuids of the hosts whose join is under way."""
    return [
        str(other.details.get('host_uuid'))
        for other in site.store.running_operations(row.uuid)
        if other.kind == 'join'
    ]


def _without_ha(report: model.Report) -> model.Report:
    """HA on the pool is no obstacle when it is switched off for the time."""
    findings = [
        dataclasses.replace(finding, severity=model.Severity.WARN)
        if finding.check == 'pool-ha'
        and finding.severity is model.Severity.FAIL
        else finding
        for finding in report.findings
    ]
    return check.report(report.subject, findings)


def _judge_member(
    site: operation.Site,
    row: store.Aggregate,
    host: str,
    master: client.Client,
    member: exceptions.NotPoolMaster,
) -> JoinJudgement:
    """Judge a host that is a member of some pool: ours, or another one."""
    address = site.connections.access(host).address
    recorded = row.metadata.get(host)
    for record in master.hosts():
        if record.uuid == recorded or record.address == address:
            finding = model.Finding(
                'membership',
                model.Severity.PASS,
                f"host '{host}' is a member of the pool already",
            )
            report = model.Report(host, (finding,))
            return JoinJudgement(report, record.uuid, True, None)
    finding = model.Finding(
        'membership',
        model.Severity.FAIL,
        f"host '{host}' is a member of another pool, whose master is at "
        f"{member.address}",
        f"remove it from that pool first; the aggregate of the pool tells "
        f"more: xenpool host list ({host})",
    )
    return JoinJudgement(model.Report(host, (finding,)), '', False, None)


def check_add(
    site: operation.Site, row: store.Aggregate, host: str, force: bool
) -> model.Report:
    """Say all that speaks against adding ``host``.

    :raises InvalidAggregateActionAdd: nobody who could tell answers.
    """
    findings = _lifecycle_findings(row, pool_states.ADD)
    try:
        if row.metadata.get(pool_states.MASTER):
            master = common.find_master(site, row).door
            report = judge_join(site, row, host, master, force=force).report
        else:
            report = check_first(site, row, host)
    except exceptions.XapiError as error:
        raise exceptions.InvalidAggregateActionAdd(
            row.name, str(error)
        ) from error
    return dataclasses.replace(
        report, subject=host, findings=(*findings, *report.findings)
    )


def check_remove(
    site: operation.Site, row: store.Aggregate, host: str
) -> model.Report:
    """Say what speaks against removing ``host``, and what would be lost.

    :raises InvalidAggregateActionDelete: nobody who could tell answers.
    """
    findings = _lifecycle_findings(row, pool_states.REMOVE)
    uuid = row.metadata.get(host)
    if common.is_last(row, host) or uuid is None:
        return model.Report(host, findings)
    try:
        pool = common.find_master(site, row).door.snapshot(
            *snapshot.EJECT_CLASSES, with_clock=False
        )
    except exceptions.XapiError as error:
        raise exceptions.InvalidAggregateActionDelete(
            row.name, str(error)
        ) from error
    report = eject_rules.check(pool, uuid)
    return dataclasses.replace(
        report, subject=host, findings=(*findings, *report.findings)
    )


def _lifecycle_findings(
    row: store.Aggregate, request: str
) -> tuple[model.Finding, ...]:
    reason = pool_states.refusal(row.state, request)
    if not reason:
        return ()
    return (model.Finding('lifecycle', model.Severity.FAIL, reason),)


def audit(
    site: operation.Site, row: store.Aggregate, fix: bool
) -> model.Report:
    """Compare what the aggregate says with what XAPI says.

    :param fix: settle what touches only our own metadata.
    """
    declared = reconcile.Declared.of(row)
    try:
        master = common.find_master(site, row).door
        pool = master.snapshot(*snapshot.AUDIT_CLASSES)
    except exceptions.XapiError as error:
        if not row.hosts:
            return model.Report(row.name)
        finding = model.Finding(
            'master-reachable',
            model.Severity.FAIL,
            str(error),
            f"if the master is dead for good: xenpool aggregate recover "
            f"{row.name} --promote HOST",
        )
        return model.Report(row.name, (finding,))
    views = common.member_views(site, sorted(common.members(row)))
    findings = reconcile.audit(
        declared,
        pool,
        views,
        now=site.clock.time(),
        joining=joining(site, row),
    )
    if fix:
        changes = reconcile.metadata_fixes(declared, pool)
        if changes:
            row.update_metadata(dict(changes))
    return model.Report(row.name, tuple(findings))


def inventory_of(master: client.Client, uuid: str) -> inventory.Inventory:
    """Return the settings of one member as they are now.

    :param uuid: the member's XenServer uuid.
    """
    return inventory.take(
        master.snapshot(*snapshot.INVENTORY_CLASSES, with_clock=False), uuid
    )


def restore_settings(
    master: client.Client, uuid: str, before: inventory.Inventory
) -> None:
    """Put back the safe settings of a member, as they were before its join.

    :param uuid: the member's XenServer uuid.
    :raises XapiError: one of them cannot be written.
    """
    ref = master.read('host.get_by_uuid', uuid)
    writes: dict[str, typing.Any] = {
        'host.set_name_label': before.name_label,
        'host.set_name_description': before.name_description,
        'host.set_tags': list(before.tags),
        'host.set_logging': dict(before.logging),
    }
    for method, value in writes.items():
        master.write(method, ref, value)
    present = master.read('host.get_other_config', ref)
    for key, value in before.other_config.items():
        if key not in present:
            master.write('host.add_to_other_config', ref, key, value)
