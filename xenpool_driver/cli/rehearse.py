# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool rehearse add host|remove host|set master``.

The records of the real hosts are read, and nothing else is asked of them.
Then the very request is made to simulated twins, by the real driver.
"""

from __future__ import annotations

import abc
import argparse
import collections.abc
import typing

from xenpool_driver import exceptions, model, pool_states, requests
from xenpool_driver.cli import (
    aggregate,
    command,
    members,
    progress,
    rehearsal_report,
    simulate,
    status,
)

if typing.TYPE_CHECKING:
    from xenpool_driver import store
    from xenpool_driver.cli import rehearsal, rehearsal_reads


_LOSSES = {'data-loss', 'forgotten-storage', 'dangling-vms'}
"""The checks of an eject that say what would be gone."""


class _Rehearsal(command.ShowOne):
    """What the three rehearsals have in common.

    :cvar refusal: the error of a request whose hosts cannot be read.
    """

    refusal: typing.ClassVar[type[exceptions.InvalidAggregateAction]]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        from xenpool_driver.cli import rehearsal

        parser = super().get_parser(prog_name)
        aggregate.add_aggregate(parser)
        parser.add_argument(
            '--time-scale',
            type=float,
            default=rehearsal.TIME_SCALE,
            metavar='F',
            help='let time run F times as fast as life (default: %(default)s)',
        )
        return parser

    @abc.abstractmethod
    def words(self, parsed_args: argparse.Namespace) -> str:
        """Return the request, as it would be typed."""

    def joiners(
        self, parsed_args: argparse.Namespace
    ) -> collections.abc.Sequence[str]:
        """Return the hosts outside the aggregate that are concerned."""
        return ()

    @abc.abstractmethod
    def ask(
        self,
        stage: rehearsal.Stage,
        uuid: str,
        parsed_args: argparse.Namespace,
        listener: model.Progress,
    ) -> rehearsal_report.Outcome:
        """Make the request to the twins."""

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[typing.Any, ...]]:
        simulate.runner()  # says what is missing before anything is read
        from xenpool_driver import driver as drivers
        from xenpool_driver.cli import rehearsal_reads

        bench = self.workbench
        row = bench.store.get_aggregate(parsed_args.aggregate)
        hosts = self.joiners(parsed_args)
        bench.require_hosts(hosts)
        real = drivers.XenAPIPoolDriver(conf=bench.conf, database=bench.store)
        try:
            reading = rehearsal_reads.read(real.site, row, hosts)
        except exceptions.XapiError as error:
            raise self.refusal(row.name, str(error)) from error
        finally:
            real.site.connections.close()
        for place, why in reading.gaps.items():
            self.complain(f"xenpool: warning: {place} is left out: {why}")
        outcome = self._rehearse(parsed_args, row, reading)
        for result in outcome.results:
            if result.error is not None:
                self.report(result.error)
        self.exit_status = outcome.status
        return rehearsal_report.fields(
            row, self.words(parsed_args), reading, outcome
        )

    def _rehearse(
        self,
        parsed_args: argparse.Namespace,
        row: store.Aggregate,
        reading: rehearsal_reads.Reading,
    ) -> rehearsal_report.Outcome:
        """Make the request to twins of what was read."""
        from xenpool_driver.cli import rehearsal

        bench = self.workbench
        if not reading.pools:
            return rehearsal_report.Outcome(
                self._unread(row, reading), end=row
            )
        with (
            rehearsal.stage(
                bench.conf, bench.store, row, reading, parsed_args.time_scale
            ) as stage,
            progress.shown(self.app.stderr) as listener,
        ):
            outcome = self.ask(stage, row.uuid, parsed_args, listener)
            outcome.seconds = stage.seconds
            outcome.calls = stage.calls
            outcome.steps = stage.steps(row.uuid)
            outcome.lost.update(stage.losses(row.uuid))
            outcome.end = stage.api.get(row.uuid)
            outcome.addresses = stage.addresses
        outcome.results += self._unread(row, reading)
        return outcome

    def _unread(
        self, row: store.Aggregate, reading: rehearsal_reads.Reading
    ) -> list[rehearsal_report.Result]:
        """Return the results of hosts that could not be read."""
        return [
            rehearsal_report.Result(
                host, 'refused', self.refusal(row.name, str(error))
            )
            for host, error in reading.unreadable.items()
            if host not in row.hosts
        ]

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: typing.Any,
    ) -> int:
        """Print the report: for people as text, for programs as asked."""
        if parsed_args.formatter != 'table':
            super().produce_output(parsed_args, column_names, data)
            return 0
        told = dict(zip(column_names, data, strict=True))
        for line in rehearsal_report.lines(told):
            self.say(line)
        return 0


class AddHost(_Rehearsal):
    """Rehearse adding hosts on simulated twins; the real ones are only read"""

    refusal = exceptions.InvalidAggregateActionAdd

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'hosts', metavar='HOST', nargs='+', help='compute host names'
        )
        members.add_join_options(parser)
        return parser

    def words(self, parsed_args: argparse.Namespace) -> str:
        return f"add host {parsed_args.aggregate} " + ' '.join(
            parsed_args.hosts
        )

    def joiners(
        self, parsed_args: argparse.Namespace
    ) -> collections.abc.Sequence[str]:
        return list(parsed_args.hosts)

    def ask(
        self,
        stage: rehearsal.Stage,
        uuid: str,
        parsed_args: argparse.Namespace,
        listener: model.Progress,
    ) -> rehearsal_report.Outcome:
        outcome = rehearsal_report.Outcome()
        for hosts in self._batches(stage, uuid, parsed_args.hosts):
            outcome.reports.update(
                _checked(stage, uuid, hosts, parsed_args.force)
            )
            if not outcome.results:
                stage.begin()
            results = stage.api.add_hosts(
                self.workbench.context,
                uuid,
                hosts,
                force=parsed_args.force,
                suspend_ha=parsed_args.suspend_ha,
                restore_settings=parsed_args.restore_settings,
                progress=listener,
            )
            outcome.results += [
                rehearsal_report.Result(each.host, each.outcome, each.error)
                for each in results
            ]
        return outcome

    def _batches(
        self, stage: rehearsal.Stage, uuid: str, hosts: list[str]
    ) -> list[list[str]]:
        """Return the hosts; one that becomes the master goes first."""
        hosts = [host for host in hosts if stage.knows(host)]
        if stage.api.get(uuid).metadata.get(pool_states.MASTER):
            return [hosts]
        return [part for part in (hosts[:1], hosts[1:]) if part]


def _checked(
    stage: rehearsal.Stage, uuid: str, hosts: list[str], force: bool
) -> dict[str, model.Report]:
    """Return what the checks say of hosts that shall join."""
    if not hosts:
        return {}
    try:
        reports = stage.api.check_hosts(None, uuid, hosts, force=force)
    except exceptions.XenpoolError:
        return {}  # the request itself meets the same and tells it
    return dict(zip(hosts, reports, strict=True))


class _OneHost(_Rehearsal):
    """A request about one host of the aggregate."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('host', metavar='HOST', help='compute host name')
        return parser

    def ask(
        self,
        stage: rehearsal.Stage,
        uuid: str,
        parsed_args: argparse.Namespace,
        listener: model.Progress,
    ) -> rehearsal_report.Outcome:
        outcome = rehearsal_report.Outcome()
        try:
            self.act(stage, uuid, parsed_args, listener, outcome)
        except exceptions.XenpoolError as error:
            refused = status.of(error) == status.REFUSED
            word = 'refused' if refused else 'failed'
            failure: exceptions.XenpoolError | None = error
        else:
            word, failure = 'succeeded', None
        outcome.results.append(
            rehearsal_report.Result(parsed_args.host, word, failure)
        )
        return outcome

    @abc.abstractmethod
    def act(
        self,
        stage: rehearsal.Stage,
        uuid: str,
        parsed_args: argparse.Namespace,
        listener: model.Progress,
        outcome: rehearsal_report.Outcome,
    ) -> None:
        """Make the request."""


class RemoveHost(_OneHost):
    """Rehearse removing a host on simulated twins; nothing real is touched"""

    refusal = exceptions.InvalidAggregateActionDelete

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        members.add_leave_options(parser)
        return parser

    def words(self, parsed_args: argparse.Namespace) -> str:
        return f"remove host {parsed_args.aggregate} {parsed_args.host}"

    def act(
        self,
        stage: rehearsal.Stage,
        uuid: str,
        parsed_args: argparse.Namespace,
        listener: model.Progress,
        outcome: rehearsal_report.Outcome,
    ) -> None:
        context = self.workbench.context
        options = requests.pack(members.leaving(parsed_args))
        report = stage.api.check_removal(
            context, uuid, parsed_args.host, **options
        )
        outcome.reports[parsed_args.host] = report
        outcome.lost[parsed_args.host] = [
            finding.to_dict()
            for finding in report.findings
            if finding.check in _LOSSES
            and finding.severity is not model.Severity.PASS
        ]
        stage.begin()
        stage.api.remove_host(
            context,
            uuid,
            parsed_args.host,
            progress=listener,
            **options,
        )


class SetMaster(_OneHost):
    """Rehearse a change of master on simulated twins"""

    refusal = exceptions.InvalidAggregateActionUpdate

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        members.add_suspend_ha(parser)
        return parser

    def words(self, parsed_args: argparse.Namespace) -> str:
        return f"set master {parsed_args.aggregate} {parsed_args.host}"

    def act(
        self,
        stage: rehearsal.Stage,
        uuid: str,
        parsed_args: argparse.Namespace,
        listener: model.Progress,
        outcome: rehearsal_report.Outcome,
    ) -> None:
        stage.begin()
        stage.api.set_master(
            self.workbench.context,
            uuid,
            parsed_args.host,
            suspend_ha=parsed_args.suspend_ha,
            progress=listener,
        )
