# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Which password a host takes: that of its own section, or its pool's.

A join gives the joiner the root password of the pool (recorded), so that the
one in its section is no longer good. As long as the host is a member nobody
notices, since a member names its master before it looks at the password.
"""

from __future__ import annotations

import dataclasses
import enum

from xenpool_driver import conf

REFUSED_CODE = 'SESSION_AUTHENTICATION_FAILED'
"""What XAPI says of a wrong user or password."""


class Taken(enum.StrEnum):
    """What a host says to a login to itself."""

    OWN = 'the password of its own section'
    POOL = "the pool's password, not that of its own section"
    NEITHER = 'no password that is configured for it'
    SILENT = 'nothing'


@dataclasses.dataclass(frozen=True)
class Login:
    """What came of a login to a host itself.

    :ivar taken: which password the host takes.
    :ivar reason: what it said, where it takes none.
    :ivar is_untried: whether the pool's password was not tried, because the
        certificate of the host is not verified.
    :ivar whose: the section whose password the host takes instead of its own.
    """

    taken: Taken
    reason: str = ''
    is_untried: bool = False
    whose: str = ''

    @property
    def works(self) -> bool:
        """Whether the host lets us in."""
        return self.taken in (Taken.OWN, Taken.POOL)


def is_verified(access: conf.HostAccess) -> bool:
    """Say whether a host has to prove that it is the one that is meant.

    A password of other hosts is shown to nobody else.
    """
    pinned = bool(access.fingerprint) or not access.insecure
    return access.url.startswith('https:') and pinned


def with_password_of(
    access: conf.HostAccess, other: conf.HostAccess
) -> conf.HostAccess:
    """Return how a host is reached with the credentials of another one."""
    return dataclasses.replace(
        access, username=other.username, password=other.password
    )


def are_alike(one: conf.HostAccess, other: conf.HostAccess) -> bool:
    """Say whether two hosts have the same credentials."""
    mine = one.username, one.password
    return mine == (other.username, other.password)
