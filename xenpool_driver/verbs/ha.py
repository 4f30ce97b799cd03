# Licensed under the Apache License, Version 2.0; see LICENSE.
"""High availability, switched off around an operation and put back after it.

What is put back (heartbeat SRs, configuration, tolerance) is in the journal
before HA is switched off, so that a successor puts it back after a crash.
"""

from __future__ import annotations

import collections.abc
import typing

from xenpool_driver import exceptions, objects, operation

if typing.TYPE_CHECKING:
    from xenpool_driver.verbs import common

SWITCHING = frozenset({'ha_enable', 'ha_disable'})
"""Pool operations that are about to make HA something else than it is."""

REST = 300.0
"""Seconds to wait until HA is neither being switched on nor off."""

Saved = collections.abc.Mapping[str, typing.Any]


def suspend(verb: common.PoolVerb, journal: operation.Journal) -> None:
    """Switch HA off, if it is on and the request says so.

    :raises XapiError: it cannot be switched off.
    """
    if not verb.suspend_ha:
        return
    master = verb.coordinator()
    pool = master.pool()
    if not pool.ha_enabled:
        return
    journal.phase(
        'ha off',
        ha={
            'sr_uuids': master.ha_heartbeat_srs(),
            'configuration': dict(pool.ha_configuration),
            'tolerance': pool.ha_host_failures_to_tolerate,
        },
    )
    verb.surely(
        journal,
        lambda: verb.coordinator().disable_ha(),
        lambda: not _at_rest(verb, journal).ha_enabled,
    )


def restore(verb: common.PoolVerb, journal: operation.Journal) -> None:
    """Switch HA on again as it was, if :func:`suspend` switched it off.

    :raises XapiUnavailable: it cannot be; says how a person can.
    """
    saved = journal.details.get('ha')
    if not saved:
        return
    try:
        _restore(verb, journal, saved)
    except exceptions.XapiError as error:
        raise exceptions.XapiUnavailable(
            f"HA is not as it was ({error}); when that is cured: "
            f"{_by_hand(saved)}"
        ) from error


def _restore(
    verb: common.PoolVerb, journal: operation.Journal, saved: Saved
) -> None:
    pool = _at_rest(verb, journal)
    if not pool.ha_enabled:
        journal.phase('ha on')
        verb.surely(
            journal,
            lambda: verb.coordinator().enable_ha(
                saved['sr_uuids'], saved['configuration']
            ),
            lambda: _at_rest(verb, journal).ha_enabled,
        )
        pool = _at_rest(verb, journal)
    tolerance = saved['tolerance']
    if pool.ha_host_failures_to_tolerate != tolerance:
        verb.surely(
            journal,
            lambda: verb.coordinator().set_ha_tolerance(tolerance),
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
            if not SWITCHING & set(pool.current_operations.values()):
                return pool
            trouble: exceptions.XapiError = exceptions.XapiUnavailable(
                'HA is still being switched on or off', master.name
            )
        except (exceptions.XapiUnavailable, exceptions.NotPoolMaster) as error:
            verb.forget_coordinator()
            trouble = error
        if clock.monotonic() >= deadline:
            raise trouble
        clock.sleep(verb.site.conf.xenpool.poll_interval)


def _by_hand(saved: Saved) -> str:
    """Return what a person types to put HA back."""
    words = [
        f"heartbeat-sr-uuids={','.join(saved['sr_uuids'])}",
        *(f"ha-config:{k}={v}" for k, v in saved['configuration'].items()),
    ]
    return (
        f"xe pool-ha-enable {' '.join(words)}; xe pool-param-set uuid=POOL "
        f"ha-host-failures-to-tolerate={saved['tolerance']}"
    )
