# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Running a simulation from a command line until it is told to end."""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import math
import pathlib
import resource
import signal
import sys
import threading
import types

from xenpool_driver.simulator import profiles, records_dir, simulation

OK, FAILED, USAGE = 0, 1, 2

DEFAULTS: collections.abc.Mapping[str, object] = {
    'address': '127.0.0.11',
    'port': 8443,
    'http_port': 8080,
    'password': 'xenroot',
    'time_scale': 1.0,
}
"""What holds for options that nobody gave."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simulator run`` to ``parser``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--hosts',
        type=_count,
        default=3,
        metavar='N',
        help='so many stand-alone hosts (default: 3)',
    )
    what.add_argument(
        '--topology', metavar='FILE', help='hosts and pools of a YAML file'
    )
    what.add_argument(
        '--records',
        metavar='DIR',
        help='recorded pools: each JSON file of DIR is one',
    )
    _add_places(parser)
    parser.add_argument(
        '--password',
        help="root's, on every host (default: xenroot)",
    )
    parser.add_argument(
        '--time-scale',
        type=_scale,
        metavar='F',
        help='let time run F times as fast as life (default: 1)',
    )
    parser.add_argument(
        '--version-profile',
        default=profiles.CURRENT.name,
        choices=sorted(profiles.PROFILES),
        help='the release that the hosts pretend to be (default: current)',
    )
    parser.add_argument(
        '--seed', type=int, metavar='N', help='decides all that is random'
    )


def _add_places(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where things are."""
    parser.add_argument(
        '--address',
        help='of the first host; the others take the next ones'
        ' (default: 127.0.0.11)',
    )
    parser.add_argument(
        '--port',
        type=_port,
        help='of HTTPS, on every address (default: 8443)',
    )
    parser.add_argument(
        '--http-port',
        type=_port,
        help='of plain HTTP, on every address (default: 8080)',
    )
    parser.add_argument(
        '--state-dir',
        metavar='DIR',
        help='keep certificates here; clients trust DIR/ca.pem',
    )
    parser.add_argument(
        '--control-port',
        type=_port,
        metavar='P',
        help='of the control endpoint, on 127.0.0.1',
    )


def fill(
    options: argparse.Namespace,
    values: collections.abc.Mapping[str, object] = DEFAULTS,
) -> None:
    """Give the options that nobody gave a value.

    :param options: as parsed; those that are None are set.
    :param values: ``{option: value}``.
    """
    for name, value in values.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    fill(options)
    allow_many_sockets()
    try:
        simulated = make(options)
        simulated.start()
    except (ValueError, records_dir.BadRecords) as error:
        return complain(error, USAGE)
    except OSError as error:
        return complain(error, FAILED)
    try:
        with awaited_signal() as ended:
            announce(simulated)
            ended.wait()
    finally:
        simulated.stop()
    return OK


def complain(error: Exception, status: int) -> int:
    """Print an error in one line; return ``status``."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f'{error.filename}: ' if error.filename else ''
        text = f'{place}{error.strerror}'
    print(f'xenpool: {text}', file=sys.stderr)
    return status


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port: 0 to 65535")
    return int(text)


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = -1.0
    if not 0 <= scale < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 on")
    return scale


def allow_many_sockets() -> None:
    """Open as many files as this process may: each host takes sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make(options: argparse.Namespace) -> simulation.Simulation:
    """Return the simulation that ``options`` describe, not started."""
    state_dir = options.state_dir
    return simulation.Simulation(
        options.hosts,
        topology_file=options.topology,
        records=options.records,
        address=options.address,
        port=options.port,
        http_port=options.http_port,
        password=options.password,
        time_scale=options.time_scale,
        state_dir=None if state_dir is None else pathlib.Path(state_dir),
        control_port=options.control_port,
        version_profile=options.version_profile,
        seed=options.seed,
    )


def announce(simulated: simulation.Simulation) -> None:
    """Print a line per host, then ``ready``."""
    for host in simulated.hosts:
        print(f'host {host.name} {host.url} {host.uuid}')
    if simulated.control is not None:
        print(f'control {simulated.control.url}', file=sys.stderr)
    print('ready', flush=True)


@contextlib.contextmanager
def awaited_signal() -> collections.abc.Iterator[threading.Event]:
    """Yield what SIGTERM or SIGINT sets, from here on."""
    ended = threading.Event()

    def end(number: int, frame: types.FrameType | None) -> None:
        ended.set()

    previous = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield ended
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(argv: list[str] | None = None) -> int:
    """Run ``python -m xenpool_driver.simulator``."""
    parser = argparse.ArgumentParser(
        prog='python -m xenpool_driver.simulator',
        description='An XAPI made of Python: hosts without hardware.',
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))
