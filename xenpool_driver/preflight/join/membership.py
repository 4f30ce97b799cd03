# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Who is in which pool, who owns it, and what is going on there."""

from __future__ import annotations

import operator
import shlex

from xenpool_driver import findings, identity, model, objects
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases
from xenpool_driver.preflight.join import rewiring

MAX_HOSTS = 64
"""Hosts that vendors support in a pool; XAPI itself knows no limit."""

BLOCKING_OPERATIONS = frozenset(
    {
        'ha_enable',
        'ha_disable',
        'cluster_create',
        'designate_new_master',
        'tls_verification_enable',
        'configure_repositories',
        'sync_updates',
        'sync_bundle',
        'apply_updates',
    }
)
"""Pool operations that a join would run into (``xapi_pool_helpers.ml``)."""

_UPDATING = 'apply_updates'

_RENAMED_IN_DIRECTORY = (24, 39)
"""The toolstack that first renames a host in a directory (xen-api#6116)."""


def joiner_ha(case: cases.JoinCase) -> check.Problems:
    """Rule 3: ``ha_is_not_enable_on_me``."""
    if case.my_pool.ha_enabled:
        yield check.Problem(
            f"HA is enabled on the joiner {case.me.name}",
            f"on {case.me.name}: xe pool-ha-disable",
            ('HA_IS_ENABLED',),
            findings.at_fault(case.my_pool, name=case.me.name),
        )


def pool_ha(case: cases.JoinCase) -> check.Problems:
    """Rule 6: ``ha_is_not_enable_on_the_distant_pool``."""
    if case.their_pool.ha_enabled:
        yield check.Problem(
            f"HA is enabled on the pool {case.pool.name}",
            f"repeat with --suspend-ha, or on {case.master.name}: "
            f"xe pool-ha-disable",
            ('HA_IS_ENABLED',),
            findings.at_fault(case.their_pool, name=case.pool.name),
        )


def not_itself(case: cases.JoinCase) -> check.Problems:
    """Rule 7: ``assert_not_joining_myself``."""
    if case.me.uuid != case.master.uuid:
        return
    text = (
        'Host is already part of a pool'
        if len(case.joiner.hosts) > 1
        else 'Host cannot become slave of itself'
    )
    if case.joiner_is.who is identity.Who.COPY:
        message, remedy = _copied(case, case.master)
    else:
        message = f"{case.me.name} is the coordinator of that very pool"
        remedy = 'name another host, or another pool'
    yield check.Problem(
        message,
        remedy,
        ('OPERATION_NOT_ALLOWED', text),
        findings.at_fault(case.me),
    )


def _copied(case: cases.JoinCase, member: objects.Host) -> tuple[str, str]:
    """Return what is said of a machine with the host uuid of another one.

    :param member: that one: in the pool, or in the same request.
    """
    return (
        f"another machine at {case.me.address} has the host uuid of "
        f"{member.name} at {member.address} ({member.uuid}): one of the two "
        f"is a copied installation",
        f"install anew {case.me.typed} (its disks are wiped)",
    )


def _alone(case: cases.JoinCase, others: list[objects.Host]) -> str:
    """Return how the others leave the joiner's pool.

    Whose pool an aggregate owns, that one lets its hosts go.
    """
    stamp = case.my_pool.other_config.get(model.OWNER_KEY)
    if stamp:
        return (
            f"let the controller of the aggregate {stamp}, which owns that "
            f"pool, remove them; what it owns is told by: xenpool aggregate "
            f"list"
        )
    dead = [h for h in others if case.joiner.is_live(h) is False]
    living = [h for h in others if h not in dead]
    steps = [f"xe host-forget uuid={host.uuid}" for host in dead]
    steps += [f"xe pool-eject host-uuid={host.uuid}" for host in living]
    wiped = ' (wipes the local disks of a host that it ejects)'
    commands = findings.in_order(steps)
    return f"on {case.me.name}: {commands}{wiped * bool(living)}"


def no_other_hosts(case: cases.JoinCase) -> check.Problems:
    """Rule 8: ``assert_i_know_of_no_other_hosts``."""
    others = [h for h in case.joiner.hosts.values() if h.ref != case.me.ref]
    if not others:
        return
    names = findings.listed(host.name for host in others)
    if case.joiner_is.who is identity.Who.RIVAL:
        message = (
            f"{case.me.name} is the master of another copy of this pool, "
            f"which still knows {names}"
        )
        remedy = f"install anew {case.me.typed} (its disks are wiped)"
    else:
        message = f"{case.me.name} is the coordinator of a pool with {names}"
        remedy = _alone(case, others)
    yield check.Problem(
        message,
        remedy,
        ('JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS',),
        findings.at_fault(*others),
    )


def same_pool_uuid(case: cases.JoinCase) -> check.Problems:
    """A pool of the same uuid: XAPI has no rule on it, and lets it join."""
    if (
        case.my_pool.uuid == case.their_pool.uuid
        and case.me.uuid != case.master.uuid
    ):
        yield check.warning(
            f"the pool of {case.me.name} has the uuid of the pool "
            f"{case.pool.name}, to which it does not belong: one of them is "
            f"a copied or restored installation",
            f"install anew {case.me.typed} (its disks are wiped), unless you "
            f"know why",
            findings.at_fault(case.my_pool, name=case.me.name),
        )


def old_record(case: cases.JoinCase) -> check.Problems:
    """The record of an installation that the joiner replaces.

    With it the join hangs for minutes: see :func:`members`.
    """
    old = case.old_record
    if old is None:
        return
    guests = case.pool.guests_on(old)
    remedy = findings.forgetting(case.pool.aggregate, old, case.master, guests)
    message = (
        f"{case.me.name} was installed anew: the pool {case.pool.name} still "
        f"has the record {old.uuid} of the old installation at {old.address}"
    )
    if old.uuid != case.former and case.pool.is_live(old) is not False:
        message += (
            f"; the master takes {old.name} for alive, as it does for ten "
            f"minutes: if that is another machine, two have one address"
        )
    yield check.Problem(
        message,
        remedy,
        objects=findings.at_fault(old),
    )


def joiner_updating(case: cases.JoinCase) -> check.Problems:
    """Rule 31: ``assert_not_in_updating_on_me``."""
    if _UPDATING in case.my_pool.current_operations.values():
        yield check.Problem(
            f"updates are being applied on the joiner {case.me.name}",
            f"wait until they have ended; see on {case.me.name}: xe task-list",
            ('NOT_SUPPORTED_DURING_UPGRADE',),
            findings.at_fault(case.my_pool, name=case.me.name),
        )


def pool_updating(case: cases.JoinCase) -> check.Problems:
    """Rule 32: ``assert_no_hosts_in_updating``."""
    if _UPDATING in case.their_pool.current_operations.values():
        yield check.Problem(
            f"updates are being applied in the pool {case.pool.name}",
            f"wait until they have ended; see on {case.master.name}: "
            f"xe task-list",
            ('NOT_SUPPORTED_DURING_UPGRADE',),
            findings.at_fault(case.their_pool, name=case.pool.name),
        )


def secret_rotation(case: cases.JoinCase) -> check.Problems:
    """After the asserts: no pool operation starts before the rotation ends.

    What starts one is the exchange of certificates, new in 1.298.
    """
    if case.their_pool.is_psr_pending:
        yield check.Problem(
            f"the pool {case.pool.name} is changing its secret",
            f"on {case.master.name}: xe pool-secret-rotate, with every "
            f"member up",
            ('POOL_SECRET_ROTATION_PENDING',),
            findings.at_fault(case.their_pool, name=case.pool.name),
        )


def owner(case: cases.JoinCase) -> check.Problems:
    """Two controllers must not own one pool: the stamp says whose it is."""
    for side, record, name, host in (
        ('pool', case.their_pool, case.pool.name, case.master.name),
        ('joiner', case.my_pool, case.me.name, case.me.name),
    ):
        stamp = record.other_config.get(model.OWNER_KEY)
        if not stamp or stamp == case.aggregate_uuid:
            continue
        known = case.owners.get(stamp)
        whose = f"'{known}' ({stamp})" if known else stamp
        problem = check.Problem(
            f"the {side} {name} belongs to the aggregate {whose}",
            f"use that aggregate, or, when it is gone for good, on {host}: "
            f"xe pool-param-remove uuid={record.uuid} "
            f"param-name=other-config param-key={model.OWNER_KEY}",
            objects=findings.at_fault(record, name=name),
            severity=(
                model.Severity.FAIL
                if case.aggregate_uuid
                else model.Severity.WARN
            ),
        )
        yield problem


def joiner_pool_name(case: cases.JoinCase) -> check.Problems:
    """XenCenter takes a named pool for a pool, even of one host."""
    if case.my_pool.name_label:
        yield check.warning(
            f"the joiner {case.me.name} is a pool of its own named "
            f"'{case.my_pool.name_label}'; the name, and all that is set on "
            f"that pool record, is lost by the join",
            f"on {case.me.name}: xe pool-param-set uuid={case.my_pool.uuid} "
            f"name-label=",
            findings.at_fault(case.my_pool),
        )


def same_uuid(case: cases.JoinCase) -> check.Problems:
    """A record with the joiner's uuid is silently taken over by a join."""
    record = case.pool.host_by_uuid(case.me.uuid)
    if record is None or record.uuid == case.master.uuid:
        return
    if case.joiner_is.who is identity.Who.COPY:
        message, remedy = _copied(case, record)
        yield check.Problem(
            message, remedy, objects=findings.at_fault(record, case.me)
        )
    elif case.pool.is_live(record):
        yield check.Problem(
            f"the pool {case.pool.name} has a living member {record.name} "
            f"at {record.address} with the uuid of {case.me.name}",
            f"reinstall one of the two: no two hosts may have the uuid "
            f"{record.uuid}",
            objects=findings.at_fault(record, case.me),
        )
    else:
        yield check.warning(
            f"the pool {case.pool.name} still has a record of {record.name} "
            f"from a former membership or a failed join; the join will use "
            f"it again",
            f"on {case.master.name}: xe host-forget uuid={record.uuid}",
            findings.at_fault(record),
        )


def same_name(case: cases.JoinCase) -> check.Problems:
    """Equal names are allowed, and confuse everybody."""
    others = case.neighbours
    for what, field, alike, remedy in (
        ('hostname', 'hostname', _same_hostname, _other_hostname(case)),
        ('name', 'name_label', operator.eq, _other_label(case.me)),
    ):
        mine = getattr(case.me, field)
        same = [h for h in others if mine and alike(getattr(h, field), mine)]
        if same:
            yield check.warning(
                f"the {what} '{mine}' of the joiner is also that of "
                f"{findings.listed(f'{h.uuid} ({h.address})' for h in same)}",
                f"on {case.me.name}: {remedy}",
                findings.at_fault(case.me, *same),
            )


def _same_hostname(one: str, other: str) -> bool:
    """Say whether two hostnames are one to DNS and to a directory.

    XAPI compares them letter by letter, and only when a pool enters a
    directory (``xapi_pool.ml``, ``enable_external_auth``).
    """
    return one.casefold() == other.casefold()


def _other_label(host: objects.Host) -> str:
    label = shlex.quote(f"name-label={host.name_label}-{host.uuid[:8]}")
    return f"xe host-param-set uuid={host.uuid} {label}"


def _other_hostname(case: cases.JoinCase) -> str:
    """Return how the joiner gets another hostname.

    A host in a directory refuses a new one before 24.39
    (``AUTH_ALREADY_ENABLED``; xen-api#6116). A newer one takes it, but
    its account in the directory keeps the old name.
    """
    me = case.me
    rename = (
        f"xe host-set-hostname-live host-uuid={me.uuid} "
        f"host-name={me.hostname}-{me.uuid[:8]}"
    )
    if not me.external_auth_type:
        return rename
    if case.asks(_RENAMED_IN_DIRECTORY, ''):
        return (
            f"{rename} (its account in {me.external_auth_service_name} "
            f"keeps the old name; where that matters, leave the directory "
            f"first: xe pool-disable-external-auth uuid={case.my_pool.uuid})"
        )
    return (
        f"xe pool-disable-external-auth uuid={case.my_pool.uuid} (the host "
        f"may refuse a new name in the directory, AUTH_ALREADY_ENABLED); "
        f"{rename}; then join {me.external_auth_service_name} again"
    )


def same_address(case: cases.JoinCase) -> check.Problems:
    """Two hosts with one address: one of them is not the one meant."""
    mine = case.me.address
    same = [host for host in case.neighbours if mine and host.address == mine]
    if same:
        yield check.Problem(
            f"the address {mine} of {case.me.name} is also that of "
            f"{findings.listed(host.name for host in same)}",
            f"on {case.me.name}: {_other_address(case)}",
            objects=findings.at_fault(case.me, *same),
        )


def _other_address(case: cases.JoinCase) -> str:
    pif = case.joiner.management_pif(case.me)
    if pif is None:
        return f"xe pif-list host-uuid={case.me.uuid}"
    return rewiring.with_address(
        pif,
        case.pool.management_pif(case.master),
        pif.primary_address_type,
        rewiring.addresses(case.joiner, case.pool, *case.batch),
    )


def same_in_batch(case: cases.JoinCase) -> check.Problems:
    """The same host uuid twice in one request.

    At two addresses these are two machines, of which one is a copy.
    """
    twins = [
        records
        for records in case.batch
        if records.host_by_uuid(case.me.uuid) is not None
    ]
    for records in twins:
        twin = records.host_by_uuid(case.me.uuid)
        if (
            twin is not None
            and twin.address
            and case.me.address
            and not identity.same_address(twin.address, case.me.address)
        ):
            message, _ = _copied(case, twin)
            remedy = (
                f"install anew {case.me.typed} or {twin.typed}, one of them "
                f"only (its disks are wiped)"
            )
        else:
            message = (
                f"the host {case.me.name} ({case.me.uuid}) is in this "
                f"request more than once"
            )
            remedy = 'name each host once'
        yield check.Problem(
            message, remedy, objects=findings.at_fault(case.me)
        )


def size(case: cases.JoinCase) -> check.Problems:
    """More than 64 hosts are not supported, and not refused by XAPI."""
    known = {host.uuid for host in case.members}
    coming = {
        records.coordinator.uuid
        for records in case.batch
        if records.coordinator is not None
    } | {case.me.uuid}
    total = len(known | coming)
    if total > MAX_HOSTS:
        yield check.Problem(
            f"the pool {case.pool.name} would have {total} hosts; at most "
            f"{MAX_HOSTS} are supported",
            'make a second aggregate',
            objects=findings.at_fault(case.their_pool, name=case.pool.name),
        )


def members(case: cases.JoinCase) -> check.Problems:
    """A dead member lets the join hang for minutes in the certificates.

    XAPI's asserts pass, then ``exchange_certificates_on_join`` waits for
    every member.
    """
    unreachable = case.live.unreachable or {}
    for host in case.members:
        if host.uuid in (*case.joining, case.me.uuid):
            continue
        live = case.pool.is_live(host)
        if host.uuid in unreachable:
            yield _dead(case, host, unreachable[host.uuid])
        elif live is None:
            yield check.undecided(
                f"whether the member {host.name} is alive shows in no record",
                f"xe host-param-get uuid={host.uuid} "
                f"param-name=host-metrics-live",
            )
        elif not live:
            yield _dead(case, host, 'no heartbeat')
        elif not host.enabled:
            yield check.warning(
                f"the member {host.name} is disabled",
                f"xe host-enable uuid={host.uuid}",
                findings.at_fault(host),
            )


def _dead(
    case: cases.JoinCase, host: objects.Host, reason: str
) -> check.Problem:
    guests = case.pool.guests_on(host)
    forget = findings.forgetting(
        case.pool.aggregate, host, case.master, guests
    )
    return check.Problem(
        f"the member {host.name} at {host.address} is dead or unreachable "
        f"({reason}); the join would hang for minutes",
        f"switch on {host.typed}, or, if it is gone for good: {forget}",
        objects=findings.at_fault(host),
    )


def pool_operations(case: cases.JoinCase) -> check.Problems:
    """What is going on in the pool, updates apart (rule 32)."""
    for operation in sorted(set(case.their_pool.current_operations.values())):
        if operation == _UPDATING:
            continue
        message = f"'{operation}' is going on in the pool {case.pool.name}"
        remedy = f"wait; see on {case.master.name}: xe task-list"
        at_fault = findings.at_fault(case.their_pool, name=case.pool.name)
        if operation in BLOCKING_OPERATIONS:
            yield check.Problem(message, remedy, objects=at_fault)
        else:
            yield check.warning(
                f"{message}; the join will wait for it", remedy, at_fault
            )
    if case.their_pool.other_config.get('rolling_upgrade_in_progress'):
        yield check.warning(
            f"the pool {case.pool.name} is in a rolling upgrade",
            'finish it first',
            findings.at_fault(case.their_pool, name=case.pool.name),
        )


def joiner_operations(case: cases.JoinCase) -> check.Problems:
    """What is going on on the joiner would be cut off by its restart."""
    going_on = {
        *case.my_pool.current_operations.values(),
        *case.me.current_operations.values(),
    } - {_UPDATING}
    if going_on:
        yield check.warning(
            f"{findings.listed(sorted(going_on))} is going on on "
            f"{case.me.name}; the join cuts it off",
            f"wait; see on {case.me.name}: xe task-list",
            findings.at_fault(case.me),
        )


def joiner_enabled(case: cases.JoinCase) -> check.Problems:
    """A host that was disabled by hand stays disabled after the join."""
    if not case.me.enabled:
        yield check.warning(
            f"{case.me.name} is disabled, and may stay so in the pool",
            f"on {case.me.name}: xe host-enable uuid={case.me.uuid}",
            findings.at_fault(case.me),
        )
