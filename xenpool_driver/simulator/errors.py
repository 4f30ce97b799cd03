# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What XAPI answers when it refuses: a code and its parameters."""

from __future__ import annotations

NULL = 'OpaqueRef:NULL'
"""The reference that points nowhere."""


class ApiError(Exception):
    """A call was refused.

    :param code: XAPI's error code, upper case.
    :param params: the strings that XAPI sends after the code.
    """

    def __init__(self, code: str, *params: str) -> None:
        super().__init__(code, *params)
        self.code = code
        self.params = tuple(str(param) for param in params)

    @property
    def details(self) -> list[str]:
        """The code and its parameters, as they go over the wire."""
        return [self.code, *self.params]


def handle_invalid(cls: str, ref: str) -> ApiError:
    """Return the answer to a reference that no object of ``cls`` has."""
    return ApiError('HANDLE_INVALID', cls, ref)


def uuid_invalid(cls: str, uuid: str) -> ApiError:
    """Return the answer to a uuid that no object of ``cls`` has."""
    return ApiError('UUID_INVALID', cls, uuid)


def internal_error(text: str) -> ApiError:
    """Return the answer to what XAPI's authors had not foreseen."""
    return ApiError('INTERNAL_ERROR', text)


def session_invalid(ref: str) -> ApiError:
    """Return the answer to a session that is not, or no longer, open."""
    return ApiError('SESSION_INVALID', ref)


def host_is_slave(address: str) -> ApiError:
    """Return a member's answer: the coordinator listens at ``address``."""
    return ApiError('HOST_IS_SLAVE', address)


def not_implemented(name: str) -> ApiError:
    """Return the answer to a published message that is not simulated."""
    return ApiError('NOT_IMPLEMENTED', name)


def map_duplicate_key(cls: str, field: str, ref: str, key: str) -> ApiError:
    """Return the answer to add_to_* with a key that is there already.

    The third parameter is the reference (recorded), where XAPI's own
    catalogue of errors says uuid.
    """
    return ApiError('MAP_DUPLICATE_KEY', cls, field, ref, key)


def operation_not_allowed(text: str) -> ApiError:
    """Return the answer to what the state of things forbids."""
    return ApiError('OPERATION_NOT_ALLOWED', text)
