# Licensed under the Apache License, Version 2.0; see LICENSE.
"""An XAPI made of Python, to test and rehearse against.

Hosts of one process listen on loopback addresses of their own and speak
XAPI over real HTTPS: see :class:`Simulation` for tests, :mod:`.runner` for
the command line, :mod:`.control` for pulling strings.
"""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from xenpool_driver.simulator.simulation import Host, Simulation

__all__ = ['Host', 'Simulation']


def __getattr__(name: str) -> typing.Any:
    """Import the heavy half only when it is asked for."""
    if name in __all__:
        from xenpool_driver.simulator import simulation

        return getattr(simulation, name)
    raise AttributeError(name)
