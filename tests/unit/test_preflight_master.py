# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a change of master meets."""

from __future__ import annotations

import typing

from tests.unit import raw_pools
from xenpool_driver import model
from xenpool_driver.preflight import master

only, host = raw_pools.only, raw_pools.host


def judge(raw: raw_pools.Raw, **options: typing.Any) -> model.Report:
    uuid = host(raw, master=False)[1]['uuid']
    return master.check(raw_pools.parse(raw), uuid, **options)


def test_nothing_speaks_against_it() -> None:
    assert judge(raw_pools.three()).worst is model.Severity.PASS


def test_ha_forbids_it_unless_suspended() -> None:
    raw = raw_pools.three()
    only(raw, 'pool')['ha_enabled'] = True
    assert judge(raw).first_refusal == ('HA_IS_ENABLED',)
    assert judge(raw, suspend_ha=True).failures == ()


def test_competitor_is_refused_by_its_own_code() -> None:
    raw = raw_pools.three()
    operations = only(raw, 'pool')['current_operations']
    operations['OpaqueRef:t'] = 'designate_new_master'
    assert judge(raw).first_refusal == ('DESIGNATE_NEW_MASTER_IN_PROGRESS',)
    operations['OpaqueRef:t'] = 'eject'
    assert judge(raw).worst is model.Severity.WARN


def test_dead_target() -> None:
    raw = raw_pools.three()
    ref, record = host(raw, master=False)
    raw['host_metrics'][record['metrics']]['live'] = False
    assert judge(raw).first_refusal == ('HOST_OFFLINE', ref)


def test_every_member_must_live() -> None:
    raw = raw_pools.three()
    target = host(raw, master=False)[0]
    third = next(
        ref
        for ref in raw['host']
        if ref not in (target, only(raw, 'pool')['master'])
    )
    record = raw['host'][third]
    raw['host_metrics'][record['metrics']]['live'] = False
    (finding,) = judge(raw).failures
    assert record['name_label'] in finding.message
    raw['host_metrics'][record['metrics']]['live'] = True
    (finding,) = judge(raw, unreachable={record['uuid']: 'refused'}).failures
    assert 'refused' in finding.message
    raw['host_metrics'].clear()
    assert judge(raw).worst is model.Severity.UNKNOWN


def test_older_target_would_strand_newer_members() -> None:
    raw = raw_pools.three()
    host(raw, master=False)[1]['software_version']['platform_version'] = (
        '3.3.0'
    )
    (finding,) = judge(raw).failures
    assert finding.check == 'versions'
    raw = raw_pools.three()
    host(raw, master=False)[1]['software_version']['platform_version'] = (
        '3.10.0'
    )
    assert judge(raw).failures == ()


def test_change_done_moments_ago() -> None:
    raw = raw_pools.three()
    (finding,) = judge(raw, designated_at=100.0, now=140.0).failures
    assert 'wait 20 s' in finding.remedy
    assert judge(raw, designated_at=100.0, now=161.0).failures == ()
    started = float(host(raw)[1]['other_config']['agent_start_time'])
    report = judge(raw, now=started + 5)
    assert report.failures == ()
    assert report.worst is model.Severity.WARN
    (warning,) = [
        one for one in report.findings if one.severity is model.Severity.WARN
    ]
    assert 'made all the same' in warning.message  # it does not wait
    assert warning.remedy == ''


def test_present_master_is_done_already() -> None:
    raw = raw_pools.three()
    uuid = host(raw)[1]['uuid']
    report = master.check(raw_pools.parse(raw), uuid)
    assert report.worst is model.Severity.PASS


def test_stranger_is_refused() -> None:
    report = master.check(raw_pools.parse(raw_pools.three()), 'nobody')
    assert 'no member' in report.failures[0].message


def sharing() -> raw_pools.Raw:
    """Return a pool of three with an SR that all are connected to."""
    raw = raw_pools.three()
    raw_pools.add_sr(raw, 'lun1', list(raw['host']), shared=True)
    for pbd in raw['PBD'].values():
        pbd['device_config']['SCSIid'] = 'a b'
    return raw


def pbd_of(raw: raw_pools.Raw, member: str) -> dict[str, typing.Any]:
    """Return the connection of a member."""
    return next(pbd for pbd in raw['PBD'].values() if pbd['host'] == member)


def test_storage_that_the_new_master_does_not_see() -> None:
    raw = sharing()
    ref, _ = host(raw, master=False)
    pbd = pbd_of(raw, ref)
    pbd['currently_attached'] = False

    report = judge(raw)

    assert report.failures == ()
    [finding] = [
        each for each in report.findings if each.check == 'target-storage'
    ]
    assert finding.severity is model.Severity.WARN
    assert 'lun1' in finding.message
    assert finding.remedy == f"xe pbd-plug uuid={pbd['uuid']}"
    # What the present master does not see, either, changes nothing.
    pbd_of(raw, only(raw, 'pool')['master'])['currently_attached'] = False
    [finding] = [
        each for each in judge(raw).findings if each.check == 'target-storage'
    ]
    assert finding.severity is model.Severity.PASS


def test_storage_without_a_connection_names_the_whole_command() -> None:
    raw = sharing()
    ref, record = host(raw, master=False)
    raw['PBD'] = {
        key: each for key, each in raw['PBD'].items() if each['host'] != ref
    }

    [finding] = [
        each for each in judge(raw).findings if each.check == 'target-storage'
    ]

    assert finding.remedy == (
        f"xe pbd-create sr-uuid=uuid-SR-lun1 host-uuid={record['uuid']} "
        f"device-config:server=127.0.0.99 device-config:SCSIid='a b'"
    )


def test_a_new_master_in_emergency_mode() -> None:
    disarmed = 'HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED'
    (finding,) = judge(raw_pools.three(), emergency=disarmed).failures
    assert 'HA is switched off on it, and on in the pool' in finding.message
    assert 'xe pool-ha-disable' in finding.remedy
    (finding,) = judge(raw_pools.three(), emergency='HOST_BROKEN').failures
    assert 'HOST_BROKEN' in finding.message
