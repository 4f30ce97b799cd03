# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a machine is made of: the part that survives a re-installation."""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import typing

from xenpool_driver.simulator import database, profiles

Record = dict[str, typing.Any]

GIB = 1024**3

FEATURES = '1fc9cbf5-f6b83203-2991cbf5-00000123'
"""A set of CPU features, as XAPI writes it."""

RESTRICTIONS = (
    'vswitch_controller',
    'lab',
    'stage',
    'storagelink',
    'storagelink_site_recovery',
    'web_selfservice',
    'web_selfservice_manager',
    'hotfix_apply',
    'export_resource_data',
    'read_caching',
    'cifs',
    'health_check',
    'xcm',
    'vm_memory_introspection',
    'batch_hotfix_apply',
    'management_on_vlan',
    'ws_proxy',
    'cloud_management',
    'nrpe',
    'vlan',
    'qos',
    'pool_attached_storage',
    'netapp',
    'equalogic',
    'pooling',
    'marathon',
    'email_alerting',
    'historical_performance',
    'wlb',
    'rbac',
    'dmc',
    'checkpoint',
    'cpu_masking',
    'connection',
    'vmpr',
    'vmss',
    'intellicache',
    'gpu',
    'dr',
    'vif_locking',
    'storage_xen_motion',
    'vgpu',
    'integrated_gpu_passthrough',
    'vss',
    'guest_agent_auto_update',
    'pci_device_for_auto_update',
    'xen_motion',
    'guest_ip_setting',
    'ad',
    'nested_virt',
    'live_patching',
    'set_vcpus_number_live',
    'pvs_proxy',
    'igmp_snooping',
    'rpu',
    'pool_size',
    'cbt',
    'usb_passthrough',
    'network_sriov',
    'cluster_address',
    'zstd_export',
    'pool_secret_rotation',
    'certificate_verification',
    'updates',
    'internal_repo_access',
    'vtpm',
    'vm_groups',
    'vm_start',
    'vm_appliance_start',
)
"""What a licence may restrict (features.ml)."""

DRIVERS: collections.abc.Mapping[str, collections.abc.Mapping[str, int]] = {
    'ext': {
        'VDI_CREATE': 1,
        'VDI_DELETE': 1,
        'VDI_SNAPSHOT': 2,
        'VDI_CLONE': 2,
        'VDI_RESIZE': 1,
        'VDI_MIRROR': 1,
    },
    'lvm': {
        'VDI_CREATE': 1,
        'VDI_DELETE': 1,
        'VDI_SNAPSHOT': 2,
        'VDI_CLONE': 2,
        'VDI_RESIZE': 1,
        'VDI_MIRROR': 1,
    },
    'nfs': {
        'VDI_CREATE': 1,
        'VDI_DELETE': 1,
        'VDI_SNAPSHOT': 2,
        'VDI_CLONE': 2,
        'SR_CACHING': 1,
        'VDI_GENERATE_CONFIG': 1,
    },
    'lvmoiscsi': {
        'VDI_CREATE': 1,
        'VDI_DELETE': 1,
        'VDI_SNAPSHOT': 2,
        'VDI_CLONE': 2,
        'VDI_GENERATE_CONFIG': 1,
    },
    'iso': {'VDI_CREATE': 1, 'VDI_DELETE': 1},
    'udev': {'VDI_INTRODUCE': 1, 'VDI_UPDATE': 1},
}
"""Storage drivers and their features."""


def license_params(**overrides: str) -> dict[str, str]:
    """Return a licence that restricts nothing but what ``overrides`` say."""
    params = {f'restrict_{name}': 'false' for name in RESTRICTIONS}
    params |= {
        'enable_xha': 'true',
        'platform_filter': 'false',
        'regular_nag_dialog': 'false',
        'restrict_corosync': 'true',
    }
    return params | overrides


def cpu_info(vendor: str = 'GenuineIntel', count: int = 8) -> dict[str, str]:
    """Return host.cpu_info of a machine with ``count`` threads."""
    return {
        'cpu_count': str(count),
        'socket_count': '1',
        'threads_per_core': '2',
        'nr_nodes': '1',
        'vendor': vendor,
        'speed': '2400.000',
        'modelname': 'Simulated CPU @ 2.40GHz',
        'family': '6',
        'model': '85',
        'stepping': '7',
        'flags': 'fpu vmx',
        'features_pv': FEATURES,
        'features_hvm': FEATURES,
        'features_hvm_host': FEATURES,
        'features_pv_host': FEATURES,
    }


@dataclasses.dataclass(frozen=True)
class Nic:
    """A network card, and how it is addressed when it has an address."""

    device: str
    mac: str
    netmask: str = '255.0.0.0'
    gateway: str = ''
    dns: str = ''


@dataclasses.dataclass(frozen=True)
class Hardware:
    """A machine's parts, and what is installed on it.

    :param dom0_uuid: of the control domain; the inventory file keeps it.
    :param nics: the first carries the management.
    :param local_disk: bytes; 0: without local storage.
    """

    dom0_uuid: str
    nics: tuple[Nic, ...]
    cpu_info: dict[str, str]
    software_version: dict[str, str]
    license_params: dict[str, str]
    api: tuple[int, int] = (2, 23)
    edition: str = 'xcp-ng'
    editions: tuple[str, ...] = ('xcp-ng',)
    memory: int = 64 * GIB
    memory_overhead: int = 4 * GIB
    local_disk: int = 220 * GIB
    drivers: collections.abc.Mapping[
        str, collections.abc.Mapping[str, int]
    ] = dataclasses.field(default_factory=lambda: DRIVERS)


def make(
    profile: profiles.Profile, number: int, dom0_uuid: str, nics: int = 2
) -> Hardware:
    """Return the ``number``-th of many equal machines.

    :param number: decides the MAC addresses.
    """
    cards = tuple(
        Nic(
            f'eth{i}', f'02:00:{number >> 8:02x}:{number & 255:02x}:00:{i:02x}'
        )
        for i in range(nics)
    )
    return Hardware(
        dom0_uuid=dom0_uuid,
        nics=cards,
        cpu_info=cpu_info(),
        software_version=profile.software_version,
        license_params=license_params(),
        api=profile.api,
        edition=profile.editions[0],
        editions=profile.editions,
    )


def of_records(db: database.Database, host: str) -> Hardware:
    """Return what the records of ``host`` tell of its machine."""
    record = db.get('host', host)
    dom0 = db.find('VM', record['control_domain'])
    metrics = db.find('host_metrics', record['metrics'])
    return Hardware(
        dom0_uuid=db.new_uuid() if dom0 is None else dom0['uuid'],
        nics=_nics(db, host),
        cpu_info=dict(record['cpu_info']),
        software_version=dict(record['software_version']),
        license_params=dict(record['license_params']),
        api=(record['API_version_major'], record['API_version_minor']),
        edition=record['edition'],
        editions=tuple(record['editions']),
        memory=64 * GIB if metrics is None else metrics['memory_total'],
        memory_overhead=record['memory_overhead'],
        local_disk=_local_disk(db, host),
        drivers={
            sm['type']: copy.copy(sm['features'])
            for sm in db.all('SM').values()
        },
    )


def _nics(db: database.Database, host: str) -> tuple[Nic, ...]:
    pifs = [
        pif
        for pif in db.all('PIF').values()
        if pif['host'] == host and pif['physical']
    ]
    pifs.sort(key=lambda pif: (not pif['management'], pif['device']))
    return tuple(
        Nic(p['device'], p['MAC'], p['netmask'], p['gateway'], p['DNS'])
        for p in pifs
    )


def _local_disk(db: database.Database, host: str) -> int:
    """Return the size of the storage that a re-installation would make."""
    for pbd in db.all('PBD').values():
        sr = db.find('SR', pbd['SR'])
        if pbd['host'] != host or sr is None or sr['shared']:
            continue
        if sr['type'] in {'ext', 'lvm'}:
            return int(sr['physical_size'])
    return 0
