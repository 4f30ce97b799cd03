# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Configuration files as text: where they are and what is wrong in them.

oslo.config reads the values; it lets a misspelt option pass in silence and
repeats a broken line, password and all, in its error. So the files are
looked at here first.
"""

from __future__ import annotations

import collections.abc
import glob
import os.path

from oslo_config import cfg, iniparser

from xenpool_driver import exceptions

Sections = dict[str, dict[str, list[str]]]
"""``{section: {option: [values]}}``, as written."""


NAME = 'xenpool.conf'

PLACES = ('~/.xenpool', '~', '/etc/xenpool', '/etc')
"""Where it is looked for, in this order."""


def find() -> list[str]:
    """Return the configuration files in the places where oslo.config looks.

    ``xenpool.conf`` in ``~/.xenpool``, ``~``, ``/etc/xenpool`` and ``/etc``,
    then the files of ``xenpool.conf.d`` there.
    """
    files: list[str] = cfg.find_config_files(project='xenpool')
    for directory in cfg.find_config_dirs(project='xenpool'):
        files += sorted(glob.glob(os.path.join(directory, '*.conf')))
    # without a home directory, ~ and another place may be one
    return list(dict.fromkeys(map(os.path.abspath, files)))


def parse(files: collections.abc.Iterable[str]) -> Sections:
    """Return what the files hold.

    :raises ConfigurationError: one is missing, unreadable or malformed.
    """
    sections: Sections = {}
    for name in files:
        try:
            cfg.ConfigParser(name, sections).parse()
        except FileNotFoundError:
            why = 'configuration file not found'
        except OSError as error:
            why = f"cannot read the configuration file: {error.strerror}"
        except UnicodeDecodeError:
            why = 'the configuration file is not UTF-8 text'
        except iniparser.ParseError as error:
            why = f"line {error.lineno}: {error.msg}"
        else:
            continue
        raise exceptions.ConfigurationError(f"{name}: {why}")
    return sections


def where(files: collections.abc.Sequence[str]) -> str:
    """Return where hosts were looked for, in words.

    :param files: the files that were read.
    """
    if files:
        return f"in {', '.join(files)}"
    return (
        'in no file: there is no xenpool.conf in ~/.xenpool, ~, /etc/xenpool '
        'or /etc, and --config-file names none'
    )
