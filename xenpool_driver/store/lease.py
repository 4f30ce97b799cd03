# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Keeps the lease of a running operation alive in the background."""

from __future__ import annotations

import dataclasses
import logging
import threading
import typing

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions
from xenpool_driver.store import records

LOG = logging.getLogger(__name__)

PARTS = 3
"""Renewals in the time of one lease: two may fail before it runs out."""


MARGIN = 1 / 6
"""The part of a lease, its last, in which nothing is sent any more: what is
sent just before must have arrived when the lease ends."""


def margin(lease: float) -> float:
    """Return the seconds before a lease's end in which nothing is sent.

    :param lease: seconds for which a renewal holds.
    """
    return lease * MARGIN


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment, by both clocks that count while a process does not run.

    :ivar boot: seconds of ``CLOCK_BOOTTIME``. They go on while the process
        is stopped and while the machine is suspended, but not while a
        virtual machine is paused.
    :ivar wall: seconds since 1970. They can be set, but are also set right
        when a paused virtual machine goes on.
    """

    boot: float
    wall: float

    @classmethod
    def of(cls, clock: clocks.Clock) -> Moment:
        """Return this moment."""
        return cls(clock.boottime(), clock.time())

    def age(self, clock: clocks.Clock) -> float:
        """Return the seconds since then, by the clock that counted more."""
        now = Moment.of(clock)
        return max(now.boot - self.boot, now.wall - self.wall)


class Renewer(typing.Protocol):
    """What a keeper needs of the store."""

    @property
    def clock(self) -> clocks.Clock:
        """Tells how long the lease holds."""

    def renew(
        self, operation: records.Operation, lease: float
    ) -> records.Operation:
        """Extend the lease; LeaseLost when it is somebody else's."""


class LeaseKeeper:
    """Renews an operation's lease until told to stop; a context manager.

    The store gives each thread a connection of its own, so the keeper waits
    for nothing that its worker does.

    When another worker has taken the operation over, or the database could
    not be reached until the lease ran out, the lease is :attr:`lost`: the
    keeper stops for good, and so should its worker.

    Between two renewals a worker may stand still, with its keeper, for as
    long as another one needs to take the operation over. So each change asks
    :meth:`assert_held` right before it is sent. What counts is when the last
    renewal that was confirmed was *sent*: its answer may have come late.

    :param store: renews.
    :param operation: the operation, begun or taken over by this worker.
    :param sent: when that was sent to the database.
    :param lease: seconds; None for the operation's own.
    """

    def __init__(
        self,
        store: Renewer,
        operation: records.Operation,
        sent: Moment,
        lease: float | None = None,
    ) -> None:
        self._store = store
        self._operation = operation
        self._lease = operation.lease if lease is None else lease
        self._sent = sent
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._reason = ''
        self._thread = threading.Thread(
            target=self._run, name=f"lease-{operation.uuid[:8]}", daemon=True
        )

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def lost(self) -> bool:
        """Whether the operation is this worker's no more."""
        return self._lost.is_set()

    @property
    def reason(self) -> str:
        """Why it was lost; '' while it is not."""
        return self._reason

    def check(self) -> None:
        """Go on only while the operation is this worker's.

        :raises LeaseLost: it is not.
        """
        if self.lost:
            raise exceptions.LeaseLost(self._reason)

    def moment(self) -> Moment:
        """Return this moment, for :meth:`confirm`."""
        return Moment.of(self._store.clock)

    def confirm(self, sent: Moment) -> None:
        """Hear that the database has renewed the lease.

        :param sent: when it was asked to.
        """
        with self._lock:
            if sent.boot >= self._sent.boot:
                self._sent = sent

    def assert_held(self) -> None:
        """Go on only while no other worker can have the operation.

        :raises LeaseLost: it is lost, or was not renewed lately.
        """
        self.check()
        age = self._age()
        if age >= self._lease - margin(self._lease):
            raise exceptions.LeaseLost(
                f"the lease of operation {self._operation.uuid} was last "
                f"renewed {age:.0f} s ago and holds for {self._lease:g} s, so "
                f"another worker may have settled it; nothing more is sent; "
                f"see: xenpool operation show {self._operation.uuid}"
            )

    def _age(self) -> float:
        with self._lock:
            return self._sent.age(self._store.clock)

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Wait until the lease is lost, or for ``timeout`` seconds."""
        return self._lost.wait(timeout)

    def stop(self) -> None:
        """Renew no more; return when the last renewal is over."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> float | None:
        """Renew once.

        :returns: seconds until the next renewal is due; None when the lease
            is lost.
        """
        sent = self.moment()
        try:
            self._store.renew(self._operation, self._lease)
        except exceptions.LeaseLost as error:
            self._give_up(str(error))
            return None
        except exceptions.StoreError as error:
            return self._missed(str(error))
        self.confirm(sent)
        return self._lease / PARTS

    def _missed(self, reason: str) -> float | None:
        """Try again soon, as long as the last renewal holds."""
        left = self._lease - self._age()
        if left <= 0:
            self._give_up(
                f"the lease of operation {self._operation.uuid} ran out: "
                f"{reason}"
            )
            return None
        LOG.warning(
            'Cannot renew the lease of operation %s, %.0f s are left: %s',
            self._operation.uuid,
            left,
            reason,
        )
        return min(left, self._lease / PARTS / PARTS)

    def _give_up(self, reason: str) -> None:
        LOG.error('%s', reason)
        self._reason = reason
        self._lost.set()

    def _run(self) -> None:
        pause: float | None = self._lease / PARTS
        try:
            while pause is not None and not self._stop.wait(pause):
                pause = self.beat()
        except Exception as error:
            # A keeper that died in silence would let its worker go on alone.
            LOG.exception('The keeper of %s broke', self._operation.uuid)
            self._give_up(f"the lease can no longer be renewed: {error!r}")
