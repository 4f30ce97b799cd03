# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool aggregate add host|remove host|set master|adopt``."""

from __future__ import annotations

import argparse
import typing

from xenpool_driver import exceptions, model, requests
from xenpool_driver.cli import aggregate, command, status

if typing.TYPE_CHECKING:
    from xenpool_driver.compute import aggregates

_STATUS = {
    'succeeded': status.DONE,
    'failed': status.FAILED,
    'refused': status.REFUSED,
}


def add_suspend_ha(parser: argparse.ArgumentParser) -> None:
    """Add the option that every request to a pool has."""
    parser.add_argument(
        '--suspend-ha',
        action='store_true',
        help='switch high availability off for the time of the request',
    )


def add_join_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a request that adds hosts."""
    parser.add_argument(
        '--force',
        action='store_true',
        help='join although software builds or CPU vendors differ '
        '(pool.join_force); every other check still holds',
    )
    parser.add_argument(
        '--restore-settings',
        action='store_true',
        help='put back the safe settings that a join loses: name, tags, '
        'logging, other_config',
    )
    add_suspend_ha(parser)


def add_leave_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a request that removes a host."""
    parser.add_argument(
        '--drain',
        action='store_true',
        help='first move its virtual machines to other hosts',
    )
    parser.add_argument(
        '--keep-disabled',
        action='store_true',
        help='leave the host disabled when draining fails',
    )
    parser.add_argument(
        '--wait',
        action='store_true',
        help='wait until the host is back as a pool of its own',
    )
    parser.add_argument(
        '--successor',
        metavar='HOST',
        help='the next master, when the master is removed',
    )
    parser.add_argument(
        '--forget',
        action='store_true',
        help='the host is dead: only forget its record',
    )
    add_suspend_ha(parser)


def leaving(parsed_args: argparse.Namespace) -> requests.RemoveHost:
    """Return what the options of :func:`add_leave_options` ask for.

    Local disks may be lost: the command says so, and asks.

    :raises ConfigurationError: they exclude each other.
    """
    if parsed_args.forget:
        for name in ('drain', 'successor', 'wait', 'keep_disabled'):
            if getattr(parsed_args, name):
                raise exceptions.ConfigurationError(
                    f"--{name.replace('_', '-')} is for a host that lives, "
                    f"and --forget for one that is dead: give one of them"
                )
    return requests.RemoveHost(
        successor=parsed_args.successor,
        allow_data_loss=True,
        forget=parsed_args.forget,
        drain=parsed_args.drain,
        keep_disabled=parsed_args.keep_disabled,
        wait=parsed_args.wait,
        suspend_ha=parsed_args.suspend_ha,
    )


class AddHost(command.Lister):
    """Join hosts to the pool; the first one becomes its master"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        aggregate.add_aggregate(parser)
        parser.add_argument(
            'hosts', metavar='HOST', nargs='+', help='compute host names'
        )
        add_join_options(parser)
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        if not parsed_args.remote:
            self.workbench.require_hosts(parsed_args.hosts)
        elif len(set(parsed_args.hosts)) < len(parsed_args.hosts):
            raise exceptions.ConfigurationError('a host is named twice')
        api = self.workbench.api(parsed_args.remote)
        with self.under_way(
            parsed_args.aggregate, parsed_args.remote
        ) as listener:
            results = api.add_hosts(
                self.workbench.context,
                parsed_args.aggregate,
                parsed_args.hosts,
                force=parsed_args.force,
                suspend_ha=parsed_args.suspend_ha,
                restore_settings=parsed_args.restore_settings,
                progress=listener,
            )
        self.exit_status = self._outcome(results)
        rows = [(each.host, each.outcome, each.reason) for each in results]
        return ('Host', 'Result', 'Reason'), rows

    def _outcome(self, results: typing.Sequence[aggregates.HostResult]) -> int:
        """Print what went wrong; return the exit status of the whole."""
        for result in results:
            if result.error is not None:
                self.report(result.error)
        return status.together(
            status.of(result.error) if result.error else status.DONE
            for result in results
        )


class RemoveHost(command.Command):
    """Eject a host from the pool; its local disks are wiped"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        aggregate.add_aggregate(parser)
        parser.add_argument('host', metavar='HOST', help='compute host name')
        parser.add_argument(
            '--yes',
            action='store_true',
            help='do not ask; what is listed as lost will be lost',
        )
        add_leave_options(parser)
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        api = self.workbench.api(parsed_args.remote)
        options = requests.pack(leaving(parsed_args))
        whom = (
            self.workbench.context,
            parsed_args.aggregate,
            parsed_args.host,
        )
        if not parsed_args.yes:
            self._agree(parsed_args, api.check_removal(*whom, **options))
        with self.under_way(
            parsed_args.aggregate, parsed_args.remote
        ) as listener:
            api.remove_host(*whom, progress=listener, **options)
        return status.DONE

    def _agree(
        self, parsed_args: argparse.Namespace, report: model.Report
    ) -> None:
        """Have a person agree to what will be lost.

        Nobody is asked about a removal that cannot go on.

        :raises InvalidAggregateActionDelete: nobody does, or it cannot.
        """
        if report.failures:
            reasons = '; '.join(each.message for each in report.failures)
            raise exceptions.InvalidAggregateActionDelete(
                parsed_args.aggregate, reasons, report
            )
        stdin = self.app.stdin
        if not (stdin.isatty() and self.app.stderr.isatty()):
            raise exceptions.InvalidAggregateActionDelete(
                parsed_args.aggregate,
                f"nobody agreed to what removing '{parsed_args.host}' loses; "
                f"--yes agrees",
                report,
            )
        for line in status.finding_lines(report):
            self.complain(line)
        loses = (
            'Forget' if parsed_args.forget else 'Remove',
            'its record' if parsed_args.forget else 'its local disks',
        )
        print(
            f"{loses[0]} '{parsed_args.host}' and lose {loses[1]}? [y/N] ",
            end='',
            file=self.app.stderr,
            flush=True,
        )
        if stdin.readline().strip().lower() not in ('y', 'yes'):
            raise exceptions.InvalidAggregateActionDelete(
                parsed_args.aggregate, 'you did not agree'
            )


class SetMaster(command.Command):
    """Make another host of the aggregate the master of its pool"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        aggregate.add_aggregate(parser)
        parser.add_argument('host', metavar='HOST', help='compute host name')
        add_suspend_ha(parser)
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        with self.under_way(
            parsed_args.aggregate, parsed_args.remote
        ) as listener:
            self.workbench.api(parsed_args.remote).set_master(
                self.workbench.context,
                parsed_args.aggregate,
                parsed_args.host,
                suspend_ha=parsed_args.suspend_ha,
                progress=listener,
            )
        return status.DONE


class Adopt(command.ShowOne):
    """Make an aggregate of a pool that exists, as it stands"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('name', metavar='NAME', help='of the aggregate')
        parser.add_argument(
            '--from',
            dest='host',
            metavar='HOST',
            required=True,
            help='compute host name of any host of the pool',
        )
        parser.add_argument(
            '--replace-stamp',
            metavar='UUID',
            help='the stamp of another controller that is gone for good; it '
            'is replaced',
        )
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> aggregate.Shown:
        if not parsed_args.remote:
            self.workbench.require_hosts([parsed_args.host])
        api = self.workbench.api(parsed_args.remote, create=True)
        with self.under_way(parsed_args.name, parsed_args.remote):
            adopted = api.adopt(
                self.workbench.context,
                parsed_args.name,
                parsed_args.host,
                parsed_args.replace_stamp,
            )
        return aggregate.shown(adopted)
