# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Networks: XAPI's own rules."""

from __future__ import annotations

import collections.abc

from xenpool_driver import bonding, findings, model, objects, snapshot
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases
from xenpool_driver.preflight.join import rewiring

_NBD = ('nbd', 'insecure_nbd')

_NOT_FOUND = ('INTERNAL_ERROR', 'Not_found')
"""What the coordinator answers when it has no management interface."""


def management_interface(case: cases.JoinCase) -> check.Problems:
    """Rule 2: ``assert_management_interface_exists``."""
    if case.joiner.management_pif(case.me) is None:
        yield check.Problem(
            f"{case.me.name} has no management interface; it may still be in "
            f"its first boot",
            f"wait for the first boot, or on {case.me.name}: "
            f"{rewiring.management_candidate(case.joiner, case.me)}",
            ('HOST_STILL_BOOTING',),
            findings.at_fault(case.me),
        )


def joiner_clustering(case: cases.JoinCase) -> check.Problems:
    """Rule 4: ``clustering_is_not_enabled_on_me``."""
    for part in case.joiner.cluster_hosts.values():
        if part.host == case.me.ref and part.enabled:
            yield check.Problem(
                f"{case.me.name} is part of a storage cluster",
                f"on {case.me.name}: {_leaving(case.joiner, part)}",
                ('CLUSTERING_ENABLED', part.ref),
                findings.at_fault(part, name=case.me.name),
            )


def _leaving(records: snapshot.PoolSnapshot, part: objects.ClusterHost) -> str:
    cluster = records.clusters.get(part.cluster) if part.cluster else None
    if cluster is None:
        return 'xe cluster-list (shows the cluster to destroy)'
    return f"xe cluster-pool-destroy cluster-uuid={cluster.uuid}"


def _cluster_pif(case: cases.JoinCase) -> objects.Pif | None:
    """Return the interface of the pool's cluster that a joiner must join."""
    part = next(iter(case.pool.cluster_hosts.values()), None)
    if part is None or not part.cluster or not part.pif:
        return None
    cluster = case.pool.clusters.get(part.cluster)
    if cluster is None or not cluster.pool_auto_join:
        return None
    return case.pool.pifs.get(part.pif)


def cluster_vlan(case: cases.JoinCase) -> check.Problems:
    """Rule 5: the pool's cluster is on a VLAN that is not management."""
    pif = _cluster_pif(case)
    if pif is None or pif.vlan <= 0 or pif.management:
        return
    message = (
        f"the storage cluster of {case.pool.name} runs over the VLAN "
        f"{pif.vlan} ({pif.name}), which a joining host has not yet"
    )
    remedy = (
        f"move the cluster of {case.master.name} to a network without VLAN, "
        f"or switch off its joining of hosts by itself"
    )
    yield check.Problem(
        message,
        remedy,
        (
            'POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK',
            str(pif.vlan),
        ),
        findings.at_fault(pif),
    )


def cluster_address(case: cases.JoinCase) -> check.Problems:
    """Rule 5b: exactly one address on the bridges of the pool's cluster."""
    pif = _cluster_pif(case)
    if pif is None or (pif.vlan > 0 and not pif.management):
        return
    bridges = set(_cluster_bridges(case.pool, pif))
    found = [
        mine
        for mine in case.joiner.pifs_of(case.me)
        if mine.ip and case.joiner.bridge_of(mine) in bridges
    ]
    if len(found) == 1:
        return
    message = (
        f"{case.me.name} has {len(found)} addresses on the network of the "
        f"pool's storage cluster ({findings.listed(sorted(bridges))}); it "
        f"must have one"
    )
    remedy = _cluster_remedy(case, pif, bridges, found)
    at_fault = findings.at_fault(pif, *found)
    yield check.Problem(
        message,
        remedy,
        ('POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK',),
        at_fault,
    )


def _cluster_remedy(
    case: cases.JoinCase,
    pif: objects.Pif,
    bridges: collections.abc.Container[str],
    found: list[objects.Pif],
) -> str:
    """Return how the joiner gets one address there, and one only."""
    if found:
        stays = next((one for one in found if one.management), found[0])
        return f"on {case.me.name}: " + findings.in_order(
            bonding.without_address(one) for one in found if one is not stays
        )
    there = next(
        (
            mine
            for mine in case.joiner.pifs_of(case.me)
            if case.joiner.bridge_of(mine) in bridges
        ),
        None,
    )
    if there is None:
        return (
            f"cable it, and see on {case.me.name}: "
            f"xe pif-scan host-uuid={case.me.uuid}"
        )
    # a cluster has IPv4 addresses only: what is asked for is the field IP
    taken = rewiring.addresses(case.joiner, case.pool, *case.batch)
    giving = rewiring.with_address(there, pif, 'IPv4', taken)
    return f"on {case.me.name}: {giving}"


def _cluster_bridges(
    records: snapshot.PoolSnapshot, pif: objects.Pif
) -> collections.abc.Iterator[str]:
    slaves = [
        slave
        for bond in records.bonds
        if bond.ref in pif.bond_master_of
        for slave in bond.slaves
    ]
    for ref in slaves or [pif.ref]:
        found = records.pifs.get(ref)
        if found is not None:
            yield records.bridge_of(found)


def bonds(case: cases.JoinCase) -> check.Problems:
    """Rule 15: ``assert_no_bonds_on_me``."""
    found = case.joiner.bonds
    if found:
        yield check.Problem(
            f"{case.me.name} has bonds: "
            + findings.listed(_device(case.joiner, b.master) for b in found),
            f"on {case.me.name}: "
            + _destroying('bond', found)
            + ' (a member gets the bonds of the pool)',
            ('POOL_JOINING_HOST_HAS_BONDS',),
            _links(case.joiner, ((b, b.master) for b in found)),
        )


def tunnels(case: cases.JoinCase) -> check.Problems:
    """Rule 16: ``assert_no_tunnels_on_me``."""
    found = case.joiner.tunnels
    if found:
        yield check.Problem(
            f"{case.me.name} has tunnels: "
            + findings.listed(
                _device(case.joiner, t.access_pif) for t in found
            ),
            f"on {case.me.name}: " + _destroying('tunnel', found),
            ('POOL_JOINING_HOST_HAS_TUNNELS',),
            _links(case.joiner, ((t, t.access_pif) for t in found)),
        )


def sriovs(case: cases.JoinCase) -> check.Problems:
    """Rule 17: ``assert_no_network_sriovs_on_me``."""
    found = case.joiner.sriovs
    if found:
        yield check.Problem(
            f"{case.me.name} has SR-IOV networks: "
            + findings.listed(
                _device(case.joiner, s.logical_pif) for s in found
            ),
            f"on {case.me.name}: " + _destroying('network-sriov', found),
            ('POOL_JOINING_HOST_HAS_NETWORK_SRIOVS',),
            _links(case.joiner, ((s, s.logical_pif) for s in found)),
        )


def vlans(case: cases.JoinCase) -> check.Problems:
    """Rule 18: ``assert_no_non_management_vlans_on_me``.

    What counts is the VLAN's own interface (``untagged_PIF``): a plain VLAN
    on top of the management NIC is refused too.
    """
    found = [
        vlan
        for vlan in case.joiner.vlans
        if not _is_management(case.joiner, vlan.untagged_pif)
    ]
    if found:
        yield check.Problem(
            f"{case.me.name} has VLANs that do not carry its management: "
            + findings.listed(
                _device(case.joiner, v.untagged_pif) for v in found
            ),
            f"on {case.me.name}: "
            + _destroying('vlan', found)
            + ' (a member gets the VLANs of the pool)',
            ('POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS',),
            _links(case.joiner, ((v, v.untagged_pif) for v in found)),
        )


def _destroying(
    kind: str, found: collections.abc.Sequence[objects.Record]
) -> str:
    """Return the commands that destroy records, or that tell which.

    :param kind: what ``xe`` calls them. Where only their PIFs were read,
        their uuids are not known.
    """
    if not all(record.uuid for record in found):
        return f"xe {kind}-list (shows what has to be destroyed)"
    return findings.in_order(
        f"xe {kind}-destroy uuid={record.uuid}" for record in found
    )


def _device(records: snapshot.PoolSnapshot, ref: str | None) -> str:
    pif = records.pifs.get(ref) if ref else None
    return pif.name if pif else 'an interface without record'


def _is_management(records: snapshot.PoolSnapshot, ref: str | None) -> bool:
    pif = records.pifs.get(ref) if ref else None
    return pif is not None and pif.management


def _links(
    records: snapshot.PoolSnapshot,
    found: collections.abc.Iterable[tuple[objects.Record, str | None]],
) -> tuple[model.ObjectRef, ...]:
    return tuple(
        ref
        for record, pif in found
        for ref in findings.at_fault(record, name=_device(records, pif))
    )


def management_vlan(case: cases.JoinCase) -> check.Problems:
    """Rule 19: ``assert_management_vlan_are_same``."""
    mine, theirs = _management(case)
    if mine is None:
        yield check.undecided(
            f"the management VLAN of {case.me.name} cannot be compared: it "
            f"has no management interface"
        )
    elif theirs is None:
        yield _no_remote_management(case)
    elif mine.vlan != theirs.vlan:
        yield check.Problem(
            f"the management of {case.me.name} is {_tagged(mine)}, that of "
            f"the pool {_tagged(theirs)}",
            f"on {case.me.name}: "
            f"{rewiring.onto(mine, mine.device, theirs.vlan)}",
            (
                'POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH',
                str(mine.vlan),
                str(theirs.vlan),
            ),
            findings.at_fault(mine, theirs),
        )


def _tagged(pif: objects.Pif) -> str:
    return 'untagged' if pif.vlan < 0 else f"on VLAN {pif.vlan}"


def _management(
    case: cases.JoinCase,
) -> tuple[objects.Pif | None, objects.Pif | None]:
    return (
        case.joiner.management_pif(case.me),
        case.pool.management_pif(case.master),
    )


def _no_remote_management(case: cases.JoinCase) -> check.Problem:
    return check.Problem(
        f"the coordinator {case.master.name} has no management interface in "
        f"its records",
        f"on {case.master.name}: "
        f"{rewiring.management_candidate(case.pool, case.master)}",
        _NOT_FOUND,
        findings.at_fault(case.master),
    )


def address_type(case: cases.JoinCase) -> check.Problems:
    """Rule 26: ``assert_homogeneous_primary_address_type``."""
    mine, theirs = _management(case)
    if mine is None:
        yield check.undecided(
            f"the address type of {case.me.name} cannot be compared: it has "
            f"no management interface"
        )
    elif theirs is None:
        yield _no_remote_management(case)
    elif mine.primary_address_type != theirs.primary_address_type:
        taken = rewiring.addresses(case.joiner, case.pool, *case.batch)
        yield check.Problem(
            f"the management of {case.me.name} uses "
            f"{mine.primary_address_type}, that of the pool "
            f"{theirs.primary_address_type}",
            f"on {case.me.name}: {rewiring.to_family(mine, theirs, taken)}",
            ('OPERATION_NOT_ALLOWED', 'Primary address type differs'),
            findings.at_fault(mine, theirs),
        )


def _backend(host: objects.Host) -> str:
    return host.software_version.get('network_backend', 'bridge')


def backend(case: cases.JoinCase) -> check.Problems:
    """Rule 22: ``assert_homogeneous_vswitch_configuration``.

    XAPI asks the joiner's network daemon; its record stands in for it.
    """
    mine, theirs = _backend(case.me), _backend(case.master)
    if mine != theirs:
        yield check.Problem(
            f"{case.me.name} switches its networks with {mine}, the pool "
            f"with {theirs}",
            f"on {case.me.name}: xe-switch-network-backend {theirs}, then "
            f"reboot it",
            ('OPERATION_NOT_ALLOWED', 'Network backends differ'),
            findings.at_fault(case.me, case.master),
        )


def sdn_controllers(case: cases.JoinCase) -> check.Problems:
    """Rule 22b: an SDN controller of the joiner must be the pool's too."""
    if _backend(case.me) != 'openvswitch':
        return
    mine = next(iter(case.joiner.sdn_controllers.values()), None)
    theirs = next(iter(case.pool.sdn_controllers.values()), None)
    if mine is None or (theirs is not None and _sdn(mine) == _sdn(theirs)):
        return
    other = ':'.join(map(str, _sdn(theirs))) if theirs else 'none'
    yield check.Problem(
        f"{case.me.name} has the SDN controller "
        f"{':'.join(map(str, _sdn(mine)))}, the pool has {other}",
        f"on {case.me.name}: xe sdn-controller-forget uuid={mine.uuid}",
        ('OPERATION_NOT_ALLOWED', 'SDN controller differs'),
        findings.at_fault(mine, theirs),
    )


def _sdn(controller: objects.SdnController) -> tuple[str, str, int]:
    return controller.protocol, controller.address, controller.port


def purposes(case: cases.JoinCase) -> check.Problems:
    """Rule 27: ``assert_compatible_network_purpose``."""
    mine, theirs = _nbd(case.joiner), _nbd(case.pool)
    if mine is None or theirs is None or mine[1] == theirs[1]:
        return
    yield check.Problem(
        f"the network '{mine[0].name_label}' of {case.me.name} is for "
        f"{mine[1]}, '{theirs[0].name_label}' of the pool for {theirs[1]}",
        f"on {case.me.name}: xe network-param-remove uuid={mine[0].uuid} "
        f"param-name=purpose param-key={mine[1]}",
        (
            'OPERATION_NOT_ALLOWED',
            'Incompatible network purposes: nbd and insecure_nbd',
        ),
        findings.at_fault(mine[0], theirs[0]),
    )


def _nbd(
    records: snapshot.PoolSnapshot,
) -> tuple[objects.Network, str] | None:
    for network in records.networks.values():
        for purpose in network.purpose:
            if purpose in _NBD:
                return network, purpose
    return None
