# Licensed under the Apache License, Version 2.0; see LICENSE.
"""XenCenter's rules, and what nobody looks at."""

from __future__ import annotations

from xenpool_driver.preflight.join import case as cases
from xenpool_driver.preflight.join import (
    machines,
    membership,
    security,
    software,
    storage,
    wiring,
)

_ME, _MASTER = cases.ME, cases.MASTER
_BOTH = (*_ME, *_MASTER)

CHECKS: tuple[cases.Check, ...] = (
    cases.Check(
        'joiner-login',
        "the joiner's credentials are accepted",
        security.joiner_login,
    ),
    cases.Check(
        'owner', 'no other aggregate owns one of them', membership.owner, _BOTH
    ),
    cases.Check(
        'old-record',
        'the pool has no record of an older installation of the joiner',
        membership.old_record,
        (*_BOTH, 'pool.host_metrics'),
    ),
    cases.Check(
        'same-pool-uuid',
        'the pools have different uuids',
        membership.same_pool_uuid,
        _BOTH,
    ),
    cases.Check(
        'members-live',
        'every member of the pool is alive',
        membership.members,
        (*_BOTH, 'pool.host_metrics'),
    ),
    cases.Check(
        'pool-size', 'the pool stays within 64 hosts', membership.size, _BOTH
    ),
    cases.Check(
        'duplicate-uuid',
        "the joiner's uuid is its own",
        membership.same_uuid,
        (*_BOTH, 'pool.host_metrics'),
    ),
    cases.Check(
        'duplicate-name',
        "the joiner's name is its own",
        membership.same_name,
        _BOTH,
    ),
    cases.Check(
        'duplicate-address',
        "the joiner's address is its own",
        membership.same_address,
        _BOTH,
    ),
    cases.Check(
        'duplicate-in-batch',
        'the joiner is in the request once',
        membership.same_in_batch,
        _ME,
    ),
    cases.Check(
        'pool-operations',
        'nothing else is going on in the pool',
        membership.pool_operations,
        _MASTER,
    ),
    cases.Check(
        'joiner-operations',
        'nothing is going on on the joiner',
        membership.joiner_operations,
        _ME,
    ),
    cases.Check(
        'joiner-enabled',
        'the joiner is enabled',
        membership.joiner_enabled,
        _ME,
    ),
    cases.Check(
        'joiner-pool-name',
        'the joiner is no pool with a name',
        membership.joiner_pool_name,
        _ME,
    ),
    cases.Check(
        'pool-address',
        "the coordinator's address can be reached",
        wiring.pool_address,
        (*_BOTH, 'joiner.PIF', 'pool.PIF'),
    ),
    cases.Check('clocks', 'the clocks agree', security.clocks, _BOTH),
    cases.Check(
        'certificate-dates',
        'the certificates are valid',
        security.certificates,
        (*_BOTH, 'joiner.Certificate', 'pool.Certificate'),
    ),
    cases.Check(
        'nic-names',
        "the joiner's NICs have the names of the pool's",
        wiring.nic_names,
        (*_BOTH, 'joiner.PIF', 'pool.PIF'),
    ),
    cases.Check(
        'mtu',
        'the MTUs are equal',
        wiring.mtu,
        (
            *_BOTH,
            'joiner.PIF',
            'pool.PIF',
            'joiner.network',
            'pool.network',
        ),
    ),
    cases.Check(
        'pool-vlans',
        "the joiner has the NICs of the pool's VLANs",
        wiring.vlans,
        (*_BOTH, 'joiner.PIF', 'pool.PIF', 'pool.network'),
    ),
    cases.Check(
        'pool-bonds',
        "the pool's bonds can be made of the joiner's NICs",
        wiring.bonds,
        (*_BOTH, 'joiner.PIF', 'pool.PIF', 'pool.Bond'),
    ),
    cases.Check(
        'pool-sriov',
        "the joiner's NICs can serve the pool's SR-IOV networks",
        wiring.sriovs,
        (
            *_BOTH,
            'joiner.PIF',
            'pool.PIF',
            'pool.network_sriov',
            'pool.network',
        ),
    ),
    cases.Check(
        'management-dhcp',
        'the management addresses of joiner and master are fixed',
        wiring.dhcp,
        (*_BOTH, 'joiner.PIF', 'pool.PIF'),
    ),
    cases.Check(
        'management-kind',
        "the joiner's licence allows its kind of management interface",
        wiring.management_kind,
        (*_ME, 'joiner.PIF'),
    ),
    cases.Check(
        'shared-storage-reachable',
        "the joiner reaches the pool's shared storage",
        storage.shared_reachable,
        (
            *_BOTH,
            'joiner.PIF',
            'pool.PIF',
            'pool.SR',
            'pool.PBD',
            'pool.network',
        ),
    ),
    cases.Check(
        'multipathing',
        'multipathing is the same everywhere',
        storage.multipathing,
        (*_BOTH, 'pool.SR'),
    ),
    cases.Check(
        'duplicate-iqn',
        "the joiner's iSCSI name is its own",
        storage.initiators,
        _BOTH,
    ),
    cases.Check(
        'storage-space',
        "the joiner's storage has space",
        storage.fullness,
        (*_ME, 'joiner.SR'),
    ),
    cases.Check(
        'duplicate-storage',
        "the joiner's storage is its own",
        storage.duplicates,
        (*_ME, 'joiner.SR', 'pool.SR'),
    ),
    cases.Check(
        'left-over-domain',
        "the pool has no record of the joiner's control domain",
        machines.left_over_domain,
        (*_BOTH, 'joiner.VM', 'pool.VM'),
    ),
    cases.Check(
        'duplicate-vms',
        "the joiner's virtual machines are its own",
        machines.duplicates,
        (*_ME, 'joiner.VM', 'pool.VM'),
    ),
    cases.Check(
        'suspended-vms',
        'no virtual machine of the joiner is paused or suspended',
        machines.suspended,
        (*_ME, 'joiner.VM'),
    ),
    cases.Check(
        'pci-passthrough',
        'no PCI device is handed through',
        machines.passthrough,
        (*_ME, 'joiner.VM'),
    ),
    cases.Check(
        'supplemental-packs',
        'both have the same supplemental packs',
        software.supplemental_packs,
        _BOTH,
    ),
    cases.Check(
        'synced-updates',
        'both were updated to the same state',
        software.synced_updates,
        _BOTH,
    ),
    cases.Check(
        'cpu-level',
        'the processors have the same features',
        software.cpu_level,
        _BOTH,
    ),
)
"""In the order of the report."""
