# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Hosts with root passwords of their own, which a join replaces."""

from __future__ import annotations

import collections.abc
import dataclasses
import pathlib

import pytest

from tests.functional import cli_lab, driver_lab
from xenpool_driver import conf as config
from xenpool_driver import (
    driver,
    exceptions,
    model,
    pool_states,
    simulator,
    store,
)
from xenpool_driver.simulator import mishaps

OWN = 'root-of-its-own'


@dataclasses.dataclass
class Bench:
    """A site where xen02 has a root password of its own."""

    lab: simulator.Simulation
    path: pathlib.Path

    def new_process(self, **section: str) -> driver.XenAPIPoolDriver:
        """Return a driver that has learnt nothing yet.

        :param section: options of xen02 that replace the usual ones.
        """
        sections = {'xen02': {'connection_password': OWN, **section}}
        cli_lab.write_config(self.path, self.lab, sections=sections)
        return driver.XenAPIPoolDriver(conf=config.load([str(self.path)]))

    def machine(self, name: str) -> simulator.Machine:
        return self.lab.named(name)


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> collections.abc.Iterator[Bench]:
    with driver_lab.simulation(2) as lab:
        mishaps.set_password(lab.named('xen02'), OWN)
        yield Bench(lab, tmp_path / 'xenpool.conf')


def formed(bench: Bench, plugin: driver.XenAPIPoolDriver) -> store.Aggregate:
    row = plugin.site.store.create_aggregate('rack1', driver_lab.FLAGS)
    for host in ('xen01', 'xen02'):
        plugin.add_to_aggregate(None, row, host)
    return row


def told(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """Return the lines of the log that hold some words."""
    return [
        record.getMessage()
        for record in caplog.records
        if words in record.getMessage()
    ]


def test_a_joiners_new_password_is_found_out_and_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = bench.new_process()

    row = formed(bench, plugin)

    [line] = told(caplog, 'does not take the password of section [xen02]')
    assert 'in section [xen02] to those of section [xen01]' in line
    assert OWN not in caplog.text
    assert driver_lab.PASSWORD not in caplog.text
    plugin.set_aggregate_master(None, row, 'xen02')
    assert row.metadata[pool_states.MASTER] == 'xen02'
    plugin.close()


def test_another_process_finds_it_out_before_the_master_moves(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    first = bench.new_process()
    row = formed(bench, first)
    first.close()
    caplog.clear()
    second = bench.new_process()

    second.set_aggregate_master(None, row, 'xen02')

    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert told(caplog, 'does not take the password of section [xen02]')
    second.close()


def test_an_audit_names_the_option(bench: Bench) -> None:
    first = bench.new_process()
    row = formed(bench, first)
    first.close()
    second = bench.new_process()

    report = second.audit_aggregate(None, row)

    [finding] = [each for each in report.findings if each.check == 'login']
    assert finding.severity is model.Severity.WARN
    assert 'section [xen02]' in finding.remedy
    second.close()


def test_the_pools_password_is_not_shown_to_whom_nobody_verifies(
    bench: Bench,
) -> None:
    first = bench.new_process()
    row = formed(bench, first)
    first.close()
    second = bench.new_process(insecure='true')
    bench.lab.faults.executed.clear()

    with pytest.raises(
        exceptions.InvalidAggregateActionUpdate,
        match="'xen02' is alive, but refuses the login: .*was not tried",
    ):
        second.set_aggregate_master(None, row, 'xen02')

    tried = bench.lab.calls('xen02')['session.slave_local_login_with_password']
    assert tried == 1
    assert bench.machine('xen01').is_master
    second.close()


def test_a_refused_login_is_told_from_a_dead_host(bench: Bench) -> None:
    first = bench.new_process()
    row = formed(bench, first)
    first.close()
    mishaps.set_password(bench.machine('xen02'), 'a third one')
    second = bench.new_process()
    before = driver_lab.pools(bench.lab)

    with pytest.raises(
        exceptions.InvalidAggregateActionUpdate,
        match="'xen02' is alive, but refuses the login",
    ) as caught:
        second.set_aggregate_master(None, row, 'xen02')

    assert 'dead' not in str(caught.value)
    [login] = [
        each
        for each in second.audit_aggregate(None, row).failures
        if each.check == 'login'
    ]
    assert login.remedy.startswith(
        'correct connection_username and connection_password in section '
        '[xen02]'
    )
    assert driver_lab.pools(bench.lab) == before
    second.close()


def test_a_removal_goes_on_and_says_what_it_cannot_do(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    first = bench.new_process()
    row = formed(bench, first)
    first.close()
    mishaps.set_password(bench.machine('xen02'), 'a third one')
    second = bench.new_process()
    with pytest.raises(
        exceptions.InvalidAggregateActionDelete, match='refuses the login'
    ):
        second.remove_from_aggregate(None, row, 'xen02', wait=True)

    second.remove_from_aggregate(None, row, 'xen02')

    assert row.hosts == ['xen01']
    assert told(caplog, "'xen02' is alive, but refuses the login")
    second.close()


def test_a_member_that_has_a_password_of_its_own_is_followed(
    bench: Bench,
) -> None:
    """It has the pool's again as soon as its toolstack has restarted."""
    first = bench.new_process()
    row = formed(bench, first)
    first.close()
    mishaps.set_password(bench.machine('xen02'), OWN)
    second = bench.new_process()

    second.set_aggregate_master(None, row, 'xen02')

    assert row.metadata[pool_states.MASTER] == 'xen02'
    assert bench.machine('xen02').is_master
    second.close()


def test_a_master_whose_own_section_is_wrong_is_reached_all_the_same(
    bench: Bench,
) -> None:
    """By processes that begin after the master has moved there, too."""
    first = bench.new_process()
    row = formed(bench, first)
    first.set_aggregate_master(None, row, 'xen02')
    first.close()
    second = bench.new_process()

    report = second.audit_aggregate(None, row)

    [finding] = [each for each in report.findings if each.check == 'login']
    assert finding.severity is model.Severity.WARN
    assert 'to those of section [xen01]' in finding.remedy
    assert not report.failures
    second.close()
    third = bench.new_process()
    row.refresh()
    third.remove_from_aggregate(None, row, 'xen01')
    assert row.hosts == ['xen02']
    third.close()


def test_no_password_is_lent_to_a_master_that_nobody_verifies(
    bench: Bench,
) -> None:
    first = bench.new_process()
    row = formed(bench, first)
    first.set_aggregate_master(None, row, 'xen02')
    first.close()
    second = bench.new_process(insecure='true')
    bench.lab.faults.executed.clear()

    report = second.audit_aggregate(None, row)

    assert report.failures
    tried = bench.lab.calls('xen02')
    assert tried['session.slave_local_login_with_password'] <= 1
    second.close()
