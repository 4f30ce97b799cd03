# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool simulator run``."""

from __future__ import annotations

import argparse

from xenpool_driver.cli import command


class Run(command.Command):
    """Run simulated hosts until SIGTERM"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        from xenpool_driver.simulator import runner

        parser = super().get_parser(prog_name)
        runner.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from xenpool_driver.simulator import runner

        return int(runner.run(parsed_args) or 0)
