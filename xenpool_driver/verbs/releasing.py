# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The verb that lets a pool go without touching a host."""

from __future__ import annotations

import concurrent.futures
import shlex
import typing

from oslo_log import log

from xenpool_driver import (
    exceptions,
    model,
    operation,
    pool_states,
    reconcile,
    store,
)
from xenpool_driver.verbs import common
from xenpool_driver.xapi import client

LOG = log.getLogger(__name__)

Observation = reconcile.Observation


class Release(common.PoolVerb):
    """The aggregate lets its pool go; it ends dismissed.

    It is the way out that always works, so nothing that XAPI says can make
    it fail. The stamp is taken off each pool that carries it and whose
    master answers. Where nobody answers, the pool keeps the stamp, and
    :attr:`findings` say so.
    """

    kind = 'release'
    request = pool_states.RELEASE
    action = 'release_aggregate'
    refused = exceptions.InvalidAggregateActionDelete
    goal = Observation.RELEASED
    timeout = 0.0

    def intent(self) -> dict[str, typing.Any]:
        return {
            'members': common.members(self.row),
            'pool_uuid': self.row.metadata.get(pool_states.POOL_UUID, ''),
        }

    def act(self, journal: operation.Journal) -> None:
        journal.phase('look for the pool')
        found = self._masters()
        doors = {
            door.url: door
            for door in found.values()
            if isinstance(door, client.Client)
        }
        told = [self._let_go(journal, door) for door in doors.values()]
        silent = {
            host: reason
            for host, reason in found.items()
            if isinstance(reason, str)
        }
        if not any(told) and self.row.hosts:
            told.append(self._unreached(silent))
        self.findings = tuple(filter(None, told))

    def go_on(self, journal: operation.Journal) -> None:
        self.act(journal)

    def observe(self) -> reconcile.Observation:
        return Observation.RELEASED

    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        if settlement.outcome != 'succeeded':
            return store.Changes()
        state = pool_states.next_state(row.state, pool_states.RELEASED)
        gone = (
            *common.members(row),
            pool_states.MASTER,
            pool_states.POOL_UUID,
            pool_states.HA_SUSPENDED,
        )
        return store.Changes(
            metadata={**dict.fromkeys(gone), pool_states.STATE: state},
            remove_hosts=tuple(row.hosts),
            dismiss=True,
        )

    def _masters(self) -> dict[str, client.Client | str]:
        """Return, for each host, its pool's master, or why it is not known.

        All hosts are asked at the same time; nobody is waited for longer
        than ``probe_timeout``. Hosts that do not agree on a master may be in
        different pools, and each of these may carry the stamp.
        """
        patience = self.site.conf.xenpool.probe_timeout

        def ask(host: str) -> client.Client | str:
            try:
                return self.site.connections.coordinator_of(host, patience)
            except (
                exceptions.XapiError,
                exceptions.ConfigurationError,
            ) as error:
                return str(error)

        hosts = self.row.hosts
        if not hosts:
            return {}
        with concurrent.futures.ThreadPoolExecutor(len(hosts)) as workers:
            return dict(zip(hosts, workers.map(ask, hosts), strict=True))

    def _let_go(
        self, journal: operation.Journal, door: client.Client
    ) -> model.Finding | None:
        """Take the stamp off a pool.

        :param door: the pool's master.
        :returns: what came of it; None where the pool is not ours.
        """
        try:
            pool = door.pool()
            owner = pool.other_config.get(pool_states.OWNER_KEY)
            if owner != self.row.uuid:
                return self._not_ours(pool.uuid)
            journal.phase('clear stamp', f"pool {pool.uuid}")
            self.surely(
                journal,
                lambda: journal.changes(door).remove_pool_other_config(
                    pool_states.OWNER_KEY
                ),
                lambda: (
                    door.pool().other_config.get(pool_states.OWNER_KEY)
                    != self.row.uuid
                ),
            )
        except exceptions.XapiError as error:
            return self._stamped(door.name, str(error))
        return model.Finding(
            'released',
            model.Severity.PASS,
            f"the pool {pool.name_label or pool.uuid} is let go: it does not "
            f"carry the stamp any more",
        )

    def _not_ours(self, uuid: str) -> model.Finding | None:
        """Return what to say of a pool without our stamp."""
        if uuid != self.row.metadata.get(pool_states.POOL_UUID):
            return None
        return model.Finding(
            'released',
            model.Severity.PASS,
            f"the pool {uuid} does not carry the stamp of the aggregate",
        )

    def _unreached(self, silent: typing.Mapping[str, str]) -> model.Finding:
        """Say that the pool was not found."""
        reasons = '; '.join(silent.values()) or 'its hosts are in other pools'
        return self._stamped(self.row.hosts[0], reasons)

    def _stamped(self, host: str, reason: str) -> model.Finding:
        """Say that the pool may keep the stamp, and how to go on.

        :param host: by which the pool is found when it answers again.
        """
        LOG.warning('%s: the stamp is not taken off: %s', self.name, reason)
        return model.Finding(
            'released',
            model.Severity.WARN,
            f"the pool could not be told that it is let go, so it keeps the "
            f"stamp of the aggregate ({reason}); a new aggregate takes the "
            f"stamp over when it adopts the pool",
            f"xenpool aggregate adopt {shlex.quote(self.name)} --from {host}",
        )


def left_behind(
    row: store.Aggregate, interrupted: store.Operation
) -> list[model.Finding]:
    """Return what of the pool is not as it was before an operation.

    :param row: the aggregate.
    :param interrupted: the operation; nobody looks at what came of it.
    """
    saved = interrupted.details.get('ha')
    if not saved:
        return []
    return [
        model.Finding(
            'ha',
            model.Severity.WARN,
            'HA was switched off for it and may be off still',
            reconcile.ha_by_hand(
                saved, row.metadata.get(pool_states.POOL_UUID, '')
            ),
        )
    ]
