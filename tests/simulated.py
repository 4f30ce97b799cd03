# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A machine for tests of the simulator's engine, without a world."""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import typing
import uuid

from xenpool_driver.simulator import clock, database, datamodel, errors

RECORDINGS = pathlib.Path(__file__).parent / 'data' / 'recordings'
ADDRESSES = iter(range(2, 65000))


def records(name: str) -> dict[str, typing.Any]:
    """Return the recorded records of the pool called ``name``."""
    path = RECORDINGS / 'pools' / f'{name}.json'
    found: dict[str, typing.Any] = json.loads(path.read_text('utf-8'))
    return found


def free_address() -> str:
    """Return a loopback address that no other test of this run uses."""
    number = next(ADDRESSES)
    return f'127.20.{number // 250}.{number % 250 + 1}'


class NoFaults:
    """Nothing goes wrong."""

    def before(self, call: typing.Any) -> None:
        """Let the call pass."""

    def after(self, call: typing.Any) -> None:
        """Let the answer pass."""


class World:
    """What is random."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def new_uuid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128)))


class Machine:
    """A running toolstack that is neither started nor stopped."""

    def __init__(
        self,
        pool: typing.Any = None,
        *,
        address: str | None = None,
        simulated_clock: clock.Clock | None = None,
    ) -> None:
        self.name = 'xen'
        self.address = address or free_address()
        self.clock = simulated_clock or clock.Clock()
        rng = random.Random(1)
        self.world = World(rng)
        self.db: database.Database | None = database.Database.from_records(
            records('fresh-single-host') if pool is None else pool,
            self.clock,
            rng,
        )
        host = next(iter(self.db.all('pool').values()))['master']
        self.uuid = self.db.get('host', host)['uuid']
        self.role = ('master', '')
        self.password = 'xenroot'
        self.secret = 'pool secret'
        self.local_sessions: dict[str, str] = {}
        self.faults = NoFaults()
        self.emergency: errors.ApiError | None = None

    def gate(self, method: str, has_local_session: bool = False) -> None:
        if self.emergency is not None and (
            method not in datamodel.load().emergency_calls
        ):
            raise self.emergency

    def hang_db(self) -> None:
        pass

    def check_password(self, user: str, password: str) -> bool:
        return user == 'root' and password == self.password

    def change_password(self, password: str) -> None:
        self.password = password


@contextlib.contextmanager
def running(machine: Machine) -> typing.Iterator[str]:
    """Serve ``machine`` over plain HTTP; its URL."""
    from xenpool_driver.simulator import server

    serving = server.Server(https_port=0, http_port=0)
    serving.open(machine, server.HTTP)
    try:
        port = serving.port(machine, server.HTTP)
        yield f'http://{machine.address}:{port}'
    finally:
        machine.clock.stop()
        serving.stop()
