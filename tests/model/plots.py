# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a run is made of: how requests are made, and what goes wrong."""

from __future__ import annotations

import collections
import dataclasses

from hypothesis import strategies as st

from tests.model import sites
from xenpool_driver.simulator import faults

HOSTS = st.sampled_from(sites.HOSTS)
POOLS = st.sampled_from(sites.POOLS)

METHODS = st.sampled_from(
    [
        '*',
        'host.destroy',
        'host.disable',
        'host.enable',
        'host.evacuate',
        'host.get_all_records',
        'host.get_by_uuid',
        'host.get_all_records_where',
        'pool.add_to_other_config',
        'pool.designate_new_master',
        'pool.eject',
        'pool.emergency_transition_to_master',
        'pool.get_all_records',
        'pool.join',
        'pool.recover_slaves',
        'pool.remove_from_other_config',
        'pool.set_name_label',
        'session.login_with_password',
        'session.slave_local_login_with_password',
        'task.get_all_records',
        'task.get_record',
    ]
)

REFUSALS = (
    ('INTERNAL_ERROR', 'Unix.Unix_error(Unix.ECONNREFUSED)'),
    ('HOST_STILL_BOOTING',),
    ('OPERATION_NOT_ALLOWED', 'not now'),
    ('OTHER_OPERATION_IN_PROGRESS', 'pool', 'OpaqueRef:0'),
    ('SESSION_INVALID', 'OpaqueRef:1'),
    ('HANDLE_INVALID', 'host', 'OpaqueRef:2'),
)

ACTIONS = (
    faults.Action('drop-before'),
    faults.Action('drop-after'),
    faults.Action('garbage'),
    faults.Action('delay', seconds=8.0),
    *(
        faults.Action('refuse', code=code, params=tuple(params))
        for code, *params in REFUSALS
    ),
)

MISHAPS = (
    'kill',
    'kill',
    'kill-toolstack',
    'restart-toolstack',
    'expire-sessions',
    'lose-tasks',
)
"""Names of the simulator's; the first is the gravest."""


@dataclasses.dataclass(frozen=True)
class Fuse:
    """The worker dies at one of its next steps."""

    points: int


@dataclasses.dataclass(frozen=True)
class Fault:
    """One of the next calls goes wrong."""

    action: faults.Action
    method: str
    nth: int

    def rule(self) -> faults.Rule:
        """Return it as the simulator takes it."""
        return faults.Rule((self.action,), method=self.method, nth=self.nth)


@dataclasses.dataclass(frozen=True)
class Accident:
    """Something happens to a host meanwhile.

    :ivar which: index into the hosts concerned, then all.
    :ivar mishap: the simulator's name of it.
    :ivar delay: seconds until then.
    :ivar back: seconds until a host that lost its power is on again.
    """

    which: int
    mishap: str
    delay: float
    back: float


@dataclasses.dataclass(frozen=True)
class Freeze:
    """The worker stops for a while, and does not know it.

    :ivar delay: seconds until then.
    :ivar back: seconds for which it lasts.
    """

    delay: float
    back: float


Mischief = Fuse | Fault | Accident | Freeze | None

SOON = st.sampled_from([0.1, 0.5, 1.5, 3.0, 8.0, 11.0, 14.0, 20.0, 30.0])

MISCHIEF: st.SearchStrategy[Mischief] = st.one_of(
    st.none(),
    st.none(),
    st.builds(Fuse, st.integers(1, 250)),
    st.builds(Fault, st.sampled_from(ACTIONS), METHODS, st.integers(1, 3)),
    st.builds(
        Accident,
        st.integers(0, 7),
        st.sampled_from(MISHAPS),
        SOON,
        st.sampled_from([5.0, 40.0, 200.0, 900.0, 5000.0]),
    ),
    st.builds(Freeze, SOON, st.sampled_from([10.0, 100.0, 500.0])),
)


@dataclasses.dataclass(frozen=True)
class How:
    """How a request is made.

    :ivar by: which worker is asked.
    :ivar patience: seconds that pass before anything else happens.
    :ivar mischief: what goes wrong.
    """

    by: int
    patience: float
    mischief: Mischief


HOW = st.builds(
    How,
    st.integers(0, 1),
    st.sampled_from([0.0, 2.0, 15.0, 600.0, 600.0, 600.0]),
    MISCHIEF,
)


def name_of(mischief: Fuse | Fault | Accident | Freeze) -> str:
    """Return the name under which mischief is counted."""
    if isinstance(mischief, Fault):
        return f'fault {mischief.action.kind}'
    return type(mischief).__name__.lower()


class Tally(collections.Counter[str]):
    """What has happened in all runs together."""

    def count(self, group: str, what: str) -> None:
        """Count one of a group."""
        self[f'{group}: {what}'] += 1

    def __str__(self) -> str:
        groups = collections.defaultdict(list)
        for name, number in sorted(self.items()):
            group, _, what = name.rpartition(': ')
            groups[group].append((number, what))
        lines = []
        for group, counts in sorted(groups.items()):
            total = sum(number for number, _ in counts)
            told = ', '.join(f'{number} {what}' for number, what in counts)
            lines.append(f'{total} {group}: {told}' if group else told)
        return '\n  '.join(lines)
