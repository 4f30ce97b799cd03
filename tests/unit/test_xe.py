# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The reader of ``xe`` command lines tells good ones from bad ones."""

from __future__ import annotations

import shlex
from unittest import mock

import pytest

from tests import xe


@pytest.mark.parametrize(
    'line',
    [
        'xe host-enable uuid=1',
        'xe host-list',
        'xe host-disable host=xen01 --force',
        'xe pool-param-set uuid=1 default-SR=',
        'xe pool-param-set uuid=1 other-config:key=value',
        'xe pool-param-remove uuid=1 param-name=other-config param-key=k',
        'xe vm-cd-eject vm=sleeper',
        'xe pbd-create host-uuid=1 sr-uuid=2 device-config:server=10.0.0.1',
        'xe sr-forget uuid=1 -s 10.0.0.1 -u root -pw x',
    ],
)
def test_a_good_line_has_no_complaints(line: str) -> None:
    assert xe.complaints(shlex.split(line)) == []


@pytest.mark.parametrize(
    ('line', 'complaint'),
    [
        ('xe host-dance uuid=1', 'no command xe host-dance'),
        ('xe host-forget', 'host-forget needs uuid='),
        ('xe host-forget uuid=', "'uuid=' gives no value"),
        ('xe sr-forget uuid=1 color=red', 'sr-forget takes no color'),
        ('xe pool-ha-enable heartbeat-sr-uuids=', 'gives no value'),
        ('xe host-enable uuid=1 wings=2', 'host-enable takes no wings'),
        ('xe pool-param-set uuid=1 master=2', 'takes no master'),
        ('xe host-list please', "'please' gives no value"),
        ('ls', 'no xe command'),
    ],
)
def test_a_bad_line_is_told(line: str, complaint: str) -> None:
    assert complaint in '; '.join(xe.complaints(shlex.split(line)))


def test_the_command_line_destroys_no_control_domain() -> None:
    api = mock.Mock()
    line = ['xe', 'vm-destroy', 'uuid=u']
    api.VM.get_is_control_domain.return_value = True
    assert xe.refusal(api, line) == 'OPERATION_NOT_ALLOWED'
    assert xe.refusal(api, ['xe', 'vm-shutdown', 'uuid=u']) is not None
    api.VM.get_is_control_domain.return_value = False
    assert xe.refusal(api, line) is None
    api.VM.get_is_a_template.return_value = False
    assert xe.refusal(api, ['xe', 'vm-shutdown', 'uuid=u']) is None
