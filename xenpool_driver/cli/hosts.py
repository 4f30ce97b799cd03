# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool host list`` and ``xenpool records dump``."""

from __future__ import annotations

import argparse
import errno
import os
import tempfile
import typing

from xenpool_driver import exceptions, pool_states, redaction
from xenpool_driver.cli import command, status

_WRONG_NAME = {
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
}
"""Why nothing can be written to a file of this name. Whatever else fails,
for example a full disk, is no wrong usage."""


class List(command.Lister):
    """List the hosts that are configured or in an aggregate"""

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        from xenpool_driver import conf as config

        known = self.workbench.hosts
        try:
            aggregates = self.workbench.api().list_all()
        except exceptions.NoDatabase as error:
            if not known:
                raise config.no_hosts(self.workbench.conf) from None
            self.complain(f"{self.app.NAME}: {error}")
            aggregates = []
        places = {host: each for each in aggregates for host in each.hosts}
        if not known:
            nobody = config.no_hosts(self.workbench.conf)
            if not places:
                raise nobody
            self.complain(f"{self.app.NAME}: {nobody}")
            self.exit_status = status.USAGE
        rows = []
        for host in [*known, *(name for name in places if name not in known)]:
            place = places.get(host)
            rows.append(
                (
                    host,
                    known[host].url if host in known else None,
                    place.name if place else None,
                    _role(host, place),
                    place.metadata.get(host) if place else None,
                )
            )
        return ('Host', 'URL', 'Aggregate', 'Role', 'UUID'), rows


def _role(host: str, place: typing.Any) -> str | None:
    if place is None:
        return None
    master = place.metadata.get(pool_states.MASTER)
    return 'master' if host == master else 'member'


class DumpRecords(command.Command):
    """Write the records of a host's pool to a file, for a support case"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('host', metavar='HOST', help='compute host name')
        parser.add_argument(
            '-o',
            '--output',
            metavar='FILE',
            help='where to write (default: standard output)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        self.workbench.require_hosts([parsed_args.host])
        text = self._records(parsed_args.host)
        if parsed_args.output is None:
            self.app.stdout.buffer.write(text)
            self.app.stdout.buffer.flush()
            return status.DONE
        try:
            _write(parsed_args.output, text)
        except OSError as error:
            failed = f"{parsed_args.output}: {error.strerror}"
            if error.errno in _WRONG_NAME:
                raise exceptions.ConfigurationError(failed) from None
            raise exceptions.XenpoolError(failed) from None
        return status.DONE

    def _records(self, host: str) -> bytes:
        """Return the records of the pool that the host belongs to."""
        import orjson

        from xenpool_driver import snapshot
        from xenpool_driver.xapi import connections

        doors = connections.Connections(self.workbench.hosts)
        try:
            records = doors.coordinator_of(host).records(
                *snapshot.DUMP_CLASSES
            )
        finally:
            doors.close()
        for cls, why in records.unreadable.items():
            self.complain(f"xenpool: warning: {cls} is left out: {why}")
        # a dump is made to be given away
        shown = redaction.without_secrets(dict(records))
        return orjson.dumps(shown, option=orjson.OPT_INDENT_2) + b'\n'


def _write(path: str, text: bytes) -> None:
    """Write a whole file or none; nobody else may read it.

    A device or a pipe is written to; to put a file in its place would take
    it away from everybody.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, 'wb') as stream:
            stream.write(text)
        return
    path = os.path.realpath(path)
    descriptor, part = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, 'wb') as stream:
            stream.write(text)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
