# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Commands that are printed work as they stand, with the same configuration.

Whoever typed ``xenpool --config-file FILE ...`` has to give that option to
the next command, too. What is printed repeats it.
"""

from __future__ import annotations

import collections.abc
import re
import shlex
import typing

_WORDS = 'aggregate|operation|host|db|records|rehearse|watch'
"""The first words of the commands that read the configuration."""

_COMMAND = re.compile(rf"\bxenpool (?=(?:{_WORDS})\b)")


class Repeater:
    """Puts the global options of this command into the commands in texts.

    :param files: the configuration files that were named, if any.
    """

    def __init__(self, files: collections.abc.Iterable[str] | None) -> None:
        options = [
            f"--config-file {shlex.quote(each)} " for each in files or ()
        ]
        self._prefix = 'xenpool ' + ''.join(options)

    def text(self, text: str) -> str:
        """Return a text whose commands have the options."""
        return _COMMAND.sub(lambda _: self._prefix, text)

    def value(self, value: typing.Any) -> typing.Any:
        """Return a value of a record, with every text in it done so."""
        from cliff import columns

        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, collections.abc.Mapping):
            return {key: self.value(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        if isinstance(value, columns.FormattableColumn):
            return type(value)(self.value(value._value))
        return value
