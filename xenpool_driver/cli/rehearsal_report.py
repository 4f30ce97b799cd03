# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a rehearsal has shown, for people and for programs."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from xenpool_driver import exceptions, model, pool_states
from xenpool_driver.cli import formats, status

if typing.TYPE_CHECKING:
    from xenpool_driver import store
    from xenpool_driver.cli import rehearsal, rehearsal_reads

_Json = typing.Any

_WOULD = {
    status.DONE: 'succeed',
    status.REFUSED: 'be refused',
}

FIELDS = (
    'aggregate',
    'request',
    'would',
    'results',
    'seconds',
    'plan',
    'calls',
    'state',
    'master',
    'hosts',
    'lost',
    'warnings',
    'read',
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one host of the request.

    :ivar outcome: ``succeeded``, ``failed`` or ``refused``.
    :ivar error: what was raised, or None.
    """

    host: str
    outcome: str
    error: exceptions.XenpoolError | None = None

    def to_dict(self) -> dict[str, _Json]:
        """Return the machine-readable form."""
        report: model.Report | None = getattr(self.error, 'report', None)
        reason = getattr(self.error, 'reason', self.error)
        return {
            'host': self.host,
            'outcome': self.outcome,
            'reason': str(reason) if self.error else '',
            'report': report.to_dict() if report else None,
        }


@dataclasses.dataclass
class Outcome:
    """What a rehearsal has shown.

    :ivar results: a result for each host of the request.
    :ivar reports: what the checks said beforehand, by compute host.
    :ivar lost: findings of what would be lost, by compute host.
    :ivar calls: what changed something, in order.
    :ivar steps: the phases of all operations.
    :ivar seconds: how long it took, in simulated seconds.
    :ivar end: the aggregate afterwards.
    :ivar addresses: of the real hosts, by their twins'.
    """

    results: list[Result] = dataclasses.field(default_factory=list)
    reports: dict[str, model.Report] = dataclasses.field(default_factory=dict)
    lost: dict[str, list[_Json]] = dataclasses.field(default_factory=dict)
    calls: list[rehearsal.Call] = dataclasses.field(default_factory=list)
    steps: list[rehearsal.Step] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    end: store.Aggregate | None = None
    addresses: dict[str, str] = dataclasses.field(default_factory=dict)

    def real(self, value: _Json) -> _Json:
        """Return ``value`` with the real hosts' addresses in all texts."""
        if isinstance(value, str):
            for twin, address in self.addresses.items():
                value = value.replace(twin, address)
        elif isinstance(value, list):
            return [self.real(each) for each in value]
        elif isinstance(value, dict):
            return {key: self.real(each) for key, each in value.items()}
        return value

    @property
    def status(self) -> int:
        """The exit status that the request would have had."""
        return status.together(
            status.of(result.error) if result.error else status.DONE
            for result in self.results
        )


def fields(
    row: store.Aggregate,
    request: str,
    reading: rehearsal_reads.Reading,
    outcome: Outcome,
) -> tuple[tuple[str, ...], tuple[_Json, ...]]:
    """Return the fields of a rehearsal and their values.

    :param row: the aggregate before the request.
    :param request: the request, as it would be typed.
    """
    end = outcome.end or row
    pools = [
        {'pool': uuid, 'through': pool.read_from, 'hosts': len(pool.hosts)}
        for uuid, pool in reading.pools.items()
    ]

    def told(entries: list[dict[str, _Json]]) -> formats.Lines:
        return formats.Lines(outcome.real(entries))

    return FIELDS, (
        row.name,
        request,
        _WOULD.get(outcome.status, 'fail'),
        told([result.to_dict() for result in outcome.results]),
        round(outcome.seconds, 1),
        told([step.to_dict() for step in outcome.steps]),
        told([call.to_dict() for call in outcome.calls]),
        end.state,
        end.metadata.get(pool_states.MASTER),
        formats.Names(end.hosts),
        told(_by_host(outcome.lost)),
        told(_warnings(outcome)),
        formats.Lines(pools),
    )


def _by_host(
    findings: collections.abc.Mapping[str, list[_Json]],
) -> list[dict[str, _Json]]:
    return [
        {'host': host, **finding}
        for host, found in findings.items()
        for finding in found
    ]


def _warnings(outcome: Outcome) -> list[dict[str, _Json]]:
    """Return what the checks said that is neither a pass nor a loss.

    What forbids to go on is in the results.
    """
    quiet = (model.Severity.PASS, model.Severity.FAIL)
    found = {
        host: [
            finding.to_dict()
            for finding in report.findings
            if finding.severity not in quiet
        ]
        for host, report in outcome.reports.items()
    }
    return [
        warning
        for warning in _by_host(found)
        if warning not in _by_host(outcome.lost)
    ]


def lines(
    told: collections.abc.Mapping[str, _Json],
) -> collections.abc.Iterator[str]:
    """Yield the report for people.

    :param told: what :func:`fields` returned.
    """
    plain = {key: _machine(value) for key, value in told.items()}
    yield f"Rehearsal of: {plain['request']}"
    for pool in plain['read']:
        yield (
            f"  on twins of pool {pool['pool']} ({pool['hosts']} hosts, read "
            f"through {pool['through']})"
        )
    yield from _section('Plan', plain['plan'], _step)
    yield from _section('Calls that change something', plain['calls'], _call)
    yield from _section('Would be lost', plain['lost'], _finding)
    yield from _section('Warnings', plain['warnings'], _finding)
    yield f"Duration: about {plain['seconds']:.0f} s"
    yield (
        f"End: state {plain['state']}, master {plain['master'] or 'none'}, "
        f"hosts {', '.join(plain['hosts']) or 'none'}"
    )
    for result in plain['results']:
        if len(plain['results']) > 1 or result['reason']:
            yield f"  {result['host']}: {result['outcome']}"
    yield f"It would {plain['would']}. Nothing real was changed."


def _machine(value: _Json) -> _Json:
    return getattr(value, 'machine_readable', lambda: value)()


def _section(
    title: str,
    entries: collections.abc.Sequence[_Json],
    line: collections.abc.Callable[[_Json], str],
) -> collections.abc.Iterator[str]:
    yield f"{title}: {'' if entries else 'nothing'}".rstrip()
    for entry in entries:
        yield f"  {line(entry)}"


def _step(entry: _Json) -> str:
    note = f" ({entry['note']})" if entry['note'] else ''
    return (
        f"{entry['at']:7.1f} s  {entry['host']}: {entry['kind']}: "
        f"{entry['phase']}{note}"
    )


def _call(entry: _Json) -> str:
    return (
        f"{entry['at']:7.1f} s  {entry['host']}: "
        f"{entry['method']}({entry['arguments']})"
    )


def _finding(entry: _Json) -> str:
    return (
        f"{entry['host']}: {entry['severity']}: {entry['check']}: "
        f"{entry['message']}"
    )
