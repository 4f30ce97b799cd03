# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Roles: who may send which message (``rbac.ml``, ``datamodel_roles.ml``).

A permission is a message's name in lower case. Where a map holds keys that
need another role than the rest, each of them is a permission of its own:
``pool.add_to_other_config/key:folder``.
"""

from __future__ import annotations

import collections.abc
import functools
import typing

from xenpool_driver.simulator import datamodel

ROLES = (
    'pool-admin',
    'pool-operator',
    'vm-power-admin',
    'vm-admin',
    'vm-operator',
    'client-cert',
    'read-only',
)
"""All roles, the mightiest first."""

TOLD = (
    'vm-power-admin',
    'vm-admin',
    'vm-operator',
    'read-only',
    'client-cert',
    'pool-admin',
    'pool-operator',
)
"""The roles as a refusal lists them: as XAPI's build left them behind
(``gen_rbac.ml``)."""

_FOLDERS = {'folder': 'vm-operator', 'XenCenter.CustomFields.*': 'vm-operator'}
KEYS: dict[tuple[str, str], dict[str, str]] = {
    ('pool', 'other_config'): {**_FOLDERS, 'EMPTY_FOLDERS': 'vm-operator'},
    ('host', 'other_config'): _FOLDERS,
    ('SR', 'other_config'): _FOLDERS,
    ('VDI', 'other_config'): _FOLDERS,
    ('network', 'other_config'): {
        **_FOLDERS,
        'XenCenterCreateInProgress': 'vm-operator',
    },
    ('VM', 'other_config'): {
        'pci': 'pool-admin',
        'hvm_serial': 'pool-admin',
        **_FOLDERS,
    },
    ('VM', 'platform'): {'hvm_serial': 'pool-admin'},
    ('task', 'other_config'): {
        'applies_to': 'vm-operator',
        'XenCenterUUID': 'vm-operator',
        'XenCenterMeddlingActionTitle': 'vm-operator',
    },
}
"""(Class, map) -> key -> the humblest role that may write it
(``map_keys_roles`` of the data model)."""

Demand = tuple[str, frozenset[str]]
"""A permission, and the roles that have it."""


def _from(role: str) -> frozenset[str]:
    """Return ``role`` and all that are mightier."""
    return frozenset(ROLES[: ROLES.index(role) + 1])


def _keys(message: datamodel.Message) -> dict[str, str]:
    """Return the keys that ``message`` treats apart, and their roles."""
    for prefix in ('add_to_', 'remove_from_'):
        if message.name.startswith(prefix):
            field = message.name.removeprefix(prefix)
            return KEYS.get((message.cls, field), {})
    return {}


def _key_demand(message: datamodel.Message, key: str, role: str) -> Demand:
    return f'{message.wire_name}/key:{key}'.lower(), _from(role)


def demand(
    message: datamodel.Message, args: collections.abc.Sequence[typing.Any]
) -> Demand | None:
    """Return what a call needs, None when anybody may make it."""
    if message.roles is None:
        return None
    for key, role in _keys(message).items():
        start = key.removesuffix('*')
        given = str(args[1])
        if given == key or (start != key and given.startswith(start)):
            return _key_demand(message, key, role)
    return message.wire_name.lower(), message.roles


@functools.cache
def granted() -> dict[str, frozenset[str]]:
    """Return all permissions, as written in the data model, and who has
    them."""
    found = {}
    for message in datamodel.load().messages.values():
        everybody = frozenset(ROLES)
        roles = everybody if message.roles is None else message.roles
        found[message.wire_name] = roles
        for key, role in _keys(message).items():
            found[f'{message.wire_name}/key:{key}'] = _from(role)
    return found


@functools.cache
def permissions(roles: tuple[str, ...]) -> tuple[str, ...]:
    """Return all that ``roles`` permit."""
    mine = set(roles)
    return tuple(
        name.lower() for name, allowed in granted().items() if allowed & mine
    )


def told(roles: collections.abc.Collection[str]) -> str:
    """Return roles as a refusal lists them."""
    return ', '.join(role for role in TOLD if role in roles)
