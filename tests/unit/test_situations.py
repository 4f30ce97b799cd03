# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Joins as people have reported them, each with the right result.

``tests/data/situations`` holds one pair of records of which XAPI would let
the joiner join, and for each situation what differs from it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import re
import shlex
import typing

import pytest

from tests import xe
from tests.unit import raw_pools
from xenpool_driver import bonding, model
from xenpool_driver.preflight import join

HERE = pathlib.Path(__file__).parents[1] / 'data' / 'situations'

PASS, UNKNOWN, WARN, FAIL = (
    model.Severity.PASS,
    model.Severity.UNKNOWN,
    model.Severity.WARN,
    model.Severity.FAIL,
)

Sides = dict[str, raw_pools.Raw]


def situation(name: str = '') -> Sides:
    """Return both sides of a situation; without a name, of a good join."""
    sides: Sides = json.loads((HERE / 'base.json').read_text())
    changes: Sides = {}
    if name:
        changes = json.loads((HERE / f"{name}.json").read_text())
    for side, tables in changes.items():
        for cls, changed in tables.items():
            for ref, fields in changed.items():
                sides[side][cls].setdefault(ref, {}).update(fields)
    return sides


def judge(sides: Sides, **options: typing.Any) -> model.Report:
    """Return the report; every command of xe in it is one that xe takes."""
    report = join.check(
        raw_pools.parse(sides['joiner']),
        raw_pools.parse(sides['pool']),
        **options,
    )
    for finding in report.findings:
        for found in re.findall(r'xe [a-z][^;(]*', finding.remedy):
            line = re.split(r', (?:with|which|and|then) | to ', found)[0]
            assert xe.complaints(shlex.split(line)) == [], line
    return report


def bad(report: model.Report) -> list[tuple[str, model.Severity]]:
    """Return what is worse than undecided."""
    return [
        (f.check, f.severity)
        for f in report.findings
        if f.severity in (WARN, FAIL)
    ]


def only(report: model.Report, check: str) -> model.Finding:
    """Return the one finding of a check."""
    (found,) = [f for f in report.findings if f.check == check]
    return found


def joiner(sides: Sides) -> dict[str, typing.Any]:
    """Return the joiner's own record."""
    return raw_pools.only(sides['joiner'], 'host')


def nic(sides: Sides, side: str, device: str) -> dict[str, typing.Any]:
    """Return a NIC of the joiner, or of the pool's master."""
    raw = sides[side]
    ref, _ = raw_pools.host(raw)
    (found,) = [
        pif
        for pif in raw['PIF'].values()
        if (pif['device'], pif['VLAN'], pif['host']) == (device, '-1', ref)
    ]
    return found


@pytest.mark.parametrize('name', ['', 'ipv6-both', 'management-on-vlan'])
def test_good_joins_draw_no_complaint(name: str) -> None:
    report = judge(situation(name))
    assert bad(report) == []
    assert report.first_refusal is None


def test_multipathing_that_differs() -> None:
    sides = situation('multipathing-differs')
    report = judge(sides)
    assert bad(report) == [('multipathing', WARN)]
    finding = only(report, 'multipathing')
    assert 'on on every member and off on xen03' in finding.message
    assert 'lun1 (lvmoiscsi) would be attached by one path' in finding.message
    uuid = joiner(sides)['uuid']
    assert finding.remedy == (
        f"on xen03, before the join: xe host-param-set uuid={uuid} "
        f"multipathing=true"
    )
    # The other way round, and in a pool that does not agree with itself.
    joiner(sides)['multipathing'] = True
    assert bad(judge(sides)) == []
    member = raw_pools.host(sides['pool'], master=False)[1]
    member['multipathing'] = False
    mixed = only(judge(sides), 'multipathing')
    assert mixed.remedy == (
        f"xe host-param-set uuid={member['uuid']} multipathing=true"
    )
    raw_pools.host(sides['pool'])[1]['multipathing'] = False
    wrong = only(judge(sides), 'multipathing')
    assert 'off on every member and on on xen03' in wrong.message
    assert wrong.remedy.endswith('multipathing=false')


def test_multipathing_of_hosts_that_have_no_field_for_it() -> None:
    sides = situation()
    for raw in sides.values():
        for record in raw['host'].values():
            del record['multipathing']
            record['other_config']['multipathing'] = 'true'
    assert bad(judge(sides)) == []
    joiner(sides)['other_config']['multipathing'] = 'false'
    assert 'other-config:multipathing=true' in (
        only(judge(sides), 'multipathing').remedy
    )


def test_one_iscsi_name_for_two_hosts() -> None:
    sides = situation()
    member = raw_pools.host(sides['pool'], master=False)[1]
    name = member['iscsi_iqn'] or member['other_config']['iscsi_iqn']
    joiner(sides)['iscsi_iqn'] = name.upper()
    report = judge(sides)
    assert bad(report) == [('duplicate-iqn', WARN)]
    finding = only(report, 'duplicate-iqn')
    assert name in finding.message
    assert member['name_label'] in finding.message
    uuid = joiner(sides)['uuid']
    assert f"xe host-param-set uuid={uuid} iscsi_iqn=iqn." in finding.remedy
    assert finding.remedy.split('=')[-1] != name
    # Of two that join together, too.
    twin = situation()
    joiner(twin).update(uuid='another', iscsi_iqn=name, hostname='b')
    alone = situation()
    joiner(alone)['iscsi_iqn'] = 'iqn.2026-01.example:same'
    joiner(twin)['iscsi_iqn'] = 'iqn.2026-01.example:same'
    together = judge(alone, batch=[raw_pools.parse(twin['joiner'])])
    assert only(together, 'duplicate-iqn').severity is WARN


def test_management_by_dhcp() -> None:
    sides = situation('dhcp-management')
    report = judge(sides)
    assert bad(report) == [('management-dhcp', WARN)] * 2
    mine, theirs = [f for f in report.findings if f.check == 'management-dhcp']
    for finding, side, name in (
        (mine, 'joiner', 'xen03'),
        (theirs, 'pool', 'xen01'),
    ):
        pif = nic(sides, side, 'eth0')
        assert f"eth0 of {name}" in finding.message
        assert [(o.cls, o.uuid) for o in finding.objects] == [
            ('PIF', pif['uuid'])
        ]
        assert (
            f"xe pif-reconfigure-ip uuid={pif['uuid']} mode=static "
            f"IP={pif['IP']} netmask={pif['netmask']}"
        ) in finding.remedy


def test_management_by_dhcp_version_6() -> None:
    sides = situation('ipv6-both')
    pif = nic(sides, 'joiner', 'eth0')
    pif['ipv6_configuration_mode'] = 'DHCP'
    report = judge(sides)
    assert bad(report) == [('management-dhcp', WARN)]
    assert (
        f"xe pif-reconfigure-ipv6 uuid={pif['uuid']} mode=static "
        f"IPv6={pif['IPv6'][0]} gateway=fd00:77::1"
    ) in only(report, 'management-dhcp').remedy


def test_xostor_on_a_joiner_that_has_its_driver() -> None:
    report = judge(situation('xostor-joiner-with-driver'))
    assert bad(report) == []
    assert only(report, 'storage-drivers').severity is PASS
    reach = only(report, 'shared-storage-reachable')
    assert reach.severity is UNKNOWN
    assert 'fn=addHost args:groupName=linstor_group/thin_device' in (
        reach.remedy
    )


def test_xostor_on_a_joiner_without_its_driver() -> None:
    sides = situation('xostor-joiner-without-driver')
    report = judge(sides)
    assert report.first_refusal is not None
    assert report.first_refusal[0] == 'POOL_JOINING_SM_FEATURES_INCOMPATIBLE'
    finding = only(report, 'storage-drivers')
    words = (
        'yum install -y xcp-ng-release-linstor',
        'yum install -y xcp-ng-linstor',
        'xe-toolstack-restart',
        f"xe host-call-plugin host-uuid={joiner(sides)['uuid']} "
        f"plugin=linstor-manager fn=addHost "
        f"args:groupName=linstor_group/thin_device",
    )
    places = [finding.remedy.index(word) for word in words]
    assert places == sorted(places)
    assert 'yum update' not in finding.remedy


def test_another_driver_that_an_update_does_not_bring() -> None:
    sides = situation('xostor-joiner-without-driver')
    for raw in sides.values():
        for driver in raw['SM'].values():
            if driver['type'] == 'linstor':
                driver['type'] = 'zfs'
    finding = only(judge(sides), 'storage-drivers')
    assert 'yum update' not in finding.remedy
    assert 'rpm -qf' in finding.remedy
    joiner(sides)['software_version']['xapi_build'] = '26.1.0'
    older = [f for f in judge(sides).findings if f.check == 'storage-drivers']
    assert 'yum update' in older[0].remedy


def test_an_ipv4_joiner_for_an_ipv6_pool() -> None:
    sides = situation('ipv6-pool-ipv4-joiner')
    report = judge(sides)
    assert report.first_refusal == (
        'OPERATION_NOT_ALLOWED',
        'Primary address type differs',
    )
    remedy = only(report, 'address-type').remedy
    pif = nic(sides, 'joiner', 'eth0')
    assert f"xe pif-reconfigure-ipv6 uuid={pif['uuid']} mode=" in remedy
    assert 'fd00:77::/64' in remedy
    assert 'xe-reset-networking --device=eth0' in remedy
    assert '--mode-v6=' in remedy
    assert 'install it anew with IPv6 management' in remedy
    turned = judge(
        {
            'joiner': situation('ipv6-both')['joiner'],
            'pool': situation()['pool'],
        }
    )
    remedy = only(turned, 'address-type').remedy
    assert 'xe pif-reconfigure-ip uuid=' in remedy
    assert '--mode-v6' not in remedy


def test_no_remedy_sets_the_primary_address_type_of_a_management() -> None:
    """XAPI refuses it there: PIF_IS_MANAGEMENT_IFACE."""
    package = pathlib.Path(join.__file__).parents[2]
    for path in package.rglob('*.py'):
        if 'simulator' not in path.parts and path.name != 'bonding.py':
            assert 'pif-set-primary-address-type' not in path.read_text()
    sides = situation('bond-takes-storage-address')
    nics = [
        pif
        for pif in raw_pools.parse(sides['joiner']).pifs.values()
        if pif.physical
    ]
    for one, other in itertools.permutations(nics, 2):
        pair = [
            dataclasses.replace(one, primary_address_type='IPv4'),
            dataclasses.replace(other, primary_address_type='IPv6'),
        ]
        steps = [s for s in bonding.clearing(pair) if 'primary' in s]
        (mine,) = [pif for pif in pair if not pif.management]
        (its,) = [pif for pif in pair if pif.management]
        assert steps == [
            f"xe pif-set-primary-address-type uuid={mine.uuid} "
            f"primary_address_type={its.primary_address_type}"
        ]


def of_version_6(raw: raw_pools.Raw) -> None:
    """Give every addressed interface of a side IPv6 in place of IPv4."""
    for pif in raw['PIF'].values():
        if pif['IP']:
            _, net, _, last = pif['IP'].split('.')
            pif.update(
                IPv6=[f"fd00:{net}::{last}/64"],
                ipv6_configuration_mode='Static',
                ip_configuration_mode='None',
                IP='',
                netmask='',
            )
        pif['primary_address_type'] = 'IPv6'
    for record in raw['host'].values():
        record['address'] = f"fd00:0::{record['address'].rpartition('.')[2]}"


def test_a_bond_of_nics_that_both_have_an_address_of_version_6() -> None:
    sides = situation('bond-takes-storage-address')
    for raw in sides.values():
        of_version_6(raw)
    finding = only(judge(sides), 'pool-bonds')
    assert 'PIF_BOND_MORE_THAN_ONE_IP' in finding.message
    pif = nic(sides, 'joiner', 'eth1')
    assert finding.remedy == (
        f"on xen03: xe pif-reconfigure-ipv6 uuid={pif['uuid']} mode=none"
    )
    # Nothing but the type of the second one is in the way.
    pif.update(
        primary_address_type='IPv4', IPv6=[], ipv6_configuration_mode='None'
    )
    finding = only(judge(sides), 'pool-bonds')
    assert finding.severity is WARN
    assert 'eth0 IPv6, eth1 IPv4' in finding.message
    assert 'PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE' in finding.message
    assert finding.remedy == (
        f"on xen03: xe pif-set-primary-address-type uuid={pif['uuid']} "
        f"primary_address_type=IPv6"
    )
    pif['primary_address_type'] = 'IPv6'
    assert only(judge(sides), 'pool-bonds').severity is PASS


def test_management_by_autoconfiguration() -> None:
    sides = situation('ipv6-both')
    for side, name in (('joiner', 'xen03'), ('pool', 'xen01')):
        pif = nic(sides, side, 'eth0')
        pif['ipv6_configuration_mode'] = 'Autoconf'
        finding = only(judge(sides), 'management-dhcp')
        assert finding.severity is WARN
        assert f"of {name} has its management address" in finding.message
        assert 'by IPv6 autoconfiguration' in finding.message
        assert finding.remedy.startswith(
            f"on {name}: xe pif-reconfigure-ipv6 uuid={pif['uuid']} "
            f"mode=static IPv6={pif['IPv6'][0]}"
        )
        pif['ipv6_configuration_mode'] = 'Static'
    assert bad(judge(sides)) == []


def test_an_address_of_the_other_type_that_is_there_is_kept() -> None:
    sides = situation('ipv6-both')
    pif = nic(sides, 'joiner', 'eth0')
    pif.update(
        primary_address_type='IPv4',
        ip_configuration_mode='Static',
        IP='10.0.0.3',
        netmask='255.255.255.0',
    )
    remedy = only(judge(sides), 'address-type').remedy
    assert remedy.startswith(
        f"on xen03: xe-reset-networking --device=eth0 --novlan --mode=none "
        f"--mode-v6=static --ipv6={pif['IPv6'][0]} --gateway-v6=fd00:77::1"
    )
    assert 'autoconf' not in remedy


@pytest.mark.parametrize('theirs', ['', 'ipv6-both'])
def test_what_gives_an_address_of_the_other_type_leaves_no_warning(
    theirs: str,
) -> None:
    """What is proposed is no address that may change."""
    mine = '' if theirs else 'ipv6-both'
    sides = {
        'joiner': situation(mine)['joiner'],
        'pool': situation(theirs)['pool'],
    }
    remedy = only(judge(sides), 'address-type').remedy
    assert 'mode=static IP' in remedy
    assert 'dhcp' not in remedy
    assert 'autoconf' not in remedy
    proposed = re.search(r'mode=static IP(?:v6)?=([0-9a-f.:]+)', remedy)
    assert proposed is not None
    used = {
        h['address'] for raw in sides.values() for h in raw['host'].values()
    }
    assert proposed[1] not in used
    assert f"={proposed[1]}" in remedy.partition('xe-reset-networking')[2]


def test_storage_of_another_version_than_all_addresses() -> None:
    reach = [
        f
        for f in judge(situation('ipv6-both')).findings
        if f.check == 'shared-storage-reachable'
    ]
    for finding in reach:
        assert 'router' not in finding.message
    (lun,) = [f for f in reach if 'lun1' in f.message]
    assert lun.severity is UNKNOWN
    assert 'xen01 has no IPv4 address in its records' in lun.message


def test_a_bond_that_takes_an_address_for_storage_away() -> None:
    sides = situation('bond-takes-storage-address')
    report = judge(sides)
    assert bad(report) == [('pool-bonds', WARN)]
    finding = only(report, 'pool-bonds')
    assert 'eth1 10.20.0.13' in finding.message
    assert 'PIF_BOND_MORE_THAN_ONE_IP' in finding.message
    pif = nic(sides, 'joiner', 'eth1')
    assert finding.remedy == (
        f"on xen03: xe pif-reconfigure-ip uuid={pif['uuid']} mode=none"
    )
    assert ('PIF', pif['uuid']) in [(o.cls, o.uuid) for o in finding.objects]
    # As records are read live, without a class for bonds.
    for raw in sides.values():
        del raw['Bond']
    for one in sides['pool']['PIF'].values():
        one.setdefault('bond_master_of', [])
    assert bad(judge(sides)) == [('pool-bonds', WARN)]


def test_management_that_moves_to_the_pools_bond() -> None:
    sides = situation('bond-takes-storage-address')
    nic(sides, 'joiner', 'eth1').update(IP='', ip_configuration_mode='None')
    assert bad(judge(sides)) == []
    # XAPI looks at the mode: DHCP that has got no answer counts, too.
    nic(sides, 'joiner', 'eth1')['ip_configuration_mode'] = 'DHCP'
    assert 'eth1 by DHCP' in only(judge(sides), 'pool-bonds').message


def test_management_on_a_vlan_that_moves_to_a_vlan_of_the_bond() -> None:
    sides = situation('bond-takes-storage-address')
    nic(sides, 'joiner', 'eth1').update(IP='', ip_configuration_mode='None')
    for side, device in (('joiner', 'eth0'), ('pool', 'bond0')):
        below = nic(sides, side, device)
        vlan = {k: v for k, v in below.items() if k != 'uuid'}
        below.update(management=False, IP='', ip_configuration_mode='None')
        vlan.update(
            VLAN='27',
            physical=False,
            bond_master_of=[],
            VLAN_master_of='OpaqueRef:VLAN-27',
        )
        above = raw_pools.add(sides[side], 'PIF', 'mgmt', **vlan)
        raw_pools.add(sides[side], 'VLAN', '27', tag='27', untagged_PIF=above)
    assert [f for f in judge(sides).findings if f.check == 'nic-names'] == [
        model.Finding(
            'nic-names', PASS, "the joiner's NICs have the names of the pool's"
        )
    ]
    assert judge(sides).failures == ()


def test_management_on_a_nic_beside_the_pools_bond() -> None:
    sides = situation('bond-takes-storage-address')
    eth0, eth1 = (nic(sides, 'joiner', name) for name in ('eth0', 'eth1'))
    eth1.update(device='eth2', ip_configuration_mode='None', IP='')
    for field in ('IP', 'netmask', 'ip_configuration_mode', 'management'):
        eth0[field], eth1[field] = eth1[field], eth0[field]
    found = [f for f in judge(sides).findings if f.check == 'nic-names']
    (moved,) = [f for f in found if 'management' in f.message]
    assert 'on eth2, that of the pool on bond0, a bond of' in moved.message
    assert 'interface-rename' not in moved.remedy
    assert (
        'xe-reset-networking --device=eth0 --novlan --mode=static '
        '--ip=127.0.77.13 --netmask=255.0.0.0'
    ) in moved.remedy


def test_nics_of_other_names_are_renamed_with_their_macs() -> None:
    sides = situation()
    pif = nic(sides, 'joiner', 'eth1')
    pif['device'] = 'eth5'
    found = [f for f in judge(sides).findings if f.check == 'nic-names']
    assert f"interface-rename --update eth1={pif['MAC']}," in found[0].remedy


def of_build(sides: Sides, build: str) -> None:
    """Let all hosts be of one version of the toolstack."""
    for raw in sides.values():
        for record in raw['host'].values():
            record['software_version']['xapi_build'] = build


@pytest.mark.parametrize('build', ['1.249.3', '24.38.2', '0.0'])
def test_a_hostname_that_is_taken_in_a_directory(build: str) -> None:
    sides = situation('hostname-in-directory')
    of_build(sides, build)
    report = judge(sides)
    found = [f for f in report.findings if f.check == 'duplicate-name']
    assert [f.severity for f in found] == [WARN] * 2
    by_host, by_label = found
    pool = raw_pools.only(sides['joiner'], 'pool')
    leave = f"xe pool-disable-external-auth uuid={pool['uuid']}"
    assert by_host.remedy.index(leave) < by_host.remedy.index(
        'xe host-set-hostname-live'
    )
    assert 'AUTH_ALREADY_ENABLED' in by_host.remedy
    assert 'external-auth' not in by_label.remedy
    for raw in sides.values():
        for record in raw['host'].values():
            record['external_auth_type'] = ''
    plain = next(
        f for f in judge(sides).findings if f.check == 'duplicate-name'
    )
    assert 'directory' not in plain.remedy
    assert 'xe host-set-hostname-live host-uuid=' in plain.remedy


@pytest.mark.parametrize('build', ['24.39.0', '26.17.0'])
def test_a_toolstack_that_renames_a_host_in_a_directory(build: str) -> None:
    sides = situation('hostname-in-directory')
    of_build(sides, build)
    report = judge(sides)
    assert bad(report) == [('duplicate-name', WARN)] * 2
    by_host = next(f for f in report.findings if f.check == 'duplicate-name')
    uuid = joiner(sides)['uuid']
    assert by_host.remedy.startswith(
        f"on xen01: xe host-set-hostname-live host-uuid={uuid} host-name="
    )
    assert 'where that matters, leave the directory first' in by_host.remedy
    service = joiner(sides)['external_auth_service_name']
    assert f"its account in {service} keeps the old name" in by_host.remedy


def test_hostnames_are_compared_without_case() -> None:
    sides = situation()
    member = raw_pools.host(sides['pool'], master=False)[1]
    joiner(sides)['hostname'] = member['hostname'].upper()
    report = judge(sides)
    assert bad(report) == [('duplicate-name', WARN)]
    assert member['uuid'] in only(report, 'duplicate-name').message
    joiner(sides)['hostname'] = 'another'
    joiner(sides)['name_label'] = member['name_label'].upper()
    assert bad(judge(sides)) == []


def test_two_joiners_that_are_copies_of_each_other() -> None:
    one, other = situation(), situation()
    joiner(other).update(address='127.0.77.14', name_label='b', hostname='b')
    twin = raw_pools.parse(other['joiner'])
    found = only(judge(one, batch=[twin]), 'duplicate-in-batch')
    assert found.severity is FAIL
    for word in (joiner(one)['uuid'], '127.0.77.13', '127.0.77.14'):
        assert word in found.message
    assert 'copied installation' in found.message
    assert found.remedy.startswith('install anew xen03 or b, one of them only')
    joiner(other)['address'] = '127.0.77.13'
    twin = raw_pools.parse(other['joiner'])
    found = only(judge(one, batch=[twin]), 'duplicate-in-batch')
    assert found.remedy == 'name each host once'


def copies(
    raw: raw_pools.Raw, cls: str, like: str, number: int
) -> list[dict[str, typing.Any]]:
    """Add copies of a record; return them."""
    return [
        raw[cls].setdefault(
            f"OpaqueRef:{cls}-copy-{n}",
            {**raw[cls][like], 'uuid': f"copy-{cls}-{n}"},
        )
        for n in range(number)
    ]


def test_a_remedy_names_the_command_for_each_object() -> None:
    """Who is told of three of five is refused again."""
    sides = situation()
    raw = sides['joiner']
    me, _ = raw_pools.host(raw)
    for n, host in enumerate(copies(raw, 'host', me, 5)):
        host.update(address=f"127.0.77.2{n}", hostname=f"old{n}")
    for sr in copies(raw, 'SR', next(iter(raw['SR'])), 5):
        sr.update(type='nfs', shared=True, is_tools_sr=False, PBDs=[])
    for vm in copies(raw, 'VM', next(iter(raw['VM'])), 5):
        vm.update(is_control_domain=False, power_state='Running')
    report = judge(sides)
    for check, command, cls in (
        ('no-other-hosts', 'xe pool-eject host-uuid={}', 'host'),
        ('shared-storage-on-joiner', 'xe sr-forget uuid={}', 'SR'),
        ('running-vms', 'xe vm-shutdown uuid={}', 'VM'),
    ):
        remedy = only(report, check).remedy
        for n in range(5):
            assert command.format(f"copy-{cls}-{n}") in remedy, check


def test_no_address_on_the_network_of_the_pools_cluster() -> None:
    sides = situation('cluster-network-address')
    report = judge(sides)
    assert report.first_refusal == (
        'POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK',
    )
    pif = nic(sides, 'joiner', 'eth1')
    assert f"xe pif-reconfigure-ip uuid={pif['uuid']} mode=" in (
        only(report, 'cluster-address').remedy
    )


def test_management_on_vlans_that_differ() -> None:
    sides = situation()
    sides['pool'] = situation('management-on-vlan')['pool']
    report = judge(sides)
    finding = only(report, 'management-vlan')
    assert finding.severity is FAIL
    assert 'xe-reset-networking --device=eth0 --vlan=' in finding.remedy
    assert '--ip=127.0.77.13' in finding.remedy


def share_by_sriov(sides: Sides) -> dict[str, typing.Any]:
    """Let the pool have an SR-IOV network on eth1; return the joiner's."""
    pool = sides['pool']
    physical = nic(sides, 'pool', 'eth1')
    network = raw_pools.add(pool, 'network', 's', name_label='fast')
    raw_pools.add(
        pool,
        'PIF',
        's',
        **{
            **{k: v for k, v in physical.items() if k != 'uuid'},
            'network': network,
            'physical': False,
            'sriov_logical_PIF_of': ['OpaqueRef:network_sriov-one'],
        },
    )
    raw_pools.add(pool, 'network_sriov', 'one', logical_PIF='OpaqueRef:PIF-s')
    return nic(sides, 'joiner', 'eth1')


@pytest.mark.parametrize('live', [False, True], ids=['dumped', 'live'])
def test_sriov_networks_that_the_joiner_cannot_serve(live: bool) -> None:
    sides = situation()
    pif = share_by_sriov(sides)
    if live:
        del sides['pool']['network_sriov']
    report = judge(sides)
    assert bad(report) == [('pool-sriov', WARN)]
    finding = only(report, 'pool-sriov')
    assert (
        "'fast' of the pool is on eth1, which cannot do SR-IOV on xen03"
        in (finding.message)
    )
    assert f"xe pif-param-get uuid={pif['uuid']}" in finding.remedy
    pif['capabilities'] = ['sriov']
    assert bad(judge(sides)) == []
    del pif['capabilities']
    assert only(judge(sides), 'pool-sriov').severity is UNKNOWN
    pif['device'] = 'eth4'
    absent = only(judge(sides), 'pool-sriov')
    assert 'which is not there on xen03' in absent.message


FEATURES = ('features_hvm_host', 'features_pv_host')


@pytest.mark.parametrize('side', ['joiner', 'pool'])
@pytest.mark.parametrize('gone', ['one', 'new', 'all', 'empty'])
def test_processor_features_that_a_record_does_not_tell(
    side: str, gone: str
) -> None:
    sides = situation()
    info = (
        joiner(sides)['cpu_info']
        if side == 'joiner'
        else raw_pools.only(sides['pool'], 'pool')['cpu_info']
    )
    for key in list(info):
        if key.startswith('features'):
            if gone == 'empty':
                info[key] = ''
            elif gone == 'all' or key in FEATURES[: 1 + (gone == 'new')]:
                del info[key]
    finding = only(judge(sides), 'cpu-level')
    assert finding.severity is UNKNOWN
    name = 'xen03' if side == 'joiner' else 'prod'
    assert f"the records of {name} do not tell" in finding.message


def test_processor_features_of_hosts_that_are_both_old() -> None:
    sides = situation()
    infos = [
        joiner(sides)['cpu_info'],
        raw_pools.only(sides['pool'], 'pool')['cpu_info'],
    ]
    for info in infos:
        for key in FEATURES:
            old = info.pop(key)
            info[key.removesuffix('_host')] = old
    assert only(judge(sides), 'cpu-level').severity is PASS
    infos[0]['features_hvm'] = '00000001-00000000-00000000-00000000'
    assert only(judge(sides), 'cpu-level').severity is WARN


def test_empty_texts_in_sets_are_nothing() -> None:
    """Recorded: PIF.IPv6 is [''] on every host that was booted once."""
    sides = situation()
    for raw in sides.values():
        for cls, field in (
            ('PIF', 'IPv6'),
            ('host', 'tags'),
            ('host', 'pending_guidances'),
            ('network', 'purpose'),
        ):
            for record in raw[cls].values():
                record[field] = ['']
    report = judge(sides)
    assert bad(report) == []
    assert only(report, 'pool-address').severity is PASS
    assert only(report, 'shared-storage-reachable').severity is PASS
