# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The story that the demo tells, and how each of its steps should end."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from xenpool_driver import exceptions, model, pool_states
from xenpool_driver.cli import demo_views as views

if typing.TYPE_CHECKING:
    from xenpool_driver.compute import aggregates

NAME = 'demo'

Act = typing.Callable[[model.Progress], object]


@dataclasses.dataclass(frozen=True)
class Expected:
    """How things should stand after a step.

    :ivar declared: what the aggregate should say.
    :ivar pools: what XAPI should say: (name label, hosts, master) of each
        pool; the name is None where it does not matter.
    """

    declared: views.Declared
    pools: frozenset[tuple[str | None, frozenset[str], str]]


@dataclasses.dataclass(frozen=True)
class Step:
    """One request and its expected end.

    :ivar words: the command that does the same.
    :ivar act: makes the request; is told who listens to its progress.
    :ivar expected: how things should stand afterwards.
    """

    words: str
    act: Act
    expected: Expected


class Failed(exceptions.XenpoolError):
    """A request of the story did not succeed."""


class Story:
    """Plans the steps, keeping book of what each should lead to.

    :param api: what makes the requests.
    :param context: their context.
    :param pools: the pools as they stand at the start.
    """

    def __init__(
        self,
        api: aggregates.AggregateAPI,
        context: typing.Any,
        pools: collections.abc.Sequence[views.Pool],
    ) -> None:
        self._api = api
        self._context = context
        self._apart = {(pool.name, pool.hosts, pool.master) for pool in pools}
        self._state = ''
        self._hosts: list[str] = []
        self._master = ''

    def steps(self) -> collections.abc.Iterator[Step]:
        """Yield the steps; each is planned when the one before is done."""
        largest = max(self._apart, key=lambda pool: len(pool[1]))
        if len(largest[1]) > 1:
            yield self._adopt(largest)
        else:
            yield self._create()
        joiners = [
            next(iter(hosts))
            for _, hosts, _ in sorted(self._apart, key=_master_of)
            if len(hosts) == 1
        ]
        if joiners:
            yield self._add(joiners)
        if len(self._hosts) > 1:
            yield self._set_master(self._other())
        while len(self._hosts) > 1:
            yield self._remove(self._other())
        yield self._remove(self._master)
        yield self._delete()

    def _other(self) -> str:
        """Return the member that came last and is not the master."""
        return next(
            host for host in reversed(self._hosts) if host != self._master
        )

    def _create(self) -> Step:
        self._state = pool_states.CREATED
        return self._step(
            f"aggregate create {NAME}", lambda _: self._api.create(NAME)
        )

    def _adopt(self, pool: tuple[str, frozenset[str], str]) -> Step:
        self._apart.remove(pool)
        self._state = pool_states.ACTIVE
        _, hosts, self._master = pool
        self._hosts = [self._master, *sorted(hosts - {self._master})]
        return self._step(
            f"aggregate adopt {NAME} --from {self._master}",
            lambda _: self._api.adopt(self._context, NAME, self._hosts[0]),
        )

    def _add(self, hosts: list[str]) -> Step:
        self._state = pool_states.ACTIVE
        self._master = self._master or hosts[0]
        self._hosts += hosts
        self._apart = {
            pool for pool in self._apart if not pool[1] & set(hosts)
        }

        def act(listener: model.Progress) -> None:
            results = self._api.add_hosts(
                self._context, NAME, hosts, progress=listener
            )
            _raise_first(results)

        return self._step(f"aggregate add host {NAME} {' '.join(hosts)}", act)

    def _set_master(self, host: str) -> Step:
        self._master = host
        return self._step(
            f"aggregate set master {NAME} {host}",
            lambda listener: self._api.set_master(
                self._context, NAME, host, progress=listener
            ),
        )

    def _remove(self, host: str) -> Step:
        last = len(self._hosts) == 1
        self._hosts.remove(host)
        self._apart.add(('', frozenset({host}), host))
        if last:
            self._master = ''
        return self._step(
            f"aggregate remove host {NAME} {host} --yes --wait",
            lambda listener: self._api.remove_host(
                self._context,
                NAME,
                host,
                allow_data_loss=True,
                wait=True,
                progress=listener,
            ),
        )

    def _delete(self) -> Step:
        self._state = pool_states.DISMISSED
        return self._step(
            f"aggregate delete {NAME}",
            lambda _: self._api.delete(self._context, NAME),
        )

    def _step(self, words: str, act: Act) -> Step:
        hosts = frozenset(self._hosts)
        pools: set[tuple[str | None, frozenset[str], str]] = {*self._apart}
        if hosts:
            pools.add((NAME, hosts, self._master))
        declared = views.Declared(self._state, hosts, self._master)
        return Step(words, act, Expected(declared, frozenset(pools)))


def differences(
    expected: Expected,
    declared: views.Declared,
    pools: collections.abc.Sequence[views.Pool],
    aggregate_uuid: str,
) -> list[str]:
    """Return where things stand otherwise than they should; [] if nowhere.

    :param aggregate_uuid: the aggregate whose stamp its pool must carry.
    """
    found = []
    if declared != expected.declared:
        found.append(f"the aggregate should say: {expected.declared}")
    seen = frozenset((pool.name, pool.hosts, pool.master) for pool in pools)
    if seen != expected.pools:
        wanted = ', '.join(
            views.members(hosts, master)
            for _, hosts, master in sorted(expected.pools, key=_master_of)
        )
        found.append(f"XAPI should say: {wanted}")
    for pool in pools:
        ours = pool.hosts == expected.declared.hosts
        if pool.owner != (aggregate_uuid if ours else ''):
            found.append(f"pool {pool} carries the stamp '{pool.owner}'")
        if not pool.ready:
            found.append(f"pool {pool} is not ready")
    return found


def _master_of(pool: tuple[str | None, frozenset[str], str]) -> str:
    return pool[2]


def _raise_first(
    results: collections.abc.Iterable[aggregates.HostResult],
) -> None:
    for result in results:
        if result.error is not None:
            raise Failed(f"{result.host}: {result.error}") from result.error
