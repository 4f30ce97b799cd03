# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The verbs: what is special about each kind of request.

``common`` what they share; ``formation`` set up, adopt, join; ``leaving``
eject, forget, clear, dismiss; ``releasing`` release; ``mastership`` set
master; ``promotion`` promote; ``naming`` rename, stamp; ``leftovers`` destroy
what stuck joins leave; ``judging`` checks
before a join; ``inspection`` other checks, audit; ``holding`` who holds an
operation.
"""

from __future__ import annotations

import collections.abc

from xenpool_driver import conf as config
from xenpool_driver import operation, store
from xenpool_driver.verbs import (
    common,
    formation,
    holding,
    inspection,
    judging,
    leaving,
    leftovers,
    mastership,
    naming,
    promotion,
    releasing,
    tracking,
)

Adopt = formation.Adopt
Join = formation.Join
SetUp = formation.SetUp
Clear = leaving.Clear
Dismiss = leaving.Dismiss
Eject = leaving.Eject
Forget = leaving.Forget
Leaving = leaving.Leaving
DestroyDomains = leftovers.DestroyDomains
HandOver = mastership.HandOver
Release = releasing.Release
Rename = naming.Rename
Restamp = naming.Restamp
Promote = promotion.Promote
SetMaster = mastership.SetMaster
audit = inspection.audit
check_hosts = judging.check_hosts
check_remove = inspection.check_remove
correct_master = inspection.correct_master
end_by_hand = holding.end_by_hand
find_master = common.find_master
members = tracking.members
held = holding.held
last_look = inspection.last_look
left_behind = releasing.left_behind
nothing_held = holding.nothing
unrestored_ha = inspection.unrestored_ha
is_last = common.is_last
is_master = common.is_master

__all__ = [
    'Adopt',
    'Clear',
    'DestroyDomains',
    'Dismiss',
    'Eject',
    'Forget',
    'HandOver',
    'Join',
    'Leaving',
    'Promote',
    'Release',
    'Rename',
    'Restamp',
    'SetMaster',
    'SetUp',
    'audit',
    'check_hosts',
    'check_remove',
    'correct_master',
    'end_by_hand',
    'find_master',
    'for_operation',
    'held',
    'is_last',
    'is_master',
    'members',
    'last_look',
    'left_behind',
    'nothing_held',
    'unrestored_ha',
]

_KINDS: dict[str, type[operation.Verb]] = {
    verb.kind: verb
    for verb in (
        SetUp,
        Join,
        Adopt,
        Clear,
        Eject,
        Forget,
        SetMaster,
        Promote,
        Rename,
        Restamp,
        DestroyDomains,
        Dismiss,
        Release,
    )
}


def for_operation(
    site: operation.Site,
    row: store.Aggregate,
    interrupted: store.Operation,
    hosts: collections.abc.Mapping[str, config.HostAccess],
) -> operation.Verb:
    """Return the verb of an operation that a dead worker left behind.

    :param site: what verbs work with.
    :param row: the aggregate of the operation.
    :param interrupted: the operation.
    :param hosts: every host that the configuration knows.
    """
    host = interrupted.host or ''
    kind = _KINDS[interrupted.kind]
    if kind is Adopt:
        return Adopt(site, row, host, hosts)
    return kind(site, row, host)
