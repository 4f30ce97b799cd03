# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Bringing a simulated pool into the state that a recorded answer shows.

The recorded requests are a selection: what the others, which are not kept,
had changed must be there when the kept ones are replayed. A successful read
tells what the records were; they are written into the database before the
request is replayed. Nothing is done for requests that change something, for
refusals, and for tasks that the simulator made itself.
"""

from __future__ import annotations

import json
import re
import typing
import xmlrpc.client

from tests.contract import replay
from xenpool_driver.simulator import (
    database,
    datamodel,
    events,
    wire_json,
    wire_xml,
)

TOKEN_LIMIT = 10**9
"""A token beyond this was made up by the recording client."""


def decode_answer(cell: replay.Cell) -> typing.Any:
    """Return what the recorded call returned, None when it was refused."""
    text = cell.raw['response_body']
    if cell.raw.get('truncated_from') or cell.raw['status'] != 200:
        return None
    if cell.raw['path'] == '/jsonrpc':
        # Bytes that were no UTF-8 are written \\xff in the recordings.
        return json.loads(re.sub(r'\\x', '?', text)).get('result')
    (answer,), _ = xmlrpc.client.loads(text, use_builtin_types=False)
    if not isinstance(answer, dict) or answer['Status'] != 'Success':
        return None
    return answer['Value']


def decode_call(cell: replay.Cell) -> tuple[str, list[typing.Any]] | None:
    """Return the recorded call, None when it was no call."""
    if cell.raw['status'] != 200 or cell.raw['http_method'] != 'POST':
        return None
    if cell.raw['path'] == '/jsonrpc':
        call = wire_json.parse_call(cell.body)
        return call.method, call.params
    if '... (' in cell.raw['request_body']:
        return None
    return wire_xml.parse_call(cell.body)


def parse(kind: datamodel.Type, value: typing.Any) -> typing.Any:
    """Return a decoded value as the database holds it."""
    if isinstance(value, xmlrpc.client.DateTime):
        return value.value
    if kind.kind == 'set' and kind.of is not None:
        return [parse(kind.of, item) for item in value]
    return database.parse(kind, value)


class Director:
    """Prepares a stage for each recorded exchange.

    :param stage: where they are replayed.
    :param peer: the machine whose database it is.
    """

    def __init__(self, stage: replay.Stage, peer: str) -> None:
        self._stage = stage
        self._peer = peer
        self._model = datamodel.load()

    @property
    def _db(self) -> database.Database:
        db = self._stage.machines[self._peer].db
        assert db is not None
        return db

    def prepare(self, cell: replay.Cell) -> None:
        """Bring the stage into the state that the answer shows."""
        call = decode_call(cell)
        if call is None:
            return
        name, params = call
        cls, _, verb = name.removeprefix('Async.').partition('.')
        self._forget_destroyed(cell)
        answer = decode_answer(cell)
        if answer is None or cls not in self._model.classes:
            return
        if name == 'event.from':
            self._events(cell, params, answer)
        elif not name.startswith('Async.') and len(params) <= 2:
            self._read(cell, cls, verb, params, answer)

    def _read(
        self,
        cell: replay.Cell,
        cls: str,
        verb: str,
        params: list[typing.Any],
        answer: typing.Any,
    ) -> None:
        """Let the rows be what a read returned."""
        if verb in ('get_all_records', 'get_all_records_where'):
            whole = verb == 'get_all_records' or params[1] == 'true'
            self._table(cls, answer, whole=whole)
        elif verb == 'get_all':
            self._table(cls, dict.fromkeys(answer, {}), whole=True)
        elif verb == 'get_record' and params[1] not in self._stage.known:
            self._row(cls, params[1], answer)
        elif verb == 'get_record' and re.search(
            'later|when done', cell.raw['name']
        ):
            self._finish(self._stage.known[params[1]])
        elif cls != 'task' and verb.startswith('get_'):
            field = verb.removeprefix('get_')
            if field in self._model.classes[cls].fields:
                self._row(cls, params[1], {field: answer})

    def _forget_destroyed(self, cell: replay.Cell) -> None:
        """Destroy the task that a request not kept had destroyed."""
        found = re.search(
            r'HANDLE_INVALID(?:\W|value|data)+task(?:\W|value)+'
            rf'({replay.REF.pattern})',
            cell.raw['response_body'],
        )
        if found is None:
            return
        ours = self._stage.known.get(found.group(1))
        if ours is not None and self._db.exists(ours, 'task'):
            self._finish(ours)
            self._db.delete('task', ours)

    def _finish(self, task: str) -> None:
        """Wait until a task is over."""
        for _ in range(1000):
            record = self._db.find('task', task)
            if record is None or record['status'] != 'pending':
                return
            self._stage.clock.sleep(0.1)
        raise AssertionError(f'{task} is still pending')

    def _table(
        self, cls: str, rows: dict[str, typing.Any], *, whole: bool
    ) -> None:
        if whole:
            for ref in set(self._db.refs(cls)) - set(rows):
                self._db.delete(cls, ref)
        for ref, record in rows.items():
            self._row(cls, ref, record)

    def _row(self, cls: str, ref: str, record: dict[str, typing.Any]) -> None:
        fields = self._model.classes[cls].fields
        wanted = {
            name: parse(fields[name].type, value)
            for name, value in record.items()
        }
        wanted = self._ours(wanted)
        present = self._db.find(cls, ref)
        if present is None:
            self._db.create(cls, wanted, ref=ref)
            return
        changed = {k: v for k, v in wanted.items() if present[k] != v}
        if changed:
            self._db.set(cls, ref, **changed)

    def _ours(self, record: typing.Any) -> typing.Any:
        text = json.dumps(record)
        for theirs, ours in self._stage.addresses.items():
            text = re.sub(rf'{re.escape(theirs)}\b', ours, text)
        return json.loads(text)

    def _events(
        self,
        cell: replay.Cell,
        params: list[typing.Any],
        answer: dict[str, typing.Any],
    ) -> None:
        """Let the database have changed, or change, as the events tell."""
        told = answer['events']
        by_class: dict[str, dict[str, typing.Any]] = {}
        for event in told:
            cls = self._model.by_lower_case[event['class']].name
            rows = by_class.setdefault(cls, {})
            rows[event['ref']] = event['snapshot']
        fresh = all(event['operation'] == 'add' for event in told)
        for cls, rows in by_class.items():
            for ref, record in rows.items():
                if fresh or not self._db.exists(ref, cls):
                    self._row(cls, ref, record)
            if fresh:
                self._table(cls, rows, whole='/' not in params[1][0])
        self._set_token(params[2])
        if not fresh:
            delay = 1.0 if cell.raw['name'].startswith('blocked') else 0.0
            for cls, rows in by_class.items():
                for ref, record in rows.items():
                    self._stage.clock.call_later(
                        delay, self._change, cls, ref, record
                    )

    def _change(self, cls: str, ref: str, record: typing.Any) -> None:
        self._row(cls, ref, record)
        self._db.touch(cls, ref)

    def _set_token(self, token: str) -> None:
        found = replay.TOKEN.fullmatch(token)
        if found and int(token[:20]) < TOKEN_LIMIT:
            now = events.token_text(self._db.generation, 0)
            self._stage.known[token] = now


def logs_out(cell: replay.Cell) -> str | None:
    """Return the session that ends while a blocked call waits."""
    call = decode_call(cell)
    blocked = cell.raw['name'].startswith('blocked')
    if call is None or not blocked:
        return None
    if 'SESSION_INVALID' not in cell.raw['response_body']:
        return None
    return str(call[1][0])
