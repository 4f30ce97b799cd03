# Licensed under the Apache License, Version 2.0; see LICENSE.
"""VLANs, bonds and tunnels made and unmade; what a network is for.

As ``xapi_vlan.ml``, ``xapi_bond.ml``, ``xapi_tunnel.ml`` and
``xapi_network.ml``, as far as records show it.
"""

from __future__ import annotations

from xenpool_driver.simulator import (
    database,
    errors,
    hosts,
    master,
    netcopy,
    prechecks,
    registry,
)

NULL = errors.NULL
HIGHEST_TAG = 4094
CLASHING = {'nbd': 'insecure_nbd', 'insecure_nbd': 'nbd'}
"""Purposes that no two networks of a pool may have."""


def _check_free(db: database.Database, host: str, network: str) -> None:
    """Refuse a network that the host has an interface on already."""
    if not db.get('network', network)['managed']:
        raise errors.ApiError('NETWORK_UNMANAGED', network)
    for ref in db.get('network', network)['PIFs']:
        if db.get('PIF', ref)['host'] == host:
            raise errors.ApiError('NETWORK_ALREADY_CONNECTED', host, ref)


def _card(db: database.Database, ref: str) -> database.Record:
    """Return an interface that something is to be put upon.

    :raises ApiError: PIF_UNMANAGED, IS_TUNNEL_ACCESS_PIF.
    """
    pif = db.get('PIF', ref)
    if not pif['managed']:
        raise errors.ApiError('PIF_UNMANAGED', ref)
    if pif['tunnel_access_PIF_of']:
        raise errors.ApiError('IS_TUNNEL_ACCESS_PIF', ref)
    return pif


# -- VLANs -------------------------------------------------------------------


@registry.message('VLAN.create')
def create_vlan(
    call: registry.Call, tagged_pif: str, tag: int, network: str
) -> str:
    """Put a tag on a card, and the tagged network on a host."""
    db = call.db
    with db.lock:
        pif = db.get('PIF', tagged_pif)
        _check_free(db, pif['host'], network)
        _card(db, tagged_pif)
        if pif['bond_slave_of'] != NULL:
            raise errors.ApiError('CANNOT_ADD_VLAN_TO_BOND_SLAVE', tagged_pif)
        if pif['VLAN_master_of'] != NULL:
            raise errors.ApiError('PIF_IS_VLAN', tagged_pif)
        if not 0 <= tag <= HIGHEST_TAG:
            raise errors.ApiError('VLAN_TAG_INVALID', str(tag))
        if any(db.get('VLAN', v)['tag'] == tag for v in pif['VLAN_slave_of']):
            raise errors.ApiError('PIF_VLAN_EXISTS', pif['device'])
        model = {**pif, 'VLAN': tag}
        untagged = netcopy.create_pif(db, model, pif['host'], network)
        fields = {
            'tagged_PIF': tagged_pif,
            'untagged_PIF': untagged,
            'tag': tag,
        }
        vlan = db.create('VLAN', fields)
        db.set('PIF', untagged, VLAN_master_of=vlan)
        return vlan


@registry.message('VLAN.destroy')
def destroy_vlan(call: registry.Call, vlan: str) -> None:
    """Take a tag off its card."""
    db = call.db
    with db.lock:
        untagged = db.get('VLAN', vlan)['untagged_PIF']
        pif = db.find('PIF', untagged)
        if pif is not None:
            if pif['bond_slave_of'] != NULL or pif['bond_master_of']:
                raise errors.ApiError('PIF_ALREADY_BONDED', untagged)
            if pif['management']:
                raise errors.ApiError('PIF_IS_MANAGEMENT_INTERFACE', untagged)
            db.delete('PIF', untagged)
        db.delete('VLAN', vlan)


# -- bonds -------------------------------------------------------------------


@registry.message('Bond.create')
def create_bond(
    call: registry.Call,
    network: str,
    members: list[str],
    mac: str,
    mode: str,
    properties: dict[str, str],
) -> str:
    """Make one interface of several cards of a host."""
    db = call.db
    members = list(dict.fromkeys(members))
    if not members:
        raise errors.ApiError('PIF_BOND_NEEDS_MORE_MEMBERS')
    with db.lock:
        host = db.get('PIF', members[0])['host']
        _check_free(db, host, network)
        _check_members(db, members)
        primary = _primary(db, members)
        device = _free_device(db, host)
        model = {**db.get('PIF', primary), 'device': device}
        over = netcopy.create_pif(db, model, host, network)
        fields = {
            'master': over,
            'mode': mode,
            'primary_slave': primary,
            'properties': properties,
            'auto_update_mac': not mac,
        }
        bond = db.create('Bond', fields)
        for member in members:
            db.set('PIF', member, bond_slave_of=bond)
        netcopy.move_address(db, primary, over)
        if mac:
            db.set('PIF', over, MAC=mac)
        for member in members:
            _move_vlans(db, member, over, device)
        return bond


def _check_members(db: database.Database, members: list[str]) -> None:
    pool = prechecks.only_pool(db)
    for ref in members:
        pif = _card(db, ref)
        if pif['bond_slave_of'] != NULL:
            raise errors.ApiError('PIF_ALREADY_BONDED', ref)
        if pif['VLAN_master_of'] != NULL:
            raise errors.ApiError('PIF_VLAN_EXISTS', pif['device'])
        if pool['ha_enabled'] and pif['management']:
            raise errors.ApiError('HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE')
    if len({db.get('PIF', ref)['host'] for ref in members}) > 1:
        raise errors.ApiError('PIF_CANNOT_BOND_CROSS_HOST')
    pifs = [db.get('PIF', ref) for ref in members]
    strange = netcopy.of_another_type(db, members)
    if strange is not None:
        raise errors.ApiError('PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE', strange)
    if sum(map(netcopy.is_addressed, pifs)) > 1:
        raise errors.ApiError('PIF_BOND_MORE_THAN_ONE_IP')


def _primary(db: database.Database, members: list[str]) -> str:
    """Return the member whose address the bond takes over."""
    for wanted in ('management', 'ip_configuration_mode'):
        for ref in members:
            if db.get('PIF', ref)[wanted] not in (False, 'None'):
                return ref
    return members[0]


def _free_device(db: database.Database, host: str) -> str:
    taken = {p['device'] for p in db.all('PIF').values() if p['host'] == host}
    number = 0
    while f'bond{number}' in taken:
        number += 1
    return f'bond{number}'


def _move_vlans(
    db: database.Database, source: str, target: str, device: str
) -> None:
    """Let the VLANs on one interface be on another."""
    for vlan in list(db.get('PIF', source)['VLAN_slave_of']):
        db.set('VLAN', vlan, tagged_PIF=target)
        db.set('PIF', db.get('VLAN', vlan)['untagged_PIF'], device=device)


@registry.message('Bond.destroy')
def destroy_bond(call: registry.Call, self: str) -> None:
    """Let the cards of a bond be cards again."""
    db = call.db
    with db.lock:
        bond = db.get('Bond', self)
        over, primary = bond['master'], bond['primary_slave']
        pif = db.get('PIF', over)
        if prechecks.only_pool(db)['ha_enabled'] and pif['management']:
            raise errors.ApiError('HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE')
        if db.exists(primary, 'PIF'):
            netcopy.move_address(db, over, primary)
            device = db.get('PIF', primary)['device']
            _move_vlans(db, over, primary, device)
        for member in list(bond['slaves']):
            db.set('PIF', member, bond_slave_of=NULL)
        db.delete('Bond', self)
        db.delete('PIF', over)


# -- tunnels -----------------------------------------------------------------


@registry.message('tunnel.create')
def create_tunnel(
    call: registry.Call,
    transport_pif: str,
    network: str,
    protocol: str = 'gre',
) -> str:
    """Dig a tunnel through a card, with the network at its other end."""
    db = call.db
    with db.lock:
        pif = db.get('PIF', transport_pif)
        _check_free(db, pif['host'], network)
        _card(db, transport_pif)
        if pif['bond_slave_of'] != NULL:
            raise errors.ApiError(
                'CANNOT_ADD_TUNNEL_TO_BOND_SLAVE', transport_pif
            )
        for host in db.all('host').values():
            backend = host['software_version'].get('network_backend')
            if backend != 'openvswitch':
                raise errors.ApiError('OPENVSWITCH_NOT_ACTIVE')
        number = len(db.refs('tunnel'))
        model = {**pif, 'device': f'tunnel{number}', 'VLAN': -1}
        access = netcopy.create_pif(db, model, pif['host'], network)
        fields = {
            'access_PIF': access,
            'transport_PIF': transport_pif,
            'protocol': protocol,
            'status': {'active': 'false'},
        }
        return db.create('tunnel', fields)


@registry.message('tunnel.destroy')
def destroy_tunnel(call: registry.Call, self: str) -> None:
    """Fill a tunnel in."""
    db = call.db
    with db.lock:
        access = db.get('tunnel', self)['access_PIF']
        if db.exists(access, 'PIF'):
            db.delete('PIF', access)
        db.delete('tunnel', self)


# -- interfaces --------------------------------------------------------------


@registry.message('PIF.set_primary_address_type')
def set_primary_address_type(
    call: registry.Call, self: str, primary_address_type: str
) -> None:
    """Say which of its addresses an interface is known by.

    Not of the one that carries the management (xapi_pif.ml).
    """
    db = call.db
    pif = db.get('PIF', self)
    pool = prechecks.only_pool(db)
    if pif['currently_attached']:
        if pool['ha_enabled']:
            raise errors.ApiError('HA_IS_ENABLED')
        if pool['redo_log_enabled']:
            raise errors.ApiError('REDO_LOG_IS_ENABLED')
    if pif['management']:
        raise errors.ApiError('PIF_IS_MANAGEMENT_INTERFACE', self)
    db.set('PIF', self, primary_address_type=primary_address_type)


# -- networks ----------------------------------------------------------------


@registry.message('network.add_purpose')
def add_purpose(call: registry.Call, self: str, value: str) -> None:
    """Say what a network is for."""
    db = call.db
    with db.lock:
        if value in db.get('network', self)['purpose']:
            return
        clashing = CLASHING.get(value)
        for other in db.all('network').values():
            if clashing in other['purpose']:
                raise errors.ApiError(
                    'NETWORK_INCOMPATIBLE_PURPOSES', value, str(clashing)
                )
        db.add_to_set('network', self, 'purpose', value)


@registry.message('network.remove_purpose')
def remove_purpose(call: registry.Call, self: str, value: str) -> None:
    """Say what a network is not for any more."""
    call.db.remove_from_set('network', self, 'purpose', value)


@registry.message('pool.management_reconfigure')
def management_reconfigure(call: registry.Call, network: str) -> None:
    """Move the management of all hosts to another network.

    Addresses stay here: each host goes on listening where it does.
    """
    db = call.db
    if prechecks.only_pool(db)['ha_enabled']:
        raise errors.ApiError('HA_IS_ENABLED')
    pifs = list(db.get('network', network)['PIFs'])
    present = {db.get('PIF', ref)['host']: ref for ref in reversed(pifs)}
    for host in db.refs('host'):
        if host not in present:
            raise errors.ApiError('PIF_NOT_PRESENT', host, network)
    wanted = db.get('PIF', pifs[0])['primary_address_type']
    for ref in pifs:
        pif = db.get('PIF', ref)
        if pif['primary_address_type'] != wanted:
            raise errors.ApiError('PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE', ref)
        hosts.check_usable(ref, pif)
    me = prechecks.only_pool(db)['master']
    for host in sorted(present, key=lambda host: host == me):
        hosts.management_reconfigure(call, present[host])
    master.recover_slaves(call)
