# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Storage: what the joiner has, what the pool wants it to reach."""

from __future__ import annotations

import collections.abc
import ipaddress

from xenpool_driver import findings, objects, snapshot
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases
from xenpool_driver.preflight.join import rewiring

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
    for sr in found:
        steps += [
            f"xe pbd-unplug uuid={pbd.uuid}"
            for pbd in side.pbds_of_sr(sr)
            if pbd.currently_attached
        ]
        steps.append(f"xe sr-forget uuid={sr.uuid}")
    return findings.in_order(steps)


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
        _driver_remedy(case, theirs, mine),
        (
            'POOL_JOINING_SM_FEATURES_INCOMPATIBLE',
            theirs.ref,
            mine.ref if mine else '',
        ),
        findings.at_fault(theirs, mine, name=theirs.type),
    )


_XOSTOR = 'linstor'
"""The type of storage that XCP-ng sells as XOSTOR."""


def _driver_remedy(
    case: cases.JoinCase,
    theirs: objects.SmDriver,
    mine: objects.SmDriver | None,
) -> str:
    """Return how the joiner gets a driver, or a better one.

    An update brings no driver that a package of its own brings: that of
    XOSTOR (XCP-ng's manual, "How to add a new host"), and others where both
    hosts run the same software.
    """
    if mine is None and theirs.type == _XOSTOR:
        return (
            f"on {case.me.name}: yum install -y xcp-ng-release-linstor; yum "
            f"install -y xcp-ng-linstor; xe-toolstack-restart"
            + ''.join(
                f"; and after the join, on {case.master.name}: {step}"
                for step in _xostor_nodes(case)
            )
        )
    same = case.me.software_version.get(
        'xapi_build'
    ) == case.master.software_version.get('xapi_build')
    if mine is None and same:
        return (
            f"install on {case.me.name} the package that brings it, then on "
            f"{case.me.name}: xe-toolstack-restart; to see the packages, on "
            f"{case.master.name}: rpm -qf /opt/xensource/sm/*SR"
        )
    return (
        f"bring {case.me.name} to the software of the pool: yum update, then "
        f"xe-toolstack-restart"
    )


def _xostor_nodes(case: cases.JoinCase) -> list[str]:
    """Return what makes a member a node of each XOSTOR of the pool."""
    return [
        _xostor_node(case, pbd)
        for pbd in case.pool.pbds_of(case.master)
        if (sr := case.pool.srs.get(pbd.sr or '')) and sr.type == _XOSTOR
    ]


def _xostor_node(case: cases.JoinCase, pbd: objects.Pbd) -> str:
    group = pbd.device_config.get('group-name', 'linstor_group/thin_device')
    return (
        f"xe host-call-plugin host-uuid={case.me.uuid} plugin=linstor-manager "
        f"fn=addHost args:groupName={group}"
    )


def multipathing(case: cases.JoinCase) -> check.Problems:
    """All hosts of a pool reach their storage the same way, by all paths.

    XAPI compares nothing. A member with another setting attaches the pool's
    block storage by one path, or not at all.
    """
    members = list(case.members)
    states = {host.is_multipathed for host in members}
    if len(states) > 1:
        on = findings.listed(h.name for h in members if h.is_multipathed)
        off = findings.listed(h.name for h in members if not h.is_multipathed)
        yield check.warning(
            f"multipathing is on on {on} and off on {off} of the pool",
            findings.in_order(
                _set_multipathing(host, True)
                for host in members
                if not host.is_multipathed
            ),
            findings.at_fault(*members),
        )
    wanted = case.master.is_multipathed
    if case.me.is_multipathed == wanted:
        return
    block = [
        f"{sr.name} ({sr.type})"
        for sr in case.pool.srs.values()
        if sr.shared and sr.type in _BLOCK_TYPES
    ]
    harm = (
        f": {findings.listed(block)} would be attached "
        + ('by one path' if wanted else 'differently')
        if block
        else ''
    )
    where = 'every member' if len(states) == 1 else case.master.name
    yield check.warning(
        f"multipathing is {'on' if wanted else 'off'} on {where} and "
        f"{'off' if wanted else 'on'} on {case.me.name}{harm}",
        f"on {case.me.name}, before the join: "
        f"{_set_multipathing(case.me, wanted)}",
        findings.at_fault(case.me, case.master),
    )


_BLOCK_TYPES = frozenset(
    {'lvmoiscsi', 'lvmohba', 'lvmofcoe', 'gfs2', 'iscsi', 'hba', 'rawhba'}
)
"""Types of storage that are reached by paths."""


def _set_multipathing(host: objects.Host, wanted: bool) -> str:
    """Return what to type; the field is newer than the map (Kolkata)."""
    value = str(wanted).lower()
    command = f"xe host-param-set uuid={host.uuid}"
    if 'multipathing' in host.fields:
        return f"{command} multipathing={value}"
    return (
        f"{command} other-config:multipathing={value} "
        f"other-config:multipathhandle=dmp"
    )


def initiators(case: cases.JoinCase) -> check.Problems:
    """Two hosts with one iSCSI name throw each other out of their sessions."""
    mine = case.me.initiator
    same = [
        host for host in case.neighbours if mine and host.initiator == mine
    ]
    if same:
        fresh = f"{mine.partition(':')[0]}:{case.me.uuid}"
        setting = f"iscsi_iqn={fresh}"
        if 'iscsi_iqn' not in case.me.fields:
            setting = f"other-config:{setting}"
        yield check.warning(
            f"{case.me.name} has the iSCSI name (IQN) {mine} of "
            f"{findings.listed(host.name for host in same)}: two hosts with "
            f"one name throw each other out of the storage",
            f"on {case.me.name}, before the join: xe host-param-set "
            f"uuid={case.me.uuid} {setting}",
            findings.at_fault(case.me, *same),
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
    if sr.type == _XOSTOR:
        yield check.undecided(
            f"the XOSTOR storage {sr.name} is reached by its nodes only, and "
            f"no record shows whether {case.me.name} is one",
            f"after the join, on {case.master.name}: "
            f"{_xostor_node(case, pbd)}",
        )
        return
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
            f"{_no_way(case, sr, server)}; whether {case.me.name} reaches it "
            f"shows in no record",
            f"on {case.me.name}: ping -c1 {server}",
        )
        return
    if _interface_towards(case.joiner.pifs_of(case.me), server) is None:
        yield _no_address_there(case, sr, used, server)


def _no_way(
    case: cases.JoinCase, sr: objects.Storage, server: objects.Address
) -> str:
    """Return how the pool is to reach a server beside none of its NICs."""
    what = f"its shared storage {sr.name} at {server}"
    for pif in case.pool.pifs_of(case.master):
        if pif.ip if server.version == 4 else rewiring.lasting(pif):
            return f"the pool reaches {what} through a router"
    return (
        f"{case.master.name} has no IPv{server.version} address in its "
        f"records, by which the pool would reach {what}"
    )


def _no_address_there(
    case: cases.JoinCase,
    sr: objects.Storage,
    used: objects.Pif,
    server: objects.Address,
) -> check.Problem:
    """Return what is said where the joiner needs an address of its own.

    :param used: the interface by which the master reaches the server.
    """
    network = case.pool.networks.get(used.network) if used.network else None
    label = network.name_label if network else used.device
    members = rewiring.bond_members(case.pool, case.master, used.device)
    devices = [pif.device for pif in members] or [used.device]
    nic = next(
        (p for p in case.joiner.pifs_of(case.me) if p.device in devices), None
    )
    return check.warning(
        f"the pool reaches its shared storage {sr.name} at {server} through "
        f"the network '{label}' ({used.name}); {case.me.name} has no address "
        f"there",
        f"on {case.me.name}: "
        + (
            rewiring.with_address(
                nic,
                used,
                f"IPv{server.version}",
                rewiring.addresses(case.joiner, case.pool, *case.batch),
            )
            if nic
            else f"xe pif-scan host-uuid={case.me.uuid}"
        ),
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
