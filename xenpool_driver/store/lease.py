# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Keeps the lease of a running operation alive in the background."""

from __future__ import annotations

import logging
import threading
import typing

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions
from xenpool_driver.store import records

LOG = logging.getLogger(__name__)

PARTS = 3
"""Renewals in the time of one lease: two may fail before it runs out."""


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

    :param store: renews.
    :param operation: the operation, begun or taken over by this worker.
    :param lease: seconds; None for the operation's own.
    """

    def __init__(
        self,
        store: Renewer,
        operation: records.Operation,
        lease: float | None = None,
    ) -> None:
        self._store = store
        self._operation = operation
        self._lease = operation.lease if lease is None else lease
        # Not the wall clock: it may be set back while we hold the lease.
        self._held_until = store.clock.monotonic() + max(
            0.0, operation.lease_expires - store.clock.time()
        )
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
        asked = self._store.clock.monotonic()
        try:
            self._store.renew(self._operation, self._lease)
        except exceptions.LeaseLost as error:
            self._give_up(str(error))
            return None
        except exceptions.StoreError as error:
            return self._missed(str(error))
        self._held_until = asked + self._lease
        return self._lease / PARTS

    def _missed(self, reason: str) -> float | None:
        """Try again soon, as long as the last renewal holds."""
        left = self._held_until - self._store.clock.monotonic()
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
