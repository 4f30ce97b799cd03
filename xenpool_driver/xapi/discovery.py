# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Finding the master of a pool by asking all its members at the same time.

A member may be dead, hang, have been ejected and answer as the master of a
pool of its own, or name a master that is dead. So each is asked in a thread
of its own, nobody is waited for longer than the deadline, and who claims to
be the master must serve the right pool.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import queue
import socket
import threading
import time

from xenpool_driver import conf, exceptions, identity
from xenpool_driver.xapi import session

GRACE = 0.25
"""Seconds that a thread gets to report that its own time is over."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one host said when it was asked for its master.

    :ivar home: the session with the host.
    :ivar master: whom it names; '' for itself, None if it did not answer.
    :ivar pool_uuid: the pool that it serves as master.
    :ivar hosts: the uuids of the members that it serves as master.
    :ivar reason: why it did not answer.
    :ivar code: XAPI's code for that, if it has one.
    """

    home: session.HostSession
    master: str | None
    pool_uuid: str = ''
    hosts: frozenset[str] = frozenset()
    reason: str = ''
    code: str = ''


def ask(home: session.HostSession, timeout: float) -> Answer:
    """Ask one host for its master, by a read that only a master answers.

    :param home: the session with it.
    :param timeout: seconds for all of it.
    """
    deadline = time.monotonic() + timeout
    try:
        pools = home.read_all('pool.get_all_records', timeout)
        left = max(0.0, deadline - time.monotonic())
        hosts = home.read_all('host.get_all_records', left)
        (pool,) = pools.values()
        uuids = frozenset(str(host['uuid']) for host in hosts.values())
        return Answer(home, '', str(pool['uuid']), uuids)
    except exceptions.NotPoolMaster as error:
        return Answer(home, error.address)
    except exceptions.XapiError as error:
        return Answer(home, None, reason=str(error), code=error.code)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = (
            f"{home.access.name}: has no pool yet ({type(error).__name__})"
        )
        return Answer(home, None, reason=reason)


def serves(
    answer: Answer,
    pool_uuid: str | None,
    expected: collections.abc.Set[str],
) -> bool:
    """Say whether a host that answers as master is the master looked for.

    :param answer: what it said.
    :param pool_uuid: the pool's uuid, if it is known: that decides.
    :param expected: the uuids of the members, as far as they are known. A
        host that lists none of them, or only itself while there are more,
        has been ejected or reinstalled.
    """
    if answer.master != '':
        return False
    if pool_uuid:
        return answer.pool_uuid == pool_uuid
    if not expected:
        return True
    known = answer.hosts & expected
    alone = len(answer.hosts) == 1 and len(expected) > 1
    return bool(known) and not alone


class Survey:
    """Asks hosts for their master, each in a thread of its own.

    :param timeout: seconds for all of it.
    :param pool_uuid: the pool's uuid, if it is known.
    :param expected: the uuids of the members, as far as they are known.
    :param home_at: returns the session with the host at an address that
        was named by a host that is reached as told; may take its time.
    """

    def __init__(
        self,
        timeout: float,
        pool_uuid: str | None,
        expected: collections.abc.Set[str],
        home_at: collections.abc.Callable[
            [str, conf.HostAccess], session.HostSession
        ],
    ) -> None:
        self.answers: dict[str, Answer] = {}
        self._pool_uuid = pool_uuid
        self._expected = expected
        self._home_at = home_at
        self._deadline = time.monotonic() + timeout
        self._named: dict[str, session.HostSession] = {}
        self._asked: set[str] = set()
        self._outstanding = 0
        self._results: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def start(self, home: session.HostSession) -> None:
        """Ask a host."""
        address = normal(home.access.address)
        self._asked.add(address)
        self._named[address] = home
        self._run(lambda: ask(home, self._left()))

    def listen(self) -> collections.abc.Iterator[Answer]:
        """Yield the answers as they come, until all have come or time is
        over. Masters that are named and were not asked yet are asked."""
        while self._outstanding:
            try:
                answer = self._results.get(timeout=self._left() + GRACE)
            except queue.Empty:
                return
            self._outstanding -= 1
            self.answers[answer.home.access.name] = answer
            if answer.master:
                self._follow(answer.master, answer.home.access)
            yield answer

    def best(self) -> tuple[Answer | None, int]:
        """Return who is the master, and how many hosts say so, itself
        included.

        Two may claim it: a master that returns after another one was
        promoted serves for a second before it steps back, or for good with
        an old database. Whom more members name, then who knows more
        members, is it.
        """
        claims = [
            answer
            for answer in self.answers.values()
            if serves(answer, self._pool_uuid, self._expected)
        ]
        if not claims:
            return None, 0
        winner = max(claims, key=self._rank)
        return winner, self._votes(winner)

    def _rank(self, claim: Answer) -> tuple[int, int, int, str]:
        return (
            self._votes(claim),
            len(claim.hosts & self._expected),
            len(claim.hosts),
            claim.home.access.name,
        )

    def _votes(self, claim: Answer) -> int:
        return 1 + sum(
            self._named.get(normal(answer.master)) is claim.home
            for answer in list(self.answers.values())
            if answer.master
        )

    def _follow(self, address: str, origin: conf.HostAccess) -> None:
        """Ask the host at an address, unless that was done."""
        key = normal(address)
        if key in self._asked:
            return
        self._asked.add(key)

        def look() -> Answer:
            home = self._named[key] = self._home_at(address, origin)
            return ask(home, self._left())

        self._run(look)

    def _run(self, look: collections.abc.Callable[[], Answer]) -> None:
        self._outstanding += 1
        threading.Thread(
            target=lambda: self._results.put(look()),
            name='xapi-survey',
            daemon=True,
        ).start()

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def at_once(
    calls: collections.abc.Iterable[collections.abc.Callable[[], object]],
    timeout: float,
) -> None:
    """Make calls at the same time; do not wait longer than ``timeout``.

    Threads that are not done by then keep nobody waiting, not even the end
    of the process.

    :param calls: the calls; they must not raise.
    :param timeout: seconds for all.
    """
    deadline = time.monotonic() + timeout
    threads = [
        threading.Thread(target=call, name='xapi-call', daemon=True)
        for call in calls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


same_address = identity.same_address
"""Say whether two addresses, written anyhow, are the same."""

normal = identity.normal
"""Return the one spelling of an address; of a name, lower case."""


def resolved(name: str) -> frozenset[str]:
    """Return the addresses of a name; none if it cannot be resolved."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for a label too long
        return frozenset()
    return frozenset(normal(str(entry[4][0])) for entry in found)
