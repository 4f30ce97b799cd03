# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a judgement about a host that leaves its pool is based on."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import shlex

from xenpool_driver import (
    domains,
    findings,
    identity,
    objects,
    snapshot,
    storage_roles,
)
from xenpool_driver.preflight import check as checks
from xenpool_driver.preflight import evacuation

_NO_DATA = frozenset({'udev', 'iso'})
"""Types of storage that an eject cannot wipe: drives and images."""


_STUCK = frozenset(
    {identity.Who.MEMBER, identity.Who.STARTING, identity.Who.NOBODY}
)
"""Who answers where a member is stuck."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EjectCase:
    """A member that shall leave.

    :ivar pool: the pool's records, from its coordinator.
    :ivar host: the member's record.
    :ivar allow_data_loss: whether the loss of local disks was agreed to.
    :ivar drain: whether its virtual machines will be moved away first.
    :ivar suspend_ha: whether HA will be switched off around it.
    :ivar stuck: what XAPI answered about moving them away; None: not asked.
    :ivar successor: uuid of the host that will be the master by then; '' when
        the present one stays.
    :ivar found: who answers at the address of the member; None: not asked.
    """

    pool: snapshot.PoolSnapshot
    host: objects.Host
    allow_data_loss: bool = False
    drain: bool = False
    suspend_ha: bool = False
    stuck: evacuation.Evacuation | None = None
    successor: str = ''
    found: identity.Identified | None = None

    def lacks(self, need: str) -> str | None:
        """Say why ``pool.class`` is not known."""
        return self.pool.lacks(need.partition('.')[2])

    @property
    def answers(self) -> bool:
        """Whether the member answers and does what it is told, or nobody
        asked it."""
        if self.found is None:
            return True
        return self.found.who is identity.Who.MEMBER and not self.is_stuck

    def removing(self, *options: str) -> str:
        """Return the command that removes the host.

        :param options: what it is given beside.
        """
        words = ('aggregate', 'remove', 'host')
        where = (self.pool.aggregate or self.pool.name, self.host.typed)
        return shlex.join(('xenpool', *words, *where, *options))

    @property
    def record(self) -> objects.Pool:
        """The pool record."""
        if self.pool.pool is None:
            raise LookupError('a check does not declare what it needs')
        return self.pool.pool

    @property
    def blocking(self) -> objects.Vm | None:
        """The record that keeps the member from ever being ready, if any."""
        vms = tuple(self.pool.vms.values())
        return domains.blocking(self.host, vms, self.pool.hosts)

    @property
    def is_stuck(self) -> bool:
        """Whether the member is there and will never be ready.

        Its toolstack restarts every minute or two: for a moment it does not
        answer, then it names its master.
        """
        who = self.found.who if self.found else None
        return who in _STUCK and self.blocking is not None

    @property
    def switched_off(self) -> str:
        """What to do with a member that starts and starts: one that is stuck
        is not waited for."""
        host = self.host.typed
        forget = self.forgetting
        if self.blocking is None:
            wait = f"wait a minute; if it stays so, switch off {host}"
            return f"{wait}, then: {forget}"
        then = domains.destroying(self.pool.aggregate or self.pool.name)
        return f"switch off {host}, then: {forget}; then: {then}"

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
    def has_left_mastership(self) -> bool:
        """Whether the host will not be the master when it leaves."""
        return bool(self.successor) and self.successor != self.host.uuid

    @property
    def guests(self) -> tuple[objects.Vm, ...]:
        """The virtual machines that are on the host and not halted."""
        return self.pool.guests_on(self.host)

    @property
    def is_gone(self) -> bool:
        """Whether the member is not there, so that it cannot be ejected."""
        return self.found is not None and self.found.who in identity.GONE

    @property
    def forgetting(self) -> str:
        """The commands that let the member go without touching it."""
        return findings.after_guests(
            self.host, self.guests, self.removing('--forget', '--yes')
        )


def roles(case: EjectCase, fate: str) -> checks.Problems:
    """What pool and other hosts use by default, of the storage that goes.

    :param fate: the end of the message: what becomes of it.
    """
    target = storage_roles.refuge(case.pool, case.host.ref)
    for sr in case.leaving_srs:
        for owner, name, found in storage_roles.pointers(
            case.pool, sr.ref.__eq__
        ):
            if owner.ref == case.host.ref:
                continue
            yield checks.warning(
                f"{sr.name} is the {' and the '.join(found)} of {name}{fate}",
                storage_roles.pointing(owner, found.values(), target),
                findings.at_fault(sr, owner, name=name),
            )


def memories(
    case: EjectCase,
) -> collections.abc.Iterator[
    tuple[objects.Vm, str, objects.Vdi, objects.Storage]
]:
    """Return the memory images on storage that goes.

    :returns: (the machine, what kind it is, the image, its storage).
    """
    going = {sr.ref: sr for sr in case.leaving_srs}
    for vm in case.pool.vms.values():
        image = case.pool.vdis.get(vm.suspend_vdi or '')
        sr = going.get(image.sr or '') if image else None
        if image is None or sr is None:
            continue
        kind = 'snapshot' if vm.is_a_snapshot else 'suspended virtual machine'
        yield vm, kind, image, sr
