# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool simulator run``."""

from __future__ import annotations

import argparse
import types

from xenpool_driver import exceptions
from xenpool_driver.cli import command


def runner() -> types.ModuleType:
    """Return what runs simulators.

    :raises ConfigurationError: what it needs is not installed.
    """
    try:
        from xenpool_driver.simulator import runner
    except ImportError as error:
        raise exceptions.ConfigurationError(
            f"the simulator needs the extra [simulator]: pip install "
            f"'xenpool-driver[simulator]' ({error.name} is missing)"
        ) from None
    return runner


class Run(command.Command):
    """Run simulated hosts until SIGTERM

    Options that are not given are those of section [simulator] of the
    configuration.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        try:
            runner().add_arguments(parser)
        except exceptions.ConfigurationError as error:
            parser.error(str(error))
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        running = runner()
        running.fill(parsed_args, dict(self.workbench.conf.simulator))
        return int(running.run(parsed_args))
