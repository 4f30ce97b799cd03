# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Calls to simulated hosts as their server makes them, without sockets.

The same way in as over a connection, from :func:`dispatch.execute` on, and
answers decoded as the client decodes them. A world with a manual clock makes
thousands of joins out of a minute.
"""

from __future__ import annotations

import typing

import orjson

from tests import manual_world
from xenpool_driver import snapshot
from xenpool_driver.simulator import dispatch, errors, machine, verbs
from xenpool_driver.xapi import jsonrpc, records

REGISTERED = verbs.MODULES
"""Importing these is what makes their messages known."""

PASSWORD = 'xenroot'


def world() -> manual_world.ManualWorld:
    """Return an empty world."""
    return manual_world.ManualWorld(manual_world.ManualClock(), seed=1)


class Door:
    """Somebody who is logged in at a host.

    :param target: the host.
    :param password: root's.
    :raises ApiError: the login is refused.
    """

    def __init__(
        self, target: machine.Machine, password: str = PASSWORD
    ) -> None:
        self.machine = target
        self._session = ask(
            target, 'session.login_with_password', 'root', password
        )

    def __call__(self, method: str, *params: typing.Any) -> typing.Any:
        """Make a call.

        :raises ApiError: it is refused.
        """
        return ask(self.machine, method, self._session, *params)

    def records(self, *classes: str) -> dict[str, typing.Any]:
        """Return the records of whole classes, as ``XenAPI`` has them."""
        return {cls: self(f"{cls}.get_all_records") for cls in classes}

    def snapshot(self, *classes: str) -> snapshot.PoolSnapshot:
        """Return what the prechecks get to see."""
        wanted = classes or snapshot.LIVE_CLASSES
        return records.snapshot(self.records(*wanted))


def ask(
    target: machine.Machine, method: str, *params: typing.Any
) -> typing.Any:
    """Make a call as it comes off the wire, whatever session it names.

    :raises ApiError: it is refused.
    """
    try:
        result = dispatch.execute(target, method, list(params))
    except dispatch.GateRefusal as refusal:
        raise refusal.error from None
    return jsonrpc.alike(orjson.loads(result.json()))


def refusal(
    door: Door, method: str, *params: typing.Any
) -> tuple[str, ...] | None:
    """Make a call; return what it is refused with, None if it is not."""
    try:
        door(method, *params)
    except errors.ApiError as error:
        return tuple(error.details)
    return None
