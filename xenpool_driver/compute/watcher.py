# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Follows pools, tells what changes, and keeps ``master_compute`` true.

A thread for each pool holds one long call to its master (``event.from``).
When the master moves, or falls silent, its members are asked who it is now,
and the aggregate's record of it is corrected. That is all that is ever
written, and no call changes anything in a pool.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import logging
import resource
import threading
import typing

from oslo_config import cfg
from oslo_log import log

from xenpool_driver import clock as clocks
from xenpool_driver import conf as config
from xenpool_driver import (
    exceptions,
    model,
    operation,
    pool_states,
    store,
    verbs,
)
from xenpool_driver.xapi import client, connections, events, session

LOG = log.getLogger(__name__)

BREATH = 1.0
"""Seconds between two calls: what changes meanwhile is told together, and no
master, whatever it answers, is asked more often."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a lost pool is looked for again; doubled each time."""

REFRESH = 10.0
"""Seconds between two looks for new aggregates, and for gone ones."""

LOGINS = 32
"""How many masters are looked for at the same time."""

STACK = 512 * 1024
"""Bytes of a thread's stack: there may be a thousand of them."""


@dataclasses.dataclass(frozen=True)
class Change:
    """Something that somebody may want to know.

    :ivar at: when it was noticed; seconds since 1970.
    :ivar pool: the aggregate's name, or that of a host that is in none.
    :ivar event: ``found``, ``lost``, ``master``, ``joined``, ``left``,
        ``live``, ``silent``, ``enabled``, ``disabled`` or ``recorded``.
    :ivar host: the compute host concerned; '' for none.
    :ivar text: the same in words.
    """

    at: float
    pool: str
    event: str
    host: str
    text: str


Tell = collections.abc.Callable[[Change], None]


class Subject(typing.Protocol):
    """What is watched."""

    name: str

    def find(self) -> client.Client:
        """Return the way to its master.

        :raises XenpoolError: there is none that answers.
        """

    def name_of(self, host: events.Host) -> str:
        """Return the compute host name of a member."""

    def record(self, master: str) -> collections.abc.Iterable[model.Finding]:
        """Make sure that ``master`` is recorded; say what that took."""


class Pool:
    """The pool of an aggregate.

    :param site: what verbs work with.
    :param row: the aggregate.
    """

    def __init__(self, site: operation.Site, row: store.Aggregate) -> None:
        self.name = row.name
        self._site = site
        self._row = row

    def find(self) -> client.Client:
        """Return the way to its master."""
        self._row.refresh()
        return verbs.find_master(self._site, self._row).door

    def name_of(self, host: events.Host) -> str:
        """Return the compute host name of a member."""
        for name in self._row.hosts:
            if self._row.metadata.get(name) == host.uuid:
                return name
        return self._site.connections.name_at(host.address) or host.hostname

    def record(self, master: str) -> collections.abc.Iterable[model.Finding]:
        """Make sure that ``master`` is recorded; say what that took.

        While an operation is in progress that is its own affair.
        """
        if self._row.metadata.get(pool_states.MASTER) == master:
            return ()
        self._row.refresh()
        if self._row.metadata.get(pool_states.MASTER) == master:
            return ()
        return verbs.correct_master(self._site, self._row)


class Alone:
    """The pool of a host that is in no aggregate.

    :param site: what verbs work with.
    :param host: its compute host name.
    """

    def __init__(self, site: operation.Site, host: str) -> None:
        self.name = host
        self._site = site

    def find(self) -> client.Client:
        """Return the way to the host, which must be a master."""
        patience = self._site.conf.xenpool.probe_timeout
        return self._site.connections.client(self.name, patience)

    def name_of(self, host: events.Host) -> str:
        """Return the compute host name of a member."""
        if host.address == self._site.connections.access(self.name).address:
            return self.name
        return self._site.connections.name_at(host.address) or host.hostname

    def record(self, master: str) -> collections.abc.Iterable[model.Finding]:
        """Have nothing to record."""
        return ()


class Watch:
    """Watches one subject.

    :param subject: the subject.
    :param clock: time.
    :param tell: hears of each change.
    :param logins: bounds how many look for a master at the same time.
    """

    def __init__(
        self,
        subject: Subject,
        clock: clocks.Clock,
        tell: Tell,
        logins: threading.Semaphore,
    ) -> None:
        self.ended = False
        self._subject = subject
        self._clock = clock
        self._hear = tell
        self._logins = logins
        self._before: events.View | None = None
        self._names: dict[str, str] = {}
        self._sees: bool | None = None

    def run(self) -> None:
        """Follow the pool until told to end."""
        pause = FIRST_PAUSE
        while not self.ended:
            try:
                with self._logins:
                    feed = events.Feed(self._subject.find())
                while not self.ended:
                    self.see(feed.next())
                    pause = FIRST_PAUSE
                    self._clock.sleep(BREATH)
            except Exception as error:
                self._lose(error)
                self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def see(self, view: events.View) -> None:
        """Tell what is different from before; have the master recorded."""
        if not view.master:
            return  # its record is still to come
        for uuid, host in view.hosts.items():
            self._names[uuid] = self._subject.name_of(host)
        master = self._names[view.master]
        if not self._sees:
            self._sees = True
            self._tell(
                'found', master, f"{master} is master of {len(view.hosts)}"
            )
        for event, uuid in differences(self._before or ideal(view), view):
            name = self._names[uuid]
            self._tell(event, name, WORDS[event].format(name))
        self._before = view
        for finding in self._subject.record(master):
            if finding.severity is model.Severity.PASS:
                self._tell('recorded', master, finding.message)

    def _lose(self, error: Exception) -> None:
        """Tell once that the pool is not to be seen."""
        if not isinstance(error, exceptions.XenpoolError):
            LOG.error('Watching %s', self._subject.name, exc_info=error)
        if self._sees is not False:
            self._sees = False
            self._tell('lost', '', f"no master answers: {error}")

    def _tell(self, event: str, host: str, text: str) -> None:
        if not self.ended:
            now = self._clock.time()
            self._hear(Change(now, self._subject.name, event, host, text))


WORDS = {
    'master': '{} is the master now',
    'joined': '{} has joined',
    'left': '{} has left',
    'live': '{} is live',
    'silent': '{} is not live',
    'enabled': '{} is enabled',
    'disabled': '{} is disabled',
}


def ideal(view: events.View) -> events.View:
    """Return what a pool would be like with all its hosts at work."""
    hosts = {
        uuid: dataclasses.replace(host, enabled=True, live=True)
        for uuid, host in view.hosts.items()
    }
    return events.View(view.master, hosts)


def differences(
    before: events.View, now: events.View
) -> collections.abc.Iterator[tuple[str, str]]:
    """Yield what has happened, and to which host (its uuid). Pure."""
    if now.master != before.master:
        yield 'master', now.master
    for uuid in before.hosts.keys() - now.hosts.keys():
        yield 'left', uuid
    for uuid, host in now.hosts.items():
        was = before.hosts.get(uuid)
        if was is None:
            yield 'joined', uuid
            was = dataclasses.replace(host, live=True, enabled=True)
        if host.live != was.live:
            yield 'live' if host.live else 'silent', uuid
        if host.enabled != was.enabled:
            yield 'enabled' if host.enabled else 'disabled', uuid


class Watcher:
    """Watches the pools of aggregates, as these come and go.

    It uses the process's logins, as a driver there does.

    :param conf: the options.
    :param database: where the aggregates are.
    :param tell: hears of each change, from the threads of the pools.
    :param only: the uuids of the aggregates to watch; none: all.
    :param alone: also watch each configured host that is in no aggregate.
    :param time: time.
    :param session_factory: see :class:`connections.Connections`.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        database: store.Store,
        tell: Tell,
        only: collections.abc.Collection[str] = (),
        alone: bool = False,
        *,
        time: clocks.Clock = clocks.SYSTEM,
        session_factory: session.Factory = session.FACTORY,
    ) -> None:
        self._hosts = config.known_hosts(conf)
        self._site = operation.Site(
            conf=conf,
            store=database,
            connections=connections.shared(
                self._hosts,
                time,
                conf.xenpool.probe_timeout,
                session_factory,
            ),
            clock=time,
        )
        self._tell = tell
        self._only = only
        self._alone = alone
        self._logins = threading.Semaphore(LOGINS)
        self._watches: dict[str, Watch] = {}
        self._ended = False

    def start(self) -> None:
        """Begin, in threads of its own."""
        _allow_many_sockets()
        _start('watcher', self._run)

    def stop(self) -> None:
        """End, and log out unless a driver of this process uses the logins.

        Nobody waits for calls that are held.
        """
        self._ended = True
        for watch in list(self._watches.values()):
            watch.ended = True
        self._site.connections.close()

    def _run(self) -> None:
        while not self._ended:
            try:
                self.refresh()
            except exceptions.StoreError as error:
                LOG.warning('Which pools to watch cannot be seen: %s', error)
            self._site.clock.sleep(REFRESH)

    def refresh(self) -> None:
        """Watch what is to be watched by now, and nothing else."""
        wanted = self._wanted()
        for key in self._watches.keys() - wanted.keys():
            self._watches.pop(key).ended = True
        for key, subject in wanted.items():
            if key not in self._watches and not self._ended:
                watch = Watch(
                    subject, self._site.clock, self._tell, self._logins
                )
                self._watches[key] = watch
                _start(f"watch-{subject.name}", watch.run)

    def _wanted(self) -> dict[str, Subject]:
        """Return what is to be watched."""
        rows = self._site.store.list_aggregates()
        wanted: dict[str, Subject] = {
            row.uuid: Pool(self._site, row)
            for row in rows
            if pool_states.is_hv_pool(row.metadata)
            if pool_states.host_uuids(row.metadata, row.hosts)
            if not self._only or row.uuid in self._only
        }
        if self._alone:
            taken = {host for row in rows for host in row.hosts}
            for host in self._hosts.keys() - taken:
                wanted[host] = Alone(self._site, host)
        return wanted


def log_change(change: Change) -> None:
    """Be a :data:`Tell` that logs."""
    bad = change.event in ('lost', 'master', 'silent')
    level = logging.WARNING if bad else logging.INFO
    LOG.log(level, '%s: %s', change.pool, change.text)


def _allow_many_sockets() -> None:
    """Open as many files as this process may: each pool takes a socket."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _start(name: str, run: collections.abc.Callable[[], None]) -> None:
    """Run something in a thread that keeps nobody waiting."""
    before = threading.stack_size(STACK)
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    finally:
        threading.stack_size(before)
