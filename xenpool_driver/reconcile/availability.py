# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit of HA: as it was, or not yet; and whether it keeps its promise."""

from __future__ import annotations

import collections.abc
import shlex
import typing

from xenpool_driver import findings, model, objects
from xenpool_driver.reconcile import cases
from xenpool_driver.reconcile import declared as declarations

Saved = collections.abc.Mapping[str, typing.Any]


def ha(case: cases.AuditCase, check: str) -> cases.Found:
    """HA that is not as it was, or could not keep its promise."""
    yield from unrestored(case.declared, case.pool, case.master.typed, check)
    if not case.pool.ha_enabled:
        return
    wanted = case.pool.ha_host_failures_to_tolerate
    if case.pool.ha_overcommitted or case.pool.ha_plan_exists_for < wanted:
        yield cases.warn(
            check,
            f"HA shall tolerate {wanted} dead hosts and has a plan for "
            f"{case.pool.ha_plan_exists_for}",
            f"xe pool-param-set uuid={case.pool.uuid} "
            f"ha-host-failures-to-tolerate={case.pool.ha_plan_exists_for}",
            findings.at_fault(case.pool, name=case.records.name),
        )


def unrestored(
    declared: declarations.Declared,
    pool: objects.Pool,
    master: str,
    check: str = 'ha',
) -> collections.abc.Iterator[model.Finding]:
    """Yield what is not as it was before a request switched HA off.

    :param pool: the pool's record.
    :param master: the compute host name of its master.
    """
    saved = declared.ha
    if saved is None:
        return
    if not pool.ha_enabled:
        yield cases.fail(
            check,
            f"HA was on, was switched off for a request and could not be "
            f"switched on again; when it shall stay off: "
            f"{giving_up(declared)}",
            f"on {master}: {by_hand(saved, pool.uuid)}",
            findings.at_fault(pool),
        )
    elif pool.ha_host_failures_to_tolerate != saved['tolerance']:
        yield cases.fail(
            check,
            f"HA tolerated {saved['tolerance']} dead hosts before a request "
            f"switched it off, and tolerates "
            f"{pool.ha_host_failures_to_tolerate} now; when it shall stay so: "
            f"{giving_up(declared)}",
            f"on {master}: {tolerating(saved, pool.uuid)}",
            findings.at_fault(pool),
        )
    else:
        yield cases.warn(
            check,
            'HA is on again as it was; the aggregate still remembers that it '
            'was not',
            cases.typed('aggregate', 'audit', declared.name, '--fix'),
        )


def giving_up(declared: declarations.Declared) -> str:
    """Return the command after which nobody asks for HA any more."""
    words = ('aggregate', 'set', declared.name, '--unset-property')
    return cases.typed(*words, model.HA_KEY)


def enabling(saved: Saved) -> str:
    """Return the command that switches HA on as it was.

    :param saved: how it was.
    """
    words = ['xe', 'pool-ha-enable']
    if saved['sr_uuids']:
        words.append(f"heartbeat-sr-uuids={','.join(saved['sr_uuids'])}")
    words += [f"ha-config:{k}={v}" for k, v in saved['configuration'].items()]
    return shlex.join(words)


def tolerating(saved: Saved, pool_uuid: str) -> str:
    """Return the command that lets HA tolerate as many dead hosts again."""
    return (
        f"xe pool-param-set uuid={pool_uuid} "
        f"ha-host-failures-to-tolerate={saved['tolerance']}"
    )


def by_hand(saved: Saved, pool_uuid: str) -> str:
    """Return what a person types to put HA back.

    :param saved: how it was.
    """
    return f"{enabling(saved)}; {tolerating(saved, pool_uuid)}"
