# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Who holds an aggregate's operations, and how a person ends that."""

from __future__ import annotations

import shlex

from xenpool_driver import (
    clock,
    exceptions,
    model,
    operation,
    store,
    takeover,
)

CHECK = 'interrupted-operation'
"""The check of findings about operations that have no end."""


def story_of(left: store.Operation) -> str:
    """Return an operation in words."""
    return f"{left.kind} of {left.host or 'the pool'}"


def held(site: operation.Site, row: store.Aggregate) -> list[model.Finding]:
    """Say who holds the operations that have no end, and until when.

    :param row: their aggregate.
    """
    now = site.store.lease_time()
    return [
        model.Finding(
            CHECK,
            model.Severity.FAIL,
            f"{story_of(one)} (operation {one.uuid}) is held by {one.owner} "
            f"until {clock.moment(one.lease_expires)}, for another "
            f"{max(0.0, one.lease_expires - now):.0f} s; a worker that lives "
            f"renews that",
            f"if its worker is dead for sure: {_by_force(row, one)}",
        )
        for one in site.store.running_operations(row.uuid)
    ]


def nothing() -> model.Finding:
    """Say that no operation has to be settled."""
    return model.Finding(
        CHECK,
        model.Severity.PASS,
        'nothing to do: no operation was left behind',
    )


def end_by_hand(
    site: operation.Site, row: store.Aggregate, ident: str
) -> store.Operation:
    """End the logins of an operation's worker, because a person says so.

    The operation can then be taken over before its lease has run out.

    :param row: the aggregate that the operation must be of.
    :param ident: of the operation: its uuid, or how that begins.
    :raises OperationNotFound: there is none.
    :raises InvalidAggregateActionUpdate: it is of another aggregate, it has
        ended, or what its worker sent may still arrive.
    """
    found = site.store.get_operation(ident)
    refused = exceptions.InvalidAggregateActionUpdate
    if found.aggregate_uuid != row.uuid:
        raise refused(
            row.name,
            f"operation {found.uuid} is of another aggregate; see: xenpool "
            f"operation show {found.uuid}",
        )
    if not found.running:
        raise refused(
            row.name,
            f"operation {found.uuid} has ended: {found.outcome}; see: xenpool "
            f"operation show {found.uuid}",
        )
    fence = operation.fence_of(site)
    left = fence.end(found.details.get(takeover.LOGINS, ()))
    rest = fence.safe_at(found) - site.store.lease_time()
    if left and rest > 0:
        hosts = ', '.join(sorted({str(login['host']) for login in left}))
        raise refused(
            row.name,
            f"the logins of {found.owner} to {hosts} cannot be ended, so what "
            f"it sends may still arrive, until {rest:.0f} s from now if it "
            f"renews its lease no more; make sure that it is dead, then: "
            f"{_by_force(row, found)}",
        )
    return found


def _by_force(row: store.Aggregate, left: store.Operation) -> str:
    name = shlex.quote(row.name)
    return f"xenpool aggregate recover {name} --force {left.uuid}"
