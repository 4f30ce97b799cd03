# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Show how requests go on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections.abc
import contextlib
import logging
import threading
import typing

from xenpool_driver import model, redaction

if typing.TYPE_CHECKING:
    from rich import progress as rich_progress

LOG = logging.getLogger(__name__)

_LENGTHS: collections.abc.Mapping[str, tuple[float, float]] = {
    'join': (0.05, 0.45),
    'restart': (0.45, 0.45),
    'joining': (0.70, 0.70),
    'restore settings': (0.90, 0.90),
    'disable': (0.05, 0.05),
    'evacuate': (0.10, 0.50),
    'eject': (0.50, 0.80),
    'first boot': (0.80, 0.80),
    'designate': (0.10, 0.40),
    'moving': (0.70, 0.70),
    'stamp': (0.30, 0.30),
    'name': (0.60, 0.60),
    'done': (1.0, 1.0),
    'failed': (1.0, 1.0),
}
"""Where on its bar a phase begins and ends, as parts of the whole. A phase
that is not here leaves the bar where it is."""


def position(phase: str, fraction: float | None, before: float) -> float:
    """Return how far a request is, 0 to 1; it never goes back.

    :param phase: what the driver says it does.
    :param fraction: how much of the phase is done, if known.
    :param before: how far the request was.
    """
    start, end = _LENGTHS.get(phase, (before, before))
    return max(before, start + (end - start) * (fraction or 0.0))


class Lines:
    """Writes a line whenever a host enters another phase."""

    def __init__(self) -> None:
        self._phases: dict[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, host: str, phase: str, fraction: float | None) -> None:
        with self._lock:
            if self._phases.get(host) == phase:
                return
            self._phases[host] = phase
        LOG.info('%s', f"{host}: {phase}" if host else phase)


class Bars:
    """Moves one bar per host.

    :param bars: where they are drawn.
    """

    def __init__(self, bars: rich_progress.Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, rich_progress.TaskID] = {}
        self._positions: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, host: str, phase: str, fraction: float | None) -> None:
        with self._lock:
            if host not in self._tasks:
                self._tasks[host] = self._bars.add_task(
                    redaction.visible(host), total=1.0, phase=''
                )
            now = position(phase, fraction, self._positions.get(host, 0.0))
            self._positions[host] = now
            self._bars.update(
                self._tasks[host],
                completed=now,
                phase=redaction.visible(phase),
            )

    def tell(self, text: str) -> None:
        """Print a line above the bars."""
        console = self._bars.console
        console.show_cursor()  # perhaps this is the last that is printed
        console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def shown(
    stderr: typing.TextIO,
) -> collections.abc.Iterator[model.Progress]:
    """Return whom to tell of progress while the request runs.

    :param stderr: where it is shown.
    """
    if not stderr.isatty():
        yield Lines()
        return
    from rich import console
    from rich import progress as rich_progress

    with rich_progress.Progress(
        rich_progress.TextColumn('{task.description}', markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn('{task.fields[phase]}', markup=False),
        rich_progress.TimeElapsedColumn(),
        console=console.Console(file=stderr),
        transient=True,
    ) as bars:
        yield Bars(bars)
