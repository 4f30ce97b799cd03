# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Judge a join from dumped records, without access to any host."""

from __future__ import annotations

import collections.abc
import typing

from xenpool_driver import exceptions, model, snapshot
from xenpool_driver.preflight import join

Parser = collections.abc.Callable[[typing.Any], snapshot.PoolSnapshot]


def judge(
    joiner_records: object,
    pool_records: object,
    force: bool = False,
    *,
    parse: Parser,
    now: float | None = None,
) -> model.Report:
    """Return what speaks against a join, as far as records show it.

    :param joiner_records: ``{class: {ref: record}}`` of the joiner.
    :param pool_records: the same of the pool; None when there is none: what
        depends on it is unknown then.
    :param force: judge ``join_force``.
    :param parse: makes a snapshot of such records
        (``xapi.records.snapshot``; this room knows nothing of that one).
    :param now: seconds since 1970, for the dates of certificates.
    :raises ConfigurationError: the records are malformed; the message says
        whose.
    """
    joiner = _parsed('joiner', joiner_records, parse)
    pool = (
        snapshot.PoolSnapshot()
        if pool_records is None
        else _parsed('pool', pool_records, parse)
    )
    return join.check(joiner, pool, force=force, now=now)


def _parsed(
    side: str, records: object, parse: Parser
) -> snapshot.PoolSnapshot:
    if not isinstance(records, collections.abc.Mapping):
        raise exceptions.ConfigurationError(
            f"records of the {side}: must be an object "
            f"{{class: {{ref: record}}}}, not {type(records).__name__}"
        )
    try:
        parsed = parse(records)
    except exceptions.ConfigurationError as error:
        raise exceptions.ConfigurationError(
            f"records of the {side}: {error}"
        ) from None
    reason = parsed.lacks('host')
    if reason is not None:
        raise exceptions.ConfigurationError(
            f"records of the {side}: {reason}; dump them again with "
            f"'records dump'; the hosts are told by: xenpool host list"
        )
    return parsed
