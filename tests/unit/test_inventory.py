# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a join loses is shown."""

from __future__ import annotations

import json
import typing

import pytest

from tests.unit import raw_pools
from xenpool_driver import inventory, model
from xenpool_driver.xapi import records

only, host, add = raw_pools.only, raw_pools.host, raw_pools.add

RECORDED = '103-joined-with-halted-vm-extra-network-local-sr-renamed-host.json'


def losses(
    before: raw_pools.Raw, after: raw_pools.Raw, uuid: str
) -> list[str]:
    found = inventory.compare(
        inventory.take(records.snapshot(before), uuid),
        inventory.take(records.snapshot(after), uuid),
    )
    assert {f.severity for f in found} <= {model.Severity.WARN}
    return [finding.message for finding in found]


def test_recorded_join_lost_what_the_recording_says() -> None:
    path = raw_pools.RECORDINGS / 'refusals' / RECORDED
    case = json.loads(path.read_text())
    uuid = host(case['joiner'])[1]['uuid']
    assert losses(case['joiner'], case['coordinator_after'], uuid) == [
        "host renamed-host lost its description 'my description' "
        "(now 'Default install')",
        'host renamed-host lost its tags tag1 (now none)',
        'host renamed-host lost its logging syslog_destination=127.0.0.77',
        "pool joiner-pool lost the name of its own pool: 'joiner-pool'",
    ]


def test_same_world_lost_nothing() -> None:
    joiner, _ = raw_pools.pair()
    assert losses(joiner, joiner, host(joiner)[1]['uuid']) == []


@pytest.mark.parametrize('cls', ['SR', 'VM', 'network', 'PIF', 'PBD'])
def test_object_that_is_gone(cls: str) -> None:
    joiner, _ = raw_pools.pair()
    ref, record = host(joiner)
    raw_pools.add_sr(joiner, 'data', [ref])
    add(joiner, 'VM', 'web', name_label='web')
    add(joiner, 'network', 'lab', name_label='lab', bridge='xapi3')
    after = json.loads(json.dumps(joiner))
    gone = {
        'SR': 'data',
        'VM': 'web',
        'network': 'lab',
        'PIF': 'eth0',
        'PBD': 'data',
    }[cls]
    key = next(
        k
        for k, v in after[cls].items()
        if gone in (v.get('name_label'), v.get('device')) or cls == 'PBD'
    )
    del after[cls][key]
    found = losses(joiner, after, record['uuid'])
    assert any(gone in message for message in found), found


def test_settings_that_changed_say_what_to_type() -> None:
    joiner, _ = raw_pools.pair()
    _, record = host(joiner)
    record.update(
        tags=['rack 1'],
        other_config={'owner': 'me', 'agent_start_time': '1.'},
        name_description='mine',
    )
    after = json.loads(json.dumps(joiner))
    host(after)[1].update(
        tags=[], other_config={'agent_start_time': '2.'}, name_description=''
    )
    uuid = record['uuid']
    found = inventory.compare(
        inventory.take(records.snapshot(joiner), uuid),
        inventory.take(records.snapshot(after), uuid),
    )
    assert [finding.remedy for finding in found] == [
        f"xe host-param-set uuid={uuid} name-description=mine",
        f"xe host-param-add uuid={uuid} param-name=tags param-key='rack 1'",
        f"xe host-param-set uuid={uuid} other-config:owner=me",
    ]


def test_address_that_changed() -> None:
    joiner, _ = raw_pools.pair()
    after = json.loads(json.dumps(joiner))
    only(after, 'PIF')['IP'] = '127.0.0.77'
    (message,) = losses(joiner, after, host(joiner)[1]['uuid'])
    assert '127.0.0.77' in message


def bonded(raw: raw_pools.Raw) -> raw_pools.Raw:
    """Return the records with the management moved to a bond."""
    after: raw_pools.Raw = json.loads(json.dumps(raw))
    nic = only(after, 'PIF')
    add(
        after,
        'PIF',
        'bond',
        **{
            **{k: v for k, v in nic.items() if k != 'uuid'},
            'device': 'bond0',
            'physical': False,
            'other_config': {},
        },
    )
    nic.update(
        IP='',
        netmask='',
        gateway='',
        DNS='',
        ip_configuration_mode='None',
        management=False,
    )
    return after


def test_an_address_that_moved_to_the_pools_bond_is_not_lost() -> None:
    joiner, _ = raw_pools.pair()
    uuid = host(joiner)[1]['uuid']
    after = bonded(joiner)
    assert losses(joiner, after, uuid) == []
    bond = after['PIF']['OpaqueRef:PIF-bond']
    bond['gateway'] = '127.9.9.9'
    (message,) = losses(joiner, after, uuid)
    assert 'bond0 lost its gateway' in message
    bond['IP'] = '127.0.0.77'
    assert any('lost its IP' in each for each in losses(joiner, after, uuid))


def test_a_management_vlan_that_moved_to_the_bond_is_not_lost() -> None:
    joiner, _ = raw_pools.pair()
    only(joiner, 'PIF').update(VLAN='27', physical=False)
    uuid = host(joiner)[1]['uuid']
    after: raw_pools.Raw = json.loads(json.dumps(joiner))
    only(after, 'PIF')['device'] = 'bond0'
    assert losses(joiner, after, uuid) == []


def test_unknown_host_is_named() -> None:
    joiner: typing.Any = raw_pools.parse(raw_pools.pair()[0])
    with pytest.raises(LookupError, match='nobody'):
        inventory.take(joiner, 'nobody')


def test_a_secret_that_was_lost_is_neither_shown_nor_typed() -> None:
    before, _ = raw_pools.pair()
    ref, record = host(before)
    after = json.loads(json.dumps(before))
    record['other_config'].update(ipmi_password='hush', rack='r1')
    [finding] = inventory.compare(
        inventory.take(records.snapshot(before), record['uuid']),
        inventory.take(records.snapshot(after), record['uuid']),
    )
    assert 'ipmi_password=***' in finding.message
    assert finding.remedy == (
        f"xe host-param-set uuid={record['uuid']} other-config:rack=r1"
    )
