# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Every place where the simulator differs from what was recorded, and why.

``python -m tests.contract.differences > doc/source/differences.rst`` writes
the page of the documentation; tests hold it against this file, and this file
against the recordings.
"""

from __future__ import annotations

import collections.abc
import json
import textwrap
import typing

from tests import conftest


class Difference(typing.NamedTuple):
    """One place.

    :ivar where: the recording, or what several of them have in common.
    :ivar what: what differs.
    :ivar recorded: what a real host did.
    :ivar simulated: what the simulator does.
    :ivar why: the reason.
    """

    where: str
    what: str
    recorded: str
    simulated: str
    why: str


WIRE: tuple[Difference, ...] = ()
"""Exchanges that are not answered as recorded."""

OPERATIONS = (
    Difference(
        'a4-three-joins-at-once',
        'copy_primary_host_certs',
        'each starting member shows this operation on the pool shortly before '
        'it is enabled',
        'no such operation is shown',
        'it changes nothing that a client sees, and would let the starts of '
        'many members queue for each other',
    ),
)
"""Operations on the pool that are not shown."""

NOT_COMPARED = (
    Difference(
        'all timelines',
        'durations',
        'those of the machine that ran all hosts: three that joined at once '
        'were members after 32 s',
        'set one by one (``simulator/timings.py``); three that join at once '
        'are members after 24 s',
        'the order is what counts: for each observer, and between observers '
        'for what lies more than a second apart',
    ),
    Difference(
        'all timelines',
        'states of less than half a second',
        'some observers happened to see them, others not',
        'present; every observer may see them',
        'observers look every 0.22 s',
    ),
    Difference(
        'a4-three-joins-at-once',
        'which of the three is first',
        'as it happened',
        'as they called',
        'nothing decides it',
    ),
    Difference(
        'wire',
        'references, uuids made on the spot, dates, addresses',
        'those of the recorded hosts',
        'its own, one for each of theirs',
        'they are random; that they stand for the same things is compared',
    ),
    Difference(
        'wire',
        'how far a task has come that was asked after at once',
        'mostly pending',
        'whatever it is by then',
        'it depends on how quick the host happens to be',
    ),
    Difference(
        '108-ca-certificate-same-name-differs',
        'the order of several names in '
        'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT',
        'no order',
        'sorted backwards',
        'a hash table decides it',
    ),
    Difference(
        '37-edition-unknown-to-licence-daemon-on-joiner',
        'which licence ranks higher',
        'the licence daemon knows',
        'the order of ``host.editions`` counts, the poorest first; none at '
        'all stands for no daemon',
        'ranks stand in no record',
    ),
    Difference(
        '40-network-backend-differs',
        "the joiner's network backend",
        'asked of its network daemon',
        'read from ``software_version``',
        'there is no network daemon',
    ),
)
"""What comparisons pass over."""

UNSEEN = (
    'HA, storage, clustering and live migration',
    'what guests allow in which state, ``VM.clone``, ``VM.copy``, '
    '``VM.snapshot``, reboots and plugging of drives',
    '``event.next``, limited roles, VLANs, bonds and tunnels made by calls',
    'a coordinator that is cut off rather than dead',
    '``live`` turning false after ten minutes of silence',
    '``HOST_BROKEN`` and ``HOST_UNKNOWN_TO_MASTER``',
    'releases other than the newest (XCP-ng 8.2 and 8.3, XenServer 8)',
)
"""What is simulated and was not recorded."""

LEFT_OUT = (
    'What XAPI serves over HTTP beside calls (exports, performance data, '
    'consoles, the command line): who says who he is gets HTTP 403, others '
    '401 as from XAPI. ``role.get_all`` lacks the permissions for it.',
    'The fingerprints in ``Certificate`` records are not those of the '
    'certificates that simulated hosts show.',
    'All guests have the tools of XenServer, which report at once; those of '
    'recorded pools count as having them, too.',
    'Disks have no content, and suspended guests no image. A snapshot has no '
    '``snapshot_metadata``.',
    'Checks that XAPI makes before it writes a field by hand '
    '(``VM.set_domain_type`` and its like), unless pools depend on them.',
)
"""What is not simulated although no NOT_IMPLEMENTED says so."""


# -- the page ---------------------------------------------------------------


def counts() -> dict[str, int]:
    """Return how many recordings there are of each kind."""
    refusals = list((conftest.RECORDINGS / 'refusals').glob('*.json'))
    wire = (conftest.RECORDINGS / 'wire').glob('*.json')
    timelines = (conftest.RECORDINGS / 'timelines').glob('*.json')
    return {
        'exchanges': sum(len(json.loads(p.read_text())) for p in wire),
        'joins': len(refusals),
        'timelines': len(list(timelines)),
    }


def page() -> str:
    """Return the page."""
    number = counts()
    return '\n'.join(
        [
            'Differences from real hosts',
            '===========================',
            '',
            *textwrap.wrap(
                'The simulator is held against recordings of a real '
                f"toolstack: {number['exchanges']} requests with their "
                f"answers, {number['joins']} joins that were refused or "
                f"allowed, and {number['timelines']} timelines of joins, an "
                'eject, a change of master and deaths, each with the '
                'observers that watched it. Every place where it differs is '
                'listed here; tests keep the list true and complete.',
                79,
            ),
            '',
            *_table('What differs', (*WIRE, *OPERATIONS)),
            *_table('What is not compared', NOT_COMPARED),
            'Simulated, but not recorded',
            '---------------------------',
            '',
            'Written from the source and documents of XAPI alone:',
            '',
            *_items(UNSEEN),
            '',
            'Left out without a word',
            '-----------------------',
            '',
            *_items(LEFT_OUT),
            '',
        ]
    )


def _items(
    texts: collections.abc.Iterable[str],
) -> collections.abc.Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(f"- {text}", 79, subsequent_indent='  ')


def _table(
    title: str, rows: collections.abc.Iterable[Difference]
) -> collections.abc.Iterator[str]:
    yield from (title, '-' * len(title), '', '.. list-table::')
    yield '   :header-rows: 1'
    yield '   :widths: 15 15 25 25 20'
    yield ''
    heads = Difference('Recording', 'What', 'Recorded', 'Simulated', 'Why')
    for row in (heads, *rows):
        for number, cell in enumerate(row):
            yield from textwrap.wrap(
                cell,
                79,
                initial_indent='     - ' if number else '   * - ',
                subsequent_indent='       ',
                break_on_hyphens=False,
            )
    yield ''


if __name__ == '__main__':
    print(page(), end='')
