# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A freshly installed host's database: what its records look like."""

from __future__ import annotations

import hashlib
import typing

from xenpool_driver.simulator import (
    database,
    errors,
    hardware,
    machine,
    vm_states,
)

INTERNAL_NETWORK = {
    'is_guest_installer_network': 'true',
    'is_host_internal_management_network': 'true',
    'ip_begin': '169.254.0.1',
    'ip_end': '169.254.255.254',
    'netmask': '255.255.0.0',
}
"""other_config of the network on which guests reach their host."""

NO_IPV6 = ['']
"""PIF.IPv6 without an address, once it was written: first boot does so for
the management interface, and so does a bond, a VLAN or a tunnel for its own
(recorded; xapi_pif.ml, reconfigure_ipv6)."""

MOST_CPUS = 8192
"""More threads than any host has: a record may hold any number."""

DOM0_MEMORY = 2 * hardware.GIB
DOM0_VCPUS = 2

SR_OPERATIONS = [
    'unplug',
    'plug',
    'pbd_create',
    'pbd_destroy',
    'forget',
    'vdi_clone',
    'scan',
]

HOST_OPERATIONS = [
    'vm_migrate',
    'provision',
    'vm_resume',
    'enable',
    'evacuate',
    'vm_start',
]

CERTIFICATE_LIFE = 3650 * 86400
"""Seconds that a host's own certificate is valid for."""


def install(target: machine.Machine, db: database.Database) -> None:
    """Fill ``db`` with what an installer and the first start leave.

    The management interface is up and the host enabled; for an ejected
    host, undo that with :func:`unconfigure`.
    """
    pool = _pool(target, db)
    networks = _networks(target, db)
    host = create_host(target, db)
    db.set('pool', pool, master=host)
    for position, nic in enumerate(target.hardware.nics):
        _pif(target, db, host, networks[position], nic, position == 0)
    create_host_parts(target, db, host)
    _storage(target, db, host)
    for kind, features in target.hardware.drivers.items():
        _driver(db, kind, dict(features))


def unconfigure(target: machine.Machine, db: database.Database) -> None:
    """Take back what first boot does: management, and TLS (recorded)."""
    for ref in db.refs('host'):
        db.set('host', ref, address='', tls_verification_enabled=False)
    for ref in db.refs('pool'):
        db.set('pool', ref, tls_verification_enabled=False)
    for ref, pif in db.all('PIF').items():
        if pif['management']:
            db.set(
                'PIF',
                ref,
                management=False,
                currently_attached=False,
                IP='',
                netmask='',
                ip_configuration_mode='None',
            )


def configure(target: machine.Machine, db: database.Database) -> None:
    """Do what first boot does: management, and TLS."""
    host = db.by_uuid('host', target.uuid)
    db.set('host', host, address=target.address)
    for ref, pif in db.all('PIF').items():
        # The first card carries the management; there may be none.
        for nic in target.hardware.nics[:1]:
            if (pif['host'], pif['device']) != (host, nic.device):
                continue
            db.set(
                'PIF',
                ref,
                management=True,
                currently_attached=True,
                IP=target.address,
                netmask=nic.netmask,
                gateway=nic.gateway,
                DNS=nic.dns,
                ip_configuration_mode='Static',
            )
    if target.profile.tls:
        db.set('host', host, tls_verification_enabled=True)
        for ref in db.refs('pool'):
            db.set('pool', ref, tls_verification_enabled=True)


def _pool(target: machine.Machine, db: database.Database) -> str:
    model = db.model
    operations = [
        *model.pool_blocking_operations,
        *sorted(model.pool_waiting_operations),
    ]
    return db.create(
        'pool',
        {
            'allowed_operations': [
                op for op in operations if op != 'ha_disable'
            ],
            'cpu_info': pool_cpu_info([target.hardware.cpu_info]),
            'ha_cluster_stack': 'xhad',
            'other_config': {
                'memory-ratio-hvm': '0.25',
                'memory-ratio-pv': '0.25',
            },
            'restrictions': dict(target.hardware.license_params),
            'tls_verification_enabled': target.profile.tls,
            'wlb_verify_cert': True,
            'default_SR': errors.NULL,
            'crash_dump_SR': errors.NULL,
            'suspend_image_SR': errors.NULL,
        },
    )


def pool_cpu_info(hosts: list[dict[str, str]]) -> dict[str, str]:
    """Return pool.cpu_info over ``hosts``' cpu_info (create_misc.ml).

    Features are levelled down to what all hosts have; counts add up.
    """
    known = [info for info in hosts if 'vendor' in info]
    if not known:
        return {}
    levelled = {
        name: level([i[name] for i in known if name in i])
        for name in ('features_hvm_host', 'features_pv_host')
        if any(name in i for i in known)
    }
    return {
        **levelled,
        **{
            name: str(sum(number(i.get(name, '0')) for i in known))
            for name in ('socket_count', 'cpu_count')
        },
        'vendor': known[0]['vendor'],
    }


def level(features: list[str]) -> str:
    """Return the features that all of ``features`` have in common."""
    words = [_words(text) for text in features]
    common = words[0]
    for other in words[1:]:
        common = [a & b for a, b in zip(common, other, strict=False)]
    return '-'.join(f'{word:08x}' for word in common)


def _words(text: str) -> list[int]:
    """Return a set of features as numbers; what is none has no features."""
    try:
        return [int(word, 16) for word in text.split('-')]
    except ValueError:
        return []


def number(text: str) -> int:
    """Return a number that a record holds as text; 0 for what is none."""
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return 0


def _networks(target: machine.Machine, db: database.Database) -> list[str]:
    """Create the networks; returns those of the cards, in order."""
    db.create(
        'network',
        {
            'name_label': 'Host internal management network',
            'name_description': 'Network on which guests will be assigned a'
            ' private link-local IP address which can be used to talk XenAPI',
            'bridge': 'xenapi',
            'MTU': 1500,
            'managed': True,
            'other_config': dict(INTERNAL_NETWORK),
        },
    )
    return [
        db.create(
            'network',
            {
                'name_label': 'Pool-wide network associated with'
                f' {nic.device}',
                'bridge': f'xenbr{position}',
                'MTU': 1500,
                'managed': True,
            },
        )
        for position, nic in enumerate(target.hardware.nics)
    ]


def create_host(target: machine.Machine, db: database.Database) -> str:
    """Create the host's record, enabled and live."""
    parts = target.hardware
    metrics = db.create(
        'host_metrics',
        {
            'live': True,
            'memory_total': parts.memory,
            'last_updated': db.clock.iso(),
        },
    )
    started = f'{int(db.clock.now())}.'
    iqn = f'iqn.2026-01.example:{target.name}'
    return db.create(
        'host',
        {
            **host_facts(target),
            'name_label': target.name,
            'name_description': 'Default install',
            'enabled': True,
            'metrics': metrics,
            'iscsi_iqn': iqn,
            'other_config': {
                'agent_start_time': started,
                'boot_time': started,
                'iscsi_iqn': iqn,
            },
            'ssl_legacy': False,
            'https_only': False,
            'tls_verification_enabled': target.profile.tls,
            'crash_dump_sr': errors.NULL,
            'suspend_image_sr': errors.NULL,
        },
        uuid=target.uuid,
    )


def host_facts(target: machine.Machine) -> dict[str, typing.Any]:
    """Return the fields of a host that its machine decides."""
    parts = target.hardware
    major, minor = parts.api
    return {
        'API_version_major': major,
        'API_version_minor': minor,
        'API_version_vendor': 'XenSource',
        'address': target.address,
        'allowed_operations': list(HOST_OPERATIONS),
        'capabilities': ['xen-3.0-x86_64', 'hvm-3.0-x86_64'],
        'chipset_info': {'iommu': 'true'},
        'cpu_info': dict(parts.cpu_info),
        'edition': parts.edition,
        'editions': list(parts.editions),
        'hostname': target.name,
        'license_params': dict(parts.license_params),
        'memory_overhead': parts.memory_overhead,
        'sched_policy': 'credit',
        'software_version': dict(parts.software_version),
        'supported_bootloaders': ['pygrub', 'eliloader'],
        'virtual_hardware_platform_versions': [0, 1, 2],
    }


def create_host_parts(
    target: machine.Machine, db: database.Database, host: str
) -> None:
    """Create what hangs on a host: CPUs, certificates, control domain."""
    info = target.hardware.cpu_info
    for thread in range(min(number(info.get('cpu_count', '0')), MOST_CPUS)):
        db.create(
            'host_cpu',
            {
                'host': host,
                'number': thread,
                'vendor': info.get('vendor', ''),
                'speed': number(info.get('speed', '0')),
                'modelname': info.get('modelname', ''),
                'family': number(info.get('family', '0')),
                'model': number(info.get('model', '0')),
                'stepping': info.get('stepping', ''),
                'flags': info.get('flags', ''),
            },
        )
    for kind in ('host', 'host_internal'):
        create_certificate(db, host, kind)
    create_control_domain(target, db, host)


def create_certificate(db: database.Database, host: str, kind: str) -> str:
    """Create a host certificate's record; its prints are made up."""
    seed = db.new_uuid().encode()
    sha256 = _fingerprint(hashlib.sha256(seed).hexdigest())
    return db.create(
        'Certificate',
        {
            'type': kind,
            'host': host,
            'not_before': db.clock.iso(),
            'not_after': db.clock.iso(db.clock.now() + CERTIFICATE_LIFE),
            'fingerprint': sha256,
            'fingerprint_sha256': sha256,
            'fingerprint_sha1': sha256[:59],
        },
    )


def _fingerprint(digits: str) -> str:
    digits = digits.upper()
    return ':'.join(digits[i : i + 2] for i in range(0, len(digits), 2))


def create_control_domain(
    target: machine.Machine, db: database.Database, host: str
) -> str:
    """Create the record of the domain that runs the toolstack."""
    metrics = db.create(
        'VM_metrics',
        {
            'memory_actual': DOM0_MEMORY,
            'VCPUs_number': DOM0_VCPUS,
            'current_domain_type': 'pv',
        },
    )
    vm = db.create(
        'VM',
        {
            'name_label': f'Control domain on host: {target.name}',
            'name_description': 'The domain which manages physical devices'
            ' and manages other domains',
            'power_state': 'Running',
            'actions_after_shutdown': 'destroy',
            'actions_after_reboot': 'destroy',
            'actions_after_crash': 'destroy',
            'is_control_domain': True,
            'resident_on': host,
            'affinity': host,
            'domid': 0,
            'domain_type': 'pv',
            'metrics': metrics,
            'VCPUs_max': DOM0_VCPUS,
            'VCPUs_at_startup': DOM0_VCPUS,
            **dict.fromkeys(
                (
                    'memory_target',
                    'memory_static_max',
                    'memory_static_min',
                    'memory_dynamic_max',
                    'memory_dynamic_min',
                ),
                DOM0_MEMORY,
            ),
        },
        uuid=target.hardware.dom0_uuid,
    )
    db.set('host', host, control_domain=vm)
    vm_states.refresh(db, vm)
    create_consoles(target, db, vm)
    return vm


def create_consoles(
    target: machine.Machine, db: database.Database, vm: str
) -> None:
    """Create a control domain's two consoles."""
    for protocol in ('rfb', 'vt100'):
        console = db.new_ref()
        db.create(
            'console',
            {
                'protocol': protocol,
                'VM': vm,
                'location': f'https://{target.address}/console?ref={console}',
            },
            ref=console,
        )


def _pif(
    target: machine.Machine,
    db: database.Database,
    host: str,
    network: str,
    nic: hardware.Nic,
    management: bool,
) -> str:
    metrics = db.create(
        'PIF_metrics', {'carrier': True, 'speed': 10000, 'duplex': True}
    )
    address = (
        {
            'IP': target.address,
            'netmask': nic.netmask,
            'gateway': nic.gateway,
            'DNS': nic.dns,
            'ip_configuration_mode': 'Static',
            'IPv6': list(NO_IPV6),
        }
        if management
        else {'ip_configuration_mode': 'None'}
    )
    return db.create(
        'PIF',
        {
            'device': nic.device,
            'MAC': nic.mac,
            'MTU': 1500,
            'VLAN': -1,
            'network': network,
            'host': host,
            'physical': True,
            'currently_attached': True,
            'management': management,
            'managed': True,
            'metrics': metrics,
            'properties': {'gro': 'on'},
            'ipv6_configuration_mode': 'None',
            'primary_address_type': 'IPv4',
            'igmp_snooping_status': 'disabled',
            **address,
        },
    )


def _storage(
    target: machine.Machine, db: database.Database, host: str
) -> None:
    """Create the local storage, the drives, the tools and their disks."""
    brand = target.hardware.software_version.get('product_brand', 'XCP-ng')
    if target.hardware.local_disk:
        local = create_sr(
            db, 'Local storage', 'ext', target.hardware.local_disk
        )
        plug(db, host, local, {'device': '/dev/sda3'})
        for ref in db.refs('pool'):
            db.set('pool', ref, default_SR=local)
    for name, content, location in (
        ('DVD drives', 'iso', '/dev/xapi/cd'),
        ('Removable storage', 'disk', '/dev/xapi/block'),
    ):
        sr = create_sr(db, name, 'udev', 0, content_type=content)
        plug(db, host, sr, {'location': location})
    tools = create_sr(
        db,
        f'{brand} Tools',
        'iso',
        0,
        content_type='iso',
        shared=True,
        is_tools_sr=True,
    )
    plug(
        db,
        host,
        tools,
        {'location': '/opt/xensource/packages/iso', 'legacy_mode': 'true'},
    )


def create_sr(
    db: database.Database,
    name: str,
    kind: str,
    size: int,
    **fields: typing.Any,
) -> str:
    """Create a storage repository's record."""
    return db.create(
        'SR',
        {
            'name_label': name,
            'type': kind,
            'content_type': 'user',
            'allowed_operations': list(SR_OPERATIONS),
            'physical_size': size,
            **fields,
        },
    )


def create_vdi(
    db: database.Database, sr: str, name: str, size: int, **fields: typing.Any
) -> str:
    """Create a disk's record on ``sr``."""
    uuid = db.new_uuid()
    return db.create(
        'VDI',
        {
            'name_label': name,
            'SR': sr,
            'virtual_size': size,
            'physical_utilisation': size,
            'type': 'user',
            'managed': True,
            'location': uuid,
            'on_boot': 'persist',
            **fields,
        },
        uuid=uuid,
    )


def plug(
    db: database.Database, host: str, sr: str, config: dict[str, str]
) -> str:
    """Create the plugged record that ties ``host`` to ``sr``."""
    return db.create(
        'PBD',
        {
            'host': host,
            'SR': sr,
            'device_config': config,
            'currently_attached': True,
        },
    )


def _driver(db: database.Database, kind: str, features: dict[str, int]) -> str:
    return db.create(
        'SM',
        {
            'type': kind,
            'name_label': kind,
            'features': features,
            'vendor': 'Citrix Systems Inc',
            'version': '1.0',
            'driver_filename': f'/opt/xensource/sm/{kind}SR',
        },
    )
