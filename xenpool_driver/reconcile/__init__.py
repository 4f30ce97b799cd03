# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What an aggregate says against what XAPI says, and how to settle it. Pure.

:func:`settle` says what came of an operation from what XAPI shows, whether
its worker waited to the end or died half-way. :func:`audit` compares a whole
aggregate with its pool.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum

from xenpool_driver.reconcile import (
    availability,
    cases,
    declared,
    fixes,
    health,
    lifecycle,
)

Declared = declared.Declared
"""What an aggregate says of itself."""

Fixes = fixes.Fixes
"""What of an aggregate must change."""

find_fixes = fixes.fixes
"""Return what must change for an aggregate to be true."""

find_master_fix = fixes.master_fix
"""Return what must change for its master alone to be true."""

audit = health.audit
"""Return where an aggregate and its pool disagree, and what ails it."""

audit_masterless = lifecycle.masterless
"""Return what is to be said of a pool whose master nobody finds."""

ha_by_hand = availability.by_hand
"""Return what a person types to put HA back."""

ha_unrestored = availability.unrestored
"""Yield what of HA is not as it was before a request switched it off."""

Pending = cases.Pending
"""An operation that has not ended."""


class Observation(enum.StrEnum):
    """What XAPI shows about one operation, as one word."""

    UNKNOWN = 'not to be seen'
    """Nobody who could tell answers."""

    SET_UP = 'set up'
    """The pool carries our stamp and our name."""
    HALF_SET_UP = 'half set up'
    """The pool carries our stamp, but not our name."""
    NOT_SET_UP = 'not set up'
    """The pool carries no stamp, or somebody else's."""

    JOINED = 'joined'
    """Live and enabled on the master, storage plugged, own view right."""
    JOINING = 'joining'
    """The master knows the host, which is not ready yet."""
    STUCK = 'stuck'
    """The host answers HOST_STILL_BOOTING, and the master has its control
    domain halted and on no host: it will never be ready."""
    NOT_JOINED = 'not joined'
    """The master does not know the host, which is a pool of its own."""
    UNCLAIMED = 'a member that is not known'
    """The host takes itself for a member; the master does not know it. XAPI
    goes on with a join whose records do not reach the master."""

    EJECTED = 'ejected'
    """The master does not know the host any more."""
    EJECTING = 'ejecting'
    """The eject is still running on the master."""
    LEAVING = 'on its way out'
    """The master still lists the host, which has unplugged storage or
    destroyed the record of its control domain for the eject."""
    LEFT_BEHIND = 'ejected, its record left behind'
    """The host is a pool of its own, but the old master still lists it."""
    STILL_MEMBER = 'still a member'
    """The master knows the host, and nothing is going on."""

    CLEARED = 'cleared'
    """The pool carries neither our stamp nor our name."""
    NOT_CLEARED = 'not cleared'
    """The pool still carries our stamp."""

    DISMISSED = 'dismissed'
    """The aggregate is deleted; XAPI is not concerned."""
    RELEASED = 'released'
    """The pool is let go, whatever it shows."""

    MOVED = 'moved'
    """Every member names the new master, and is enabled."""
    MOVED_PARTLY = 'moved, and members do not answer'
    """Every member that answers names the new master, and is enabled."""
    MOVING = 'moving'
    """Members do not agree, or are not enabled yet."""
    NOT_MOVED = 'not moved'
    """Every member names the old master."""
    STAMPED = 'stamped'
    """The pool carries our stamp."""
    NOT_STAMPED = 'not stamped'
    """The pool carries no stamp, or somebody else's."""

    DESTROYED = 'destroyed'
    """The records that are left over are gone."""
    NOT_DESTROYED = 'not destroyed'
    """At least one of them is there."""

    RENAMED = 'renamed'
    """The pool has the new name."""
    NOT_RENAMED = 'not renamed'
    """The pool has another name."""

    BROKEN = 'half moved'
    """The new master took its role in part only (HOST_BROKEN)."""


@dataclasses.dataclass(frozen=True)
class Settlement:
    """What is written about an operation that has come to its end.

    :ivar outcome: ``succeeded``, ``failed`` (tried, and it is not as asked
        for) or ``undone`` (nothing of it has happened).
    :ivar member: whether the host belongs to the aggregate afterwards; None
        where that is not the operation's business, or where nobody knows.
    :ivar reason: why it is not a success; '' for a success.
    """

    outcome: str
    member: bool | None
    reason: str = ''


_SUCCEEDED = Settlement('succeeded', None)
_BLIND = 'XAPI could not be observed until the deadline'

SETTLEMENTS: collections.abc.Mapping[tuple[str, Observation], Settlement] = {
    ('set-up', Observation.SET_UP): Settlement('succeeded', True),
    ('set-up', Observation.HALF_SET_UP): Settlement(
        'failed', True, 'the pool is stamped, but not named'
    ),
    ('set-up', Observation.NOT_SET_UP): Settlement(
        'undone', False, 'the pool was not set up'
    ),
    ('set-up', Observation.UNKNOWN): Settlement('failed', None, _BLIND),
    ('adopt', Observation.SET_UP): Settlement('succeeded', True),
    ('adopt', Observation.HALF_SET_UP): Settlement(
        'failed', True, 'the pool is stamped, but not named'
    ),
    ('adopt', Observation.NOT_SET_UP): Settlement(
        'undone', False, 'the pool was not adopted'
    ),
    ('adopt', Observation.UNKNOWN): Settlement('failed', None, _BLIND),
    ('join', Observation.JOINED): Settlement('succeeded', True),
    ('join', Observation.JOINING): Settlement(
        'failed',
        True,
        'the host is in the pool, but was not live, enabled and with its '
        'storage plugged in time',
    ),
    ('join', Observation.STUCK): Settlement(
        'failed',
        True,
        'the host is in the pool, but is stuck: its control domain is halted '
        'and on no host, as happens when the toolstack of the master '
        'restarts during a join; it will never be ready',
    ),
    ('join', Observation.NOT_JOINED): Settlement(
        'undone', False, 'the host is not in the pool'
    ),
    ('join', Observation.UNCLAIMED): Settlement(
        'failed',
        False,
        'the host takes itself for a member, but the master does not know '
        'it; on the host, type: xe pool-emergency-transition-to-master; then '
        'add it again',
    ),
    ('join', Observation.UNKNOWN): Settlement('failed', True, _BLIND),
    ('eject', Observation.EJECTED): Settlement('succeeded', False),
    ('eject', Observation.EJECTING): Settlement(
        'failed', True, 'the eject is still running on the master'
    ),
    ('eject', Observation.LEFT_BEHIND): Settlement(
        'failed',
        True,
        'the host has left the pool, but its record is left behind; remove '
        'it with --forget, as is told by: xenpool aggregate audit',
    ),
    ('eject', Observation.LEAVING): Settlement(
        'failed',
        True,
        'the eject has begun on the host, which has not left in time: it may '
        'still leave, and wipe its disks; see: xenpool aggregate audit',
    ),
    ('eject', Observation.STILL_MEMBER): Settlement(
        'undone', True, 'the host is still a member of the pool'
    ),
    ('eject', Observation.UNKNOWN): Settlement('failed', True, _BLIND),
    ('forget', Observation.EJECTED): Settlement('succeeded', False),
    ('forget', Observation.STILL_MEMBER): Settlement(
        'undone', True, 'the record of the host is still there'
    ),
    ('forget', Observation.UNKNOWN): Settlement('failed', True, _BLIND),
    ('clear', Observation.CLEARED): Settlement('succeeded', False),
    ('clear', Observation.NOT_CLEARED): Settlement(
        'failed', True, 'the pool still carries the stamp of the aggregate'
    ),
    ('clear', Observation.UNKNOWN): Settlement('failed', True, _BLIND),
    ('dismiss', Observation.DISMISSED): _SUCCEEDED,
    ('dismiss', Observation.UNKNOWN): Settlement('failed', None, _BLIND),
    ('release', Observation.RELEASED): _SUCCEEDED,
    ('release', Observation.UNKNOWN): Settlement('failed', None, _BLIND),
    ('stamp', Observation.STAMPED): _SUCCEEDED,
    ('stamp', Observation.NOT_STAMPED): Settlement(
        'failed', None, 'the pool does not carry the stamp of the aggregate'
    ),
    ('stamp', Observation.UNKNOWN): Settlement('failed', None, _BLIND),
    ('destroy-domains', Observation.DESTROYED): _SUCCEEDED,
    ('destroy-domains', Observation.NOT_DESTROYED): Settlement(
        'failed',
        None,
        'a record of a control domain that is left over is still there',
    ),
    ('destroy-domains', Observation.UNKNOWN): Settlement(
        'failed', None, _BLIND
    ),
    ('rename', Observation.RENAMED): _SUCCEEDED,
    ('rename', Observation.NOT_RENAMED): Settlement(
        'failed', None, 'the aggregate is renamed, the pool is not'
    ),
    ('rename', Observation.UNKNOWN): Settlement('failed', None, _BLIND),
    ('set-master', Observation.MOVED): _SUCCEEDED,
    ('set-master', Observation.MOVED_PARTLY): Settlement(
        'failed', None, 'the members did not all name the new master in time'
    ),
    ('set-master', Observation.MOVING): Settlement(
        'failed',
        None,
        'the members did not all name the new master and become enabled in '
        'time',
    ),
    ('set-master', Observation.NOT_MOVED): Settlement(
        'undone', None, 'the master has not moved'
    ),
    ('set-master', Observation.BROKEN): Settlement(
        'failed',
        None,
        'the master has moved in part only: the pool needs its emergency '
        'calls; what to do is told by: xenpool aggregate audit',
    ),
    ('set-master', Observation.UNKNOWN): Settlement('failed', None, _BLIND),
    ('promote', Observation.MOVED): _SUCCEEDED,
    ('promote', Observation.MOVED_PARTLY): Settlement(
        'failed', None, 'the members did not all name the new master in time'
    ),
    ('promote', Observation.MOVING): Settlement(
        'failed',
        None,
        'the members did not all name the new master and become enabled in '
        'time',
    ),
    ('promote', Observation.NOT_MOVED): Settlement(
        'undone', None, 'the host was not promoted'
    ),
    ('promote', Observation.BROKEN): Settlement(
        'failed', None, 'the promoted host is in emergency mode'
    ),
    ('promote', Observation.UNKNOWN): Settlement('failed', None, _BLIND),
}
"""(kind of operation, observation at its end) -> what is written.

For a set-up and an adoption ``undone`` still means state ``error``: the
lifecycle knows no way back from ``changing``."""


def settle(kind: str, seen: Observation) -> Settlement:
    """Return what is written about an operation of ``kind``.

    :raises KeyError: such an operation cannot show that.
    """
    return SETTLEMENTS[kind, seen]
