# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What an eject meets, and what it would destroy."""

from __future__ import annotations

import typing

import pytest

from tests.unit import raw_pools
from xenpool_driver import model
from xenpool_driver.preflight import eject

only, host, add = raw_pools.only, raw_pools.host, raw_pools.add


def leaving(raw: raw_pools.Raw) -> tuple[str, str]:
    """Return the reference and uuid of the member that shall leave."""
    ref, record = host(raw, master=False)
    return ref, record['uuid']


def judge(raw: raw_pools.Raw, **options: typing.Any) -> model.Report:
    return eject.check(raw_pools.parse(raw), leaving(raw)[1], **options)


def with_data(raw: raw_pools.Raw) -> None:
    """Give the member a local SR with one disk of a halted VM."""
    ref, _ = leaving(raw)
    sr = raw_pools.add_sr(raw, 'Local storage', [ref])
    disk = add(
        raw,
        'VDI',
        'db',
        name_label='database',
        SR=sr,
        virtual_size=str(20 * 1024**3),
    )
    vm = add(raw, 'VM', 'db', name_label='db1', power_state='Halted')
    add(raw, 'VBD', 'db', VM=vm, VDI=disk)


def test_nothing_speaks_against_an_empty_member() -> None:
    report = judge(raw_pools.three())
    assert report.worst is model.Severity.PASS


@pytest.mark.parametrize(
    ('what', 'expected'),
    [
        ('ha', ('HA_IS_ENABLED',)),
        ('master', ('INTERNAL_ERROR', 'Xapi_pool.Cannot_eject_master')),
        ('updates', ('NOT_SUPPORTED_DURING_UPGRADE',)),
        ('paused', ('OPERATION_NOT_ALLOWED', 'VM resident on host')),
        ('secret', ('POOL_SECRET_ROTATION_PENDING',)),
    ],
)
def test_first_refusal_is_xapis(what: str, expected: tuple[str, ...]) -> None:
    raw = raw_pools.three()
    ref, uuid = leaving(raw)
    pool = only(raw, 'pool')
    if what == 'ha':
        pool['ha_enabled'] = True
    elif what == 'master':
        pool['ha_enabled'] = True
        uuid = host(raw)[1]['uuid']
    elif what == 'updates':
        pool['current_operations'] = {'OpaqueRef:t': 'apply_updates'}
        # Newer ones wait, for hours.
        host(raw)[1]['software_version']['xapi_build'] = '1.302.0'
    elif what == 'secret':
        pool['is_psr_pending'] = True
    else:
        add(raw, 'VM', 'p', power_state='Paused', resident_on=ref)
    report = eject.check(raw_pools.parse(raw), uuid)
    assert report.first_refusal == expected


def test_dead_member_cannot_eject_itself() -> None:
    raw = raw_pools.three()
    ref, _ = leaving(raw)
    raw['host_metrics'][raw['host'][ref]['metrics']]['live'] = False
    report = judge(raw)
    assert report.first_refusal == ('HOST_OFFLINE', ref)
    assert '--forget' in report.failures[0].remedy


def test_residents_are_named_and_can_be_drained() -> None:
    raw = raw_pools.three()
    ref, _ = leaving(raw)
    for name in ('web', 'mail'):
        add(
            raw,
            'VM',
            name,
            name_label=name,
            power_state='Running',
            resident_on=ref,
        )
    (finding,) = judge(raw).failures
    assert 'web (running), mail (running)' in finding.message
    assert {o.name for o in finding.objects} == {'web', 'mail'}
    assert judge(raw, drain=True).failures == ()
    assert judge(raw, drain=True).worst is model.Severity.WARN


def test_every_disk_that_would_be_lost_is_named_with_its_size() -> None:
    raw = raw_pools.three()
    with_data(raw)
    lost = [f for f in judge(raw).findings if f.check == 'data-loss']
    assert [f.severity for f in lost] == [model.Severity.FAIL] * 2
    assert 'Local storage' in lost[0].message
    assert 'database (20.0 GiB)' in lost[1].message
    assert [o.cls for f in lost for o in f.objects] == ['SR', 'VDI']
    (left,) = [f for f in judge(raw).findings if f.check == 'dangling-vms']
    assert 'db1' in left.message
    agreed = judge(raw, allow_data_loss=True)
    assert agreed.failures == ()
    assert agreed.worst is model.Severity.WARN


def test_storage_that_others_share_stays() -> None:
    raw = raw_pools.three()
    raw_pools.add_sr(raw, 'nfs', list(raw['host']), shared=True)
    assert judge(raw).worst is model.Severity.PASS


def test_shared_storage_of_this_host_alone_is_forgotten_not_wiped() -> None:
    raw = raw_pools.three()
    raw_pools.add_sr(raw, 'nfs', [leaving(raw)[0]], shared=True)
    report = judge(raw)
    assert report.failures == ()
    (finding,) = [f for f in report.findings if f.severity.rank]
    assert finding.check == 'forgotten-storage'


def test_storage_in_use_by_the_control_domain() -> None:
    raw = raw_pools.three()
    ref, _ = leaving(raw)
    sr = raw_pools.add_sr(raw, 'nfs', list(raw['host']), shared=True)
    disk = add(raw, 'VDI', 'd', name_label='cache', SR=sr)
    add(
        raw,
        'VBD',
        'd',
        VDI=disk,
        VM=raw['host'][ref]['control_domain'],
        currently_attached=True,
    )
    (finding,) = judge(raw).failures
    assert finding.check == 'storage-in-use'
    assert 'cache' in finding.message


def test_disks_that_could_not_be_read_are_unknown() -> None:
    raw = raw_pools.three()
    del raw['VDI']
    report = judge(raw)
    (finding,) = [f for f in report.findings if f.check == 'data-loss']
    assert finding.severity is model.Severity.UNKNOWN


def test_absent_host_is_done_already() -> None:
    report = eject.check(raw_pools.parse(raw_pools.three()), 'nobody')
    assert report.worst is model.Severity.PASS


def test_ha_that_will_be_suspended_is_no_refusal() -> None:
    raw = raw_pools.three()
    only(raw, 'pool')['ha_enabled'] = True
    assert judge(raw, suspend_ha=True).failures == ()


def test_forgetting_a_dead_host() -> None:
    raw = raw_pools.three()
    ref, uuid = leaving(raw)
    live = eject.check_forget(raw_pools.parse(raw), uuid)
    assert live.worst is model.Severity.WARN
    raw['host_metrics'][raw['host'][ref]['metrics']]['live'] = False
    assert (
        eject.check_forget(raw_pools.parse(raw), uuid).worst
        is model.Severity.PASS
    )
    add(raw, 'VM', 'w', power_state='Running', resident_on=ref)
    report = eject.check_forget(raw_pools.parse(raw), uuid)
    assert report.first_refusal == ('HOST_HAS_RESIDENT_VMS', ref)


def test_master_is_never_forgotten() -> None:
    raw = raw_pools.three()
    ref, record = host(raw)
    report = eject.check_forget(raw_pools.parse(raw), record['uuid'])
    assert report.first_refusal == ('HOST_IS_LIVE', ref)
