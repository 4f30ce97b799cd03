#!/usr/bin/env python3
# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Make the table of ``xe``'s commands that remedies are held against.

``python tools/make_xe_commands.py DIR OUTPUT`` reads three files of the
XAPI source from DIR (``ocaml/xapi-cli-server`` of xen-api):

``cli_frontend.ml``
    the commands written by hand, with what each demands and takes;
``cli_operations.ml``
    the classes for which ``CLASS-list`` and ``CLASS-param-*`` are made
    (``gen_cmds``), and the commands made for each (``make_param_funs``);
``records.ml``
    the fields of each class and what can be done with them.

The output is JSON: ``{"commands": {NAME: {"required": [...], "optional":
[...], "selectors": CLASS or null}}, "classes": {CLASS: [FIELD...]}}``. A
name that ends in a colon stands for any key after it. The repository carries
it as ``tests/data/xapi/xe_commands.json``.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
import typing

COMMAND = re.compile(r'^(?:    |  ; )\( "([^"]+)"$', re.MULTILINE)
LISTED = r'\b%s=\s*\[(.*?)\]'
CLASS = re.compile(r'(?P<function>\w+_record)\s+"(?P<name>[\w-]+)"\s+\[')
RECORD = re.compile(r'^let (\w+_record) ', re.MULTILINE)
FIELD = re.compile(r'~name:\s*"([^"]+)"')
SELECTORS = {
    'Host_selectors': 'host',
    'Vm_selectors': 'vm',
    'Sr_selectors': 'sr',
}


class Field(typing.NamedTuple):
    """A field of a class, as ``xe`` names it.

    :ivar name: its name.
    :ivar able: the arguments of ``make_field`` that it has (``set``,
        ``add_to_map`` and so on).
    """

    name: str
    able: frozenset[str]


def strings(text: str) -> list[str]:
    """Return the OCaml strings of a list."""
    return re.findall(r'"([^"]*)"', text)


def written(text: str) -> dict[str, dict[str, typing.Any]]:
    """Return the commands of ``cli_frontend.ml``."""
    parts = COMMAND.split(text.partition('let cmdtable :')[0])[1:]
    found = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        flags = listed('flags', body)
        selectors = [cls for flag, cls in SELECTORS.items() if flag in flags]
        found[name] = {
            'required': strings(listed('reqd', body)),
            'optional': strings(listed('optn', body)),
            'selectors': selectors[0] if selectors else None,
        }
    return found


def listed(part: str, body: str) -> str:
    """Return what stands in a list of a command's record.

    :raises ValueError: the record has no such list.
    """
    match = re.search(LISTED % part, body, re.DOTALL)
    if match is None:
        raise ValueError(f"no list '{part}' in: {body.strip()[:80]}")
    return match[1]


def fields(text: str) -> dict[str, list[Field]]:
    """Return the visible fields of each function of ``records.ml``."""
    parts = RECORD.split(text)[1:]
    found = {}
    for function, body in zip(parts[::2], parts[1::2], strict=True):
        found[function] = [
            Field(FIELD.findall(field)[0], labels(field))
            for field in body.split('make_field')[1:]
            if FIELD.search(field) and '~hidden:true' not in field
        ]
    return found


def labels(field: str) -> frozenset[str]:
    """Return the labelled arguments that ``make_field`` is given."""
    return frozenset(re.findall(r'[~?](\w+)\s*:', field))


def generated(
    name: str, known: list[Field]
) -> dict[str, dict[str, typing.Any]]:
    """Return the commands that XAPI makes for a class."""

    def having(*able: str) -> list[str]:
        return [field.name for field in known if field.able & {*able}]

    settable = having('set')
    settable += [
        f"{field}:" for field in having('add_to_map', 'set_in_map', 'set_map')
    ]
    found = {
        'list': ([], ['params', 'database:', *having('name'), *maps(known)]),
        'param-list': (['uuid'], ['database:']),
        'param-get': (['uuid', 'param-name'], ['param-key', 'database:']),
    }
    if settable:
        found['param-set'] = (['uuid'], settable)
    if having('add_to_set', 'add_to_map'):
        found['param-add'] = (['uuid', 'param-name'], ['param-key', ':'])
        found['param-remove'] = (['uuid', 'param-name', 'param-key'], [])
    if having('set', 'get_set', 'get_map'):
        found['param-clear'] = (['uuid', 'param-name'], [])
    return {
        f"{name}-{verb}": {
            'required': required,
            'optional': optional,
            'selectors': None,
        }
        for verb, (required, optional) in found.items()
    }


def maps(known: list[Field]) -> list[str]:
    """Return the keyed filters of a list: of maps any key, of sets one."""
    return [
        *(f"{field.name}:" for field in known if 'get_map' in field.able),
        *(
            f"{field.name}:contains"
            for field in known
            if 'get_set' in field.able
        ),
    ]


def table(source: pathlib.Path) -> dict[str, typing.Any]:
    """Return the whole table.

    :param source: the directory of the three files.
    """
    commands = written((source / 'cli_frontend.ml').read_text())
    known = fields((source / 'records.ml').read_text())
    operations = (source / 'cli_operations.ml').read_text()
    classes = {}
    for match in CLASS.finditer(operations.partition('let gen_cmds')[2]):
        if match['function'] not in known:
            continue
        own = known[match['function']]
        classes[match['name']] = [field.name for field in own]
        commands.update(generated(match['name'], own))
    return {
        'commands': dict(sorted(commands.items())),
        'classes': dict(sorted(classes.items())),
    }


def lines(made: dict[str, dict[str, typing.Any]]) -> str:
    """Return the table as JSON, a line for each command and class."""
    parts = []
    for part, rows in made.items():
        told = [
            f"{json.dumps(name)}: {json.dumps(row)}"
            for name, row in rows.items()
        ]
        parts.append(f'"{part}": {{\n' + ',\n'.join(told) + '\n}')
    return '{' + ',\n'.join(parts) + '}\n'


def main(arguments: list[str]) -> int:
    """Make the table from the directory that the command line names."""
    if len(arguments) != 2:
        print((__doc__ or '').split('\n\n')[1], file=sys.stderr)
        return 2
    source, target = map(pathlib.Path, arguments)
    made = table(source)
    target.write_text(lines(made))
    print(f"{target}: {len(made['commands'])} commands")
    return 0


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
