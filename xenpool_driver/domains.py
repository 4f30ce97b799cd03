# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Records of control domains that run nowhere, and what they lead to. Pure.

When the master's toolstack restarts between the success of ``pool.join`` and
the joiner's own restart, it unties the joiner's control domain, which does
not run yet, from its host (``dbsync_master.ml``). The joiner can then neither
take the record over nor make another one with its uuid (``create_misc.ml``):
it answers HOST_STILL_BOOTING for ever (recorded). ``host.destroy`` leaves the
record behind, and the next join of the same machine sticks again.
"""

from __future__ import annotations

import collections.abc
import shlex

from xenpool_driver import objects

BOOTING = 'HOST_STILL_BOOTING'
"""What a host says that is stuck so, and one that just starts."""

_OF_SERVICES = ('is_system_domain', 'storage_driver_domain')
"""Keys in other_config of control domains that are no host's dom0
(``system_domains.ml``)."""

Domains = collections.abc.Collection[objects.Vm]


def runs_nowhere(
    vm: objects.Vm, hosts: collections.abc.Collection[objects.Ref]
) -> bool:
    """Say whether the control domain of a host is tied to no host.

    One that a join has just brought is halted, too, but tied to its host.

    :param hosts: the references of the pool's hosts.
    """
    return (
        vm.is_control_domain
        and vm.power_state == 'Halted'
        and vm.resident_on not in hosts
        and not any(key in vm.other_config for key in _OF_SERVICES)
    )


def blocking(
    host: objects.Host,
    domains: Domains,
    hosts: collections.abc.Collection[objects.Ref],
) -> objects.Vm | None:
    """Return the record that keeps a member from ever being ready, or None.

    :param host: the member, as the master has it.
    :param domains: the pool's control domains; others do not matter.
    :param hosts: the references of the pool's hosts.
    """
    for vm in domains if not host.enabled else ():
        if vm.ref == host.control_domain and runs_nowhere(vm, hosts):
            return vm
    return None


def left_over(
    domains: Domains, hosts: collections.abc.Collection[objects.Host]
) -> list[objects.Vm]:
    """Return the control domains that are, for sure, of no host of the pool.

    While a host has no control domain yet, none is: a join makes the record
    of the host first and that of its control domain next, and ties them only
    when the host has restarted (recorded).

    :param domains: the pool's control domains; others do not matter.
    :param hosts: the pool's hosts.
    """
    known = {vm.ref for vm in domains}
    if all(host.control_domain in known for host in hosts):
        return unclaimed(domains, hosts)
    return []


def unclaimed(
    domains: Domains, hosts: collections.abc.Collection[objects.Host]
) -> list[objects.Vm]:
    """Return the control domains that no host of the pool names.

    :param domains: the pool's control domains; others do not matter.
    :param hosts: the pool's hosts.
    """
    refs = {host.ref for host in hosts}
    named = {host.control_domain for host in hosts}
    return [
        vm for vm in domains if runs_nowhere(vm, refs) and vm.ref not in named
    ]


def destroying(aggregate: str) -> str:
    """Return the command that destroys what is left over in a pool.

    No command of XAPI's own command line does (``vm_destroy`` of
    ``cli_operations.ml`` refuses every control domain).

    :param aggregate: the name of the pool's aggregate.
    """
    return shlex.join(('xenpool', 'aggregate', 'audit', aggregate, '--fix'))
