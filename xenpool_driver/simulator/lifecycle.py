# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How toolstacks start, work and end, in the order that was recorded.

A start is a script: a generator that does the next thing and yields how long
it takes until the one after that. Scripts are played by the clock, so that
advancing it plays them; a script ends with its process.
"""

from __future__ import annotations

import collections.abc
import logging

from xenpool_driver.simulator import (
    database,
    errors,
    images,
    machine,
    operations,
    startup,
)

LOG = logging.getLogger(__name__)

Script = collections.abc.Iterator[float]


def power_on(target: machine.Machine, seconds: float | None = None) -> None:
    """Switch a machine on; its toolstack starts when it has booted.

    :param seconds: until then; None: what booting takes.
    :raises ValueError: when it is on already.
    """
    if target.powered:
        raise ValueError(f'{target.name} is on already')
    target.powered = True
    delay = target.world.timings.boot if seconds is None else seconds
    _later(target, delay, _boot, target)


def start_now(target: machine.Machine, db: database.Database | None) -> None:
    """Let a machine run, start-up long over, as if it always had.

    :param db: the database that a coordinator serves; None for a member.
    """
    target.powered = True
    process = machine.Process(
        target.role_file, target.secret, target.clock.now()
    )
    process.database = db
    process.db_open = process.ready = True
    with target.world.lock:
        target.process = process
        for kind in target.listens():
            _open(target, process, kind)
        if db is not None:
            target.disk = images.take(db)


def exit_toolstack(
    target: machine.Machine, clean: bool = True, restart: bool = True
) -> None:
    """End the toolstack; it is started again a moment later.

    What speaks TLS on port 443 is a program of its own and goes on: whoever
    calls meanwhile is let in and gets no answer (recorded).

    :param clean: whether a coordinator gets to write its database.
    :param restart: False when the whole machine goes down.
    """
    world = target.world
    with world.lock:
        process = target.process
        if process is None or process.ended:
            return
        if clean and process.database is not None:
            flush(target)
        process.ended = True
        process.sockets.clear()
        if process.fuse is not None:
            process.fuse.cancel()
        target.process = None
        world.sockets.close(target, machine.HTTP)
        world.sockets.silence(target, machine.HTTPS)
        if process.database is not None:
            process.database.wake()
        world.changed.notify_all()
    _followers_exit(target, process)
    if restart:
        _later(target, world.timings.restart, _start, target, False)
    else:
        _close_front_end(target)


def _close_front_end(target: machine.Machine) -> None:
    """Let nobody speak TLS on port 443 any more."""
    target.front_end = False
    target.world.sockets.close(target, machine.HTTPS)


def _followers_exit(target: machine.Machine, process: machine.Process) -> None:
    """End those that wait for the old coordinator to be gone."""
    for other in target.world.machines:
        mine = other.process
        if mine is not None and mine.ends_with is process:
            exit_toolstack(other)


def kill_machine(target: machine.Machine) -> None:
    """Cut a machine's power: nothing is written, nothing said."""
    target.powered = False
    target.frozen = False
    exit_toolstack(target, clean=False, restart=False)
    _close_front_end(target)


def kill_toolstack(target: machine.Machine) -> None:
    """Kill the toolstack only; its watchdog starts it again."""
    exit_toolstack(target, clean=False)


def freeze(target: machine.Machine, frozen: bool = True) -> None:
    """Let a machine answer nothing, its sockets open; or wake it again."""
    with target.world.lock:
        target.frozen = frozen
        target.world.changed.notify_all()


def light_fuse(target: machine.Machine, seconds: float | None = None) -> None:
    """Restart the toolstack when the fuse has burnt down.

    A fuse that burns already is not replaced (recorded).
    """
    process = target.process
    if process is None or process.fuse is not None:
        return
    delay = target.world.timings.fuse if seconds is None else seconds
    process.fuse = target.clock.call_later(
        delay, _burnt, target, process, exit_toolstack
    )


def light_reboot_fuse(
    target: machine.Machine, seconds: float, power_off: bool = False
) -> None:
    """Reboot the machine, or switch it off, when the fuse has burnt down."""
    process = target.process
    if process is None:
        return
    if process.fuse is not None:
        process.fuse.cancel()
    action = _go_down if power_off else _reboot
    process.fuse = target.clock.call_later(
        seconds, _burnt, target, process, action
    )


def _burnt(
    target: machine.Machine,
    process: machine.Process,
    action: collections.abc.Callable[[machine.Machine], None],
) -> None:
    if target.process is process:
        action(target)


def _go_down(target: machine.Machine) -> None:
    startup.say_goodbye(target)
    target.powered = False
    exit_toolstack(target, restart=False)


def _reboot(target: machine.Machine) -> None:
    _go_down(target)
    power_on(target, target.world.timings.reboot)


def flush(target: machine.Machine) -> None:
    """Write a coordinator's database to disk, and its members' copies."""
    process = target.process
    if process is None or process.database is None:
        return
    if target.role_file.kind != machine.MASTER:
        # It serves its old role until it restarts; what is on disk is
        # already of the new one.
        return
    target.disk = images.take(process.database, target.disk)
    process.last_flush = target.clock.now()
    for member in target.world.members_of(target):
        if member.secret == target.secret:  # else it is being ejected
            member.disk = target.disk


# -- scripts ---------------------------------------------------------------


def _later(
    target: machine.Machine,
    seconds: float,
    function: collections.abc.Callable[..., None],
    *args: object,
) -> None:
    target.clock.call_later(seconds, function, *args)


def _boot(target: machine.Machine) -> None:
    _start(target, True)


def _start(target: machine.Machine, booted: bool) -> None:
    """Start a toolstack: read the role, play the script of its start.

    :param booted: whether the machine booted; the TLS front end then opens
        with the toolstack only.
    """
    with target.world.lock:
        if not target.powered or target.process is not None:
            return
        process = machine.Process(
            target.role_file, target.secret, target.clock.now()
        )
        target.process = process
    scripts = {
        machine.MASTER: _master,
        machine.SLAVE: _member,
        machine.BROKEN: _broken,
    }
    script = scripts[process.role.kind](target, process, booted)
    _play(target, process, script)


def _play(
    target: machine.Machine, process: machine.Process, script: Script
) -> None:
    """Do the next thing of ``script`` and schedule the one after it."""
    if process.ended or target.process is not process:
        return
    if target.frozen:
        _later(target, 1.0, _play, target, process, script)
        return
    try:
        delay = next(script)
    except StopIteration:
        return
    finally:
        target.world.notify()
    _later(target, delay, _play, target, process, script)


def _open(
    target: machine.Machine, process: machine.Process, kind: str
) -> None:
    if not process.ended and kind in target.listens():
        process.sockets.add(kind)
        target.world.sockets.open(target, kind)
        if kind == machine.HTTPS:
            target.front_end = True


def set_http(target: machine.Machine, is_open: bool) -> None:
    """Open port 80, or close it for good (host.set_https_only)."""
    target.http_closed = not is_open
    process = target.process
    if process is None:
        return
    if is_open:
        _open(target, process, machine.HTTP)
    else:
        _close(target, process, machine.HTTP)


def _close(
    target: machine.Machine, process: machine.Process, kind: str
) -> None:
    process.sockets.discard(kind)
    target.world.sockets.close(target, kind)
    if kind == machine.HTTPS:
        target.front_end = False


def _master(
    target: machine.Machine, process: machine.Process, booted: bool
) -> Script:
    """A coordinator's start (recorded: designate and emergency promotion)."""
    times = target.world.timings
    db = startup.load_database(target)
    if target.uuid not in db.table('host').by_uuid:
        # Its copy is older than its join: it dies looking for its own
        # record, as a member does that its coordinator does not know.
        _open(target, process, machine.HTTP)
        yield times.unknown_restart
        exit_toolstack(target)
        return
    startup.prepare_master(target, db)
    startup.note_start(target, db, booted)
    if booted:
        startup.halt_guests(target, db)
    process.database = db
    process.db_open = True
    _open(target, process, machine.HTTP)
    _close(target, process, machine.HTTPS)
    yield times.master_https
    _open(target, process, machine.HTTPS)
    alone = len(db.refs('host')) == 1
    if not alone:
        yield times.demote
        rival = startup.find_rival(target, db)
        if rival is not None:
            target.role_file = machine.Role(machine.SLAVE, rival.address)
            target.secret = rival.secret
            exit_toolstack(target)
            return
    startup.greet_members(target)
    yield times.alone_enable if alone else times.master_enable - times.demote
    startup.plug_storage(target, db)
    startup.settle_ha(target, db)
    startup.enable(target, db)
    startup.tell_of_promotion(target, db)
    process.ready = True
    if target.first_boot:
        yield times.first_boot
        key = db.new_ref()
        operations.begin(db, 'tls_verification_enable', key)
        yield times.enable_tls
        startup.finish_first_boot(target, db)
        operations.end(db, key)


def _member(
    target: machine.Machine, process: machine.Process, booted: bool
) -> Script:
    """A member's start (recorded: join, designate, recover_slaves)."""
    times = target.world.timings
    _open(target, process, machine.HTTP)
    if not booted:
        _open(target, process, machine.HTTPS)
    yield times.member_db
    while not startup.can_ask(target):
        yield 1.0
    process.db_open = True
    yield times.member_answers
    if not booted:
        _close(target, process, machine.HTTPS)
    yield times.member_https_gap
    _open(target, process, machine.HTTPS)
    yield times.member_settle
    if startup.is_forgotten(target):
        # Recorded: it dies looking for its own record, again and again.
        exit_toolstack(target)
        return
    process.emergency = errors.ApiError('HOST_HAS_NO_MANAGEMENT_IP')
    yield times.member_no_ip
    process.emergency = errors.ApiError('HOST_STILL_BOOTING')
    yield times.member_booting
    while (refusal := startup.hello(target)) is not None:
        process.emergency = refusal
        yield times.member_retry
    try:
        db = startup.join_in(target)
        reason = startup.settle_ha(target, db)
    except startup.Stuck:
        reason = errors.ApiError('HOST_STILL_BOOTING')
    if reason is not None:
        process.emergency = reason
        yield target.rng.uniform(*times.stuck_restart)
        exit_toolstack(target)
        return
    process.emergency = None
    startup.note_start(target, db, booted)
    if booted:
        startup.halt_guests(target, db)
    yield times.member_enable
    startup.enable(target, db)
    process.ready = True


def _broken(
    target: machine.Machine, process: machine.Process, booted: bool
) -> Script:
    """A toolstack that does not know whose it is: it keeps restarting."""
    process.emergency = errors.ApiError('HOST_BROKEN')
    _open(target, process, machine.HTTP)
    _open(target, process, machine.HTTPS)
    yield target.world.timings.broken_restart
    exit_toolstack(target)
