# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A whole simulation: clock, world, sockets, control endpoint.

::

    with simulator.Simulation(hosts=3, time_scale=20) as simulation:
        print(simulation.hosts[0].url, simulation.ca_file)
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
import types
import typing

from xenpool_driver.simulator import (
    build,
    control,
    faults,
    gc,
    machine,
    profiles,
    records_dir,
    server,
    timings,
    topology,
    verbs,
    world,
)
from xenpool_driver.simulator import clock as clock_module

REGISTERED = verbs.MODULES
"""Importing these is what makes their messages known."""

CA_FILE = 'ca.pem'


@dataclasses.dataclass(frozen=True)
class Host:
    """A host as a client sees it.

    :param url: ``https://ADDRESS:PORT``.
    :param http_url: the same without TLS; empty when not served.
    """

    name: str
    address: str
    url: str
    http_url: str
    uuid: str


class Simulation:
    """A world with sockets, in this process.

    :param hosts: how many stand-alone hosts, when nothing else is given.
    :param topology_file: a YAML file (:mod:`.topology`).
    :param records: a directory of recorded pools (:mod:`.records_dir`).
    :param address: of the first host; the others take the next ones.
    :param port: of HTTPS on every address; 0: any free one for each host.
    :param http_port: of plain HTTP, likewise; None: not served.
    :param password: root's, on every host that the topology gives no other.
    :param time_scale: simulated seconds per real second.
    :param state_dir: keeps the certificates from one run to the next.
    :param control_port: of the control endpoint; None: without one.
    :param version_profile: the release that the hosts pretend to be.
    :param seed: decides all that is random.
    :param durations: how long things take.
    """

    def __init__(
        self,
        hosts: int = 3,
        *,
        topology_file: str | os.PathLike[str] | None = None,
        records: str | os.PathLike[str] | None = None,
        address: str = '127.0.0.11',
        port: int = 8443,
        http_port: int | None = 8080,
        password: str = 'xenroot',  # noqa: S107
        time_scale: float = 1.0,
        state_dir: str | os.PathLike[str] | None = None,
        control_port: int | None = None,
        version_profile: str = profiles.CURRENT.name,
        seed: int | None = None,
        durations: timings.Timings = timings.DEFAULT,
    ) -> None:
        self.clock = clock_module.Clock(scale=time_scale)
        self._own_dir: tempfile.TemporaryDirectory[str] | None = None
        if state_dir is None:
            self._own_dir = tempfile.TemporaryDirectory(prefix='xenpool-')
            state_dir = self._own_dir.name
        self.state_dir = pathlib.Path(state_dir)
        self.server = server.Server(port, http_port, self.state_dir)
        self.world = world.World(
            self.clock,
            self.server,
            seed,
            durations,
            {machine.HTTPS: port or 443, machine.HTTP: http_port or 80},
        )
        self._has_http = http_port is not None
        self._address = address
        self._password = password
        self._profile = profiles.get(version_profile)
        self._count = hosts
        self._topology = topology_file
        self._records = records
        self._control_port = control_port
        self.control: control.Endpoint | None = None

    @property
    def faults(self) -> faults.Faults:
        """What goes wrong, and how often each call was executed."""
        return self.world.faults

    @property
    def ca_file(self) -> pathlib.Path:
        """The certificate that clients have to trust."""
        return self.state_dir / CA_FILE

    @property
    def hosts(self) -> list[Host]:
        """The hosts, in the order of their addresses."""
        return [self._host(target) for target in self.world.machines]

    def calls(self, host: str | None = None) -> dict[str, int]:
        """Return executions by method, of one host or of all."""
        return self.faults.counts(host)

    def named(self, ident: str) -> machine.Machine:
        """Return the machine with that name, address or uuid."""
        return self.world.named(ident)

    def _host(self, target: machine.Machine) -> Host:
        place = target.address
        if ':' in place:
            place = f'[{place}]'
        https = self.server.port(target, machine.HTTPS)
        http_url = ''
        if self._has_http:
            port = self.server.port(target, machine.HTTP)
            http_url = f'http://{place}:{port}'
        return Host(
            name=target.name,
            address=target.address,
            url=f'https://{place}:{https}',
            http_url=http_url,
            uuid=target.uuid,
        )

    def start(self) -> None:
        """Build the world and let its hosts listen.

        :raises ValueError: for a topology that makes no sense.
        :raises records_dir.BadRecords: for files that hold no pool.
        :raises OSError: when an address or port cannot be had.
        """
        self.server.ca_pem()
        try:
            self._build()
            gc.start(self.world)
            if self._control_port is not None:
                self.control = control.Endpoint(self.world, self._control_port)
                self.control.start()
        except BaseException:
            self.stop()
            raise

    def _build(self) -> None:
        free = build.addresses(self._address)
        if self._topology is not None:
            topology.load(
                self.world,
                pathlib.Path(self._topology),
                free,
                self._password,
                self._profile,
            )
        elif self._records is not None:
            records_dir.load_dir(
                self.world,
                pathlib.Path(self._records),
                free,
                self._password,
                self._profile,
            )
        else:
            build.standalone(
                self.world,
                self._count,
                self._address,
                self._password,
                self._profile,
            )

    def stop(self) -> None:
        """End everything."""
        if self.control is not None:
            self.control.stop()
            self.control = None
        self.clock.stop()
        self.world.notify()
        self.server.stop()
        if self._own_dir is not None:
            self._own_dir.cleanup()

    def __enter__(self) -> typing.Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.stop()
