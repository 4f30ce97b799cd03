# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Records that make no sense: refused as such, or judged; never a stumble.

Recorded pools are changed at random: fields go or get another type, values
that a host may hold where nobody expects them, references that lead nowhere.
"""

from __future__ import annotations

import copy
import functools
import json
import pathlib
import typing

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.unit import test_cli_commands as commands
from xenpool_driver import snapshot
from xenpool_driver.preflight import eject, forget, join, master
from xenpool_driver.reconcile import declared, health
from xenpool_driver.xapi import records

POOLS = pathlib.Path(__file__).parents[1] / 'data' / 'recordings' / 'pools'

config_file = commands.config_file
database = commands.database
driver = commands.driver
xenpool = commands.xenpool

ODD = (
    *('', 'x', '-1', '0', 'OpaqueRef:NULL', 'OpaqueRef:nowhere', '\x1b[2J'),
    *('300.1.1.1', '::', 'fe80::1%x', '19700101T00:00:00Z', '9' * 5000),
    *('true', 'é' * 300, '../..', '1.2.3.4/99', 'a,b', '{', '0x'),
)
VALUES = (
    st.sampled_from(ODD)
    | st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats()
    | st.lists(st.sampled_from(ODD), max_size=3)
    | st.dictionaries(st.sampled_from(ODD), st.sampled_from(ODD), max_size=3)
)


class Change(typing.NamedTuple):
    """One change to raw records.

    :ivar where: picks the class, the record, the field.
    :ivar kind: 'like' keeps the type of the field.
    """

    where: tuple[int, int, int]
    kind: str
    value: typing.Any


CHANGES = st.lists(
    st.builds(
        Change,
        st.tuples(*[st.integers(0, 10_000)] * 3),
        st.sampled_from(['like', 'like', 'like', 'like', 'any', 'drop']),
        VALUES,
    ),
    min_size=1,
    max_size=12,
)


@functools.cache
def recorded(name: str) -> dict[str, typing.Any]:
    found: dict[str, typing.Any] = json.loads((POOLS / name).read_text())
    return {cls: table for cls, table in found.items() if table}


def changed(
    name: str, changes: list[Change]
) -> dict[str, dict[str, dict[str, typing.Any]]]:
    """Return recorded records with changes."""
    raw = copy.deepcopy(recorded(name))
    classes = sorted(raw)
    for change in changes:
        table = raw[classes[change.where[0] % len(classes)]]
        if not table:
            continue
        ref = sorted(table)[change.where[1] % len(table)]
        record = table[ref]
        if not record:
            continue
        field = sorted(record)[change.where[2] % len(record)]
        if change.kind == 'drop':
            del record[field]
        elif change.kind == 'any':
            record[field] = change.value
        else:
            record[field] = _like(record[field], change.value)
    return raw


def _like(old: typing.Any, new: typing.Any) -> typing.Any:
    """Return a value of the old one's type, made of the new one."""
    text = new if isinstance(new, str) else 'x'
    if isinstance(old, bool):
        return not old
    if isinstance(old, str):
        return text
    if isinstance(old, int):
        return new if isinstance(new, int) else -1
    if isinstance(old, list):
        return [text, *old] if isinstance(new, str) else []
    if isinstance(old, dict):
        return {**old, text: text} if isinstance(new, str) else {}
    return new


def judged(joiner: snapshot.PoolSnapshot, pool: snapshot.PoolSnapshot) -> None:
    """Run every check that there is."""
    for force in (False, True):
        join.check(joiner, pool, force=force, now=1e9).to_dict()
    for host in pool.hosts.values():
        eject.check(pool, host.uuid).to_dict()
        forget.check(pool, host.uuid).to_dict()
        master.check(pool, host.uuid, now=1e9).to_dict()
    uuids = {host.name_label: host.uuid for host in pool.hosts.values()}
    says = declared.Declared(
        uuid='u',
        name='prod',
        hosts=tuple(uuids),
        uuids=uuids,
        master='xen01',
        pool_uuid='p',
    )
    health.audit(says, pool, {}, now=1e9)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    CHANGES, CHANGES, st.sampled_from(['three-host-pool', 'fresh-single-host'])
)
def test_any_records_are_judged_or_refused(
    ours: list[Change], theirs: list[Change], whose: str
) -> None:
    try:
        joiner = records.snapshot(changed('fresh-single-host.json', ours))
        pool = records.snapshot(changed(f"{whose}.json", theirs))
    except records.MalformedRecords as error:
        assert len(str(error)) < 1000
        return
    judged(joiner, pool)


@pytest.mark.parametrize('depth', [900, 20_000])
def test_a_file_that_is_nested_too_deep(
    xenpool: commands.Run, tmp_path: pathlib.Path, depth: int
) -> None:
    path = tmp_path / 'deep.json'
    path.write_text('[' * depth + ']' * depth)
    result = xenpool(
        'preflight', 'join', '--joiner', str(path), '--pool', str(path)
    )
    assert result.status == 2
    assert result.err.startswith(f"xenpool: {path}: not records")
    assert len(result.err.splitlines()) == 1
    for words in (('--records', str(tmp_path)), ('--topology', str(path))):
        result = xenpool('simulator', 'run', *words)
        assert result.status == 2
        assert result.err.startswith(f"xenpool: {path}: ")
