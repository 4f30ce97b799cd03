# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the mocks of :mod:`tests.unit.mocked_pool` answer.

Reads come from the records. Calls that change something are carried out: at
once, or after a fuse, in the order that was recorded of a real XAPI.
"""

from __future__ import annotations

import copy
import re
import typing

import XenAPI

from xenpool_driver import snapshot

if typing.TYPE_CHECKING:
    from tests.unit import mocked_pool

PASSWORD = 'xen-s3cret'
FUSE = 10.0
"""Seconds from an answer to what it promises, as recorded."""

NULL = 'OpaqueRef:NULL'

CLASSES = sorted({*snapshot.DUMP_CLASSES, 'task'})

GETTERS = (
    'host.get_uuid',
    'host.get_enabled',
    'host.get_other_config',
    'host.get_record',
    'host_metrics.get_live',
    'SR.get_uuid',
    'VDI.get_SR',
    'VM.get_name_label',
    'VM.get_uuid',
    'task.get_record',
)


def failure(*details: str) -> XenAPI.Failure:
    """Return what a session raises when XAPI refuses."""
    return XenAPI.Failure(list(details))


def found(api: typing.Any, method: str) -> typing.Any:
    for part in method.split('.'):
        api = getattr(api, part)
    return api


def script(host: mocked_pool.Host) -> None:
    """Give the mocks of a host's session their answers."""
    api = host.api
    api.login_with_password.side_effect = lambda *args: _login(host, args[1])
    host.session.slave_local_login_with_password.side_effect = (
        lambda user, password: _local_login(host, password)
    )
    api.session.get_uuid.side_effect = lambda _: f"login-{host.name}"
    api.session.get_by_uuid.side_effect = lambda uuid: _no_login(uuid)
    api.session.get_this_host.side_effect = lambda _: _served(host).ref
    api.pool.get_all.side_effect = lambda: list(_served(host).raw['pool'])
    api.host.get_servertime.side_effect = lambda _: '20270115T08:00:00Z'
    api.host.get_vms_which_prevent_evacuation.side_effect = lambda _: {}
    for cls in CLASSES:
        found(api, f"{cls}.get_all_records").side_effect = lambda cls=cls: (
            _served(host).raw.get(cls, {})
        )
        found(api, f"{cls}.get_all_records_where").side_effect = (
            lambda which, cls=cls: _where(_served(host), cls, which)
        )
    for cls in ('host', 'SR', 'VM'):
        found(api, f"{cls}.get_by_uuid").side_effect = lambda uuid, cls=cls: (
            _by_uuid(_served(host), cls, uuid)
        )
    for getter in GETTERS:
        found(api, getter).side_effect = lambda ref, getter=getter: _get(
            _served(host), getter, ref
        )
    for name in _EFFECTS:
        found(api, name).side_effect = lambda *args, name=name: _change(
            host, name, args
        )


def _served(host: mocked_pool.Host) -> mocked_pool.Host:
    host.serve()
    return host


def _login(host: mocked_pool.Host, password: str) -> str:
    host.serve()
    return _local_login(host, password)


def _local_login(host: mocked_pool.Host, password: str) -> str:
    if not host.alive:
        raise ConnectionRefusedError(111, 'refused')
    if password != PASSWORD:
        raise failure('SESSION_AUTHENTICATION_FAILED', 'root', 'wrong')
    return str(host.session.handle)


def _no_login(uuid: str) -> typing.NoReturn:
    raise failure('UUID_INVALID', 'session', uuid)


def _by_uuid(host: mocked_pool.Host, cls: str, uuid: str) -> str:
    for ref, record in host.raw.get(cls, {}).items():
        if record['uuid'] == uuid:
            return str(ref)
    raise failure('UUID_INVALID', cls, uuid)


def _where(
    host: mocked_pool.Host, cls: str, which: str
) -> dict[str, typing.Any]:
    terms = re.findall('field "([^"]*)" = "([^"]*)"(?: or |$)', which)
    assert terms, which
    return {
        ref: record
        for ref, record in host.raw.get(cls, {}).items()
        if any(str(record.get(f)).lower() == v.lower() for f, v in terms)
    }


def _get(host: mocked_pool.Host, getter: str, ref: str) -> typing.Any:
    cls, _, field = getter.partition('.get_')
    record = host.raw.get(cls, {}).get(ref)
    if record is None:
        raise failure('HANDLE_INVALID', cls, ref)
    return record if field == 'record' else record[field]


def _change(
    host: mocked_pool.Host, name: str, args: tuple[typing.Any, ...]
) -> typing.Any:
    """Carry a changing call out; return its task's reference, if it has
    one."""
    effect = _EFFECTS[name]
    if 'emergency' not in name:
        host.serve()
    if not name.startswith('Async.'):
        return effect(host, *args) or ''
    error = host.world.failing.get(name, [])
    task = {
        'uuid': f"task-{len(host.raw['task'])}",
        'name_label': name,
        'status': 'failure' if error else 'success',
        'progress': 1.0,
        'error_info': error,
    }
    ref = f"OpaqueRef:{task['uuid']}"
    host.raw['task'][ref] = task
    if not error:
        effect(host, *args)
    return ref


def _add_other_config(
    host: mocked_pool.Host, ref: str, key: str, value: str
) -> None:
    other_config = host.pool['other_config']
    if key in other_config:
        raise failure('MAP_DUPLICATE_KEY', 'pool', 'other_config', ref, key)
    other_config[key] = value


def _join(
    joiner: mocked_pool.Host, address: str, user: str, password: str
) -> None:
    master = joiner.world.at(address)
    if password != PASSWORD:
        raise failure('SESSION_AUTHENTICATION_FAILED', user, 'wrong')

    for cls, records in joiner.raw.items():
        if cls not in ('pool', 'task'):
            master.raw[cls].update(copy.deepcopy(records))
    record = master.raw['host'][joiner.ref]
    metrics = master.raw['host_metrics'][record['metrics']]
    record['enabled'] = metrics['live'] = False

    def restart() -> None:
        joiner.raw, joiner.master = master.raw, master
        metrics['live'] = True

    joiner.world.clock.later(FUSE, restart)
    joiner.world.clock.later(2 * FUSE, lambda: record.update(enabled=True))


def _eject(master: mocked_pool.Host, ref: str) -> None:
    world = master.world
    uuid = master.raw['host'][ref]['uuid']
    leaver = next(host for host in world.hosts if host.uuid == uuid)
    _forget(master, ref)
    leaver.alive = False

    def boot() -> None:
        leaver.raw, leaver.master, leaver.alive = leaver.fresh(), leaver, True

    world.clock.later(2 * FUSE, boot)


def _destroy(master: mocked_pool.Host, ref: str) -> None:
    record = master.raw['host'][ref]
    if master.raw['host_metrics'][record['metrics']]['live']:
        raise failure('HOST_IS_LIVE', ref)
    _forget(master, ref)


def _forget(master: mocked_pool.Host, ref: str) -> None:
    """Delete a host with all that is its own."""
    raw = master.raw
    del raw['host_metrics'][raw['host'].pop(ref)['metrics']]
    for cls in ('PIF', 'PBD', 'Certificate'):
        raw[cls] = {k: v for k, v in raw[cls].items() if v['host'] != ref}
    raw['VM'] = {k: v for k, v in raw['VM'].items() if v['resident_on'] != ref}


def _designate(master: mocked_pool.Host, ref: str) -> None:
    def restart() -> None:
        _follow(master, master.raw['host'][ref]['uuid'])

    master.world.clock.later(FUSE, restart)


def _promote(host: mocked_pool.Host) -> None:
    host.master = host
    host.pool['master'] = host.ref


def _follow(master: mocked_pool.Host, uuid: str) -> None:
    """Let every living member take the host with this uuid for master."""
    members = master.world.members(master)
    chosen = next(host for host in members if host.uuid == uuid)
    chosen.pool['master'] = chosen.ref
    for member in members:
        if member.alive:
            member.master = chosen


def _enable(value: bool) -> typing.Callable[[mocked_pool.Host, str], None]:
    def effect(host: mocked_pool.Host, ref: str) -> None:
        host.raw['host'][ref]['enabled'] = value

    return effect


def _set_ha(value: bool) -> typing.Callable[..., None]:
    def effect(host: mocked_pool.Host, *args: typing.Any) -> None:
        host.pool['ha_enabled'] = value

    return effect


def _set_power(value: str) -> typing.Callable[..., None]:
    def effect(host: mocked_pool.Host, ref: str, *args: typing.Any) -> None:
        host.raw['VM'][ref].update(
            power_state=value,
            resident_on=host.ref if value == 'Running' else NULL,
        )

    return effect


def _evacuate(host: mocked_pool.Host, ref: str) -> None:
    for vm in host.raw['VM'].values():
        if vm['resident_on'] == ref and not vm['is_control_domain']:
            vm['resident_on'] = host.ref


_EFFECTS: dict[str, typing.Callable[..., object]] = {
    'pool.set_name_label': lambda host, _, label: host.pool.update(
        name_label=label
    ),
    'pool.add_to_other_config': _add_other_config,
    'pool.remove_from_other_config': lambda host, _, key: host.pool[
        'other_config'
    ].pop(key, None),
    'Async.pool.set_ha_host_failures_to_tolerate': lambda host, _, number: (
        host.pool.update(ha_host_failures_to_tolerate=number)
    ),
    'pool.emergency_transition_to_master': _promote,
    'Async.host.enable': _enable(True),
    'Async.host.disable': _enable(False),
    'Async.host.destroy': _destroy,
    'Async.pool.join': _join,
    'Async.pool.join_force': _join,
    'Async.pool.eject': _eject,
    'Async.pool.designate_new_master': _designate,
    'Async.pool.recover_slaves': lambda host: _follow(host, host.uuid),
    'Async.pool.disable_ha': _set_ha(False),
    'Async.pool.enable_ha': _set_ha(True),
    'Async.host.evacuate': _evacuate,
    'Async.VM.destroy': lambda master, ref: master.raw['VM'].pop(ref),
    'Async.VM.clean_shutdown': _set_power('Halted'),
    'Async.VM.start': _set_power('Running'),
}
