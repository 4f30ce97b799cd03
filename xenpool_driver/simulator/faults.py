# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Failures as input: what goes wrong, at which call, how often.

A :class:`Rule` matches calls by host, method and parameters and says what
happens to the n-th of them. The server asks :meth:`Faults.before` ahead of
a call's execution and :meth:`Faults.after` behind it; both raise what is to
go wrong: an :class:`~xenpool_driver.simulator.errors.ApiError` is answered
as any refusal, :class:`Drop` closes the connection without an answer,
:class:`Garbage` answers something that is no answer.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import fnmatch
import itertools
import threading
import typing

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import errors

KINDS = (
    'refuse',
    'delay',
    'drop-before',
    'drop-after',
    'garbage',
    'hang',
    'pass',
)
"""What can happen to a call; ``pass``: nothing, for use in sequences."""


FOR_EVER = 1e7
"""Simulated seconds that no caller waits for."""


class Drop(Exception):
    """Close the connection; the caller gets no answer."""


class Garbage(Exception):
    """Answer ``body`` (HTTP 200), which is neither XML nor JSON."""

    def __init__(self, body: bytes) -> None:
        super().__init__('a garbage answer')
        self.body = body


class Call(typing.Protocol):
    """What a rule needs to know of a call."""

    name: str
    args: collections.abc.Sequence[typing.Any]


@dataclasses.dataclass(frozen=True)
class Action:
    """One thing that happens to one call.

    :param kind: one of :data:`KINDS`.
    :param code: refuse: XAPI's error code.
    :param params: refuse: the code's parameters.
    :param seconds: delay: how long (simulated), ahead of the execution;
        hang: how long until the connection closes, for ever by default.
    :param body: garbage: what is answered.
    """

    kind: str
    code: str = 'INTERNAL_ERROR'
    params: tuple[str, ...] = ()
    seconds: float | None = None
    body: str = 'garbage <'

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ', '.join(KINDS)
            raise ValueError(f'no fault {self.kind!r}; there are: {known}')


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which calls fail, and how.

    :param actions: what happens to the matching calls, one after another.
    :param host: name or address of the machine; any when not given.
    :param method: ``class.method``, with shell wildcards.
    :param params: position of a parameter (0: the first after the session)
        -> what it must be.
    :param nth: the first matching call that is concerned, from 1.
    :param times: how often the actions are gone through; None: for ever.
    :param probability: that a matching call is concerned at all, 0 to 1;
        the world's seed decides.
    """

    actions: tuple[Action, ...]
    host: str | None = None
    method: str = '*'
    params: collections.abc.Mapping[int, typing.Any] = dataclasses.field(
        default_factory=dict
    )
    nth: int = 1
    times: int | None = 1
    probability: float = 1.0

    def matches(self, host: tuple[str, str], call: Call) -> bool:
        """Tell whether ``call``, made to ``host``, is meant."""
        if self.host is not None and self.host not in host:
            return False
        if not fnmatch.fnmatchcase(call.name, self.method):
            return False
        return all(
            position < len(call.args) and call.args[position] == value
            for position, value in self.params.items()
        )


class _Armed:
    """A rule, and how many calls have matched it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.seen = 0

    def next_action(self) -> Action | None:
        """Count a matching call; return what happens to it."""
        self.seen += 1
        index = self.seen - self.rule.nth
        rounds = self.rule.times
        actions = self.rule.actions
        if index < 0 or not actions:
            return None
        if rounds is not None and index >= rounds * len(actions):
            return None
        return actions[index % len(actions)]


class Faults:
    """All rules of a world, and a count of the calls that were executed.

    :param clock: the simulated time, for delays.
    :param chance: returns a number from 0 to 1.
    """

    def __init__(
        self,
        clock: clock_module.Clock,
        chance: collections.abc.Callable[[], float],
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._rules: dict[int, _Armed] = {}
        self._numbers = itertools.count(1)
        self.executed: collections.Counter[tuple[str, str]] = (
            collections.Counter()
        )
        """(machine's name, ``class.method``) -> executions."""
        self.witness: collections.abc.Callable[[str, Call], None] | None = None
        """Is told of each execution, in order: the machine's name, the
        call."""

    def add(self, rule: Rule) -> int:
        """Arm ``rule``; returns the number to :meth:`remove` it by."""
        with self._lock:
            number = next(self._numbers)
            self._rules[number] = _Armed(rule)
            return number

    def refuse(
        self, method: str, code: str, *params: str, **rule: typing.Any
    ) -> int:
        """Arm a refusal of ``method``; ``rule`` as for :class:`Rule`."""
        action = Action('refuse', code=code, params=params)
        return self.add(Rule((action,), method=method, **rule))

    def drop(
        self, method: str, *, after: bool = False, **rule: typing.Any
    ) -> int:
        """Arm a lost connection, before or after the execution."""
        action = Action('drop-after' if after else 'drop-before')
        return self.add(Rule((action,), method=method, **rule))

    def delay(self, method: str, seconds: float, **rule: typing.Any) -> int:
        """Arm a delay of ``seconds`` (simulated) before the execution."""
        action = Action('delay', seconds=seconds)
        return self.add(Rule((action,), method=method, **rule))

    def remove(self, number: int) -> bool:
        """Disarm a rule; False when there is none of that number."""
        with self._lock:
            return self._rules.pop(number, None) is not None

    def clear(self) -> None:
        """Disarm all rules; the counts stay."""
        with self._lock:
            self._rules.clear()

    def rules(self) -> dict[int, tuple[Rule, int]]:
        """Return, by number, each rule and how many calls matched it."""
        with self._lock:
            return {n: (a.rule, a.seen) for n, a in self._rules.items()}

    def choose(self, host: tuple[str, str], call: Call) -> Action | None:
        """Count ``call`` with the rules; return what happens to it."""
        if not self._rules:
            return None
        with self._lock:
            for armed in self._rules.values():
                if not armed.rule.matches(host, call):
                    continue
                if self._chance() >= armed.rule.probability:
                    continue
                action = armed.next_action()
                if action is not None:
                    return action
        return None

    def count(self, machine: str, call: Call) -> None:
        """Note that ``machine`` executes ``call``."""
        with self._lock:
            self.executed[machine, call.name] += 1
        if self.witness is not None:
            self.witness(machine, call)

    def counts(self, machine: str | None = None) -> dict[str, int]:
        """Return executions by method, of one machine or of all."""
        with self._lock:
            totals: collections.Counter[str] = collections.Counter()
            for (name, method), number in self.executed.items():
                if machine is None or name == machine:
                    totals[method] += number
            return dict(totals)

    def ahead(self, action: Action) -> None:
        """Do what ``action`` does before the execution."""
        if action.kind == 'refuse':
            raise errors.ApiError(action.code, *action.params)
        if action.kind == 'drop-before':
            raise Drop
        if action.kind == 'delay':
            self._clock.sleep(action.seconds or 0.0)
        if action.kind == 'hang':
            self._clock.sleep(action.seconds or FOR_EVER)
            raise Drop

    def behind(self, action: Action) -> None:
        """Do what ``action`` does after the execution."""
        if action.kind == 'drop-after':
            raise Drop
        if action.kind == 'garbage':
            raise Garbage(action.body.encode())


class MachineFaults:
    """The faults as one machine's server meets them.

    :param faults: of the whole world.
    :param names: the machine's name and address.
    """

    def __init__(self, faults: Faults, names: tuple[str, str]) -> None:
        self._faults = faults
        self._names = names

    def before(self, call: typing.Any) -> None:
        """Ahead of ``call``'s execution: refuse, delay, drop or hang it.

        The action is remembered in ``call.fault`` for :meth:`after`.
        """
        action = self._faults.choose(self._names, call)
        call.fault = action
        if action is not None:
            self._faults.ahead(action)
        self._faults.count(self._names[0], call)

    def after(self, call: typing.Any) -> None:
        """Behind ``call``'s execution: drop or replace its answer."""
        if call.fault is not None:
            self._faults.behind(call.fault)
