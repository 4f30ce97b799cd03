# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Storage: what the joiner has, what the pool wants it to reach."""

from __future__ import annotations

import collections.abc
import ipaddress

from xenpool_driver import findings, objects, snapshot
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases

_SERVER_KEYS = ('server', 'target', 'serverpath', 'location')
"""Keys of ``PBD.device_config`` that may hold a server's address."""

_FULL = 0.95
"""Part of an SR in use above which it counts as full."""


def shared_on_joiner(case: cases.JoinCase) -> check.Problems:
    """Rule 14: ``assert_no_shared_srs_on_me``; the tools SR may stay."""
    found = [
        sr
        for sr in case.joiner.srs.values()
        if sr.shared and not sr.is_tools_sr
    ]
    if found:
        yield check.Problem(
            f"{case.me.name} has shared storage: "
            f"{findings.listed(sr.name for sr in found)}",
            f"on {case.me.name}: {_forgetting(case.joiner, found)}"
            + ' (its disks stay on the server; attach it to the pool later)',
            ('JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS',),
            findings.at_fault(*found),
        )


def _forgetting(
    side: snapshot.PoolSnapshot,
    found: collections.abc.Sequence[objects.Storage],
) -> str:
    """Return what makes a host forget storage: unplugged first."""
    steps = []
    for sr in found[:3]:
        steps += [
            f"xe pbd-unplug uuid={pbd.uuid}"
            for pbd in side.pbds_of_sr(sr)
            if pbd.currently_attached
        ]
        steps.append(f"xe sr-forget uuid={sr.uuid}")
    return '; '.join(steps)


def sm_drivers(case: cases.JoinCase) -> check.Problems:
    """Rules 33 and 33b: ``assert_sm_features_compatible``.

    The pool's drivers are visited one by one, each first for presence, then
    for features.
    """
    for theirs in case.pool.sms.values():
        mine = [
            sm for sm in case.joiner.sms.values() if sm.type == theirs.type
        ]
        if len(mine) != 1:
            yield _driver_problem(
                case,
                theirs,
                None,
                f"{case.me.name} has {'no' if not mine else len(mine)} "
                f"storage drivers of type '{theirs.type}', which the pool "
                f"has",
            )
            continue
        weaker = [
            f"{feature}/{version}"
            for feature, version in theirs.features.items()
            if mine[0].features.get(feature, -1) < version
        ]
        if weaker:
            yield _driver_problem(
                case,
                theirs,
                mine[0],
                f"the storage driver '{theirs.type}' of {case.me.name} lacks "
                f"what the pool's has: {findings.listed(weaker)}",
            )


def _driver_problem(
    case: cases.JoinCase,
    theirs: objects.SmDriver,
    mine: objects.SmDriver | None,
    message: str,
) -> check.Problem:
    return check.Problem(
        message,
        f"bring {case.me.name} to the software of the pool: yum update, then "
        f"xe-toolstack-restart",
        (
            'POOL_JOINING_SM_FEATURES_INCOMPATIBLE',
            theirs.ref,
            mine.ref if mine else '',
        ),
        findings.at_fault(theirs, mine, name=theirs.type),
    )


def shared_reachable(case: cases.JoinCase) -> check.Problems:
    """A member must reach every shared SR; nobody checks that before.

    What the coordinator's own connection uses tells which of the pool's
    networks the storage is on; the joiner needs an address there.
    """
    for sr in case.pool.srs.values():
        pbd = next(
            (p for p in case.pool.pbds_of(case.master) if p.sr == sr.ref),
            None,
        )
        if sr.shared and not sr.is_tools_sr and pbd is not None:
            yield from _reach(case, sr, pbd)


def _reach(
    case: cases.JoinCase, sr: objects.Storage, pbd: objects.Pbd
) -> check.Problems:
    if not pbd.currently_attached:
        yield check.warning(
            f"the pool's shared storage {sr.name} is not plugged on its own "
            f"coordinator {case.master.name}",
            f"xe pbd-plug uuid={pbd.uuid}",
            findings.at_fault(sr, pbd, name=sr.name),
        )
    server = _server(pbd.device_config)
    if server is None:
        yield check.undecided(
            f"whether {case.me.name} reaches the shared storage {sr.name} "
            f"({sr.type}) shows in no record",
            f"check cabling, zoning and names on {case.me.name}",
        )
        return
    used = _interface_towards(case.pool.pifs_of(case.master), server)
    if used is None:
        yield check.undecided(
            f"the pool reaches its shared storage {sr.name} at {server} "
            f"through a router; whether {case.me.name} does too shows in no "
            f"record",
            f"on {case.me.name}: ping -c1 {server}",
        )
        return
    if _interface_towards(case.joiner.pifs_of(case.me), server) is not None:
        return
    network = case.pool.networks.get(used.network) if used.network else None
    label = network.name_label if network else used.device
    device = next(
        (p for p in case.joiner.pifs_of(case.me) if p.device == used.device),
        None,
    )
    yield check.warning(
        f"the pool reaches its shared storage {sr.name} at {server} through "
        f"the network '{label}' ({used.name}); {case.me.name} has no address "
        f"there",
        f"on {case.me.name}: xe pif-reconfigure-ip "
        f"uuid={device.uuid if device else 'PIF'} mode=static "
        f"IP=ADDRESS netmask={used.netmask or 'NETMASK'}",
        findings.at_fault(sr, network),
    )


def _server(
    config: collections.abc.Mapping[str, str],
) -> objects.Address | None:
    for key in _SERVER_KEYS:
        text = config.get(key, '').removeprefix('//')
        for candidate in (text, text.split(',')[0], text.split('/')[0]):
            for plain in (candidate, candidate.rsplit(':', 1)[0]):
                try:
                    return ipaddress.ip_address(plain.strip('[]'))
                except ValueError:
                    continue
    return None


def _interface_towards(
    pifs: tuple[objects.Pif, ...], server: objects.Address
) -> objects.Pif | None:
    """Return the interface whose own subnet holds ``server``."""
    return next((pif for pif in pifs if pif.is_beside(server)), None)


def fullness(case: cases.JoinCase) -> check.Problems:
    """Disk space, as far as XAPI shows it: the joiner's own storage."""
    for sr in case.joiner.srs.values():
        size, used = sr.physical_size, sr.physical_utilisation
        if sr.content_type == 'iso' or sr.type in ('iso', 'udev'):
            continue
        if size > 0 and used / size > _FULL:
            yield check.warning(
                f"the storage {sr.name} of {case.me.name} is nearly full: "
                f"{findings.sized(used)} of {findings.sized(size)}",
                f"on {case.me.name}: xe vdi-list sr-uuid={sr.uuid}",
                findings.at_fault(sr),
            )


def duplicates(case: cases.JoinCase) -> check.Problems:
    """An SR of the joiner that the pool knows by the same uuid."""
    theirs = {sr.uuid for sr in case.pool.srs.values() if not sr.is_tools_sr}
    found = [sr for sr in case.joiner.srs.values() if sr.uuid in theirs]
    if found:
        yield check.warning(
            f"the pool knows storage with the uuids of "
            f"{findings.listed(sr.name for sr in found)} already",
            f"on {case.me.name}: {_forgetting(case.joiner, found)}",
            findings.at_fault(*found),
        )
