# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A TCP proxy whose link goes silent: it takes what is sent, and answers
nothing until it is told to. It can also keep one request back."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import typing

SIZE = 65536
STEP = 0.02
"""Seconds between two looks at whether the link speaks again."""


class Proxy:
    """Stands between clients and one server; a context manager.

    :ivar address: where it listens.
    :param target: host and port of the server.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._speaks = threading.Event()
        self._speaks.set()
        self._ended = threading.Event()
        self._trigger = b''
        self._lock = threading.Lock()
        self._keeps_next = False
        self._kept = threading.Event()
        self._delivers = threading.Event()
        self._answered = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]

    def __enter__(self) -> Proxy:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def is_silent(self) -> bool:
        """Whether answers are held back."""
        return not self._speaks.is_set()

    def silence(self) -> None:
        """Hold back every answer from now on."""
        self._speaks.clear()

    def silence_after(self, words: bytes) -> None:
        """Hold back answers as soon as a client has sent these bytes.

        The server gets them.
        """
        self._trigger = words

    def speak(self) -> None:
        """Deliver what was held back, and go on as usual."""
        self._trigger = b''
        self._speaks.set()

    def keep_next(self) -> None:
        """Keep back the request that a client sends next.

        The other connections go on.
        """
        self._keeps_next = True

    def await_kept(self, seconds: float) -> bool:
        """Wait until something is kept back; say whether it is."""
        return self._kept.wait(seconds)

    def deliver(self, seconds: float) -> bool:
        """Let what was kept back arrive; say whether it was answered."""
        self._delivers.set()
        return self._answered.wait(seconds)

    def _keeps(self) -> bool:
        """Say whether the connection that has something is the one."""
        with self._lock:
            keeps, self._keeps_next = self._keeps_next, False
        return keeps

    def _start(self, work: typing.Any, *arguments: typing.Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._listener], [], [], STEP)[0]:
                continue
            client, _ = self._listener.accept()
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """Carry bytes both ways until one side has closed."""
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(self._target) as server,
        ):
            while not self._ended.is_set():
                ready, _, _ = select.select([client, server], [], [], STEP)
                if client in ready:
                    if self._keeps():
                        self._deliver_late(client.recv(SIZE), server)
                        return
                    if not self._forward(client, server):
                        return
                if (
                    server in ready
                    and self._speaks.wait(STEP)
                    and not self._forward(server, client)
                ):
                    return

    def _deliver_late(self, data: bytes, server: socket.socket) -> None:
        """Send what was kept back when it is time; hear the answer.

        By then the client is gone.
        """
        self._kept.set()
        while not self._delivers.wait(STEP):
            if self._ended.is_set():
                return
        server.sendall(data)
        while not self._ended.is_set():
            if select.select([server], [], [], STEP)[0]:
                self._answered.set()
                return

    def _forward(self, source: socket.socket, sink: socket.socket) -> bool:
        data = source.recv(SIZE)
        if self._trigger and self._trigger in data:
            self.silence()
        sink.sendall(data)
        return bool(data)
