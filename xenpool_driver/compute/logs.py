# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Logs that hold no password, whoever wrote the line."""

from __future__ import annotations

import collections.abc
import logging

from oslo_config import cfg

from xenpool_driver import conf as config
from xenpool_driver import redaction


class Mask(logging.Filter):
    """Takes passwords out of whole log lines, tracebacks included.

    It hides what is called a password (``password=...``) and every secret
    that the configuration holds, wherever it stands. Control characters are
    made visible: a line may hold what a host has sent.

    :param secrets: the texts to hide.
    """

    def __init__(self, secrets: collections.abc.Iterable[str] = ()) -> None:
        super().__init__()
        self.secrets: set[str] = set(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; let every record pass."""
        record.msg = redaction.visible(self.clean(record.getMessage()))
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(
                record.exc_info
            )
        if record.exc_text:
            record.exc_text = redaction.visible(
                self.clean(record.exc_text), lines=True
            )
            record.exc_info = None
        return True

    def clean(self, text: str) -> str:
        """Return the text without any password."""
        return redaction.hide_fields(redaction.scrub(text, self.secrets))


def secrets_of(conf: cfg.ConfigOpts) -> set[str]:
    """Return every password that the configuration holds.

    :param conf: the options, read.
    """
    found = {access.password for access in config.known_hosts(conf).values()}
    found.update(redaction.passwords_in(conf.database.connection))
    if 'transport_url' in conf:
        found.update(redaction.passwords_in(conf.transport_url))
    return found
