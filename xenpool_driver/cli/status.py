# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Exit statuses, and what is printed when a command does not succeed."""

from __future__ import annotations

import collections.abc
import typing

from xenpool_driver import exceptions, model

DONE = 0
FAILED = 1
USAGE = 2
REFUSED = 3

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (exceptions.InvalidAggregateAction, REFUSED),
    (exceptions.AggregateNameExists, REFUSED),
    (exceptions.AggregateHostExists, REFUSED),
    (exceptions.RequestWithdrawn, REFUSED),
    (exceptions.DatabaseVersionMismatch, REFUSED),
    (exceptions.ConfigurationError, USAGE),
    (exceptions.AggregateNotFound, USAGE),
    (exceptions.AggregateHostNotFound, USAGE),
    (exceptions.OperationNotFound, USAGE),
    (exceptions.InvalidText, USAGE),
    (exceptions.XenpoolError, FAILED),
)
"""(error, exit status); the first that fits holds."""


def of(error: BaseException) -> int:
    """Return the exit status that an error stands for."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return FAILED


def together(statuses: collections.abc.Iterable[int]) -> int:
    """Return the exit status of several requests made by one command.

    "Refused" says that nothing happened, so it holds only where it holds
    for all of them.
    """
    found = set(statuses)
    if len(found) <= 1:
        return found.pop() if found else DONE
    return FAILED


def lines(error: BaseException) -> list[str]:
    """Return what a person should read: the error, then every finding."""
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or 'the output cannot be written'
        return [f"{place}: {error.strerror}"]
    if not isinstance(error, exceptions.XenpoolError):
        return [
            f"unexpected {type(error).__name__}: {error} (--debug shows where)"
        ]
    report: model.Report | None = getattr(error, 'report', None)
    return [str(error), *(finding_lines(report) if report else ())]


def finding_lines(report: model.Report) -> list[str]:
    """Return every finding that is no pass, the worst first."""
    return [
        line
        for finding in worst_first(report.findings)
        if finding.severity is not model.Severity.PASS
        for line in _finding_lines(finding)
    ]


def worst_first(
    findings: collections.abc.Iterable[model.Finding],
) -> list[model.Finding]:
    """Return the findings by severity; equal ones keep their order."""
    return sorted(findings, key=lambda finding: -finding.severity.rank)


def of_report(report: model.Report, when_failed: int) -> int:
    """Return the exit status that a report stands for.

    :param when_failed: the status when something in it failed.
    """
    failed = report.worst is model.Severity.FAIL
    return when_failed if failed else DONE


def _finding_lines(finding: model.Finding) -> typing.Iterator[str]:
    yield f"  {finding.severity}: {finding.check}: {finding.message}"
    if finding.remedy:
        yield f"    remedy: {finding.remedy}"
