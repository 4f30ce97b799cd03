# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Hands out clients for hosts: one login per host, shared by all threads."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import ipaddress
import logging
import socket
import threading
import urllib.parse

from xenpool_driver import clock as clocks
from xenpool_driver import conf, exceptions, identity, sharing
from xenpool_driver.xapi import changes, discovery, passwords, session
from xenpool_driver.xapi import client as clients
from xenpool_driver.xapi import permit as permits

LOG = logging.getLogger(__name__)

MAX_HOPS = 4
"""How often HOST_IS_SLAVE is followed for one request."""


class Connections:
    """The doors to all hosts.

    All threads may use one at the same time. Nothing is sent before it is
    needed.

    :param hosts: how each host is reached, by compute host name.
    :param clock: time.
    :param session_factory: makes XenAPI sessions: called with the URL and
        ``transport=``, as ``XenAPI.Session`` is.
    :param originator: what XAPI shall record as the client.
    :param probe_timeout: seconds that a host has to say who its master is.
    """

    def __init__(
        self,
        hosts: collections.abc.Mapping[str, conf.HostAccess],
        clock: clocks.Clock = clocks.SYSTEM,
        session_factory: session.Factory = session.FACTORY,
        originator: str = 'xenpool-driver',
        probe_timeout: float = 5.0,
    ) -> None:
        self._hosts = dict(hosts)
        self._clock = clock
        self._factory = session_factory
        self._originator = originator
        self._probe_timeout = probe_timeout
        self._lock = threading.Lock()
        self._found: dict[str, conf.HostAccess] = {}
        self._tried: set[tuple[str, str]] = set()
        self._switched: dict[str, str] = {}
        self._views: dict[str, tuple[float, str | None]] = {}
        self._known: dict[str, tuple[float, object]] = {}
        self._homes: dict[tuple[str, bool], session.HostSession] = {}
        for access in self._hosts.values():
            _warn(access)

    def access(self, host_name: str) -> conf.HostAccess:
        """Return how a host is reached.

        :param host_name: the compute host name, or the name of a client
            that this object gave out.
        :raises ConfigurationError: it is not configured.
        """
        found = self._hosts.get(host_name) or self._found.get(host_name)
        if found is None:
            raise exceptions.ConfigurationError(
                f"host '{host_name}' is unknown: no section [{host_name}] "
                f"in the configuration"
            )
        return found

    def name_at(self, address: str) -> str | None:
        """Return the compute host name that is configured for an address.

        :param address: as XAPI writes it.
        """
        access = self._configured_at(address)
        return None if access is None else access.name

    def client(
        self, host_name: str, timeout: float | None = None
    ) -> clients.Client:
        """Return a client that is logged in to this very host.

        :param host_name: the compute host name.
        :param timeout: seconds for the login; None: the host's timeouts.
        :raises ConfigurationError: it is not configured.
        :raises NotPoolMaster: it is a pool member.
        :raises XapiRefused: the credentials are wrong.
        :raises XapiUnavailable: it does not answer.
        """
        home = self._home(self.access(host_name))
        home.login(timeout)
        return clients.Client(home, self._clock)

    def coordinator_of(
        self,
        host_name: str,
        timeout: float | None = None,
        members: collections.abc.Iterable[str] = (),
    ) -> clients.Client:
        """Return a client of the master that a host names.

        :param host_name: the compute host name.
        :param timeout: seconds for each login; None: the hosts' timeouts.
        :param members: the hosts whose passwords are tried at a master that
            refuses that of its own section.
        :raises XapiUnavailable: the members name each other, or as
            :meth:`client`.
        """
        access = self.access(host_name)
        seen: list[str] = []
        while len(seen) <= MAX_HOPS:
            if access.url in seen:
                break
            seen.append(access.url)
            home = self._home(access)
            try:
                home.login(timeout)
            except exceptions.NotPoolMaster as error:
                access = self._access_at(error.address, access)
                continue
            except exceptions.XapiRefused as error:
                if error.code != passwords.REFUSED_CODE or not self._let_in(
                    access.name, members
                ):
                    raise
                home = self._home(self.access(access.name))
                home.login(timeout)
            return clients.Client(home, self._clock)
        raise exceptions.XapiUnavailable(
            f"no master: the hosts name each other ({' -> '.join(seen)})",
            host_name,
        )

    def reach(self, name: str, address: str) -> conf.HostAccess:
        """Return how a host is reached that this or another worker knew.

        :param name: what the host was called there.
        :param address: its address.
        :raises ConfigurationError: no host is configured.
        """
        found = self._hosts.get(name)
        if found is not None:
            return found
        for origin in self._hosts.values():
            return self._access_at(address, origin)
        raise exceptions.ConfigurationError('no host is configured')

    def at(
        self, name: str, address: str, timeout: float | None = None
    ) -> clients.Client:
        """Return a client that is logged in to the host of a journal.

        :param name: what the host was called.
        :param address: its address.
        :param timeout: seconds for the login; None: the host's timeouts.
        :raises XapiError: as :meth:`client`.
        """
        home = self._home(self.reach(name, address))
        home.login(timeout)
        return clients.Client(home, self._clock)

    def local_client(self, host_name: str) -> clients.LocalClient:
        """Return a client of the host itself, whoever its master is.

        :param host_name: the compute host name.
        :raises ConfigurationError: it is not configured.
        :raises XapiRefused: the credentials are wrong.
        :raises XapiUnavailable: it does not answer.
        """
        home = self._home(self.access(host_name), local=True)
        home.login()
        return clients.LocalClient(home, self._clock)

    def logins(self, permit: permits.Permit) -> changes.Logins:
        """Return the doors through which an operation changes things.

        :param permit: the operation's right to do so.
        """
        return changes.Logins(
            permit, self._clock, self._factory, self._probe_timeout
        )

    def sign_in(self, host_name: str, pool: str | None) -> passwords.Login:
        """Make sure that a host takes a password of ours; say which.

        If it refuses its own and takes its pool's, it is reached with the
        pool's from now on. That one is tried once per host, and shown only
        to a host whose certificate is verified; it is kept in memory alone.

        :param host_name: the compute host name.
        :param pool: a host whose section has the pool's password; None:
            there is no other one to try.
        :raises ConfigurationError: one of the two is not configured.
        """
        access = self.access(host_name)
        home = self._home(access, local=True)
        try:
            home.login(self._probe_timeout)
        except exceptions.XapiError as error:
            reason = str(error).removeprefix(f"{host_name}: ")
            if error.code != passwords.REFUSED_CODE:
                return passwords.Login(passwords.Taken.SILENT, reason)
        else:
            whose = self.password_of(host_name)
            own = passwords.Taken.POOL if whose else passwords.Taken.OWN
            return passwords.Login(own, whose=whose)
        other = self.access(pool) if pool else access
        if passwords.are_alike(access, other):
            return passwords.Login(passwords.Taken.NEITHER, reason)
        if not passwords.is_verified(access):
            return passwords.Login(
                passwords.Taken.NEITHER, reason, is_untried=True
            )
        if self._takes(passwords.with_password_of(access, other), other.name):
            return passwords.Login(passwords.Taken.POOL, whose=other.name)
        return passwords.Login(passwords.Taken.NEITHER, reason)

    def password_of(self, host_name: str) -> str:
        """Return the section whose password a host takes, not its own.

        :returns: '' while it is reached with that of its own section.
        """
        with self._lock:
            return self._switched.get(host_name, '')

    def _let_in(
        self, host_name: str, members: collections.abc.Iterable[str]
    ) -> bool:
        """Say whether a host takes the password of another member.

        It is reached with that one from now on; see :meth:`sign_in`.
        """
        return host_name in self._hosts and any(
            self.sign_in(host_name, other).taken is passwords.Taken.POOL
            for other in members
            if other != host_name and other in self._hosts
        )

    def are_alike(self, host_name: str, other: str) -> bool:
        """Say whether two hosts are reached with the same credentials.

        A host that is not configured has none.
        """
        hosts = self._hosts
        if host_name not in hosts or other not in hosts:
            return False
        return passwords.are_alike(hosts[host_name], hosts[other])

    def _takes(self, access: conf.HostAccess, whose: str) -> bool:
        """Try other credentials for a host, once, and use them if it takes
        them.

        :param access: how the host is reached with them.
        :param whose: the section that they are from.
        """
        key = access.name, f"{access.username} {access.password}"
        with self._lock:
            if key in self._tried:
                return False
            self._tried.add(key)
        probe = self._new_home(access, local=True)
        try:
            probe.login(self._probe_timeout)
        except exceptions.XapiError:
            return False
        finally:
            probe.logout(self._probe_timeout)
        self.invalidate(access.name)
        with self._lock:
            self._hosts[access.name] = access
            self._switched[access.name] = whose
        return True

    def member_view(self, host_name: str) -> str | None:
        """Return whom a host takes for its master, by a login of its own.

        :param host_name: the compute host name.
        :returns: the address that it names, '' when it is master itself,
            None when it does not answer or starts.
        :raises ConfigurationError: it is not configured.
        :raises XapiRefused: it answers as a master, but not to these
            credentials.
        """
        view = self._ask_for_view(host_name)
        if view is not None:
            self._views[host_name] = (self._clock.monotonic(), view)
        if view:
            self._forget_mastership(host_name)
        return view

    def _forget_mastership(self, host_name: str) -> None:
        """Drop a member's login from the time when it was a master."""
        with self._lock:
            home = self._homes.get((self.access(host_name).url, False))
        if home is not None:
            home.forget()

    def known_view(self, host_name: str, max_age: float) -> str | None:
        """Return what :meth:`member_view` returned last; ask nobody.

        :param host_name: the compute host name.
        :param max_age: seconds that the answer may be old.
        :returns: None when there is none so young; silence is never
            remembered.
        """
        seen, view = self._views.get(host_name, (float('-inf'), None))
        return view if self._clock.monotonic() - seen < max_age else None

    def remember(self, host_name: str, known: object) -> None:
        """Keep what just came out about a host, for one who needs it soon.

        :param host_name: the compute host name.
        :param known: what came out.
        """
        self._known[host_name] = (self._clock.monotonic(), known)

    def recall(self, host_name: str, max_age: float) -> object:
        """Return what was remembered of a host, once, or None.

        :param host_name: the compute host name.
        :param max_age: seconds that it may be old.
        """
        since, known = self._known.pop(host_name, (float('-inf'), None))
        return known if self._clock.monotonic() - since < max_age else None

    def _ask_for_view(self, host_name: str) -> str | None:
        probe = self._new_home(self.access(host_name))
        try:
            probe.login(self._probe_timeout)
        except exceptions.NotPoolMaster as error:
            return error.address
        except exceptions.XapiUnavailable as error:
            LOG.debug('%s', error)
            return None
        finally:
            probe.logout(self._probe_timeout)
        return ''

    def sight(
        self, host_name: str, read_own: bool = True
    ) -> identity.Sighting:
        """Return what a host shows to a login of its own.

        Nobody is waited for longer than ``probe_timeout``.

        :param host_name: the compute host name.
        :param read_own: read pool and hosts where it is a master.
        :raises ConfigurationError: it is not configured.
        """
        probe = self._new_home(self.access(host_name))
        try:
            with probe.transport.reading(self._probe_timeout):
                probe.login(self._probe_timeout)
                if not read_own:
                    return identity.Sighting(master='')
                door = clients.Client(probe, self._clock)
                own = door.snapshot('pool', 'host', with_clock=False)
                return identity.Sighting(master='', own=own)
        except exceptions.NotPoolMaster as error:
            self._forget_mastership(host_name)
            named = self.name_at(error.address) or ''
            return identity.Sighting(master=error.address, named=named)
        except exceptions.XapiError as error:
            return _unseen(error, host_name)
        finally:
            probe.logout(self._probe_timeout)

    def presence(self, host_name: str) -> str:
        """Return how a machine shows that it is switched on, or ''.

        Whether XAPI runs there does not matter: a connection that is refused
        is refused by a machine that is on. At a loopback address that
        machine is always our own, and proves nothing.

        :param host_name: the compute host name.
        :raises ConfigurationError: it is not configured.
        """
        access = self.access(host_name)
        place = access.address, access.port
        try:
            socket.create_connection(place, self._probe_timeout).close()
        except ConnectionRefusedError:
            found = discovery.resolved(access.address)
            if any(ipaddress.ip_address(each).is_loopback for each in found):
                return ''
            return f"refuses connections to port {access.port}"
        except OSError:
            return ''
        return f"accepts connections to port {access.port}"

    def find_coordinator(
        self,
        members: collections.abc.Mapping[str, str | None],
        pool_uuid: str | None = None,
    ) -> clients.Client:
        """Return a client of the pool's master, wherever it is now.

        All members are asked at the same time and nobody is waited for
        longer than ``probe_timeout``. As soon as most of them agree on a
        master that answers, nobody is waited for at all.

        :param members: XenServer uuid, if known, by compute host name.
        :param pool_uuid: the pool's uuid, if it is known.
        :raises XapiUnavailable: there is none; tells what each member said.
        """
        survey, found = self._survey(members, pool_uuid)
        refused = [
            name
            for name, answer in survey.answers.items()
            if answer.code == passwords.REFUSED_CODE
        ]
        if found is not None:
            return clients.Client(found.home, self._clock)
        if [name for name in refused if self._let_in(name, members)]:
            survey, found = self._survey(members, pool_uuid)
        if found is not None:
            return clients.Client(found.home, self._clock)
        raise exceptions.XapiUnavailable(_nobody(members, survey.answers))

    def _survey(
        self,
        members: collections.abc.Mapping[str, str | None],
        pool_uuid: str | None,
    ) -> tuple[discovery.Survey, discovery.Answer | None]:
        """Ask all members at the same time; return the master's answer."""
        homes = [self._home(self.access(name)) for name in members]
        survey = discovery.Survey(
            self._probe_timeout,
            pool_uuid,
            frozenset(uuid for uuid in members.values() if uuid),
            lambda address, origin: self._home(
                self._access_at(address, origin)
            ),
        )
        for home in homes:
            survey.start(home)
        for _ in survey.listen():
            found, votes = survey.best()
            if found is not None and votes * 2 > len(members):
                return survey, found
        return survey, survey.best()[0]

    def invalidate(self, host_name: str) -> None:
        """Forget the logins to a host, without a word to it.

        :param host_name: the compute host name.
        """
        access = self.access(host_name)
        self._known.pop(host_name, None)
        with self._lock:
            homes = [
                self._homes.pop((access.url, local), None)
                for local in (False, True)
            ]
        for home in homes:
            if home is not None:
                home.forget()

    def close(self) -> None:
        """Log out everywhere, as far as the hosts answer in time.

        Nothing is done while others use this object (:func:`shared`).
        """
        if not _SHARED.give_back(self):
            return
        with self._lock:
            homes, self._homes = self._homes, {}
        discovery.at_once(
            [
                functools.partial(home.logout, self._probe_timeout)
                for home in homes.values()
            ],
            self._probe_timeout + discovery.GRACE,
        )

    def _home(
        self, access: conf.HostAccess, local: bool = False
    ) -> session.HostSession:
        """Return the one session with a host."""
        key = (access.url, local)
        with self._lock:
            home = self._homes.get(key)
        if home is None:
            fresh = self._new_home(access, local)
            with self._lock:
                home = self._homes.setdefault(key, fresh)
        return home

    def _new_home(
        self, access: conf.HostAccess, local: bool = False
    ) -> session.HostSession:
        return session.HostSession(
            access, self._factory, self._originator, local
        )

    def _access_at(
        self, address: str, origin: conf.HostAccess
    ) -> conf.HostAccess:
        """Return how to reach the master that a member named.

        :param address: the address that it named.
        :param origin: how the member is reached. An address that is not
            configured is reached in the same way.
        """
        configured = self._configured_at(address)
        if configured is not None:
            return configured
        wanted = discovery.normal(address)
        literal = f"[{wanted}]" if ':' in wanted else wanted
        scheme = urllib.parse.urlsplit(origin.url).scheme
        found = dataclasses.replace(
            origin, name=wanted, url=f"{scheme}://{literal}:{origin.port}"
        )
        with self._lock:
            return self._found.setdefault(wanted, found)

    def _configured_at(self, address: str) -> conf.HostAccess | None:
        """Return the configured host that has an address, or a name for it."""
        for access in self._hosts.values():
            if discovery.same_address(access.address, address):
                return access
        wanted = discovery.normal(address)
        for access in self._hosts.values():
            if wanted in discovery.resolved(access.address):
                return access
        return None


_SHARED: sharing.Shared[Connections] = sharing.Shared()


def shared(
    hosts: collections.abc.Mapping[str, conf.HostAccess],
    clock: clocks.Clock,
    probe_timeout: float,
    session_factory: session.Factory = session.FACTORY,
) -> Connections:
    """Return this process's one set of logins to some hosts.

    Each driver and the watcher of a process ask for it. With logins of its
    own for each of N drivers, N hosts would see N logins each. Close it when
    done.

    The parameters: as for :class:`Connections`. Who brings a factory of his
    own (a test does, which plays several processes) shares with nobody.
    """

    def make() -> Connections:
        return Connections(
            hosts,
            clock=clock,
            session_factory=session_factory,
            probe_timeout=probe_timeout,
        )

    if session_factory is not session.FACTORY:
        return make()
    return _SHARED.take((frozenset(hosts.items()), clock, probe_timeout), make)


def _unseen(error: exceptions.XapiError, host_name: str) -> identity.Sighting:
    """Return what is to be said of a host that showed no pool."""
    return identity.Sighting(
        code=error.code,
        reason=str(error).removeprefix(f"{host_name}: "),
        untrusted=getattr(error, 'untrusted', False),
    )


def _warn(access: conf.HostAccess) -> None:
    """Say once what an unsafe connection means."""
    if access.url.startswith('http:'):
        LOG.warning(
            'Host %s: %s is not encrypted: whoever sits between can read the '
            'password',
            access.name,
            access.url,
        )
    elif access.insecure and not access.fingerprint:
        LOG.warning(
            'Host %s: its certificate is not verified (insecure = true): '
            'whoever sits between can read the password',
            access.name,
        )


def _nobody(
    members: collections.abc.Iterable[str],
    answers: collections.abc.Mapping[str, discovery.Answer],
) -> str:
    """Say what each host answered when no master was found."""
    told = []
    for name in sorted({*members, *answers}):
        answer = answers.get(name)
        if answer is None:
            told.append(f"{name}: no answer in time")
        elif answer.master:
            told.append(f"{name}: is a member of {answer.master}")
        elif answer.master == '':
            told.append(f"{name}: serves another pool ({answer.pool_uuid})")
        else:
            told.append(answer.reason)
    return f"no master found. {'; '.join(told)}"
