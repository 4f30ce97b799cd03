# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A site, what is asked of it, what happens to it, and what must hold."""

from __future__ import annotations

import collections.abc
import functools
import sys
import typing

from hypothesis import stateful
from hypothesis import strategies as st

from tests.model import judge, plots, sites, workers
from xenpool_driver import driver, model, pool_states, store
from xenpool_driver.compute import aggregates, manager
from xenpool_driver.simulator import machine, mishaps

MOST_REQUESTS = 3
"""How many requests are under way at the same time."""

CALM = 8
"""How many steps there are at least from one recovery of all to the next."""

SILENT = 700.0
"""Seconds after which a host that keeps silent counts as dead with XAPI."""

VIEWS = ('master', 'member-views', 'master-reachable')
"""The checks of an audit that tell of members which name no common master."""

Ask = collections.abc.Callable[[driver.XenAPIPoolDriver], object]


class Life(stateful.RuleBasedStateMachine):
    """A site, and what happens to it.

    :cvar kept: what all runs share.
    :cvar tally: counts.
    """

    kept: typing.ClassVar[sites.Kept]
    tally: typing.ClassVar[plots.Tally]

    def __init__(self) -> None:
        super().__init__()
        self.tally['runs'] += 1
        self.site = sites.Site(self.kept)
        self.hub = self.site.hub
        self.era = 0
        self.steps_since = 0
        self.judged = 0
        self.rows: list[store.Aggregate] = []
        self.requests: list[workers.Request] = []
        self.uuids = {
            name: self.site.create(name).uuid for name in sites.POOLS
        }

    @stateful.initialize(first=st.integers(0, 4), second=st.integers(0, 2))
    def found(self, first: int, second: int) -> None:
        """Let pools stand already, of so many hosts."""
        self.site.form(sites.HOSTS[:first])
        self.site.form(sites.HOSTS[4 : 4 + second])
        calm = plots.How(0, 600.0, None)
        for pool, host, number in zip(
            sites.POOLS, (0, 4), (first, second), strict=True
        ):
            if number:
                self.adopt(calm, pool, sites.HOSTS[host])

    # -- requests ----------------------------------------------------------

    def row(self, pool: str) -> store.Aggregate:
        """Return an aggregate as it is now."""
        return self.site.store.get_aggregate(self.uuids[pool], dismissed=True)

    def ask(
        self,
        how: plots.How,
        verb: str,
        text: str,
        request: Ask,
        concerned: collections.abc.Iterable[str | None] = (),
    ) -> workers.Request:
        """Ask a worker, and let time pass until it is done, or patience.

        :param verb: what is asked, as it is counted.
        :param text: the same in full, for who reads of a failure.
        :param concerned: the hosts that the request is about.
        """
        worker = self.site.workers[how.by]
        self._plot(worker, how.mischief, [one for one in concerned if one])
        asked = workers.Request(
            worker,
            f'{verb} {text}',
            lambda: request(worker.driver),
            self.hub,
        )
        self.requests.append(asked)
        self.site.note(f'{asked} begins; {how.mischief}')
        self.tally.count('requests', verb)
        self.hub.run_until(lambda: asked.is_over, how.patience)
        self._collect()
        return asked

    def _collect(self) -> None:
        """Judge the requests that are over; hire for the dead."""
        for request in [one for one in self.requests if one.is_over]:
            self.requests.remove(request)
            self.site.note(f'{request}: {request.outcome} {request.error}')
            self.tally.count('ends', request.outcome)
            self.no(judge.raised(request))
        for number, worker in enumerate(self.site.workers):
            if worker.is_dead:
                self.tally.count('kills', 'worker')
                self.site.workers[number] = self.site.hire()

    def _may_ask(self) -> bool:
        return len(self.requests) < MOST_REQUESTS

    def _a_host(self, data: st.DataObject, pool: str, what: str) -> str:
        """Return a host of an aggregate, or one that is in none."""
        hosts = sorted(self.row(pool).hosts) or sites.HOSTS[-1:]
        found: str = data.draw(st.sampled_from(hosts), what)
        return found

    @stateful.precondition(_may_ask)
    @stateful.rule(
        how=plots.HOW,
        pool=plots.POOLS,
        host=plots.HOSTS,
        suspend_ha=st.booleans(),
    )
    def add(
        self, how: plots.How, pool: str, host: str, suspend_ha: bool
    ) -> None:
        row = self.row(pool)
        self.ask(
            how,
            'add',
            f'{host} to {pool}{_ha(suspend_ha)}',
            lambda worker: worker.add_to_aggregate(
                None, row, host, suspend_ha=suspend_ha
            ),
            (host, row.metadata.get(pool_states.MASTER)),
        )

    def _free(self) -> list[str]:
        """Return the hosts that are in no aggregate."""
        taken = {host for name in sites.POOLS for host in self.row(name).hosts}
        return [host for host in sites.HOSTS if host not in taken]

    @stateful.precondition(_may_ask)
    @stateful.rule(
        how=plots.HOW,
        pool=plots.POOLS,
        data=st.data(),
        suspend_ha=st.booleans(),
    )
    def add_free_one(
        self,
        how: plots.How,
        pool: str,
        data: st.DataObject,
        suspend_ha: bool,
    ) -> None:
        free = self._free()
        if free:
            host = data.draw(st.sampled_from(free), 'host')
            self.add(how, pool, host, suspend_ha)

    @stateful.precondition(_may_ask)
    @stateful.rule(
        how=plots.HOW,
        pool=plots.POOLS,
        count=st.integers(2, 4),
        suspend_ha=st.booleans(),
    )
    def add_several(
        self, how: plots.How, pool: str, count: int, suspend_ha: bool
    ) -> None:
        row = self.row(pool)
        hosts = (self._free() + list(sites.HOSTS))[:count]
        self.ask(
            how,
            'add several',
            f'{", ".join(hosts)} to {pool}{_ha(suspend_ha)}',
            functools.partial(_add_several, self.site, row, hosts, suspend_ha),
            (*hosts, row.metadata.get(pool_states.MASTER)),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(
        how=plots.HOW,
        pool=plots.POOLS,
        data=st.data(),
        options=st.fixed_dictionaries(
            {
                'drain': st.booleans(),
                'wait': st.booleans(),
                'suspend_ha': st.booleans(),
            }
        ),
        with_successor=st.booleans(),
    )
    def remove(
        self,
        how: plots.How,
        pool: str,
        data: st.DataObject,
        options: dict[str, typing.Any],
        with_successor: bool,
    ) -> None:
        row = self.row(pool)
        host = self._a_host(data, pool, 'host')
        successor = None
        if with_successor:
            successor = self._a_host(data, pool, 'successor')
        self.ask(
            how,
            'drain' if options['drain'] else 'remove',
            f'{host} from {pool}{_ha(options["suspend_ha"])}',
            lambda worker: worker.remove_from_aggregate(
                None,
                row,
                host,
                successor=successor,
                allow_data_loss=True,
                **options,
            ),
            (host, row.metadata.get(pool_states.MASTER), successor),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(
        how=plots.HOW,
        pool=plots.POOLS,
        data=st.data(),
        suspend_ha=st.booleans(),
        patient=st.booleans(),
    )
    def forget(
        self,
        how: plots.How,
        pool: str,
        data: st.DataObject,
        suspend_ha: bool,
        patient: bool,
    ) -> None:
        row = self.row(pool)
        down = [one for one in row.hosts if not self._is_up(one)]
        hosts = sorted(down or row.hosts) or sites.HOSTS[:1]
        host = data.draw(st.sampled_from(hosts), 'host')
        if host in down and patient:
            self.hub.advance(SILENT)
        self.ask(
            how,
            'forget',
            f'{host} of {pool}{_ha(suspend_ha)}',
            lambda worker: worker.remove_from_aggregate(
                None, row, host, forget=True, suspend_ha=suspend_ha
            ),
            (host, row.metadata.get(pool_states.MASTER)),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(
        how=plots.HOW,
        pool=plots.POOLS,
        data=st.data(),
        suspend_ha=st.booleans(),
    )
    def set_master(
        self,
        how: plots.How,
        pool: str,
        data: st.DataObject,
        suspend_ha: bool,
    ) -> None:
        row = self.row(pool)
        host = self._a_host(data, pool, 'host')
        self.ask(
            how,
            'set master',
            f'{host} of {pool}{_ha(suspend_ha)}',
            lambda worker: worker.set_aggregate_master(
                None, row, host, suspend_ha=suspend_ha
            ),
            (host, row.metadata.get(pool_states.MASTER)),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(how=plots.HOW, pool=plots.POOLS)
    def delete(self, how: plots.How, pool: str) -> None:
        row = self.row(pool)
        if row.hosts and row.state != pool_states.ERROR:
            return  # refused, which is no surprise
        self.ask(
            how,
            'dismiss',
            pool,
            lambda worker: worker.dismiss_aggregate(None, row),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(how=plots.HOW, pool=plots.POOLS, host=plots.HOSTS)
    def adopt(self, how: plots.How, pool: str, host: str) -> None:
        row = self.row(pool)
        if row.state != pool_states.CREATED:
            return
        self.ask(
            how,
            'adopt',
            f'the pool of {host} as {pool}',
            lambda worker: worker.adopt_aggregate(None, row, host),
            (host,),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(how=plots.HOW, pool=plots.POOLS, name=plots.POOLS)
    def rename(self, how: plots.How, pool: str, name: str) -> None:
        row = self.row(pool)
        self.ask(
            how,
            'rename',
            f'{pool} to the new {name}',
            lambda worker: worker.rename_aggregate(None, row, f'new {name}'),
            (row.metadata.get(pool_states.MASTER),),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(how=plots.HOW, pool=plots.POOLS, fix=st.booleans())
    def audit(self, how: plots.How, pool: str, fix: bool) -> None:
        row = self.row(pool)
        self.ask(
            how,
            'audit --fix' if fix else 'audit',
            pool,
            lambda worker: worker.audit_aggregate(None, row, fix=fix),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(how=plots.HOW, pool=plots.POOLS)
    def recover(self, how: plots.How, pool: str) -> None:
        row = self.row(pool)
        self.ask(
            how,
            'recover',
            pool,
            lambda worker: worker.recover_aggregate(None, row),
        )

    @stateful.precondition(_may_ask)
    @stateful.rule(how=plots.HOW, pool=plots.POOLS, data=st.data())
    def promote(self, how: plots.How, pool: str, data: st.DataObject) -> None:
        row = self.row(pool)
        master = row.metadata.get(pool_states.MASTER)
        if master is None:
            return
        self.site.note(f'kill {master}')
        self.tally.count('accidents', 'kill')
        mishaps.kill(self.site.host(master))
        host = self._a_host(data, pool, 'host')
        self.ask(
            how,
            'promote',
            f'{host} in {pool}',
            lambda worker: worker.recover_aggregate(None, row, promote=host),
            (host,),
        )

    # -- what goes wrong -----------------------------------------------------

    def _is_up(self, host: str) -> bool:
        return self.site.host(host).powered

    def _plot(
        self,
        worker: workers.Worker,
        mischief: plots.Mischief,
        concerned: list[str],
    ) -> None:
        """Let something go wrong, now or later."""
        if mischief is not None:
            self.tally.count('mischief', plots.name_of(mischief))
        later = self.hub.call_later
        if isinstance(mischief, plots.Fuse):
            worker.fuse = mischief.points
        elif isinstance(mischief, plots.Fault):
            self.site.world.faults.add(mischief.rule())
        elif isinstance(mischief, plots.Freeze):
            later(mischief.delay, worker.freeze, True)
            later(mischief.delay + mischief.back, worker.freeze, False)
        elif isinstance(mischief, plots.Accident):
            hosts = [*concerned, *sites.HOSTS]
            one = self.site.host(hosts[mischief.which % len(hosts)])
            later(mischief.delay, self._befall, one, mischief, self.era)

    def _befall(
        self, one: machine.Machine, accident: plots.Accident, era: int
    ) -> None:
        """Let the accident happen, unless all was healed meanwhile."""
        if not one.powered or era != self.era:
            return
        self.tally.count('accidents', accident.mishap)
        self.site.note(f'{accident.mishap} {one.name}')
        mishaps.MISHAPS[accident.mishap](one)
        if not one.powered:
            self.hub.call_later(accident.back, self._return, one)

    def _return(self, one: machine.Machine) -> None:
        """Switch a host on; but a master that was replaced only when its
        successor works, since else it would take over again."""
        if one.powered or not self.site.may_return(one):
            return
        successor = self.site.successor(one)
        if successor is not None and not judge.works(successor):
            self._return(successor)
            self.hub.call_later(30.0, self._return, one)
            return
        self.tally.count('accidents', 'power on')
        self.site.note(f'power on {one.name}')
        mishaps.power_on(one)

    @stateful.rule(pool=plots.POOLS)
    def switch_ha_on(self, pool: str) -> None:
        master = self.row(pool).metadata.get(pool_states.MASTER)
        if master is not None:
            self.tally.count('accidents', 'HA on')
            self.site.note(f'HA on in {pool}')
            self.site.switch_ha_on(master)

    @stateful.rule(host=plots.HOSTS)
    def power_on(self, host: str) -> None:
        self._return(self.site.host(host))

    @stateful.rule(by=st.integers(0, 1))
    def kill_worker(self, by: int) -> None:
        self.site.note(f'kill {self.site.workers[by]}')
        self.site.workers[by].kill()
        self._collect()

    @stateful.rule(seconds=st.sampled_from([3.0, 10.0, 70.0, 700.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.hub.advance(seconds)
        self._collect()

    # -- what must hold ------------------------------------------------------

    @stateful.precondition(lambda self: self.steps_since > CALM)
    @stateful.rule()
    def settle(self) -> None:
        """Kill all workers, heal all hosts: a recovery leaves nothing open."""
        self.steps_since = 0
        self.tally['recoveries'] += 1
        self.site.note('settle')
        self._heal()
        self._await_requests()
        for worker in self.site.workers:
            worker.kill()
        self._collect()
        self.hub.advance(2 * sites.LEASE)
        calm = plots.How(0, 3000.0, None)
        for pool in sites.POOLS:
            self.recover(calm, pool)
        self._await_requests()
        self.no(judge.unfinished(self.site))
        self.no(judge.brackets(self.site))
        self.hub.run_until(lambda: judge.is_quiet(self.site), 300.0)
        for pool in sites.POOLS:
            self._audit(pool)
            if self.row(pool).deleted_at is not None:
                self.uuids[pool] = self.site.create(pool).uuid

    def _await_requests(self) -> None:
        self.hub.run_until(
            lambda: all(one.is_over for one in self.requests), 5000.0
        )
        self._collect()
        self.no([f'{one} never ends' for one in self.requests])

    def _heal(self) -> None:
        """End what goes wrong; every host is up."""
        self.era += 1
        self.site.world.faults.clear()
        for worker in self.site.workers:
            worker.fuse = None
            worker.freeze(False)
        for one in self.site.machines:
            self._return(one)
            self.hub.advance(40.0)
        self.hub.run_until(lambda: judge.is_quiet(self.site), 300.0)

    def _audit(self, pool: str) -> None:
        """What an audit does not mend, it must say."""
        for fix in (True, False):
            row = self.row(pool)
            asked = self.ask(
                plots.How(0, 500.0, None),
                'audit --fix' if fix else 'audit',
                pool,
                functools.partial(_audit, row, fix),
            )
            assert isinstance(asked.value, model.Report), asked.error
            report = asked.value
        row = self.row(pool)
        self.no(judge.hidden(self.site, row, report))
        if not any(one.check in VIEWS for one in report.failures):
            self.no(judge.masters(self.site, [row], self.site.last_members))

    @stateful.invariant()
    def nothing_is_wrong(self) -> None:
        """What must hold at any time."""
        self.steps_since += 1
        self.tally['steps'] += 1
        self._collect()
        site = self.site
        self.no(site.complaints.heard)
        self.no([repr(failure) for failure in site.hub.failures])
        self.no(judge.twice(site))
        self.no(judge.shared_hosts(site.living(judge.pools(site))))
        if self.judged != (told := site.told()):
            self.judged = told
            self.rows = site.store.list_aggregates()
            self.no(judge.lifecycle(site))
            self.no(judge.places(self.rows))
            self.no(judge.counts(site))
        if not self.requests and judge.is_quiet(site):
            self.tally['quiet steps'] += 1
            self.no(judge.rivals(site, self.rows))
            apart = judge.masters(site, self.rows, site.last_members)
            if apart:
                sound = [
                    row
                    for row in self.rows
                    if not judge.is_half_way(site, row)
                ]
                self.no(judge.masters(site, sound, site.last_members))

    def no(self, complaints: collections.abc.Collection[str]) -> None:
        """Fail if there are complaints, and tell how it came to that."""
        if complaints:
            story = '\n'.join(judge.story(self.site))
            raise AssertionError('; '.join(complaints) + '\n' + story)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.settle()
                self.nothing_is_wrong()
                for one in self.site.store.list_operations(limit=10_000):
                    words = f'{one.kind} {one.outcome}'
                    self.tally.count('operations', words)
                for _, method in self.site.made:
                    self.tally.count('operations that called', method)
        finally:
            self.site.close()


def _audit(
    row: store.Aggregate, fix: bool, worker: driver.XenAPIPoolDriver
) -> model.Report:
    return worker.audit_aggregate(None, row, fix=fix)


def _add_several(
    site: sites.Site,
    row: store.Aggregate,
    hosts: collections.abc.Sequence[str],
    suspend_ha: bool,
    worker: driver.XenAPIPoolDriver,
) -> list[aggregates.HostResult]:
    api = aggregates.AggregateAPI(
        worker.site.conf,
        worker.site.store,
        lambda: manager.ComputeManager(dict.fromkeys(sites.HOSTS, worker)),
    )
    return api.add_hosts(None, row.uuid, hosts, suspend_ha=suspend_ha)


def _ha(suspend_ha: bool) -> str:
    return ', HA suspended' if suspend_ha else ''
