# Licensed under the Apache License, Version 2.0; see LICENSE.
"""XAPI calls per verb, against the fewest possible.

Usage: ``python benchmarks/calls.py [--quick]``

The simulator counts. Each verb is made by a new driver, as a command is, so
logins count; logouts, which nobody waits for, do not. A look that is repeated
while something goes on counts once. On each host that a verb changes it has a
login of its own, whose uuid it asks for, and it destroys the task of a call
when that has ended. ``tests/functional/test_call_counts.py``
holds the figures. The fewest possible:

check
    On each side a login, a bulk read of each of the 12 classes that the rules
    look at (clusters and updates only where a host refers to them), and the
    clock: 14.
set-up
    A check of one side (14), the login for changes (2), the pool's reference,
    the stamp, the name, and a look whether both are there: 20.
join
    A check of both sides (28), the logins for changes (4), the call, its task
    and the end of that, the member's reference,
    whether it is enabled, whether it is live, the 6 classes of the inventory
    that also tell whether its storage is plugged (virtual machines only where
    there were some), and whom the member itself takes for its master; a copy
    of the database for each member: 46.
join again
    Nothing is to be done. Whose member the host says it is, the check of the
    pool (14), the same look as above (9) and the member's own view: 25.
set master
    A login, 5 classes, each other member's view and a login to it, whether
    the new master is well, the login for changes (2), the call, its task and
    the end of that, each member's view in the end, and 3 classes of the new
    master: 22 with three hosts.
remove
    A login, the 8 classes that a removal may damage, a login to the host, the
    login for changes (2), the call, its task and the end of that, and a look
    whether the record is gone: 16.
last host
    A login, pool and hosts, the login for changes (2), two changes, and a
    look: 8.
audit
    A login, the 7 classes that the findings are about, the control domains,
    the clock, each member's view, and a login to each: 15 with three hosts.
"""

from __future__ import annotations

import collections.abc

import lab

POLLS = {
    'host.get_all_records_where': 2,  # a look that is repeated, and a last one
    'task.get_record': 1,
    'task.get_all_records': 1,
}

Counts = dict[str, dict[str, int]]


def made(counts: Counts, repeated: bool = False) -> int:
    """Return how many calls were made, looks that are repeated once.

    :param repeated: whether everything may be a look that is repeated.
    """
    return sum(
        1 if repeated else min(number, POLLS.get(method, number))
        for methods in counts.values()
        for method, number in methods.items()
        if method not in ('session.logout', 'session.local_logout')
    )


def main() -> None:
    """Count the calls of each verb."""
    lab.arguments(__doc__)
    print(
        f"{'verb':<12}{'calls':>7}{'with polls':>12}{'fewest':>8}{'ratio':>7}"
    )
    with lab.running('--hosts', '3') as hosts:
        conf = hosts.conf()
        one, two, three = hosts.names
        with lab.desk(conf) as desk:
            uuid = desk.create().uuid

        def count(
            verb: str,
            fewest: int,
            act: collections.abc.Callable[[lab.Desk], object],
        ) -> None:
            with lab.desk(conf) as desk:
                hosts.ask('DELETE', 'calls')
                act(desk)
                counts = hosts.calls()
            calls = made(counts, repeated=verb == 'set master')
            total = sum(sum(each.values()) for each in counts.values())
            print(
                f"{verb:<12}{calls:>7}{total:>12}{fewest:>8}"
                f"{calls / fewest:>7.2f}",
                flush=True,
            )

        def add(desk: lab.Desk, host: str) -> None:
            for result in desk.api.add_hosts(None, uuid, [host]):
                assert result.error is None, result.error

        def remove(desk: lab.Desk, host: str) -> None:
            desk.api.remove_host(None, uuid, host, allow_data_loss=True)

        count('set-up', 20, lambda desk: add(desk, one))
        count('check', 28, lambda d: d.api.check_hosts(None, uuid, [two]))
        count('join', 46, lambda desk: add(desk, two))
        count('join again', 25, lambda desk: add(desk, two))
        with lab.desk(conf) as desk:
            add(desk, three)
        count('audit', 15, lambda d: d.api.audit(None, uuid))
        count('set master', 22, lambda d: d.api.set_master(None, uuid, two))
        count('remove', 16, lambda desk: remove(desk, three))
        count('remove', 16, lambda desk: remove(desk, one))
        count('last host', 8, lambda desk: remove(desk, two))


if __name__ == '__main__':
    main()
