# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What can happen to a whole host, by name, for tests to make it happen."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import typing

from xenpool_driver.simulator import lifecycle, machine

Mishap = collections.abc.Callable[..., None]
"""Takes the machine; what else it takes, by name, can be left out or not."""


def kill(target: machine.Machine) -> None:
    """Cut the machine's power."""
    lifecycle.kill_machine(target)


def power_on(target: machine.Machine) -> None:
    """Switch the machine on."""
    lifecycle.power_on(target)


def kill_toolstack(target: machine.Machine) -> None:
    """Kill the toolstack; its watchdog starts it again."""
    lifecycle.kill_toolstack(target)


def restart_toolstack(target: machine.Machine) -> None:
    """Restart the toolstack in an orderly way."""
    lifecycle.exit_toolstack(target)


def freeze(target: machine.Machine) -> None:
    """Let the machine accept connections and answer nothing."""
    lifecycle.freeze(target)


def thaw(target: machine.Machine) -> None:
    """Wake a frozen machine."""
    lifecycle.freeze(target, False)


def isolate(target: machine.Machine) -> None:
    """Cut the machine off from all others; clients still reach it."""
    target.world.isolate(target)


def heal(target: machine.Machine) -> None:
    """Undo :func:`isolate`."""
    target.world.heal(target)


def expire_sessions(target: machine.Machine) -> None:
    """End all sessions, the local ones too."""
    target.local_sessions.clear()
    db = target.db
    if db is not None:
        for ref in db.refs('session'):
            db.delete('session', ref)


def lose_tasks(target: machine.Machine) -> None:
    """Forget all tasks; what they show goes on unseen."""
    db = target.db
    if db is not None:
        for ref in db.refs('task'):
            db.delete('task', ref)


def fill_licence(target: machine.Machine) -> None:
    """Let the licence of the host's pool allow three hosts and no more."""
    db = target.db
    if db is not None:
        for ref in db.refs('pool'):
            db.put_in_map(
                'pool', ref, 'restrictions', 'restrict_pool_size', 'true'
            )


def set_password(target: machine.Machine, password: str) -> None:
    """Change root's password on this host only, as ``passwd`` does.

    A member has the pool's password again once its toolstack has restarted.

    :param password: the new one.
    :raises ValueError: for an empty one.
    """
    target.password = _checked(password)


def install_anew(target: machine.Machine, password: str | None = None) -> None:
    """Install the host anew at its address, as another host in a new pool.

    Its power is cut first. Then it boots for the first time: host, pool and
    control domain get new uuids, nothing is left on its disks, and TLS
    verification is off until the first boot is over. Pools that know the
    host are told nothing.

    :param password: root's from now on; None: the one that it has.
    :raises ValueError: for an empty one.
    """
    if password is not None:
        target.password = _checked(password)
    where = target.world
    lifecycle.kill_machine(target)
    with where.lock:
        target.uuid = where.new_uuid()
        target.hardware = dataclasses.replace(
            target.hardware, dom0_uuid=where.new_uuid()
        )
        target.forget_installation()
    lifecycle.power_on(target)


def _checked(password: str) -> str:
    """Return a password that somebody can log in with.

    :raises ValueError: for an empty one, and for what is no text.
    """
    if not isinstance(password, str) or not password:
        raise ValueError('a password is a text that is not empty')
    return password


def apply(
    name: str,
    target: machine.Machine,
    options: collections.abc.Mapping[str, typing.Any],
) -> None:
    """Let the mishap called ``name`` happen to ``target``.

    :param options: what else it takes, by name.
    :raises KeyError: when no mishap is called so.
    :raises ValueError: for an option that it does not have, or lacks.
    """
    mishap = MISHAPS[name]
    known = list(inspect.signature(mishap).parameters.values())[1:]
    for key in options:
        if key not in {parameter.name for parameter in known}:
            raise ValueError(f'{name} takes no {key!r}')
    for parameter in known:
        needed = parameter.default is inspect.Parameter.empty
        if needed and parameter.name not in options:
            raise ValueError(f'{name} needs a {parameter.name}')
    mishap(target, **options)


MISHAPS: collections.abc.Mapping[str, Mishap] = {
    'kill': kill,
    'power-on': power_on,
    'kill-toolstack': kill_toolstack,
    'restart-toolstack': restart_toolstack,
    'freeze': freeze,
    'thaw': thaw,
    'isolate': isolate,
    'heal': heal,
    'expire-sessions': expire_sessions,
    'lose-tasks': lose_tasks,
    'fill-licence': fill_licence,
    'set-password': set_password,
    'install-anew': install_anew,
}
"""By the name that the control endpoint takes."""
