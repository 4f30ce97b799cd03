# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The audit of the aggregate itself, and of a pool that nobody serves."""

from __future__ import annotations

import collections.abc

from xenpool_driver import findings, identity, model
from xenpool_driver.identity import Who
from xenpool_driver.reconcile import cases, members
from xenpool_driver.reconcile import declared as declarations
from xenpool_driver.reconcile.cases import fail, unknown

ERROR = 'error'
"""``pool_states.ERROR``, which is no room below this one."""

Check = collections.abc.Callable[[cases.AuditCase, str], cases.Found]


def operations(case: cases.AuditCase, check: str) -> cases.Found:
    """Operations that run, or that nobody works on any more."""
    yield from told(case.declared, case.pending, check)


def told(
    declared: declarations.Declared,
    pending: collections.abc.Iterable[cases.Pending],
    check: str = 'operations',
) -> cases.Found:
    """Yield what is to be said of operations that have not ended."""
    for one in pending:
        if one.orphaned:
            yield fail(
                check,
                f"the {one.story} lies unfinished after '{one.phase}': its "
                f"worker {one.owner} has stopped (operation {one.uuid})",
                cases.typed('aggregate', 'recover', declared.name),
            )
        else:
            yield unknown(
                check,
                f"the {one.story} is in progress, at '{one.phase}' (operation "
                f"{one.uuid}): what it changes is not judged",
                cases.typed('operation', 'show', one.uuid),
            )


def in_error(case: cases.AuditCase, check: str) -> cases.Found:
    """An aggregate that takes no requests any more."""
    yield from error_told(case.declared, check)


def error_told(
    declared: declarations.Declared, check: str = 'lifecycle'
) -> cases.Found:
    """Yield what is to be said of an aggregate in error."""
    if declared.state == ERROR:
        failed = (
            f" after {declared.failed} failed requests in a row"
            if declared.failed
            else ''
        )
        yield fail(
            check,
            f"the aggregate is in error{failed}: no host can be added and "
            f"the master cannot be changed; released, its pool stays as it "
            f"is and can be adopted again",
            cases.typed('aggregate', 'release', declared.name),
        )


CHECKS: tuple[tuple[str, str, Check, tuple[str, ...]], ...] = (
    ('operations', 'no operation is unfinished', operations, ()),
    ('lifecycle', 'the aggregate takes requests', in_error, ()),
)
"""As ``health.CHECKS``."""


def masterless(
    declared: declarations.Declared,
    answers: collections.abc.Mapping[str, identity.Identified],
    reason: str,
    pending: collections.abc.Iterable[cases.Pending] = (),
) -> tuple[model.Finding, ...]:
    """Return what is to be said of a pool whose master nobody finds.

    :param answers: who answers at the address of each member.
    :param reason: why no master was found, in words.
    """
    found = [*told(declared, pending), *error_told(declared)]
    if declared.hosts:
        found.append(
            fail(
                'master-reachable',
                _what_is_seen(declared, answers) or reason,
                _way_out(declared, answers),
            )
        )
    return tuple(found)


def _what_is_seen(
    declared: declarations.Declared,
    answers: collections.abc.Mapping[str, identity.Identified],
) -> str:
    """Say what each member answered."""
    if not answers:
        return ''
    told = []
    for host, found in answers.items():
        if found.who is Who.ANEW:
            what = f"was installed anew (it is {found.uuid} now)"
        elif found.who is Who.LEFT:
            what = 'serves a pool of its own'
        elif found.who is Who.STRANGER and found.others:
            others = findings.listed(found.others)
            what = f"is the master of another pool, with {others}"
        else:
            what = identity.answer(found)
        told.append(f"{host}: {what}")
    return f"no master of the pool answers: {'; '.join(told)}"


def _way_out(
    declared: declarations.Declared,
    answers: collections.abc.Mapping[str, identity.Identified],
) -> str:
    """Return what makes the pool have a master, or lets it go."""
    waiting = identity.by_who(answers, Who.MEMBER)
    dead = _dead_master(declared, answers, waiting)
    found = answers.get(dead)
    locked = identity.by_who(answers, Who.LOCKED)
    if locked and (dead in locked or not waiting):
        host = dead if dead in locked else locked[0]
        return members.locked_remedy(host, answers[host])
    auditing = cases.typed('aggregate', 'audit', declared.name)
    starting = identity.by_who(answers, Who.STARTING)
    if dead in starting or (starting and not waiting):
        return f"wait a minute, then: {auditing}"
    if waiting:
        return _promotion(declared, answers, waiting, dead, found)
    releasing = cases.typed('aggregate', 'release', declared.name)
    silent = identity.by_who(answers, Who.NOBODY)
    if silent:
        host = dead if dead in silent else silent[0]
        return (
            f"switch on {host}, or, if the pool is gone for good: {releasing}"
        )
    return releasing


def _dead_master(
    declared: declarations.Declared,
    answers: collections.abc.Mapping[str, identity.Identified],
    waiting: collections.abc.Sequence[str],
) -> str:
    """Return the host that most members name as their master."""
    named = [answers[host].seen.named for host in waiting]
    named = [host for host in named if host and host not in waiting]
    return max(set(named), key=named.count) if named else declared.master


def _promotion(
    declared: declarations.Declared,
    answers: collections.abc.Mapping[str, identity.Identified],
    waiting: collections.abc.Sequence[str],
    dead: str,
    found: identity.Identified | None,
) -> str:
    """Return how one of the members that wait becomes the master."""
    command = (
        cases.typed('aggregate', 'recover', declared.name)
        + f" --promote {waiting[0]}"
    )
    first = ''
    if len(waiting) * 2 <= len(answers):
        command += ' --the-master-is-off'
        first = f"switch off {dead}, then: "
    if found is None or found.who is Who.NOBODY:
        return (
            f"switch on {dead}, or, if it is gone for good: {first}{command}"
        )
    return f"{first}{command}"
