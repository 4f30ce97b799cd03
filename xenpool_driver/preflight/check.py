# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a check is, and how checks are run.

A check is a small function from a case to the problems it finds. What it
needs to know is declared beside it: when one of these classes could not be
read, the check is not run and its finding is ``unknown``, never a pass.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from xenpool_driver import model


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a check found; it becomes a finding under the check's name.

    :ivar message: one line that names the offender.
    :ivar remedy: what to type or do about it.
    :ivar predicts: (code, params...) that XAPI would raise, or None.
    :ivar objects: the objects at fault.
    :ivar severity: how bad it is.
    :ivar force_passes: whether ``join_force`` would go on in spite of it.
    """

    message: str
    remedy: str = ''
    predicts: tuple[str, ...] | None = None
    objects: tuple[model.ObjectRef, ...] = ()
    severity: model.Severity = model.Severity.FAIL
    force_passes: bool = False


Problems = collections.abc.Iterable[Problem]


class Case(typing.Protocol):
    """What is judged: a pair of snapshots, or one."""

    def lacks(self, need: str) -> str | None:
        """Say why ``need`` is not known, or None if it is.

        :param need: ``side.class``, for example ``joiner.PIF``.
        """


_C = typing.TypeVar('_C', bound=Case)


@dataclasses.dataclass(frozen=True)
class Check(typing.Generic[_C]):
    """One check.

    :ivar name: its name in findings.
    :ivar holds: what is true when nothing is found; the message of a pass.
    :ivar run: the function.
    :ivar needs: what it must know, as ``side.class``.
    :ivar rule: its place in XAPI's own order, '' when XAPI has no such rule.
    :ivar since: the toolstack version that asks first; None for all.
    :ivar sign: a field, ``class.field``, that only such versions have: it
        tells where the version does not.
    """

    name: str
    holds: str
    run: typing.Callable[[_C], Problems]
    needs: tuple[str, ...] = ()
    rule: str = ''
    since: tuple[int, ...] | None = None
    sign: str = ''


def evaluate(check: Check[_C], case: _C) -> tuple[model.Finding, ...]:
    """Return what ``check`` has to say: at least one finding."""
    reasons = [
        f"{need}: {reason}"
        for need in check.needs
        if (reason := case.lacks(need)) is not None
    ]
    if reasons:
        return (_unknown(check.name, '; '.join(reasons)),)
    found = tuple(
        model.Finding(
            check=check.name,
            severity=problem.severity,
            message=problem.message,
            remedy=problem.remedy,
            predicts=problem.predicts,
            force_passes=problem.force_passes,
            objects=problem.objects,
        )
        for problem in check.run(case)
    )
    return found or (
        model.Finding(check.name, model.Severity.PASS, check.holds),
    )


def _unknown(name: str, reason: str) -> model.Finding:
    return model.Finding(
        name,
        model.Severity.UNKNOWN,
        f"cannot be decided: {reason}",
        remedy='give the login the right to read it, or dump it, and repeat',
    )


def report(
    subject: str,
    findings: collections.abc.Iterable[model.Finding],
) -> model.Report:
    """Return the report; the findings stand in XAPI's order.

    The first refusal is the first failure that predicts a code of XAPI's.
    """
    found = tuple(findings)
    first = next(
        (
            finding.predicts
            for finding in found
            if finding.severity is model.Severity.FAIL and finding.predicts
        ),
        None,
    )
    return model.Report(subject, found, first)


def warning(
    message: str,
    remedy: str = '',
    objects: tuple[model.ObjectRef, ...] = (),
) -> Problem:
    """Return a problem that does not forbid to go on."""
    return Problem(
        message, remedy, objects=objects, severity=model.Severity.WARN
    )


def undecided(message: str, remedy: str = '') -> Problem:
    """Return a problem that says that nobody can tell from here."""
    return Problem(message, remedy, severity=model.Severity.UNKNOWN)
