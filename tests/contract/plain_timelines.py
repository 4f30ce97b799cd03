# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Timelines of the second recording, whose observers are few and plain.

Each looks at one host: the caller of its join, its task, logins at it, and
what the coordinator's records say of it. They are called by its address.
"""

from __future__ import annotations

import collections.abc
import re
import typing

from tests.contract import play
from xenpool_driver.simulator import errors

Value = typing.Any
Look = collections.abc.Callable[[], Value]

OBSERVERS = re.compile(
    r'(call|fault|task|login|local_login|coordinator about) ([\d.]+)'
)

COORDINATOR = 'xapi1'

REFUSED_BRIEFLY = ('login', 'local_login')
"""Observers that looked too seldom to see a port that closes for a moment."""


def host_at(address: str) -> str:
    """Return what a recorded host is called on the stage."""
    return f'xapi{address[-1]}'


def word(kind: str, observation: Value) -> str | None:
    """Return an observation in a word; None: it says nothing."""
    if kind in ('call', 'fault'):
        return None
    if kind == 'task':
        return f'task {observation}'
    if isinstance(observation, dict):
        return _of_record(observation)
    if isinstance(observation, list):
        return _of_refusal(observation)
    if observation == 'logged in':
        return 'ok logged in'
    if 'refused' in observation:
        return None if kind in REFUSED_BRIEFLY else 'refused'
    return 'cut'


def _of_refusal(details: list[str]) -> str | None:
    code = details[0]
    if code == 'HOST_IS_SLAVE':
        return f'{code} {host_at(details[1])}'
    # Elsewhere these are over too soon for everybody to see them.
    if code == 'HOST_STILL_BOOTING':
        return 'still booting'
    return None if code == 'HOST_HAS_NO_MANAGEMENT_IP' else code


def _of_record(seen: dict[str, Value]) -> str:
    if 'emergency' in seen:
        return 'in need' if seen['emergency'] else 'no need'
    domain = seen['control_domain']
    if isinstance(domain, dict):
        where = 'nowhere' if domain['resident_on'] == errors.NULL else 'there'
        runs = f"{domain['power_state']} {where} {domain['domid']}"
    else:
        runs = 'no domain'
    return ', '.join(
        (
            'enabled' if seen['enabled'] else 'disabled',
            'live' if seen['live'] else 'dead',
            runs,
        )
    )


def look(stage: play.Stage, kind: str, address: str) -> Look | None:
    """Return an observer; None for what a play notes itself."""
    name = host_at(address)
    looks: dict[str, collections.abc.Callable[..., Look]] = {
        'login': _login,
        'local_login': _local_login,
        'coordinator about': _record,
    }
    made = looks.get(kind)
    if made is None:
        return None
    seen = made(stage, name)

    def say() -> str | None:
        try:
            return word(kind, seen())
        except play.Lost as lost:
            text = str(lost)
            return word(kind, text if text == 'refused' else 'cut')
        except errors.ApiError as error:
            if error.code == 'HOST_IS_SLAVE':
                return f'{error.code} {stage.name_at(error.params[0])}'
            return word(kind, error.details)

    return say


def _login(stage: play.Stage, name: str) -> Look:
    def seen() -> str:
        stage.login(name)
        return 'logged in'

    return seen


def _local_login(stage: play.Stage, name: str) -> Look:
    def seen() -> dict[str, Value]:
        session = stage.login(name, local=True)
        method = 'host.is_in_emergency_mode'
        return {'emergency': stage.ask(name, play.HTTPS, method, session)}

    return seen


def _record(stage: play.Stage, name: str) -> Look:
    """Return what looks a host up in the coordinator's records."""

    def seen() -> dict[str, Value]:
        session = stage.login(COORDINATOR, play.HTTP)

        def ask(method: str, *params: str) -> Value:
            return stage.ask(COORDINATOR, play.HTTP, method, session, *params)

        ref = ask('host.get_by_uuid', stage[name].uuid)
        host = ask('host.get_record', ref)
        metrics = ask('host_metrics.get_record', host['metrics'])
        try:
            domain = ask('VM.get_record', host['control_domain'])
        except errors.ApiError as error:
            domain = error.details
        return {
            'enabled': host['enabled'],
            'live': metrics['live'],
            'control_domain': domain,
        }

    return seen


def join(
    stage: play.Stage,
    address: str,
    seconds: float,
    then: collections.abc.Callable[[], None] | None = None,
) -> None:
    """Let a host join the pool, and watch the task.

    :param then: done as soon as the task has succeeded.
    """
    name = host_at(address)
    over: list[str] = []

    def work() -> None:
        session = stage.login(name)
        task = stage.ask(
            *(name, play.HTTPS, 'Async.pool.join', session),
            *(stage[COORDINATOR].address, 'root', play.PASSWORD),
        )

        def status() -> str:
            if not over:
                record = stage.ask(
                    name, play.HTTPS, 'task.get_record', session, task
                )
                if record['status'] == 'pending':
                    return 'task pending'
                # Nobody looked any further.
                over.append(f"task {record['status']}")
                if then is not None:
                    then()
            return over[0]

        stage.observe(f'task {address}', status)

    stage.run(seconds, work)
