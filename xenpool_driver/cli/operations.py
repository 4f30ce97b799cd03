# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool operation list|show``."""

from __future__ import annotations

import argparse
import typing

from xenpool_driver.cli import command, formats

if typing.TYPE_CHECKING:
    from xenpool_driver import store

_FIELDS = (
    'uuid',
    'aggregate',
    'kind',
    'host',
    'outcome',
    'error',
    'phase',
    'owner',
    'epoch',
    'lease_expires',
    'started_at',
    'ended_at',
    'request_id',
    'details',
    'story',
)


def _outcome(operation: store.Operation) -> str:
    return operation.outcome or 'running'


class List(command.Lister):
    """List operations, the latest first"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--aggregate',
            metavar='AGGREGATE',
            help='only those of this aggregate (name, id or uuid)',
        )
        parser.add_argument(
            '--running', action='store_true', help='only those without an end'
        )
        parser.add_argument(
            '--limit',
            type=command.positive,
            default=50,
            metavar='N',
            help='at most so many (default: %(default)s)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        database = self.workbench.store
        wanted = None
        if parsed_args.aggregate:
            wanted = database.get_aggregate(
                parsed_args.aggregate, dismissed=True
            ).uuid
        if parsed_args.running:
            found = database.running_operations(wanted)[: parsed_args.limit]
        else:
            found = database.list_operations(wanted, limit=parsed_args.limit)
        names = {
            each.uuid: each.name
            for each in database.list_aggregates(dismissed=True)
        }
        rows = [
            (
                each.uuid,
                names.get(each.aggregate_uuid, each.aggregate_uuid),
                each.kind,
                each.host,
                _outcome(each),
                each.phase,
                command.stamp(each.started_at),
                command.stamp(each.ended_at),
            )
            for each in found
        ]
        columns = (
            'UUID',
            'Aggregate',
            'Kind',
            'Host',
            'Outcome',
            'Phase',
            'Started',
            'Ended',
        )
        return columns, rows


class Show(command.ShowOne):
    """Tell the story of an operation"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'operation',
            metavar='OPERATION',
            help='its uuid, or the first digits of it',
        )
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[typing.Any, ...]]:
        database = self.workbench.store
        found = database.get_operation(parsed_args.operation)
        owner = database.get_aggregate(found.aggregate_uuid, dismissed=True)
        story = [
            {
                'at': command.stamp(phase.at),
                'phase': phase.phase,
                'note': phase.note,
            }
            for phase in database.phases(found.uuid)
        ]
        return _FIELDS, (
            found.uuid,
            owner.name,
            found.kind,
            found.host,
            _outcome(found),
            found.error,
            found.phase,
            found.owner,
            found.epoch,
            command.stamp(found.lease_expires) if found.running else None,
            command.stamp(found.started_at),
            command.stamp(found.ended_at),
            found.request_id,
            formats.Pairs(
                {key: str(value) for key, value in found.details.items()}
            ),
            formats.Lines(story),
        )
