# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The messages that follow from the data model alone.

Getters, setters, ``add_to_*``, ``remove_from_*``, ``get_all*``,
``get_by_*``, ``create`` and ``destroy``: for each origin of a message one
maker, which returns the function that answers it.
"""

from __future__ import annotations

import collections.abc
import typing

from xenpool_driver.simulator import (
    datamodel,
    errors,
    filters,
    registry,
    rows,
    values,
)

Handler = collections.abc.Callable[..., typing.Any]


def handler(message: datamodel.Message) -> Handler | None:
    """Return what answers ``message``, None when the data model cannot."""
    origin = message.origin
    if message.wire_name in _PLAIN:
        origin = _PLAIN[message.wire_name]
    if message.cls == 'message' and origin == 'custom':
        # Messages are no table in XAPI: what other classes derive is
        # written by hand there, under the same names.
        origin = message.name
    maker = _MAKERS.get(origin)
    cls = datamodel.load().classes[message.cls]
    if maker is None or not (cls.in_database or cls.name == 'message'):
        return None
    return maker(message)


_WRITERS = {
    'set_': 'field-setter',
    'add_': 'field-add',
    'remove_': 'field-remove',
}
_WRITTEN = {
    'pool': 'set_igmp_snooping_enabled add_to_guest_agent_config '
    'remove_from_guest_agent_config set_local_auth_max_threads '
    'set_ext_auth_max_threads set_ext_auth_cache_enabled '
    'set_ext_auth_cache_size set_ext_auth_cache_expiry '
    'set_telemetry_next_collection set_repositories',
    'host': 'set_numa_affinity_policy set_ssh_auto_mode '
    'set_console_idle_timeout set_max_cstate set_ntp_mode '
    'set_ntp_custom_servers set_timezone',
    'VM': 'set_other_config add_to_other_config remove_from_other_config '
    'set_platform add_to_platform remove_from_platform '
    'set_blocked_operations add_to_blocked_operations '
    'remove_from_blocked_operations set_NVRAM add_to_NVRAM '
    'remove_from_NVRAM set_ha_restart_priority '
    'set_start_delay set_shutdown_delay set_order set_suspend_VDI '
    'set_appliance set_groups set_has_vendor_device '
    'set_actions_after_crash set_domain_type set_HVM_boot_policy '
    'set_bios_strings',
    'VIF': 'set_locking_mode set_ipv4_allowed add_ipv4_allowed '
    'remove_ipv4_allowed set_ipv6_allowed add_ipv6_allowed '
    'remove_ipv6_allowed',
    'VDI': 'set_name_label set_name_description set_sharable set_read_only '
    'set_managed set_on_boot set_allow_caching',
    'PIF': 'set_disallow_unplug',
    'network': 'set_default_locking_mode',
    'VBD': 'set_mode',
    'Bond': 'set_mode',
}
_PLAIN = {
    f'{cls}.{name}': _WRITERS[f'{name.partition("_")[0]}_']
    for cls, names in _WRITTEN.items()
    for name in names.split()
}
"""Messages that XAPI wrote by hand and that come down to writing a field."""


def where_messages() -> dict[str, datamodel.Message]:
    """Return the get_all_where of each class, which XAPI has unlisted."""
    out = {}
    for cls in datamodel.load().classes.values():
        listed = cls.messages.get('get_all_records_where')
        if listed is None:
            continue
        message = datamodel.Message(
            cls=cls.name,
            name='get_all_where',
            origin='get_all_where',
            params=listed.params,
            result=datamodel.parse_type(f'{cls.name} ref set'),
            roles=listed.roles,
            hidden=True,
        )
        out[message.wire_name] = message
    return out


def _get_record(message: datamodel.Message) -> Handler:
    cls = message.cls

    def answer(call: registry.Call, ref: str) -> rows.RowValue:
        return rows.RowValue(cls, call.db.row(cls, ref))

    return answer


def _getter(message: datamodel.Message) -> Handler:
    cls, field = message.cls, message.name.removeprefix('get_')

    def answer(call: registry.Call, ref: str) -> typing.Any:
        return call.db.get(cls, ref)[field]

    return answer


def _setter(message: datamodel.Message) -> Handler:
    cls, field = message.cls, message.name.removeprefix('set_')

    def answer(call: registry.Call, ref: str, value: typing.Any) -> None:
        values.check_storable(value)
        call.db.set(cls, ref, **{field: value})

    return answer


def _adder(message: datamodel.Message) -> Handler:
    cls = message.cls
    if len(message.params) == 2:
        field = message.name.removeprefix('add_')

        def add(call: registry.Call, ref: str, value: typing.Any) -> None:
            values.check_storable(value)
            call.db.add_to_set(cls, ref, field, value)

        return add
    field = message.name.removeprefix('add_to_')

    def add_key(
        call: registry.Call, ref: str, key: str, value: typing.Any
    ) -> None:
        values.check_storable([key, value])
        call.db.add_to_map(cls, ref, field, key, value)

    return add_key


def _remover(message: datamodel.Message) -> Handler:
    cls = message.cls
    fields = datamodel.load().classes[cls].fields
    field = message.name.removeprefix('remove_from_')
    if field not in fields:
        field = message.name.removeprefix('remove_')

    def answer(call: registry.Call, ref: str, value: typing.Any) -> None:
        if fields[field].type.kind == 'map':
            call.db.remove_from_map(cls, ref, field, value)
        else:
            call.db.remove_from_set(cls, ref, field, value)

    return answer


def _get_by_uuid(message: datamodel.Message) -> Handler:
    cls = message.cls

    def answer(call: registry.Call, uuid: str) -> str:
        return call.db.by_uuid(cls, uuid)

    return answer


def _get_by_name_label(message: datamodel.Message) -> Handler:
    cls = message.cls

    def answer(call: registry.Call, label: str) -> list[str]:
        return [
            ref
            for ref, record in call.db.all(cls).items()
            if record['name_label'] == label
        ]

    return answer


def _get_all(message: datamodel.Message) -> Handler:
    cls = message.cls

    def answer(call: registry.Call) -> list[str]:
        return call.db.refs(cls)

    return answer


def _get_all_records(message: datamodel.Message) -> Handler:
    cls = message.cls

    def answer(call: registry.Call) -> rows.RowMap:
        with call.db.lock:
            table = call.db.table(cls)
            found = [(ref, table.rows[ref]) for ref in table.order()]
        return rows.RowMap(cls, found)

    return answer


def _where(message: datamodel.Message) -> Handler:
    cls = datamodel.load().classes[message.cls]

    def find(call: registry.Call, expr: str) -> rows.RowMap:
        fits = filters.parse(cls, expr)
        with call.db.lock:
            table = call.db.table(cls.name)
            found = [
                (ref, table.rows[ref])
                for ref in table.order()
                if fits(table.rows[ref].record)
            ]
        return rows.RowMap(cls.name, found)

    if message.name == 'get_all_records_where':
        return find

    def find_refs(call: registry.Call, expr: str) -> list[str]:
        return [ref for ref, _ in find(call, expr).rows]

    return find_refs


def _create(message: datamodel.Message) -> Handler:
    cls = message.cls

    def answer(call: registry.Call, fields: dict[str, typing.Any]) -> str:
        values.check_storable(fields)
        return call.db.create(cls, fields)

    return answer


def _destroy(message: datamodel.Message) -> Handler:
    cls = message.cls

    def answer(call: registry.Call, ref: str) -> None:
        call.db.delete(cls, ref)

    return answer


def not_simulated(message: datamodel.Message) -> Handler:
    """Return the answer of a published message that is not simulated.

    What XAPI would notice first is still noticed: a reference, the first
    parameter, that is no object.
    """
    model = datamodel.load()
    first = message.params[0].type if message.params else None
    checked = (
        first is not None
        and first.kind == 'ref'
        and first.name in model.classes
        and model.classes[first.name].in_database
    )

    def answer(call: registry.Call, *args: typing.Any) -> typing.NoReturn:
        if checked and first is not None:
            call.db.row(first.name, args[0])
        raise errors.not_implemented(message.wire_name)

    return answer


_MAKERS: dict[str, collections.abc.Callable[[datamodel.Message], Handler]] = {
    'get_record': _get_record,
    'field-getter': _getter,
    'field-setter': _setter,
    'field-add': _adder,
    'field-remove': _remover,
    'get_by_uuid': _get_by_uuid,
    'get_by_name_label': _get_by_name_label,
    'get_all': _get_all,
    'get_all_records': _get_all_records,
    'get_all_records_where': _where,
    'get_all_where': _where,
    'ctor': _create,
    'dtor': _destroy,
}
