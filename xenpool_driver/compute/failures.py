# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Our errors and reports as plain values, for the message bus.

oslo.messaging rebuilds an exception by calling its class with its ``args``,
which loses every attribute that is not among them, above all the report that
comes with a refusal; and it sends the traceback along. So errors of our own
travel as an answer, in this form, and are raised again where they arrive.
"""

from __future__ import annotations

import inspect
import typing

from xenpool_driver import exceptions, model, pool_states

Packed = dict[str, typing.Any]
"""A JSON object."""


def pack_report(report: model.Report) -> Packed:
    """Return the report as plain values."""
    return {'subject': report.subject, **report.to_dict()}


def unpack_report(packed: Packed) -> model.Report:
    """Return the report that :func:`pack_report` was given."""
    return model.Report(
        subject=packed['subject'],
        findings=tuple(
            _unpack_finding(finding) for finding in packed['findings']
        ),
        first_refusal=_codes(packed['first_refusal']),
    )


def pack_error(error: exceptions.XenpoolError) -> Packed:
    """Return the error as plain values."""
    state = {
        name: _pack_value(value)
        for name, value in vars(error).items()
        if not name.startswith('_')
    }
    return {
        'class': type(error).__name__,
        'message': str(error),
        'state': state,
    }


def unpack_error(packed: Packed) -> exceptions.XenpoolError:
    """Return the error that :func:`pack_error` was given.

    A class that is not known here (the service is newer) becomes a plain
    ``ServiceError`` with the same message.
    """
    found = _CLASSES.get(packed['class'])
    if found is None:
        return exceptions.ServiceError(
            f"{packed['class']}: {packed['message']}"
        )
    error = found.__new__(found)
    Exception.__init__(error, packed['message'])
    for name, value in packed['state'].items():
        setattr(error, name, _unpack_value(name, value))
    return error


def _our_errors() -> dict[str, type[exceptions.XenpoolError]]:
    """Return every error class that may cross the bus, by name."""
    return {
        name: found
        for module in (exceptions, pool_states)
        for name, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, exceptions.XenpoolError)
    }


_CLASSES = _our_errors()


def _pack_value(value: typing.Any) -> typing.Any:
    if isinstance(value, model.Report):
        return pack_report(value)
    if isinstance(value, tuple | list):
        return [_pack_value(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _unpack_value(name: str, value: typing.Any) -> typing.Any:
    if name == 'report' and value is not None:
        return unpack_report(value)
    return tuple(value) if isinstance(value, list) else value


def _unpack_finding(packed: Packed) -> model.Finding:
    return model.Finding(
        check=packed['check'],
        severity=model.Severity(packed['severity']),
        message=packed['message'],
        remedy=packed['remedy'],
        predicts=_codes(packed['predicts']),
        force_passes=packed['force_passes'],
        objects=tuple(
            model.ObjectRef(ref['class'], ref['uuid'], ref['name'])
            for ref in packed['objects']
        ),
    )


def _codes(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)
