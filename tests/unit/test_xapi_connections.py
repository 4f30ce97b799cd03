# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Which host is asked, and who is believed to be the master."""

from __future__ import annotations

import collections.abc
import contextlib
import logging
import threading
import typing

import pytest

from tests.unit import scripted_host
from xenpool_driver import conf, exceptions
from xenpool_driver.xapi import connections, discovery, session

LOGIN = 'session.login_with_password'
POOL = 'uuid-pool'


class Town:
    """Some hosts on one port, by compute host name."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.hosts: dict[str, scripted_host.ScriptedHost] = {}
        self._stack = stack
        self._port = 0

    def host(self, name: str) -> scripted_host.ScriptedHost:
        """Return a host, made when it is first named."""
        if name not in self.hosts:
            made = scripted_host.ScriptedHost(port=self._port)
            self._port = made.port
            self.hosts[name] = self._stack.enter_context(made)
        return self.hosts[name]

    def master(
        self,
        name: str,
        members: collections.abc.Iterable[str] = (),
        pool: str = POOL,
    ) -> scripted_host.ScriptedHost:
        """Let a host serve a pool of these members and itself."""
        host = self.host(name)
        uuids = {name, *members}
        host.master = None
        host.answers['pool.get_all_records'] = lambda: {
            'OpaqueRef:p': {'uuid': pool}
        }
        host.answers['host.get_all_records'] = lambda: {
            f"OpaqueRef:{uuid}": {'uuid': f"uuid-{uuid}"} for uuid in uuids
        }
        return host

    def member(self, name: str, of: str) -> scripted_host.ScriptedHost:
        """Let a host be a member of the pool of another one."""
        host = self.host(name)
        host.master = self.host(of).address
        host.sessions.clear()
        return host

    def doors(self, *names: str, **settings: typing.Any) -> typing.Any:
        """Return connections to the named hosts, or to all."""
        probe = settings.pop('probe_timeout', 2.0)
        known = {
            name: self.hosts[name].access(name=name, **settings)
            for name in names or self.hosts
        }
        return connections.Connections(known, probe_timeout=probe)


@pytest.fixture
def town() -> collections.abc.Iterator[Town]:
    with contextlib.ExitStack() as stack:
        yield Town(stack)


def uuids(*names: str) -> dict[str, str | None]:
    return {name: f"uuid-{name}" for name in names}


def silent(*args: typing.Any) -> typing.NoReturn:
    raise scripted_host.Silence


def test_client_is_of_that_very_host(town: Town) -> None:
    town.master('a', 'b')
    town.member('b', of='a')
    doors = town.doors()
    assert doors.client('a').name == 'a'
    with pytest.raises(exceptions.NotPoolMaster) as caught:
        doors.client('b')
    assert caught.value.address == town.host('a').address


def test_login_is_reused(town: Town) -> None:
    town.master('a')
    doors = town.doors()
    for _ in range(3):
        doors.client('a')
        doors.coordinator_of('a')
    assert town.host('a').count(LOGIN) == 1


def test_unknown_host_is_named(town: Town) -> None:
    town.master('a')
    with pytest.raises(exceptions.ConfigurationError, match="'xen99'"):
        town.doors().client('xen99')


def test_wrong_password_is_a_refusal(town: Town) -> None:
    town.master('a')
    with pytest.raises(exceptions.XapiRefused) as caught:
        town.doors(password='wrong').client('a')
    assert caught.value.code == 'SESSION_AUTHENTICATION_FAILED'


def test_member_leads_to_its_master(town: Town) -> None:
    town.master('a', 'b')
    town.member('b', of='a')
    assert town.doors().coordinator_of('b').name == 'a'


def test_master_that_is_not_configured_is_reached_the_same_way(
    town: Town,
) -> None:
    town.master('a', 'b')
    town.member('b', of='a')
    doors = town.doors('b')
    found = doors.coordinator_of('b')
    assert found.url == town.host('a').url
    assert doors.access(found.name).password == scripted_host.PASSWORD
    assert doors.coordinator_of('b').name == found.name
    assert town.host('a').count(LOGIN) == 1


def test_members_that_name_each_other_have_no_master(town: Town) -> None:
    town.host('a')
    town.member('b', of='a')
    town.member('a', of='b')
    with pytest.raises(exceptions.XapiUnavailable, match='name each other'):
        town.doors().coordinator_of('a')


def test_endless_chain_is_not_followed(town: Town) -> None:
    names = [f"h{number}" for number in range(8)]
    town.host(names[0])
    for name, other in zip(names, names[1:], strict=False):
        town.member(name, of=other)
    with pytest.raises(exceptions.XapiUnavailable):
        town.doors(names[0]).coordinator_of(names[0])


def test_views_of_members(town: Town) -> None:
    town.master('a', 'b')
    town.member('b', of='a')
    town.host('c').answers[LOGIN] = silent
    booting = scripted_host.Refuse('HOST_STILL_BOOTING')

    def boot(*args: typing.Any) -> typing.NoReturn:
        raise booting

    town.host('d').answers[LOGIN] = boot
    doors = town.doors(probe_timeout=0.3)
    assert doors.member_view('a') == ''
    assert doors.member_view('b') == town.host('a').address
    assert doors.member_view('c') is None
    assert doors.member_view('d') is None
    assert not town.host('a').sessions, 'the look left a session behind'


def test_view_is_fresh(town: Town) -> None:
    town.master('a')
    doors = town.doors()
    doors.client('a')
    town.host('b')
    town.member('a', of='b')
    assert doors.member_view('a') == town.host('b').address


def test_who_names_another_master_is_no_master_for_us_any_more(
    town: Town,
) -> None:
    town.master('a')
    town.master('b')
    doors = town.doors()
    assert doors.coordinator_of('b').name == 'b'
    town.member('b', of='a')
    doors.member_view('b')
    assert doors.coordinator_of('b').name == 'a'


def test_host_that_became_a_member_since_is_told(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.master('a')
    town.master('b')
    doors = town.doors()
    doors.client('a')
    town.member('a', of='b')
    monkeypatch.setattr(session, 'TRUSTED_SECONDS', -1.0)
    with pytest.raises(exceptions.NotPoolMaster):
        doors.client('a')
    assert doors.coordinator_of('a').name == 'b'


def test_local_client_of_a_member(town: Town) -> None:
    town.master('a', 'b')
    town.member('b', of='a')
    town.host('b').answers['host.is_in_emergency_mode'] = lambda: True
    assert town.doors().local_client('b').is_in_emergency_mode()


def test_invalidated_login_is_made_anew(town: Town) -> None:
    town.master('a')
    doors = town.doors()
    doors.client('a')
    doors.invalidate('a')
    doors.client('a')
    assert town.host('a').counts()[LOGIN] == 2


def test_closing_logs_out_of_living_hosts(town: Town) -> None:
    town.master('a')
    town.master('b')
    doors = town.doors(probe_timeout=0.3)
    doors.client('a')
    doors.client('b')
    town.host('b').answers['session.logout'] = silent
    doors.close()
    assert not town.host('a').sessions


# Finding the master


def test_master_is_found_from_any_member(town: Town) -> None:
    town.master('c', 'ab')
    town.member('a', of='c')
    town.member('b', of='c')
    doors = town.doors()
    assert doors.find_coordinator(uuids(*'abc'), POOL).name == 'c'
    assert doors.find_coordinator(uuids(*'ab'), POOL).name == 'c'


def test_master_is_found_where_others_hang_or_are_down(town: Town) -> None:
    town.master('c', 'ab')
    town.member('a', of='c')
    town.host('b').answers[LOGIN] = silent
    with town.host('d'):
        pass
    doors = town.doors(probe_timeout=0.5)
    assert doors.find_coordinator(uuids(*'abcd'), POOL).name == 'c'


def test_majority_that_agrees_waits_for_nobody(town: Town) -> None:
    town.master('a', 'bc')
    town.member('b', of='a')
    town.host('c').answers[LOGIN] = silent
    doors = town.doors(probe_timeout=3600.0, read_timeout=3600.0)
    found = threading.Event()

    def look() -> None:
        doors.find_coordinator(uuids(*'abc'), POOL)
        found.set()

    threading.Thread(target=look, daemon=True).start()
    assert found.wait(60)


def test_ejected_host_is_not_the_master(town: Town) -> None:
    town.master('a', 'b')
    town.member('b', of='a')
    town.master('c', pool='uuid-other')
    doors = town.doors()
    assert doors.find_coordinator(uuids(*'abc'), POOL).name == 'a'
    assert doors.find_coordinator(uuids(*'abc'), None).name == 'a'
    with pytest.raises(exceptions.XapiUnavailable, match='another pool'):
        doors.find_coordinator(uuids('c'), POOL)


def test_ejected_host_that_alone_answers_is_not_the_master(
    town: Town,
) -> None:
    town.host('a')
    town.host('a').answers[LOGIN] = silent
    town.master('c', pool='uuid-other')
    doors = town.doors(probe_timeout=0.3)
    for pool_uuid in (POOL, None):
        with pytest.raises(exceptions.XapiUnavailable, match='another pool'):
            doors.find_coordinator(uuids('a', 'c'), pool_uuid)


def test_host_of_an_unknown_uuid_is_taken_at_its_word(town: Town) -> None:
    town.master('a')
    assert town.doors().find_coordinator({'a': None}, None).name == 'a'


def test_pool_of_strangers_is_not_ours(town: Town) -> None:
    town.master('x', 'yz')
    doors = town.doors()
    with pytest.raises(exceptions.XapiUnavailable, match='another pool'):
        doors.find_coordinator({'x': 'uuid-a'}, None)


def test_old_master_with_an_old_database_is_outvoted(town: Town) -> None:
    town.master('z')  # knows nobody, but has the pool's uuid
    town.master('b', 'acz')
    town.member('a', of='b')
    town.member('c', of='b')
    assert town.doors().find_coordinator(uuids(*'abcz'), POOL).name == 'b'


def test_old_master_about_to_step_back_is_outvoted(town: Town) -> None:
    town.master('z', 'abc')  # serves for a second after its return
    town.master('b', 'acz')
    town.member('a', of='b')
    town.member('c', of='b')
    assert town.doors().find_coordinator(uuids(*'abcz'), POOL).name == 'b'


def test_without_votes_who_knows_more_members_is_the_master(
    town: Town,
) -> None:
    town.master('z')
    town.master('a', 'z')
    assert town.doors().find_coordinator(uuids(*'az'), POOL).name == 'a'


def test_nobody_is_the_master(town: Town) -> None:
    town.host('a')
    town.member('b', of='a')
    town.host('a').answers[LOGIN] = silent
    town.host('c').answers[LOGIN] = silent
    with pytest.raises(exceptions.XapiUnavailable) as caught:
        town.doors(probe_timeout=0.3).find_coordinator(uuids(*'abc'), POOL)
    text = str(caught.value)
    assert f"b: is a member of {town.host('a').address}" in text
    assert 'a: ' in text
    assert 'c: ' in text


def test_many_dead_members_are_asked_at_the_same_time(town: Town) -> None:
    names = [f"h{number}" for number in range(12)]
    gate = threading.Barrier(len(names))

    def together(*args: typing.Any) -> typing.NoReturn:
        gate.wait(30)
        raise scripted_host.Refuse('HOST_STILL_BOOTING')

    for name in names:
        town.host(name).answers[LOGIN] = together
    doors = town.doors(probe_timeout=60.0, read_timeout=60.0)
    with pytest.raises(exceptions.XapiUnavailable) as caught:
        doors.find_coordinator(uuids(*names), POOL)
    assert str(caught.value).count('HOST_STILL_BOOTING') == 12


def test_addresses_are_compared_as_addresses() -> None:
    assert discovery.same_address('fd00::1', '[FD00:0:0::1]')
    assert discovery.same_address('Xen01.example.', 'xen01.EXAMPLE')
    assert not discovery.same_address('192.0.2.1', '192.0.2.11')


def test_master_at_an_ipv6_address_has_a_url() -> None:
    origin = conf.HostAccess('a', 'https://[fd00::2]:8443', 'root', 'pw')
    doors = connections.Connections({'a': origin})
    assert doors._access_at('fd00::1', origin).url == 'https://[fd00::1]:8443'


def test_named_address_of_a_configured_name_is_that_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        discovery,
        'resolved',
        lambda name: frozenset({'192.0.2.1'} if name == 'xen01.lan' else ()),
    )
    access = conf.HostAccess('xen01', 'https://xen01.lan', 'root', 'theirs')
    origin = conf.HostAccess('xen02', 'https://xen02.lan', 'root', 'pw')
    doors = connections.Connections({'xen01': access, 'xen02': origin})
    assert doors._access_at('192.0.2.1', origin) is access


def test_unsafe_connections_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def access(name: str, url: str, **more: typing.Any) -> conf.HostAccess:
        return conf.HostAccess(name, url, 'root', 'pw', **more)

    doors = connections.Connections(
        {
            'a': access('a', 'https://192.0.2.1', insecure=True),
            'b': access('b', 'https://192.0.2.2'),
            'c': access('c', 'http://192.0.2.3'),
        }
    )
    for name in 'abc':
        doors.access(name)
        doors._home(doors.access(name))
    warnings = [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING
    ]
    assert len(warnings) == 2
    assert 'Host a: its certificate is not verified' in warnings[0]
    assert 'Host c: http://192.0.2.3 is not encrypted' in warnings[1]
