# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Rules of the site: checks that other packages add.

A package announces a callable in the stevedore namespace
:data:`NAMESPACE`. It is called with both snapshots and returns findings::

    def rack_is_known(joiner, pool):
        yield model.Finding('rack', model.Severity.WARN, 'no rack is set')

It may be slow or wrong: then its finding is ``unknown``, and the request goes
on without it.
"""

from __future__ import annotations

import collections.abc
import queue
import threading
import typing

from xenpool_driver import clock as clocks
from xenpool_driver import model, snapshot

NAMESPACE = 'xenpool.preflight_checks'
"""The stevedore namespace of site rules."""

Rule = collections.abc.Callable[
    [snapshot.PoolSnapshot, snapshot.PoolSnapshot],
    collections.abc.Iterable[model.Finding],
]

_Result = tuple[tuple[model.Finding, ...] | None, BaseException | None]


def load(namespace: str = NAMESPACE) -> dict[str, Rule | Exception]:
    """Return the rules that packages announce; an error where one fails.

    :param namespace: where to look.
    """
    import stevedore.extension

    broken: dict[str, Rule | Exception] = {}

    def failed(
        _: typing.Any, entry_point: typing.Any, error: BaseException
    ) -> None:
        broken[entry_point.name] = ImportError(str(error))

    manager: typing.Any = stevedore.extension.ExtensionManager(
        namespace, on_load_failure_callback=failed
    )
    return {**broken, **{one.name: one.plugin for one in manager}}


def run(
    rules: collections.abc.Mapping[str, Rule | Exception],
    joiner: snapshot.PoolSnapshot,
    pool: snapshot.PoolSnapshot,
    timeout: float,
    clock: clocks.Clock = clocks.SYSTEM,
) -> tuple[model.Finding, ...]:
    """Return the findings of all rules, which run side by side.

    :param rules: ``{name: rule}``, or the error with which it failed to
        load.
    :param timeout: seconds that they have, all together.
    :param clock: tells when they are over.
    """
    deadline = clock.monotonic() + timeout
    answers = {
        name: _start(name, rule, joiner, pool) for name, rule in rules.items()
    }
    return tuple(
        finding
        for name, answer in answers.items()
        for finding in _collect(
            name, answer, timeout, max(0.0, deadline - clock.monotonic())
        )
    )


def _start(
    name: str,
    rule: Rule | Exception,
    joiner: snapshot.PoolSnapshot,
    pool: snapshot.PoolSnapshot,
) -> queue.Queue[_Result]:
    answer: queue.Queue[_Result] = queue.Queue()
    if isinstance(rule, Exception):
        answer.put((None, rule))
        return answer

    def work() -> None:
        try:
            found = tuple(rule(joiner, pool))
            strange = [f for f in found if not isinstance(f, model.Finding)]
            if strange:
                raise TypeError(f"it returned {strange[0]!r}, no finding")
            answer.put((found, None))
        except BaseException as error:  # noqa: BLE001 - a stranger may exit
            answer.put((None, error))

    threading.Thread(target=work, name=f"site-{name}", daemon=True).start()
    return answer


def _collect(
    name: str, answer: queue.Queue[_Result], timeout: float, left: float
) -> tuple[model.Finding, ...]:
    check = f"site:{name}"
    try:
        found, error = answer.get(timeout=left)
    except queue.Empty:
        return (
            model.Finding(
                check,
                model.Severity.UNKNOWN,
                f"the site rule '{name}' gave no answer in {timeout:g} s",
                'raise [xenpool] preflight_plugin_timeout, or mend the rule',
            ),
        )
    if found is None:
        return (
            model.Finding(
                check,
                model.Severity.UNKNOWN,
                f"the site rule '{name}' failed: "
                f"{type(error).__name__}: {error}",
                f"mend the plug-in that announces '{name}' in {NAMESPACE}",
            ),
        )
    return found or (
        model.Finding(
            check, model.Severity.PASS, f"'{name}' has no objection"
        ),
    )
