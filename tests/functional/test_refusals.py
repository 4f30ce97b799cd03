# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What holds status 3 to be true sees what a refused command changed."""

from __future__ import annotations

import pathlib

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
