# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Sections and options that nobody would read.

A slip is refused: oslo.config passes over what it does not know, and a
service would run with values that its operator believes to have set.
"""

from __future__ import annotations

import collections.abc
import difflib

from oslo_config import cfg

from xenpool_driver import exceptions
from xenpool_driver.conf import files as conf_files
from xenpool_driver.conf import foreign, options

Names = frozenset[str]

DEFAULT = 'DEFAULT'

SLIP = 0.85
"""From what likeness on a section is taken for another one, misspelt: other
programs have sections such as ``api_database``."""

TELLING = frozenset(
    {
        'certificate_fingerprint',
        'compute_vm_uuid',
        'connection_password',
        'connection_url',
        'connection_username',
    }
)
"""Options that only a host's section has."""


def refuse(
    sections: conf_files.Sections,
    groups: collections.abc.Mapping[str, collections.abc.Iterable[cfg.Opt]],
) -> None:
    """Refuse sections and options that are ours but for a slip.

    :param sections: what the files hold.
    :param groups: the sections that are ours, and their options.
    :raises ConfigurationError: naming the first slip, and what was meant.
    """
    ours = {name: names(opts) for name, opts in groups.items()}
    ours[DEFAULT] = names(options.DEFAULT_OPTS) | foreign.DEFAULTS
    hosts = names(options.HOST_OPTS)
    enabled = _enabled(sections)
    for section, values in sections.items():
        known = ours.get(_normal(section))
        if known is None and _is_host(section, values, enabled):
            known = hosts
        if known is None:
            _refuse_section(section, ours)
            continue
        for option in values:
            if option not in known:
                raise exceptions.ConfigurationError(
                    f"section [{section}]: there is no option '{option}'"
                    f"{did_you_mean(option, known)}"
                )


def unread(
    sections: conf_files.Sections, groups: collections.abc.Container[str]
) -> list[str]:
    """Return the sections that no program known here reads.

    :param sections: what the files hold.
    :param groups: the sections that are ours.
    """
    enabled = _enabled(sections)
    return [
        section
        for section, values in sections.items()
        if values
        and _normal(section) not in groups
        and _normal(section) not in foreign.SECTIONS | {DEFAULT}
        and not _is_host(section, values, enabled)
    ]


def did_you_mean(
    word: str,
    words: collections.abc.Iterable[str],
    likeness: float = 0.6,
    form: str = '{}',
) -> str:
    """Return a question for the word that was meant; '' if none is alike.

    :param word: what was written.
    :param words: what could have been written.
    :param likeness: how much alike they must be, 0 to 1.
    :param form: how the word is shown.
    """
    by_lower = {each.lower(): each for each in sorted(words)}
    close = difflib.get_close_matches(
        word.lower(), list(by_lower), 1, likeness
    )
    return (
        f"; did you mean {form.format(by_lower[close[0]])}?" if close else ''
    )


def names(opts: collections.abc.Iterable[cfg.Opt]) -> Names:
    """Return the names that options may have in a file."""
    return frozenset(name for opt in opts for name in (opt.name, opt.dest))


def _refuse_section(section: str, ours: collections.abc.Iterable[str]) -> None:
    """Refuse a section that is another one, misspelt.

    :raises ConfigurationError: it is.
    """
    if _normal(section) in foreign.SECTIONS:
        return
    meant = did_you_mean(section, {*ours, *foreign.SECTIONS}, SLIP, '[{}]')
    if meant:
        raise exceptions.ConfigurationError(
            f"there is no section [{section}]{meant}"
        )


def _is_host(
    section: str, values: collections.abc.Iterable[str], enabled: set[str]
) -> bool:
    """Say whether a section is a host's, be it misspelt inside."""
    return section in enabled or any(
        option in TELLING
        or difflib.get_close_matches(option, TELLING, 1, SLIP)
        for option in values
    )


def _enabled(sections: conf_files.Sections) -> set[str]:
    """Return the names of the enabled hosts, as far as files tell them."""
    written = sections.get(DEFAULT, {}).get('enabled_hosts', [''])
    return {name.strip() for name in written[-1].split(',')}


def _normal(section: str) -> str:
    """Return the name of a section as oslo.config takes it.

    It reads ``[XenPool]`` as ``[xenpool]``, but not ``[Default]``.
    """
    return section if section == DEFAULT else section.lower()
