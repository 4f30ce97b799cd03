# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Bonds, VLANs and tunnels of the coordinator, copied to a new member.

A starting member makes its networking look like the coordinator's
(sync_networking.ml): cards with the same device name are taken to be wired
alike.
"""

from __future__ import annotations

from xenpool_driver.simulator import database, defaults, errors

NULL = errors.NULL


def copy_from_master(db: database.Database, host: str) -> None:
    """Give ``host`` the bonds, VLANs and tunnels that it lacks."""
    master = next(iter(db.all('pool').values()))['master']
    if master == host:
        return
    for bond in list(db.all('Bond').values()):
        if db.get('PIF', bond['master'])['host'] == master:
            _copy_bond(db, host, bond)
    for vlan in list(db.all('VLAN').values()):
        tagged = db.find('PIF', vlan['tagged_PIF'])
        if tagged is not None and tagged['host'] == master:
            _copy_vlan(db, host, vlan, tagged)
    for tunnel in list(db.all('tunnel').values()):
        transport = db.find('PIF', tunnel['transport_PIF'])
        if transport is not None and transport['host'] == master:
            _copy_tunnel(db, host, tunnel, transport)


def pif_of(
    db: database.Database, host: str, device: str, vlan: int = -1
) -> str | None:
    """Return the interface of ``host`` on ``device`` with that tag."""
    for ref, pif in db.all('PIF').items():
        if (pif['host'], pif['device'], pif['VLAN']) == (host, device, vlan):
            return ref
    return None


def is_addressed(pif: database.Record) -> bool:
    """Tell whether an interface has, or gets, an address.

    What counts is the mode of its primary address type (xapi_bond.ml).
    """
    if pif['primary_address_type'] == 'IPv6':
        return bool(pif['ipv6_configuration_mode'] != 'None')
    return bool(pif['ip_configuration_mode'] != 'None')


def of_another_type(db: database.Database, members: list[str]) -> str | None:
    """Return a card whose primary address type is not that of the bond."""
    pifs = [db.get('PIF', ref) for ref in members]
    ranked = sorted(
        pifs, key=lambda pif: (not pif['management'], not is_addressed(pif))
    )
    for ref, pif in zip(members, pifs, strict=True):
        if pif['primary_address_type'] != ranked[0]['primary_address_type']:
            return ref
    return None


def create_pif(
    db: database.Database, like: database.Record, host: str, network: str
) -> str:
    """Create an interface of ``host`` as ``like``, without an address."""
    metrics = db.create('PIF_metrics', {})
    copied = (
        'device',
        'MTU',
        'VLAN',
        'managed',
        'properties',
        'ipv6_configuration_mode',
        'primary_address_type',
        'igmp_snooping_status',
    )
    return db.create(
        'PIF',
        {
            **{name: like[name] for name in copied},
            'MAC': like['MAC'],
            'host': host,
            'network': network,
            'physical': False,
            'currently_attached': True,
            'ip_configuration_mode': 'None',
            'IPv6': list(defaults.NO_IPV6),
            'metrics': metrics,
        },
    )


def _copy_bond(
    db: database.Database, host: str, bond: database.Record
) -> None:
    """Bond the cards that have the names of the coordinator's."""
    devices = [db.get('PIF', ref)['device'] for ref in bond['slaves']]
    found = [pif_of(db, host, device) for device in devices]
    slaves = [ref for ref in found if ref is not None]
    if not slaves or any(
        db.get('PIF', ref)['bond_slave_of'] != NULL for ref in slaves
    ):
        return
    addressed = sum(is_addressed(db.get('PIF', ref)) for ref in slaves)
    if addressed > 1 or of_another_type(db, slaves) is not None:
        # XAPI refuses the bond, and only logs that (xapi_bond.ml).
        return
    master = db.get('PIF', bond['master'])
    over = create_pif(db, master, host, master['network'])
    created = db.create(
        'Bond',
        {
            'master': over,
            'mode': bond['mode'],
            'properties': dict(bond['properties']),
            'primary_slave': slaves[0],
            'auto_update_mac': bond['auto_update_mac'],
        },
    )
    for slave in slaves:
        db.set('PIF', slave, bond_slave_of=created)
        move_address(db, slave, over)


def move_address(db: database.Database, source: str, target: str) -> None:
    """Move address and management from one interface to another."""
    pif = db.get('PIF', source)
    if not pif['management'] and not pif['IP']:
        return
    moved = (
        'IP',
        'netmask',
        'gateway',
        'DNS',
        'ip_configuration_mode',
        'management',
        'MAC',
    )
    db.set('PIF', target, **{name: pif[name] for name in moved})
    db.set(
        'PIF',
        source,
        IP='',
        netmask='',
        gateway='',
        DNS='',
        ip_configuration_mode='None',
        management=False,
    )


def _copy_vlan(
    db: database.Database,
    host: str,
    vlan: database.Record,
    tagged: database.Record,
) -> None:
    """Put the coordinator's tag on this host's card of the same name."""
    card = pif_of(db, host, tagged['device'])
    if card is None or pif_of(db, host, tagged['device'], vlan['tag']):
        return
    model = db.get('PIF', vlan['untagged_PIF'])
    untagged = create_pif(db, model, host, model['network'])
    created = db.create(
        'VLAN',
        {'tagged_PIF': card, 'untagged_PIF': untagged, 'tag': vlan['tag']},
    )
    db.set('PIF', untagged, VLAN_master_of=created)


def _copy_tunnel(
    db: database.Database,
    host: str,
    tunnel: database.Record,
    transport: database.Record,
) -> None:
    """Dig the coordinator's tunnel from this host's card."""
    card = pif_of(db, host, transport['device'], transport['VLAN'])
    model = db.get('PIF', tunnel['access_PIF'])
    known = any(
        pif['host'] == host and pif['network'] == model['network']
        for pif in db.all('PIF').values()
    )
    if card is None or known:
        return
    access = create_pif(db, model, host, model['network'])
    db.create('tunnel', {'access_PIF': access, 'transport_PIF': card})
