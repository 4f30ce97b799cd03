# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What holds status 3 to be true sees what a refused command changed."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.functional import cli_lab, refusals
from xenpool_driver import conf, store
from xenpool_driver.cli import main


def test_a_lie_is_seen_in_records_and_aggregates(
    tmp_path: pathlib.Path,
    _watch: refusals.Watch,
) -> None:
    with cli_lab.simulation(1) as lab:
        path = cli_lab.write_config(tmp_path / 'xenpool.conf', lab)
        argv = ['--config-file', str(path), 'aggregate', 'create', 'web']
        before = _watch.state(argv)

        assert main.main(argv) == 0
        assert main.main(argv) == 3  # true: the name is in use
        assert _watch.lies == []

        _watch.judge(argv, before)
        [told] = _watch.lies
        assert 'xenpool_aggregates' in told

        found = store.open_store(conf.load([str(path)]))
        found.get_aggregate('web').update_metadata({'a': 'b'})
        found.close()
        _watch.lies.clear()
        after = _watch.state(argv)
        database = lab.named('xen01').db
        assert database is not None
        [host] = database.all('host')
        database.set('host', host, enabled=False)
        _watch.judge(argv, after)
        [told] = _watch.lies
        assert f"host/{host}/enabled/ True -> False" in told
        _watch.lies.clear()


def test_what_xapi_refuses_is_told_with_its_remedy(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line, and by the journal afterwards."""
    told = (
        'HOST_DISABLED: enable the host first; which one it is, is told on '
        'xen02 by: xe host-list enabled=false'
    )
    with cli_lab.simulation(2) as lab:
        path = cli_lab.write_config(tmp_path / 'xenpool.conf', lab)

        def xenpool(*words: str) -> cli_lab.Result:
            status = main.main(['--config-file', str(path), *words])
            return cli_lab.Result(status, *capsys.readouterr())

        assert xenpool('aggregate', 'create', 'web').status == 0
        add = ('aggregate', 'add', 'host', 'web')
        assert xenpool(*add, 'xen01').status == 0
        for method in ('pool.join', 'Async.pool.join'):
            lab.faults.refuse(method, 'HOST_DISABLED')

        refused = xenpool(*add, 'xen02')

        assert refused.status == 1
        assert told in refused.err
        listed = xenpool('operation', 'list', '-f', 'json')
        newest = json.loads(listed.out)[0]
        assert newest['Host'] == 'xen02', newest
        uuid = newest['UUID']
        assert told in xenpool('operation', 'show', uuid, '-f', 'json').out


def test_a_refused_adoption_leaves_no_trace(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No dismissed aggregate, no operation; the name is free."""
    with cli_lab.simulation(1) as lab:
        (tmp_path / 'a').mkdir()
        (tmp_path / 'b').mkdir()
        owner = cli_lab.write_config(tmp_path / 'a' / 'x.conf', lab)
        other = cli_lab.write_config(tmp_path / 'b' / 'x.conf', lab)
        for words in (('create', 'web'), ('add', 'host', 'web', 'xen01')):
            argv = ['--config-file', str(owner), 'aggregate', *words]
            assert main.main(argv) == 0
        options = ['--config-file', str(other)]
        adopt = ['aggregate', 'adopt', 'mine', '--from', 'xen01']

        assert main.main([*options, *adopt]) == 3

        capsys.readouterr()
        for words in (('aggregate', 'list', '--all'), ('operation', 'list')):
            assert main.main([*options, *words, '-f', 'json']) == 0
            assert json.loads(capsys.readouterr().out) == []
