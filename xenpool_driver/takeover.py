# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Ends what a worker can still do after its operation was taken over.

A worker counts as dead when its lease has run out. It may only stand still,
and go on in the middle of a call. So whoever takes the operation over first
ends the logins that the journal names: XAPI answers a late call with
SESSION_INVALID and does not carry it out, while what was started before goes
on (recorded). That is waited for. Only then is it looked at the pool.

A login to a host itself (``slave_local_login_with_password``) has no record
and cannot be ended by anybody else; nor can one on a host that does not
answer. There, time is the only fence: a worker sends nothing when its lease
has run out, and what it sent before arrives within a request's timeout, or
not at all.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from oslo_log import log

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions, store

if typing.TYPE_CHECKING:
    from xenpool_driver.xapi import changes, client, connections

LOG = log.getLogger(__name__)

LOGINS = 'logins'
"""Where an operation's details list its logins."""

STARTED = 'started'
"""Where they list what went on when a login was ended."""

BLIND = 60.0
"""Seconds for which a host that went away is waited for."""

Entry = collections.abc.Mapping[str, typing.Any]
"""A login, or what one has started: ``host``, ``address``, and either
``uuid`` ('' for a login to a host itself) or ``tasks``."""


class Journal(typing.Protocol):
    """What is needed of the journal of the operation."""

    @property
    def details(self) -> collections.abc.Mapping[str, typing.Any]:
        """What was saved beside the phases."""

    def phase(self, name: str, note: str = '') -> None:
        """Save that something is about to happen."""

    def remember(self, **details: typing.Any) -> None:
        """Save what a successor needs."""

    def progress(self, phase: str, fraction: float | None = None) -> None:
        """Tell the listener."""

    def still_ours(self) -> None:
        """Stop here if another worker has taken the operation over."""

    def changes(self, door: client.Client) -> changes.PoolChanges:
        """Return what may be changed through the master of a pool."""


@dataclasses.dataclass(frozen=True)
class Fence:
    """Ends the logins of an operation's workers.

    :ivar doors: the ways to the hosts.
    :ivar clock: time.
    :ivar patience: seconds that a host has to answer a login.
    :ivar poll: seconds between two looks.
    """

    doors: connections.Connections
    clock: clocks.Clock
    patience: float
    poll: float

    def safe_at(self, operation: store.Operation) -> float:
        """Return from when on nothing of a worker can arrive any more.

        By the clock that ends leases.

        :param operation: as it was before it was taken over.
        """
        lease = operation.lease
        return (
            operation.lease_expires
            + store.margin(lease)
            + self._slowest(operation.details.get(LOGINS, ()))
        )

    def raise_before(
        self,
        journal: Journal,
        before: store.Operation,
        now: collections.abc.Callable[[], float],
        longest: float,
    ) -> None:
        """End the logins, or wait until they are harmless; see what goes on.

        :param journal: of the operation, taken over.
        :param before: the operation as it was before that.
        :param now: tells the time by the clock that ends leases.
        :param longest: seconds to wait for what was started.
        :raises LeaseLost: another worker has the operation now.
        """
        logins = list(journal.details.get(LOGINS, ()))
        left = self.end(logins, journal)
        told = False
        while left and (rest := self.safe_at(before) - now()) > 0:
            if not told:
                told = True
                journal.phase('waiting', self._why(left, before, rest))
            journal.still_ours()
            journal.progress('waiting')
            self.clock.sleep(min(self.poll, rest))
            left = self.end(left, journal)
        for entry in journal.details.get(STARTED, ()):
            self._await(journal, entry, longest)

    def end(
        self,
        logins: collections.abc.Iterable[Entry],
        journal: Journal | None = None,
    ) -> list[Entry]:
        """Try to end logins; return those that may still be in use.

        :param logins: from the journal.
        :param journal: notes what the logins had started; None: nobody does,
            because the operation is not ours yet.
        """
        return [login for login in logins if not self._ended(login, journal)]

    def _ended(self, login: Entry, journal: Journal | None) -> bool:
        """End a login; say whether it is at an end for sure."""
        if not login['uuid']:
            return False
        try:
            door = self.doors.at(
                login['host'], login['address'], self.patience
            )
            ref = door.find_login(login['uuid'])
            if ref is None:
                return True
            before = door.pending_tasks()
            self._note(journal, login, door.tasks_of_login(ref))
            door.end_login(ref)
            self._note(journal, login, door.pending_tasks() - before)
        except exceptions.NotPoolMaster:
            # Its toolstack has restarted since it gave logins as a master,
            # and XAPI keeps none over a restart (``datamodel.ml``, session:
            # PersistNothing).
            return True
        except (exceptions.XapiError, exceptions.ConfigurationError) as error:
            LOG.warning('The login %s: %s', login['uuid'], error)
            return False
        LOG.info('%s: the login %s is ended', login['host'], login['uuid'])
        return True

    @staticmethod
    def _note(
        journal: Journal | None, login: Entry, tasks: frozenset[str]
    ) -> None:
        """Write down what goes on, before it can be forgotten."""
        if journal is None or not tasks:
            return
        entry = {
            'host': login['host'],
            'address': login['address'],
            'tasks': sorted(tasks),
        }
        known = journal.details.get(STARTED, ())
        journal.remember(**{STARTED: [*known, entry]})

    def _await(self, journal: Journal, entry: Entry, longest: float) -> None:
        """Wait for what a login had started, then let XAPI forget it.

        A toolstack that restarts ends it; what came of it is looked at
        afterwards, in any case.
        """
        began = seen = self.clock.monotonic()
        tasks = frozenset(entry['tasks'])
        while True:
            journal.still_ours()
            now = self.clock.monotonic()
            try:
                door = self.doors.at(
                    entry['host'], entry['address'], self.patience
                )
                if not door.at_work(tasks):
                    journal.changes(door).forget_tasks(tasks)
                    return
                seen = now
            except exceptions.NotPoolMaster:
                return
            except exceptions.XapiError as error:
                LOG.warning('%s', error)
            if now - seen >= BLIND or now - began >= longest:
                return
            journal.progress('waiting for what goes on')
            self.clock.sleep(self.poll)

    def _slowest(self, logins: collections.abc.Iterable[Entry]) -> float:
        """Return the longest that a request to one of the hosts may take."""
        return max(
            (
                self.doors.reach(login['host'], login['address']).read_timeout
                for login in logins
            ),
            default=0.0,
        )

    @staticmethod
    def _why(
        left: collections.abc.Iterable[Entry],
        before: store.Operation,
        rest: float,
    ) -> str:
        hosts = ', '.join(sorted({str(login['host']) for login in left}))
        return (
            f"logins of {before.owner} to {hosts} cannot be ended, so what "
            f"it sent may still arrive: wait {rest:.0f} s"
        )
