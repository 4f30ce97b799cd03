# Licensed under the Apache License, Version 2.0; see LICENSE.
"""One login per host, shared by all threads.

Nothing else imports ``XenAPI``. Its ``Session`` logs in again by itself when
the old login has ended and then repeats the call, whatever the call does, and
keeps the password for that purpose. Here it is made to forget the password,
which switches that off; reads are repeated by this module instead. Calls that
change something are not; who makes them is in ``changing``.
"""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import logging
import threading
import time
import typing
import xmlrpc.client

import XenAPI

from xenpool_driver import conf, exceptions, redaction
from xenpool_driver.xapi import (
    errors,
    jsonrpc,
    replies,
    shared,
    transport,
)

LOG = logging.getLogger(__name__)

T = typing.TypeVar('T')

Factory = collections.abc.Callable[..., typing.Any]
"""Makes a XenAPI session: called with the URL and ``transport=``."""

FACTORY: Factory = XenAPI.Session
"""The real one."""

FAILURE: type[Exception] = XenAPI.Failure
"""What it raises when XAPI refuses."""

API_VERSION = '1.0'
"""What a login says of its client; XAPI ignores it."""

TRUSTED_SECONDS = 5.0
"""How long a login counts as alive without a look. A changing call is not
repeated, so an older login is tried with a read before one."""


@dataclasses.dataclass
class _Outcome:
    """What came of one attempt.

    :ivar value: what the call returned.
    :ivar error: our error, if it failed.
    :ivar expired: whether it failed because the login has ended.
    :ivar stale: whether it failed because the peer had closed an idle
        connection before.
    """

    value: typing.Any = None
    error: exceptions.XapiError | exceptions.LeaseLost | None = None
    expired: bool = False
    stale: bool = False

    def get(self) -> typing.Any:
        """Return the value, or raise the error.

        :raises XapiError: it failed.
        :raises LeaseLost: it was not sent, because it must not be any more.
        """
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return self.value
        finally:
            del error  # it knows this frame: without a cycle both go soon


_Call = collections.abc.Callable[[typing.Any], typing.Any]
"""Makes the call on the XenAPI session that it is given."""


class HostSession:
    """A login to one host, made when it is needed.

    :ivar access: how the host is reached.
    :param factory: makes XenAPI sessions.
    :param originator: what XAPI shall record as the client.
    :param local: whether to log in to the host itself rather than to its
        pool, which works on any member at any time.
    :raises ConfigurationError: the TLS settings cannot be used.
    """

    def __init__(
        self,
        access: conf.HostAccess,
        factory: Factory = FACTORY,
        originator: str = 'xenpool-driver',
        local: bool = False,
    ) -> None:
        self.access = access
        self._readings = shared.Readings()
        self.transport = transport.Transport(access)
        self._factory = factory
        self._originator = originator
        self._local = local
        self._peer = errors.Peer(access.name, access.url, (access.password,))
        self._lock = threading.Lock()  # held for moments, to swap _session
        self._login_lock = threading.Lock()  # held while one logs in
        self._session: typing.Any = None
        self._proved = 0.0
        self._refusals = 0
        self._refusal: Exception | None = None
        self._json = factory is XenAPI.Session and not local

    def __repr__(self) -> str:
        kind = 'local session' if self._local else 'session'
        return f"<{kind} of {self.access.name} at {self.access.url}>"

    def read(
        self, method: str, *args: typing.Any, timeout: float | None = None
    ) -> typing.Any:
        """Make a call that changes nothing; log in again where need be.

        :param method: for example ``pool.get_all``.
        :param args: its arguments, without the session.
        :param timeout: seconds for all of it; None: the host's timeouts.
        :raises NotPoolMaster: the host is a member by now.
        :raises XapiRefused: XAPI answered with an error.
        :raises XapiUnavailable: no answer.
        """
        return self._read(
            method, lambda session: called(session, method, args), timeout
        )

    def read_own(
        self, method: str, timeout: float | None = None
    ) -> typing.Any:
        """Make a read whose only argument is the session itself.

        :param method: for example ``session.get_this_host``.
        :param timeout: seconds for all of it; None: the host's timeouts.
        :raises XapiError: as :meth:`read`.
        """
        return self._read(
            method,
            lambda session: called(session, method, (session.handle,)),
            timeout,
        )

    def read_all(
        self,
        method: str,
        timeout: float | None = None,
        args: collections.abc.Sequence[typing.Any] = (),
    ) -> typing.Any:
        """Make a large or frequent read, by the faster protocol.

        :param method: for example ``VM.get_all_records``.
        :param timeout: seconds for all of it; None: the host's timeouts.
        :param args: its arguments, without the session.
        :raises XapiError: as :meth:`read`.
        """
        if self._json:
            try:
                return self._read(
                    method,
                    lambda session: self._by_json(session, method, args),
                    timeout,
                )
            except jsonrpc.NotOffered:
                LOG.info('%s: no JSON-RPC, XML-RPC it is', self.access.name)
                self._json = False
        return jsonrpc.alike(self.read(method, *args, timeout=timeout))

    def share(
        self, key: typing.Hashable, read: collections.abc.Callable[[], T]
    ) -> T:
        """Return what ``read`` returns, shared by threads that want the same.

        A thread whose time is bounded reads for itself.

        :param key: what is read.
        :param read: reads it from this host.
        """
        if self.transport.remaining() < float('inf'):
            return read()
        return self._readings.get(key, read)

    def share_recent(
        self,
        key: typing.Hashable,
        read: collections.abc.Callable[[], T],
        now: float,
        max_age: float,
    ) -> T:
        """Return what ``read`` returned lately to any thread, or returns now.

        :param key: what is read.
        :param read: reads it from this host.
        :param now: seconds, by the caller's clock.
        :param max_age: seconds that it may be old.
        """
        return self._readings.recent(key, read, now, max_age)

    def login(self, timeout: float | None = None) -> None:
        """Log in, or make sure of a login of which nothing was heard lately.

        :param timeout: seconds for it; None: the host's timeouts.
        :raises NotPoolMaster: the host is a member.
        :raises XapiRefused: the credentials are wrong.
        :raises XapiUnavailable: no answer.
        """
        if self._doubtful():
            self._prove(timeout)
            return
        with self.transport.reading(timeout):
            self._logged_in()

    def logout(self, timeout: float | None = None) -> None:
        """Log out if logged in, and close the connections.

        :param timeout: seconds for it; None: the host's timeouts.
        """
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            ending = 'local_logout' if self._local else 'logout'
            with self.transport.reading(timeout):
                outcome = self._attempt(
                    session,
                    lambda session: getattr(session.xenapi.session, ending)(),
                )
            if outcome.error is not None:
                LOG.debug('logging out: %s', outcome.error)
        self.transport.close()

    def end_login(self, ref: str, timeout: float | None = None) -> None:
        """End the login of another client, by a login of our own.

        It changes nothing of a pool, and a login that is at an end already
        is no error.

        :param ref: the login's reference, which is its secret, too.
        :param timeout: seconds for it; None: the host's timeouts.
        :raises XapiError: it is not known to be at an end.
        """
        with self.transport.reading(timeout):
            outcome = self._attempt(
                self._logged_in(),
                lambda session: end(session, ref),
                secrets=(redaction.Secret(ref),),
            )
        if not outcome.expired:
            outcome.get()

    def forget(self) -> None:
        """Drop the login and the connections without a word to the host."""
        with self._lock:
            self._session = None
        self.transport.close()

    def _doubtful(self) -> bool:
        """Say whether there is a login of which nothing was heard lately."""
        silence = time.monotonic() - self._proved
        return self._session is not None and silence > TRUSTED_SECONDS

    def _prove(self, timeout: float | None) -> None:
        """Make sure of the login, by the cheapest read."""
        if self._local:
            self.read('host.is_in_emergency_mode', timeout=timeout)
            return
        self.read_own('session.get_uuid', timeout)

    def _read(
        self, name: str, call: _Call, timeout: float | None
    ) -> typing.Any:
        """Attempt a read; again after a stale connection or an old login."""
        with self.transport.reading(timeout):
            for _ in range(3):
                session = self._logged_in()
                LOG.debug('%s: %s', self.access.name, name)
                outcome = self._attempt(session, call)
                if outcome.expired:
                    self._forget(session)
                elif outcome.stale:
                    self.transport.close()
                else:
                    break
        return outcome.get()

    def _attempt(
        self,
        session: typing.Any,
        call: _Call,
        changing: bool = False,
        secrets: collections.abc.Iterable[typing.Any] = (),
    ) -> _Outcome:
        """Make a call once. The one place where foreign errors are caught.

        Nothing of a foreign exception is kept but words: its traceback
        holds the request with all that is in it.
        """
        try:
            value = call(session)
        except jsonrpc.NotOffered:
            raise
        except exceptions.LeaseLost as error:
            return _Outcome(error=exceptions.LeaseLost(str(error)))
        except Exception as error:
            return self._judge(error, session, changing, secrets)
        self._proved = time.monotonic()
        return _Outcome(value)

    def _judge(
        self,
        error: Exception,
        session: typing.Any,
        changing: bool,
        secrets: collections.abc.Iterable[typing.Any],
    ) -> _Outcome:
        """Say what an exception means."""
        peer = self._peer_hiding(session, secrets)
        if isinstance(error, XenAPI.Failure):
            try:
                details = replies.details(error.details)
            except replies.OddReply as odd:
                return _Outcome(
                    error=errors.from_foreign(odd, peer, changing=changing)
                )
            if details and details[0] == 'SESSION_INVALID':
                return self._expired(peer)
            return _Outcome(error=errors.from_answer(details, peer, changing))
        if (
            isinstance(error, xmlrpc.client.Fault)
            and error.faultCode == errors.EXPIRED_FAULT
        ):
            return self._expired(peer)
        stage = None
        stale = False
        if isinstance(error, transport.ExchangeError):
            stage, reused, error = error.stage, error.reused, error.error
            stale = reused and _is_closed(error)
        return _Outcome(
            error=errors.from_foreign(error, peer, stage, changing),
            stale=stale,
        )

    def _expired(self, peer: errors.Peer) -> _Outcome:
        return _Outcome(error=errors.no_longer_logged_in(peer), expired=True)

    def _peer_hiding(
        self, session: typing.Any, args: collections.abc.Iterable[typing.Any]
    ) -> errors.Peer:
        """Return the peer, with all that this call must not show."""
        hidden = [
            redaction.reveal(arg)
            for arg in args
            if isinstance(arg, redaction.Secret)
        ]
        handle = getattr(session, 'handle', None)
        if isinstance(handle, str):
            hidden.append(handle)
        return dataclasses.replace(
            self._peer, secrets=(*self._peer.secrets, *hidden)
        )

    def _logged_in(self) -> typing.Any:
        """Return the XenAPI session, logged in.

        Threads that waited while another one tried in vain share its error:
        a dead host is not asked once per thread.
        """
        session = self._session
        if session is not None:
            return session
        before = self._refusals
        left = max(0.0, self.transport.remaining())
        patience = min(left, threading.TIMEOUT_MAX)
        if not self._login_lock.acquire(timeout=patience):
            raise exceptions.XapiUnavailable(
                'another thread is still trying to log in', self.access.name
            )
        try:
            if self._session is not None:
                return self._session
            if self._refusals != before and self._refusal is not None:
                raise copy.copy(self._refusal)
            self._session = self._log_in()
            return self._session
        finally:
            self._login_lock.release()

    def _log_in(self) -> typing.Any:
        """Log in; ``_login_lock`` is held."""
        session = self._factory(
            f"{self.access.url}/", transport=self.transport
        )
        call = self._local_login if self._local else self._pool_login
        with self.transport.reading():
            outcome = self._attempt(session, call)
            if outcome.stale:
                self.transport.close()
                outcome = self._attempt(session, call)
        if outcome.error is not None:
            self._refusals += 1
            self._refusal = outcome.error
            raise copy.copy(outcome.error)
        # Without credentials XenAPI.Session cannot log in again by itself.
        session.last_login_method = ''
        session.last_login_params = None
        LOG.debug('%s: logged in', self.access.name)
        return session

    def _pool_login(self, session: typing.Any) -> None:
        session.xenapi.login_with_password(
            self.access.username,
            self.access.password,
            API_VERSION,
            self._originator,
        )
        _look_at(session.handle)

    def _local_login(self, session: typing.Any) -> None:
        session.slave_local_login_with_password(
            self.access.username, self.access.password
        )
        _look_at(session.handle)

    def _forget(self, session: typing.Any) -> None:
        """Drop a login that has ended, unless a new one is there already."""
        with self._lock:
            if self._session is session:
                self._session = None

    def _by_json(
        self,
        session: typing.Any,
        method: str,
        args: collections.abc.Sequence[str],
    ) -> typing.Any:
        """Make a call by JSON-RPC.

        :raises NotOffered: the host does not speak it.
        """
        body = jsonrpc.request(method, [session.handle, *args])
        try:
            answer = self.transport.post(
                jsonrpc.PATH, body, jsonrpc.CONTENT_TYPE
            )
        except transport.ExchangeError as error:
            if isinstance(error.error, xmlrpc.client.ProtocolError):
                raise jsonrpc.NotOffered from None
            raise
        result, failure = jsonrpc.answer(answer)
        if failure is not None:
            raise XenAPI.Failure(failure)
        return replies.typed(method, jsonrpc.alike(result))


def _is_closed(error: Exception) -> bool:
    """Say whether the peer closed a connection, rather than kept silent."""
    return isinstance(error, OSError) and not isinstance(error, TimeoutError)


def end(session: typing.Any, ref: str, local: bool = False) -> None:
    """End a login, whosever it is.

    ``XenAPI.Session`` itself can end its own one only, and forgets it when
    that fails.

    :param session: the XenAPI session to call with.
    :param ref: the login to end.
    :param local: whether it is a login to a host itself.
    """
    name = 'local_logout' if local else 'logout'
    answer = getattr(session.session, name)(ref)
    if isinstance(answer, dict) and answer.get('Status') != 'Success':
        raise FAILURE(answer.get('ErrorDescription') or ['INTERNAL_ERROR'])


def called(
    session: typing.Any,
    method: str,
    args: collections.abc.Iterable[typing.Any],
) -> typing.Any:
    """Return the reply to ``session.xenapi.<method>(*args)``.

    :raises OddReply: it is none of XAPI's.
    """
    found = session.xenapi
    for part in method.split('.'):
        found = getattr(found, part)
    return replies.checked(method, found(*map(redaction.reveal, args)))


def _look_at(handle: object) -> None:
    """Make sure that what a login brought can be a session.

    :raises OddReply: it cannot.
    """
    if isinstance(handle, dict | list | int | float):
        raise replies.OddReply('the reply to the login is no text')
