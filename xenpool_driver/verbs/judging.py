# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Judging hosts before they join: what both sides show, and what it means."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses
import functools
import shlex
import typing

from xenpool_driver import (
    exceptions,
    identity,
    model,
    objects,
    operation,
    pool_states,
    snapshot,
    store,
)
from xenpool_driver.preflight import check, first
from xenpool_driver.preflight import join as join_rules
from xenpool_driver.preflight import site as site_rules
from xenpool_driver.verbs import common, sight, stamps
from xenpool_driver.xapi import client, discovery


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What is known of a joiner before it joins.

    :ivar report: everything that was found.
    :ivar host_uuid: the joiner's XenServer uuid; '' if it was not seen.
    :ivar is_member: whether it is a member of this very pool already.
    :ivar own: its records, to be compared afterwards; None for a
        member.
    """

    report: model.Report
    host_uuid: str = ''
    is_member: bool = False
    own: snapshot.PoolSnapshot | None = None


class Recent(typing.NamedTuple):
    """A judgement that the joins of a request can go on from.

    :ivar question: what was asked: the aggregate, and in which way.
    :ivar judgement: the answer.
    """

    question: tuple[str, bool, bool]
    judgement: Judgement


@dataclasses.dataclass(frozen=True)
class Target:
    """The pool that hosts shall join, as it was read for all of them.

    :ivar records: its records.
    :ivar joining: uuids of hosts whose join is under way.
    :ivar unreachable: ``{uuid: why}`` of the members that do not answer.
    :ivar refusal: what forbids to add any host, if anything does.
    """

    records: snapshot.PoolSnapshot
    joining: tuple[str, ...]
    unreachable: collections.abc.Mapping[str, str]
    refusal: model.Finding | None = None


def read_target(
    site: operation.Site, row: store.Aggregate, master: client.Client
) -> Target:
    """Read the pool once, for however many joiners.

    :param master: the pool's master.
    :raises XapiError: it cannot be read.
    """
    records = master.snapshot().called(sight.names(row), row.name)
    company = sight.company(site, row, records, master.name)
    return Target(
        records=records,
        joining=tuple(joining(site, row)),
        unreachable=company.absent,
        refusal=_disputed(row, master.name, company.rival),
    )


def _disputed(
    row: store.Aggregate, master: str, rival: str
) -> model.Finding | None:
    """Refuse hosts to a pool of which nobody knows who its master is.

    :param master: the compute host name of the master that was found.
    :param rival: the second master that as many members follow, or more; ''
        without one.
    """
    if not rival:
        return None
    return model.Finding(
        'two-masters',
        model.Severity.FAIL,
        f"'{master}' and '{rival}' both are masters of the pool {row.name}, "
        f"each with a copy of its own of the pool's database: no host is "
        f"added before one of them is the only one",
        common.typed('aggregate', 'audit', row.name),
    )


def joining(site: operation.Site, row: store.Aggregate) -> list[str]:
    """Return the uuids of the hosts whose join is under way."""
    return [
        str(other.details.get('host_uuid'))
        for other in site.store.running_operations(row.uuid)
        if other.kind == 'join'
    ]


def check_first(
    site: operation.Site, row: store.Aggregate, host: str
) -> model.Report:
    """Judge a host that shall become the first one of an aggregate.

    :raises XapiError: it cannot be read.
    """
    own = site.connections.client(host).snapshot()
    former = stamps.replaceable(site, own.pool)
    return first.check_first(
        own, host, row.uuid, stamps.claim(site, own.pool, former)
    )


def judge_join(
    site: operation.Site,
    row: store.Aggregate,
    host: str,
    master: client.Client,
    *,
    force: bool = False,
    suspend_ha: bool = False,
) -> Judgement:
    """Judge one host that shall join the pool.

    What the check of the whole request has just found is good enough to go
    on, but not to refuse.

    :param master: the pool's master.
    :raises XapiError: it cannot be read.
    """
    recent = site.connections.recall(host, common.RECENT)
    if (
        isinstance(recent, Recent)
        and recent.question == (row.uuid, force, suspend_ha)
        and not recent.judgement.report.failures
    ):
        return recent.judgement
    target = read_target(site, row, master)
    if target.refusal is not None:
        return Judgement(model.Report(host, (target.refusal,)))
    own = _read_joiner(site, row, host, target)
    if isinstance(own, Judgement):
        return own
    return _judge(
        site, row, host, own, target, force=force, suspend_ha=suspend_ha
    )


def check_hosts(
    site: operation.Site,
    row: store.Aggregate,
    hosts: collections.abc.Sequence[str],
    *,
    force: bool = False,
    suspend_ha: bool = False,
) -> list[model.Report]:
    """Judge all hosts of one request, each in the company of the others.

    Where the aggregate has no master yet, the first host that may will be
    it, and the others are judged against its pool. Each side is read once.

    :returns: a report per host, in the order of ``hosts``.
    :raises InvalidAggregateActionAdd: the pool itself cannot be read.
    """
    lifecycle = lifecycle_findings(row, pool_states.ADD)
    reports: dict[str, model.Report] = {}
    joiners = list(hosts)
    try:
        if row.metadata.get(pool_states.MASTER):
            master: client.Client | None = common.find_master(site, row).door
        else:
            master = _founder(site, row, joiners, reports)
        target = read_target(site, row, master) if master and joiners else None
    except exceptions.XapiError as error:
        raise exceptions.InvalidAggregateActionAdd(
            row.name, str(error)
        ) from error
    if target is not None:
        reports.update(
            _judge_company(
                site, row, joiners, target, force=force, suspend_ha=suspend_ha
            )
        )
    return [
        dataclasses.replace(
            reports[host],
            subject=host,
            findings=(*lifecycle, *reports[host].findings),
        )
        for host in hosts
    ]


def _founder(
    site: operation.Site,
    row: store.Aggregate,
    joiners: list[str],
    reports: dict[str, model.Report],
) -> client.Client | None:
    """Take hosts off ``joiners`` until one may be the master.

    :param reports: gets a report for each that was taken.
    :returns: the client of the one that may, or None.
    """
    while joiners:
        host = joiners.pop(0)
        try:
            reports[host] = check_first(site, row, host)
        except exceptions.XapiError as error:
            reports[host] = _unreadable(host, error)
        if not reports[host].failures:
            return site.connections.client(host)
    return None


def _judge_company(
    site: operation.Site,
    row: store.Aggregate,
    hosts: collections.abc.Sequence[str],
    target: Target,
    *,
    force: bool,
    suspend_ha: bool,
) -> dict[str, model.Report]:
    """Read all joiners at the same time, then judge them together."""

    def read(host: str) -> snapshot.PoolSnapshot | Judgement:
        try:
            return _read_joiner(site, row, host, target)
        except exceptions.XapiError as error:
            return Judgement(_unreadable(host, error))

    if (refusal := target.refusal) is not None:
        return {host: model.Report(host, (refusal,)) for host in hosts}
    with concurrent.futures.ThreadPoolExecutor(len(hosts)) as workers:
        read_hosts = dict(zip(hosts, workers.map(read, hosts), strict=True))
    coming = {
        host: own
        for host, own in read_hosts.items()
        if isinstance(own, snapshot.PoolSnapshot)
    }
    reports = {}
    for host, own in read_hosts.items():
        if isinstance(own, Judgement):
            reports[host] = own.report
            continue
        company = [other for name, other in coming.items() if name != host]
        judged = _judge(
            site,
            row,
            host,
            own,
            target,
            force=force,
            suspend_ha=suspend_ha,
            batch=company,
        )
        question = row.uuid, force, suspend_ha
        site.connections.remember(host, Recent(question, judged))
        reports[host] = judged.report
    return reports


def _read_joiner(
    site: operation.Site, row: store.Aggregate, host: str, target: Target
) -> snapshot.PoolSnapshot | Judgement:
    """Return a joiner's records, or the judgement about a pool member.

    :raises XapiError: it cannot be read.
    """
    try:
        own = site.connections.client(host).snapshot()
    except exceptions.NotPoolMaster as error:
        return _judge_member(site, row, host, target, error)
    if own.coordinator is None:
        raise exceptions.XapiUnavailable('has no pool yet', host)
    former = stamps.replaceable(site, own.pool)
    return stamps.without(_without_guest(site, host, own), former)


def _judge(
    site: operation.Site,
    row: store.Aggregate,
    host: str,
    own: snapshot.PoolSnapshot,
    target: Target,
    *,
    force: bool,
    suspend_ha: bool,
    batch: collections.abc.Iterable[snapshot.PoolSnapshot] = (),
) -> Judgement:
    pool = target.records
    uuid = own.coordinator.uuid if own.coordinator else ''
    found = identity.tell_records(own, pool)
    if found.who is not identity.Who.COPY and (
        twins := _twins(row, host, uuid)
    ):
        return Judgement(model.Report(host, twins), uuid, True)
    report = join_rules.check(
        own,
        pool,
        force=force,
        aggregate_uuid=row.uuid,
        batch=batch,
        joining=target.joining,
        live=join_rules.LiveFacts(
            pool_login=(),
            joiner_login=(),
            answering_uuid=pool.coordinator.uuid if pool.coordinator else None,
            unreachable=target.unreachable,
        ),
        now=site.clock.time(),
        host_uuid=uuid,
        former=row.metadata.get(host, ''),
        owners=_owners(site, own, pool),
        extra=_site_findings(site, own, pool),
    )
    if suspend_ha:
        report = _without_ha(report)
    report = dataclasses.replace(report, subject=host)
    if found.who is identity.Who.MEMBER:
        return Judgement(report, uuid, True)
    return Judgement(report, uuid, False, own)


def _twins(
    row: store.Aggregate, host: str, uuid: str
) -> tuple[model.Finding, ...]:
    """Refuse a host that the aggregate has under another name already.

    As a member it would pass for joined, and removing either name would
    eject them both.
    """
    return tuple(
        model.Finding(
            'same-host',
            model.Severity.FAIL,
            f"host '{host}' is the very XenServer that the aggregate has as "
            f"'{other}' ({uuid})",
            f"correct connection_url in section [{host}] or [{other}] of "
            f"the configuration",
        )
        for other, known in common.members(row).items()
        if known == uuid and other != host
    )


def _unreadable(host: str, error: exceptions.XapiError) -> model.Report:
    finding = model.Finding(
        'joiner-login',
        model.Severity.FAIL,
        str(error),
        f"check section [{host}] of the configuration, and the host",
    )
    return model.Report(host, (finding,))


def _owners(
    site: operation.Site, *pools: snapshot.PoolSnapshot
) -> dict[str, str]:
    """Return ``{aggregate uuid: its name}`` of those that own the pools."""
    found = [stamps.owner(site, stamps.stamp_of(one.pool)) for one in pools]
    return {one.uuid: one.name for one in found if one is not None}


def _without_guest(
    site: operation.Site, host: str, own: snapshot.PoolSnapshot
) -> snapshot.PoolSnapshot:
    """Judge the joiner as it will be: the compute service's guest is shut
    down before the join."""
    guest = site.connections.access(host).compute_vm_uuid
    vms = {
        ref: dataclasses.replace(vm, power_state='Halted')
        if guest and vm.uuid == guest
        else vm
        for ref, vm in own.vms.items()
    }
    return dataclasses.replace(own, vms=vms)


@functools.cache
def _site_rules() -> collections.abc.Mapping[str, site_rules.Rule | Exception]:
    """Return the rules of other packages, searched for once."""
    return site_rules.load()


def _site_findings(
    site: operation.Site,
    joiner: snapshot.PoolSnapshot,
    pool: snapshot.PoolSnapshot,
) -> tuple[model.Finding, ...]:
    """Return what the rules of other packages have to say."""
    return site_rules.run(
        _site_rules(),
        joiner,
        pool,
        site.conf.xenpool.preflight_plugin_timeout,
        site.clock,
    )


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
    target: Target,
    member: exceptions.NotPoolMaster,
) -> Judgement:
    """Judge a host that is a member of some pool: ours, or another one."""
    record = _own_record(site, row, host, target.records)
    named = site.connections.name_at(member.address) or ''
    seen = identity.Sighting(master=member.address, named=named)
    if not _names_us(seen, sight.known(row, target.records)):
        return _of_another_pool(site, host, member.address, named)
    if record is None:
        return _forgotten(host, member.address)
    if twins := _twins(row, host, record.uuid):
        return Judgement(model.Report(host, twins), record.uuid, True)
    finding = model.Finding(
        'membership',
        model.Severity.PASS,
        f"host '{host}' is a member of the pool already",
    )
    return Judgement(model.Report(host, (finding,)), record.uuid, True)


def _names_us(seen: identity.Sighting, known: identity.Known) -> bool:
    """Say whether a member names the master of our pool.

    It may name it by a host name, or by another address.
    """
    if identity.names_us(seen, known):
        return True
    master = known.pool.coordinator if known.pool else None
    return master is not None and (
        discovery.normal(master.address)
        in discovery.resolved(seen.master or '')
    )


def _forgotten(host: str, master: str) -> Judgement:
    """Judge a host that names our master, which does not know it."""
    finding = model.Finding(
        'membership',
        model.Severity.FAIL,
        f"host '{host}' takes itself for a member of this very pool, which "
        f"has no record of it: it was forgotten, or its join broke off",
        f"install anew {host} (its disks are wiped)",
        ('HOST_IS_SLAVE', master),
    )
    return Judgement(model.Report(host, (finding,), ('HOST_IS_SLAVE', master)))


def _of_another_pool(
    site: operation.Site, host: str, master: str, named: str
) -> Judgement:
    """Judge a host that is a member of another pool.

    :param named: the compute host name of its master, or ''.
    """
    owner = None
    for one in (host, named):
        owner = owner or (site.store.aggregate_of_host(one) if one else None)
    if owner is None:
        of = ''
        remedy = (
            f"eject it there, or name another host; the hosts are told on "
            f"{named or master} by: xe host-list "
            f"params=uuid,name-label,address"
        )
    else:
        of = f" of the aggregate '{owner.name}'"
        remedy = (
            f"xenpool aggregate remove host {shlex.quote(owner.name)} "
            f"{shlex.quote(host)}"
        )
    finding = model.Finding(
        'membership',
        model.Severity.FAIL,
        f"host '{host}' is a member of another pool{of}, whose master is at "
        f"{master}; removed from that one, its local disks are wiped",
        remedy,
        ('HOST_IS_SLAVE', master),
    )
    return Judgement(model.Report(host, (finding,), ('HOST_IS_SLAVE', master)))


def _own_record(
    site: operation.Site,
    row: store.Aggregate,
    host: str,
    pool: snapshot.PoolSnapshot,
) -> objects.Host | None:
    """Return the pool's record of a configured host, if it has one."""
    recorded = row.metadata.get(host)
    if recorded and (known := pool.host_by_uuid(recorded)):
        return known
    name = site.connections.access(host).address
    mine = {discovery.normal(name), *discovery.resolved(name)}
    for record in pool.hosts.values():
        if discovery.normal(record.address) in mine:
            return record
    return None


def lifecycle_findings(
    row: store.Aggregate, request: str
) -> tuple[model.Finding, ...]:
    """Return what the lifecycle alone says against a request."""
    reason = pool_states.refusal(row.state, request)
    if not reason:
        return ()
    return (model.Finding('lifecycle', model.Severity.FAIL, reason),)
