# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Everything that speaks against an eject, and all that it would destroy.

An ejected host wipes its local disks and reboots (``xapi_pool.ml``,
``eject_self``); there is no way back.
"""

from __future__ import annotations

import dataclasses
import functools
import re

from xenpool_driver import findings, model, objects, snapshot
from xenpool_driver.preflight import check as checks

_NO_DATA = frozenset({'udev', 'iso'})
"""Types of storage that an eject cannot wipe: drives and images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EjectCase:
    """A member that shall leave.

    :ivar pool: the pool's records, from its coordinator.
    :ivar host: the member's record.
    :ivar allow_data_loss: whether the loss of local disks was agreed to.
    :ivar drain: whether its virtual machines will be moved away first.
    :ivar suspend_ha: whether HA will be switched off around it.
    """

    pool: snapshot.PoolSnapshot
    host: objects.Host
    allow_data_loss: bool = False
    drain: bool = False
    suspend_ha: bool = False

    def lacks(self, need: str) -> str | None:
        """Say why ``pool.class`` is not known."""
        return self.pool.lacks(need.partition('.')[2])

    @property
    def record(self) -> objects.Pool:
        """The pool record."""
        if self.pool.pool is None:
            raise LookupError('a check does not declare what it needs')
        return self.pool.pool

    @functools.cached_property
    def leaving_srs(self) -> tuple[objects.Storage, ...]:
        """The storage that only this host is connected to."""
        return tuple(
            sr
            for sr in self.pool.srs.values()
            if (pbds := self.pool.pbds_of_sr(sr))
            and not sr.is_tools_sr
            and all(pbd.host == self.host.ref for pbd in pbds)
        )

    @property
    def wiped_srs(self) -> tuple[objects.Storage, ...]:
        """The storage whose data the eject destroys."""
        return tuple(
            sr
            for sr in self.leaving_srs
            if not sr.shared and sr.type not in _NO_DATA
        )

    @property
    def guests(self) -> tuple[objects.Vm, ...]:
        """The virtual machines that are on the host and not halted."""
        return tuple(
            vm
            for vm in self.pool.vms.values()
            if vm.resident_on == self.host.ref
            and vm.power_state != 'Halted'
            and not self.pool.is_domain_zero(vm)
        )


def secret_rotation(case: EjectCase) -> checks.Problems:
    """No pool operation starts while the pool's secret changes."""
    if case.record.is_psr_pending:
        yield checks.Problem(
            f"the pool {case.pool.name} is changing its secret",
            'xe pool-secret-rotate, with every member up',
            ('POOL_SECRET_ROTATION_PENDING',),
            findings.at_fault(case.record, name=case.pool.name),
        )


def operations(case: EjectCase) -> checks.Problems:
    """The eject would wait for up to two hours (``xapi_pool_helpers.ml``)."""
    for operation in sorted(set(case.record.current_operations.values())):
        if operation != 'apply_updates':
            yield checks.warning(
                f"'{operation}' is going on in the pool; the eject will wait "
                f"for it",
                'wait; see xe task-list',
                findings.at_fault(case.record, name=case.pool.name),
            )


def live(case: EjectCase) -> checks.Problems:
    """The eject is carried out by the host itself."""
    alive = case.pool.is_live(case.host)
    if alive is None:
        yield checks.undecided(
            f"whether {case.host.name} is alive shows in no record"
        )
    elif not alive:
        yield checks.Problem(
            f"{case.host.name} is dead, so it cannot eject itself",
            f"start it, or: xenpool aggregate remove host AGGREGATE "
            f"{case.host.name} --forget",
            ('HOST_OFFLINE', case.host.ref),
            findings.at_fault(case.host),
        )


def not_master(case: EjectCase) -> checks.Problems:
    """The master cannot go while others remain."""
    if case.record.master == case.host.ref:
        yield checks.Problem(
            f"{case.host.name} is the master of the pool",
            f"hand the pool over first: xenpool aggregate remove host "
            f"AGGREGATE {case.host.name} --successor HOST",
            ('INTERNAL_ERROR', 'Xapi_pool.Cannot_eject_master'),
            findings.at_fault(case.host),
        )


def ha(case: EjectCase) -> checks.Problems:
    """HA forbids it."""
    if not case.record.ha_enabled:
        return
    at_fault = findings.at_fault(case.record, name=case.pool.name)
    if case.suspend_ha:
        yield checks.warning(
            f"HA of {case.pool.name} will be switched off meanwhile",
            objects=at_fault,
        )
        return
    yield checks.Problem(
        f"HA is enabled on the pool {case.pool.name}",
        'repeat with --suspend-ha, or: xe pool-ha-disable',
        ('HA_IS_ENABLED',),
        at_fault,
    )


def updating(case: EjectCase) -> checks.Problems:
    """Updates forbid it.

    Since ejects are operations of the pool they do not even begin before the
    updates have ended: XAPI tries for two hours.
    """
    if 'apply_updates' in case.record.current_operations.values():
        yield checks.Problem(
            f"updates are being applied in the pool {case.pool.name}",
            'wait until xe task-list shows no update',
            None if _waits(case) else ('NOT_SUPPORTED_DURING_UPGRADE',),
            findings.at_fault(case.record, name=case.pool.name),
        )


def _waits(case: EjectCase) -> bool:
    """Say whether ejects are operations of the pool: since 1.316."""
    master = case.pool.coordinator
    version = master.software_version.get('xapi_build', '') if master else ''
    found = re.match(r'(\d+)\.(\d+)', version)
    known = tuple(map(int, found.groups())) if found else (0, 0)
    # Some builds say 0.0; all of them are newer.
    return known == (0, 0) or known >= (1, 316)


def residents(case: EjectCase) -> checks.Problems:
    """No machine may be there that is not halted; paused ones count."""
    if not case.guests:
        return
    names = findings.listed(
        f"{vm.name} ({vm.power_state.lower()})" for vm in case.guests
    )
    at_fault = findings.at_fault(*case.guests)
    if case.drain:
        yield checks.warning(
            f"virtual machines will be moved away from {case.host.name}: "
            f"{names}",
            objects=at_fault,
        )
        return
    yield checks.Problem(
        f"virtual machines are on {case.host.name}: {names}",
        'repeat with --drain, or: '
        + '; '.join(f"xe vm-shutdown uuid={vm.uuid}" for vm in case.guests[:3])
        + ('; ...' if len(case.guests) > 3 else ''),
        ('OPERATION_NOT_ALLOWED', 'VM resident on host'),
        at_fault,
    )


def unpluggable(case: EjectCase) -> checks.Problems:
    """Storage that is in use on the host cannot be unplugged."""
    guests = {vm.ref for vm in case.guests}
    here = {
        vm.ref
        for vm in case.pool.vms.values()
        if vm.resident_on == case.host.ref and vm.ref not in guests
    }
    for pbd in case.pool.pbds_of(case.host):
        sr = case.pool.srs.get(pbd.sr) if pbd.sr else None
        if sr is None or not pbd.currently_attached:
            continue
        held = [
            (vdi, vbd)
            for vdi in case.pool.vdis_of(sr)
            for vbd in case.pool.vbds_of(vdi)
            if vbd.currently_attached and vbd.vm in here
        ]
        if held:
            names = findings.listed(vdi.name for vdi, _ in held)
            yield checks.Problem(
                f"the storage {sr.name} cannot be unplugged from "
                f"{case.host.name}: its control domain uses {names}",
                '; '.join(
                    f"xe vbd-unplug uuid={vbd.uuid}" for _, vbd in held[:3]
                ),
                objects=findings.at_fault(sr, *(vdi for vdi, _ in held)),
            )


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
            f"wiped, with {len(disks)} disks ({findings.sized(size)})",
            _MOVE_AWAY if disks else '',
            objects=findings.at_fault(sr),
            severity=agreed if disks else model.Severity.WARN,
        )
        for disk in disks:
            yield checks.Problem(
                f"the disk {disk.name} "
                f"({findings.sized(disk.virtual_size)}) on {sr.name} would "
                f"be lost",
                f"xe vdi-pool-migrate uuid={disk.uuid} sr-uuid=SR",
                objects=findings.at_fault(disk),
                severity=agreed,
            )


_MOVE_AWAY = (
    'move the disks to shared storage, or repeat with --allow-data-loss'
)


def forgotten_storage(case: EjectCase) -> checks.Problems:
    """Shared storage that only this host uses is forgotten by the pool."""
    for sr in case.leaving_srs:
        if sr.shared:
            yield checks.warning(
                f"the shared storage {sr.name} is connected to no other host "
                f"and will be forgotten; its data stays on its server",
                f"xe pbd-create sr-uuid={sr.uuid} host-uuid=HOST",
                findings.at_fault(sr),
            )


def dangling(case: EjectCase) -> checks.Problems:
    """Virtual machines elsewhere, or halted, whose disks would be gone."""
    leaving = {sr.ref for sr in case.wiped_srs}
    left: dict[str, list[objects.Vdi]] = {}
    for vbd in case.pool.vbds.values():
        disk = case.pool.vdis.get(vbd.vdi) if vbd.vdi else None
        if disk is not None and disk.sr in leaving and vbd.vm:
            left.setdefault(vbd.vm, []).append(disk)
    for ref, disks in left.items():
        vm = case.pool.vms.get(ref)
        if vm is not None and not vm.is_control_domain:
            yield checks.warning(
                f"{vm.name} would keep its record but lose "
                f"{findings.listed(disk.name for disk in disks)}",
                f"xe vm-copy uuid={vm.uuid} sr-uuid=SR "
                f"new-name-label={vm.name_label!r}",
                findings.at_fault(vm, *disks),
            )


Check = checks.Check[EjectCase]

CHECKS: tuple[Check, ...] = (
    Check(
        'pool-secret',
        "the pool's secret is not being changed",
        secret_rotation,
        ('pool.pool',),
        '1',
    ),
    Check(
        'pool-operations',
        'nothing else is going on in the pool',
        operations,
        ('pool.pool',),
        '1',
    ),
    Check('live', 'the host is alive', live, ('pool.host_metrics',), '2'),
    Check(
        'not-master',
        'the host is not the master',
        not_master,
        ('pool.pool',),
        '2a',
    ),
    Check('ha', 'HA is off', ha, ('pool.pool',), '2b'),
    Check(
        'updating',
        'no updates are being applied',
        updating,
        ('pool.pool',),
        '2c',
    ),
    Check(
        'resident-vms',
        'no virtual machine is on the host',
        residents,
        ('pool.VM',),
        '2d',
    ),
    Check(
        'storage-in-use',
        "the host's storage can be unplugged",
        unpluggable,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VBD', 'pool.VM'),
        '2e',
    ),
    Check(
        'data-loss',
        'no local disk would be lost',
        data_loss,
        ('pool.PBD', 'pool.SR', 'pool.VDI'),
    ),
    Check(
        'forgotten-storage',
        'no shared storage would be forgotten',
        forgotten_storage,
        ('pool.PBD', 'pool.SR'),
    ),
    Check(
        'dangling-vms',
        'no virtual machine would keep missing disks',
        dangling,
        ('pool.PBD', 'pool.SR', 'pool.VDI', 'pool.VBD', 'pool.VM'),
    ),
)
"""Everything, XAPI's own rules first and in its order."""


def check(
    pool: snapshot.PoolSnapshot,
    host_uuid: str,
    *,
    allow_data_loss: bool = False,
    drain: bool = False,
    suspend_ha: bool = False,
) -> model.Report:
    """Return everything that speaks against ejecting a member.

    :param pool: the pool's records, from its coordinator; read
        ``snapshot.EJECT_CLASSES``.
    :param host_uuid: the member.
    :param allow_data_loss: the loss of local disks was agreed to.
    :param drain: its virtual machines will be moved away first.
    :param suspend_ha: HA will be switched off around it.
    """
    host = pool.host_by_uuid(host_uuid)
    if host is None:
        return _absent(pool, host_uuid)
    case = EjectCase(
        pool=pool,
        host=host,
        allow_data_loss=allow_data_loss,
        drain=drain,
        suspend_ha=suspend_ha,
    )
    return checks.report(
        host.name,
        [f for one in CHECKS for f in checks.evaluate(one, case)],
    )


def _absent(pool: snapshot.PoolSnapshot, host_uuid: str) -> model.Report:
    reason = pool.lacks('host')
    return checks.report(
        host_uuid,
        [
            model.Finding(
                'membership',
                model.Severity.UNKNOWN if reason else model.Severity.PASS,
                reason or f"{host_uuid} is no member of {pool.name}",
            )
        ],
    )


def _not_coordinator(case: EjectCase) -> checks.Problems:
    if case.record.master == case.host.ref:
        yield checks.Problem(
            f"{case.host.name} is the master of the pool, and answers",
            'xenpool aggregate recover AGGREGATE --promote HOST',
            ('HOST_IS_LIVE', case.host.ref),
            findings.at_fault(case.host),
        )


def _not_alive(case: EjectCase) -> checks.Problems:
    if case.pool.is_live(case.host):
        yield checks.warning(
            f"the coordinator still takes {case.host.name} for alive; it "
            f"will ask it, and refuse if it answers (HOST_IS_LIVE)",
            f"if it lives: xenpool aggregate remove host AGGREGATE "
            f"{case.host.name}",
            findings.at_fault(case.host),
        )


def _no_residents(case: EjectCase) -> checks.Problems:
    if case.guests:
        names = findings.listed(vm.name for vm in case.guests)
        yield checks.Problem(
            f"virtual machines are recorded on the dead host "
            f"{case.host.name}: {names}",
            f"make sure that they run nowhere, then: xe host-declare-dead "
            f"uuid={case.host.uuid}",
            ('HOST_HAS_RESIDENT_VMS', case.host.ref),
            findings.at_fault(*case.guests),
        )


def _lost_storage(case: EjectCase) -> checks.Problems:
    for sr in case.wiped_srs:
        yield checks.warning(
            f"the records of the local storage {sr.name} of "
            f"{case.host.name} go with it",
            objects=findings.at_fault(sr),
        )


FORGET_CHECKS: tuple[Check, ...] = (
    Check(
        'not-master',
        'the host is not the master',
        _not_coordinator,
        ('pool.pool',),
    ),
    Check('ha', 'HA is off', ha, ('pool.pool',)),
    Check(
        'dead',
        'the coordinator agrees that it is dead',
        _not_alive,
        ('pool.host_metrics',),
    ),
    Check(
        'resident-vms',
        'no virtual machine is recorded there',
        _no_residents,
        ('pool.VM',),
    ),
    Check(
        'local-storage',
        'it has no storage of its own',
        _lost_storage,
        ('pool.PBD', 'pool.SR'),
    ),
)
"""``host.destroy``: for a host that is dead."""


def check_forget(
    pool: snapshot.PoolSnapshot,
    host_uuid: str,
    *,
    suspend_ha: bool = False,
) -> model.Report:
    """Return everything that speaks against forgetting a dead member.

    :param pool: the pool's records, from its coordinator.
    :param host_uuid: the dead member.
    :param suspend_ha: HA will be switched off around it.
    """
    host = pool.host_by_uuid(host_uuid)
    if host is None:
        return _absent(pool, host_uuid)
    case = EjectCase(pool=pool, host=host, suspend_ha=suspend_ha)
    return checks.report(
        host.name,
        [f for one in FORGET_CHECKS for f in checks.evaluate(one, case)],
    )
