# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Time for workers over hosts whose time runs fast."""

from __future__ import annotations

import time

SCALE = 30.0
"""Simulated seconds per real second."""


class FastClock:
    """Waits pass as they do for the simulated hosts; the calendar, by which
    leases run, is life's."""

    def time(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Return simulated seconds."""
        return time.monotonic() * SCALE

    def boottime(self) -> float:
        """Return seconds that leases count."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Let simulated seconds pass."""
        time.sleep(seconds / SCALE)
