# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What an eject meets, and what it would destroy."""

from __future__ import annotations

import shlex
import typing

import pytest

from tests import xe
from tests.unit import raw_pools
from xenpool_driver import model
from xenpool_driver.preflight import eject, evacuation, forget

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


def found(report: model.Report, check: str) -> list[model.Finding]:
    """Return what a check found; each remedy is one that xe takes."""
    for finding in report.findings:
        for line in finding.remedy.split('; '):
            if line.startswith('xe '):
                assert xe.complaints(shlex.split(line)) == [], line
    return [f for f in report.findings if f.check == check and f.message]


def test_disks_have_a_way_out_that_fits_their_machine() -> None:
    """``VDI.pool_migrate`` takes only disks of running machines."""
    raw = raw_pools.three()
    with_data(raw)
    sr = next(ref for ref in raw['SR'] if raw['SR'][ref]['type'] == 'ext')
    add(raw, 'VDI', 'loose', name_label='loose', SR=sr, virtual_size='5')
    nfs = raw_pools.add_sr(raw, 'nfs', list(raw['host']), shared=True)
    raw['SR'][nfs]['physical_size'] = str(100 * 1024**3)
    home, disk, loose = found(judge(raw), 'data-loss')
    assert home.remedy == (
        'move its disks to shared storage first, or repeat with --yes'
    )
    assert disk.remedy == (
        "xe vm-copy uuid=uuid-VM-db sr-uuid=uuid-SR-nfs "
        "new-name-label='db1 copy'"
    )
    assert loose.remedy == (
        'xe vdi-copy uuid=uuid-VDI-loose sr-uuid=uuid-SR-nfs'
    )
    raw['SR'][nfs]['physical_size'] = '100'
    _, disk, loose = found(judge(raw), 'data-loss')
    assert disk.remedy.startswith('xe vdi-export uuid=uuid-VDI-db filename=')
    agreed = found(judge(raw, allow_data_loss=True), 'data-loss')
    assert '--yes' not in agreed[0].remedy


def test_a_disk_that_is_attached_is_not_copied() -> None:
    """A machine that sleeps keeps its disks; XAPI says VDI_IN_USE."""
    raw = raw_pools.three()
    with_data(raw)
    for vbd in raw['VBD'].values():
        vbd['currently_attached'] = True
    machine = next(
        vm for vm in raw['VM'].values() if vm['uuid'].endswith('db')
    )
    nfs = raw_pools.add_sr(raw, 'nfs', list(raw['host']), shared=True)
    remedies = {}
    for size in (100 * 1024**3, 100):
        raw['SR'][nfs]['physical_size'] = str(size)
        for state in ('Suspended', 'Running'):
            machine['power_state'] = state
            _, disk = found(judge(raw), 'data-loss')
            remedies[size > 100, state] = disk.remedy
    move = 'xe vdi-pool-migrate uuid=uuid-VDI-db sr-uuid=uuid-SR-nfs'
    assert remedies[True, 'Running'] == move
    wake = 'xe vm-resume uuid=uuid-VM-db; '
    assert remedies[True, 'Suspended'] == wake + move
    halt = 'xe vm-shutdown uuid=uuid-VM-db; xe vdi-export uuid=uuid-VDI-db '
    assert remedies[False, 'Running'].startswith(halt)
    assert remedies[False, 'Suspended'].startswith(wake + halt)


def test_the_pools_default_storage_that_goes_is_named() -> None:
    raw = raw_pools.three()
    with_data(raw)
    sr = next(ref for ref in raw['SR'] if raw['SR'][ref]['type'] == 'ext')
    raw_pools.add_sr(raw, 'nfs', list(raw['host']), shared=True)
    pool = only(raw, 'pool')
    pool.update(default_SR=sr, suspend_image_SR=sr, crash_dump_SR=sr)
    _, master = host(raw)
    master['suspend_image_sr'] = sr
    pool_role, host_role = found(judge(raw), 'storage-roles')
    assert pool_role.severity is model.Severity.WARN
    assert pool_role.message.startswith(
        'Local storage is the default SR and the SR for suspend images and '
        'the SR for crash dumps of the pool '
    )
    assert pool_role.remedy == (
        f"xe pool-param-set uuid={pool['uuid']} default-SR=uuid-SR-nfs "
        f"suspend-image-SR=uuid-SR-nfs crash-dump-SR=uuid-SR-nfs"
    )
    assert {o.cls for o in pool_role.objects} == {'SR', 'pool'}
    assert host_role.remedy == (
        f"xe host-param-set uuid={master['uuid']} "
        f"suspend-image-sr-uuid=uuid-SR-nfs"
    )


def test_default_storage_that_stays_is_no_matter() -> None:
    raw = raw_pools.three()
    with_data(raw)
    nfs = raw_pools.add_sr(raw, 'nfs', list(raw['host']), shared=True)
    only(raw, 'pool')['default_SR'] = nfs
    (finding,) = found(judge(raw), 'storage-roles')
    assert finding.severity is model.Severity.PASS


def test_a_suspended_machine_whose_memory_lies_there() -> None:
    raw = raw_pools.three()
    sr = raw_pools.add_sr(raw, 'scratch', [leaving(raw)[0]])
    image = add(raw, 'VDI', 'image', name_label='Suspend image', SR=sr)
    add(
        raw,
        'VM',
        'sleeper',
        name_label='sleeper',
        power_state='Suspended',
        suspend_VDI=image,
    )
    (finding,) = found(judge(raw), 'suspended-vms')
    assert 'sleeper would lose its memory' in finding.message
    assert 'on scratch' in finding.message
    assert finding.remedy == (
        'xe vm-resume uuid=uuid-VM-sleeper; xe vm-shutdown '
        'uuid=uuid-VM-sleeper'
    )
    assert [o.cls for o in finding.objects] == ['VM', 'VDI', 'SR']
    _, disk = found(judge(raw), 'data-loss')
    assert disk.remedy == finding.remedy


def test_an_iso_library_of_its_own_goes_with_the_host() -> None:
    raw = raw_pools.three()
    sr = raw_pools.add_sr(raw, 'isos', [leaving(raw)[0]])
    raw['SR'][sr].update(type='iso', content_type='iso')
    raw['PBD']['OpaqueRef:PBD-isos-0']['device_config'] = {
        'location': '/opt/iso'
    }
    disc = add(raw, 'VDI', 'disc', name_label='install.iso', SR=sr)
    vm = add(raw, 'VM', 'web', name_label='web', power_state='Halted')
    add(raw, 'VBD', 'cd', VM=vm, VDI=disc, type='CD')
    (finding,) = found(judge(raw), 'iso-libraries')
    assert 'ISO library isos' in finding.message
    assert '1 image (in the drives of web)' in finding.message
    assert '/opt/iso' in finding.remedy
    assert finding.severity is model.Severity.WARN
    (kept,) = found(judge(raw), 'data-loss')
    assert kept.severity is model.Severity.PASS
    raw['SR'][sr]['type'] = 'udev'
    (drive,) = found(judge(raw), 'iso-libraries')
    assert drive.severity is model.Severity.PASS


@pytest.mark.parametrize(
    'where',
    [
        {'location': '//192.0.2.9/iso', 'type': 'cifs', 'username': 'a b'},
        {'location': '192.0.2.9:/srv/iso', 'type': 'nfs_iso'},
        {'location': '[2001:db8::9]:/srv/iso', 'type': 'nfs_iso'},
    ],
)
def test_an_iso_library_on_a_server_is_not_lost(where: dict[str, str]) -> None:
    raw = raw_pools.three()
    sr = raw_pools.add_sr(raw, 'my isos', [leaving(raw)[0]])
    raw['SR'][sr].update(type='iso', content_type='iso')
    raw['PBD']['OpaqueRef:PBD-my isos-0']['device_config'] = {
        **where,
        'cifspassword': 'hidden',
    }
    (finding,) = found(judge(raw), 'iso-libraries')
    place = where['location']
    assert f"its files stay on their server, {place}" in finding.message
    assert 'scp' not in finding.remedy
    assert 'hidden' not in finding.remedy
    typed = shlex.split(finding.remedy.partition('left: ')[2])
    assert xe.complaints(typed) == []
    assert 'name-label=my isos' in typed
    assert 'shared=true' in typed
    for key, value in where.items():
        assert f"device-config:{key}={value}" in typed


def test_replicas_of_xostor_are_not_moved() -> None:
    raw = raw_pools.three()
    sr = raw_pools.add_sr(raw, 'XOSTOR', list(raw['host']), shared=True)
    raw['SR'][sr]['type'] = 'linstor'
    (finding,) = found(judge(raw), 'xostor-replicas')
    node = raw['host'][leaving(raw)[0]]['hostname']
    assert finding.severity is model.Severity.WARN
    assert f"linstor node evacuate {node}" in finding.remedy
    assert f"linstor node delete {node}" in finding.remedy


def test_a_master_that_hands_over_first_may_leave() -> None:
    raw = raw_pools.three()
    _, master = host(raw)
    _, member = host(raw, master=False)
    parsed = raw_pools.parse(raw)
    report = eject.check(parsed, master['uuid'], successor=member['uuid'])
    assert report.failures == ()
    (finding,) = found(report, 'not-master')
    assert 'hands it over first' in finding.message
    itself = eject.check(parsed, master['uuid'], successor=master['uuid'])
    assert [f.check for f in itself.failures] == ['not-master']


ERRORS: dict[str, tuple[tuple[str, ...], str, str]] = {
    'network': (
        ('VM_REQUIRES_NETWORK', 'OpaqueRef:VM-w', 'OpaqueRef:network-dmz'),
        "on network 'dmz'",
        'vm-shutdown',
    ),
    'tools': (
        ('VM_LACKS_FEATURE', 'OpaqueRef:VM-w'),
        'no guest tools',
        'vm-shutdown',
    ),
    'PCI': (
        ('VM_HAS_PCI_ATTACHED', 'OpaqueRef:VM-w'),
        'owns a PCI device',
        'vm-shutdown',
    ),
    'HA': (
        ('HOST_EVACUATE_VM_NOT_HA_PROTECTED', 'OpaqueRef:VM-w'),
        'not protected by HA',
        '--suspend-ha',
    ),
    'shelf': (
        ('VM_REQUIRES_SR', 'OpaqueRef:VM-w', 'OpaqueRef:SR-nfs'),
        'nfs, which is not plugged on every other host',
        'xe pbd-plug uuid=uuid-PBD-nfs-',
    ),
    'a class not read': (
        ('VM_REQUIRES_GPU', 'OpaqueRef:VM-w', 'OpaqueRef:GPU_group-a'),
        'web cannot move (VM_REQUIRES_GPU)',
        'vm-shutdown',
    ),
    'unheard of': (
        ('SOMETHING_NEW', 'OpaqueRef:VM-w', 'OpaqueRef:SR-nfs'),
        'web cannot move: nfs (SOMETHING_NEW)',
        'vm-shutdown',
    ),
}


@pytest.mark.parametrize('what', ERRORS)
def test_what_keeps_a_machine_there_is_told_in_names(what: str) -> None:
    error, message, remedy = ERRORS[what]
    raw = raw_pools.three()
    ref, _ = leaving(raw)
    vm = add(
        raw,
        'VM',
        'w',
        name_label='web',
        power_state='Running',
        resident_on=ref,
    )
    add(raw, 'network', 'dmz', name_label='dmz')
    nfs = raw_pools.add_sr(raw, 'nfs', list(raw['host']), shared=True)
    for pbd in raw['PBD'].values():
        if pbd['SR'] == nfs and pbd['host'] != ref:
            pbd['currently_attached'] = False
    stuck = evacuation.Evacuation({vm: error})
    report = judge(raw, drain=True, stuck=stuck)
    (finding,) = found(report, 'evacuation')
    assert finding.severity is model.Severity.FAIL
    assert finding.predicts == error
    assert message in finding.message
    assert remedy in finding.remedy
    assert 'OpaqueRef' not in finding.message + finding.remedy
    assert judge(raw, stuck=stuck).failures[0].check == 'resident-vms'
    suspended = judge(raw, drain=True, stuck=stuck, suspend_ha=True)
    assert bool(suspended.failures) is (what != 'HA')


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
    live = forget.check(raw_pools.parse(raw), uuid)
    assert live.worst is model.Severity.WARN
    raw['host_metrics'][raw['host'][ref]['metrics']]['live'] = False
    assert (
        forget.check(raw_pools.parse(raw), uuid).worst is model.Severity.PASS
    )
    add(raw, 'VM', 'w', power_state='Running', resident_on=ref)
    report = forget.check(raw_pools.parse(raw), uuid)
    assert report.first_refusal == ('HOST_HAS_RESIDENT_VMS', ref)


def test_master_is_never_forgotten() -> None:
    raw = raw_pools.three()
    ref, record = host(raw)
    report = forget.check(raw_pools.parse(raw), record['uuid'])
    assert report.first_refusal == ('HOST_IS_LIVE', ref)
