# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What observers of a real pool saw, in the words of :mod:`.play`."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import re
import typing

from tests import conftest
from tests.contract import plain_timelines

Value = typing.Any

ADDRESSES = {f"127.0.0.1{digit}": f"xapi{digit}" for digit in range(10)}

BRIEF = re.compile('HOST_STILL_BOOTING|HOST_HAS_NO_MANAGEMENT_IP|emergency')
"""What lasts shorter than the time between two looks, mostly."""

RESETS = 0.45
"""Seconds for which an observer may see connections cut before they are
refused: those that were open when the port closed."""

SELDOM = 'new local session each time'
"""Observers of that name looked once a second: they miss a closed port."""

SLOW = 2.0
"""A look of several calls that took longer was overtaken by what happened."""


@dataclasses.dataclass(frozen=True)
class Step:
    """What an observer saw from some moment on.

    :ivar time: seconds after the beginning.
    """

    time: float
    word: str


Steps = list[Step]
Seen = collections.abc.Iterable[tuple[float, str | None]]


def load(name: str) -> dict[str, list[tuple[float, str | None]]]:
    """Return what each observer of a timeline saw, in words."""
    path = conftest.RECORDINGS / 'timelines' / f"{name}.json"
    events: dict[str, list[dict[str, Value]]] = {}
    for event in json.loads(path.read_text())['events']:
        events.setdefault(event['observer'], []).append(event)
    return {
        observer: [(time, word(event)) for time, event in in_order(found)]
        for observer, found in events.items()
        if observer != 'driver'
    }


def in_order(
    events: list[dict[str, Value]],
) -> list[tuple[float, dict[str, Value]]]:
    """Return events with their times, in order.

    Times before the beginning were written without their sign: such an event
    lies within the time of another one of the same observer.
    """
    found = []
    for event in events:
        first, last = event['t'], event['t_last']
        before = any(
            other is not event
            and other['t'] <= first + 0.15
            and other['t_last'] > last
            and other['t_last'] - other['t'] > abs(last - first)
            for other in events
        )
        found.append((-max(first, last) if before else first, event))
    return sorted(found, key=lambda pair: pair[0])


def streams(observer: str, seen: Seen) -> dict[str, Steps]:
    """Return what an observer saw, of each host if it saw a whole pool.

    Without what says nothing, what is too short to be seen by everybody, and
    repetitions.
    """
    found = [
        (time, said)
        for time, said in seen
        if not (said == 'refused' and SELDOM in observer)
    ]
    hosts = {
        name
        for _, said in found
        if said is not None
        for name in _hosts_in(said)
    }
    if not hosts:
        return {observer: steps(found)}
    return {
        f"{observer}: {name}": steps(
            (time, None if said is None else _of_host(said, name))
            for time, said in found
        )
        for name in sorted(hosts)
    }


def _hosts_in(said: str) -> list[str]:
    head, found, hosts = said.partition(': ')
    return [item.split()[0] for item in hosts.split(', ')] if found else []


def _of_host(said: str, name: str) -> str:
    """Return what a look at a whole pool says of one host."""
    head, found, hosts = said.partition(': ')
    if not found:
        return said
    each = {item.split()[0]: item for item in hosts.split(', ')}
    return f"{head}: {each.get(name, f'no {name}')}"


def steps(seen: Seen) -> Steps:
    """Return what was seen, one thing after another."""
    found: Steps = []
    for time, said in seen:
        if said is None or BRIEF.search(said):
            continue
        closing = said == 'refused' and found and found[-1].word == 'cut'
        if closing and time - found[-1].time < RESETS:
            found.pop()
        if not found or found[-1].word != said:
            found.append(Step(time, said))
    return found


def brief(seen: Seen) -> set[str]:
    """Return what was seen for a moment only."""
    words = [BRIEF.search(said) for _, said in seen if said is not None]
    return {found.group() for found in words if found}


# -- words ----------------------------------------------------------------


def word(event: dict[str, Value]) -> str | None:
    """Return a recorded observation in a word; None: it says nothing."""
    observation = event['observation']
    plain = plain_timelines.OBSERVERS.fullmatch(event.get('observer', ''))
    if plain:
        return plain_timelines.word(plain[1], observation)
    if isinstance(observation, str):
        return None
    if 'error' in observation:
        return lost(observation['error'])
    if 'failure' in observation:
        return refusal(observation['failure'])
    if 'ok' in observation:
        return _ok(observation['ok'], observation.get('call_seconds', 0.0))
    return 'returned'


def lost(text: str) -> str:
    """Return how a connection failed: what is behind TLS, or TLS itself."""
    if 'ConnectionRefused' in text:
        return 'refused'
    return 'timeout' if 'Timeout' in text else 'cut'


def refusal(details: list[str]) -> str:
    """Return a refusal in a word or two."""
    code, *params = details
    if code == 'HOST_IS_SLAVE':
        return f"{code} {ADDRESSES[params[0]]}"
    return f"{code} {params[0]}" if code == 'HANDLE_INVALID' else code


def _ok(value: Value, seconds: float) -> str | None:
    if not isinstance(value, dict):
        return f"ok {value}".strip()
    if 'status' in value:
        return f"task {value['status']}"
    if 'hosts' in value:
        return pool_word(value)
    return local_word(value, seconds)


def pool_word(view: dict[str, Value]) -> str:
    """Return in a line who is in a pool, and how."""
    hosts = [
        f"{name}{'' if host['enabled'] else ' disabled'}"
        f"{'' if host['live'] else ' dead'}"
        for name, host in sorted(view['hosts'].items())
    ]
    return f"{view['master']}: {', '.join(hosts)}"


def local_word(view: dict[str, Value], seconds: float) -> str | None:
    """Return in a word what a new local session gets to know.

    What it asks last may be cut off, or ask when the coordinator has changed
    meanwhile: then the look says nothing.
    """
    if view['is_in_emergency_mode']:
        return 'emergency'
    if isinstance(view['pools'], dict):
        return f"pools {word({'observation': view['pools']})}"
    if 'master_hostname' not in view or 'master_error' in view:
        return None
    if seconds > SLOW:
        return None
    return f"{view['master_hostname']} of {view['n_hosts']}"


def operations(name: str) -> set[str]:
    """Return all operations on the pool that a timeline shows."""
    path = conftest.RECORDINGS / 'timelines' / f"{name}.json"
    found: set[str] = set()
    for event in json.loads(path.read_text())['events']:
        seen = event['observation']
        view = seen.get('ok') if isinstance(seen, dict) else None
        if isinstance(view, dict):
            found.update(view.get('pool_ops', ()))
    return found
