# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``XenAPI.Session`` without sockets: calls go straight to the simulator.

Only what carries a request to a host is replaced. Logging in, what comes of
an answer and what of a failure are XenAPI's own and our own code; what can
happen to a connection happens here, in simulated time.
"""

from __future__ import annotations

import collections.abc
import http.client
import typing
import urllib.parse
import xml.parsers.expat

import orjson
import XenAPI

from tests.model import greens
from xenpool_driver.simulator import (
    dispatch,
    errors,
    faults,
    machine,
    rows,
    world,
)
from xenpool_driver.xapi import errors as xapi_errors
from xenpool_driver.xapi import jsonrpc, transport

LATENCY = 0.005
"""Seconds that a request takes to its host."""

CONNECT = xapi_errors.Stage.CONNECT
SENT = xapi_errors.Stage.SENT

PassBy = collections.abc.Callable[
    [str, collections.abc.Callable[[], typing.Any]], typing.Any
]
"""Makes a call, unless its caller is dead before or after it."""


class Wires:
    """Between one worker and all hosts.

    :param where: the hosts.
    :param pass_by: told of each call.
    """

    def __init__(self, where: world.World, pass_by: PassBy) -> None:
        self._world = where
        self._hub = typing.cast(greens.Hub, where.clock)
        self._pass_by = pass_by

    def session(
        self, url: str, transport: transport.Transport
    ) -> XenAPI.Session:
        """Return a session with the host at ``url``."""
        return Session(url, transport, self)

    def request(
        self,
        url: str,
        method: str,
        params: collections.abc.Sequence[typing.Any],
        wire: transport.Transport,
    ) -> dict[str, typing.Any]:
        """Make a call and return what XAPI answers.

        :raises ExchangeError: there is no answer.
        """
        address = urllib.parse.urlsplit(url).hostname or ''
        target = self._world.machine_at(address)
        assert target is not None, f'nobody at {address}'
        answer: dict[str, typing.Any] = self._pass_by(
            f'{method} @{target.name}',
            lambda: self._exchange(target, method, params, wire),
        )
        return answer

    def _exchange(
        self,
        target: machine.Machine,
        method: str,
        params: collections.abc.Sequence[typing.Any],
        wire: transport.Transport,
    ) -> dict[str, typing.Any]:
        hub = self._hub
        deadline = hub.now() + min(20.0, wire.remaining())
        hub.sleep(LATENCY)
        if not target.powered:
            hub.sleep(max(0.0, deadline - hub.now()))
            raise transport.ExchangeError(TimeoutError(), CONNECT)
        process = target.process
        if process is None or machine.HTTPS not in process.sockets:
            raise transport.ExchangeError(ConnectionRefusedError(), CONNECT)
        wire.assert_may_send()
        call = _Served(target, method, list(params))
        hub.spawn(call.run, owner=target)

        def over() -> bool:
            return call.is_done or machine.HTTPS not in process.sockets

        left = max(0.0, deadline - hub.now())
        in_time = hub.wait_for(over, left)
        if call.is_done:
            return call.answer()
        raise transport.ExchangeError(
            http.client.RemoteDisconnected('cut')
            if in_time
            else TimeoutError(),
            SENT,
        )


class _Served:
    """A call as its host serves it, whether or not anybody still waits."""

    def __init__(
        self, target: machine.Machine, method: str, params: list[typing.Any]
    ) -> None:
        self.is_done = False
        self._target = target
        self._method = method
        self._params = params
        self._answer: dict[str, typing.Any] | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Serve it."""
        try:
            result = dispatch.execute(self._target, self._method, self._params)
            self._answer = {'Status': 'Success', 'Value': _plain(result)}
        except errors.ApiError as error:
            self._answer = _refusal(error)
            if error.code == 'HOST_STILL_BOOTING':
                where = typing.cast(greens.World, self._target.world)
                where.booting(self._method)
        except dispatch.GateRefusal as refusal:
            self._answer = _refusal(refusal.error)
        except faults.Drop:
            self._error = http.client.RemoteDisconnected('dropped')
        except faults.Garbage:
            self._error = xml.parsers.expat.ExpatError('garbage')
        self.is_done = True

    def answer(self) -> dict[str, typing.Any]:
        """Return what came of it.

        :raises ExchangeError: nothing that makes sense.
        """
        if self._error is not None:
            raise transport.ExchangeError(self._error, SENT)
        assert self._answer is not None
        return self._answer


class Session(XenAPI.Session):  # type: ignore[misc]
    """XenAPI's own session; only its requests take another way."""

    def __init__(
        self, url: str, wire: transport.Transport, wires: Wires
    ) -> None:
        super().__init__(url, transport=wire)
        self._url = url
        self._wires = wires

    def _ServerProxy__request(  # noqa: N802 - xmlrpc.client's own name
        self, method: str, params: tuple[typing.Any, ...]
    ) -> dict[str, typing.Any]:
        return self._wires.request(self._url, method, params, self.transport)


def _refusal(error: errors.ApiError) -> dict[str, typing.Any]:
    return {'Status': 'Failure', 'ErrorDescription': error.details}


def _plain(result: rows.Result) -> typing.Any:
    """Return a result as it comes out of XML-RPC, dates as text."""
    return jsonrpc.alike(orjson.loads(result.json()))
