# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A pool as its master tells of it, change by change (``event.from``).

A master holds a call of ``event.from`` until something has changed or the
call's time is over. So whoever follows a pool makes two calls a minute while
nothing happens, and hears at once of what does.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from xenpool_driver import exceptions
from xenpool_driver.xapi import client, fields

CLASSES = ['pool', 'host', 'host_metrics']
"""What is listened to. Whether a host is live stands in its metrics."""

_NEEDED: collections.abc.Mapping[str, tuple[str, ...]] = {
    'pool': ('master',),
    'host': ('uuid', 'hostname', 'address', 'enabled', 'metrics'),
    'host_metrics': ('live',),
}
"""The fields that are looked at."""

POLL_SECONDS = 30.0
"""For how long a master may keep silent; it answers then that nothing has
changed. Less where a host's ``read_timeout`` is short."""


@dataclasses.dataclass(frozen=True)
class Host:
    """A member as its master has it.

    :ivar uuid: its XenServer uuid.
    :ivar hostname: what it calls itself.
    :ivar address: where it is reached.
    :ivar enabled: whether virtual machines may start there.
    :ivar live: whether the master hears from it.
    """

    uuid: str
    hostname: str
    address: str
    enabled: bool
    live: bool


@dataclasses.dataclass(frozen=True)
class View:
    """A pool at one moment.

    :ivar master: the master's XenServer uuid; '' where it is not known.
    :ivar hosts: the members, by XenServer uuid.
    """

    master: str
    hosts: collections.abc.Mapping[str, Host]


class Feed:
    """Follows a pool from its master.

    A feed is done with at the first error: a toolstack that was restarted
    counts its changes anew, so its pool is read anew, with another feed.

    :param door: the way to the master.
    """

    def __init__(self, door: client.Client) -> None:
        self._door = door
        self._seconds = min(POLL_SECONDS, door.access.read_timeout / 2)
        self._token = ''
        self._hosts: dict[str, tuple[Host, str]] = {}
        self._live: dict[str, bool] = {}
        self._master = ''

    def next(self) -> View:
        """Wait until something has changed or time is over.

        The first time nothing is waited for.

        :raises NotPoolMaster: the host is a member by now.
        :raises XapiError: it does not answer, or refuses.
        """
        answer = self._door.read_all(
            'event.from', CLASSES, self._token, self._seconds
        )
        try:
            self._token = answer['token']
            for event in answer['events']:
                self._take(event)
        except (KeyError, TypeError, exceptions.ConfigurationError) as error:
            raise exceptions.XapiUnavailable(
                f"sent events that make no sense ({error})", self._door.name
            ) from None
        return View(
            self._hosts[self._master][0].uuid
            if self._master in self._hosts
            else '',
            {
                host.uuid: dataclasses.replace(
                    host, live=self._live.get(metrics, False)
                )
                for host, metrics in self._hosts.values()
            },
        )

    def _take(self, event: dict[str, typing.Any]) -> None:
        """Take one event in; of records only what matters is kept."""
        kind, ref = event['class'], event['ref']
        if event['operation'] == 'del' or event.get('snapshot') is None:
            self._hosts.pop(ref, None)
            self._live.pop(ref, None)
            return
        record = fields.Struct(
            kind,
            ref,
            {'uuid': ''}
            | {
                name: event['snapshot'][name] for name in _NEEDED.get(kind, ())
            },
        )
        if kind == 'host_metrics':
            self._live[ref] = record.flag('live')
        elif kind == 'pool':
            self._master = record.text('master')
        elif kind == 'host':
            self._hosts[ref] = (
                Host(
                    record.uuid,
                    record.text('hostname'),
                    record.text('address'),
                    record.flag('enabled'),
                    False,
                ),
                record.text('metrics'),
            )
