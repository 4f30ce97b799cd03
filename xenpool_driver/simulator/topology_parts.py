# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a topology puts into a pool: storage, networks, guests, overrides."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from xenpool_driver.simulator import (
    build,
    database,
    defaults,
    errors,
    guest_tools,
    ha,
    hardware,
    images,
    lifecycle,
    machine,
    netcopy,
    operations,
    startup,
    vm_states,
)

Tree = dict[str, typing.Any]


def refit(parts: hardware.Hardware, raw: Tree) -> hardware.Hardware:
    """Return ``parts`` with what a host's description changes."""
    changes: dict[str, typing.Any] = {}
    if 'cpu_vendor' in raw:
        changes['cpu_info'] = hardware.cpu_info(str(raw['cpu_vendor']))
    if 'memory_gib' in raw:
        changes['memory'] = int(raw['memory_gib']) * hardware.GIB
    if 'edition' in raw:
        edition = str(raw['edition'])
        changes['edition'] = edition
        if edition not in parts.editions:
            changes['editions'] = (*parts.editions, edition)
    if 'licence' in raw:
        changes['license_params'] = hardware.license_params(**raw['licence'])
    return dataclasses.replace(parts, **changes)


def find(db: database.Database, cls: str, field: str, value: str) -> str:
    """Return the object of ``cls`` whose ``field`` is ``value``.

    :raises ValueError: when there is none.
    """
    for ref, record in db.all(cls).items():
        if record[field] == value:
            return ref
    raise ValueError(f'no {cls} with {field} {value!r}')


def furnish(
    db: database.Database,
    machines: collections.abc.Sequence[machine.Machine],
    raw: Tree,
) -> None:
    """Give a pool all that its description lists."""
    pool = db.refs('pool')[0]
    if 'name' in raw:
        db.set('pool', pool, name_label=str(raw['name']))
    _furnish_networks(db, machines, raw)
    for sr in raw.get('srs') or ():
        _sr(db, sr)
    for vm in raw.get('vms') or ():
        _vm(db, vm)
    if raw.get('ha'):
        _switch_on_ha(db, pool)
    _set(db, 'pool', pool, raw.get('set') or {})
    for item in raw.get('records') or ():
        _override(db, item)


def _switch_on_ha(db: database.Database, pool: str) -> None:
    """Switch HA on, with a state file on a shared SR.

    :raises ValueError: when no SR can hold one.
    """
    try:
        fields = ha.enabled(db, [], {})
    except errors.ApiError as error:
        raise ValueError(
            'ha: true needs an SR that all hosts of the pool are connected'
            ' to; add one to srs with shared: true'
        ) from error
    db.set('pool', pool, **fields)


def _furnish_networks(
    db: database.Database,
    machines: collections.abc.Sequence[machine.Machine],
    raw: Tree,
) -> None:
    for network in raw.get('networks') or ():
        _network(db, network)
    for devices in raw.get('bonds') or ():
        _bond(db, machines[0], devices)
    for vlan in raw.get('vlans') or ():
        _vlan(db, machines[0], vlan)
    for target in machines[1:]:
        netcopy.copy_from_master(db, db.by_uuid('host', target.uuid))


def _network(db: database.Database, raw: Tree) -> None:
    bridges = {n['bridge'] for n in db.all('network').values()}
    number = next(i for i in range(1000) if f'xapi{i}' not in bridges)
    db.create(
        'network',
        {
            'name_label': str(raw['name']),
            'bridge': str(raw.get('bridge', f'xapi{number}')),
            'MTU': int(raw.get('mtu', 1500)),
            'managed': True,
        },
    )


def _network_named(db: database.Database, name: str) -> str:
    for ref, network in db.all('network').items():
        if network['name_label'] == name:
            return ref
    _network(db, {'name': name})
    return find(db, 'network', 'name_label', name)


def _bond(
    db: database.Database,
    master: machine.Machine,
    devices: collections.abc.Sequence[str],
) -> None:
    """Bond cards of the coordinator; members copy that."""
    host = db.by_uuid('host', master.uuid)
    slaves = []
    for device in devices:
        pif = netcopy.pif_of(db, host, device)
        if pif is None:
            raise ValueError(f'{master.name} has no card {device!r}')
        slaves.append(pif)
    number = len(db.refs('Bond'))
    network = _network_named(db, f'Bond {"+".join(devices)}')
    model = {**db.get('PIF', slaves[0]), 'device': f'bond{number}'}
    over = netcopy.create_pif(db, model, host, network)
    bond = db.create(
        'Bond',
        {'master': over, 'mode': 'balance-slb', 'primary_slave': slaves[0]},
    )
    for slave in slaves:
        db.set('PIF', slave, bond_slave_of=bond)
        netcopy.move_address(db, slave, over)


def _vlan(db: database.Database, master: machine.Machine, raw: Tree) -> None:
    host = db.by_uuid('host', master.uuid)
    card = netcopy.pif_of(db, host, str(raw['device']))
    if card is None:
        raise ValueError(f'{master.name} has no card {raw["device"]!r}')
    tag = int(raw['tag'])
    network = _network_named(db, str(raw.get('network', f'VLAN {tag}')))
    model = {**db.get('PIF', card), 'VLAN': tag}
    untagged = netcopy.create_pif(db, model, host, network)
    vlan = db.create(
        'VLAN', {'tagged_PIF': card, 'untagged_PIF': untagged, 'tag': tag}
    )
    db.set('PIF', untagged, VLAN_master_of=vlan)


def _sr(db: database.Database, raw: Tree) -> None:
    """A shared SR hangs on all hosts, another one on its host."""
    shared = bool(raw.get('shared', False))
    size = int(raw.get('size_gib', 100)) * hardware.GIB
    fields = dict(raw.get('set') or {})
    if 'uuid' in raw:
        fields['uuid'] = str(raw['uuid'])
    sr = defaults.create_sr(
        db,
        str(raw['name']),
        str(raw.get('type', 'nfs' if shared else 'ext')),
        size,
        shared=shared,
        **fields,
    )
    hosts = db.refs('host')
    if 'host' in raw:
        hosts = [find(db, 'host', 'name_label', str(raw['host']))]
    elif not shared:
        raise ValueError(f'SR {raw["name"]!r} is neither shared nor of a host')
    for host in hosts:
        defaults.plug(db, host, sr, dict(raw.get('device_config') or {}))
    if raw.get('default'):
        db.set('pool', db.refs('pool')[0], default_SR=sr)


def _vm(db: database.Database, raw: Tree) -> None:
    memory = int(float(raw.get('memory_gib', 1)) * hardware.GIB)
    state = str(raw.get('power_state', 'Halted'))
    host = errors.NULL
    if 'host' in raw:
        host = find(db, 'host', 'name_label', str(raw['host']))
    elif state in {'Running', 'Paused'}:
        host = db.refs('host')[0]
    running = state in {'Running', 'Paused'}
    vm = db.create(
        'VM',
        {
            'name_label': str(raw['name']),
            'power_state': state,
            'affinity': host,
            'resident_on': host if running else errors.NULL,
            'domid': 1 + len(db.refs('VM')) if running else -1,
            'domain_type': 'hvm',
            'actions_after_shutdown': 'destroy',
            'actions_after_reboot': 'restart',
            'actions_after_crash': 'restart',
            'VCPUs_max': int(raw.get('vcpus', 1)),
            'VCPUs_at_startup': int(raw.get('vcpus', 1)),
            **dict.fromkeys(
                (
                    'memory_static_max',
                    'memory_dynamic_max',
                    'memory_dynamic_min',
                ),
                memory,
            ),
            'metrics': db.create('VM_metrics', {}),
            **(raw.get('set') or {}),
        },
        uuid=raw.get('uuid'),
    )
    for position, disk in enumerate(raw.get('disks') or ()):
        _disk(db, vm, position, disk, running)
    for position, name in enumerate(raw.get('networks') or ()):
        _interface(db, vm, position, str(name), running)
    if running:
        guest_tools.report(db, vm)
    vm_states.refresh(db, vm)


def _disk(
    db: database.Database, vm: str, position: int, raw: Tree, running: bool
) -> None:
    sr = find(db, 'SR', 'name_label', str(raw.get('sr', 'Local storage')))
    name = str(raw.get('name', f'disk {position}'))
    size = int(float(raw.get('size_gib', 8)) * hardware.GIB)
    db.create(
        'VBD',
        {
            'VM': vm,
            'VDI': defaults.create_vdi(db, sr, name, size),
            'device': f'xvd{chr(ord("a") + position)}',
            'userdevice': str(position),
            'type': 'Disk',
            'mode': 'RW',
            'bootable': position == 0,
            'currently_attached': running,
        },
    )


def _interface(
    db: database.Database, vm: str, position: int, name: str, running: bool
) -> None:
    octets = [db.rng.randrange(256) for _ in range(5)]
    db.create(
        'VIF',
        {
            'VM': vm,
            'network': _network_named(db, name),
            'device': str(position),
            'MAC': ':'.join(f'{o:02x}' for o in (0x92, *octets)),
            'MTU': 1500,
            'currently_attached': running,
        },
    )


def _override(db: database.Database, raw: Tree) -> None:
    """Set fields of the objects that ``raw`` finds, or create one."""
    cls = str(raw['class'])
    if cls not in db.model.classes:
        raise ValueError(f'unknown class {cls!r}')
    fields = dict(raw.get('set') or {})
    if raw.get('create'):
        db.create(cls, _typed(db, cls, fields))
        return
    keys = [k for k in ('uuid', 'name_label', 'device', 'type') if k in raw]
    found = False
    for ref, record in list(db.all(cls).items()):
        if all(record.get(key) == raw[key] for key in keys):
            _set(db, cls, ref, fields)
            found = True
    if not found:
        wanted = ', '.join(f'{key} {raw[key]!r}' for key in keys)
        raise ValueError(f'no {cls} with {wanted}')


def _typed(db: database.Database, cls: str, fields: Tree) -> Tree:
    known = db.model.classes[cls].fields
    for name in fields:
        if name not in known:
            raise ValueError(f'{cls} has no field {name!r}')
    return {
        name: database.parse(known[name].type, value)
        for name, value in fields.items()
    }


def _set(db: database.Database, cls: str, ref: str, fields: Tree) -> None:
    db.set(cls, ref, **_typed(db, cls, fields))


def set_host_fields(
    db: database.Database, target: machine.Machine, cls: str, fields: Tree
) -> None:
    """Set fields of a host's own objects.

    For PIFs, ``fields`` may hold ``device`` to say which one is meant.

    :raises ValueError: for a class that hosts have no objects of.
    """
    host = db.by_uuid('host', target.uuid)
    fields = dict(fields)
    if cls == 'host':
        _set(db, 'host', host, fields)
    elif cls == 'pool':
        _set(db, 'pool', db.refs('pool')[0], fields)
    elif cls == 'host_metrics':
        _set(db, cls, db.get('host', host)['metrics'], fields)
    elif cls == 'PIF':
        device = fields.pop('device', target.hardware.nics[0].device)
        pif = netcopy.pif_of(db, host, str(device))
        if pif is None:
            raise ValueError(f'{target.name} has no card {device!r}')
        _set(db, 'PIF', pif, fields)
    else:
        raise ValueError(
            f'host {target.name}: set takes host, pool, host_metrics and'
            f' PIF, not {cls!r}'
        )


def switch_off(target: machine.Machine) -> None:
    """Let a host be dead from the start, its record in place."""
    lifecycle.kill_machine(target)


def settle(master: machine.Machine, db: database.Database) -> None:
    """Write what was built to the disks of the pool."""
    startup.level_cpus(db)
    build.arm(master, db)
    operations.update_allowed(db)
    image = images.take(db)
    master.disk = image
    for target in master.world.members_of(master):
        target.disk = image
