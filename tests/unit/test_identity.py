# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Who answers at an address: every kind, told apart by what decides it."""

from __future__ import annotations

import collections.abc
import typing

import pytest

from tests.unit import raw_pools
from xenpool_driver import identity, snapshot

Who = identity.Who

OURS, OTHER = 'pool-ours', 'pool-other'
ADDRESSES = {'a': '127.1.0.1', 'b': '127.1.0.2', 'c': '127.1.0.3'}
MEMBERS = {'xen01': 'a', 'xen02': 'b', 'xen03': 'c'}


def pool(
    *uuids: str,
    uuid: str = OURS,
    dead: collections.abc.Container[str] = (),
    at: collections.abc.Mapping[str, str] | None = None,
) -> snapshot.PoolSnapshot:
    """Return a pool whose hosts have these uuids, the master first.

    :param dead: uuids that the master takes for dead.
    :param at: addresses that differ from the usual ones.
    """
    places = {**ADDRESSES, **(at or {})}
    raw: raw_pools.Raw = {'host': {}, 'host_metrics': {}}
    for one in uuids:
        raw['host_metrics'][f"m-{one}"] = {
            'uuid': f"m-{one}",
            'live': one not in dead,
        }
        raw['host'][f"h-{one}"] = {
            'uuid': one,
            'name_label': f"name-{one}",
            'address': places.get(one, '127.1.0.99'),
            'metrics': f"m-{one}",
        }
    raw['pool'] = {'p': {'uuid': uuid, 'master': f"h-{uuids[0]}"}}
    return raw_pools.parse(raw)


def known(
    records: snapshot.PoolSnapshot | None, members: typing.Any = MEMBERS
) -> identity.Known:
    return identity.Known(pool_uuid=OURS, members=members, pool=records)


def names(address: str, named: str = '') -> identity.Sighting:
    return identity.Sighting(master=address, named=named)


def serves(own: snapshot.PoolSnapshot) -> identity.Sighting:
    return identity.Sighting(master='', own=own)


ALL = pool('a', 'b', 'c')
B_DEAD = pool('a', 'b', 'c', dead='b')
B_GONE = pool('a', 'c')
AT_B = {'new': ADDRESSES['b']}

CASES = [
    ('a member that names the master', ALL, names('127.1.0.1'), Who.MEMBER),
    ('a member that names a dead one', ALL, names('127.1.0.3'), Who.MEMBER),
    ('held for dead, names us', B_DEAD, names('127.1.0.1'), Who.MEMBER),
    ('held for dead, names others', B_DEAD, names('127.9.0.1'), Who.STRANGER),
    ('forgotten, and names us', B_GONE, names('127.1.0.1'), Who.LOST),
    ('forgotten, and names others', B_GONE, names('127.9.0.1'), Who.STRANGER),
    (
        'installed anew, and joined by hand',
        pool('a', 'b', 'new', dead='b', at=AT_B),
        names('127.1.0.1'),
        Who.ANEW,
    ),
    (
        'installed anew',
        B_DEAD,
        serves(pool('new', uuid=OTHER, at=AT_B)),
        Who.ANEW,
    ),
    (
        'installed anew, and another pool since',
        B_DEAD,
        serves(pool('new', 'x', uuid=OTHER, at=AT_B)),
        Who.STRANGER,
    ),
    ('ejected', B_GONE, serves(pool('b', uuid=OTHER)), Who.LEFT),
    ('its record left behind', ALL, serves(pool('b', uuid=OTHER)), Who.LEFT),
    (
        'ejected, before its first boot',
        ALL,
        serves(pool('b', uuid=OTHER, at={'b': ''})),
        Who.LEFT,
    ),
    (
        'a copied disk',
        ALL,
        serves(pool('b', uuid=OTHER, at={'b': '127.1.0.77'})),
        Who.COPY,
    ),
    (
        'a copy of the master, pool and all',
        ALL,
        serves(pool('a', at={'a': '127.1.0.2'})),
        Who.COPY,
    ),
    ('a second master', ALL, serves(pool('b', 'a', 'c')), Who.RIVAL),
    ('one that we forgot', B_GONE, serves(pool('b', 'a', 'c')), Who.RIVAL),
    ('one that forgot us', ALL, serves(pool('b')), Who.RIVAL),
    (
        'the pool uuid of ours, and nothing else',
        B_DEAD,
        serves(pool('new', at=AT_B)),
        Who.ANEW,
    ),
    (
        'starting',
        ALL,
        identity.Sighting(code='HOST_STILL_BOOTING', reason='starts'),
        Who.STARTING,
    ),
    (
        'a wrong password',
        ALL,
        identity.Sighting(code='SESSION_AUTHENTICATION_FAILED'),
        Who.LOCKED,
    ),
    (
        'another certificate',
        ALL,
        identity.Sighting(untrusted=True),
        Who.LOCKED,
    ),
    ('silence', ALL, identity.Sighting(reason='no answer'), Who.NOBODY),
]


@pytest.mark.parametrize(
    ('records', 'seen', 'who'),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_who_answers_at_the_address_of_a_member(
    records: snapshot.PoolSnapshot, seen: identity.Sighting, who: Who
) -> None:
    assert identity.tell(seen, known(records), 'xen02').who is who


def test_the_master_itself() -> None:
    found = identity.tell(serves(ALL), known(ALL), 'xen01')
    assert found.who is Who.MEMBER
    assert found.record is not None
    assert found.record.uuid == 'a'


def test_without_a_master_members_are_those_who_name_one_of_us() -> None:
    nobody = known(None)
    waits = identity.tell(names('127.1.0.1', 'xen01'), nobody, 'xen02')
    anew = identity.tell(serves(pool('new', uuid=OTHER)), nobody, 'xen01')
    left = identity.tell(serves(pool('a', uuid=OTHER)), nobody, 'xen01')
    other = identity.tell(names('127.9.0.1'), nobody, 'xen02')
    assert (waits.who, anew.who, left.who, other.who) == (
        Who.MEMBER,
        Who.ANEW,
        Who.LEFT,
        Who.STRANGER,
    )


def test_a_host_that_is_no_member() -> None:
    free = identity.tell_records(pool('d', uuid=OTHER), ALL)
    same_pool_uuid = identity.tell_records(pool('d'), ALL)
    copy = identity.tell_records(pool('a', at={'a': '127.1.0.9'}), ALL)
    master = identity.tell_records(ALL, ALL)
    assert (free.who, same_pool_uuid.who, copy.who, master.who) == (
        Who.ALONE,
        Who.ALONE,
        Who.COPY,
        Who.MEMBER,
    )


@pytest.mark.parametrize(
    ('one', 'other', 'same'),
    [
        ('127.0.0.1', '127.0.0.1', True),
        ('[FD00::1]', 'fd00:0::1', True),
        ('XEN01.example.', 'xen01.example', True),
        ('127.0.0.1', '127.0.0.2', False),
    ],
)
def test_addresses_written_anyhow(one: str, other: str, same: bool) -> None:
    assert identity.same_address(one, other) is same
