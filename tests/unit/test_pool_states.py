# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The lifecycle: every state against every event and every request."""

from __future__ import annotations

import itertools
import pathlib
import runpy

import pytest

from xenpool_driver import exceptions, pool_states

TOP = pathlib.Path(__file__).parents[2]

# The lifecycle as a user is told it, said a second time on purpose: a slip
# in the table of the code shows here.
LIFE = {
    'created': {
        'first add-host request accepted': 'changing',
        'deleted, no hosts left': 'dismissed',
    },
    'changing': {'set-up succeeded': 'active', 'set-up failed': 'error'},
    'active': {
        'request succeeded': 'active',
        'request failed': 'active',
        'request failed, threshold reached': 'error',
        'deleted, no hosts left': 'dismissed',
        'released, no host is touched': 'dismissed',
    },
    'error': {
        'deleted, no hosts left': 'dismissed',
        'released, no host is touched': 'dismissed',
    },
    'dismissed': {},
}

REFUSED = {
    'created': {'remove', 'set master', 'recover', 'release'},
    'changing': {
        'add',
        'remove',
        'set master',
        'delete',
        'recover',
        'release',
    },
    'active': set(),
    'error': {'add', 'set master'},
    'dismissed': {
        'add',
        'remove',
        'set master',
        'delete',
        'recover',
        'release',
    },
}

# ``nova/virt/xenapi/pool_states.py``, release 21, word for word.
ANCESTOR = {
    'CREATED': 'created',
    'CHANGING': 'changing',
    'ACTIVE': 'active',
    'ERROR': 'error',
    'DISMISSED': 'dismissed',
    'KEY': 'operational_state',
    'POOL_FLAG': 'hypervisor_pool',
}

PAIRS = list(itertools.product(pool_states.STATES, pool_states.EVENTS))


def test_the_ancestors_names_are_all_there() -> None:
    found = {name: getattr(pool_states, name, None) for name in ANCESTOR}
    assert found == ANCESTOR
    assert pool_states.is_hv_pool({'hypervisor_pool': ''})
    assert not pool_states.is_hv_pool({'operational_state': 'active'})


@pytest.mark.parametrize(('state', 'event'), PAIRS)
def test_every_state_meets_every_event(state: str, event: str) -> None:
    expected = LIFE[state].get(event)
    if expected is not None:
        assert pool_states.next_state(state, event) == expected
        return
    with pytest.raises(pool_states.IllegalTransition) as caught:
        pool_states.next_state(state, event)
    assert (caught.value.state, caught.value.event) == (state, event)
    assert state in str(caught.value)
    assert event in str(caught.value)


@pytest.mark.parametrize(('state', 'event'), PAIRS)
def test_an_event_writes_nothing_itself(state: str, event: str) -> None:
    metadata = {pool_states.POOL_FLAG: 'true', pool_states.STATE: state}
    before = dict(metadata)
    try:
        pool_states.next_state(pool_states.state_of(metadata), event)
    except pool_states.IllegalTransition:
        assert event not in LIFE[state]
    assert metadata == before


def reachable(start: str) -> set[str]:
    """Return every state that some chain of events leads to."""
    found, edge = {start}, {start}
    while edge:
        edge = {
            target
            for (state, _), target in pool_states.TRANSITIONS.items()
            if state in edge
        } - found
        found |= edge
    return found


def test_every_state_is_reachable_from_created() -> None:
    assert reachable('created') == set(pool_states.STATES)


@pytest.mark.parametrize('state', pool_states.STATES)
def test_dismissed_is_reachable_from_every_state(state: str) -> None:
    assert 'dismissed' in reachable(state)


def test_error_is_irreversible_and_dismissed_final() -> None:
    assert reachable('error') == {'error', 'dismissed'}
    assert reachable('dismissed') == {'dismissed'}


@pytest.mark.parametrize(
    ('state', 'request_'),
    list(itertools.product(pool_states.STATES, pool_states.REQUESTS)),
)
def test_every_state_meets_every_request(state: str, request_: str) -> None:
    reason = pool_states.refusal(state, request_)
    assert (reason is not None) == (request_ in REFUSED[state])


def test_refusals_say_why() -> None:
    assert pool_states.refusal('changing', 'add') == 'setup in progress'
    assert pool_states.refusal('error', 'add') == 'aggregate in error'
    assert pool_states.refusal('dismissed', 'add') == 'aggregate deleted'
    assert pool_states.refusal('created', 'remove') == 'no hosts to remove'


def test_a_refusal_names_the_next_command() -> None:
    assert pool_states.way_out('error', 'add', 'my rack') == (
        "xenpool aggregate release 'my rack'"
    )
    assert pool_states.way_out('created', 'release', 'web') == (
        'xenpool aggregate delete web'
    )
    assert pool_states.way_out('changing', 'add', 'web') == (
        'xenpool aggregate recover web'
    )
    assert pool_states.way_out('active', 'add', 'web') == ''


@pytest.mark.parametrize(
    ('state', 'request_'), [('molten', 'add'), ('active', 'paint')]
)
def test_unknown_words_are_no_permission(state: str, request_: str) -> None:
    with pytest.raises(KeyError):
        pool_states.refusal(state, request_)


@pytest.mark.parametrize(
    ('metadata', 'flagged'),
    [
        (None, False),
        ({}, False),
        ({'operational_state': 'active'}, False),
        ({'hypervisor_pool': 'true'}, True),
        ({'hypervisor_pool': 'false'}, True),  # presence decides, as in Nova
        ({'hypervisor_pool': ''}, True),
    ],
)
def test_is_hv_pool(metadata: dict[str, str] | None, flagged: bool) -> None:
    assert pool_states.is_hv_pool(metadata) is flagged


def test_a_flag_without_a_state_means_created() -> None:
    assert pool_states.state_of({'hypervisor_pool': 'true'}) == 'created'


def test_a_state_that_is_none_is_named() -> None:
    with pytest.raises(exceptions.ConfigurationError, match="'molten'"):
        pool_states.state_of({'operational_state': 'molten'})


@pytest.mark.parametrize(
    ('before', 'threshold', 'state'),
    [(0, 3, 'active'), (1, 3, 'active'), (2, 3, 'error'), (0, 1, 'error')],
)
def test_the_threshold_counts_requests_in_a_row(
    before: int, threshold: int, state: str
) -> None:
    event = pool_states.failure_event(before, threshold)
    assert pool_states.next_state('active', event) == state


def test_metadata_keys_are_no_hosts() -> None:
    metadata = {
        'hypervisor_pool': 'true',
        'operational_state': 'active',
        'master_compute': 'xen01',
        'xen01': 'uuid-1',
        'availability_zone': 'nova',
    }
    hosts = ['xen01', 'xen02', 'availability_zone']
    assert pool_states.host_uuids(metadata, hosts) == {'xen01': 'uuid-1'}


def test_the_strings_are_novas() -> None:
    assert pool_states.POOL_FLAG == 'hypervisor_pool'
    assert pool_states.STATE == 'operational_state'
    assert pool_states.MASTER == 'master_compute'
    assert list(LIFE) == list(pool_states.STATES)


def test_the_drawn_lifecycle_is_current() -> None:
    rendered = runpy.run_path(str(TOP / 'tools' / 'genstates.py'))['render']()
    for name, text in rendered.items():
        drawn = TOP / 'doc' / 'source' / '_generated' / name
        assert drawn.read_text() == text, f"{name}: run tox -e genstates"
