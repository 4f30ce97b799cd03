# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool db upgrade|version``."""

from __future__ import annotations

import argparse
import typing

from xenpool_driver.cli import command, status


class Upgrade(command.Command):
    """Upgrade the schema of the database to this program's"""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from xenpool_driver import store

        before, after = store.migrate(self.workbench.conf)
        if before == after:
            self.say(f"up to date: {after}")
        else:
            self.say(f"upgraded: {before or 'empty'} to {after}")
        return status.DONE


class Version(command.ShowOne):
    """Show the schema versions of the database and of this program"""

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[typing.Any, ...]]:
        from xenpool_driver import store

        database, program = store.version(self.workbench.conf)
        return ('database', 'program'), (database, program)
