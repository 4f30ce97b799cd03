# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The recordings' observers, on the simulator.

An observer's name says what it does and where; :func:`make` reads it.
"""

from __future__ import annotations

import collections.abc
import re
import typing

from tests.contract import plain_timelines, play, recorded_timelines
from xenpool_driver.simulator import errors

Value = typing.Any
Look = collections.abc.Callable[[], Value]

HTTP, HTTPS = play.HTTP, play.HTTPS


class Kept:
    """A session that was opened once, and what is called with it.

    :param renewed: open another one when it is no good any more.
    """

    def __init__(
        self,
        stage: play.Stage,
        name: str,
        method: str,
        *,
        at: str | None = None,
        kind: str = HTTPS,
        local: bool = False,
        renewed: bool = False,
    ) -> None:
        self._stage, self._name, self._method = stage, name, method
        self._at = at or name
        self._kind, self._local, self._renewed = kind, local, renewed
        self._session: str | None = None

    def open(self) -> None:
        """Open the session."""
        self._session = self._stage.login(self._at, self._kind, self._local)

    def __call__(self) -> Value:
        """Make the call."""
        if self._session is None:
            self.open()
        try:
            found = self._stage.ask(
                self._name, self._kind, self._method, self._session
            )
        except errors.ApiError as error:
            if self._renewed and error.code == 'SESSION_INVALID':
                self._session = None
            raise
        size = len(found) if isinstance(found, list) else found
        return f"ok {'' if size is None else size}".strip()


def login(stage: play.Stage, name: str, kind: str = HTTPS) -> Look:
    def look() -> str:
        stage.login(name, kind)
        return 'ok logged in'

    return look


def port(stage: play.Stage, name: str, kind: str) -> Look:
    """Return what connects, and says no more."""

    def look() -> str:
        target = stage[name]
        if kind == HTTPS:
            return 'ok tls established' if target.front_end else 'refused'
        return 'ok connected' if target.up(HTTP) else 'refused'

    return look


def pool_view(stage: play.Stage, name: str) -> Look:
    """Return what logs in and looks who is in the pool."""

    def look() -> str:
        session = stage.login(name)

        def read(cls: str) -> Value:
            return stage.ask(name, HTTPS, f"{cls}.get_all_records", session)

        hosts, metrics = read('host'), read('host_metrics')
        (pool,) = read('pool').values()
        found = {
            host['name_label']: {
                'enabled': host['enabled'],
                'live': metrics.get(host['metrics'], {}).get('live', False),
            }
            for host in hosts.values()
        }
        master = hosts[pool['master']]['name_label']
        return recorded_timelines.pool_word({'hosts': found, 'master': master})

    return look


def local_view(stage: play.Stage, name: str) -> Look:
    """Return what logs in locally and looks as far as it can."""

    def look() -> str | None:
        began = stage.now
        session = stage.login(name, HTTPS, local=True)
        emergency = stage.ask(
            name, HTTPS, 'host.is_in_emergency_mode', session
        )
        if emergency:
            return 'emergency'
        view = {'is_in_emergency_mode': emergency}
        try:
            pools = stage.ask(
                name, HTTPS, 'pool.get_all', session, patience=play.PATIENCE
            )
        except (play.Lost, errors.ApiError) as error:
            return f"pools {_why(stage, error)}"
        view['pools'] = pools
        try:
            master = stage.ask(
                name, HTTPS, 'pool.get_master', session, pools[0]
            )
            view['master_hostname'] = stage.ask(
                name, HTTPS, 'host.get_hostname', session, master
            )
            hosts = stage.ask(name, HTTPS, 'host.get_all', session)
            view['n_hosts'] = len(hosts)
        except (play.Lost, errors.ApiError):
            return None
        return recorded_timelines.local_word(view, stage.now - began)

    return look


def _why(stage: play.Stage, error: Exception) -> str:
    if isinstance(error, errors.ApiError):
        return stage.refusal(error.details)
    return str(error)


def record(stage: play.Stage, name: str, cls: str, ref: str) -> Look:
    """Return what looks whether a record is still there."""
    session: list[str] = []

    def look() -> str:
        if not session:
            session.append(stage.login(name))
        stage.ask(name, HTTPS, f"{cls}.get_record", session[0], ref)
        return 'ok exists'

    return look


PATTERNS: tuple[
    tuple[str, collections.abc.Callable[..., Look | Kept]], ...
] = (
    ('login@(.*)', login),
    (r'local_login@(\w+).*', local_view),
    ('tcp80@(.*)', lambda s, n: port(s, n, HTTP)),
    ('tls443@(.*)', lambda s, n: port(s, n, HTTPS)),
    ('(?:coordinator_view|hosts_view|victim_own_view)@(.*)', pool_view),
    ('kept_session@(.*) (.*)', Kept),
    (
        'kept_local_session@(.*) (.*)',
        lambda s, n, m: Kept(s, n, m, local=True),
    ),
    (
        r'kept_local@(\w+) ([\w.]+).*',
        lambda s, n, m: Kept(s, n, m, local=True),
    ),
)
"""Observers by name; ``get_all`` and the like are what they call."""


def make(stage: play.Stage, name: str) -> Look | None:
    """Return the observer of that name, None when a play makes it itself."""
    plain = plain_timelines.OBSERVERS.fullmatch(name)
    if plain:
        return plain_timelines.look(stage, *plain.groups())
    for pattern, maker in PATTERNS:
        found = re.fullmatch(pattern, name)
        if found:
            look = maker(stage, *found.groups())
            if isinstance(look, Kept):
                # Opened before anything happens.
                stage.before.append(look.open)
            return look
    return None
