# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The directive ``generated``: tables made from the code when built."""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib
import pathlib
import pkgutil
import typing

import docutils.nodes
import docutils.statemachine
import sphinx.application
import sphinx.util.docutils
import sphinx.util.nodes

TOP = pathlib.Path(__file__).parents[3]

Row = collections.abc.Sequence[str]


def table(header: Row, rows: collections.abc.Iterable[Row]) -> list[str]:
    """Return a list-table."""
    lines = ['.. list-table::', '   :header-rows: 1', '']
    for row in (header, *rows):
        for number, cell in enumerate(row):
            lines.append(f"   {' ' if number else '*'} - {cell}")
    return [*lines, '']


def check_table(
    header: str, checks: collections.abc.Iterable[typing.Any]
) -> list[str]:
    """Return checks in their own order, which is XAPI's."""
    return table(
        ('check', header, 'what must be true'),
        (
            (f"``{check.name}``", rule(check.rule), check.holds)
            for check in checks
        ),
    )


def join_checks() -> list[str]:
    """Return every check before a join."""
    from xenpool_driver.preflight import join

    return check_table("XAPI's rule", join.CHECKS)


def eject_checks() -> list[str]:
    """Return every check before an eject."""
    from xenpool_driver.preflight import eject

    return check_table("XAPI's step", eject.CHECKS)


def forget_checks() -> list[str]:
    """Return every check before a dead host's record is destroyed."""
    from xenpool_driver.preflight import forget

    return check_table("XAPI's step", forget.CHECKS)


def master_checks() -> list[str]:
    """Return every check before the master is changed."""
    from xenpool_driver.preflight import master

    return check_table("XAPI's step", master.CHECKS)


def rule(name: str) -> str:
    """Return the place of a check among XAPI's own, for readers."""
    if name.startswith('7.1'):
        return 'ahead of the rules'
    return name or 'none: ours'


def releases() -> list[str]:
    """Return the releases that a simulated host can pretend to be."""
    from xenpool_driver.simulator import profiles

    return [
        'Releases (``--version-profile``)',
        '-' * 32,
        '',
        *table(
            ('name', 'product', 'API'),
            (
                (
                    f"``{name}``",
                    f"{profile.product_brand} {profile.product_version}",
                    '.'.join(str(number) for number in profile.api),
                )
                for name, profile in profiles.PROFILES.items()
            ),
        ),
    ]


def mishaps() -> list[str]:
    """Return what can happen to a whole host."""
    from xenpool_driver.simulator import mishaps as module

    return [
        'Mishaps',
        '-------',
        '',
        'What can happen to a whole host:',
        '',
        *table(
            ('mishap', 'what happens'),
            (
                (f"``{name}``", (happen.__doc__ or '').partition('\n')[0])
                for name, happen in module.MISHAPS.items()
            ),
        ),
    ]


def faults() -> list[str]:
    """Return what can be made to go wrong."""
    from xenpool_driver.simulator import faults as module

    fields = [field.name for field in dataclasses.fields(module.Rule)]
    return [
        'Faults',
        '------',
        '',
        'A rule says which calls fail and how. It matches by '
        + ', '.join(f"``{name}``" for name in fields if name != 'actions')
        + '; each matching call takes the next of its ``actions``:',
        '',
        ', '.join(f"``{kind}``" for kind in module.KINDS) + '.',
        '',
    ]


def not_simulated() -> list[str]:
    """Return the published messages that answer NOT_IMPLEMENTED."""
    from xenpool_driver import simulator
    from xenpool_driver.simulator import datamodel, generic, registry

    for module in pkgutil.iter_modules(simulator.__path__):
        importlib.import_module(f"{simulator.__name__}.{module.name}")
    by_class: dict[str, set[str]] = {}
    for message in datamodel.load().messages.values():
        known = registry.lookup(message.wire_name) or generic.handler(message)
        if known is None and message.lifecycle != 'removed':
            cls, _, name = message.wire_name.partition('.')
            by_class.setdefault(cls, set()).add(name)
    return [
        'Published, but not simulated',
        '----------------------------',
        '',
        'These messages of the data model answer ``NOT_IMPLEMENTED`` with '
        'their name; they never pretend. All others are answered.',
        '',
        *table(
            ('class', 'messages'),
            (
                (
                    f"``{cls}``",
                    ', '.join(f"``{name}``" for name in sorted(names)),
                )
                for cls, names in sorted(by_class.items())
            ),
        ),
    ]


def release_notes() -> list[str]:
    """Return the release notes; their order needs the history of git."""
    if not (TOP / '.git').exists():
        return [
            'This documentation was built without the history that says '
            'which note belongs to which release. The notes themselves are '
            'the files in ``releasenotes/notes``.'
        ]
    import reno.config
    import reno.formatter
    import reno.loader

    config = reno.config.Config(str(TOP), 'releasenotes')
    with reno.loader.Loader(config) as loader:
        text: str = reno.formatter.format_report(
            loader, config, loader.versions, title=''
        )
    # what reno calls a history without a tag
    return text.replace('\n0.0.0\n=====', '\nUnreleased\n==========').split(
        '\n'
    )


TABLES: dict[str, typing.Callable[[], list[str]]] = {
    'join-checks': join_checks,
    'eject-checks': eject_checks,
    'forget-checks': forget_checks,
    'master-checks': master_checks,
    'releases': releases,
    'mishaps': mishaps,
    'faults': faults,
    'not-simulated': not_simulated,
    'release-notes': release_notes,
}


class Generated(sphinx.util.docutils.SphinxDirective):
    """Insert one of :data:`TABLES`."""

    required_arguments = 1

    def run(self) -> list[docutils.nodes.Node]:
        """Return the parsed table."""
        lines = docutils.statemachine.StringList(
            TABLES[self.arguments[0]](), source='<generated>'
        )
        node = docutils.nodes.section()
        node.document = self.state.document
        sphinx.util.nodes.nested_parse_with_titles(self.state, lines, node)
        return node.children


def setup(app: sphinx.application.Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the directive."""
    app.add_directive('generated', Generated)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
