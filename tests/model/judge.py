# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What must hold, stated a second time and independently of the code."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing

import sqlalchemy as sa

from tests import seen
from tests.model import greens
from xenpool_driver import exceptions, model, pool_states, store
from xenpool_driver.simulator import database, machine
from xenpool_driver.store import core

if typing.TYPE_CHECKING:
    from tests.model import sites, workers

THRESHOLD = 3

STEPS = {
    (None, 'created'),
    ('created', 'changing'),
    ('created', 'dismissed'),
    ('changing', 'active'),
    ('changing', 'error'),
    ('active', 'error'),
    ('active', 'dismissed'),
    ('error', 'dismissed'),
}
"""The lifecycle, as its page draws it."""


class Place(typing.Protocol):
    """What is judged.

    :ivar store: where the aggregates are.
    """

    store: core.Store

    @property
    def machines(self) -> list[machine.Machine]:
        """The hosts."""

    def host(self, name: str) -> machine.Machine:
        """Return the host called ``name``."""

    @property
    def executed(self) -> dict[str, collections.Counter[tuple[str, ...]]]:
        """Which changing calls the hosts carried out how often, by the
        operation that they were made for."""


MASTERSHIP = ('set-master', 'promote')
"""The kinds of operation that move a master."""

EXPECTED = (
    exceptions.InvalidAggregateAction,
    exceptions.AggregateError,
    exceptions.AggregateNotFound,
    exceptions.AggregateHostExists,
    exceptions.AggregateNameExists,
    exceptions.LeaseLost,
)
"""What a request may raise: refused, failed, gone, taken over."""


def lifecycle(site: Place) -> list[str]:
    """Return the changes of state that the lifecycle does not know."""
    return [
        f'aggregate {row.aggregate} went from {row.old} to {row.new}'
        for row in _seen(site)
        if row.what == pool_states.STATE and (row.old, row.new) not in STEPS
    ]


def _seen(site: Place) -> collections.abc.Sequence[sa.Row[typing.Any]]:
    """Return what the database itself saw, in order."""
    return seen.told(site.store._database._engine)


def places(rows: collections.abc.Iterable[store.Aggregate]) -> list[str]:
    """Return the hosts that are in more than one aggregate."""
    count = collections.Counter(host for row in rows for host in row.hosts)
    return [
        f'{host} is in {number} aggregates'
        for host, number in count.items()
        if number > 1
    ]


@dataclasses.dataclass(frozen=True)
class Pool:
    """A pool as its master has it.

    :ivar master: the master's name.
    :ivar uuid: the pool's.
    :ivar stamp: the owner in ``other_config``, or ''.
    :ivar members: the names of the hosts in its database.
    :ivar ha_enabled: whether HA is on.
    """

    master: str
    uuid: str
    stamp: str
    members: frozenset[str]
    ha_enabled: bool


def pools(site: Place) -> list[Pool]:
    """Return the pools that have a master."""
    names = {one.uuid: one.name for one in site.machines}
    found = []
    for one in site.machines:
        process = one.process
        if process is None or process.database is None:
            continue
        found.append(_pool(one, process.database, names))
    return found


def _pool(
    master: machine.Machine, db: database.Database, names: dict[str, str]
) -> Pool:
    pool = next(iter(db.all('pool').values()), None)
    config: dict[str, str] = {} if pool is None else pool['other_config']
    return Pool(
        master=master.name,
        uuid='' if pool is None else pool['uuid'],
        stamp=config.get(pool_states.OWNER_KEY, ''),
        members=frozenset(
            names[record['uuid']] for record in db.all('host').values()
        ),
        ha_enabled=pool is not None and pool['ha_enabled'],
    )


def shared_hosts(found: collections.abc.Sequence[Pool]) -> list[str]:
    """Return the hosts that two aggregates' pools list."""
    owned: dict[str, set[str]] = collections.defaultdict(set)
    for pool in found:
        for host in pool.members if pool.stamp else ():
            owned[host].add(pool.stamp)
    return [
        f'{host} is in the pools of {len(stamps)} aggregates'
        for host, stamps in owned.items()
        if len(stamps) > 1
    ]


def masters(
    site: Place,
    rows: collections.abc.Iterable[store.Aggregate],
    last_members: collections.abc.Callable[[str], set[str]] = lambda _: set(),
) -> list[str]:
    """Return the pools whose living members do not agree on one master.

    A master that was promoted may not know who joined after its copy of the
    database was made; of such a member the audit tells. A dead master that
    was forgotten may return as the master of what it remembers.

    :param last_members: returns the names of the hosts that a pool, which
        has no master now, was last known to have, where that is known.
    """
    rows = list(rows)
    complaints = rivals(site, rows)
    for row in rows:
        uuid = row.metadata.get(pool_states.POOL_UUID, '')
        serving = _serving(site, row)
        known = {host for pool in serving for host in pool.members}
        if not serving:
            known = last_members(uuid)
        named = {
            one.role[1]
            for one in map(site.host, known & set(row.hosts) or row.hosts)
            if works(one) and one.role[0] == machine.SLAVE
        } | {site.host(pool.master).address for pool in serving}
        if len(named) > 1:
            complaints.append(
                f'the members of {row.name} name {sorted(named)}'
            )
    return complaints


def rivals(
    site: Place, rows: collections.abc.Iterable[store.Aggregate]
) -> list[str]:
    """Return the pools that more than one of their hosts serves."""
    return [
        f'{row.name} has the masters {sorted(pool.master for pool in serving)}'
        for row in rows
        if len(serving := _serving(site, row)) > 1
    ]


def _serving(site: Place, row: store.Aggregate) -> list[Pool]:
    """Return the aggregate's pool as each host has it that serves it."""
    uuid = row.metadata.get(pool_states.POOL_UUID)
    return [
        pool
        for pool in pools(site)
        if uuid and pool.uuid == uuid and works(site.host(pool.master))
        if pool.master in row.hosts
    ]


def is_half_way(site: Place, row: store.Aggregate) -> bool:
    """Say whether the aggregate's last change of master is half-way.

    It has no end yet, or it failed: who asked has been told, and an audit
    tells of it. Its members need not agree.
    """
    changes = [
        one.outcome
        for one in site.store.list_operations(row.uuid, limit=10_000)
        if one.kind in MASTERSHIP and one.outcome not in ('undone', 'refused')
    ]
    return bool(changes) and changes[0] != 'succeeded'


def works(one: machine.Machine) -> bool:
    """Say whether a host is up and has started."""
    return bool(
        one.powered and not one.frozen and one.process and one.process.ready
    )


def is_quiet(site: Place) -> bool:
    """Say whether every powered host has started and nothing is going on."""
    return all(_is_at_rest(one) for one in site.machines if one.powered)


def _is_at_rest(one: machine.Machine) -> bool:
    process = one.process
    if one.frozen or process is None or process.fuse is not None:
        return False
    if process.ends_with is not None or process.role != one.role_file:
        return False
    if process.database is None:
        # A member of a dead master waits for ever.
        return process.ready or process.role.kind == machine.SLAVE
    pending = any(
        task['status'] == 'pending'
        for task in process.database.all('task').values()
    )
    return process.ready and not one.first_boot and not pending


def counts(site: Place) -> list[str]:
    """Return the aggregates whose state or count is not what their journal
    makes it."""
    told: dict[str, list[sa.Row[typing.Any]]] = collections.defaultdict(list)
    for row in _seen(site):
        if row.what in ('begin', 'end'):
            told[row.aggregate].append(row)
    complaints = []
    for aggregate in site.store.list_aggregates(dismissed=True):
        wanted = _replayed(told[aggregate.uuid])
        failed = aggregate.metadata.get(pool_states.FAILED_REQUESTS) or '0'
        shown = (aggregate.state, int(failed))
        if shown not in wanted:
            complaints.append(
                f'{aggregate} is {shown}; its journal makes that '
                f'{sorted(wanted)}'
            )
    return complaints


def _replayed(
    told: collections.abc.Iterable[sa.Row[typing.Any]],
) -> set[tuple[str, int]]:
    """Return what state and failure count may be after all that was told.

    A change of master that has moved the master, and left a member behind,
    has failed and does not count. The journal does not tell the two apart.
    """
    states = {('created', 0)}
    for event in told:
        after = {_stepped(event, *state) for state in states}
        if (
            event.what == 'end'
            and event.new == 'failed'
            and (event.old in ('set-master', 'promote'))
        ):
            after |= states
        states = after
    return states


def _stepped(
    event: sa.Row[typing.Any], state: str, failed: int
) -> tuple[str, int]:
    """Return state and failure count after an event."""
    what, kind, outcome = event.what, event.old, event.new
    if what == 'begin' and kind == 'dismiss':
        return 'dismissed', failed
    if what == 'begin' and state == 'created':
        return 'changing', failed
    if what == 'end' and state == 'changing':
        return ('active', 0) if outcome == 'succeeded' else ('error', 1)
    if what == 'end' and kind in ('stamp', 'destroy-domains'):
        return state, failed  # nobody has asked for it, so it does not count
    if what == 'end' and state == 'active' and outcome != 'refused':
        failed = 0 if outcome == 'succeeded' else failed + 1
        return 'error' if failed >= THRESHOLD else 'active', failed
    return state, failed


def twice(site: Place) -> list[str]:
    """Return the changing calls that an operation made more than once, and
    those that were made for none.

    What a master has lost with its power does not count.
    """
    complaints = []
    for tag, calls in site.executed.items():
        by_method: collections.Counter[str] = collections.Counter()
        for (method, *_), number in calls.items():
            by_method[method] += number
        for method, number in by_method.items():
            if tag == 'nobody':
                complaints.append(f'{method} outside of any operation')
            elif number > 1:
                complaints.append(
                    f'{method} {number} times for operation {tag}'
                )
    return complaints


def brackets(site: sites.Site) -> list[str]:
    """Return where HA was switched off around an operation and left so.

    An operation that could not put HA back has to say so.
    """
    complaints = []
    off = {
        pool.uuid: pool.master for pool in pools(site) if not pool.ha_enabled
    }
    pool_of = {
        row.uuid: row.metadata.get(pool_states.POOL_UUID, '')
        for row in site.store.list_aggregates(dismissed=True)
    }
    for one in site.store.list_operations(limit=10_000):
        if (one.uuid, 'pool.disable_ha') not in site.made:
            continue
        pool = pool_of.get(one.aggregate_uuid)
        if one.outcome and pool in off and not _is_restored(site, one):
            complaints.append(
                f'{one.kind} of {one.host} left HA off in the pool of '
                f'{off[pool]}'
            )
    return complaints


def _is_restored(site: sites.Site, one: store.Operation) -> bool:
    """Say whether HA was switched on after an operation switched it off.

    Of joins that overlap the last switches it on, or says that it cannot.
    """
    made = list(site.made)
    later = made[made.index((one.uuid, 'pool.disable_ha')) :]
    return any(
        (other.uuid, 'pool.enable_ha') in later
        or 'HA is not as it was' in (other.error or '')
        for other in site.store.list_operations(
            one.aggregate_uuid, limit=10_000
        )
    )


def raised(request: workers.Request) -> list[str]:
    """Return what is wrong with the way a request ended."""
    errors = [request.error]
    if isinstance(request.value, list):
        errors += [one.error for one in request.value]
    return [
        f'{request} raised {type(error).__name__}: {error}'
        for error in errors
        if error is not None and not isinstance(error, EXPECTED)
    ]


def unfinished(site: Place) -> list[str]:
    """Return what must not be left after a recovery."""
    complaints = [
        f'{one.kind} of {one.host} has no end, in phase {one.phase}'
        for one in site.store.running_operations()
    ]
    return complaints + [
        f'{row.name} is still changing'
        for row in site.store.list_aggregates()
        if row.state == pool_states.CHANGING
    ]


def hidden(
    site: Place, row: store.Aggregate, report: model.Report
) -> list[str]:
    """Return where an aggregate is not true and its audit does not say so."""
    said = [
        finding
        for finding in report.findings
        if finding.severity is not model.Severity.PASS
    ]
    uuid = row.metadata.get(pool_states.POOL_UUID)
    found = [pool for pool in pools(site) if uuid and pool.uuid == uuid]
    if said or not row.hosts:
        return []
    if len(found) != 1:
        return [f'{row.name}: {len(found)} pools, and nothing is said of it']
    [pool] = found
    complaints = []
    if frozenset(row.hosts) != pool.members:
        complaints.append(
            f'{row.name} has {sorted(row.hosts)}, its pool '
            f'{sorted(pool.members)}, and nothing is said of it'
        )
    if row.metadata.get(pool_states.MASTER) != pool.master:
        complaints.append(f'{row.name}: its master is {pool.master}, unsaid')
    if pool.stamp != row.uuid:
        complaints.append(f'{row.name}: its pool belongs to {pool.stamp!r}')
    return complaints


def story(site: sites.Site) -> collections.abc.Iterator[str]:
    """Tell what happened, what the journal has, what the hosts are now."""
    yield from site.notes
    for one in reversed(site.store.list_operations(limit=1000)):
        yield (
            f'{one.uuid[:8]} {one.started_at - greens.START:.1f} {one.kind} '
            f'{one.host} of {one.aggregate_uuid[:8]}: {one.outcome} '
            f'{one.error or ""}'
        )
        for line in site.store.phases(one.uuid):
            yield (
                f'    {line.at - greens.START:.1f} {line.phase} {line.note}'
            )
    for row in site.store.list_aggregates(dismissed=True):
        yield f'{row.uuid[:8]} {row.name} {row.hosts} {row.metadata}'
    for pool in pools(site):
        yield f'{pool}'
    for target in site.machines:
        process = target.process
        yield (
            f'{target.name} {target.address} {target.role} '
            f'powered={target.powered} file={target.role_file} '
            f'ready={process and process.ready} '
            f'{process and process.emergency}'
        )
    yield f'now {site.hub.now() - greens.START:.1f}'
