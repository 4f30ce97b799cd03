# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A login of one operation to one host: the only door for changes.

It is shared with no other operation and with no reads, so whoever takes the
operation over can end it and hits nothing else. XAPI answers a late call
over a login that was ended with SESSION_INVALID and does not carry it out
(recorded).
"""

from __future__ import annotations

import logging
import typing

from xenpool_driver import conf, exceptions, redaction
from xenpool_driver.xapi import permit as permits
from xenpool_driver.xapi import session

LOG = logging.getLogger(__name__)


class ChangingSession(session.HostSession):
    """A login to one host with which one operation changes things.

    :param access: how the host is reached.
    :param permit: the operation's right to change something.
    :param factory: makes XenAPI sessions.
    :param local: whether to log in to the host itself; XAPI has no record of
        such a login, and nobody else can end it.
    :param patience: seconds that the host has to end a login.
    """

    def __init__(
        self,
        access: conf.HostAccess,
        permit: permits.Permit,
        factory: session.Factory = session.FACTORY,
        local: bool = False,
        patience: float = 5.0,
    ) -> None:
        super().__init__(access, factory, permit.originator, local)
        self._permit = permit
        self._patience = patience
        self._adrift: list[tuple[typing.Any, str]] = []

    def change(self, method: str, *args: typing.Any) -> typing.Any:
        """Make a call that changes something: one attempt, never a second.

        A login over which a call went that nobody answered is ended, so that
        the call is not carried out any more if it still arrives.

        :param method: for example ``Async.pool.eject``.
        :param args: its arguments; passwords as ``redaction.Secret``.
        :raises LeaseLost: another worker may have the operation; nothing was
            sent.
        :raises NotPoolMaster: the host is a member by now.
        :raises XapiRefused: XAPI answered with an error.
        :raises XapiUnavailable: it was not carried out; a retry is safe.
        :raises XapiOutcomeUnknown: it may have been carried out.
        """
        self._permit.may_send()
        if self._doubtful():
            self._prove(None)
        with self.transport.changing(self._permit.may_send):
            login = self._logged_in()
            LOG.debug('%s: %s', self.access.name, method)
            outcome = self._attempt(
                login,
                lambda login: session.called(login, method, args),
                changing=True,
                secrets=args,
            )
        if outcome.expired:
            self._forget(login)
        if isinstance(outcome.error, exceptions.XapiOutcomeUnknown):
            self._forget(login)
            self._adrift.append((login, str(login.handle)))
            self.end_adrift()
        return outcome.get()

    def end_adrift(self) -> None:
        """End the logins over which calls went that nobody answered.

        One that cannot be ended now is tried again the next time.
        """
        for login, ref in self._adrift[:]:
            if self._end(login, ref):
                self._adrift.remove((login, ref))

    def end(self) -> None:
        """Log out, as far as the host answers in time."""
        self.end_adrift()
        self.logout(self._patience)

    def _log_in(self) -> typing.Any:
        """Log in, and tell of it before anything is sent over the login."""
        login = super()._log_in()
        try:
            uuid = '' if self._local else self._uuid_of(login)
            self._permit.logged_in(self.access.name, self.access.address, uuid)
        except BaseException:
            self._end(login, str(login.handle))
            raise
        return login

    def _uuid_of(self, login: typing.Any) -> str:
        """Return the uuid of the login's record."""
        with self.transport.reading():
            outcome = self._attempt(
                login,
                lambda login: session.called(
                    login, 'session.get_uuid', (login.handle,)
                ),
            )
        return str(outcome.get())

    def _end(self, login: typing.Any, ref: str) -> bool:
        """End a login; say whether it is at an end for sure."""
        with self.transport.reading(self._patience):
            outcome = self._attempt(
                login,
                lambda login: session.end(login, ref, self._local),
                secrets=(redaction.Secret(ref),),
            )
        if outcome.error is None or outcome.expired:
            return True
        LOG.debug('a login is not ended: %s', outcome.error)
        # A member has restarted since it gave a login as a master.
        return isinstance(outcome.error, exceptions.NotPoolMaster)
