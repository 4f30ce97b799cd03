# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A wrong request leaves metadata and XAPI exactly as they were.

Compared are the whole store and every record of every class of every pool
(sessions and tasks apart), before and after.
"""

from __future__ import annotations

import collections.abc
import contextlib

import pytest
import trustme

from tests.functional import workbench
from xenpool_driver import exceptions, pool_states

ADD = exceptions.InvalidAggregateActionAdd
DELETE = exceptions.InvalidAggregateActionDelete
UPDATE = exceptions.InvalidAggregateActionUpdate


@pytest.fixture(scope='module')
def bench(
    tmp_path_factory: pytest.TempPathFactory,
) -> collections.abc.Iterator[workbench.Bench]:
    with workbench.furnished(tmp_path_factory.mktemp('bench')) as made:
        yield made


Wrong = collections.abc.Callable[[workbench.Bench], object]

REFUSED: dict[str, tuple[Wrong, type[Exception], str]] = {
    'add: in another aggregate': (
        lambda bench: bench.add('rack1', 'xen03'),
        ADD,
        "'xen03' is in aggregate 'rack2'",
    ),
    'add: first host, in another aggregate': (
        lambda bench: bench.add('created', 'xen01'),
        ADD,
        "'xen01' is in aggregate 'rack1'",
    ),
    'add: unknown host': (
        lambda bench: bench.add('rack1', 'nobody'),
        exceptions.ConfigurationError,
        "'nobody' is unknown",
    ),
    'add: in changing': (
        lambda bench: bench.add('changing', 'xen04'),
        ADD,
        'setup in progress',
    ),
    'add: in error': (
        lambda bench: bench.add('error', 'xen04'),
        ADD,
        'aggregate in error',
    ),
    'add: dismissed': (
        lambda bench: bench.add('dismissed', 'xen04'),
        ADD,
        'aggregate deleted',
    ),
    'remove: no member': (
        lambda bench: bench.remove('rack1', 'xen04'),
        DELETE,
        "'xen04' is not in the aggregate",
    ),
    'remove: member of another': (
        lambda bench: bench.remove('rack1', 'xen03'),
        DELETE,
        "'xen03' is not in the aggregate",
    ),
    'remove: master of others': (
        lambda bench: bench.remove('rack1', 'xen01', allow_data_loss=True),
        DELETE,
        'xen01 is the master',
    ),
    'remove: master, unknown successor': (
        lambda bench: bench.remove(
            'rack1', 'xen01', allow_data_loss=True, successor='xen04'
        ),
        DELETE,
        "'xen04' is not in the aggregate",
    ),
    'remove: master whose disks would be wiped, with a successor': (
        lambda bench: bench.remove('rack1', 'xen01', successor='xen02'),
        DELETE,
        'would be wiped',
    ),
    'remove: its own successor': (
        lambda bench: bench.remove(
            'rack1', 'xen01', allow_data_loss=True, successor='xen01'
        ),
        DELETE,
        'xen01 is the master',
    ),
    'remove: disks would be wiped': (
        lambda bench: bench.remove('rack1', 'xen02'),
        DELETE,
        'data',
    ),
    'remove: forget the living': (
        lambda bench: bench.remove('rack1', 'xen02', forget=True),
        DELETE,
        "'xen02' answers",
    ),
    'remove: forget the living, last': (
        lambda bench: bench.remove('rack2', 'xen03', forget=True),
        DELETE,
        "'xen03' answers",
    ),
    'remove: in created': (
        lambda bench: bench.remove('created', 'xen04'),
        DELETE,
        'no hosts to remove',
    ),
    'remove: in changing': (
        lambda bench: bench.remove('changing', 'xen04'),
        DELETE,
        'setup in progress',
    ),
    'remove: in error': (
        lambda bench: bench.remove('error', 'xen04'),
        DELETE,
        "'xen04' is not in the aggregate",
    ),
    'remove: dismissed': (
        lambda bench: bench.remove('dismissed', 'xen04'),
        DELETE,
        'aggregate deleted',
    ),
    'set master: no member': (
        lambda bench: bench.set_master('rack1', 'xen04'),
        UPDATE,
        "'xen04' is not in the aggregate",
    ),
    'set master: in created': (
        lambda bench: bench.set_master('created', 'xen04'),
        UPDATE,
        'no master to change',
    ),
    'set master: in changing': (
        lambda bench: bench.set_master('changing', 'xen04'),
        UPDATE,
        'setup in progress',
    ),
    'set master: in error': (
        lambda bench: bench.set_master('error', 'xen04'),
        UPDATE,
        'aggregate in error',
    ),
    'set master: dismissed': (
        lambda bench: bench.set_master('dismissed', 'xen04'),
        UPDATE,
        'aggregate deleted',
    ),
    'promote: the master lives': (
        lambda bench: bench.promote('rack1', 'xen02'),
        UPDATE,
        'use set master',
    ),
    'promote: no member': (
        lambda bench: bench.promote('rack1', 'xen04'),
        UPDATE,
        "'xen04' is not in the aggregate",
    ),
    'adopt: owned already': (
        lambda bench: bench.adopt('created', 'xen02'),
        ADD,
        'belongs to the aggregate',
    ),
    'adopt: not a new aggregate': (
        lambda bench: bench.adopt('rack2', 'xen04'),
        ADD,
        'only a new aggregate',
    ),
    'adopt: unknown host': (
        lambda bench: bench.adopt('created', 'nobody'),
        exceptions.ConfigurationError,
        "'nobody' is unknown",
    ),
    'dismiss: hosts remain': (
        lambda bench: bench.dismiss('rack1'),
        DELETE,
        'xen01, xen02',
    ),
    'dismiss: in changing': (
        lambda bench: bench.dismiss('changing'),
        DELETE,
        'setup in progress',
    ),
    'dismiss: twice': (
        lambda bench: bench.dismiss('dismissed'),
        DELETE,
        'aggregate deleted',
    ),
    'create: a name in use': (
        lambda bench: bench.api.create('rack1'),
        exceptions.AggregateNameExists,
        "'rack1'",
    ),
    'create: too long a name': (
        lambda bench: bench.api.create('x' * 256),
        exceptions.InvalidText,
        '255',
    ),
    'create: no name': (
        lambda bench: bench.api.create(''),
        exceptions.InvalidText,
        'name',
    ),
    'create: a key of the lifecycle': (
        lambda bench: bench.api.create('rack9', {pool_states.STATE: 'active'}),
        UPDATE,
        pool_states.STATE,
    ),
    'set: a key of the lifecycle': (
        lambda bench: bench.api.update(
            None, 'error', metadata={pool_states.STATE: 'active'}
        ),
        UPDATE,
        pool_states.STATE,
    ),
    'set: the key of a host': (
        lambda bench: bench.api.update(
            None, 'rack1', metadata={'xen02': None}
        ),
        UPDATE,
        'xen02',
    ),
    'set: too long a value': (
        lambda bench: bench.api.update(
            None, 'rack1', metadata={'rack': 'x' * 256}
        ),
        exceptions.InvalidText,
        '255',
    ),
    'set: of no aggregate': (
        lambda bench: bench.api.update(None, 'rack7', metadata={'a': 'b'}),
        exceptions.AggregateNotFound,
        "'rack7'",
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_wrong_request_changes_nothing(
    bench: workbench.Bench, name: str
) -> None:
    request, error, words = REFUSED[name]
    before = bench.everything()

    with pytest.raises(error, match=words):
        request(bench)

    assert bench.everything() == before


@contextlib.contextmanager
def wrong_password(
    bench: workbench.Bench,
) -> collections.abc.Iterator[workbench.Bench]:
    with bench.configured('xen04', 'connection_password = no') as found:
        yield found


@contextlib.contextmanager
def wrong_certificate(
    bench: workbench.Bench,
) -> collections.abc.Iterator[workbench.Bench]:
    path = bench.directory / 'other-ca.pem'
    trustme.CA().cert_pem.write_to_path(str(path))
    with bench.configured('xen04', f"ca_file = {path}") as found:
        yield found


@contextlib.contextmanager
def nobody_there(
    bench: workbench.Bench,
) -> collections.abc.Iterator[workbench.Bench]:
    line = 'connection_url = https://127.70.255.254:9'
    with bench.configured('xen04', line) as found:
        yield found


@contextlib.contextmanager
def at_a_member(
    bench: workbench.Bench,
) -> collections.abc.Iterator[workbench.Bench]:
    url = bench.lab.hosts[1].url
    with bench.configured('xen04', f"connection_url = {url}") as found:
        yield found


@contextlib.contextmanager
def ha_armed(
    bench: workbench.Bench,
) -> collections.abc.Iterator[workbench.Bench]:
    database = bench.lab.named('xen04').db
    assert database is not None
    [pool] = database.all('pool')
    database.set('pool', pool, ha_enabled=True)
    try:
        yield bench
    finally:
        database.set('pool', pool, ha_enabled=False)


@contextlib.contextmanager
def stamped(
    bench: workbench.Bench,
) -> collections.abc.Iterator[workbench.Bench]:
    database = bench.lab.named('xen04').db
    assert database is not None
    [pool] = database.all('pool')
    other_config = database.get('pool', pool)['other_config']
    mine = {**other_config, pool_states.OWNER_KEY: 'somebody'}
    database.set('pool', pool, other_config=mine)
    try:
        yield bench
    finally:
        database.set('pool', pool, other_config=other_config)


@pytest.mark.parametrize(
    ('name', 'trouble', 'words'),
    [
        ('created', wrong_password, 'SESSION_AUTHENTICATION_FAILED'),
        ('created', wrong_certificate, 'certificate not trusted'),
        ('created', nobody_there, 'refuses the connection'),
        ('created', at_a_member, 'is a pool member'),
        ('created', stamped, 'somebody'),
        ('rack1', wrong_password, 'SESSION_AUTHENTICATION_FAILED'),
        ('rack1', wrong_certificate, 'certificate not trusted'),
        ('rack1', nobody_there, 'refuses the connection'),
        ('rack1', stamped, 'somebody'),
        ('rack1', ha_armed, 'HA is enabled'),
        ('rack2', at_a_member, 'is a member of another pool'),
    ],
)
def test_a_host_in_trouble_is_not_added_and_nothing_changes(
    bench: workbench.Bench,
    name: str,
    trouble: collections.abc.Callable[
        [workbench.Bench], contextlib.AbstractContextManager[workbench.Bench]
    ],
    words: str,
) -> None:
    with trouble(bench) as troubled:
        before = bench.everything()

        with pytest.raises(ADD, match=words):
            troubled.add(name, 'xen04')

        assert bench.everything() == before


def test_a_stale_write_changes_nothing(bench: workbench.Bench) -> None:
    row = bench.row('rack1')
    stale = bench.row('rack1')
    row.update_metadata({'rack': 'b'})
    before = bench.everything()

    with pytest.raises(exceptions.StaleAggregate):
        stale.update_metadata({'rack': 'c'})

    assert bench.everything() == before


def test_checks_and_audits_change_nothing(bench: workbench.Bench) -> None:
    before = bench.everything()

    for name in ('rack1', 'rack2', 'created', 'error'):
        row = bench.row(name)
        for host in ('xen01', 'xen03', 'xen04'):
            bench.plugin.check_host(None, row, host)
            bench.plugin.check_removal(None, row, host)
        bench.plugin.audit_aggregate(None, row, fix=True)
        bench.plugin.recover_aggregate(None, row)

    assert bench.everything() == before
