# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The right to change something, as whoever changes must show it.

A worker may stand still (stopped, suspended, cut off from its database) for
so long that another one settles its operation. What it sends afterwards
would be done to a pool of which everybody was told something else. So no
call that changes something can be made without a :class:`Permit`. This
package asks it; who gives it knows of leases and journals.
"""

from __future__ import annotations

import typing


class Permit(typing.Protocol):
    """What an operation lets this package ask and tell."""

    @property
    def originator(self) -> str:
        """The name under which XAPI records the logins: of the operation."""

    def may_send(self) -> None:
        """Let a change be sent now, or not.

        Asked on the open connection, right before the first byte.

        :raises LeaseLost: the operation may be another worker's by now.
        """

    def logged_in(self, host: str, address: str, uuid: str) -> None:
        """Hear of a login before the first change is sent over it.

        :param host: the name of the host that gave it.
        :param address: the host's address.
        :param uuid: of the login's record; '' for a local login, which has
            none.
        :raises LeaseLost: the operation is another worker's.
        """
