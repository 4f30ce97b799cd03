# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What is allowed in the configuration, and should be known at start."""

from __future__ import annotations

import collections.abc
import os
import shlex
import stat

from xenpool_driver import exceptions, redaction
from xenpool_driver.conf import files as conf_files
from xenpool_driver.conf import foreign, strays

OTHERS = stat.S_IROTH | stat.S_IWOTH
"""What everybody may do. A group may read: services run as one."""


def of_files(
    files: collections.abc.Iterable[str],
    groups: collections.abc.Container[str],
) -> list[str]:
    """Return a line for each caution about the files.

    :param files: the configuration files.
    :param groups: the sections that are ours.
    """
    found = []
    for name in files:
        try:
            sections = conf_files.parse([name])
            mode = stat.S_IMODE(os.stat(name).st_mode)
        except (exceptions.ConfigurationError, OSError):
            continue  # gone since it was read
        if mode & OTHERS and _holds_password(sections):
            found.append(
                f"{name}: passwords stand in it and everybody can read it "
                f"(mode {mode:04o}): chmod 600 {shlex.quote(name)}"
            )
        unread = strays.unread(sections, groups)
        found += [
            f"{name}: nothing reads section [{section}]" for section in unread
        ]
        found += [
            f"{name}: section [{section}]: {option} stands there "
            f"{len(values)} times; the last one holds"
            for section, options in sections.items()
            if section not in unread
            and section.lower() not in foreign.SECTIONS
            for option, values in options.items()
            if len(values) > 1
        ]
    return found


def of_passwords(
    passwords: collections.abc.Mapping[str, collections.abc.Iterable[str]],
) -> list[str]:
    """Return a line for each option that holds a password too short.

    :param passwords: ``{section and option: its passwords}``.
    """
    return [
        f"{place}: a password of fewer than {redaction.SHORTEST} characters "
        f"cannot be kept out of messages and logs: set a longer one"
        for place, each in passwords.items()
        if any(0 < len(word) < redaction.SHORTEST for word in each)
    ]


def _holds_password(sections: conf_files.Sections) -> bool:
    """Say whether a password stands in a file."""
    return any(
        value
        and (option.endswith('password') or redaction.passwords_in(value))
        for options in sections.values()
        for option, values in options.items()
        for value in values
    )
