# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The life of a pool aggregate: states, events, and what each state allows.

This file owns the lifecycle. Everything else asks it: :func:`next_state` for
the state that an event leads to, :func:`refusal` for what a request meets.

The names of states and metadata keys are Nova's (``nova/virt/xenapi/
pool_states.py`` and ``nova/compute/aggregate_states`` of release 21), so
that aggregates written by either are read by both.
"""

from __future__ import annotations

import collections.abc
import shlex

from xenpool_driver import exceptions, model

CREATED = 'created'
"""Creation was asked for; the hypervisor pool has not been set up."""

CHANGING = 'changing'
"""The first added host is setting the pool up; all else is refused."""

ACTIVE = 'active'
"""The pool is up and running."""

ERROR = 'error'
"""Anything else. Irreversible: release the aggregate, then adopt its pool."""

DISMISSED = 'dismissed'
"""No hosts, and deleted."""

STATES = (CREATED, CHANGING, ACTIVE, ERROR, DISMISSED)
"""Every state, in the order of a long life."""

FIRST_ADD_ACCEPTED = 'first add-host request accepted'
SETUP_SUCCEEDED = 'set-up succeeded'
SETUP_FAILED = 'set-up failed'
REQUEST_SUCCEEDED = 'request succeeded'
REQUEST_FAILED = 'request failed'
FAILED_TOO_OFTEN = 'request failed, threshold reached'
DELETED = 'deleted, no hosts left'
RELEASED = 'released, no host is touched'

EVENTS = (
    FIRST_ADD_ACCEPTED,
    SETUP_SUCCEEDED,
    SETUP_FAILED,
    REQUEST_SUCCEEDED,
    REQUEST_FAILED,
    FAILED_TOO_OFTEN,
    DELETED,
    RELEASED,
)
"""Everything that can happen to an aggregate."""

TRANSITIONS: collections.abc.Mapping[tuple[str, str], str] = {
    (CREATED, FIRST_ADD_ACCEPTED): CHANGING,
    (CREATED, DELETED): DISMISSED,
    (CHANGING, SETUP_SUCCEEDED): ACTIVE,
    (CHANGING, SETUP_FAILED): ERROR,
    (ACTIVE, REQUEST_SUCCEEDED): ACTIVE,
    (ACTIVE, REQUEST_FAILED): ACTIVE,
    (ACTIVE, FAILED_TOO_OFTEN): ERROR,
    (ACTIVE, DELETED): DISMISSED,
    (ERROR, DELETED): DISMISSED,
    (ACTIVE, RELEASED): DISMISSED,
    (ERROR, RELEASED): DISMISSED,
}
"""(state, event) -> state. A pair that is not here cannot happen."""

ADD = 'add'
REMOVE = 'remove'
SET_MASTER = 'set master'
DELETE = 'delete'

RECOVER = 'recover'
RELEASE = 'release'

REQUESTS = (ADD, REMOVE, SET_MASTER, DELETE, RECOVER, RELEASE)
"""What a user can ask of an aggregate."""

_SETTING_UP = 'setup in progress'
_IN_ERROR = 'aggregate in error'
_GONE = 'aggregate deleted'

REFUSALS: collections.abc.Mapping[tuple[str, str], str] = {
    (CREATED, REMOVE): 'no hosts to remove',
    (CREATED, SET_MASTER): 'no master to change',
    (CREATED, RECOVER): 'no hosts to recover',
    (CREATED, RELEASE): 'no pool to release',
    (CHANGING, ADD): _SETTING_UP,
    (CHANGING, REMOVE): _SETTING_UP,
    (CHANGING, SET_MASTER): _SETTING_UP,
    (CHANGING, DELETE): _SETTING_UP,
    (CHANGING, RECOVER): _SETTING_UP,
    (CHANGING, RELEASE): _SETTING_UP,
    (ERROR, ADD): _IN_ERROR,
    (ERROR, SET_MASTER): _IN_ERROR,
    (DISMISSED, ADD): _GONE,
    (DISMISSED, REMOVE): _GONE,
    (DISMISSED, SET_MASTER): _GONE,
    (DISMISSED, DELETE): _GONE,
    (DISMISSED, RECOVER): _GONE,
    (DISMISSED, RELEASE): _GONE,
}
"""(state, request) -> why it is refused. A pair that is not here may go on."""

POOL_FLAG = 'hypervisor_pool'
"""Metadata key: the aggregate is a pool (its presence decides)."""

STATE = model.STATE_KEY
"""Metadata key: one of :data:`STATES`."""

KEY = STATE
"""The name that Nova's ``pool_states`` gives it."""

MASTER = model.MASTER_KEY
"""Metadata key: the compute host name of the pool's master."""

POOL_UUID = model.POOL_UUID_KEY
"""Metadata key: the uuid of the XAPI pool."""

FAILED_REQUESTS = model.FAILED_KEY
"""Metadata key: how many requests in a row have failed, as text."""

HA_SUSPENDED = model.HA_KEY
"""Metadata key: how HA was before a request switched it off and could not
switch it on again, as JSON: ``sr_uuids``, ``configuration``, ``tolerance``.
It stays until HA is on again, or a person unsets it."""

RESERVED_KEYS = frozenset(
    {
        HA_SUSPENDED,
        POOL_FLAG,
        STATE,
        MASTER,
        POOL_UUID,
        FAILED_REQUESTS,
        'availability_zone',
    }
)
"""Metadata keys that are not a host's name (each host has a key of its own,
which holds its XenServer uuid)."""

OWNER_KEY = model.OWNER_KEY
"""Key of ``pool.other_config`` that holds the owning aggregate's uuid."""


class IllegalTransition(exceptions.XenpoolError):
    """The event cannot happen in this state; nothing was written.

    :param state: the present state.
    :param event: what was said to have happened.
    """

    def __init__(self, state: str, event: str) -> None:
        self.state = state
        self.event = event
        super().__init__(f"'{event}' cannot happen in state '{state}'")


def is_hv_pool(metadata: collections.abc.Mapping[str, str] | None) -> bool:
    """Say whether the aggregate is a hypervisor pool.

    Presence of the flag decides, whatever its value, as Nova's
    ``pool_states.is_hv_pool`` has always done.

    :param metadata: the aggregate's metadata; None counts as empty.
    """
    return POOL_FLAG in (metadata or {})


def state_of(metadata: collections.abc.Mapping[str, str]) -> str:
    """Return the state that the metadata records.

    An aggregate that is flagged but carries no state has been asked for and
    nothing more: it is ``created``.

    :param metadata: the aggregate's metadata.
    :raises ConfigurationError: the recorded state is none of :data:`STATES`.
    """
    state = metadata.get(STATE) or CREATED
    if state not in STATES:
        raise exceptions.ConfigurationError(
            f"metadata {STATE}={state!r} is no state; it must be one of "
            f"{', '.join(STATES)}"
        )
    return state


def next_state(state: str, event: str) -> str:
    """Return the state that ``event`` leads to.

    :raises IllegalTransition: the pair is not in :data:`TRANSITIONS`.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def refusal(state: str, request: str) -> str | None:
    """Return why ``request`` is refused in ``state``, or None if it may go on.

    :raises KeyError: one of the two is unknown.
    """
    if state not in STATES or request not in REQUESTS:
        raise KeyError((state, request))
    return REFUSALS.get((state, request))


def way_out(state: str, request: str, name: str) -> str:
    """Return the command to go on with when ``request`` is refused.

    :param state: the aggregate's state.
    :param request: what the state refuses.
    :param name: the aggregate's name.
    :returns: a command as it is typed; '' where there is none, or nothing
        is refused.
    """
    if not refusal(state, request):
        return ''
    word = shlex.quote(name)
    if state == ERROR:
        return f"xenpool aggregate release {word}"
    if (state, request) == (CREATED, RELEASE):
        return f"xenpool aggregate delete {word}"
    if state == CHANGING:
        return f"xenpool aggregate recover {word}"
    return ''


def failure_event(failed_before: int, threshold: int) -> str:
    """Return the event for one more failed request of an active aggregate.

    :param failed_before: failed requests in a row before this one.
    :param threshold: at how many in a row the aggregate becomes an error.
    """
    if failed_before + 1 >= threshold:
        return FAILED_TOO_OFTEN
    return REQUEST_FAILED


def host_uuids(
    metadata: collections.abc.Mapping[str, str],
    hosts: collections.abc.Iterable[str],
) -> dict[str, str]:
    """Return ``{compute host: XenServer uuid}`` for the hosts that have one.

    :param metadata: the aggregate's metadata.
    :param hosts: the compute host names to look for.
    """
    return {
        host: metadata[host]
        for host in hosts
        if host in metadata and host not in RESERVED_KEYS
    }
