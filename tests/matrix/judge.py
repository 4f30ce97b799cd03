# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What XAPI says in the end, and where the aggregate disagrees."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from tests.matrix import scenarios, stage
from xenpool_driver import pool_states, store
from xenpool_driver.simulator import database, errors, machine

HOUSEKEEPING = ('event', 'session', 'system', 'task')
"""Classes whose calls change nothing of a pool."""

LOOKS = ('get_', 'is_', 'local_assert_')
"""What the names of calls that change nothing begin with."""


def is_change(method: str) -> bool:
    """Say whether a call changes something: none may be made twice."""
    cls, name = method.split('.')
    return cls not in HOUSEKEEPING and not name.startswith(LOOKS)


DISABLED = 'live'
"""The check of audits that finds disabled hosts."""

VIEWS = 'member-views'
"""The check of audits that finds members with another master."""

HA = 'ha-not-as-before'
"""No audit can know of that; who switched it off has to tell."""


@dataclasses.dataclass(frozen=True)
class Truth:
    """A pool as its master's database and its members have it.

    :ivar uuid: the pool's.
    :ivar master: the master's name.
    :ivar members: the members' names.
    :ivar stamp: the owner in ``other_config``, or ''.
    :ivar name: the pool's name.
    :ivar disabled: the members that are not enabled.
    :ivar dissidents: the living members that name another master.
    :ivar ha: None when off, else configuration and tolerance.
    """

    uuid: str
    master: str
    members: frozenset[str]
    stamp: str
    name: str
    disabled: frozenset[str]
    dissidents: frozenset[str]
    ha: tuple[dict[str, str], int, int] | None


def truth(where: stage.Stage) -> Truth | None:
    """Return the pool that the scenario is about; None when it has no
    master."""
    for master, db in _masters(where):
        found = _read(where, master, db)
        if found.uuid == where.pool_uuid:
            return found
    return None


def elected(where: stage.Stage) -> str:
    """Return the master whom HA has put in the place of a dead one, or ''."""
    dead = [one.name for one in where.machines.values() if not one.powered]
    pool = truth(where)
    return pool.master if dead and pool is not None else ''


def _masters(
    where: stage.Stage,
) -> collections.abc.Iterator[tuple[machine.Machine, database.Database]]:
    for one in where.machines.values():
        if one.frozen or not one.powered:
            continue
        if one.is_master and one.db is not None:
            yield one, one.db


def _read(
    where: stage.Stage, master: machine.Machine, db: database.Database
) -> Truth:
    by_uuid = {one.uuid: one for one in where.machines.values()}
    [pool] = db.all('pool').values()
    hosts = db.all('host')
    members = {
        by_uuid[record['uuid']].name: record for record in hosts.values()
    }
    dissidents = frozenset(
        name
        for name in members
        if name != master.name
        and where.machine(name).powered
        and where.machine(name).role != (machine.SLAVE, master.address)
    )
    return Truth(
        uuid=pool['uuid'],
        master=by_uuid[hosts[pool['master']]['uuid']].name,
        members=frozenset(members),
        stamp=pool['other_config'].get(pool_states.OWNER_KEY, ''),
        name=pool['name_label'],
        disabled=frozenset(
            name
            for name, record in members.items()
            if not record['enabled'] and where.machine(name).powered
        ),
        dissidents=dissidents,
        ha=_ha(db, pool),
    )


def _ha(
    db: database.Database, pool: dict[str, typing.Any]
) -> tuple[dict[str, str], int, int] | None:
    if not pool['ha_enabled']:
        return None
    on = 0
    for vdi in pool['ha_statefiles']:
        try:
            sr = db.get('SR', db.get('VDI', vdi)['SR'])
        except errors.ApiError:
            continue
        on += sr['name_label'] == 'nfs1'
    return (
        dict(pool['ha_configuration']),
        pool['ha_host_failures_to_tolerate'],
        on,
    )


def twice(where: stage.Stage) -> list[str]:
    """Return the changing calls that were carried out more than once."""
    return [
        f'{method} was carried out {count} times'
        for method, count in sorted(where.simulation.calls().items())
        if is_change(method) and count > 1
    ]


def unfinished(where: stage.Stage) -> list[str]:
    """Return what no worker may leave behind."""
    complaints = [
        f'{one.kind} of {one.host} has no end'
        for one in where.store.running_operations()
    ]
    row = current(where)
    if row.state == pool_states.CHANGING:
        complaints.append('the aggregate is still changing')
    complaints += [
        f'{one.kind} {one.outcome} without a reason'
        for one in where.store.list_operations()
        if one.outcome not in (None, 'succeeded') and not one.error
    ]
    return complaints


def story(where: stage.Stage) -> list[str]:
    """Return what the journal tells, an operation a line."""
    return [
        f'{one.kind} {one.host}: {one.outcome} {one.error} '
        + str([phase.phase for phase in where.store.phases(one.uuid)])
        for one in where.store.list_operations()
    ]


def current(where: stage.Stage) -> store.Aggregate:
    """Return the aggregate as it is now."""
    return where.store.get_aggregate(scenarios.AGGREGATE, dismissed=True)


def disagreements(where: stage.Stage) -> list[str]:
    """Return where the aggregate says anything else than XAPI does."""
    row = current(where)
    pool = truth(where)
    if pool is None:
        return []
    complaints = []
    owned = pool.stamp == row.uuid
    members = pool.members if owned else frozenset()
    if frozenset(row.hosts) != members:
        complaints.append(
            f'hosts: aggregate {sorted(row.hosts)}, pool {sorted(members)}'
        )
    for host in row.hosts:
        if row.metadata.get(host) != where.machine(host).uuid:
            complaints.append(f'{host}: uuid {row.metadata.get(host)}')
    for host in where.machines:
        if host not in row.hosts and host in row.metadata:
            complaints.append(f'{host}: has a uuid, but is no member')
    master = row.metadata.get(pool_states.MASTER)
    if master != (pool.master if owned else None):
        complaints.append(f'master: aggregate {master}, pool {pool.master}')
    known = row.metadata.get(pool_states.POOL_UUID)
    if known != (pool.uuid if owned else None):
        complaints.append(f'pool uuid: aggregate {known}, pool {pool.uuid}')
    return complaints


def unwell(where: stage.Stage) -> dict[str, str]:
    """Return what ails the pool itself, by the check that an audit has."""
    pool = truth(where)
    if pool is None:
        return {}
    found = {}
    if pool.disabled:
        found[DISABLED] = f'disabled: {sorted(pool.disabled)}'
    if pool.dissidents:
        found[VIEWS] = f'dissidents: {sorted(pool.dissidents)}'
    if pool.stamp and pool.name != current(where).name:
        found['name'] = f'the pool is called {pool.name!r}'
    wanted = None
    if where.scenario.prepare is scenarios.switch_ha_on:
        wanted = (scenarios.HA_TIMEOUT, scenarios.TOLERANCE, 1)
    if pool.ha != wanted:
        found[HA] = f'HA: {pool.ha}, not {wanted}'
    return found
