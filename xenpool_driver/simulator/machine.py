# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A simulated machine and the toolstack that runs on it.

A :class:`Machine` is what survives: its identity, its password, what is on
its disk (the role file, the pool's secret, the database or a copy of it). A
:class:`Process` is a running toolstack: it has read the role file once, and
dies with its sessions. :mod:`~xenpool_driver.simulator.lifecycle` says in
which order a starting process does what.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import random
import typing

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import (
    database,
    datamodel,
    errors,
    faults,
    hardware,
    images,
    profiles,
)

if typing.TYPE_CHECKING:
    from xenpool_driver.simulator import world as world_module

MASTER = 'master'
SLAVE = 'slave'
BROKEN = 'broken'

HTTP = 'http'
HTTPS = 'https'


@dataclasses.dataclass(frozen=True)
class Role:
    """What pool.conf holds: ``master``, ``slave:<address>`` or ``broken``."""

    kind: str = MASTER
    address: str = ''


class Process:
    """A running toolstack.

    :ivar role: as cached when it started.
    :ivar secret: the pool's, as read when it started.
    :ivar database: the pool's, on a coordinator.
    :ivar local_sessions: opened by slave_local_login*; reference -> user.
    :ivar emergency: what all but the emergency calls are answered with.
    :ivar db_open: whether calls that need the database get through.
    :ivar sockets: the kinds of socket that accept.
    :ivar ready: whether start-up is complete.
    :ivar fuse: the timer that will end it.
    :ivar last_flush: when its database was last written to disk.
    :ivar heartbeats: on a coordinator: host uuid -> last heard of.
    :ivar shutting_down: on a coordinator: hosts that said good-bye.
    :ivar ends_with: the process whose end it waits for, to end itself.
    :ivar master_lost: on a member: since when its coordinator is gone.
    :ivar swept: the database's generation after the last sweep.
    """

    def __init__(self, role: Role, secret: str, started: float) -> None:
        self.role = role
        self.secret = secret
        self.started = started
        self.database: database.Database | None = None
        self.local_sessions: dict[str, str] = {}
        self.emergency: errors.ApiError | None = None
        self.db_open = False
        self.sockets: set[str] = set()
        self.ready = False
        self.ended = False
        self.fuse: clock_module.Timer | None = None
        self.last_flush = started
        self.heartbeats: dict[str, float] = {}
        self.shutting_down: set[str] = set()
        self.ends_with: Process | None = None
        self.master_lost: float | None = None
        self.swept = -1


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A new coordinator that this machine agreed to."""

    address: str
    time: float


class Machine:
    """A machine of the simulated world.

    :param world: where it stands.
    :param name: its host name, unique in the world.
    :param uuid: of its host record; a new installation changes it.
    :param address: where it listens, in the world and on loopback.
    :param password: root's.
    :param profile: the release of its toolstack.
    :param parts: what the machine is made of.
    :ivar front_end: whether port 443 accepts: what speaks TLS there is a
        program of its own, which outlives a toolstack that restarts.
    """

    def __init__(
        self,
        world: world_module.World,
        name: str,
        uuid: str,
        address: str,
        password: str,
        profile: profiles.Profile,
        parts: hardware.Hardware,
    ) -> None:
        self.world = world
        self.name = name
        self.uuid = uuid
        self.address = address
        self.password = password
        self.profile = profile
        self.hardware = parts
        self.secret = world.new_uuid()
        self.role_file = Role()
        self.disk: images.Image | None = None
        self.process: Process | None = None
        self.powered = False
        self.frozen = False
        self.ha_armed = False
        self.first_boot = False
        self.just_promoted = False
        self.keep_disabled = False
        self.http_closed = False
        self.front_end = False
        self.clock_offset = 0.0
        self.proposal: Proposal | None = None
        self.faults = faults.MachineFaults(world.faults, (name, address))

    def __repr__(self) -> str:
        return f'<Machine {self.name} {self.address}>'

    @property
    def clock(self) -> clock_module.Clock:
        """The world's time."""
        return self.world.clock

    @property
    def rng(self) -> random.Random:
        """The world's source of all randomness."""
        return self.world.rng

    @property
    def local_sessions(self) -> dict[str, str]:
        """The sessions of slave_local_login*; they die with the process."""
        return {} if self.process is None else self.process.local_sessions

    @property
    def role(self) -> tuple[str, str]:
        """The role as the running process knows it, and the address in it.

        A role that was written since counts from the next start on.
        """
        role = self.role_file if self.process is None else self.process.role
        return role.kind, role.address

    @property
    def running_secret(self) -> str:
        """The pool's secret as the running process knows it."""
        return self.secret if self.process is None else self.process.secret

    @property
    def is_master(self) -> bool:
        """Whether the running process is a coordinator."""
        return self.process is not None and self.process.role.kind == MASTER

    @property
    def db(self) -> database.Database | None:
        """The database that calls see.

        A member sees its coordinator's; None when it cannot be reached.
        """
        process = self.process
        if process is None or process.ended:
            return None
        if process.role.kind == MASTER:
            return process.database
        if process.role.kind == BROKEN:
            return None
        master = self.world.coordinator_of(self)
        return None if master is None else master.database

    @property
    def me(self) -> str:
        """The reference of this machine's host in the database it sees."""
        db = self.db
        if db is None:
            raise faults.Drop
        return db.by_uuid('host', self.uuid)

    def up(self, kind: str) -> bool:
        """Tell whether the sockets of ``kind`` accept connections."""
        process = self.process
        return process is not None and kind in process.sockets

    def gate(self, method: str, has_local_session: bool = False) -> None:
        """Refuse ``method`` when this toolstack is in emergency mode.

        A frozen machine keeps its caller waiting.

        :param has_local_session: without effect: a local session opens no
            more than the emergency calls (recorded).
        :raises ApiError: the reason of the emergency.
        """
        process = self._running()
        self.world.wait_for(lambda: process.ended or not self.frozen)
        if process.ended:
            raise faults.Drop
        if process.emergency is None:
            return
        if method not in datamodel.load().emergency_calls:
            raise process.emergency

    def hang_db(self) -> None:
        """Return when the database can be asked.

        :raises Drop: when the process ends while the caller waits.
        """
        process = self._running()
        if process.db_open and self.db is not None:
            return
        self.world.wait_for(
            lambda: process.ended or (process.db_open and self.db is not None)
        )
        if process.ended:
            raise faults.Drop

    def check_password(self, user: str, password: str) -> bool:
        """Tell whether root's password is right; to refuse takes a while."""
        if user == 'root' and password == self.password:
            return True
        self.clock.sleep(self.world.timings.wrong_password)
        return False

    def pause(self, seconds: float) -> None:
        """Let work that this toolstack does take ``seconds`` (simulated).

        :raises Drop: when the toolstack ends meanwhile: what the work would
            have done next is not done.
        """
        process = self._running()
        self.clock.sleep(seconds)
        if self.frozen:
            self.world.wait_for(lambda: process.ended or not self.frozen)
        if process.ended:
            raise faults.Drop

    def same_process(self) -> collections.abc.Callable[[], None]:
        """Return what raises Drop once this toolstack has ended."""
        process = self._running()

        def check() -> None:
            if process.ended:
                raise faults.Drop

        return check

    def change_password(self, password: str) -> None:
        """Set root's password here and on all members that can be told."""
        self.password = password
        for member in self.world.members_of(self):
            member.password = password

    def forget_installation(self) -> None:
        """Forget all that lies on the disks but root's password.

        The next start is a first boot.
        """
        self.role_file = Role()
        self.secret = self.world.new_uuid()
        self.disk = None
        self.proposal = None
        self.just_promoted = False
        self.keep_disabled = False
        self.ha_armed = False
        self.http_closed = False

    def listens(self) -> collections.abc.Iterable[str]:
        """Return the kinds of socket that a running toolstack opens."""
        return (HTTPS,) if self.http_closed else (HTTP, HTTPS)

    def _running(self) -> Process:
        if self.process is None or self.process.ended:
            raise faults.Drop
        return self.process
