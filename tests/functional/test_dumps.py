# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A dump is made to be given away: it holds no secret, and still does."""

from __future__ import annotations

import json
import pathlib

import pytest
import XenAPI

from tests.functional import driver_lab
from xenpool_driver import simulator
from xenpool_driver.cli import main

SECRETS = {
    'password': 's-plain',
    'cifspassword': 's-cifs',
    'chappassword': 's-chap',
    'incoming_chappassword': 's-incoming',
    'auth_token': 's-token',
    'ipmi_password': 's-ipmi',
    'client-secret': 's-client',
    'api_key': 's-api',
    'server': 'http://me:s-url@192.0.2.9/export',
    'notes': 'log in with password=s-notes',
}
REFERENCE = '6a9a4bb0-5a3a-4b0e-9a52-0b2d2f6a7d10'


def test_a_dump_holds_no_secret_and_can_be_judged(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with simulator.Simulation(
        hosts=2, address=driver_lab.address(), port=0, http_port=None
    ) as lab:
        config = driver_lab.configuration(lab, tmp_path)
        names = [host.name for host in lab.hosts]
        for host in lab.hosts:
            _plant(host.url, host.name == names[0])
        files = []
        for name in names:
            files.append(str(tmp_path / f"{name}.json"))
            words = ['--config-file', str(config), 'records', 'dump', name]
            assert main.main([*words, '-o', files[-1]]) == 0
        full = [*words, '-o', '/dev/full']
        assert main.main(full) == 1
        assert 'No space left on device' in capsys.readouterr().err
    for path, config_maps in zip(files, (4, 3), strict=True):
        text = pathlib.Path(path).read_text()
        assert 's-' not in _values(json.loads(text))
        # it names a secret, and is none
        assert text.count(f'"ref_secret": "{REFERENCE}"') == config_maps

    judge = ['preflight', 'join', '--joiner', files[1], '--pool', files[0]]
    assert main.main([*judge, '-f', 'json']) == 0
    assert json.loads(capsys.readouterr().out)['first_refusal'] is None


def _plant(url: str, storage: bool) -> None:
    """Write secrets wherever a record has a map for them."""
    session = XenAPI.Session(url, ignore_ssl=True)
    session.login_with_password('root', 'xenroot')
    for key, value in {**SECRETS, 'ref_secret': REFERENCE}.items():
        for cls in ('pool', 'host', 'VM'):
            handle = getattr(session.xenapi, cls)
            handle.add_to_other_config(handle.get_all()[0], key, value)
    if storage:
        sr = session.xenapi.SR.introduce(
            REFERENCE, 'iscsi', '', 'lvmoiscsi', 'user', True, {}
        )
        config = {**SECRETS, 'ref_secret': REFERENCE}
        host = session.xenapi.host.get_all()[0]
        session.xenapi.PBD.create(
            {'host': host, 'SR': sr, 'device_config': config}
        )
    session.xenapi.session.logout()
    session('close')()


def _values(tables: dict[str, dict[str, dict[str, object]]]) -> str:
    """Return what stands under the keys that were planted."""
    return '\n'.join(
        str(value)
        for table in tables.values()
        for record in table.values()
        for found in record.values()
        if isinstance(found, dict)
        for key, value in found.items()
        if key in SECRETS
    )
