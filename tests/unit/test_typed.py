# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The reader of remedies finds their commands, and tells good from bad."""

from __future__ import annotations

import pytest

from tests import typed


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('xe host-enable uuid=1', ['xe host-enable uuid=1']),
        ('wait; see on xen01: xe task-list', ['xe task-list']),
        (
            'on xen01: xe pbd-unplug uuid=1; xe sr-forget uuid=2',
            ['xe pbd-unplug uuid=1', 'xe sr-forget uuid=2'],
        ),
        (
            'repeat with --suspend-ha, or: xe pool-ha-disable',
            ['xe pool-ha-disable'],
        ),
        (
            "xenpool aggregate delete 'my pool; the first' (nothing is lost)",
            ["xenpool aggregate delete 'my pool; the first'"],
        ),
        (
            "look with 'xenpool operation show 7', then go",
            ['xenpool operation show 7'],
        ),
        ('xenpool: nothing of ours; an axe falls', []),
        ('on xen01: yum update, then reboot it', ['yum update']),
    ],
)
def test_commands_are_found(text: str, found: list[str]) -> None:
    assert typed.commands(text) == found
    assert typed.complaints(text) == []


@pytest.mark.parametrize(
    ('text', 'complaint'),
    [
        ('xe host-forget for dead ones', "'for' gives no value"),
        ('xe pool-eject host-uuid=UUID', "'host-uuid=UUID' is no value"),
        ('xe host-disable uuid=$(xe)', "'uuid=$(xe' is no value"),
        ('xe sr-forget uuid=', "'uuid=' gives no value"),
        ('xenpool aggregate delete AGGREGATE', "'AGGREGATE' is no value"),
        ('xenpool aggregate delete web and wait', "'and' is prose"),
        ('xenpool aggregate destroy web', 'unknown command'),
        (
            'xenpool aggregate remove host web xen01 --allow-data-loss',
            'unrecognized arguments: --allow-data-loss',
        ),
        ('xenpool aggregate set master web', 'arguments are required'),
        ('on xen01: wait a minute', "no command behind 'on HOST: '"),
        ('yum upgrade', 'yum does not take upgrade'),
        ("xe host-enable uuid='1", "'uuid=' gives no value"),
    ],
)
def test_what_cannot_be_typed_is_told(text: str, complaint: str) -> None:
    assert complaint in '; '.join(typed.complaints(text))
