#!/usr/bin/env python3
# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Draw the lifecycle for the documentation, from the table itself.

``python tools/genstates.py`` writes ``doc/source/_generated/states.svg`` and
``states.rst``; a test fails when they do not match the table any more.
"""

from __future__ import annotations

import collections.abc
import inspect
import pathlib
import re
import xml.sax.saxutils

from xenpool_driver import pool_states

TARGET = pathlib.Path(__file__).parents[1] / 'doc/source/_generated'

# Where each state stands: only the layout is drawn by hand. A new state
# without a place here is a KeyError, and so a failing test.
PLACES = {
    pool_states.CREATED: (80, 130),
    pool_states.CHANGING: (390, 130),
    pool_states.ACTIVE: (690, 130),
    pool_states.ERROR: (450, 290),
    pool_states.DISMISSED: (860, 290),
}
HALF_WIDTH, HALF_HEIGHT = 55, 20

# The one edge that would run through another state bends around it.
BENDS = {(pool_states.CREATED, pool_states.DISMISSED): (300, 440)}

STYLE = (
    'rect{fill:#eef4fb;stroke:#456}'
    'text{font:13px sans-serif;fill:#123;text-anchor:middle}'
    '.event{font-size:11px;fill:#345;'
    'stroke:#fff;stroke-width:5px;paint-order:stroke}'
    'path{fill:none;stroke:#456;marker-end:url(#tip)}'
)
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
    'markerHeight="8" orient="auto"><polygon points="0,0 8,4 0,8" '
    'fill="#456"/></marker>'
)


def edges() -> dict[tuple[str, str], list[str]]:
    """Return the events of each (from, to), in the order of the table."""
    found: dict[tuple[str, str], list[str]] = {}
    for (state, event), target in pool_states.TRANSITIONS.items():
        found.setdefault((state, target), []).append(event)
    return found


def border(state: str, towards: tuple[float, float]) -> tuple[float, float]:
    """Return the point of the state's box that looks ``towards`` a point."""
    x, y = PLACES[state]
    dx, dy = towards[0] - x, towards[1] - y
    scale = min(
        HALF_WIDTH / abs(dx) if dx else float('inf'),
        HALF_HEIGHT / abs(dy) if dy else float('inf'),
    )
    return x + dx * scale, y + dy * scale


def arrow(source: str, target: str, events: list[str]) -> list[str]:
    """Return the SVG of one edge and its events."""
    x, y = PLACES[source]
    label: tuple[float, float]
    if source == target:
        path = f"M{x - 25},{y - 20} C{x - 60},{y - 75} {x + 60},{y - 75}"
        path += f" {x + 25},{y - 20}"
        label = (x, y - 68 - 13 * (len(events) - 1))
    else:
        far = PLACES[target]
        middle = ((x + far[0]) / 2, (y + far[1]) / 2)
        bend = BENDS.get((source, target), middle)
        start, end = border(source, bend), border(target, bend)
        path = (
            f"M{start[0]:.0f},{start[1]:.0f} Q{bend[0]:.0f},{bend[1]:.0f} "
            f"{end[0]:.0f},{end[1]:.0f}"
        )
        label = (
            (start[0] + 2 * bend[0] + end[0]) / 4,
            (start[1] + 2 * bend[1] + end[1]) / 4 - 6,
        )
    lines = [f'<path d="{path}"/>']
    for number, event in enumerate(events):
        lines.append(
            f'<text class="event" x="{label[0]:.0f}" '
            f'y="{label[1] + 13 * number:.0f}">'
            f'{xml.sax.saxutils.escape(event)}</text>'
        )
    return lines


def svg() -> str:
    """Return the diagram."""
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 940 380">',
        f'<style>{STYLE}</style><defs>{TIP}</defs>',
    ]
    for (source, target), events in edges().items():
        lines += arrow(source, target, events)
    for state in pool_states.STATES:
        x, y = PLACES[state]
        lines.append(
            f'<rect x="{x - HALF_WIDTH}" y="{y - HALF_HEIGHT}" '
            f'width="{2 * HALF_WIDTH}" height="{2 * HALF_HEIGHT}" rx="8"/>'
            f'<text x="{x}" y="{y + 4}">{state}</text>'
        )
    return '\n'.join([*lines, '</svg>', ''])


def meanings() -> dict[str, str]:
    """Return what each state means: the text below its constant."""
    source = inspect.getsource(pool_states)
    return dict(
        re.findall(r"^[A-Z]+ = '([a-z]+)'\n\"\"\"(.+?)\"\"\"$", source, re.M)
    )


def table(
    header: tuple[str, ...],
    rows: collections.abc.Sequence[tuple[str, ...]],
) -> str:
    """Return a list-table."""
    lines = ['.. list-table::', '   :header-rows: 1', '']
    for row in [header, *rows]:
        for number, cell in enumerate(row):
            lines.append(f"   {' ' if number else '*'} - {cell}")
    return '\n'.join([*lines, ''])


def rst() -> str:
    """Return the tables: states, transitions, what each request meets."""
    texts = meanings()
    states = [(f"``{state}``", texts[state]) for state in pool_states.STATES]
    moves = [
        (f"``{state}``", event, f"``{target}``")
        for (state, event), target in pool_states.TRANSITIONS.items()
    ]
    requests = [
        (
            f"``{state}``",
            *(
                pool_states.refusal(state, request) or 'goes on'
                for request in pool_states.REQUESTS
            ),
        )
        for state in pool_states.STATES
    ]
    return '\n'.join(
        [
            table(('state', 'meaning'), states),
            table(('from', 'event', 'to'), moves),
            table(('state', *pool_states.REQUESTS), requests),
        ]
    )


def render() -> dict[str, str]:
    """Return ``{file name: text}`` of everything generated."""
    return {'states.svg': svg(), 'states.rst': rst()}


if __name__ == '__main__':
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (TARGET / name).write_text(text)
