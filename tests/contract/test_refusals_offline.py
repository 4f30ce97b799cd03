# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Joins that a real XAPI refused or allowed, foreseen from records alone."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

from xenpool_driver import model, snapshot
from xenpool_driver.preflight import join, offline
from xenpool_driver.xapi import records

RECORDINGS = pathlib.Path(__file__).parents[1] / 'data' / 'recordings'

UNDECIDED = {
    '01-wrong-password': 'whether a password is right shows in no record',
    '117-peer-resets-at-once': 'nothing but a listener was there',
    '118-peer-is-not-tls': 'nothing but a listener was there',
    '120-peer-answers-http-500': 'nothing but a listener was there',
    '122-peer-answers-http-200-html': 'nothing but a listener was there',
}
"""What no record can tell, and why."""

FREE_ORDER = {'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT'}
"""Codes whose parameters XAPI gives in no order."""

FILES = sorted((RECORDINGS / 'refusals').glob('*.json'))


def load(path: pathlib.Path) -> dict[str, typing.Any]:
    found: dict[str, typing.Any] = json.loads(path.read_text())
    return found


def judge(case: dict[str, typing.Any], force: bool) -> model.Report:
    pool = case['coordinator']
    if pool is None and case['master_address'] == case['called_on']:
        pool = case['joiner']
    return offline.judge(case['joiner'], pool, force, parse=records.snapshot)


def sorted_if_free(
    error: typing.Sequence[str] | None,
) -> list[str] | None:
    if error is None:
        return None
    code, *params = error
    return [code, *(sorted(params) if code in FREE_ORDER else params)]


RECORDED = [
    pytest.param(path, call, id=f"{path.stem}-{call}")
    for path in FILES
    for call in ('join', 'join_force')
    if load(path)[call] is not None
]


@pytest.mark.parametrize(('path', 'call'), RECORDED)
def test_first_refusal_is_what_xapi_said(
    path: pathlib.Path, call: str
) -> None:
    case = load(path)
    report = judge(case, call == 'join_force')
    if path.stem in UNDECIDED:
        login = [f for f in report.findings if f.check == 'pool-login']
        assert [f.severity for f in login] == [model.Severity.UNKNOWN]
        assert report.first_refusal is None
        return
    assert sorted_if_free(report.first_refusal) == sorted_if_free(
        case[call]['error']
    )


@pytest.mark.parametrize('name', UNDECIDED)
def test_what_no_record_tells_is_foreseen_once_it_was_tried(
    name: str,
) -> None:
    """A live check logs in where the join would, and is told the same."""
    case = load(RECORDINGS / 'refusals' / f"{name}.json")
    told = tuple(case['join']['error'])
    pool = case['coordinator']
    report = join.check(
        records.snapshot(case['joiner']),
        snapshot.PoolSnapshot() if pool is None else records.snapshot(pool),
        live=join.LiveFacts(pool_login=told),
    )
    assert report.first_refusal == told


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_join_that_xapi_allowed_meets_no_objection(
    path: pathlib.Path,
) -> None:
    case = load(path)
    for call in ('join', 'join_force'):
        if case[call] is not None and case[call]['outcome'] == 'joined':
            assert judge(case, call == 'join_force').failures == ()


def test_every_failure_names_its_objects_and_a_remedy() -> None:
    for path in FILES:
        for finding in judge(load(path), False).failures:
            assert finding.remedy, (path.name, finding)
            assert finding.objects, (path.name, finding)
            assert all(ref.cls for ref in finding.objects), finding


def test_all_rules_broken_at_once_are_all_listed() -> None:
    case = load(RECORDINGS / 'refusals' / '203-all-broken-from-rule-2.json')
    codes = {
        finding.predicts[0]
        for finding in judge(case, False).failures
        if finding.predicts
    }
    assert codes == {
        'HOST_STILL_BOOTING',
        'HA_IS_ENABLED',
        'CLUSTERING_ENABLED',
        'POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK',
        'JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS',
        'JOINING_HOST_CANNOT_HAVE_RUNNING_VMS',
        'JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS',
        'HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY',
        'HOSTS_NOT_COMPATIBLE',
        'HOSTS_NOT_HOMOGENEOUS',
        'JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS',
        'POOL_JOINING_HOST_HAS_BONDS',
        'POOL_JOINING_HOST_HAS_TUNNELS',
        'POOL_JOINING_HOST_HAS_NETWORK_SRIOVS',
        'POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS',
        'POOL_JOINING_EXTERNAL_AUTH_MISMATCH',
        'LICENSE_HOST_POOL_MISMATCH',
        'OPERATION_NOT_ALLOWED',
        'POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION',
        'POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA',
        'POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH',
        'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT',
        'POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT',
        'NOT_SUPPORTED_DURING_UPGRADE',
        'POOL_JOINING_SM_FEATURES_INCOMPATIBLE',
    }


def test_links_show_in_the_interfaces_alone() -> None:
    """Live, bonds and their kin are not read: the PIFs show them."""
    for path in FILES:
        case = load(path)
        if case['coordinator'] is None or 'made_by' not in case:
            continue
        whole = judge(case, False)
        for side in ('joiner', 'coordinator'):
            for cls in ('Bond', 'VLAN', 'tunnel', 'network_sriov'):
                del case[side][cls]
        assert judge(case, False).first_refusal == whole.first_refusal, path
