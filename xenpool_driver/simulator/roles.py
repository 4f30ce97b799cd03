# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The class ``role``: what roles there are, and what each permits.

They are the same on every host and in no database: a permission is a role,
too, one without subroles (``xapi_role.ml``, ``gen_rbac.ml``).
"""

from __future__ import annotations

import collections.abc
import functools
import hashlib
import typing
import uuid

from xenpool_driver.simulator import database, errors, rbac, registry, rows

ADMIN_UUID = '0165f154-ba3e-034e-6b27-5d271af109ba'
"""Of pool-admin; the others are made from their names."""

DESCRIPTIONS = {
    'pool-admin': 'The Pool Administrator role has full access to all '
    'features and settings, including accessing Dom0 and managing subjects, '
    'roles and external authentication',
    'pool-operator': 'The Pool Operator role manages host- and pool-wide '
    'resources, including setting up storage, creating resource pools and '
    'managing patches, high availability (HA) and workload balancing (WLB)',
    'vm-power-admin': 'The VM Power Administrator role has full access to VM '
    'and template management and can choose where to start VMs and use the '
    'dynamic memory control and VM snapshot features',
    'vm-admin': 'The VM Administrator role can manage VMs and templates',
    'vm-operator': 'The VM Operator role can use VMs and interact with VM '
    'consoles',
    'client-cert': 'The Client Certificate role has access to functionality '
    'granted to those who authenticate using a client certificate',
    'read-only': 'The Read-Only role can log in with basic read-only access',
}
PERMISSION = 'A basic permission'
WITH_SUBROLES, WITHOUT_SUBROLES = 'subroles<>[]', 'subroles=[]'
"""The only two expressions that get_all_records_where understands."""

Table = dict[str, database.Row]


def _uuid(name: str) -> str:
    if name == 'pool-admin':
        return ADMIN_UUID
    digest = hashlib.md5(name.encode(), usedforsecurity=False)
    return str(uuid.UUID(bytes=digest.digest()))


def _ref(name: str) -> str:
    return f'OpaqueRef:{_uuid(name)}'


def _row(
    name: str, description: str, subroles: list[str], internal: bool
) -> database.Row:
    record = {
        'uuid': _uuid(name),
        'name_label': name.lower(),
        'name_description': description,
        'subroles': subroles,
        'is_internal': internal,
    }
    return database.Row(record, 0)


@functools.cache
def table() -> Table:
    """Return all permissions and, behind them, all roles."""
    granted = rbac.granted()
    found = {
        _ref(name): _row(name, PERMISSION, [], True)
        for name, roles in granted.items()
        if roles
    }
    for role in rbac.TOLD:
        permitted = [_ref(n) for n, roles in granted.items() if role in roles]
        internal = role == 'client-cert'
        found[_ref(role)] = _row(role, DESCRIPTIONS[role], permitted, internal)
    return found


def _find(ref: str) -> database.Row:
    row = table().get(ref)
    if row is None:
        raise errors.handle_invalid('role', ref)
    return row


def _leaves(ref: str) -> list[str]:
    """Return the permissions of a role; one of itself has itself."""
    return _find(ref).record['subroles'] or [ref]


def _label(ref: str) -> str:
    return str(_find(ref).record['name_label'])


def _holders(fits: collections.abc.Callable[[str], bool]) -> list[str]:
    """Return the roles with a permission that fits."""
    return [
        ref
        for ref, row in table().items()
        if any(fits(permission) for permission in row.record['subroles'])
    ]


@registry.message('role.get_all')
def _get_all(call: registry.Call) -> list[str]:
    return list(table())


@registry.message('role.get_all_records')
def _get_all_records(call: registry.Call) -> rows.RowMap:
    return rows.RowMap('role', list(table().items()))


@registry.message('role.get_all_records_where')
def _where(call: registry.Call, expr: str) -> rows.RowMap:
    if expr not in (WITH_SUBROLES, WITHOUT_SUBROLES):
        return rows.RowMap('role', list(table().items()))
    wanted = expr == WITH_SUBROLES
    found = [
        (ref, row)
        for ref, row in table().items()
        if bool(row.record['subroles']) == wanted
    ]
    return rows.RowMap('role', found)


@registry.message('role.get_record')
def _get_record(call: registry.Call, ref: str) -> rows.RowValue:
    return rows.RowValue('role', _find(ref))


@registry.message('role.get_by_uuid')
def _get_by_uuid(call: registry.Call, uuid: str) -> str:
    ref = f'OpaqueRef:{uuid}'
    if ref not in table():
        raise errors.uuid_invalid('role', uuid)
    return ref


@registry.message('role.get_by_name_label')
def _get_by_name_label(call: registry.Call, label: str) -> list[str]:
    return [r for r, w in table().items() if w.record['name_label'] == label]


def _getter(field: str) -> None:
    def answer(call: registry.Call, ref: str) -> typing.Any:
        return _find(ref).record[field]

    registry.message(f'role.get_{field}')(answer)


for _field in (
    'uuid',
    'name_label',
    'name_description',
    'subroles',
    'is_internal',
):
    _getter(_field)


@registry.message('role.get_permissions')
def _get_permissions(call: registry.Call, ref: str) -> list[str]:
    return _leaves(ref)


@registry.message('role.get_permissions_name_label')
def _get_permissions_name_label(call: registry.Call, ref: str) -> list[str]:
    return [_label(leaf) for leaf in _leaves(ref)]


@registry.message('role.get_by_permission')
def _get_by_permission(call: registry.Call, permission: str) -> list[str]:
    return _holders(lambda ref: ref == permission)


@registry.message('role.get_by_permission_name_label')
def _get_by_permission_name_label(
    call: registry.Call, label: str
) -> list[str]:
    return _holders(lambda ref: _label(ref) == label)
