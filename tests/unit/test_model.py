# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Findings and reports: what they weigh and how they are written down."""

from __future__ import annotations

import dataclasses
import json

import pytest

from xenpool_driver import model

FAIL = model.Finding(
    check='joiner-running-vms',
    severity=model.Severity.FAIL,
    message="host xen02: the virtual machine 'web' is running",
    remedy='xe vm-shutdown uuid=1234',
    predicts=('JOINING_HOST_CANNOT_HAVE_RUNNING_VMS',),
    objects=(model.ObjectRef('VM', '1234', 'web'),),
)
WARN = model.Finding('nic-order', model.Severity.WARN, 'eth1 differs')
PASS = model.Finding('ha', model.Severity.PASS, 'HA is off')


@pytest.mark.parametrize(
    ('findings', 'worst'),
    [
        ((), 'pass'),
        ((PASS,), 'pass'),
        ((WARN, PASS), 'warn'),
        ((PASS, FAIL, WARN), 'fail'),
        (
            (model.Finding('x', model.Severity.UNKNOWN, 'unread'), PASS),
            'unknown',
        ),
    ],
)
def test_the_worst_finding_decides(
    findings: tuple[model.Finding, ...], worst: str
) -> None:
    assert model.Report('xen02', findings).worst.value == worst


def test_only_failures_forbid() -> None:
    report = model.Report('xen02', (PASS, FAIL, WARN))
    assert report.failures == (FAIL,)


def test_the_machine_readable_form() -> None:
    report = model.Report('xen02', (FAIL, PASS), FAIL.predicts)
    assert json.loads(json.dumps(report.to_dict())) == {
        'first_refusal': ['JOINING_HOST_CANNOT_HAVE_RUNNING_VMS'],
        'findings': [
            {
                'check': 'joiner-running-vms',
                'severity': 'fail',
                'predicts': ['JOINING_HOST_CANNOT_HAVE_RUNNING_VMS'],
                'force_passes': False,
                'objects': [{'class': 'VM', 'uuid': '1234', 'name': 'web'}],
                'message': "host xen02: the virtual machine 'web' is running",
                'remedy': 'xe vm-shutdown uuid=1234',
            },
            {
                'check': 'ha',
                'severity': 'pass',
                'predicts': None,
                'force_passes': False,
                'objects': [],
                'message': 'HA is off',
                'remedy': '',
            },
        ],
    }


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FAIL.message = 'something else'  # type: ignore[misc]
