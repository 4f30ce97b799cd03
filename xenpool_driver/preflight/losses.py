# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What an eject destroys, and what it leaves pointing to nothing.

The storage that only the leaving host is connected to is forgotten by the
pool with all its disks (``xapi_pool.ml``, ``unplug_pbds``), and the host
wipes its local disks. XAPI warns of none of it.
"""

from __future__ import annotations

import collections.abc
import re
import shlex

from xenpool_driver import (
    findings,
    model,
    objects,
    redaction,
    storage_roles,
)
from xenpool_driver.preflight import check as checks
from xenpool_driver.preflight import evacuation, leaving

EjectCase = leaving.EjectCase

_XOSTOR = 'linstor'
"""The type of storage whose replicas lie on the hosts' own disks."""

_ON_SERVER = re.compile(r'//|[^/]+:/')
"""Where an ISO library is that is shared by CIFS or NFS."""


def data_loss(case: EjectCase) -> checks.Problems:
    """Every SR and every disk that would be gone, by name and size."""
    agreed = (
        model.Severity.WARN if case.allow_data_loss else model.Severity.FAIL
    )
    for sr in case.wiped_srs:
        disks = case.pool.vdis_of(sr)
        size = sum(disk.virtual_size for disk in disks)
        yield checks.Problem(
            f"the local storage {sr.name} of {case.host.name} would be "
            f"wiped, with {findings.counted(len(disks), 'disk')} "
            f"({findings.sized(size)})",
            _moving_away(case) if disks else '',
            objects=findings.at_fault(sr),
            severity=agreed if disks else model.Severity.WARN,
        )
        for disk in disks:
            yield checks.Problem(
                f"the disk {disk.name} "
                f"({findings.sized(disk.virtual_size)}) on {sr.name} would "
                f"be lost",
                _saving(case, disk),
                objects=findings.at_fault(disk),
                severity=agreed,
            )


def _saving(case: EjectCase, disk: objects.Vdi) -> str:
    """Return what to type to keep what a disk holds.

    The memory of a suspended machine is of use to that machine only.
    """
    for vm in case.pool.vms.values():
        if vm.suspend_vdi == disk.ref and vm.is_guest:
            return evacuation.shutdown(vm)
    if move := evacuation.moving(case.pool, disk, case.host):
        return move
    users = (
        case.pool.vms.get(vbd.vm or '')
        for vbd in case.pool.vbds_of(disk)
        if vbd.currently_attached
    )
    # A disk that a machine writes to cannot be read beside it (VDI_IN_USE).
    halting = [
        evacuation.shutdown(vm)
        for vm in users
        if vm is not None and vm.is_guest and vm.power_state != 'Halted'
    ]
    export = (
        f"xe vdi-export uuid={disk.uuid} filename={disk.uuid}.vhd format=vhd"
    )
    return '; '.join([*halting, export])


def _moving_away(case: EjectCase) -> str:
    """Return the way out for a whole SR; who agreed need not read how to."""
    keep = 'move its disks to shared storage first'
    return keep if case.allow_data_loss else f"{keep}, or repeat with --yes"


def forgotten_storage(case: EjectCase) -> checks.Problems:
    """Shared storage that only this host uses is forgotten by the pool."""
    for sr in case.leaving_srs:
        if sr.shared:
            yield checks.warning(
                f"the shared storage {sr.name} is connected to no other host "
                f"and will be forgotten; its data stays on its server",
                _connecting(case, sr),
                findings.at_fault(sr),
            )


def _connecting(case: EjectCase, sr: objects.Storage) -> str:
    """Return what to type to connect a member that stays to storage."""
    stays = next(
        (h for h in case.pool.hosts.values() if h.ref != case.host.ref), None
    )
    pbd = next(iter(case.pool.pbds_of_sr(sr)), None)
    if stays is None or pbd is None:
        return ''
    return ' '.join(
        [
            f"xe pbd-create sr-uuid={sr.uuid} host-uuid={stays.uuid}",
            *_settings(pbd),
        ]
    )


def _settings(pbd: objects.Pbd) -> list[str]:
    """Return the words that tell ``xe`` how storage is connected."""
    return [
        shlex.quote(f"device-config:{key}={value}")
        for key, value in pbd.device_config.items()
        if not redaction.hides(key, value)
    ]


def dangling(case: EjectCase) -> checks.Problems:
    """Virtual machines elsewhere, or halted, whose disks would be gone."""
    going = {sr.ref for sr in case.wiped_srs}
    left: dict[str, list[objects.Vdi]] = {}
    for vbd in case.pool.vbds.values():
        disk = case.pool.vdis.get(vbd.vdi) if vbd.vdi else None
        if disk is not None and disk.sr in going and vbd.vm:
            left.setdefault(vbd.vm, []).append(disk)
    for ref, disks in left.items():
        vm = case.pool.vms.get(ref)
        if vm is not None and not vm.is_control_domain:
            yield checks.warning(
                f"{vm.name} would keep its record but lose "
                f"{findings.listed(disk.name for disk in disks)}",
                _copying(case, vm, disks),
                findings.at_fault(vm, *disks),
            )


def _copying(
    case: EjectCase,
    vm: objects.Vm,
    disks: collections.abc.Iterable[objects.Vdi],
) -> str:
    """Return what to type to keep a whole virtual machine."""
    if not vm.is_guest or vm.power_state != 'Halted':
        return ''
    size = sum(disk.virtual_size for disk in disks)
    target = storage_roles.refuge(case.pool, case.host.ref, size)
    if target is None:
        return f"xe vm-export uuid={vm.uuid} filename={vm.uuid}.xva"
    return evacuation.copying(vm, target)


def suspended(case: EjectCase) -> checks.Problems:
    """Suspended machines whose memory image lies on storage that goes.

    The image is no disk of theirs: no VBD leads to it.
    """
    for vm, kind, image, sr in leaving.memories(case):
        yield checks.warning(
            f"the {kind} {vm.name} would lose its memory: the image "
            f"{image.name} lies on {sr.name}",
            evacuation.shutdown(vm) if vm.is_guest else '',
            findings.at_fault(vm, image, sr),
        )


def roles(case: EjectCase) -> checks.Problems:
    """Fields of the pool and its other hosts that would point to nothing."""
    return leaving.roles(case, ', which would point to nothing')


def iso_libraries(case: EjectCase) -> checks.Problems:
    """Libraries on the host's own file system go with it."""
    for sr in case.leaving_srs:
        if sr.shared or 'iso' not in (sr.type, sr.content_type):
            continue
        if sr.type == 'udev':  # a drive: its discs stay in it
            continue
        images = case.pool.vdis_of(sr)
        users = {
            vm.name
            for image in images
            for vbd in case.pool.vbds_of(image)
            if (vm := case.pool.vms.get(vbd.vm or '')) is not None
        }
        pbd = next(iter(case.pool.pbds_of_sr(sr)), None)
        place = pbd.device_config.get('location', '') if pbd else ''
        on_server = _ON_SERVER.match(place) is not None
        yield checks.warning(
            f"the ISO library {sr.name} of {case.host.name} goes with it, "
            f"with {findings.counted(len(images), 'image')}"
            + (
                f" (in the drives of {findings.listed(sorted(users))})"
                if users
                else ''
            )
            + f"; its files stay on their server, {place}" * on_server,
            _keeping(case, sr, place, on_server),
            findings.at_fault(sr),
        )


def _keeping(
    case: EjectCase, sr: objects.Storage, place: str, on_server: bool
) -> str:
    """Return what to type to keep an ISO library.

    :param place: where it is: ``/DIRECTORY``, ``//SERVER/SHARE`` or
        ``SERVER:/DIRECTORY``.
    :param on_server: whether that is on another machine.
    """
    pbd = next(iter(case.pool.pbds_of_sr(sr)), None)
    if on_server and pbd is not None:
        name = shlex.quote(sr.name_label)
        words = ' '.join(_settings(pbd))
        return (
            f"to have it in the pool again, after the host has left: "
            f"xe sr-create name-label={name} type={sr.type} content-type=iso "
            f"shared=true {words}"
        )
    if place.startswith('/') and not on_server:
        source = shlex.quote(f"root@{case.host.address}:{place}")
        return f"keep its files: scp -r {source} ."
    return ''


def replicas(case: EjectCase) -> checks.Problems:
    """XOSTOR keeps replicas on local disks; the eject does not move them."""
    for pbd in case.pool.pbds_of(case.host):
        sr = case.pool.srs.get(pbd.sr) if pbd.sr else None
        if sr is not None and sr.type == _XOSTOR:
            node = case.host.hostname or case.host.name_label
            yield checks.warning(
                f"the XOSTOR storage {sr.name} may keep replicas of its "
                f"disks on {case.host.name}; the eject does not move them",
                f"on the host that runs linstor-controller: linstor node "
                f"evacuate {node}; linstor resource list; and when none is "
                f"left on {node}: linstor node delete {node}",
                findings.at_fault(sr, case.host),
            )


Check = checks.Check[EjectCase]

CHECKS: tuple[Check, ...] = (
    Check(
        'data-loss',
        'no local disk would be lost',
        data_loss,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VBD', 'pool.VM'),
    ),
    Check(
        'suspended-vms',
        'no suspended virtual machine would lose its memory',
        suspended,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VM'),
    ),
    Check(
        'dangling-vms',
        'no virtual machine would keep missing disks',
        dangling,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VBD', 'pool.VM'),
    ),
    Check(
        'storage-roles',
        'the SRs that pool and hosts use by default stay',
        roles,
        ('pool.pool', 'pool.PBD', 'pool.SR'),
    ),
    Check(
        'iso-libraries',
        'no ISO library would be lost',
        iso_libraries,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VBD', 'pool.VM'),
    ),
    Check(
        'xostor-replicas',
        'no XOSTOR storage keeps replicas on the host',
        replicas,
        ('pool.PBD', 'pool.SR'),
    ),
    Check(
        'forgotten-storage',
        'no shared storage would be forgotten',
        forgotten_storage,
        ('pool.PBD', 'pool.SR'),
    ),
)
"""What XAPI does not ask; in the order of the report."""
