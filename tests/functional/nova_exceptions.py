# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The exceptions of a compute service of another maker.

Their names, their bases and how they are made are those of
``nova/exception.py`` 21.x; the wording is not.
"""

from __future__ import annotations

import typing


class NovaException(Exception):
    """Made with a message, or with what the class's own message names."""

    msg_fmt = 'something went wrong'
    code = 500

    def __init__(
        self, message: str | None = None, **kwargs: typing.Any
    ) -> None:
        self.kwargs = {'code': self.code, **kwargs}
        self.message = message or self.msg_fmt % kwargs
        super().__init__(self.message)

    def format_message(self) -> str:
        """Return the message, as the API shows it."""
        return typing.cast(str, self.args[0])


class Invalid(NovaException):
    code = 400


class InvalidAggregateAction(Invalid):
    msg_fmt = 'aggregate %(aggregate_id)s, %(action)s: %(reason)s'


class InvalidAggregateActionAdd(InvalidAggregateAction):
    msg_fmt = 'no host for aggregate %(aggregate_id)s: %(reason)s'


class InvalidAggregateActionDelete(InvalidAggregateAction):
    msg_fmt = 'aggregate %(aggregate_id)s stays: %(reason)s'


class InvalidAggregateActionUpdate(InvalidAggregateAction):
    msg_fmt = 'aggregate %(aggregate_id)s stays as it is: %(reason)s'


class AggregateError(NovaException):
    msg_fmt = 'aggregate %(aggregate_id)s: %(action)s: %(reason)s'


class NotFound(NovaException):
    code = 404


class AggregateNotFound(NotFound):
    msg_fmt = 'no aggregate %(aggregate_id)s'
