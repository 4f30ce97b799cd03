# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What an operation changes in XAPI, and the logins that it does it with.

Nothing here can be had without a :class:`~xenpool_driver.xapi.permit.Permit`,
and nothing else in the package changes anything in XAPI. Each change is one
attempt on a connection of its own. Where a call has an ``Async`` form that
one is used: what a worker has started can be found by its task when the
worker is gone. What the methods raise is told once, here:

``XapiRefused``
    XAPI answered with an error.
``NotPoolMaster``
    The host is a member by now.
``XapiUnavailable``
    It was not carried out; a retry is safe.
``XapiOutcomeUnknown``
    It was sent and there is no answer: look before doing it again.
``LeaseLost``
    It was not sent: the operation may be another worker's.
"""

from __future__ import annotations

import threading
import typing

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions, redaction
from xenpool_driver.xapi import (
    changing,
    client,
    discovery,
    session,
    tasks,
)
from xenpool_driver.xapi import permit as permits

TASK_TIMEOUT = 600.0
"""Seconds for the calls that return only when their task has ended."""

POLL = 0.5
"""Seconds between two looks at such a task."""


class Logins:
    """The logins of one operation, one to each host that it changes.

    :param permit: the operation's right to change something.
    :param clock: time.
    :param factory: makes XenAPI sessions.
    :param patience: seconds that a host has to end a login.
    """

    def __init__(
        self,
        permit: permits.Permit,
        clock: clocks.Clock = clocks.SYSTEM,
        factory: session.Factory = session.FACTORY,
        patience: float = 5.0,
    ) -> None:
        self._permit = permit
        self._clock = clock
        self._factory = factory
        self._patience = patience
        self._lock = threading.Lock()
        self._homes: dict[tuple[str, bool], changing.ChangingSession] = {}

    def pool(self, door: client.Client) -> PoolChanges:
        """Return what may be changed through the master of a pool.

        :param door: the way to it.
        """
        return PoolChanges(door, self._home(door, False), self._clock)

    def host(self, door: client.LocalClient) -> HostChanges:
        """Return what may be changed on a host itself.

        :param door: the way to it.
        """
        return HostChanges(self._home(door, True))

    def end_adrift(self) -> None:
        """End the logins over which calls went that nobody answered."""
        for home in list(self._homes.values()):
            home.end_adrift()

    def end(self) -> None:
        """Log out everywhere, as far as the hosts answer in time."""
        with self._lock:
            homes, self._homes = self._homes, {}
        discovery.at_once(
            [home.end for home in homes.values()],
            2 * self._patience + discovery.GRACE,
        )

    def _home(
        self, door: client.Client | client.LocalClient, local: bool
    ) -> changing.ChangingSession:
        access = door.access
        with self._lock:
            home = self._homes.get((access.url, local))
            if home is None:
                home = changing.ChangingSession(
                    access, self._permit, self._factory, local, self._patience
                )
                self._homes[access.url, local] = home
        return home


class PoolChanges:
    """Changes something through the master of a pool.

    :param door: reads what the changes need.
    :param home: the login to make them with.
    :param clock: time.
    """

    def __init__(
        self,
        door: client.Client,
        home: changing.ChangingSession,
        clock: clocks.Clock,
    ) -> None:
        self._door = door
        self._home = home
        self._clock = clock

    def write(self, method: str, *args: typing.Any) -> typing.Any:
        """Make any call that changes something, once.

        :param method: for example ``host.set_name_label``.
        :param args: its arguments, without the session.
        """
        return self._home.change(method, *args)

    # Changes that run on as a task

    def join(
        self, address: str, username: str, password: str, force: bool = False
    ) -> tasks.Task:
        """Let this host, a pool of one, join the pool of another master.

        :param address: the master's address, never a URL.
        :param username: who logs in there.
        :param password: the secret for that.
        :param force: go on in spite of what ``join_force`` ignores.
        """
        secret = redaction.Secret(password)
        del password  # a traceback may show this frame
        method = 'Async.pool.join_force' if force else 'Async.pool.join'
        return self._start(method, address, username, secret)

    def eject(self, uuid: str) -> tasks.Task:
        """Let a member leave; its local disks are wiped.

        :param uuid: its XenServer uuid.
        """
        return self._start('Async.pool.eject', self._ref_of('host', uuid))

    def designate(self, uuid: str) -> tasks.Task:
        """Make a member the master; every toolstack of the pool restarts.

        :param uuid: its XenServer uuid.
        """
        return self._start(
            'Async.pool.designate_new_master', self._ref_of('host', uuid)
        )

    def evacuate(self, uuid: str) -> tasks.Task:
        """Move all virtual machines of a member away; it is not disabled.

        :param uuid: its XenServer uuid.
        """
        return self._start('Async.host.evacuate', self._ref_of('host', uuid))

    def recover_slaves(self) -> tasks.Task:
        """Make every member that answers take this host for its master.

        Never on a member: it would obey (as recorded).
        """
        return self._start('Async.pool.recover_slaves')

    def sync_database(self) -> tasks.Task:
        """Write the pool's database to the disks of all members.

        XAPI does that by itself, too, but gives one member after the other a
        copy, five minutes apart (``pool_db_backup.ml``).
        """
        return self._start('Async.pool.sync_database')

    # Changes that are complete on return

    def set_pool_name(self, label: str) -> None:
        """Name the pool.

        :param label: the name; '' for none.
        """
        self.write('pool.set_name_label', self._pool_ref(), label)

    def add_pool_other_config(self, key: str, value: str) -> None:
        """Add a key to the pool's other_config.

        A key that is there already makes ``XapiRefused`` with
        ``MAP_DUPLICATE_KEY``: of two that try, one wins.
        """
        self.write('pool.add_to_other_config', self._pool_ref(), key, value)

    def remove_pool_other_config(self, key: str) -> None:
        """Remove a key of the pool's other_config, if it is there."""
        self.write('pool.remove_from_other_config', self._pool_ref(), key)

    def disable_host(self, uuid: str) -> None:
        """Let no more virtual machines start on a member.

        :param uuid: its XenServer uuid.
        """
        self._complete('Async.host.disable', self._ref_of('host', uuid))

    def enable_host(self, uuid: str) -> None:
        """Let virtual machines start on a member again.

        :param uuid: its XenServer uuid.
        """
        self._complete('Async.host.enable', self._ref_of('host', uuid))

    def destroy_host(self, uuid: str) -> None:
        """Forget a dead member; XAPI itself makes sure that it is dead.

        :param uuid: its XenServer uuid.
        """
        self._complete('Async.host.destroy', self._ref_of('host', uuid))

    def enable_ha(
        self,
        sr_uuids: typing.Sequence[str],
        configuration: typing.Mapping[str, str],
    ) -> None:
        """Switch HA on.

        :param sr_uuids: the SRs that hold its state files.
        :param configuration: HA's settings, for example its timeout.
        """
        refs = [self._ref_of('SR', uuid) for uuid in sr_uuids]
        self._complete('Async.pool.enable_ha', refs, dict(configuration))

    def disable_ha(self) -> None:
        """Switch HA off."""
        self._complete('Async.pool.disable_ha')

    def set_ha_tolerance(self, hosts: int) -> None:
        """Say how many hosts HA shall survive the loss of."""
        self._complete(
            'Async.pool.set_ha_host_failures_to_tolerate',
            self._pool_ref(),
            str(hosts),
        )

    def vm_shutdown(self, vm_uuid: str) -> None:
        """Shut a virtual machine down cleanly.

        :param vm_uuid: its uuid.
        """
        self._complete('Async.VM.clean_shutdown', self._ref_of('VM', vm_uuid))

    def vm_start(self, vm_uuid: str, host_uuid: str | None = None) -> None:
        """Start a virtual machine.

        :param vm_uuid: its uuid.
        :param host_uuid: where; None lets XAPI choose.
        """
        ref = self._ref_of('VM', vm_uuid)
        if host_uuid is None:
            self._complete('Async.VM.start', ref, False, False)
            return
        host = self._ref_of('host', host_uuid)
        self._complete('Async.VM.start_on', ref, host, False, False)

    def destroy_vm(self, vm_uuid: str) -> None:
        """Destroy the records of a virtual machine; its disks stay.

        :param vm_uuid: its uuid.
        """
        self._complete('Async.VM.destroy', self._ref_of('VM', vm_uuid))

    def forget_tasks(self, tasks: typing.Iterable[str]) -> None:
        """Let XAPI forget tasks that have ended.

        :param tasks: their references.
        """
        for ref in tasks:
            self._door.task(ref, self._home).destroy()

    def _start(self, method: str, *args: typing.Any) -> tasks.Task:
        return self._door.task(self.write(method, *args), self._home)

    def _complete(self, method: str, *args: typing.Any) -> None:
        """Start a task and wait for it to succeed."""
        tasks.wait(self._start(method, *args), self._clock, TASK_TIMEOUT, POLL)

    def _ref_of(self, cls: str, uuid: str) -> typing.Any:
        return self._door.read(f"{cls}.get_by_uuid", uuid)

    def _pool_ref(self) -> typing.Any:
        found = self._door.read('pool.get_all')
        if len(found) != 1:
            raise exceptions.XapiUnavailable(
                'has no pool yet', self._door.name
            )
        return found[0]


class HostChanges:
    """Changes something on a host itself, whoever its master is.

    XAPI has no record of such a login, so nobody can end it but who has it
    (recorded: ``session.logout`` of one has no effect).

    :param home: the login to do it with.
    """

    def __init__(self, home: changing.ChangingSession) -> None:
        self._home = home

    def emergency_transition_to_master(self) -> None:
        """Make the host the master, without asking anybody else.

        XAPI refuses with ``HA_IS_ENABLED`` while HA is armed on the host.
        """
        self._home.change('pool.emergency_transition_to_master')

    def emergency_reset_master(self, address: str) -> None:
        """Make the host a member of the pool of another master.

        :param address: the master's address.
        """
        self._home.change('pool.emergency_reset_master', address)
