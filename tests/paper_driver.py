# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A pool driver that knows only paper: it writes to the store, calls nobody.

Compute service and command line are tested with it, so that these tests
neither need hosts nor the real driver.
"""

from __future__ import annotations

import collections.abc
import threading
import typing

from xenpool_driver import base, exceptions, model, pool_states, store


class PaperDriver(base.PoolDriver):
    """Does what it is told; ``trouble`` names what goes wrong.

    :ivar calls: (method, host, options) of each call.
    :ivar trouble: {host or method: the exception to raise}.
    :ivar reports: {host or method: the report to return}.
    """

    def __init__(self, database: store.Store) -> None:
        super().__init__()
        self.database = database
        self._lock = threading.Lock()
        self.calls: list[tuple[str, str, dict[str, typing.Any]]] = []
        self.undone: list[tuple[str, str, bool]] = []
        self.trouble: dict[str, Exception] = {}
        self.reports: dict[str, model.Report] = {}

    def init_host(self, host: str) -> None:
        self._called('init_host', host)

    def add_to_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        slave_info: base.SlaveInfo | None = None,
        **options: typing.Any,
    ) -> None:
        self._called(
            'add_to_aggregate', host, slave_info=slave_info, **options
        )
        progress = options.get('progress')
        if progress is not None:
            for phase in ('join', 'restart', 'joining', 'done'):
                progress(host, phase, 1.0)
        metadata = {host: f"uuid-of-{host}"}
        if pool_states.MASTER not in aggregate.metadata:
            metadata[pool_states.MASTER] = host
            metadata[pool_states.STATE] = pool_states.ACTIVE
        self._change(
            aggregate, store.Changes(metadata=metadata, add_hosts=[host])
        )

    def remove_from_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        slave_info: base.SlaveInfo | None = None,
        **options: typing.Any,
    ) -> None:
        self._called('remove_from_aggregate', host, **options)
        self._change(
            aggregate,
            store.Changes(metadata={host: None}, remove_hosts=[host]),
        )

    def undo_aggregate_operation(
        self,
        context: typing.Any,
        op: typing.Callable[[str], typing.Any],
        aggregate: model.AggregateLike,
        host: str,
        set_error: bool = True,
    ) -> None:
        self.undone.append((op.__name__, host, set_error))
        if 'undo' in self.trouble:
            raise self.trouble['undo']
        op(host)

    def set_aggregate_master(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        **options: typing.Any,
    ) -> None:
        self._called('set_aggregate_master', host, **options)
        self._change(
            aggregate, store.Changes(metadata={pool_states.MASTER: host})
        )

    def rename_aggregate(
        self, context: typing.Any, aggregate: model.AggregateLike, name: str
    ) -> None:
        self._called('rename_aggregate', '', name=name)
        self._change(aggregate, store.Changes(name=name))

    def dismiss_aggregate(
        self, context: typing.Any, aggregate: model.AggregateLike
    ) -> None:
        self._called('dismiss_aggregate', '')
        if aggregate.hosts:
            raise exceptions.InvalidAggregateActionDelete(
                aggregate.name, 'it has hosts'
            )
        self._change(
            aggregate,
            store.Changes(
                metadata={pool_states.STATE: pool_states.DISMISSED},
                dismiss=True,
            ),
        )

    def release_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        self._called('release_aggregate', '')
        self._change(
            aggregate,
            store.Changes(
                metadata={pool_states.STATE: pool_states.DISMISSED},
                remove_hosts=tuple(aggregate.hosts),
                dismiss=True,
            ),
        )
        return self.reports.get('release', model.Report(aggregate.name))

    def adopt_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        replace_stamp: str | None = None,
    ) -> None:
        self._called('adopt_aggregate', host, replace_stamp=replace_stamp)
        self._change(
            aggregate,
            store.Changes(
                metadata={
                    pool_states.MASTER: host,
                    pool_states.STATE: pool_states.ACTIVE,
                },
                add_hosts=[host],
            ),
        )

    def check_hosts(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        hosts: collections.abc.Sequence[str],
        *,
        force: bool = False,
        suspend_ha: bool = False,
    ) -> list[model.Report]:
        one = hosts[0] if len(hosts) == 1 else ''
        self._called('check_hosts', one, force=force, suspend_ha=suspend_ha)
        return [self.reports.get(host, model.Report(host)) for host in hosts]

    def check_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        force: bool = False,
    ) -> model.Report:
        self._called('check_host', host, force=force)
        return self.reports.get(host, model.Report(host))

    def check_removal(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        **options: typing.Any,
    ) -> model.Report:
        self._called('check_removal', host, **options)
        return self.reports.get(host, model.Report(host))

    def audit_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        fix: bool = False,
    ) -> model.Report:
        self._called('audit_aggregate', '', fix=fix)
        return self.reports.get('audit', model.Report(aggregate.name))

    def recover_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        promote: str | None = None,
        master_is_off: bool = False,
        force: str | None = None,
        progress: model.Progress | None = None,
    ) -> model.Report:
        self._called(
            'recover_aggregate',
            '',
            promote=promote,
            master_is_off=master_is_off,
            force=force,
        )
        return self.reports.get('recover', model.Report(aggregate.name))

    def _called(self, method: str, host: str, **options: typing.Any) -> None:
        self.calls.append((method, host, options))
        for key in (host, method):
            if key in self.trouble:
                raise self.trouble[key]

    def _change(
        self, aggregate: model.AggregateLike, changes: store.Changes
    ) -> None:
        with self._lock:
            row = self.database.get_aggregate(aggregate.uuid)
            self.database.change(row.uuid, row.generation, changes)
        typing.cast(store.Aggregate, aggregate).refresh()


def refused_add(reason: str = 'HA is enabled') -> Exception:
    """Return a refusal with two findings in its report."""
    findings = (
        model.Finding('clock', model.Severity.PASS, 'clocks agree'),
        model.Finding(
            'joiner-vms',
            model.Severity.WARN,
            "VM 'web' is halted on the joiner",
        ),
        model.Finding(
            'joiner-ha',
            model.Severity.FAIL,
            "high availability is enabled on 'xen02'",
            'xe pool-ha-disable',
            ('HA_IS_ENABLED',),
            objects=(model.ObjectRef('pool', 'p-1', 'lab'),),
        ),
    )
    return exceptions.InvalidAggregateActionAdd(
        'prod',
        reason,
        model.Report('xen02', findings, ('HA_IS_ENABLED',)),
    )
