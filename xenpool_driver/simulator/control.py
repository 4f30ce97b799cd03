# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The simulator's strings, to be pulled over HTTP on a loopback port.

Everything is JSON. The same can be done in Python: ``Simulation.clock``,
``.faults``, ``.world`` and :mod:`xenpool_driver.simulator.mishaps`.

==========================  ================================================
``GET /state``              the hosts: role, phase, power; the clock
``GET /clock``              ``{"now", "iso", "scale"}``
``POST /clock``             ``{"advance": SECONDS}`` and/or ``{"scale": X}``
``GET /calls``              ``{host: {method: executions}}``
``DELETE /calls``           start counting anew
``GET /faults``             the rules that are armed, by number
``POST /faults``            arm a rule; answers ``{"number": N}``
``DELETE /faults``          disarm all; ``/faults/N``: one
``POST /hosts/H/MISHAP``    one of :data:`.mishaps.MISHAPS`; its options in
                            the body: ``{"password": "..."}``
``POST /partition``         ``{"between": [H, H]}``
``DELETE /partition``       let everybody reach everybody again
``GET /records/H``          the records that host H serves
==========================  ================================================

A rule: ``{"method": "pool.*", "host": H, "params": {"0": VALUE}, "nth": 1,
"times": 1, "probability": 1, "actions": [{"kind": "refuse", "code": C,
"params": []}]}``; all but ``actions`` may be left out.
"""

from __future__ import annotations

import dataclasses
import http
import http.server
import json
import logging
import threading
import typing

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import (
    errors,
    faults,
    machine,
    mishaps,
    records_dir,
    world,
)

LOG = logging.getLogger(__name__)

Json = typing.Any

ADDRESS = '127.0.0.1'


class Unknown(Exception):
    """There is no such thing to ask for."""


def rule_from(raw: dict[str, Json]) -> faults.Rule:
    """Return the rule that a request describes.

    :raises ValueError: naming what is wrong with it.
    """
    if not isinstance(raw, dict):
        raise ValueError('a rule is an object')
    known = {field.name for field in dataclasses.fields(faults.Rule)}
    unknown = set(raw) - known
    if unknown:
        raise ValueError(f'a rule has no {sorted(unknown)[0]!r}')
    if not raw.get('actions'):
        raise ValueError('a rule needs actions')
    for name in ('nth', 'times'):
        given = raw.get(name, 1)
        if name == 'times' and given is None:
            continue
        if type(given) is not int or given < 1:
            raise ValueError(f'{name} is a number from 1, not {given!r}')
    chance = raw.get('probability', 1)
    if type(chance) not in (int, float) or not 0 <= chance <= 1:
        raise ValueError(f'probability is from 0 to 1, not {chance!r}')
    try:
        actions = tuple(
            faults.Action(
                **{**action, 'params': tuple(action.get('params', ()))}
            )
            for action in raw['actions']
        )
        params = {int(k): v for k, v in raw.get('params', {}).items()}
        return faults.Rule(**{**raw, 'actions': actions, 'params': params})
    except (TypeError, AttributeError) as error:
        raise ValueError(f'not a rule: {error}') from error


def phase(target: machine.Machine) -> str:
    """Return in a word or two how far a machine's toolstack is."""
    process = target.process
    if not target.powered:
        return 'off'
    if process is None:
        return 'down'
    if target.frozen:
        return 'frozen'
    if process.emergency is not None:
        return f'emergency {process.emergency.code}'
    if not process.db_open:
        return 'waiting for the database'
    return 'ready' if process.ready else 'starting'


def _options(body: Json) -> dict[str, Json]:
    """Return a mishap's options.

    :raises ValueError: for a body that is no object.
    """
    if not isinstance(body, dict):
        raise ValueError('the options are an object')
    return body


class Strings:
    """What the control endpoint can do to a world."""

    def __init__(self, where: world.World) -> None:
        self._world = where

    def get(self, path: tuple[str, ...]) -> Json:
        """Answer a question.

        :raises Unknown: for a path that leads nowhere.
        """
        if path == ('state',):
            return self.state()
        if path == ('clock',):
            return self._clock()
        if path == ('calls',):
            where = self._world
            return {
                m.name: where.faults.counts(m.name) for m in where.machines
            }
        if path == ('faults',):
            return {
                str(number): {**dataclasses.asdict(rule), 'seen': seen}
                for number, (rule, seen) in self._world.faults.rules().items()
            }
        if len(path) == 2 and path[0] == 'records':
            return records_dir.dump(self._world.named(path[1]))
        raise Unknown

    def post(self, path: tuple[str, ...], body: Json) -> Json:
        """Do something.

        :raises Unknown: for a path that leads nowhere.
        :raises ValueError: for a body that makes no sense.
        """
        if path == ('clock',):
            self._set_clock(body)
            return self._clock()
        if path == ('faults',):
            return {'number': self._world.faults.add(rule_from(body))}
        if path == ('partition',):
            self._world.cut(*self._between(body))
            return {}
        host_wide = len(path) == 3 and path[0] == 'hosts'
        if host_wide and path[2] in mishaps.MISHAPS:
            target = self._world.named(path[1])
            mishaps.apply(path[2], target, _options(body))
            return self.state()
        raise Unknown

    def delete(self, path: tuple[str, ...]) -> Json:
        """Undo something.

        :raises Unknown: for a path that leads nowhere.
        """
        if path == ('calls',):
            self._world.faults.executed.clear()
        elif path == ('faults',):
            self._world.faults.clear()
        elif path == ('partition',):
            self._world.heal()
        elif len(path) == 2 and path[0] == 'faults' and path[1].isdigit():
            if not self._world.faults.remove(int(path[1])):
                raise Unknown
        else:
            raise Unknown
        return {}

    def state(self) -> Json:
        """Return the clock, and where each host stands."""
        return {
            'clock': self._clock(),
            'hosts': [
                {
                    'name': target.name,
                    'address': target.address,
                    'uuid': target.uuid,
                    'powered': target.powered,
                    'phase': phase(target),
                    'role': target.role[0],
                    'master_address': target.role[1],
                    'written_role': target.role_file.kind,
                    'ha_armed': target.ha_armed,
                }
                for target in self._world.machines
            ],
        }

    def _between(self, body: Json) -> tuple[machine.Machine, machine.Machine]:
        names = body.get('between') if isinstance(body, dict) else None
        if not isinstance(names, list) or len(names) != 2:
            raise ValueError('a partition is {"between": [HOST, HOST]}')
        one, other = (self._world.named(name) for name in names)
        if one is other:
            raise ValueError(f'{one.name} cannot be cut off from itself')
        return one, other

    def _clock(self) -> Json:
        clock = self._world.clock
        return {
            'now': clock.now(),
            'iso': clock.iso(),
            'scale': clock.scale,
        }

    def _set_clock(self, body: Json) -> None:
        """Set the clock; nothing changes unless all of it can be done."""
        clock = self._world.clock
        unknown = set(_options(body)) - {'advance', 'scale'}
        if unknown:
            raise ValueError(f'a clock has no {sorted(unknown)[0]!r}')
        wanted = {what: float(number) for what, number in body.items()}
        for what, number in wanted.items():
            clock_module.check_span(what, number)
        if 'scale' in wanted:
            clock.set_scale(wanted['scale'])
        if 'advance' in wanted:
            clock.advance(wanted['advance'])


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request to the control endpoint."""

    strings: Strings

    def do_GET(self) -> None:  # noqa: N802
        """Answer a question."""
        self._answer(lambda path: self.strings.get(path))

    def do_DELETE(self) -> None:  # noqa: N802
        """Undo something."""
        self._answer(lambda path: self.strings.delete(path))

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Answer what is no request that is known here, in JSON, too."""
        words = message or http.HTTPStatus(code).phrase
        self._send(code, {'error': words})

    def do_POST(self) -> None:  # noqa: N802
        """Do something."""
        self._answer(lambda path: self.strings.post(path, self._body()))

    def _body(self) -> Json:
        length = int(self.headers.get('Content-Length') or 0)
        return json.loads(self.rfile.read(length) or b'{}')

    def _answer(self, act: typing.Callable[[tuple[str, ...]], Json]) -> None:
        path = tuple(part for part in self.path.split('/') if part)
        try:
            status, answer = http.HTTPStatus.OK, act(path)
        except Unknown:
            status = http.HTTPStatus.NOT_FOUND
            answer = {'error': f'nothing at {self.path}'}
        except (ValueError, KeyError, TypeError, errors.ApiError) as error:
            status = http.HTTPStatus.BAD_REQUEST
            answer = {'error': str(error)}
        self._send(status, answer)

    def _send(self, status: int, answer: Json) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: typing.Any) -> None:
        """Log a request at the level of debugging."""
        LOG.debug(format, *args)


class Endpoint:
    """The control endpoint.

    :param where: the world whose strings it pulls.
    :param port: on 127.0.0.1; 0: any free one.
    :raises OSError: when the port cannot be had; names it.
    """

    def __init__(self, where: world.World, port: int = 0) -> None:
        handler = type('Handler', (_Handler,), {'strings': Strings(where)})
        try:
            self._server = http.server.ThreadingHTTPServer(
                (ADDRESS, port), handler
            )
        except OSError as error:
            raise OSError(
                error.errno,
                f'cannot listen on {ADDRESS}:{port} (control port):'
                f' {error.strerror}',
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            name='simulator-control',
            daemon=True,
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f'http://{host!s}:{port}'

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
