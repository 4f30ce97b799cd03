# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a story looks like from two sides: metadata, and XAPI itself.

XAPI is asked through a plain ``XenAPI.Session``, which shares nothing with
the driver: no connection, no parsing, no idea of how things ought to be.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import http.client
import typing

from xenpool_driver import pool_states

if typing.TYPE_CHECKING:
    from xenpool_driver import store


@dataclasses.dataclass(frozen=True)
class Declared:
    """What the aggregate says.

    :ivar state: its state.
    :ivar hosts: its hosts.
    :ivar master: the host that it calls its master, or ''.
    """

    state: str
    hosts: frozenset[str]
    master: str

    def __str__(self) -> str:
        return f"{self.state}, {members(self.hosts, self.master)}"


@dataclasses.dataclass(frozen=True)
class Pool:
    """One pool, as XAPI says.

    :ivar name: its name label.
    :ivar owner: the aggregate's uuid in its other_config, or ''.
    :ivar hosts: the hosts in its records.
    :ivar master: the one that is its master.
    :ivar ready: whether all of them are live and enabled.
    """

    name: str
    owner: str
    hosts: frozenset[str]
    master: str
    ready: bool

    def __str__(self) -> str:
        name = f"'{self.name}' " if self.name else ''
        busy = '' if self.ready else ' (not all live and enabled)'
        return f"{name}{members(self.hosts, self.master)}{busy}"


def members(hosts: collections.abc.Iterable[str], master: str) -> str:
    """Return the hosts' names, with a star at the master's."""
    return (
        ' '.join(f"{host}{'*' * (host == master)}" for host in sorted(hosts))
        or 'no hosts'
    )


def declared(aggregate: store.Aggregate) -> Declared:
    """Return what an aggregate says."""
    return Declared(
        aggregate.state,
        frozenset(aggregate.hosts),
        aggregate.metadata.get(pool_states.MASTER) or '',
    )


class Observer:
    """Looks at simulated hosts as anybody could.

    :param urls: where each host answers, by name.
    :param uuids: each host's name, by its XenServer uuid.
    :param password: of root.
    """

    def __init__(
        self,
        urls: collections.abc.Mapping[str, str],
        uuids: collections.abc.Mapping[str, str],
        password: str,
    ) -> None:
        self._urls = urls
        self._uuids = uuids
        self._password = password

    def pools(self) -> list[Pool]:
        """Return every pool, the one of the first host first.

        A host that refuses the login because it is a member of a pool shows
        up in that pool; one that does not answer shows up nowhere.
        """
        found = [self._pool(url) for url in self._urls.values()]
        return [pool for pool in found if pool is not None]

    def _pool(self, url: str) -> Pool | None:
        """Return the pool of which the host at ``url`` is the master."""
        from xenpool_driver.xapi import session

        # The certificates of the simulator are known to the driver only.
        plain = session.FACTORY(url, ignore_ssl=True)
        with contextlib.ExitStack() as at_end:
            at_end.callback(plain('close'))
            try:
                plain.xenapi.login_with_password('root', self._password)
            except (session.FAILURE, OSError, http.client.HTTPException):
                return None
            at_end.callback(plain.xenapi.session.logout)
            return self._read(plain.xenapi)

    def _read(self, xenapi: typing.Any) -> Pool:
        [pool] = xenapi.pool.get_all_records().values()
        hosts = xenapi.host.get_all_records()
        metrics = xenapi.host_metrics.get_all_records()
        names = {
            ref: self._uuids.get(host['uuid'], host['name_label'])
            for ref, host in hosts.items()
        }
        return Pool(
            name=pool['name_label'],
            owner=pool['other_config'].get(pool_states.OWNER_KEY, ''),
            hosts=frozenset(names.values()),
            master=names.get(pool['master'], ''),
            ready=all(
                host['enabled'] and metrics[host['metrics']]['live']
                for host in hosts.values()
            ),
        )
