# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What we take for granted of XAPI, asked of the simulator and of a real one.

With ``XENPOOL_TEST_URL`` (and ``XENPOOL_TEST_PASSWORD``; the user is root
unless ``XENPOOL_TEST_USER`` says otherwise) the same is asked of that host,
which must be the coordinator of its pool. Nothing is changed there: there are
logins, reads, and joins that are bound to be refused.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import re
import ssl
import typing
import urllib.request

import orjson
import pytest
import XenAPI

from xenpool_driver import conf, exceptions, snapshot
from xenpool_driver.preflight import join
from xenpool_driver.simulator import datamodel, simulation
from xenpool_driver.xapi import client, connections, jsonrpc

ADDRESS = f"127.90.{2 + os.getpid() % 8}.1"

pytestmark = pytest.mark.timeout(300)


@dataclasses.dataclass(frozen=True)
class Peer:
    """A host to be asked.

    :ivar is_real: whether it is no simulated one.
    """

    url: str
    user: str
    password: str = dataclasses.field(repr=False)
    is_real: bool

    @property
    def address(self) -> str:
        """What a join would be given."""
        return self.access.address

    @property
    def access(self) -> conf.HostAccess:
        """How our own client reaches it."""
        return conf.HostAccess(
            'peer', self.url, self.user, self.password, insecure=True
        )

    def post(self, method: str, *params: typing.Any) -> typing.Any:
        """Make a call by JSON-RPC 2.0; return the decoded envelope."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        body = {'jsonrpc': '2.0', 'method': method, 'params': params, 'id': 7}
        request = urllib.request.Request(
            f"{self.url}/jsonrpc",
            orjson.dumps(body),
            {'Content-Type': 'application/json'},
        )
        with urllib.request.urlopen(
            request, timeout=120, context=context
        ) as answer:
            return orjson.loads(answer.read())


@pytest.fixture(scope='module', params=['simulated', 'real'])
def peer(
    request: pytest.FixtureRequest,
) -> collections.abc.Iterator[Peer]:
    if request.param == 'real':
        url = os.environ.get('XENPOOL_TEST_URL')
        if not url:
            pytest.skip('XENPOOL_TEST_URL names no host')
        user = os.environ.get('XENPOOL_TEST_USER', 'root')
        password = os.environ.get('XENPOOL_TEST_PASSWORD', '')
        yield Peer(url.rstrip('/'), user, password, True)
        return
    with simulation.Simulation(
        hosts=1, address=ADDRESS, http_port=None, time_scale=20, seed=1
    ) as running:
        yield Peer(running.hosts[0].url, 'root', 'xenroot', False)


@pytest.fixture
def session(peer: Peer) -> collections.abc.Iterator[XenAPI.Session]:
    """A plain session of other people's."""
    made = XenAPI.Session(peer.url, ignore_ssl=True)
    try:
        made.xenapi.login_with_password(
            peer.user, peer.password, '1.0', 'xenpool-contract'
        )
        yield made
        made.xenapi.session.logout()
    finally:
        made('close')()


@pytest.fixture
def door(peer: Peer) -> collections.abc.Iterator[client.Client]:
    """Our own client."""
    made = connections.Connections({'peer': peer.access})
    yield made.client('peer')
    made.close()


def told(call: collections.abc.Callable[[], object]) -> list[str]:
    """Return what a call is refused with."""
    with pytest.raises(XenAPI.Failure) as caught:
        call()
    details: list[str] = caught.value.details
    return details


# -- logins ---------------------------------------------------------------


def test_a_wrong_password_is_told_as_such(peer: Peer) -> None:
    envelope = peer.post(
        'session.login_with_password', peer.user, 'surely wrong', '1.0', 'x'
    )
    assert envelope['error']['message'] == 'SESSION_AUTHENTICATION_FAILED'
    assert envelope['error']['data'][0] == peer.user


def test_a_session_that_is_none(peer: Peer) -> None:
    envelope = peer.post('host.get_all', 'OpaqueRef:none')
    assert envelope['error'] == {
        'code': 1,
        'message': 'SESSION_INVALID',
        'data': ['OpaqueRef:none'],
    }
    assert envelope['id'] == 7


# -- refusals ---------------------------------------------------------------


def test_what_does_not_exist(session: XenAPI.Session) -> None:
    xapi = session.xenapi
    assert told(lambda: xapi.host.no_such_message()) == [
        'MESSAGE_METHOD_UNKNOWN',
        'host.no_such_message',
    ]
    assert told(lambda: xapi.host.get_record('OpaqueRef:none')) == [
        'HANDLE_INVALID',
        'host',
        'OpaqueRef:none',
    ]
    assert told(lambda: xapi.host.get_by_uuid('none')) == [
        'UUID_INVALID',
        'host',
        'none',
    ]


def test_a_wrong_number_of_parameters(session: XenAPI.Session) -> None:
    assert told(lambda: session.xenapi.host.get_record()) == [
        'MESSAGE_PARAMETER_COUNT_MISMATCH',
        'host.get_record',
        '1',
        '0',
    ]


# -- reads ----------------------------------------------------------------


@pytest.mark.parametrize('cls', snapshot.DUMP_CLASSES)
def test_records_are_what_the_data_model_says(
    cls: str, peer: Peer, session: XenAPI.Session
) -> None:
    """In both encodings; a release may know fewer fields, or other ones."""
    by_xml = getattr(session.xenapi, cls).get_all_records()
    envelope = peer.post(f"{cls}.get_all_records", session.handle)
    by_json = jsonrpc.alike(envelope['result'])
    assert set(by_xml) == set(by_json)
    known = datamodel.load().classes[cls].fields
    for ref, record in by_xml.items():
        assert ref.startswith('OpaqueRef:')
        for name in set(record) & set(known):
            if known[name].type.kind != 'float':
                assert is_of(known[name].type, record[name]), (name, record)
            if known[name].type.kind in ('string', 'int', 'bool', 'ref'):
                changes = name in {'physical_utilisation', 'last_active'}
                assert changes or record[name] == by_json[ref][name]
        missing = set(known) - set(record)
        assert peer.is_real or not missing


def is_of(kind: datamodel.Type, value: typing.Any) -> bool:
    """Tell whether a value decoded from XML-RPC is of a type."""
    if kind.kind == 'int':
        return isinstance(value, str) and bool(re.fullmatch('-?[0-9]+', value))
    if kind.kind == 'bool':
        return isinstance(value, bool)
    if kind.kind == 'ref':
        return isinstance(value, str)
    if kind.kind == 'set' and kind.of is not None:
        return isinstance(value, list) and all(
            is_of(kind.of, v) for v in value
        )
    if kind.kind == 'map':
        return isinstance(value, dict)
    return kind.kind == 'datetime' or isinstance(value, str)


def test_our_client_reads_a_snapshot(door: client.Client) -> None:
    found = door.snapshot()
    assert found.coordinator is not None
    assert found.pool is not None
    assert not found.unreadable
    assert found.clock_offset is not None
    _, uuid = door.this_host()
    assert found.coordinator.uuid == uuid


def test_every_call_of_ours_is_offered(session: XenAPI.Session) -> None:
    offered = set(session.system.listMethods())
    wanted = {
        *(f"{cls}.get_all_records" for cls in snapshot.DUMP_CLASSES),
        'pool.join',
        'pool.join_force',
        'pool.eject',
        'pool.designate_new_master',
        'pool.emergency_transition_to_master',
        'pool.emergency_reset_master',
        'pool.recover_slaves',
        'pool.sync_database',
        'host.get_servertime',
        'host.evacuate',
        'host.destroy',
        'task.get_record',
        'event.from',
    }
    assert wanted <= offered


def test_the_first_events_hold_everything(session: XenAPI.Session) -> None:
    batch = getattr(session.xenapi.event, 'from')(['host', 'pool'], '', 30.0)
    assert re.fullmatch('[0-9]+,[0-9]+', batch['token'])
    seen = {
        event['ref']: event['snapshot']['uuid']
        for event in batch['events']
        if event['operation'] == 'add' and event['class'] == 'host'
    }
    hosts = session.xenapi.host.get_all_records()
    assert seen == {ref: host['uuid'] for ref, host in hosts.items()}
    counts = batch['valid_ref_counts']
    assert int(counts['host']) == len(hosts)


# -- joins that are bound to be refused -----------------------------------


def refused_join(
    session: XenAPI.Session, peer: Peer, password: str, force: bool
) -> list[str]:
    """Let a host join itself: it cannot, whatever else is the matter."""
    pool = session.xenapi.pool
    verb = pool.join_force if force else pool.join
    return told(lambda: verb(peer.address, peer.user, password))


@pytest.mark.parametrize('force', [False, True])
def test_a_host_cannot_join_itself(
    peer: Peer, session: XenAPI.Session, door: client.Client, force: bool
) -> None:
    seen = door.snapshot()
    report = join.check(
        seen, seen, force=force, live=join.LiveFacts(pool_login=())
    )
    assert report.first_refusal is not None
    got = refused_join(session, peer, peer.password, force)
    assert got == list(report.first_refusal)
    assert session.xenapi.pool.get_all() == [seen.pool and seen.pool.ref]


def test_a_join_with_a_wrong_password(
    peer: Peer, session: XenAPI.Session, door: client.Client
) -> None:
    wrong = conf.HostAccess(
        'peer', peer.url, peer.user, 'surely wrong', insecure=True
    )
    stranger = connections.Connections({'peer': wrong})
    with pytest.raises(exceptions.XapiRefused) as caught:
        stranger.client('peer')
    stranger.close()
    answer = (caught.value.code, *caught.value.params)
    seen = door.snapshot()
    report = join.check(seen, seen, live=join.LiveFacts(pool_login=answer))
    assert report.first_refusal is not None
    got = refused_join(session, peer, 'surely wrong', False)
    assert got[:2] == list(report.first_refusal[:2])
