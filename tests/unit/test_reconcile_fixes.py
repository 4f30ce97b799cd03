# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What an audit changes of an aggregate that is not true."""

from __future__ import annotations

import types
import typing

from tests.unit import raw_pools
from xenpool_driver import model, reconcile

only, host = raw_pools.only, raw_pools.host

UUID = 'uuid-of-the-aggregate'


def world() -> tuple[raw_pools.Raw, typing.Any, dict[str, str]]:
    """Return a pool, the aggregate that it is, and who is where."""
    raw = raw_pools.three()
    pool = only(raw, 'pool')
    pool['other_config'][model.OWNER_KEY] = UUID
    placed = {
        f"compute-{record['name_label']}": record['uuid']
        for record in raw['host'].values()
    }
    _, master = host(raw)
    aggregate = types.SimpleNamespace(
        uuid=UUID,
        name='prod',
        hosts=list(placed),
        metadata={
            **placed,
            'hypervisor_pool': 'true',
            model.MASTER_KEY: f"compute-{master['name_label']}",
            model.POOL_UUID_KEY: pool['uuid'],
        },
    )
    return raw, aggregate, placed


def find(
    raw: raw_pools.Raw, aggregate: typing.Any, placed: dict[str, str]
) -> reconcile.Fixes:
    return reconcile.find_fixes(
        reconcile.Declared.of(aggregate), raw_pools.parse(raw), placed
    )


def a_member(raw: raw_pools.Raw) -> tuple[str, dict[str, typing.Any], str]:
    """Return a member that is not the master, and its compute name."""
    ref, record = host(raw, master=False)
    return ref, record, f"compute-{record['name_label']}"


def test_what_is_true_needs_nothing() -> None:
    assert not find(*world())


def test_a_member_without_a_uuid_gets_it() -> None:
    raw, aggregate, placed = world()
    _, record, name = a_member(raw)
    del aggregate.metadata[name]

    fixes = find(raw, aggregate, placed)

    assert fixes.metadata == {name: record['uuid']}
    assert not (fixes.add_hosts or fixes.remove_hosts)


def test_a_host_that_never_came_is_removed() -> None:
    raw, aggregate, placed = world()
    aggregate.hosts.append('compute-late')

    fixes = find(raw, aggregate, placed)

    assert fixes.remove_hosts == ('compute-late',)
    assert fixes.metadata == {}
    assert fixes.told == ("'compute-late' is removed: it is not in the pool",)


def test_a_member_that_has_left_is_removed_with_its_uuid() -> None:
    raw, aggregate, placed = world()
    ref, _, name = a_member(raw)
    del raw['host'][ref]
    del placed[name]

    fixes = find(raw, aggregate, placed)

    assert fixes.remove_hosts == (name,)
    assert fixes.metadata == {name: None}


def test_a_member_that_nobody_declared_is_added() -> None:
    raw, aggregate, placed = world()
    _, record, name = a_member(raw)
    aggregate.hosts.remove(name)
    del aggregate.metadata[name]

    fixes = find(raw, aggregate, placed)

    assert fixes.add_hosts == (name,)
    assert fixes.metadata == {name: record['uuid']}


def test_the_residue_of_a_failed_join_is_not_added() -> None:
    raw, aggregate, placed = world()
    _, record, name = a_member(raw)
    aggregate.hosts.remove(name)
    del aggregate.metadata[name]
    record['enabled'] = False
    raw['host_metrics'][record['metrics']]['live'] = False

    assert not find(raw, aggregate, placed)


def test_a_member_that_no_configuration_knows_is_left_alone() -> None:
    raw, aggregate, placed = world()
    _, _, name = a_member(raw)
    aggregate.hosts.remove(name)
    del aggregate.metadata[name], placed[name]

    assert not find(raw, aggregate, placed)


def test_a_master_that_was_never_recorded_is_named() -> None:
    raw, aggregate, placed = world()
    _, master = host(raw)
    name = f"compute-{master['name_label']}"
    del aggregate.metadata[name], aggregate.metadata[model.MASTER_KEY]
    del aggregate.metadata[model.POOL_UUID_KEY]

    fixes = find(raw, aggregate, placed)

    assert fixes.metadata == {
        name: master['uuid'],
        model.MASTER_KEY: name,
        model.POOL_UUID_KEY: only(raw, 'pool')['uuid'],
    }


def test_a_foreign_pool_is_not_believed() -> None:
    raw, aggregate, placed = world()
    only(raw, 'pool')['other_config'][model.OWNER_KEY] = 'another'
    ref, _, _ = a_member(raw)
    del raw['host'][ref]

    assert not find(raw, aggregate, placed)


def test_hosts_of_a_set_up_that_never_was_are_removed() -> None:
    raw, aggregate, placed = world()
    del only(raw, 'pool')['other_config'][model.OWNER_KEY]
    aggregate.metadata = {'hypervisor_pool': 'true'}

    fixes = find(raw, aggregate, placed)

    assert set(fixes.remove_hosts) == set(aggregate.hosts)
    assert fixes.metadata == {}
