# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a joiner shows while it is waited for, and when it is stuck."""

from __future__ import annotations

import shlex

from xenpool_driver import domains, exceptions, identity, objects, operation
from xenpool_driver.verbs import common

USUAL = 20.0
"""Seconds from the call within which a join is no cause for questions
(recorded: enabled after 23 s)."""

EVERY = 5.0
"""Seconds between two questions to a host that is late."""


class Lookout:
    """Looks after one joiner.

    :param site: what the verb works with.
    :param host: its compute host name.
    :ivar blocking: the record that keeps it from being ready, if it does.
    """

    def __init__(self, site: operation.Site, host: str) -> None:
        self._site = site
        self._host = host
        self._began: float | None = None
        self._asked = float('-inf')
        self.blocking: objects.Vm | None = None

    def is_stuck(self, master: common.Master, ref: str) -> bool:
        """Say whether the host will never be ready, by what it answers and
        by the record of its control domain.

        A host that is not late is not asked.

        :param master: of the pool.
        :param ref: the host's reference there.
        :raises XapiError: the master is not to be seen.
        """
        now = self._site.clock.monotonic()
        if self._began is None:
            self._began = now
        late = now - self._began >= USUAL
        if late and now - self._asked >= EVERY:
            self._asked = now
            self.blocking = None
            seen = self._site.connections.sight(self._host, read_own=False)
            if seen.code == domains.BOOTING:
                self.blocking = master.door.blocking_domain(ref)
        return self.blocking is not None

    def lacks(self, master: common.Master, ref: str) -> list[str]:
        """Return what a join lacks to be complete, each in words.

        :param master: of the pool.
        :param ref: the host's reference there.
        :raises XapiError: the master is not to be seen.
        """
        record = master.door.record(ref)
        if record is None:
            return ['its record on the master']
        seen = master.door.excerpt(
            {master.ref: master.uuid, ref: record.uuid}, srs=(), vms=()
        )
        storage = common.unplugged(seen, ref)
        lacking = {
            'live': not master.door.is_live(record),
            'enabled': not record.enabled,
            f"storage plugged ({', '.join(storage)})": bool(storage),
        }
        return [what for what, is_lacking in lacking.items() if is_lacking]

    def told(self, master: common.Master, ref: str) -> str:
        """Return what the host lacks and what it answers, in words.

        :param master: of the pool.
        :param ref: the host's reference there.
        """
        answered = self._site.connections.sight(self._host, read_own=False)
        says = f"{self._host} {identity.words(answered)}"
        try:
            lacking = self.lacks(master, ref)
        except exceptions.XapiError as error:
            return f"{error}; {says}"
        wanted = '' if ref == master.ref else master.address
        if answered.master is None or not identity.same_address(
            answered.master, wanted
        ):
            lacking.append('its own view of the master')
        if not lacking:
            return f"missing at the deadline, there now; {says}"
        return f"missing: {', '.join(lacking)}; {says}"


def way_out(aggregate: str, host: str, blocking: objects.Vm | None) -> str:
    """Return what to do about a joiner that is stuck.

    :param aggregate: its name.
    :param host: the compute host name.
    :param blocking: the record that keeps it from being ready.
    """
    forget = shlex.join(
        ('xenpool', 'aggregate', 'remove', 'host', aggregate, host)
    )
    then = f"; then: {domains.destroying(aggregate)}" if blocking else ''
    return f"switch off {host}, then: {forget} --forget --yes{then}"
