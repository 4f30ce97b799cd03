# Licensed under the Apache License, Version 2.0; see LICENSE.
"""High availability, switched off around an operation and put back after it.

What is put back (heartbeat SRs, configuration, tolerance) is in the journal
before HA is switched off, so that a successor puts it back after a crash.
"""

from __future__ import annotations

import collections.abc
import json
import typing

from xenpool_driver import (
    exceptions,
    objects,
    operation,
    pool_states,
    reconcile,
    store,
)

if typing.TYPE_CHECKING:
    from xenpool_driver.verbs import common

SWITCHING = frozenset({'ha_enable', 'ha_disable'})
"""Pool operations that are about to make HA something else than it is."""

REST = 300.0
"""Seconds to wait until HA is neither being switched on nor off."""

Saved = collections.abc.Mapping[str, typing.Any]


def suspend(verb: common.PoolVerb, journal: operation.Journal) -> None:
    """Switch HA off, if it is on and the request says so.

    Joins that overlap share it: the first switches it off, and whoever is
    last switches it on again.

    :raises XapiError: it cannot be switched off.
    """
    if not verb.suspend_ha:
        return
    master = verb.coordinator()
    pool = master.pool()
    if SWITCHING & set(pool.current_operations.values()):
        pool = _at_rest(verb, journal)
    if not pool.ha_enabled:
        saved = _saved_by_others(verb, journal)
        if saved:
            journal.phase('ha off', 'for another join already', ha=saved)
        elif left := left_off(verb.row):
            journal.phase('ha off', 'since an earlier request', ha=left)
        return
    saved = {
        'sr_uuids': master.ha_heartbeat_srs(),
        'configuration': dict(pool.ha_configuration),
        'tolerance': pool.ha_host_failures_to_tolerate,
    }
    # Another join may have begun to switch it off while that was read.
    journal.phase('ha off', ha=_saved_by_others(verb, journal) or saved)
    verb.surely(
        journal,
        lambda: _switch_off(verb, journal),
        lambda: not _at_rest(verb, journal).ha_enabled,
    )


def _switch_off(verb: common.PoolVerb, journal: operation.Journal) -> None:
    """Switch HA off, or see to it that another join does.

    :raises XapiError: it cannot be switched off.
    """
    try:
        verb.changes(journal).disable_ha()
    except exceptions.XapiRefused as error:
        if error.code != 'HA_DISABLE_IN_PROGRESS':
            raise
        if _at_rest(verb, journal).ha_enabled:
            raise


def _others(
    verb: common.PoolVerb, journal: operation.Journal
) -> list[store.Operation]:
    """Return the other joins under way for which HA is off."""
    return [
        other
        for other in verb.site.store.running_operations(verb.row.uuid)
        if other.uuid != journal.operation.uuid and other.details.get('ha')
    ]


def _saved_by_others(
    verb: common.PoolVerb, journal: operation.Journal
) -> Saved | None:
    """Return how HA was, if it is off for another join."""
    for other in _others(verb, journal):
        saved: Saved = other.details['ha']
        return saved
    return None


def _is_left(verb: common.PoolVerb, journal: operation.Journal) -> bool:
    """Say whether another join needs HA off, and will switch it on again.

    Each first writes down that it needs it no more, and looks then: of two
    that end in the same moment one at least is the last.
    """
    if not _others(verb, journal):
        return False
    journal.phase('ha', 'the last join under way switches it on', ha_left=True)
    return any(
        not other.details.get('ha_left') for other in _others(verb, journal)
    )


def restore(verb: common.PoolVerb, journal: operation.Journal) -> None:
    """Switch HA on again as it was, if :func:`suspend` switched it off.

    :raises XapiUnavailable: it cannot be; says how a person can.
    """
    saved = journal.details.get('ha')
    if not saved or _is_left(verb, journal):
        return
    try:
        _restore(verb, journal, saved)
    except exceptions.XapiError as error:
        verb.lasting[pool_states.HA_SUSPENDED] = json.dumps(saved)
        uuid = verb.row.metadata.get(pool_states.POOL_UUID, '')
        raise exceptions.XapiUnavailable(
            f"HA is not as it was ({error}); when that is cured: "
            f"{reconcile.ha_by_hand(saved, uuid)}"
        ) from error
    verb.lasting[pool_states.HA_SUSPENDED] = None


def left_off(row: store.Aggregate) -> Saved | None:
    """Return how HA was before it could not be switched on again, or None
    where that did not happen, is cured or given up."""
    return reconcile.Declared.of(row).ha


def _restore(
    verb: common.PoolVerb, journal: operation.Journal, saved: Saved
) -> None:
    pool = _at_rest(verb, journal)
    if not pool.ha_enabled:
        journal.phase('ha on')
        verb.surely(
            journal,
            lambda: verb.changes(journal).enable_ha(
                saved['sr_uuids'], saved['configuration']
            ),
            lambda: _at_rest(verb, journal).ha_enabled,
        )
        pool = _at_rest(verb, journal)
    tolerance = saved['tolerance']
    if pool.ha_host_failures_to_tolerate != tolerance:
        verb.surely(
            journal,
            lambda: verb.changes(journal).set_ha_tolerance(tolerance),
            lambda: (
                verb.coordinator().pool().ha_host_failures_to_tolerate
                == tolerance
            ),
        )


def _at_rest(
    verb: common.PoolVerb, journal: operation.Journal
) -> objects.Pool:
    """Return the pool when nobody is switching HA.

    A worker that died may have left a switch under way: HA is not yet what
    it will be.

    :raises XapiError: it does not come to rest, or cannot be seen.
    """
    clock = verb.site.clock
    deadline = clock.monotonic() + REST
    while True:
        journal.still_ours()
        try:
            master = verb.coordinator()
            pool = master.pool()
            going_on = SWITCHING & set(pool.current_operations.values())
            if not going_on:
                return pool
            trouble: exceptions.XapiError = exceptions.XapiUnavailable(
                f"HA is still being switched on or off after {REST:.0f} s: "
                f"the pool shows {', '.join(sorted(going_on))}, and HA is "
                f"{'on' if pool.ha_enabled else 'off'}",
                master.name,
            )
        except (exceptions.XapiUnavailable, exceptions.NotPoolMaster) as error:
            verb.forget_coordinator()
            trouble = error
        if clock.monotonic() >= deadline:
            raise trouble
        clock.sleep(verb.site.conf.xenpool.poll_interval)
