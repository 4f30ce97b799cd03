# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What XAPI's structs become, and what is said of broken ones."""

from __future__ import annotations

import copy
import pathlib
import pickle
import xmlrpc.client

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.unit import raw_pools
from xenpool_driver import exceptions, model, pool_states, snapshot
from xenpool_driver.xapi import records


@pytest.mark.parametrize('value', ['42', 42, 42.0])
def test_integers_come_as_text_or_numbers(value: object) -> None:
    joiner, _ = raw_pools.pair()
    pif = raw_pools.only(joiner, 'PIF')
    pif['VLAN'] = value
    found = raw_pools.parse(joiner)
    assert [p.vlan for p in found.pifs.values()] == [42]


def test_null_references_are_none() -> None:
    joiner, _ = raw_pools.pair()
    found = raw_pools.parse(joiner)
    assert found.pool is not None
    assert found.pool.default_sr is None
    assert found.coordinator is not None
    assert found.coordinator.control_domain is not None


def test_fields_of_newer_servers_have_defaults() -> None:
    joiner, _ = raw_pools.pair()
    _, host = raw_pools.host(joiner)
    for field in ('pending_guidances', 'editions', 'tls_verification_enabled'):
        del host[field]
    del raw_pools.only(joiner, 'PIF')['primary_address_type']
    found = raw_pools.parse(joiner)
    assert found.coordinator is not None
    assert found.coordinator.pending_guidances == ()
    assert found.coordinator.editions == ()
    assert found.coordinator.tls_verification_enabled is False
    (pif,) = found.pifs.values()
    assert pif.primary_address_type == 'IPv4'


@pytest.mark.parametrize(
    'text',
    [
        '20361119T08:00:18Z',
        '2036-11-19T08:00:18Z',
        xmlrpc.client.DateTime('20361119T08:00:18Z'),
    ],
)
def test_dates_are_seconds(text: object) -> None:
    joiner, _ = raw_pools.pair()
    for cert in joiner['Certificate'].values():
        cert['not_after'] = text
    found = raw_pools.parse(joiner)
    assert {c.not_after for c in found.certificates.values()} == {2110694418.0}


@pytest.mark.parametrize(
    ('cls', 'field', 'value', 'words'),
    [
        ('PIF', 'VLAN', 'many', 'integer'),
        ('PIF', 'VLAN', True, 'integer'),
        ('PIF', 'management', 'yes', 'neither true nor false'),
        ('host', 'name_label', 7, 'no text'),
        ('host', 'software_version', [], 'no map'),
        ('host', 'updates', 'none', 'no list'),
        ('host_metrics', 'last_updated', 'yesterday', 'no date'),
        ('SM', 'features', {'VDI_CREATE': 'x'}, 'integer'),
        ('pool', 'master', 'OpaqueRef:gone', 'no record of that host'),
    ],
)
def test_nonsense_is_named(
    cls: str, field: str, value: object, words: str
) -> None:
    joiner, _ = raw_pools.pair()
    if not joiner[cls]:
        raw_pools.add(joiner, cls, 'one')
    ref, record = next(iter(joiner[cls].items()))
    record[field] = value
    with pytest.raises(exceptions.ConfigurationError) as caught:
        raw_pools.parse(joiner)
    for part in (cls, ref, field, words):
        assert part in str(caught.value)


def test_missing_uuid_is_named() -> None:
    joiner, _ = raw_pools.pair()
    del raw_pools.only(joiner, 'PIF')['uuid']
    with pytest.raises(records.MalformedRecords, match='PIF .* uuid'):
        raw_pools.parse(joiner)


@pytest.mark.parametrize(
    'raw',
    [
        None,
        [],
        {'pool': []},
        {'pool': {}, 'host': {}},
        {'pool': {'a': 'b'}, 'host': {}},
        {'VM': {}},
    ],
)
def test_what_is_no_dump_is_refused(raw: object) -> None:
    with pytest.raises(records.MalformedRecords):
        records.snapshot(raw)  # type: ignore[arg-type]


def test_errors_survive_a_process_border() -> None:
    error = records.MalformedRecords('PIF', 'ref', 'VLAN', 'is odd')
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_could_not_be_read_is_unknown_not_empty() -> None:
    joiner, _ = raw_pools.pair()
    del joiner['SR']
    found = records.snapshot(
        joiner, unreadable={'SR': 'RBAC_PERMISSION_DENIED sr.get_all'}
    )
    assert found.lacks('SR') == 'RBAC_PERMISSION_DENIED sr.get_all'
    assert found.lacks('VM') is None
    assert found.lacks('blob') == 'class blob was not read'


def test_class_that_the_server_has_not_is_empty() -> None:
    joiner, _ = raw_pools.pair()
    del joiner['Cluster']
    found = records.snapshot(
        joiner,
        unreadable={'Cluster': 'MESSAGE_METHOD_UNKNOWN Cluster.get_all'},
    )
    assert found.lacks('Cluster') is None


def test_links_show_in_interfaces() -> None:
    path = '203-all-broken-from-rule-2.json'
    import json

    raw = json.loads((raw_pools.RECORDINGS / 'refusals' / path).read_text())
    whole = records.snapshot(raw['joiner'])
    for cls in ('Bond', 'VLAN', 'tunnel', 'network_sriov'):
        del raw['joiner'][cls]
    derived = records.snapshot(raw['joiner'])
    for table in ('bonds', 'vlans', 'tunnels', 'sriovs'):
        assert {r.ref for r in getattr(whole, table)} == {
            r.ref for r in getattr(derived, table)
        }
    assert {s for b in whole.bonds for s in b.slaves} == {
        s for b in derived.bonds for s in b.slaves
    }
    assert [v.untagged_pif for v in whole.vlans] == [
        v.untagged_pif for v in derived.vlans
    ]


def test_budget_of_a_live_precheck() -> None:
    """16 calls with login and clock."""
    assert len(set(snapshot.LIVE_CLASSES)) <= 14


def test_keys_are_the_lifecycles() -> None:
    assert model.OWNER_KEY == pool_states.OWNER_KEY == 'xenpool_aggregate'
    assert model.MASTER_KEY == pool_states.MASTER == 'master_compute'
    assert model.POOL_UUID_KEY == pool_states.POOL_UUID == 'pool_uuid'


def test_pools_of_real_labs_are_read(records_dir: pathlib.Path) -> None:
    import json

    for path in records_dir.glob('historic-*.json'):
        found = records.snapshot(json.loads(path.read_text()))
        assert found.coordinator is not None
        assert found.vms


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)


@hypothesis.given(
    cls=st.sampled_from(sorted(raw_pools.pair()[0])),
    number=st.integers(0, 200),
    junk=JUNK,
)
def test_no_dump_makes_it_stumble(cls: str, number: int, junk: object) -> None:
    """Whatever stands in a field: it is read, or named; nothing else."""
    raw = copy.deepcopy(raw_pools.pair()[0])
    for record in raw[cls].values():
        field = sorted(record)[number % len(record)]
        record[field] = junk
    try:
        records.snapshot(raw)
    except records.MalformedRecords as error:
        assert cls in str(error) or 'pool' in str(error)
