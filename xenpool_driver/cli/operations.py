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


def _found(
    database: store.Store, wanted: str | None, parsed_args: argparse.Namespace
) -> list[store.Operation]:
    """Return operations, and the requests on the bus that began none yet."""
    from xenpool_driver.compute import delivery

    limit = parsed_args.limit
    now = database.lease_time()
    sent = [
        delivery.as_operation(each, now)
        for each in database.list_requests(wanted, limit)
    ]
    if parsed_args.running:
        sent = [each for each in sent if each.running]
        return [*sent, *database.running_operations(wanted)][:limit]
    found = [*sent, *database.list_operations(wanted, limit=limit)]
    found.sort(key=lambda each: each.started_at, reverse=True)
    return found[:limit]


class List(command.Lister):
    """List operations, the latest first

    A request that was sent to a compute service and has begun no operation
    is listed, too.
    """

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
        found = _found(database, wanted, parsed_args)
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


def _told(
    database: store.Store, ident: str
) -> tuple[store.Operation, list[dict[str, typing.Any]]]:
    """Return an operation, or a request on the bus, and its story.

    A request that has begun an operation is shown as that one.

    :raises OperationNotFound: there is none.
    """
    from xenpool_driver import exceptions
    from xenpool_driver.compute import delivery

    sent = None
    try:
        found = database.get_operation(ident)
    except exceptions.OperationNotFound as error:
        try:
            sent = database.get_request(ident)
        except exceptions.OperationNotFound:
            raise error from None
        if sent.operation_uuid is not None:
            return _told(database, sent.operation_uuid)
        found = delivery.as_operation(sent, database.lease_time())
    if sent is not None:
        lines = delivery.story(sent)
    else:
        lines = [
            (each.at, each.phase, each.note)
            for each in database.phases(found.uuid)
        ]
    return found, [
        {'at': command.stamp(at), 'phase': phase, 'note': note}
        for at, phase, note in lines
    ]


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
        found, story = _told(database, parsed_args.operation)
        owner = database.get_aggregate(found.aggregate_uuid, dismissed=True)
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
