# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Logs that hold no password, whoever wrote the line."""

from __future__ import annotations

import collections.abc
import logging
import re
import urllib.parse

from oslo_config import cfg

from xenpool_driver import conf as config

HIDDEN = '***'

_PASSWORD = re.compile('[/,][^/,@:]*:([^@/,]+)@')


class Mask(logging.Filter):
    """Takes passwords out of whole log lines, tracebacks included.

    It hides what looks like a password (``password=...``) and every secret
    that the configuration holds, wherever it stands.

    :param secrets: the texts to hide.
    """

    def __init__(self, secrets: collections.abc.Iterable[str] = ()) -> None:
        super().__init__()
        self.secrets: set[str] = set(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; let every record pass."""
        record.msg = self.clean(record.getMessage())
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(
                record.exc_info
            )
        if record.exc_text:
            record.exc_text = self.clean(record.exc_text)
            record.exc_info = None
        return True

    def clean(self, text: str) -> str:
        """Return the text without any password."""
        from oslo_utils import strutils

        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return str(strutils.mask_password(text, HIDDEN))


def secrets_of(conf: cfg.ConfigOpts) -> set[str]:
    """Return every password that the configuration holds.

    :param conf: the options, read.
    """
    found = {access.password for access in config.known_hosts(conf).values()}
    found.update(passwords_in(conf.database.connection))
    if 'transport_url' in conf:
        found.update(passwords_in(conf.transport_url))
    return found


def passwords_in(url: str | None) -> set[str]:
    """Return the passwords of a URL, which may name several servers.

    :param url: for example ``rabbit://a:secret@one,b:other@two/``.
    """
    written = set(_PASSWORD.findall(url or ''))
    return written | {urllib.parse.unquote(secret) for secret in written}
