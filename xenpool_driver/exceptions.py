# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Everything this package raises.

::

    XenpoolError
    ├── ConfigurationError            a file, an option or a plug-in is wrong
    ├── InvalidAggregateAction        refused: nothing happened
    │   ├── InvalidAggregateActionAdd
    │   ├── InvalidAggregateActionDelete
    │   └── InvalidAggregateActionUpdate
    ├── AggregateError                tried, and failed
    ├── StoreError                    what the database says
    │   ├── InvalidText               a text that cannot be stored
    │   ├── AggregateNotFound
    │   ├── AggregateNameExists
    │   ├── AggregateHostExists
    │   ├── AggregateHostNotFound
    │   ├── OperationNotFound
    │   ├── StaleAggregate            somebody else wrote first
    │   ├── RequestDropped            its caller does not wait any more
    │   ├── LeaseLost                 another worker took the operation over
    │   ├── NoDatabase                nothing was ever stored there
    │   └── DatabaseVersionMismatch   the schema does not fit the code
    ├── ServiceError                  what a compute service on the bus says
    │   ├── ServiceUnavailable        not sent: nothing happened
    │   │   └── RequestWithdrawn      no service began it in time
    │   └── ServiceLost               sent, no answer: look at the operations
    └── XapiError                     what may be concluded from a XAPI call
        ├── XapiRefused               definite: nothing changed
        ├── NotPoolMaster             ask the address it carries
        ├── PoolNotOurs               not sent: another aggregate owns the pool
        ├── XapiUnavailable           not sent: a retry is safe
        └── XapiOutcomeUnknown        sent, no answer: observe, then decide

``InvalidAggregateAction*`` and ``AggregateError`` carry Nova's names and
meanings (``nova/exception.py``, 21.x), so that a manager written for Nova's
driver contract catches the right ones.
"""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from xenpool_driver import model


class XenpoolError(Exception):
    """The root of all errors raised on purpose by this package."""


class ConfigurationError(XenpoolError):
    """An option, a file or a plug-in is missing or malformed."""


class InvalidAggregateAction(XenpoolError):
    """The request was refused; neither metadata nor XAPI was touched.

    :param aggregate: what the user calls the aggregate (name, id or uuid).
    :param reason: why, in words that name the offender.
    :param report: the precheck findings behind the refusal, if any.
    """

    action = 'act on'

    def __init__(
        self,
        aggregate: object,
        reason: str,
        report: model.Report | None = None,
    ) -> None:
        self.aggregate = aggregate
        self.reason = reason
        self.report = report
        super().__init__(
            f"Cannot {self.action} aggregate {aggregate}: {reason}"
        )

    def __reduce__(self) -> tuple[typing.Any, ...]:
        return type(self), (self.aggregate, self.reason, self.report)


class InvalidAggregateActionAdd(InvalidAggregateAction):
    """A host cannot be added now."""

    action = 'add a host to'


class InvalidAggregateActionDelete(InvalidAggregateAction):
    """A host cannot be removed, or the aggregate cannot be deleted, now."""

    action = 'remove a host from, or delete,'


class InvalidAggregateActionUpdate(InvalidAggregateAction):
    """The master, the name or the metadata cannot be changed now."""

    action = 'update'


class AggregateError(XenpoolError):
    """The request was tried and failed; its outcome is recorded.

    :param aggregate: what the user calls the aggregate.
    :param action: what was tried, for example ``add_to_aggregate``.
    :param reason: what is known about the failure.
    """

    def __init__(self, aggregate: object, action: str, reason: str) -> None:
        self.aggregate = aggregate
        self.action = action
        self.reason = reason
        super().__init__(f"Aggregate {aggregate}: {action} failed: {reason}")

    def __reduce__(self) -> tuple[typing.Any, ...]:
        return type(self), (self.aggregate, self.action, self.reason)


class StoreError(XenpoolError):
    """The database refused, or does not hold what was asked for."""


class NoDatabase(StoreError):
    """There is no SQLite file where one was named; none was created."""


class InvalidText(StoreError):
    """A name, a key or a value cannot be stored; nothing was written."""


class AggregateNotFound(StoreError):
    """No aggregate has this name, id or uuid."""


class AggregateNameExists(StoreError):
    """Another aggregate that is not dismissed has this name."""


class AggregateHostExists(StoreError):
    """The host is in an aggregate already."""


class AggregateHostNotFound(StoreError):
    """The host is not in this aggregate."""


class OperationNotFound(StoreError):
    """No operation has this uuid."""


class StaleAggregate(StoreError):
    """The aggregate was written by somebody else since it was read."""


class RequestDropped(StoreError):
    """Nobody waits for a request that came over the bus: it begins nothing."""


class LeaseLost(StoreError):
    """The operation belongs to another worker now; this one must stop."""


class DatabaseVersionMismatch(StoreError):
    """The database schema is newer than the code, or not upgraded yet."""


class ServiceError(XenpoolError):
    """A compute service on the message bus did not do as it was asked."""


class ServiceUnavailable(ServiceError):
    """No service took the request, or the bus is silent: nothing happened."""


class RequestWithdrawn(ServiceUnavailable):
    """It was sent, no service began it in time, and none will."""


class ServiceLost(ServiceError):
    """The service took the request and answers no more, and the database does
    not say how it ended."""


class XapiError(XenpoolError):
    """A call to a XenServer host did not succeed.

    :ivar code: XAPI's error code; '' when it sent none.
    :param message: what happened, without any password.
    :param host: the name or address of the host that was asked.
    """

    code = ''

    def __init__(self, message: str, host: str = '') -> None:
        self.host = host
        super().__init__(f"{host}: {message}" if host else message)


class XapiRefused(XapiError):
    """XAPI answered with an error: definite, nothing changed.

    :param code: the error code, for example ``HA_IS_ENABLED``.
    :param params: its parameters, as XAPI sent them.
    :param host: the name or address of the host that answered.
    :param remedy: what to do about it, where that is to be told.
    """

    def __init__(
        self,
        code: str,
        params: typing.Sequence[str] = (),
        host: str = '',
        remedy: str = '',
    ) -> None:
        self.code = code
        self.params = tuple(str(param) for param in params)
        self.remedy = remedy
        text = f"{code} [{', '.join(self.params)}]" if self.params else code
        super().__init__(f"{text}: {remedy}" if remedy else text, host)

    def __reduce__(self) -> tuple[typing.Any, ...]:
        return type(self), (self.code, self.params, self.host, self.remedy)


class NotPoolMaster(XapiError):
    """The host is a pool member; its master answers at another address.

    :param address: where the master answers, as the member believes.
    :param host: the name or address of the member.
    """

    def __init__(self, address: str, host: str = '') -> None:
        self.address = address
        super().__init__(f"is a pool member, its master is at {address}", host)

    def __reduce__(self) -> tuple[typing.Any, ...]:
        return type(self), (self.address, self.host)


class PoolNotOurs(XapiError):
    """The change was not sent: the pool's stamp names another aggregate."""


class XapiUnavailable(XapiError):
    """The call was not sent (or surely not executed): a retry is safe.

    :ivar untrusted: whether somebody answered, with a certificate that is
        not trusted.
    """

    untrusted = False


class XapiOutcomeUnknown(XapiError):
    """The call was sent and no answer came: look before acting again."""
