# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Options that are numbers with bounds: seconds, above all.

oslo.config's own type takes ``nan`` whatever its bounds are, and ``inf``
where there is no upper one. No wait and no lease can last so long.
"""

from __future__ import annotations

import typing

from oslo_config import cfg, types

DAY = 86400
"""Seconds of a day: nothing here is waited for any longer."""


class Bounded(types.Float):
    """A number from ``min`` to ``max``, both included."""

    def __call__(self, value: typing.Any) -> float:
        """Return the number.

        :param value: what is written, or a number.
        :raises ValueError: it is none, or out of bounds.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float('nan')
        least, most = self.min or 0, self.max or 0
        if not least <= number <= most:
            raise ValueError(f"'{value}' is no number from {least} to {most}")
        return number


def opt(
    name: str, *, default: float, least: float, most: float, help: str
) -> cfg.Opt:
    """Return an option that is a number.

    :param name: the option's.
    :param least: the smallest number that it can be.
    :param most: the largest.
    """
    kind = Bounded(min=least, max=most)
    return cfg.Opt(name, type=kind, default=default, help=help)


def seconds(name: str, *, default: float, least: float, help: str) -> cfg.Opt:
    """Return an option that is a time in seconds, of a day at most.

    :param name: the option's.
    :param least: the shortest time.
    """
    return opt(name, default=default, least=least, most=DAY, help=help)
