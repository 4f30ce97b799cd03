# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Finds commands in remedies and messages, and reads them as a shell does.

A command begins with the name of a program and ends before a bracket, at the
end of the text, or with a word behind which ``,``, ``;``, ``:``, ``.`` or a
closing quote or bracket stands. Behind ``on HOST: `` nothing but a command
may follow. So a reader sees where a command ends and prose begins.
"""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import io
import re
import shlex
import typing

from tests import xe
from xenpool_driver import exceptions, model

_BEGIN = re.compile(
    r"""(?:(?<=^)|(?<=[\s("']))(?=
    (?:xe|xenpool)\ (?![A-Z])\S | xe-[a-z] | yum\ | interface-rename\ --
    | chronyc\  | curl\ - | ping\ -
    )""",
    re.VERBOSE,
)

_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+""")

_ON = re.compile(r'(?:^|[;,] |then )on (?:[^\s:;,]|:\S)+(?: \([^)]*\))?: (.*)')

PLACEHOLDER = re.compile(r'(?:^|=)([A-Z]{1,9}|\.\.\.|<.*>|\$\(.*|None)$')

JOINTS = {'and', 'or', 'then', 'on', 'with', 'if', 'so', 'which', 'shows'}
"""Words of prose, of which none is an aggregate's or a host's name."""


def commands(text: str) -> list[str]:
    """Return the commands that a text holds, in its order."""
    found = []
    end = 0
    for begin in _BEGIN.finditer(text):
        if begin.start() < end:
            continue
        start = begin.start()
        quote = text[start - 1 : start]
        closed = text.find(quote, start) if quote in ("'", '"') else -1
        words, end = _one(text if closed < 0 else text[:closed], start)
        found.append(words)
    return found


def _one(text: str, start: int) -> tuple[str, int]:
    """Return a command that begins there, and where it ends."""
    end = start
    position = start
    while match := _WORD.match(text, position):
        word = match.group()
        if word.startswith('(') and position > start:
            break
        bare = word.rstrip(',;:.)')
        end = position + len(bare)
        if bare != word and not word.endswith('...'):
            break
        end = match.end()
        gap = re.compile(r'\s+').match(text, end)
        if gap is None:
            break
        position = gap.end()
    return text[start:end], end


def complaints(text: str, is_remedy: bool = True) -> list[str]:
    """Return what is wrong with the commands of a text.

    :param is_remedy: whether it tells what to do, and nothing else.
    """
    found = [
        f"{command}: {wrong}"
        for command in commands(text)
        for wrong in _read(command)
    ]
    if is_remedy:
        found += [
            f"no command behind 'on HOST: ': {behind}"
            for behind in _ON.findall(text)
            if not _BEGIN.match(behind)
        ]
    return found


@functools.cache
def _read(command: str) -> tuple[str, ...]:
    """Return what is wrong with one command."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        return (str(error),)
    found = [
        f"'{word}' is no value"
        for word in words[1:]
        if PLACEHOLDER.search(word)
    ]
    if words[0] == 'xe':
        return (*found, *xe.complaints(words))
    if words[0] == 'xenpool':
        return (*found, *_ours(words[1:]))
    return (*found, *_others(words))


def _ours(words: list[str]) -> collections.abc.Iterator[str]:
    """Yield what our own parser says, or the option that does not exist."""
    from xenpool_driver.cli import main

    if words == ['--help']:
        return
    program = _program()
    yield from (f"'{word}' is prose" for word in words if word in JOINTS)
    try:
        factory, name, rest = program.command_manager.find_command(words)
    except ValueError as error:
        yield str(error)
        return
    assert isinstance(program, main.App)
    said = io.StringIO()
    parser = factory(program, None, cmd_name=name).get_parser(
        f"xenpool {name}"
    )
    with contextlib.redirect_stderr(said):
        try:
            parser.parse_args(rest)
        except SystemExit as end:
            if end.code:
                yield said.getvalue().strip()
        except exceptions.XenpoolError as error:
            yield str(error)


@functools.cache
def _program() -> typing.Any:
    from xenpool_driver.cli import main

    return main.App()


_ARGUMENTS = {
    'xe-toolstack-restart': r'',
    'xe-switch-network-backend': r'bridge|openvswitch',
    'xe-reset-networking': r'(--(device|vlan|mode|mode-v6|ip|netmask|gateway'
    r'|ipv6|gateway-v6|dns|master)=\S+|--novlan| )+',
    'yum': r'update|(install|update|list) -y \S+|install -y \S+'
    r'|list installed',
    'chronyc': 'makestep',
    'curl': r'-k https://\S+/',
    'ping': r'-c1 \S+',
    'interface-rename': r'--update( [\w]+=[0-9a-fA-F:]+)+',
}
"""Programs of a host, and what they take; from the scripts of XCP-ng."""


def _others(words: list[str]) -> collections.abc.Iterator[str]:
    """Yield what is wrong with a command of a host's shell."""
    form = _ARGUMENTS.get(words[0])
    if form is None:
        yield f"no command {words[0]}"
    elif not re.fullmatch(form, ' '.join(words[1:])):
        yield f"{words[0]} does not take {' '.join(words[1:])}"


Told = collections.abc.Callable[[str, bool], None]
"""Hears a text, and whether it is a remedy or a message."""


def listen(told: Told) -> collections.abc.Callable[[], None]:
    """Hear each remedy and each message of an error that is made.

    :returns: what ends it.
    """
    root: typing.Any = exceptions.XenpoolError
    finding: typing.Any = model.Finding
    making = finding.__init__

    def make(self: model.Finding, *args: typing.Any, **kw: typing.Any) -> None:
        making(self, *args, **kw)
        told(self.remedy, True)

    def fail(self: Exception, *args: typing.Any) -> None:
        Exception.__init__(self, *args)
        told(str(self), False)

    finding.__init__, root.__init__ = make, fail

    def stop() -> None:
        finding.__init__ = making
        del root.__init__

    return stop
