# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What can happen to a whole host, by name, for tests to make it happen."""

from __future__ import annotations

import collections.abc

from xenpool_driver.simulator import lifecycle, machine


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


MISHAPS: collections.abc.Mapping[
    str, collections.abc.Callable[[machine.Machine], None]
] = {
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
}
"""By the name that the control endpoint takes."""
