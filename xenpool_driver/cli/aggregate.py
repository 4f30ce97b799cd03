# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool aggregate create|list|show|set|delete``."""

from __future__ import annotations

import argparse
import typing

from xenpool_driver import pool_states
from xenpool_driver.cli import command, formats, status

if typing.TYPE_CHECKING:
    from xenpool_driver import store

_FIELDS = (
    'id',
    'uuid',
    'name',
    'state',
    'master',
    'hosts',
    'pool_uuid',
    'failed_requests',
    'properties',
    'created_at',
    'deleted_at',
)

Shown = tuple[tuple[str, ...], tuple[typing.Any, ...]]


def shown(aggregate: store.Aggregate) -> Shown:
    """Return the fields of one aggregate and their values."""
    metadata = aggregate.metadata
    return _FIELDS, (
        aggregate.id,
        aggregate.uuid,
        aggregate.name,
        aggregate.state,
        metadata.get(pool_states.MASTER),
        formats.Names(aggregate.hosts),
        metadata.get(pool_states.POOL_UUID),
        int(metadata.get(pool_states.FAILED_REQUESTS) or 0),
        formats.Pairs(metadata),
        command.stamp(aggregate.created_at),
        command.stamp(aggregate.deleted_at),
    )


def add_aggregate(parser: argparse.ArgumentParser, **how: typing.Any) -> None:
    """Add the argument that names an aggregate."""
    parser.add_argument(
        'aggregate',
        metavar='AGGREGATE',
        help='name, id or uuid of the aggregate',
        **how,
    )


class Create(command.ShowOne):
    """Create an aggregate; its first host will make it a pool"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('name', metavar='NAME', help='its name')
        parser.add_argument(
            '--property',
            metavar='KEY=VALUE',
            action='append',
            default=[],
            type=command.key_value,
            help='metadata of your own; repeatable',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        created = self.workbench.api(create=True).create(
            parsed_args.name, dict(parsed_args.property)
        )
        return shown(created)


class List(command.Lister):
    """List aggregates"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--all',
            action='store_true',
            help='list those that were deleted, too',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Rows:
        rows = [
            (
                aggregate.id,
                aggregate.name,
                aggregate.state,
                aggregate.metadata.get(pool_states.MASTER),
                formats.Names(aggregate.hosts),
                aggregate.uuid,
            )
            for aggregate in self.workbench.api().list_all(parsed_args.all)
        ]
        return ('ID', 'Name', 'State', 'Master', 'Hosts', 'UUID'), rows


class Show(command.ShowOne):
    """Show an aggregate"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_aggregate(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        return shown(self.workbench.api().get(parsed_args.aggregate))


class Set(command.ShowOne):
    """Rename an aggregate or change your own metadata of it"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_aggregate(parser)
        parser.add_argument('--name', metavar='NAME', help='its new name')
        parser.add_argument(
            '--property',
            metavar='KEY=VALUE',
            action='append',
            default=[],
            type=command.key_value,
            help='metadata of your own; repeatable',
        )
        parser.add_argument(
            '--unset-property',
            metavar='KEY',
            action='append',
            default=[],
            help='metadata to take away; repeatable',
        )
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        changes: dict[str, str | None] = dict.fromkeys(
            parsed_args.unset_property
        )
        changes.update(parsed_args.property)
        changed = self.workbench.api(parsed_args.remote).update(
            self.workbench.context,
            parsed_args.aggregate,
            parsed_args.name,
            changes,
        )
        return shown(changed)


class Delete(command.Command):
    """Delete aggregates that have no hosts"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_aggregate(parser, nargs='+')
        command.add_remote(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        api = self.workbench.api(parsed_args.remote)
        for ident in parsed_args.aggregate:
            api.get(ident)  # a wrong name is found before any is deleted
        results = []
        for ident in parsed_args.aggregate:
            try:
                api.delete(self.workbench.context, ident)
            except Exception as error:  # the others shall have their turn
                results.append(self.report(error))
            else:
                results.append(status.DONE)
        return status.together(results)
