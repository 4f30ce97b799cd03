# Licensed under the Apache License, Version 2.0; see LICENSE.
"""VLANs, bonds, tunnels and purposes, through the simulator's front door."""

from __future__ import annotations

import typing

import pytest

from tests.contract import doors
from xenpool_driver.simulator import build, database, machine, profiles

NULL = 'OpaqueRef:NULL'


class Site:
    """A host with two cards, and somebody logged in."""

    def __init__(self) -> None:
        where = doors.world()
        profile = profiles.CURRENT
        build.standalone(where, 1, '127.30.9.1', doors.PASSWORD, profile)
        (self.host,) = where.machines
        self.door = doors.Door(self.host)

    @classmethod
    def of(cls, host: machine.Machine) -> Site:
        """Return a host of another world, and somebody logged in."""
        made = cls.__new__(cls)
        made.host, made.door = host, doors.Door(host)
        return made

    @property
    def db(self) -> database.Database:
        assert self.host.db is not None
        return self.host.db

    def card(self, device: str) -> str:
        return next(
            ref
            for ref, pif in self.db.all('PIF').items()
            if pif['device'] == device and pif['VLAN'] == -1
        )

    def network(self, name: str, **fields: typing.Any) -> str:
        made = {'name_label': name, 'name_description': '', **fields}
        return str(self.door('network.create', {'other_config': {}, **made}))

    def refused(self, method: str, *params: typing.Any) -> tuple[str, ...]:
        found = doors.refusal(self.door, method, *params)
        assert found is not None
        return found


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_vlan_comes_and_goes(site: Site) -> None:
    card, network = site.card('eth1'), site.network('storage')
    create = 'VLAN.create'
    assert site.refused(create, card, '4095', network) == (
        'VLAN_TAG_INVALID',
        '4095',
    )
    vlan = site.door(create, card, '42', network)
    untagged = site.db.get('VLAN', vlan)['untagged_PIF']
    pif = site.db.get('PIF', untagged)
    assert (pif['VLAN'], pif['device']) == (42, 'eth1')
    assert pif['VLAN_master_of'] == vlan
    assert site.db.get('PIF', card)['VLAN_slave_of'] == [vlan]
    assert site.refused(create, card, '42', network) == (
        'NETWORK_ALREADY_CONNECTED',
        site.db.refs('host')[0],
        untagged,
    )
    other = site.network('other')
    assert site.refused(create, card, '42', other)[0] == 'PIF_VLAN_EXISTS'
    assert site.refused(create, untagged, '7', other)[0] == 'PIF_IS_VLAN'
    site.door('VLAN.destroy', vlan)
    assert not site.db.exists(untagged, 'PIF')
    assert site.db.refs('VLAN') == []


def test_cards_that_are_not_bonded(site: Site) -> None:
    """Xapi_bond.create: the types first, then who has an address."""
    cards = [site.card('eth0'), site.card('eth1')]
    over = site.network('bond')

    def refused() -> tuple[str, ...]:
        return site.refused('Bond.create', over, cards, '', 'lacp', {})

    site.door('PIF.set_primary_address_type', cards[1], 'IPv6')
    assert refused() == ('PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE', cards[1])
    site.db.set('PIF', cards[0], primary_address_type='IPv6')
    for card in cards:
        site.db.set('PIF', card, ipv6_configuration_mode='Static')
    assert refused() == ('PIF_BOND_MORE_THAN_ONE_IP',)
    site.db.set('PIF', cards[1], ipv6_configuration_mode='None')
    site.door('Bond.create', over, cards, '', 'lacp', {})


def test_a_bond_takes_over_address_management_and_vlans(site: Site) -> None:
    cards = [site.card('eth0'), site.card('eth1')]
    address = site.db.get('PIF', cards[0])['IP']
    vlan = site.door('VLAN.create', cards[1], '42', site.network('storage'))
    bond = site.door(
        'Bond.create', site.network('bond'), cards, '', 'balance-slb', {}
    )
    over = site.db.get('Bond', bond)['master']
    pif = site.db.get('PIF', over)
    assert (pif['device'], pif['IP'], pif['management']) == (
        'bond0',
        address,
        True,
    )
    assert set(site.db.get('Bond', bond)['slaves']) == set(cards)
    assert site.db.get('VLAN', vlan)['tagged_PIF'] == over
    again = site.network('again')
    refused = site.refused('Bond.create', again, cards, '', 'lacp', {})
    assert refused[0] == 'PIF_ALREADY_BONDED'
    # What keeps a host from joining can be taken away again.
    site.door('Bond.destroy', bond)
    assert site.db.get('PIF', cards[0])['management']
    assert site.db.get('PIF', cards[0])['IP'] == address
    assert site.db.get('PIF', cards[1])['bond_slave_of'] == NULL
    assert site.db.get('VLAN', vlan)['tagged_PIF'] == cards[0]
    assert not site.db.exists(over, 'PIF')


def test_a_tunnel_needs_open_vswitch(site: Site) -> None:
    card = site.card('eth1')
    host = site.db.refs('host')[0]
    network = site.network('far away')
    create = ('tunnel.create', card, network, 'gre')
    versions = site.db.get('host', host)['software_version']
    site.db.set(
        'host',
        host,
        software_version={**versions, 'network_backend': 'bridge'},
    )
    assert site.refused(*create) == ('OPENVSWITCH_NOT_ACTIVE',)
    site.db.set(
        'host',
        host,
        software_version={**versions, 'network_backend': 'openvswitch'},
    )
    tunnel = site.door(*create)
    access = site.db.get('tunnel', tunnel)['access_PIF']
    assert site.db.get('PIF', access)['tunnel_access_PIF_of'] == [tunnel]
    site.door('tunnel.destroy', tunnel)
    assert not site.db.exists(access, 'PIF')


def test_purposes_that_exclude_each_other(site: Site) -> None:
    one, other = site.network('one'), site.network('other')
    site.door('network.add_purpose', one, 'nbd')
    assert site.refused('network.add_purpose', other, 'insecure_nbd') == (
        'NETWORK_INCOMPATIBLE_PURPOSES',
        'insecure_nbd',
        'nbd',
    )
    site.door('network.remove_purpose', one, 'nbd')
    site.door('network.add_purpose', other, 'insecure_nbd')
    assert site.db.get('network', other)['purpose'] == ['insecure_nbd']


def test_management_moves_to_another_network(site: Site) -> None:
    card = site.card('eth1')
    network = site.db.get('PIF', card)['network']
    move = 'pool.management_reconfigure'
    assert site.refused(move, site.network('empty'))[0] == 'PIF_NOT_PRESENT'
    assert site.refused(move, network) == (
        'PIF_HAS_NO_NETWORK_CONFIGURATION',
        card,
    )
    site.db.set('PIF', card, ip_configuration_mode='DHCP')
    site.door(move, network)
    assert site.door('host.get_management_interface', site.host.me) == card
    assert site.host.role[0] == machine.MASTER


def test_what_xapi_writes_by_hand_is_written(site: Site) -> None:
    vm = site.db.refs('VM')[0]
    site.door('VM.add_to_other_config', vm, 'k', 'v')
    site.door('VM.add_to_blocked_operations', vm, 'start', 'no')
    assert site.db.get('VM', vm)['other_config']['k'] == 'v'
    assert site.db.get('VM', vm)['blocked_operations'] == {'start': 'no'}
    site.door('VM.remove_from_other_config', vm, 'k')
    assert 'k' not in site.db.get('VM', vm)['other_config']
    site.door('host.set_multipathing', site.host.me, True)
    assert site.db.get('host', site.host.me)['multipathing'] is True
    assert site.refused('VM.set_order', 'OpaqueRef:none', '1') == (
        'HANDLE_INVALID',
        'VM',
        'OpaqueRef:none',
    )


def test_the_management_interface_keeps_its_address_type(site: Site) -> None:
    method = 'PIF.set_primary_address_type'
    management, other = site.card('eth0'), site.card('eth1')
    assert site.refused(method, management, 'IPv6') == (
        'PIF_IS_MANAGEMENT_INTERFACE',
        management,
    )
    assert site.db.get('PIF', management)['primary_address_type'] == 'IPv4'
    site.door(method, other, 'IPv6')
    assert site.db.get('PIF', other)['primary_address_type'] == 'IPv6'


def test_the_initiator_name_stands_in_two_places_that_agree(
    site: Site,
) -> None:
    (host,) = site.db.refs('host')
    record = site.db.get('host', host)
    assert record['iscsi_iqn'] == record['other_config']['iscsi_iqn'] != ''
    site.door('host.set_iscsi_iqn', host, 'iqn.2026-02.example:a')
    assert record['other_config']['iscsi_iqn'] == 'iqn.2026-02.example:a'
    assert record['iscsi_iqn'] == 'iqn.2026-02.example:a'
    site.door('host.remove_from_other_config', host, 'iscsi_iqn')
    assert record['iscsi_iqn'] == 'iqn.2026-02.example:a'
    site.door(
        'host.add_to_other_config', host, 'iscsi_iqn', 'iqn.2026-02.example:b'
    )
    assert record['iscsi_iqn'] == 'iqn.2026-02.example:b'
    assert site.refused('host.set_iscsi_iqn', host, '') == (
        'INVALID_VALUE',
        'value',
        '',
    )
    site.door('host.set_multipathing', host, True)
    assert record['other_config']['multipathing'] == 'true'
    site.door('host.set_other_config', host, {'multipathing': 'false'})
    assert not record['multipathing']
    assert record['iscsi_iqn'] == 'iqn.2026-02.example:b'


def test_a_member_does_not_bond_two_cards_with_addresses() -> None:
    where = doors.world()
    build.standalone(where, 2, '127.30.9.1', doors.PASSWORD)
    one, two = where.machines
    site, joiner = Site.of(one), Site.of(two)
    network = site.network('bonded')
    cards = [site.card('eth0'), site.card('eth1')]
    site.door('Bond.create', network, cards, '', 'balance-slb', {})
    joiner.db.set(
        'PIF',
        joiner.card('eth1'),
        IP='127.31.9.2',
        ip_configuration_mode='Static',
    )
    joiner.door('pool.join', one.address, 'root', doors.PASSWORD)
    where.clock.advance(60)
    host = site.db.by_uuid('host', two.uuid)
    mine = [p for p in site.db.all('PIF').values() if p['host'] == host]
    assert site.db.get('host', host)['enabled']
    assert len(site.db.refs('Bond')) == 1
    assert {pif['IP'] for pif in mine} == {two.address, '127.31.9.2'}
