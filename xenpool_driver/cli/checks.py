# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool aggregate check|audit|recover|release`` and ``preflight join``."""

from __future__ import annotations

import argparse
import collections.abc
import json
import typing

from xenpool_driver import exceptions, model, requests
from xenpool_driver.cli import aggregate, command, status

_COLUMNS = ('Host', 'Verdict', 'Check', 'Finding', 'Remedy')
_AUDIT_COLUMNS = ('Aggregate', *_COLUMNS[1:])


class _Reports(command.Lister):
    """Prints reports: rows for people, the whole form for programs.

    :cvar when_failed: the exit status when a finding is a failure.
    """

    when_failed = status.REFUSED

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--all',
            action='store_true',
            help='show the checks that passed, too (json and yaml always do)',
        )
        return parser

    def shape(
        self, reports: collections.abc.Sequence[model.Report]
    ) -> typing.Any:
        """Return the form for programs: a report per subject."""
        return {report.subject: report.to_dict() for report in reports}

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: typing.Any,
    ) -> int:
        """Print the reports that the command's action has returned."""
        reports: collections.abc.Sequence[model.Report] = data
        self.exit_status = max(
            (status.of_report(report, self.when_failed) for report in reports),
            default=status.DONE,
        )
        told = self.app.repeater.value(self.shape(reports))
        if parsed_args.formatter == 'json':
            self.say(json.dumps(told, indent=2))
        elif parsed_args.formatter == 'yaml':
            import yaml

            self.say(yaml.safe_dump(told, sort_keys=False))
        else:
            rows = _rows(reports, parsed_args.all)
            super().produce_output(parsed_args, column_names, rows)
        return 0


def _rows(
    reports: collections.abc.Sequence[model.Report], passes: bool
) -> list[tuple[str, str, str, str, str]]:
    """Return a row per host and rule, the worst first."""
    found = [
        (finding.severity.rank, report.subject, finding)
        for report in reports
        for finding in report.findings
        if passes or finding.severity is not model.Severity.PASS
    ]
    found.sort(key=lambda each: -each[0])
    rows = [
        (
            subject,
            str(finding.severity),
            finding.check,
            finding.message,
            finding.remedy,
        )
        for _, subject, finding in found
    ]
    quiet = {report.subject for report in reports} - {row[0] for row in rows}
    return rows + [
        (subject, 'pass', 'all', 'nothing speaks against it', '')
        for subject in sorted(quiet)
    ]


class Check(_Reports):
    """Say all that speaks against adding hosts; change nothing"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        aggregate.add_aggregate(parser)
        parser.add_argument(
            'hosts', metavar='HOST', nargs='+', help='compute host names'
        )
        parser.add_argument(
            '--force',
            action='store_true',
            help='judge as for a join with --force',
        )
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        if not parsed_args.remote:
            self.workbench.require_hosts(parsed_args.hosts)
        reports = self.workbench.api(parsed_args.remote).check_hosts(
            self.workbench.context,
            parsed_args.aggregate,
            parsed_args.hosts,
            force=parsed_args.force,
        )
        return _COLUMNS, typing.cast(typing.Any, reports)


class Audit(_Reports):
    """Compare what aggregates say with what their pools say"""

    when_failed = status.FAILED

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        aggregate.add_aggregate(parser, nargs='?')
        parser.add_argument(
            '--fix',
            action='store_true',
            help='settle what touches only our own metadata, put back a lost '
            'stamp, and destroy records of control domains that stuck joins '
            'have left',
        )
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        api = self.workbench.api(parsed_args.remote)
        if parsed_args.aggregate is None:
            idents = [each.uuid for each in api.list_all()]
        else:
            idents = [parsed_args.aggregate]
        reports = [
            api.audit(self.workbench.context, ident, parsed_args.fix)
            for ident in idents
        ]
        return _AUDIT_COLUMNS, typing.cast(typing.Any, reports)


class Recover(_Reports):
    """Settle what dead workers left behind, by looking at the pool"""

    when_failed = status.FAILED

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        aggregate.add_aggregate(parser)
        parser.add_argument(
            '--promote',
            metavar='HOST',
            help='the master is dead: make this member the master',
        )
        parser.add_argument(
            '--the-master-is-off',
            action='store_true',
            help='you have switched the dead master off: count only members '
            'that can vote, as in a pool of two',
        )
        parser.add_argument(
            '--force',
            metavar='OPERATION',
            help='the worker of this operation is dead: end its logins and '
            'settle it, before its lease has run out',
        )
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        if parsed_args.the_master_is_off and not parsed_args.promote:
            raise exceptions.ConfigurationError(
                '--the-master-is-off is of use with --promote HOST only, '
                'which names the next master'
            )
        options = requests.Recover(
            promote=parsed_args.promote,
            master_is_off=parsed_args.the_master_is_off,
            force=parsed_args.force,
        )
        api = self.workbench.api(parsed_args.remote)
        with self.under_way(
            parsed_args.aggregate, parsed_args.remote
        ) as listener:
            report = api.recover(
                self.workbench.context,
                parsed_args.aggregate,
                options,
                progress=listener,
            )
        return _AUDIT_COLUMNS, typing.cast(typing.Any, [report])


class Release(_Reports):
    """Let a pool go, whatever state it is in; no host is touched"""

    when_failed = status.FAILED

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        aggregate.add_aggregate(parser)
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        api = self.workbench.api(parsed_args.remote)
        with self.under_way(
            parsed_args.aggregate, parsed_args.remote
        ) as listener:
            report = api.release(
                self.workbench.context,
                parsed_args.aggregate,
                progress=listener,
            )
        return _AUDIT_COLUMNS, typing.cast(typing.Any, [report])


class PreflightJoin(_Reports):
    """Judge a join offline, from records that were dumped"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        for name, whose in (
            ('--joiner', 'the host that would join'),
            ('--pool', 'the pool that it would join'),
        ):
            parser.add_argument(
                name,
                metavar='FILE',
                required=True,
                help=f"the records of {whose}, from 'records dump'",
            )
        parser.add_argument(
            '--force', action='store_true', help='judge pool.join_force'
        )
        return parser

    def shape(
        self, reports: collections.abc.Sequence[model.Report]
    ) -> typing.Any:
        """Return the form for programs: the one report."""
        return reports[0].to_dict()

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        from xenpool_driver.preflight import join

        report = join.check(
            _snapshot(parsed_args.joiner),
            _snapshot(parsed_args.pool),
            force=parsed_args.force,
        )
        return _COLUMNS, typing.cast(typing.Any, [report])


def _snapshot(path: str) -> typing.Any:
    """Return what a file of dumped records shows.

    :raises ConfigurationError: it cannot be read, or holds something else.
    """
    from xenpool_driver.xapi import records

    try:
        with open(path, encoding='utf-8') as stream:
            raw = json.load(stream)
        return records.snapshot(raw)
    except OSError as error:
        why = error.strerror or str(error)
    except (
        ValueError,
        RecursionError,
        exceptions.ConfigurationError,
    ) as error:
        why = f"not records as the command 'records dump' writes them: {error}"
    raise exceptions.ConfigurationError(f"{path}: {why}")
