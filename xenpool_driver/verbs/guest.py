# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The guest in which a host's compute service runs, around a join or eject.

Nova's dom0 plug-in did the same (``xenhost.py``, ``host_join``): shut the
guest down cleanly, act, and start it again, also when the act has failed.
"""

from __future__ import annotations

import typing

from xenpool_driver import exceptions, operation
from xenpool_driver.xapi import client


def stop(
    site: operation.Site,
    host: str,
    journal: operation.Journal,
    allowed: typing.Callable[[], None],
) -> None:
    """Shut the compute service's guest on ``host`` down, if it has one.

    :param allowed: raises if the pool must not be changed.
    :raises XapiError: it cannot be shut down; nothing else was done.
    """
    uuid = site.connections.access(host).compute_vm_uuid
    if uuid:
        allowed()
        journal.phase('stop compute guest', uuid, compute_vm_uuid=uuid)
        door = site.connections.coordinator_of(host)
        journal.changes(door).vm_shutdown(uuid)


def start(
    site: operation.Site,
    host: str,
    journal: operation.Journal,
    coordinator: typing.Callable[[], client.Client],
    member: bool | None,
) -> None:
    """Start the guest that :func:`stop` has shut down, wherever it is now.

    :param coordinator: finds the pool's master.
    :param member: whether ``host`` belongs to that pool now.
    :raises XapiError: it does not start.
    """
    uuid = journal.details.get('compute_vm_uuid')
    if not uuid:
        return
    journal.phase('start compute guest', uuid)
    door = coordinator() if member else site.connections.client(host)
    try:
        journal.changes(door).vm_start(uuid)
    except exceptions.XapiRefused as error:
        # VM_BAD_POWER_STATE [vm, expected, actual]: it runs already.
        if error.code != 'VM_BAD_POWER_STATE':
            raise
