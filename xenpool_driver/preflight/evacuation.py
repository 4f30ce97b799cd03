# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What keeps virtual machines from leaving a host, named with names.

``host.get_vms_which_prevent_evacuation`` answers with references
(``xapi_host.ml``, ``compute_evacuation_plan_no_wlb``). It moves nothing, so
it can be asked before the host is disabled.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import shlex
import typing

from xenpool_driver import findings, objects, snapshot, storage_roles
from xenpool_driver.preflight import check as checks

_HA_ONLY = 'HOST_EVACUATE_VM_NOT_HA_PROTECTED'
"""What forbids a move only while HA is on."""


def _empty() -> typing.Any:
    """Return the default of a map."""
    return dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Evacuation:
    """What XAPI answered about moving everything away from a host.

    :ivar errors: ``{reference of a VM: (code, params...)}``.
    :ivar free: ``{reference of a host: free memory in bytes}`` of the other
        hosts, where memory is missing; else empty.
    """

    errors: collections.abc.Mapping[str, tuple[str, ...]] = _empty()
    free: collections.abc.Mapping[str, int] = _empty()

    @property
    def codes(self) -> frozenset[str]:
        """The codes of all errors."""
        return frozenset(error[0] for error in self.errors.values() if error)


@dataclasses.dataclass(frozen=True)
class _Blocker:
    """One virtual machine that cannot leave.

    :ivar pool: the pool's records.
    :ivar home: the host that it shall leave.
    :ivar vm: the virtual machine.
    :ivar error: (code, params...) of XAPI.
    :ivar free: free memory of the other hosts in bytes, by reference.
    """

    pool: snapshot.PoolSnapshot
    home: objects.Host
    vm: objects.Vm
    error: tuple[str, ...]
    free: collections.abc.Mapping[str, int]

    @property
    def others(self) -> list[objects.Host]:
        """The hosts that it could move to."""
        hosts = self.pool.hosts.values()
        return [host for host in hosts if host.ref != self.home.ref]


_Told = tuple[str, str, tuple[objects.Record, ...]]
"""Message, remedy ('' for the usual one), objects at fault beside the VM."""


def problems(
    pool: snapshot.PoolSnapshot,
    host: objects.Host,
    found: Evacuation,
    *,
    suspend_ha: bool = False,
) -> checks.Problems:
    """Return a problem for each virtual machine that cannot leave.

    :param pool: the pool's records: host, VM, VBD, VDI, SR, PBD, and network
        where an error names one.
    :param host: the host that all shall leave.
    :param found: what XAPI answered.
    :param suspend_ha: HA will be switched off meanwhile.
    """
    for ref, error in found.errors.items():
        if not error or (suspend_ha and error[0] == _HA_ONLY):
            continue
        vm = pool.vms.get(ref) or objects.Vm(ref=ref, uuid=ref)
        blocker = _Blocker(pool, host, vm, error, found.free)
        message, remedy, at_fault = _TELLERS.get(error[0], _other)(blocker)
        yield checks.Problem(
            f"{message} ({error[0]})",
            remedy or shutdown(vm),
            error,
            findings.at_fault(vm, *at_fault),
        )


_WAKE = {'Paused': 'vm-unpause', 'Suspended': 'vm-resume'}


def waking(vm: objects.Vm) -> str:
    """Return what to type to let a virtual machine run; '' if it does."""
    command = _WAKE.get(vm.power_state)
    return f"xe {command} uuid={vm.uuid}" if command else ''


def shutdown(vm: objects.Vm) -> str:
    """Return what to type to halt a virtual machine."""
    halt = f"xe vm-shutdown uuid={vm.uuid}"
    return '; '.join(filter(None, (waking(vm), halt)))


def _storage(blocker: _Blocker) -> _Told:
    """``VM_REQUIRES_SR``: something in its drives is seen here only."""
    pool, vm = blocker.pool, blocker.vm
    ref = blocker.error[2] if len(blocker.error) > 2 else ''
    sr = pool.srs.get(ref)
    if sr is None:
        return f"{vm.name} needs storage that other hosts do not see", '', ()
    if sr.shared and (plugs := _missing_plugs(blocker, sr)):
        return (
            f"{vm.name} needs the shared storage {sr.name}, which is not "
            f"plugged on every other host",
            plugs,
            (sr,),
        )
    used = [
        (vbd, vdi)
        for vdi in pool.vdis_of(sr)
        for vbd in pool.vbds_of(vdi)
        if vbd.vm == vm.ref
    ]
    at_fault = (sr, *(vdi for _, vdi in used))
    names = findings.listed(vdi.name for _, vdi in used) or 'something'
    discs = [vbd for vbd, _ in used if vbd.type == 'CD']
    if used and len(discs) == len(used):
        return (
            f"{vm.name} has the CD {names} from {sr.name} in its drive, "
            f"which other hosts do not see",
            findings.in_order(
                f"xe vbd-eject uuid={vbd.uuid}" for vbd in discs
            ),
            at_fault,
        )
    return (
        f"{vm.name} uses {names} on {sr.name}, which other hosts do not see",
        findings.in_order(
            moving(pool, vdi, blocker.home)
            for vbd, vdi in used
            if vbd.type != 'CD' and vm.power_state == 'Running'
        ),
        at_fault,
    )


def _missing_plugs(blocker: _Blocker, sr: objects.Storage) -> str:
    return findings.in_order(
        f"xe pbd-plug uuid={pbd.uuid}"
        for pbd in blocker.pool.pbds_of_sr(sr)
        if pbd.host != blocker.home.ref and not pbd.currently_attached
    )


def moving(
    pool: snapshot.PoolSnapshot, disk: objects.Vdi, leaving: objects.Host
) -> str:
    """Return what to type to bring a disk away from a host; '' if nowhere.

    A disk of a running machine moves (``VDI.pool_migrate`` refuses any
    other: ``VDI_NEEDS_VM_FOR_MIGRATE``); of a machine that is halted a copy
    is made as a whole, and of a disk that nobody has, too. A machine that is
    suspended or paused keeps its disks attached, so that they cannot be
    copied (``VDI_IN_USE``, ``xapi_vdi.ml``): it runs first.
    """
    target = storage_roles.refuge(pool, leaving.ref, disk.virtual_size)
    if target is None:
        return ''
    for vbd in pool.vbds_of(disk):
        vm = pool.vms.get(vbd.vm or '')
        if vm is None or vm.is_control_domain or vbd.type == 'CD':
            continue
        awake = vm.power_state == 'Running' or vm.is_guest
        if vbd.currently_attached and vm.power_state != 'Halted' and awake:
            move = (
                f"xe vdi-pool-migrate uuid={disk.uuid} sr-uuid={target.uuid}"
            )
            return '; '.join(filter(None, (waking(vm), move)))
        if vm.power_state == 'Halted' and vm.is_guest:
            return copying(vm, target)
    return f"xe vdi-copy uuid={disk.uuid} sr-uuid={target.uuid}"


def copying(vm: objects.Vm, target: objects.Storage) -> str:
    """Return what to type to copy a halted machine as a whole."""
    label = shlex.quote(f"{vm.name_label} copy")
    return (
        f"xe vm-copy uuid={vm.uuid} sr-uuid={target.uuid} "
        f"new-name-label={label}"
    )


def _network(blocker: _Blocker) -> _Told:
    """``VM_REQUIRES_NETWORK``: not every host has a way into it."""
    ref = blocker.error[2] if len(blocker.error) > 2 else ''
    network = blocker.pool.networks.get(ref)
    label = f"network '{network.name_label}'" if network else 'a network'
    return (
        f"{blocker.vm.name} is on {label}, which not every other host has",
        '',
        (network,) if network else (),
    )


def _memory(blocker: _Blocker) -> _Told:
    """``HOST_NOT_ENOUGH_FREE_MEMORY``: XAPI packs by the least it takes."""
    free = [
        f"{host.name} {findings.sized(blocker.free[host.ref])}"
        for host in blocker.others
        if host.ref in blocker.free
    ]
    need = blocker.vm.memory_dynamic_min
    fits = any(amount >= need for amount in blocker.free.values())
    why = 'others that move take it' if fits else 'none has as much'
    return (
        f"{blocker.vm.name} needs {findings.sized(need)} of memory; free "
        f"are: {findings.listed(free) or 'not known'}; {why}",
        '',
        (),
    )


def _nowhere(blocker: _Blocker) -> _Told:
    """``NO_HOSTS_AVAILABLE``: hosts that are older do not count either."""
    idle = [host for host in blocker.others if not host.enabled]
    return (
        f"{blocker.vm.name} can go to no other host: none is enabled and as "
        f"new as {blocker.home.name}",
        findings.in_order(f"xe host-enable uuid={host.uuid}" for host in idle),
        tuple(idle),
    )


def _blocked(blocker: _Blocker) -> _Told:
    """``OPERATION_BLOCKED``: a person has forbidden it."""
    vm = blocker.vm
    return (
        f"moving {vm.name} is forbidden: {' '.join(blocker.error[2:])}",
        f"xe vm-param-remove uuid={vm.uuid} param-name=blocked-operations "
        f"param-key=pool_migrate",
        (),
    )


_REASONS = {
    'VM_LACKS_FEATURE': 'runs no guest tools that could move it',
    'VM_LACKS_FEATURE_SUSPEND': 'runs no guest tools that could move it',
    'VM_MISSING_PV_DRIVERS': 'runs no guest tools that could move it',
    'VM_HAS_PCI_ATTACHED': 'owns a PCI device of its host',
    'VM_HAS_VGPU': 'owns a part of a graphics card',
    'VM_HAS_VUSBS': 'owns a USB device of its host',
    'VM_IS_USING_NESTED_VIRT': 'runs virtual machines itself',
    'VM_IS_IMMOBILE': 'is marked as one that must not move',
    'VM_INCOMPATIBLE_WITH_THIS_HOST': 'uses processor features that another '
    'host has not',
    _HA_ONLY: 'is not protected by HA, which is on',
}
"""code -> what is the matter with the virtual machine"""


def _other(blocker: _Blocker) -> _Told:
    """Any other code, with names in the place of references."""
    code, *params = blocker.error
    reason = _REASONS.get(code)
    if reason is None:
        named = [
            _name(blocker.pool, param)
            for param in params
            if param != blocker.vm.ref
        ]
        reason = ' '.join(['cannot move:', *filter(None, named)]).rstrip(': ')
    remedy = 'repeat with --suspend-ha' if code == _HA_ONLY else ''
    return f"{blocker.vm.name} {reason}", remedy, ()


def _name(pool: snapshot.PoolSnapshot, param: str) -> str:
    """Return the name of what a parameter refers to, or itself.

    A reference that leads nowhere here says nothing to anybody.
    """
    for table in (pool.vms, pool.hosts, pool.srs, pool.vdis):
        record = table.get(param)
        if record is not None:
            return str(getattr(record, 'name', param))
    return '' if param.startswith('OpaqueRef:') else param


_TELLERS: collections.abc.Mapping[
    str, collections.abc.Callable[[_Blocker], _Told]
] = {
    'VM_REQUIRES_SR': _storage,
    'VM_REQUIRES_NETWORK': _network,
    'HOST_NOT_ENOUGH_FREE_MEMORY': _memory,
    'NO_HOSTS_AVAILABLE': _nowhere,
    'OPERATION_BLOCKED': _blocked,
}
"""code -> what tells of it"""
