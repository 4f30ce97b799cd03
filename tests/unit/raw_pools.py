# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Raw records of pools that fit together, to be spoilt by tests."""

from __future__ import annotations

import copy
import functools
import json
import pathlib
import typing

from xenpool_driver import snapshot
from xenpool_driver.xapi import records

RECORDINGS = pathlib.Path(__file__).parents[1] / 'data' / 'recordings'

Raw = dict[str, dict[str, dict[str, typing.Any]]]


@functools.cache
def _pair() -> tuple[Raw, Raw]:
    path = RECORDINGS / 'refusals' / '131-paused-vm-on-joiner.json'
    case = json.loads(path.read_text())
    joiner, pool = case['joiner'], case['coordinator']
    for side in (joiner, pool):
        side['VM'] = {
            ref: vm
            for ref, vm in side['VM'].items()
            if vm['is_control_domain']
        }
        side.update({'VDI': {}, 'VBD': {}})
    return joiner, pool


def pair() -> tuple[Raw, Raw]:
    """Return a joiner and a pool of one host that XAPI would let join."""
    return copy.deepcopy(_pair())


@functools.cache
def _three() -> Raw:
    path = RECORDINGS / 'pools' / 'three-host-pool.json'
    raw: Raw = json.loads(path.read_text())
    for cls in ('VDI', 'VBD', 'SR', 'PBD', 'pool_update'):
        raw.setdefault(cls, {})
    return raw


def three() -> Raw:
    """Return a pool of three hosts."""
    return copy.deepcopy(_three())


def only(raw: Raw, cls: str) -> dict[str, typing.Any]:
    """Return the one record of a class."""
    (record,) = raw[cls].values()
    return record


def host(raw: Raw, master: bool = True) -> tuple[str, dict[str, typing.Any]]:
    """Return the master's reference and record, or the first member's."""
    chosen = only(raw, 'pool')['master']
    if not master:
        chosen = next(ref for ref in raw['host'] if ref != chosen)
    return chosen, raw['host'][chosen]


def add(raw: Raw, cls: str, name: str, /, **fields: typing.Any) -> str:
    """Add a record; return its reference, made of ``name``."""
    ref = f"OpaqueRef:{cls}-{name}"
    raw[cls][ref] = {'uuid': f"uuid-{cls}-{name}", **fields}
    return ref


def add_sr(
    raw: Raw, name: str, host_refs: list[str], shared: bool = False
) -> str:
    """Add an SR, plugged on these hosts."""
    ref = add(
        raw,
        'SR',
        name,
        name_label=name,
        type='nfs' if shared else 'ext',
        shared=shared,
        is_tools_sr=False,
        physical_size='1000',
        physical_utilisation='10',
    )
    for number, host_ref in enumerate(host_refs):
        add(
            raw,
            'PBD',
            f"{name}-{number}",
            SR=ref,
            host=host_ref,
            currently_attached=True,
            device_config={'server': '127.0.0.99'} if shared else {},
        )
    return ref


def parse(raw: Raw, **options: typing.Any) -> snapshot.PoolSnapshot:
    """Return the snapshot of raw records."""
    return records.snapshot(raw, **options)
