# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Whose stamp a pool carries, and when it may be replaced.

The stamp is the uuid of the aggregate that owns the pool. Two stamps may be
replaced: that of an aggregate which is dismissed in our own store, and the
one that a person names.
"""

from __future__ import annotations

import dataclasses

from xenpool_driver import (
    exceptions,
    model,
    objects,
    operation,
    pool_states,
    snapshot,
    store,
)
from xenpool_driver.preflight import first
from xenpool_driver.reconcile import cases
from xenpool_driver.xapi import client


def stamp_of(pool: objects.Pool | None) -> str:
    """Return the stamp of a pool, or ''."""
    if pool is None:
        return ''
    return pool.other_config.get(pool_states.OWNER_KEY, '')


def owner(site: operation.Site, stamp: str) -> store.Aggregate | None:
    """Return the aggregate of our own store that a stamp names.

    :param stamp: what the pool carries.
    :returns: the aggregate, dismissed or not; None: it is another store's.
    """
    if not stamp:
        return None
    try:
        found = site.store.get_aggregate(stamp, dismissed=True)
    except exceptions.StoreError:
        return None
    return found if found.uuid == stamp else None


def foreign(
    site: operation.Site, row: store.Aggregate, stamp: str, name: str
) -> model.Finding | None:
    """Return what forbids to change a pool that another aggregate owns.

    A pool without a stamp has lost it; it is not another one's.

    :param row: the aggregate that wants to change the pool.
    :param stamp: what the pool carries.
    :param name: the aggregate's name, as it is when the request has ended.
    :returns: the failure; None where no other aggregate owns the pool.
    """
    if stamp in ('', row.uuid):
        return None
    found = owner(site, stamp)
    whose = f"'{found.name}' ({stamp})" if found else stamp
    return model.Finding(
        'owner',
        model.Severity.FAIL,
        f"the pool belongs to another aggregate, {whose}, so '{name}' "
        f"must not change it",
        cases.typed('aggregate', 'release', name),
    )


def replaceable(
    site: operation.Site, pool: objects.Pool | None, named: str = ''
) -> str:
    """Return the stamp of a pool if it may be replaced, else ''.

    :param pool: the pool.
    :param named: the stamp that a person has named.
    """
    stamp = stamp_of(pool)
    found = owner(site, stamp)
    if found is None:
        return stamp if stamp == named else ''
    return stamp if found.state == pool_states.DISMISSED else ''


def without(seen: snapshot.PoolSnapshot, stamp: str) -> snapshot.PoolSnapshot:
    """Return a pool as it is without a stamp.

    :param stamp: that may be replaced; '' for none.
    """
    if not stamp or seen.pool is None or stamp_of(seen.pool) != stamp:
        return seen
    kept = {
        key: value
        for key, value in seen.pool.other_config.items()
        if key != pool_states.OWNER_KEY
    }
    pool = dataclasses.replace(seen.pool, other_config=kept)
    return dataclasses.replace(seen, pool=pool)


def claim(
    site: operation.Site, pool: objects.Pool | None, former: str
) -> first.Claim:
    """Return who claims a pool, as far as our store knows.

    :param former: the stamp that is replaced; '' for none.
    """
    stamp = stamp_of(pool)
    found = owner(site, stamp)
    return first.Claim(
        stamp=stamp,
        name=found.name if found else '',
        is_replaced=bool(stamp) and stamp == former,
    )


def drop(journal: operation.Journal, door: client.Client, stamp: str) -> None:
    """Take a stamp off a pool, unless it carries another one by now.

    :param stamp: whose removal is meant.
    """
    if stamp_of(door.pool()) == stamp:
        journal.changes(door).remove_pool_other_config(pool_states.OWNER_KEY)


def put(
    journal: operation.Journal, door: client.Client, row: store.Aggregate
) -> None:
    """Write down in the pool that it belongs to the aggregate.

    XAPI refuses a key that is there already, so of two controllers one wins.

    :raises XapiRefused: the pool belongs to another aggregate.
    """
    try:
        journal.changes(door).add_pool_other_config(
            pool_states.OWNER_KEY, row.uuid
        )
    except exceptions.XapiRefused as error:
        found = stamp_of(door.pool())
        if error.code != 'MAP_DUPLICATE_KEY' or found != row.uuid:
            raise
