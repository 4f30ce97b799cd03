# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The right to change something, for tests that are no operation."""

from __future__ import annotations

from xenpool_driver import clock, conf, exceptions
from xenpool_driver.xapi import changes, changing, client, session


class Permit:
    """Lets everything be sent, until it is told not to.

    :ivar withdrawn: why nothing may be sent any more; '' while it may.
    :ivar logins: (host, address, uuid) of each login that it heard of.
    :ivar asked: how often a change wanted to be sent.
    """

    originator = 'xenpool-driver/test'

    def __init__(self) -> None:
        self.withdrawn = ''
        self.logins: list[tuple[str, str, str]] = []
        self.asked = 0

    def may_send(self) -> None:
        """Let a change be sent, or not.

        :raises LeaseLost: the permit is withdrawn.
        """
        self.asked += 1
        if self.withdrawn:
            raise exceptions.LeaseLost(self.withdrawn)

    def logged_in(self, host: str, address: str, uuid: str) -> None:
        """Hear of a login.

        :raises LeaseLost: the permit is withdrawn.
        """
        if self.withdrawn:
            raise exceptions.LeaseLost(self.withdrawn)
        self.logins.append((host, address, uuid))


def home(
    access: conf.HostAccess,
    factory: session.Factory = session.FACTORY,
    permit: Permit | None = None,
) -> changing.ChangingSession:
    """Return a session that may change something."""
    return changing.ChangingSession(access, permit or Permit(), factory)


def changing_pool(
    door: client.Client,
    time: clock.Clock = clock.SYSTEM,
    factory: session.Factory = session.FACTORY,
) -> changes.PoolChanges:
    """Return what may be changed through the master of a pool."""
    return changes.Logins(Permit(), time, factory).pool(door)
