# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Versions, updates and processors."""

from __future__ import annotations

import collections.abc
import re

from xenpool_driver import findings, objects
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases

_LINUX_PACK = 'xs:linux'

_NOT_FOUND = ('INTERNAL_ERROR', 'Not_found')
"""What XAPI raises when it looks for a map key that is not there."""


def joiner_guidances(case: cases.JoinCase) -> check.Problems:
    """Rule 11: mandatory guidance that waits on the joiner."""
    yield from _guidances(case.me)


def pool_guidances(case: cases.JoinCase) -> check.Problems:
    """Rule 11b: mandatory guidance that waits on the coordinator."""
    yield from _guidances(case.master)


_GUIDANCE_REMEDIES = {
    'reboot_host': 'xe host-disable uuid={0}; xe host-reboot uuid={0}',
    'restart_toolstack': 'xe-toolstack-restart',
}


def _guidances(host: objects.Host) -> check.Problems:
    if not host.pending_guidances:
        return
    message = (
        f"updates of {host.name} are not complete: "
        f"{findings.listed(host.pending_guidances)}"
    )
    pattern = next(
        (
            text
            for guidance, text in _GUIDANCE_REMEDIES.items()
            if any(g.startswith(guidance) for g in host.pending_guidances)
        ),
        'xe-toolstack-restart',
    )
    remedy = f"on {host.name}: {pattern.format(host.uuid)}"
    yield check.Problem(
        message,
        remedy,
        ('HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY', host.ref),
        findings.at_fault(host),
    )


def _brand(version: collections.abc.Mapping[str, str]) -> str | None:
    """Return what tells products apart: the brand, else the platform."""
    return version.get('product_brand', version.get('platform_name'))


def compatible(case: cases.JoinCase) -> check.Problems:
    """Rule 12: ``assert_hosts_compatible``."""
    mine, theirs = case.me.software_version, case.master.software_version
    differing = [
        f"{what} {ours or 'unknown'} against {other or 'unknown'}"
        for what, ours, other in (
            (
                'platform version',
                mine.get('platform_version'),
                theirs.get('platform_version'),
            ),
            ('brand', _brand(mine), _brand(theirs)),
        )
        if ours != other
    ]
    if differing:
        yield check.Problem(
            f"{case.me.name} runs another product or version than "
            f"{case.master.name}: {findings.listed(differing)}",
            f"install on {case.me.name} what {case.master.name} runs: "
            f"{_product(theirs)}",
            ('HOSTS_NOT_COMPATIBLE',),
            findings.at_fault(case.me, case.master),
        )


def _product(version: collections.abc.Mapping[str, str]) -> str:
    brand = _brand(version) or 'the same product'
    return f"{brand} {version.get('product_version', '')}".strip()


def _homogeneous_fields(host: objects.Host, key: str) -> dict[str, str]:
    version = host.software_version
    return {
        f"{key} version": version.get(key, ''),
        'brand': _brand(version) or '',
        'git_id': version.get('git_id', ''),
        'linux pack': 'installed' if _LINUX_PACK in version else 'absent',
    }


def homogeneous(case: cases.JoinCase) -> check.Problems:
    """Rule 13: ``assert_hosts_homogeneous``, software; force skips it.

    Which version counts has changed in 22.13.
    """
    new = case.asks((22, 13), 'host.last_software_update')
    key = 'xapi' if new else 'platform_version'
    mine = _homogeneous_fields(case.me, key)
    theirs = _homogeneous_fields(case.master, key)
    differing = [
        f"{what} '{mine[what]}' against '{theirs.get(what, '')}'"
        for what in mine
        if mine[what] != theirs.get(what, '')
    ]
    if differing:
        yield check.Problem(
            f"the software of {case.me.name} differs from that of "
            f"{case.master.name}: {findings.listed(differing)}",
            f"on {case.me.name}: yum update, then xe-toolstack-restart; or "
            f"repeat with --force",
            ('HOSTS_NOT_HOMOGENEOUS', 'Software version differs'),
            findings.at_fault(case.me, case.master),
            force_passes=True,
        )


def cpu_vendor(case: cases.JoinCase) -> check.Problems:
    """Rule 13b: the joiner's CPU vendor against the pool's; force skips it."""
    mine = case.me.cpu_info.get('vendor')
    theirs = case.their_pool.cpu_info.get('vendor')
    if mine == theirs and mine is not None:
        return
    missing = mine is None or theirs is None
    yield check.Problem(
        f"the processors of {case.me.name} are made by {mine or 'nobody'}, "
        f"those of the pool by {theirs or 'nobody'}",
        f"on {case.master.name}: xe-toolstack-restart, which records the "
        f"processors again; or repeat with --force"
        if missing
        else 'use a host with the same make of processors; or repeat with '
        '--force, and know that no VM can move between them',
        _NOT_FOUND if missing else ('HOSTS_NOT_HOMOGENEOUS', 'CPUs differ'),
        findings.at_fault(case.me)
        + findings.at_fault(case.their_pool, name=case.pool.name),
        force_passes=True,
    )


def api_version(case: cases.JoinCase) -> check.Problems:
    """Rule 23: ``assert_api_version_matches``."""
    mine, theirs = case.me.api_version, case.master.api_version
    if mine != theirs:
        texts = [f"{major}.{minor}" for major, minor in (mine, theirs)]
        yield check.Problem(
            f"{case.me.name} speaks API {texts[0]}, {case.master.name} "
            f"{texts[1]}",
            _update_the_older(case, mine < theirs),
            ('POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION', *texts),
            findings.at_fault(case.me, case.master),
        )


def db_schema(case: cases.JoinCase) -> check.Problems:
    """Rule 24: ``assert_db_schema_matches``; a missing one never matches."""
    mine = case.me.software_version.get('db_schema', '')
    theirs = case.master.software_version.get('db_schema', '')
    if mine != theirs or not mine:
        yield check.Problem(
            f"{case.me.name} has database schema {mine or 'unknown'}, "
            f"{case.master.name} {theirs or 'unknown'}",
            _update_the_older(case, _numbers(mine) < _numbers(theirs)),
            ('POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA', mine, theirs),
            findings.at_fault(case.me, case.master),
        )


def _update_the_older(case: cases.JoinCase, joiner: bool) -> str:
    name = case.me.name if joiner else case.master.name
    return f"on {name}: yum update, then xe-toolstack-restart"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall('[0-9]+', version))


def pool_updates(case: cases.JoinCase) -> check.Problems:
    """Rule 25: ``assert_homogeneous_updates``, against the master's only."""
    mine = _enforced(case.me, case.joiner.updates)
    theirs = _enforced(case.master, case.pool.updates)
    differing = [
        (update, where)
        for ours, other, where in (
            (mine, theirs, case.me.name),
            (theirs, mine, case.master.name),
        )
        for uuid, update in sorted(ours.items())
        if uuid not in other
    ]
    if differing:
        what = findings.listed(
            f"{update.name_label or update.uuid} only on {where}"
            for update, where in differing
        )
        yield check.Problem(
            f"updates differ: {what}",
            findings.in_order(
                f"xe update-apply uuid={update.uuid} host="
                + (case.master if where == case.me.name else case.me).uuid
                for update, where in differing
            ),
            (
                'HOSTS_NOT_HOMOGENEOUS',
                f"Updates on local host {case.me.name_label} and pool host "
                f"{case.master.name_label} differ",
            ),
            findings.at_fault(*(update for update, _ in differing)),
        )


def _enforced(
    host: objects.Host,
    updates: collections.abc.Mapping[str, objects.PoolUpdate],
) -> dict[str, objects.PoolUpdate]:
    found = (updates.get(ref) for ref in host.updates)
    return {
        u.uuid: u for u in found if u is not None and u.enforce_homogeneity
    }


def synced_updates(case: cases.JoinCase) -> check.Problems:
    """Hosts of one update channel should hold the same state of it."""
    mine, theirs = case.me.last_update_hash, case.master.last_update_hash
    if mine and theirs and mine != theirs:
        yield check.warning(
            f"{case.me.name} was last updated to {mine}, "
            f"{case.master.name} to {theirs}",
            f"on {case.me.name}: xe host-apply-updates uuid={case.me.uuid} "
            f"hash={theirs}",
            findings.at_fault(case.me, case.master),
        )


_PACK = re.compile('^[^:]+:[^:]+$')
_BASE_PACKS = frozenset({'xs:main', 'xcp:main', _LINUX_PACK})


def supplemental_packs(case: cases.JoinCase) -> check.Problems:
    """XenCenter's rule: the same packs in the same versions everywhere."""
    mine, theirs = _packs(case.me), _packs(case.master)
    differing = [
        f"{pack} ({mine.get(pack, 'absent')} against "
        f"{theirs.get(pack, 'absent')})"
        for pack in sorted(mine.keys() | theirs.keys())
        if mine.get(pack) != theirs.get(pack)
    ]
    if differing:
        yield check.warning(
            f"supplemental packs of {case.me.name} and {case.master.name} "
            f"differ: {findings.listed(differing)}",
            'install the same packs on both; see: xe update-list',
            findings.at_fault(case.me, case.master),
        )


def _packs(host: objects.Host) -> dict[str, str]:
    return {
        key: text
        for key, text in host.software_version.items()
        if _PACK.match(key) and key not in _BASE_PACKS
    }


_LEVELS = (
    ('features_hvm_host', 'features_hvm'),
    ('features_pv_host', 'features_pv'),
)
"""Keys of ``cpu_info`` that tell the features of a kind of machine, the
newer first. The older one means the same for a host that is alone."""


def cpu_level(case: cases.JoinCase) -> check.Problems:
    """XenCenter's rule: the pool runs at the level of its weakest host.

    With a batch the level after all joins counts. What a record does not
    tell is unknown, not equal.
    """
    infos = case.me.cpu_info, case.their_pool.cpu_info
    names = case.me.name, case.pool.name
    silent = set[str]()
    told = False
    for keys in _LEVELS:
        newest = next(
            (k for k in keys if any(_words(i, k) for i in infos)), ''
        )
        silent |= {
            name
            for name, info in zip(names, infos, strict=True)
            if newest and not _words(info, newest)
        }
        key = next((k for k in keys if all(_words(i, k) for i in infos)), '')
        if not key:
            continue
        told = True
        mine, theirs = (_common([_words(info, key)]) for info in infos)
        if mine != theirs:
            yield from _levelling(case, mine, theirs, _after(case, key))
            return
    if silent or not told:
        whose = findings.listed(sorted(silent)) or 'both'
        yield check.undecided(
            f"the processor features of {case.me.name} and of the pool "
            f"{case.pool.name} cannot be compared: the records of {whose} do "
            f"not tell them all",
            f"on {case.me.name} and on {case.master.name}: xe host-cpu-info",
        )


def _after(case: cases.JoinCase, key: str) -> tuple[int, ...]:
    """Return the level of the pool after all joins of the request."""
    infos = [case.their_pool.cpu_info, case.me.cpu_info] + [
        records.coordinator.cpu_info
        for records in case.batch
        if records.coordinator is not None
    ]
    return _common([found for info in infos if (found := _words(info, key))])


def _levelling(
    case: cases.JoinCase,
    mine: tuple[int, ...],
    theirs: tuple[int, ...],
    after: tuple[int, ...],
) -> check.Problems:
    if _common([mine, theirs]) != theirs:
        yield check.warning(
            f"{case.me.name} has fewer processor features than the pool "
            f"{case.pool.name}, which will be levelled down to it; running "
            f"VMs keep the old level and cannot move to {case.me.name}",
            'restart the VMs of the pool after the join, or keep this host '
            'out of it',
            findings.at_fault(case.me),
        )
    if _common([mine, after]) != mine:
        yield check.warning(
            f"{case.me.name} has more processor features than the pool "
            f"{case.pool.name} will have, and will be levelled down",
            'none needed; its own VMs see fewer features',
            findings.at_fault(case.me),
        )


def _words(
    info: collections.abc.Mapping[str, str], kind: str
) -> tuple[int, ...]:
    text = info.get(kind, '')
    if not re.fullmatch('[0-9a-fA-F]+(-[0-9a-fA-F]+)*', text):
        return ()
    return tuple(int(word, 16) for word in text.split('-'))


def _common(levels: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the features that all have; missing words count as empty."""
    width = max(len(level) for level in levels)
    padded = [level + (0,) * (width - len(level)) for level in levels]
    found = list(padded[0])
    for level in padded[1:]:
        found = [a & b for a, b in zip(found, level, strict=True)]
    while found and not found[-1]:
        found.pop()
    return tuple(found)
