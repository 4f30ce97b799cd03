# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Reads ``xe`` command lines as XAPI's own parser does.

The table was made from the source by ``tools/make_xe_commands.py``; how a
line is read stands in ``parse_params_2`` of ``cli_frontend.ml``.
"""

from __future__ import annotations

import collections.abc
import json
import pathlib
import typing

TABLE: typing.Any = json.loads(
    (pathlib.Path(__file__).parent / 'data/xapi/xe_commands.json').read_text()
)

SWITCHES = {
    '-u': 'username',
    '-pw': 'password',
    '-pwf': 'password',
    '-s': 'server',
    '-h': 'server',
    '-p': 'port',
}

ANYWHERE = {
    'server',
    'password',
    'port',
    'username',
    'minimal',
    'force',
    'multiple',
    'all',
    'message-priority',
    'trace',
}
"""What every command takes (``stdparams`` of ``cli_operations.ml``)."""

PSEUDO = {'host': {'host'}, 'vm': {'vm'}, 'sr': {'sr'}}
"""Names by which selected objects may be found besides their fields."""


def complaints(words: collections.abc.Sequence[str]) -> list[str]:
    """Return what is wrong with a command line; an empty list if nothing is.

    :param words: the line as a shell splits it, ``xe`` first.
    """
    if len(words) < 2 or words[0] != 'xe':
        return ['no xe command']
    command = TABLE['commands'].get(words[1])
    if command is None:
        return [f"no command xe {words[1]}"]
    found = []
    given = {}
    rest = list(words[2:])
    while rest:
        word = rest.pop(0)
        if word.startswith('--'):
            given[word[2:]] = 'true'
        elif word.startswith('-'):
            if word not in SWITCHES or not rest:
                found.append(f"{word} is no switch, or lacks its value")
                continue
            given[SWITCHES[word]] = rest.pop(0)
        else:
            name, _, value = word.partition('=')
            if not value and not _may_be_empty(words[1], name):
                found.append(f"'{word}' gives no value")
            given[name] = value
    found += [
        f"{words[1]} needs {name}="
        for name in command['required']
        if name not in given
    ]
    found += [
        f"{words[1]} takes no {name}"
        for name in given
        if not _takes(command, name)
    ]
    return found


def refusal(
    api: typing.Any, words: collections.abc.Sequence[str]
) -> str | None:
    """Return what XAPI's command line itself refuses, or None.

    What its calls refuse is for who makes them to see.

    :param api: the calls of a session on the host where the line is typed.
    :param words: the line as a shell splits it, ``xe`` first.
    """
    options = dict(word.split('=', 1) for word in words[2:] if '=' in word)
    if words[1] == 'vm-destroy':  # ``vm_destroy`` of cli_operations.ml
        vm = api.VM.get_by_uuid(options['uuid'])
        if api.VM.get_is_control_domain(vm):
            return 'OPERATION_NOT_ALLOWED'
    if words[1] in OF_GUESTS and 'uuid' in options:  # ``select_vms``
        vm = api.VM.get_by_uuid(options['uuid'])
        if api.VM.get_is_control_domain(vm) or api.VM.get_is_a_template(vm):
            return 'No matching VMs found'
    return None


OF_GUESTS = {'vm-export', 'vm-resume', 'vm-shutdown', 'vm-unpause'}
"""Commands that find no control domain, no template and no snapshot."""


def _may_be_empty(command: str, name: str) -> bool:
    """Say whether an empty value means something: to set a field to it."""
    return command.endswith('-param-set') and name != 'uuid'


def _takes(command: dict[str, typing.Any], name: str) -> bool:
    """Say whether a command takes an argument of this name."""
    named = {*command['required'], *command['optional']}
    if name in ANYWHERE or name in named or ':' in command['optional']:
        return True
    if any(
        name.startswith(prefix) and len(name) > len(prefix)
        for prefix in command['optional']
        if prefix.endswith(':')
    ):
        return True
    selected = command['selectors']
    if selected is None:
        return False
    fields = TABLE['classes'][selected]
    return name in PSEUDO[selected] or name.partition(':')[0] in fields
