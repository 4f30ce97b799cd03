# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Whether the members' logins work, seen before they are needed."""

from __future__ import annotations

import collections.abc
import concurrent.futures

from oslo_log import log

from xenpool_driver import (
    exceptions,
    model,
    operation,
    pool_states,
    store,
)
from xenpool_driver.xapi import passwords

LOG = log.getLogger(__name__)

CHECK = 'login'
"""The name of the check in reports."""


def check(
    site: operation.Site,
    row: store.Aggregate,
    hosts: collections.abc.Iterable[str],
) -> dict[str, passwords.Login]:
    """Log in to members themselves; all at the same time.

    A member that takes the pool's password and not its own is reached with
    the pool's from now on.

    :param hosts: compute host names. The master proves its password with
        each login to the pool, and need not be among them.
    """
    master = row.metadata.get(pool_states.MASTER) or ''

    def sign_in(host: str) -> passwords.Login:
        pool = None if host == master else master
        try:
            return site.connections.sign_in(host, pool)
        except exceptions.ConfigurationError as error:
            return passwords.Login(passwords.Taken.NEITHER, str(error))

    wanted = list(hosts)
    if not wanted:
        return {}
    with concurrent.futures.ThreadPoolExecutor(len(wanted)) as workers:
        return dict(zip(wanted, workers.map(sign_in, wanted), strict=True))


def findings(
    found: collections.abc.Mapping[str, passwords.Login],
    needed: collections.abc.Container[str] = (),
) -> tuple[model.Finding, ...]:
    """Return what is to be said of logins; nothing of those that work.

    A host that keeps silent is no matter of passwords.

    :param needed: the hosts whose login the request cannot do without.
    """
    told = []
    for host, login in found.items():
        if login.taken is passwords.Taken.POOL:
            told.append(_pools(host, login.whose))
        elif login.taken is passwords.Taken.NEITHER:
            told.append(_refused(host, login, host in needed))
    return tuple(told)


def _pools(host: str, whose: str) -> model.Finding:
    """Say that a host takes the password of its pool.

    :param whose: the section that has it.
    """
    return model.Finding(
        CHECK,
        model.Severity.WARN,
        f"'{host}' does not take the password of section [{host}], but that "
        f"of its pool, which is used for now",
        f"set connection_username and connection_password in section "
        f"[{host}] to those of section [{whose}]",
    )


def _refused(
    host: str, login: passwords.Login, is_needed: bool
) -> model.Finding:
    """Say that a host is alive and takes no password of ours."""
    untried = (
        "; the pool's password was not tried, because the certificate of the "
        'host is not verified'
        if login.is_untried
        else ''
    )
    return model.Finding(
        CHECK,
        model.Severity.FAIL if is_needed else model.Severity.WARN,
        f"'{host}' is alive, but refuses the login: {login.reason}{untried}",
        f"correct connection_username and connection_password in section "
        f"[{host}]: after a join the root password of the pool holds there",
    )


def tell(name: str, told: collections.abc.Iterable[model.Finding]) -> None:
    """Log warnings of a request that goes on.

    :param name: the aggregate's name.
    """
    for finding in told:
        if finding.severity in (model.Severity.WARN, model.Severity.FAIL):
            LOG.warning(
                '%s: %s%s',
                name,
                finding.message,
                f" ({finding.remedy})" if finding.remedy else '',
            )
