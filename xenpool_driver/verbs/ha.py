# Licensed under the Apache License, Version 2.0; see LICENSE.
"""High availability, switched off around an operation and put back after it.

What is put back (heartbeat SRs, configuration, tolerance) is in the journal
before HA is switched off, so that a successor puts it back after a crash.
"""

from __future__ import annotations

import typing

from xenpool_driver import operation

if typing.TYPE_CHECKING:
    from xenpool_driver.verbs import common


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
    master.disable_ha()


def restore(verb: common.PoolVerb, journal: operation.Journal) -> None:
    """Switch HA on again as it was, if :func:`suspend` switched it off.

    :raises XapiError: it cannot be switched on; the journal says how it was.
    """
    saved = journal.details.get('ha')
    if not saved:
        return
    master = verb.coordinator()
    if not master.pool().ha_enabled:
        journal.phase('ha on')
        master.enable_ha(saved['sr_uuids'], saved['configuration'])
    master.set_ha_tolerance(saved['tolerance'])
