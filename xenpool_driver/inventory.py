# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a host had before it joined a pool, against what is left. Pure.

``pool.join`` pushes the joiner's records to the coordinator as well as it
can and keeps silent about what it could not (``xapi_pool.ml``,
``update_non_vm_metadata`` and its neighbours).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import shlex
import typing

from xenpool_driver import findings, model, objects, redaction, snapshot

_VOLATILE = frozenset({'agent_start_time', 'boot_time', 'import_task'})
"""Keys of other_config that XAPI writes anew at each start or import."""

_Values = collections.abc.Mapping[str, typing.Any]


@dataclasses.dataclass(frozen=True)
class Item:
    """One object and the settings of it that a user would miss.

    :ivar ref: the object, as people call it.
    :ivar settings: ``{what: value}``; maps are compared key by key.
    """

    ref: model.ObjectRef
    settings: _Values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inventory:
    """The settings of one host and of what came with it.

    :ivar host_uuid: the host.
    :ivar name_label: its name.
    :ivar name_description: its description.
    :ivar tags: its tags.
    :ivar logging: where it logs to.
    :ivar other_config: its own keys, without those that XAPI writes itself.
    :ivar host: its record and further settings.
    :ivar pool: settings of its own pool record; empty after a join.
    :ivar networks: by bridge for NICs, else by name.
    :ivar pifs: by device and VLAN.
    :ivar srs: by uuid.
    :ivar pbds: by the SR's uuid.
    :ivar vms: by uuid.
    """

    host_uuid: str
    name_label: str
    name_description: str
    tags: tuple[str, ...]
    logging: collections.abc.Mapping[str, str]
    other_config: collections.abc.Mapping[str, str]
    host: Item
    pool: Item
    networks: collections.abc.Mapping[str, Item]
    pifs: collections.abc.Mapping[str, Item]
    srs: collections.abc.Mapping[str, Item]
    pbds: collections.abc.Mapping[str, Item]
    vms: collections.abc.Mapping[str, Item]


def take(pool: snapshot.PoolSnapshot, host_uuid: str) -> Inventory:
    """Return the inventory of one host of a snapshot.

    :param pool: a snapshot with pool, host, network, PIF, SR, PBD and VM:
        before the join the joiner's own, afterwards the pool's.
    :param host_uuid: the host.
    :raises LookupError: the snapshot does not know the host.
    """
    host = pool.host_by_uuid(host_uuid)
    if host is None or pool.pool is None:
        raise LookupError(f"no record of host {host_uuid}")
    return Inventory(
        host_uuid=host.uuid,
        name_label=host.name_label,
        name_description=host.name_description,
        tags=host.tags,
        logging=host.logging,
        other_config=_lasting(host.other_config),
        host=_host(host),
        pool=_pool(pool, pool.pool),
        networks=_networks(pool),
        pifs={pif.name: _pif(pif) for pif in pool.pifs_of(host)},
        srs={
            sr.uuid: _sr(sr) for sr in pool.srs.values() if not sr.is_tools_sr
        },
        pbds=_pbds(pool, host),
        vms={
            vm.uuid: _vm(vm)
            for vm in pool.vms.values()
            if not vm.is_control_domain and not vm.is_default_template
        },
    )


def _lasting(config: collections.abc.Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in config.items() if k not in _VOLATILE}


def _item(record: objects.Record, settings: _Values, name: str = '') -> Item:
    (ref,) = findings.at_fault(record, name=name)
    return Item(ref, settings)


def _host(host: objects.Host) -> Item:
    return _item(
        host,
        {
            'name': host.name_label,
            'description': host.name_description,
            'hostname': host.hostname,
            'tags': host.tags,
            'logging': host.logging,
            'other_config': _lasting(host.other_config),
            'multipathing': host.multipathing,
            'iSCSI IQN': host.iscsi_iqn,
        },
    )


def _pool(records: snapshot.PoolSnapshot, pool: objects.Pool) -> Item:
    return _item(
        pool,
        {
            'name': pool.name_label,
            'description': pool.name_description,
            'tags': pool.tags,
            'other_config': _lasting(pool.other_config),
        },
        name=records.name,
    )


def _networks(records: snapshot.PoolSnapshot) -> dict[str, Item]:
    """A NIC's network is matched by its bridge, any other by its name."""
    found = {}
    for network in records.networks.values():
        pifs = [
            records.pifs[ref] for ref in network.pifs if ref in records.pifs
        ]
        if any(pif.physical for pif in pifs) or network.bridge == 'xenapi':
            key = f"bridge {network.bridge}"
        else:
            key = network.name_label or network.bridge
        found[key] = _item(
            network,
            {
                'name': network.name_label,
                'description': network.name_description,
                'MTU': network.mtu,
                'tags': network.tags,
                'purpose': tuple(sorted(network.purpose)),
                'other_config': _lasting(network.other_config),
            },
            name=network.bridge,
        )
    return found


def _pif(pif: objects.Pif) -> Item:
    return _item(
        pif,
        {
            'IP mode': pif.ip_configuration_mode,
            'IP': pif.ip,
            'netmask': pif.netmask,
            'gateway': pif.gateway,
            'DNS': pif.dns,
            'other_config': _lasting(pif.other_config),
        },
    )


def _sr(sr: objects.Storage) -> Item:
    return _item(
        sr,
        {
            'name': sr.name_label,
            'description': sr.name_description,
            'tags': sr.tags,
            'other_config': _lasting(sr.other_config),
        },
    )


def _pbds(
    records: snapshot.PoolSnapshot, host: objects.Host
) -> dict[str, Item]:
    found = {}
    for pbd in records.pbds_of(host):
        sr = records.srs.get(pbd.sr) if pbd.sr else None
        if sr is not None and not sr.is_tools_sr:  # a pool has its own
            found[sr.uuid] = _item(
                pbd,
                {
                    'plugged': pbd.currently_attached,
                    'device_config': pbd.device_config,
                    'other_config': _lasting(pbd.other_config),
                },
                name=sr.name,
            )
    return found


def _vm(vm: objects.Vm) -> Item:
    return _item(
        vm,
        {
            'name': vm.name_label,
            'description': vm.name_description,
            'tags': vm.tags,
            'other_config': _lasting(vm.other_config),
        },
    )


_POOLWIDE = ('name', 'description', 'tags', 'other_config')


def compare(before: Inventory, after: Inventory) -> tuple[model.Finding, ...]:
    """Return what the join has lost or changed, as warnings.

    :param before: taken of the joiner on its own.
    :param after: taken of the same host in its pool.
    """
    return (
        *_changes('host', before.host, after.host),
        *_pool_losses(before, after),
        *_group('networks', before.networks, after.networks),
        *_pif_changes(before.pifs, after.pifs),
        *_group('SRs', before.srs, after.srs),
        *_group('PBDs', before.pbds, after.pbds),
        *_group('VMs', before.vms, after.vms),
    )


def _pool_losses(
    before: Inventory, after: Inventory
) -> collections.abc.Iterator[model.Finding]:
    """A joiner's own pool record goes for good, with all that is set on it."""
    lost = {
        what: value
        for what in _POOLWIDE
        if (value := before.pool.settings.get(what))
    }
    config = lost.pop('other_config', {})
    present = after.pool.settings['other_config']
    keys = {k: v for k, v in config.items() if present.get(k) != v}
    if keys:
        lost['other_config'] = keys
    for what, value in lost.items():
        if value != after.pool.settings.get(what):
            yield _lost(
                'pool',
                before.pool.ref,
                f"the {what} of its own pool: {_shown(value)}",
            )


_ADDRESS = ('IP mode', 'IP', 'netmask', 'gateway', 'DNS')
"""The settings of an interface that move with its address."""


def _pif_changes(
    before: collections.abc.Mapping[str, Item],
    after: collections.abc.Mapping[str, Item],
) -> collections.abc.Iterator[model.Finding]:
    """An address that has moved to the pool's bond is not lost.

    A member makes the bonds of its pool, and the first address among the
    NICs becomes that of the bond (``xapi_bond.ml``, ``move_configuration``).
    """
    kind = 'PIFs'
    by_address = {
        item.settings['IP']: item
        for item in after.values()
        if item.settings['IP']
    }
    for key, item in before.items():
        here = after.get(key)
        there = by_address.get(item.settings['IP'])
        if there is None and here is None:
            yield _lost(kind, item.ref, f"{item.ref.name}, as a whole")
        elif there is None or there is here:
            yield from _changes(kind, item, here or item)
        else:
            yield from _changes(kind, _only(item, _ADDRESS), there)
            rest = [what for what in item.settings if what not in _ADDRESS]
            yield from _changes(kind, _only(item, rest), here or there)


def _only(item: Item, wanted: collections.abc.Iterable[str]) -> Item:
    """Return an object with some of its settings."""
    return Item(item.ref, {what: item.settings[what] for what in wanted})


def _group(
    kind: str,
    before: collections.abc.Mapping[str, Item],
    after: collections.abc.Mapping[str, Item],
) -> collections.abc.Iterator[model.Finding]:
    for key, item in before.items():
        if key in after:
            yield from _changes(kind, item, after[key])
        else:
            yield _lost(kind, item.ref, f"{item.ref.name}, as a whole")


def _changes(
    kind: str, before: Item, after: Item
) -> collections.abc.Iterator[model.Finding]:
    for what, old in before.settings.items():
        new = after.settings.get(what)
        if isinstance(old, collections.abc.Mapping):
            changed = {k: v for k, v in old.items() if (new or {}).get(k) != v}
            if changed:
                yield _lost(
                    kind,
                    after.ref,
                    f"its {what} {_shown(changed)}",
                    _remedy(after.ref, what, changed),
                )
        elif old != new:
            yield _lost(
                kind,
                after.ref,
                f"its {what} {_shown(old)} (now {_shown(new)})",
                _remedy(after.ref, what, old),
            )


def _lost(
    kind: str, ref: model.ObjectRef, what: str, remedy: str = ''
) -> model.Finding:
    return model.Finding(
        f"lost-{kind.lower()}",
        model.Severity.WARN,
        f"{ref.cls} {ref.name} lost {what}",
        remedy,
        objects=(ref,),
    )


_PARAMETERS = {
    'name': 'name-label',
    'description': 'name-description',
    'other_config': 'other-config',
    'logging': 'logging',
    'MTU': 'MTU',
}
"""setting -> parameter of ``xe ...-param-set``"""


def _remedy(ref: model.ObjectRef, what: str, value: object) -> str:
    """Return what to type to set it again; '' where no command sets it.

    A remedy is written into the journal, so a secret is left out.
    """
    command = f"xe {ref.cls.lower()}-param"
    parameter = _PARAMETERS.get(what)
    if what == 'tags' and isinstance(value, tuple):
        return '; '.join(
            f"{command}-add uuid={ref.uuid} param-name=tags "
            f"param-key={shlex.quote(tag)}"
            for tag in value
        )
    if parameter is None:
        return ''
    if isinstance(value, collections.abc.Mapping):
        pairs = [
            f"{parameter}:{k}={v}"
            for k, v in value.items()
            if not redaction.hides(k, v)
        ]
        if not pairs:
            return ''
    else:
        pairs = [f"{parameter}={value}"]
    return ' '.join(
        [f"{command}-set uuid={ref.uuid}", *map(shlex.quote, pairs)]
    )


def _shown(value: object) -> str:
    if isinstance(value, collections.abc.Mapping):
        told = redaction.without_secrets(value)
        return findings.listed(f"{k}={v}" for k, v in told.items())
    if isinstance(value, tuple):
        return findings.listed(map(str, value)) or 'none'
    return repr(value)
