# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The messages that are simulated by hand.

A function registered here answers one XAPI message. Everything that follows
from the data model alone (getters, setters, ``get_all``, ``get_by_uuid``,
``add_to_*``, ``create``, ``destroy`` and so on) is derived in
:mod:`xenpool_driver.simulator.generic`; a registered function overrides it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import random
import typing

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import database

Function = collections.abc.Callable[..., typing.Any]
F = typing.TypeVar('F', bound=Function)


class Call(typing.Protocol):
    """What a message learns of the call that it answers."""

    name: str
    """``class.method``, without ``Async.``."""
    args: collections.abc.Sequence[typing.Any]
    """The arguments, checked and coerced, without the session."""
    machine: typing.Any
    """The machine that answers."""
    session_ref: str | None
    """The caller's session, None for calls without one."""
    task: str | None
    """The task that shows the progress of this call, None without one."""
    originator: str
    """What the session's owner called itself."""

    @property
    def db(self) -> database.Database:
        """The database that the machine serves."""

    @property
    def clock(self) -> clock_module.Clock:
        """The simulated time."""

    @property
    def rng(self) -> random.Random:
        """The seeded source of all randomness."""

    @property
    def session(self) -> dict[str, typing.Any]:
        """The record of the caller's session."""

    @property
    def here(self) -> str:
        """The reference of the host that answers, NULL if it has none."""

    @property
    def is_local_session(self) -> bool:
        """Whether the session is of slave_local_login*."""

    @property
    def is_pool_session(self) -> bool:
        """Whether the caller knows the pool secret."""

    def progress(self, fraction: float) -> None:
        """Show 0..1 as the task's progress."""

    def set_cancellable(self, cancellable: bool = True) -> None:
        """Show ``cancel`` among the task's allowed operations, or not."""

    def check_cancelled(self) -> None:
        """Raise TASK_CANCELLED when the task was cancelled."""

    def assert_permission(
        self, permission: str, roles: collections.abc.Collection[str]
    ) -> None:
        """Raise RBAC_PERMISSION_DENIED unless the session has a role."""


@dataclasses.dataclass(frozen=True)
class Message:
    """A message simulated by hand.

    :param name: ``class.method``.
    :param function: called with the :class:`Call` and the arguments, checked
        and coerced by the data model; returns a Python value of the
        message's result type.
    :param emergency: accepted in emergency mode.
    :param needs_db: False for messages that a member answers without asking
        its coordinator's database.
    """

    name: str
    function: Function
    emergency: bool = False
    needs_db: bool = True


_MESSAGES: dict[str, Message] = {}


def message(
    name: str, *, emergency: bool = False, needs_db: bool = True
) -> collections.abc.Callable[[F], F]:
    """Register the decorated function as the answer to ``name``."""

    def register(function: F) -> F:
        if name in _MESSAGES:
            raise ValueError(f'{name} is registered twice')
        _MESSAGES[name] = Message(name, function, emergency, needs_db)
        return function

    return register


def lookup(name: str) -> Message | None:
    """Return what was registered for ``class.method``, None without."""
    return _MESSAGES.get(name)


def names() -> tuple[str, ...]:
    """Return the names of all registered messages, sorted."""
    return tuple(sorted(_MESSAGES))
