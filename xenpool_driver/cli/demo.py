# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool demo``: the whole story against a simulator of its own.

The simulator runs in a process of its own, as ``xenpool simulator run``
does; the real driver works on it over HTTPS, configured by a file, with a
database; and after each step what the aggregate says and what XAPI says is
compared with what they should say.
"""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import typing

from xenpool_driver import clock, exceptions
from xenpool_driver.cli import (
    command,
    demo_story,
    demo_views,
    progress,
    simulate,
    status,
    workbench,
)

TIME_SCALE = 20.0
PORT = 8443
PASSWORD = 'xenroot'  # noqa: S105 - of simulated hosts
START_SECONDS = 60


class SimulatedHost(typing.NamedTuple):
    """A line that the simulator prints: a host that listens."""

    name: str
    url: str
    uuid: str


class Demo(command.Command):
    """Form, change and dismiss a pool of simulated hosts"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--records',
            metavar='DIR',
            help='tell the story on recorded pools: each JSON file is one',
        )
        parser.add_argument(
            '--address',
            default=_free_address(),
            help='of the first simulated host; the others take the next ones '
            '(default: one that is free)',
        )
        parser.add_argument(
            '--time-scale',
            type=float,
            default=TIME_SCALE,
            metavar='F',
            help='let time run F times as fast as life (default: %(default)s)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        simulate.runner()  # says what is missing before anything starts
        with contextlib.ExitStack() as at_end:
            directory = pathlib.Path(
                at_end.enter_context(tempfile.TemporaryDirectory())
            )
            hosts = at_end.enter_context(_simulator(parsed_args, directory))
            hosts = _distinct(hosts)
            bench = workbench.Workbench(
                [str(_write_configuration(directory, hosts))],
                self.app.mask.learn,
            )
            at_end.callback(bench.close)
            return self._tell(bench, hosts)

    def _tell(
        self, bench: workbench.Workbench, hosts: list[SimulatedHost]
    ) -> int:
        """Tell the story step by step; end at the first difference."""
        observer = demo_views.Observer(
            {host.name: host.url for host in hosts},
            {host.uuid: host.name for host in hosts},
            PASSWORD,
        )
        pools = observer.pools()
        self.say(f"{len(hosts)} hosts over HTTPS: {_together(pools)}")
        uuid = ''
        for step in demo_story.Story(
            bench.api(create=True), bench.context, pools
        ).steps():
            uuid = self._step(bench, observer, step, uuid)
            if not uuid:
                return status.FAILED
        self.say('All as expected.')
        return status.DONE

    def _step(
        self,
        bench: workbench.Workbench,
        observer: demo_views.Observer,
        step: demo_story.Step,
        uuid: str,
    ) -> str:
        """Do a step and compare.

        :param uuid: the aggregate's, '' before there is one.
        :returns: the aggregate's uuid; '' when something differs.
        """
        self.say(f"$ xenpool {step.words}")
        started = clock.SYSTEM.monotonic()
        with progress.shown(self.app.stderr) as listener:
            step.act(listener)
        seconds = clock.SYSTEM.monotonic() - started
        aggregate = bench.store.get_aggregate(
            uuid or demo_story.NAME, dismissed=True
        )
        uuid = aggregate.uuid
        declared, pools = demo_views.declared(aggregate), observer.pools()
        self.say(f"    metadata: {declared}")
        self.say(f"    XAPI:     {_together(pools)}  ({seconds:.1f} s)")
        wrong = demo_story.differences(step.expected, declared, pools, uuid)
        for difference in wrong:
            self.complain(f"xenpool: differs: {difference}")
        return '' if wrong else uuid


def _together(pools: collections.abc.Iterable[demo_views.Pool]) -> str:
    return ' | '.join(str(pool) for pool in pools)


def _free_address() -> str:
    """Return a loopback address that other runs do not use."""
    number = os.getpid()
    return f"127.{64 + number // 254 % 128}.{1 + number % 254}.11"


@contextlib.contextmanager
def _simulator(
    parsed_args: argparse.Namespace, directory: pathlib.Path
) -> collections.abc.Iterator[list[SimulatedHost]]:
    """Run a simulator; hand out its hosts once they listen.

    :raises ConfigurationError: it does not start with these arguments.
    """
    what = ['--hosts', '3']
    if parsed_args.records:
        what = ['--records', parsed_args.records]
    arguments = [
        *(sys.executable, '-m', 'xenpool_driver.simulator', *what),
        *('--address', parsed_args.address, '--port', str(PORT)),
        *('--time-scale', str(parsed_args.time_scale)),
        *('--state-dir', str(directory)),
    ]
    with subprocess.Popen(  # noqa: S603 - our own module, no shell
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _hosts(process)
        finally:
            process.terminate()


def _hosts(process: subprocess.Popen[str]) -> list[SimulatedHost]:
    """Return the hosts that a simulator announces."""
    found: list[SimulatedHost] = []
    for line in typing.cast(typing.TextIO, process.stdout):
        words = line.split()
        if words == ['ready']:
            return found
        if words[:1] == ['host']:
            found.append(SimulatedHost(*words[1:4]))
    complaint = typing.cast(typing.TextIO, process.stderr).read()
    raise exceptions.ConfigurationError(
        f"the simulator does not start: {complaint.strip()}"
    )


def _distinct(hosts: list[SimulatedHost]) -> list[SimulatedHost]:
    """Number the hosts, where recorded ones have the same name."""
    names = {host.name for host in hosts}
    if len(names) == len(hosts):
        return hosts
    return [
        host._replace(name=f"xen{number:02}")
        for number, host in enumerate(hosts, 1)
    ]


def _write_configuration(
    directory: pathlib.Path, hosts: list[SimulatedHost]
) -> pathlib.Path:
    """Write the file that an operator would write for these hosts."""
    names = ', '.join(host.name for host in hosts)
    lines = [
        '[DEFAULT]',
        f"enabled_hosts = {names}",
        '[xenpool]',
        'poll_interval = 0.1',
        '[database]',
        f"connection = sqlite:///{directory / 'demo.db'}",
    ]
    for host in hosts:
        lines += [
            f"[{host.name}]",
            f"connection_url = {host.url}",
            f"connection_password = {PASSWORD}",
            f"ca_file = {directory / 'ca.pem'}",
        ]
    path = directory / 'xenpool.conf'
    path.touch(0o600)
    path.write_text('\n'.join(lines) + '\n')
    return path
