# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Rules that other packages add: findings, never a crash."""

from __future__ import annotations

import collections.abc
import threading
import typing
from unittest import mock

import pytest
import stevedore.extension

from tests.unit import raw_pools
from xenpool_driver import model, snapshot
from xenpool_driver.preflight import site

Findings = collections.abc.Iterable[model.Finding]
_WARNING = model.Finding('rack', model.Severity.WARN, 'no rack is set')


def run(
    rule: site.Rule | Exception, timeout: float = 5.0
) -> tuple[model.Finding, ...]:
    joiner, pool = map(raw_pools.parse, raw_pools.pair())
    return site.run({'rack': rule}, joiner, pool, timeout)


def test_findings_of_a_rule_are_taken_as_they_are() -> None:
    def rule(
        joiner: snapshot.PoolSnapshot, pool: snapshot.PoolSnapshot
    ) -> Findings:
        assert joiner.coordinator is not None
        assert pool.coordinator is not None
        yield _WARNING

    assert run(rule) == (_WARNING,)


def test_rule_without_objection_passes() -> None:
    (finding,) = run(lambda joiner, pool: ())
    assert finding.severity is model.Severity.PASS
    assert finding.check == 'site:rack'


def _boom(*_: typing.Any) -> Findings:
    raise ZeroDivisionError('oh')


def _half(*_: typing.Any) -> Findings:
    yield _WARNING
    raise KeyError('half')


@pytest.mark.parametrize(
    'rule', [_boom, _half, lambda j, p: ['text'], lambda j, p: 7]
)
def test_failing_rule_is_unknown(rule: site.Rule) -> None:
    (finding,) = run(rule)
    assert finding.severity is model.Severity.UNKNOWN
    assert 'rack' in finding.message
    assert 'Error' in finding.message


def test_a_rule_that_would_end_the_program_is_unknown_at_once() -> None:
    def leave(*_: typing.Any) -> Findings:
        raise SystemExit(3)

    (finding,) = run(leave)
    assert finding.severity is model.Severity.UNKNOWN
    assert 'SystemExit: 3' in finding.message


def test_slow_rule_is_unknown() -> None:
    release = threading.Event()

    def rule(*_: typing.Any) -> Findings:
        release.wait()
        return ()

    try:
        (finding,) = run(rule, timeout=0.01)
    finally:
        release.set()
    assert finding.severity is model.Severity.UNKNOWN
    assert 'no answer' in finding.message


def test_rule_that_cannot_be_loaded_is_unknown() -> None:
    (finding,) = run(ImportError('no module named acme'))
    assert finding.severity is model.Severity.UNKNOWN
    assert 'acme' in finding.message


def test_rules_are_found_in_the_namespace() -> None:
    entry = mock.Mock()
    entry.name = 'broken'

    def manager(
        namespace: str, on_load_failure_callback: typing.Any
    ) -> list[typing.Any]:
        assert namespace == 'xenpool.preflight_checks'
        on_load_failure_callback(None, entry, ImportError('gone'))
        good = mock.Mock(plugin=_boom)
        good.name = 'good'
        return [good]

    with mock.patch.object(stevedore.extension, 'ExtensionManager', manager):
        found = site.load()
    assert found['good'] is _boom
    assert isinstance(found['broken'], ImportError)


def test_nothing_announced_is_nothing() -> None:
    assert site.load('xenpool.nobody_announces_here') == {}
