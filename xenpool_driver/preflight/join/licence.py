# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Licences: what the joiner may, and whether editions fit."""

from __future__ import annotations

import shlex

from xenpool_driver import findings, model
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases

RESTRICTED_POOL_SIZE = 3
"""Hosts in a pool without the licence for more (``xapi_globs.ml``)."""


def _feature_enabled(case: cases.JoinCase, key: str) -> bool:
    """Say whether the joiner's licence has a feature.

    A flag that is missing, or is neither true nor false, counts as
    restricted (``features.ml`` ``of_assoc_list``).
    """
    return case.my_pool.restrictions.get(key) == 'false'


def pooling(case: cases.JoinCase) -> check.Problems:
    """7.1: ``assert_pooling_licensed``, before anything else."""
    if not _feature_enabled(case, 'restrict_pooling'):
        yield check.Problem(
            f"the licence of {case.me.name} does not allow pools",
            f"apply an edition that allows pools; which there are, is told on "
            f"{case.me.name} by: xe host-all-editions",
            ('LICENCE_RESTRICTION',),
            findings.at_fault(case.me),
        )


def pool_size(case: cases.JoinCase) -> check.Problems:
    """Rule 1: ``assert_pool_size_unrestricted``."""
    if _feature_enabled(case, 'restrict_pool_size'):
        return
    if len(case.pool.hosts) >= RESTRICTED_POOL_SIZE:
        yield check.Problem(
            f"the licence of {case.me.name} allows pools of at most "
            f"{RESTRICTED_POOL_SIZE} hosts, and {case.pool.name} has "
            f"{len(case.pool.hosts)}",
            f"apply an edition without the limit; which there are, is told on "
            f"{case.me.name} by: xe host-all-editions",
            ('LICENCE_RESTRICTION', 'Pool_size'),
            findings.at_fault(case.me),
        )
    elif len(case.pool.hosts) + len(case.batch) >= RESTRICTED_POOL_SIZE:
        yield check.Problem(
            f"the licence of {case.me.name} allows pools of at most "
            f"{RESTRICTED_POOL_SIZE} hosts; with all the hosts of this "
            f"request {case.pool.name} would have "
            f"{len(case.pool.hosts) + len(case.batch) + 1}",
            'add fewer hosts, or apply an edition without the limit',
            objects=findings.at_fault(case.me),
        )


def editions(case: cases.JoinCase) -> check.Problems:
    """Rule 21: ``assert_restrictions_match``.

    The licence daemon on the joiner knows editions and their ranks. Which
    ones it knows stands in ``host.editions``; the ranks stand nowhere.
    """
    mine = case.me.edition
    theirs = [host.edition for host in case.pool.hosts.values()]
    if all(edition == mine for edition in theirs):
        return
    ranks = case.live.edition_orders
    known = tuple(ranks) if ranks is not None else case.me.editions
    stranger = next((e for e in [*theirs, mine] if e not in known), None)
    if stranger is not None and known:
        yield _mismatch(
            case, (f'Edition "{stranger}" from pool is not known to v6d.',)
        )
    elif ranks is not None:
        lowest = min(theirs, key=ranks.__getitem__)
        if ranks[lowest] != ranks[mine]:
            yield _mismatch(case, _two_editions(mine, lowest))
    else:
        yield check.undecided(
            f"the licence edition of {case.me.name} is '{mine}', the pool "
            f"has {findings.listed(sorted({repr(e) for e in theirs}))}; only "
            f"the licence daemon of {case.me.name} knows whether they rank "
            f"the same (undecided offline)",
            _applying(case, theirs[0]),
        )


def _two_editions(mine: str, lowest: str) -> tuple[str, ...]:
    return f'host edition = "{mine}"', f'pool edition = "{lowest}"'


def _applying(case: cases.JoinCase, edition: str) -> str:
    """Return how the joiner gets the edition of the pool."""
    if not edition:
        return (
            f"apply the same edition to both; which there are, is told on "
            f"{case.me.name} by: xe host-all-editions"
        )
    return (
        f"on {case.me.name}: xe host-apply-edition host-uuid={case.me.uuid} "
        f"edition={shlex.quote(edition)}"
    )


def _mismatch(case: cases.JoinCase, params: tuple[str, ...]) -> check.Problem:
    return check.Problem(
        f"the licence editions do not fit: {'; '.join(params)}",
        _applying(case, case.master.edition),
        ('LICENSE_HOST_POOL_MISMATCH', *params),
        findings.at_fault(
            case.me,
            *(
                host
                for host in case.pool.hosts.values()
                if host.edition != case.me.edition
            ),
        ),
        model.Severity.FAIL,
    )
