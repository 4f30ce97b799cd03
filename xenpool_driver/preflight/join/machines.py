# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The joiner's virtual machines, and what is tied to its hardware."""

from __future__ import annotations

import collections.abc
import shlex

from xenpool_driver import domains, findings, objects
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases

_WAKE = {'Paused': 'vm-unpause', 'Suspended': 'vm-resume'}


def running(case: cases.JoinCase) -> check.Problems:
    """Rule 9: ``assert_no_running_vms_on_me``; driver domains count."""
    found = [
        vm
        for vm in case.joiner.vms.values()
        if vm.power_state == 'Running' and not case.joiner.is_domain_zero(vm)
    ]
    if found:
        yield check.Problem(
            f"virtual machines run on {case.me.name}: "
            f"{findings.listed(vm.name for vm in found)}",
            _halting(case, found),
            ('JOINING_HOST_CANNOT_HAVE_RUNNING_VMS',),
            findings.at_fault(*found),
        )


def _halting(
    case: cases.JoinCase, found: collections.abc.Sequence[objects.Vm]
) -> str:
    """Return how running machines are halted.

    XAPI shuts down no control domain (``xapi_vm_lifecycle.ml``), and its
    command line does not even find one (``select_vms``).
    """
    steps = []
    if guests := [vm for vm in found if not vm.is_control_domain]:
        steps.append(
            f"on {case.me.name}: "
            + findings.in_order(
                f"xe vm-shutdown uuid={vm.uuid}" for vm in guests
            )
        )
    if drivers := [vm for vm in found if vm.is_control_domain]:
        names = findings.listed(vm.name for vm in drivers)
        steps.append(
            f"shut down the driver domains from inside, on their consoles: "
            f"{names}"
        )
    return '; '.join(steps)


def busy(case: cases.JoinCase) -> check.Problems:
    """Rule 10: ``assert_no_vms_with_current_ops``; every VM record counts."""
    found = [vm for vm in case.joiner.vms.values() if vm.current_operations]
    if found:
        what = findings.listed(
            f"{vm.name} ({', '.join(sorted(vm.current_operations.values()))})"
            for vm in found
        )
        yield check.Problem(
            f"operations are going on on {case.me.name}: {what}",
            f"wait until they have ended; see on {case.me.name}: xe task-list",
            ('JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS',),
            findings.at_fault(*found),
        )


def suspended(case: cases.JoinCase) -> check.Problems:
    """XAPI lets paused and suspended machines pass; the manuals do not."""
    found = [
        vm
        for vm in case.joiner.vms.values()
        if vm.is_guest and vm.power_state in _WAKE
    ]
    if found:
        yield check.warning(
            f"virtual machines of {case.me.name} are paused or suspended; "
            f"their saved state may be lost by the join: "
            f"{findings.listed(vm.name for vm in found)}",
            f"on {case.me.name}: "
            + findings.in_order(
                f"xe {_WAKE[vm.power_state]} uuid={vm.uuid}" for vm in found
            )
            + ', then shut them down',
            findings.at_fault(*found),
        )


def passthrough(case: cases.JoinCase) -> check.Problems:
    """Hidden PCI devices have left members stuck at start-up (xcp#142)."""
    found = [
        vm
        for vm in case.joiner.vms.values()
        if not vm.is_control_domain
        and (vm.attached_pcis or vm.other_config.get('pci'))
    ]
    if found:
        yield check.warning(
            f"virtual machines of {case.me.name} own PCI devices and will "
            f"run nowhere else: {findings.listed(vm.name for vm in found)}",
            findings.in_order(filter(None, map(_without_device, found))),
            findings.at_fault(*found),
        )
    if case.me.display != 'enabled':
        yield check.warning(
            f"{case.me.name} hides its graphics device from itself "
            f"(host display: {case.me.display})",
            f"on {case.me.name}: xe host-enable-display uuid={case.me.uuid}",
            findings.at_fault(case.me),
        )


def _without_device(vm: objects.Vm) -> str:
    """Return what to type to take a machine's device away; '' for nothing.

    A virtual GPU has no key there, and XAPI's command line removes none that
    is not there; the device is let go when the machine halts.
    """
    if vm.other_config.get('pci'):
        return (
            f"xe vm-param-remove uuid={vm.uuid} param-name=other-config "
            f"param-key=pci"
        )
    running = vm.power_state == 'Running'
    return f"xe vm-shutdown uuid={vm.uuid}" if running else ''


def left_over_domain(case: cases.JoinCase) -> check.Problems:
    """The record of the joiner's control domain from an earlier join.

    XAPI lets the join pass, and the joiner is never ready (recorded).
    """
    found = _left_over(case)
    if found is not None:
        yield check.Problem(
            f"the pool {case.pool.name} has the record {found.uuid} of the "
            f"control domain of {case.me.name}, left by an earlier join; "
            f"with it {case.me.name} would answer {domains.BOOTING} for ever",
            _destroying(case),
            objects=findings.at_fault(found),
        )


def _destroying(case: cases.JoinCase) -> str:
    """Return what destroys a record that is left over in the pool."""
    if case.pool.aggregate:
        return domains.destroying(case.pool.aggregate)
    name = case.pool.name
    adopt = ('xenpool', 'aggregate', 'adopt', name)
    return (
        f"{shlex.join((*adopt, '--from', case.master.typed))}; then: "
        f"{domains.destroying(name)}"
    )


def _left_over(case: cases.JoinCase) -> objects.Vm | None:
    own = case.joiner.vms.get(case.me.control_domain or '')
    theirs = case.pool.vms.values()
    for vm in domains.unclaimed(theirs, case.pool.hosts.values()):
        if own is not None and vm.uuid == own.uuid:
            return vm
    return None


def duplicates(case: cases.JoinCase) -> check.Problems:
    """A VM or SR with the uuid of one in the pool cannot be taken over."""
    left = _left_over(case)  # which is another matter
    theirs = {vm.uuid: vm for vm in case.pool.vms.values() if vm is not left}
    found = [
        vm
        for vm in case.joiner.vms.values()
        if vm.uuid in theirs and not vm.is_default_template
    ]
    if found:
        yield check.warning(
            f"the pool has virtual machines with the uuids of "
            f"{findings.listed(vm.name for vm in found)}; these will not be "
            f"taken over",
            _rescue(case, found),
            findings.at_fault(*found),
        )


def _rescue(
    case: cases.JoinCase, found: collections.abc.Sequence[objects.Vm]
) -> str:
    """Return how machines are kept whose uuids the pool knows."""
    guests = [vm for vm in found if not vm.is_control_domain]
    if not guests:
        return (
            f"install {case.me.name} anew: its disk is a copy of another "
            f"host's"
        )
    return f"on {case.me.name}: " + findings.in_order(map(_exporting, guests))


def _exporting(vm: objects.Vm) -> str:
    """Return what to type to export a machine; ``vm-export`` finds no
    template and no snapshot (``select_vms`` of ``cli_operations.ml``)."""
    if vm.is_a_snapshot:
        command = f"snapshot-export-to-template snapshot-uuid={vm.uuid}"
    elif vm.is_a_template:
        command = f"template-export template-uuid={vm.uuid}"
    else:
        command = f"vm-export uuid={vm.uuid}"
    return f"xe {command} filename={vm.uuid}.xva"
