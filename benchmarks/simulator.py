# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How much the simulator serves, and how much memory it takes.

Usage: ``python benchmarks/simulator.py [--quick]``

``host.get_record`` over connections that are kept, by JSON-RPC and XML-RPC:
a simulator in a process of its own, and as many callers as there are
processors to share with it, each a process that sends what it has encoded
once and looks at no answer but the first. Then the memory of a pool of 64
hosts with 50 guests each, of which everything was read, and of 1,000
stand-alone hosts.
"""

from __future__ import annotations

import argparse
import collections.abc
import multiprocessing
import os
import pathlib
import socket
import ssl
import tempfile
import time
import typing
import urllib.parse
import xmlrpc.client

import lab
import orjson
import XenAPI
import yaml

PROCESSES = multiprocessing.get_context('spawn')
MEMBERS, GUESTS, ALONE = 64, 50, 1000


def body_of(kind: str, session: str, host: str) -> tuple[str, bytes]:
    """Return path and body of a request for a host's record."""
    params = (session, host)
    if kind == 'json':
        call = {
            'jsonrpc': '2.0',
            'method': 'host.get_record',
            'params': params,
            'id': 1,
        }
        return '/jsonrpc', orjson.dumps(call)
    return '/', xmlrpc.client.dumps(params, 'host.get_record').encode()


def hammer(
    url: str, request: bytes, seconds: float, results: typing.Any
) -> None:
    """Send a request again and again over one connection."""
    place = urllib.parse.urlsplit(url)
    raw = socket.create_connection((place.hostname, place.port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection: socket.socket = raw
    if place.scheme == 'https':
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = context.wrap_socket(raw)
    size = _first(connection, request)
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        connection.sendall(request)
        left = size
        while left:
            left -= len(connection.recv(min(left, 65536)))
        done += 1
    results.put(done / (time.monotonic() - began))


def _first(connection: socket.socket, request: bytes) -> int:
    """Make the request once; return how long an answer is."""
    connection.sendall(request)
    received = b''
    while b'\r\n\r\n' not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b'\r\n\r\n')
    (length,) = (
        int(line.split(b':')[1])
        for line in head.lower().split(b'\r\n')
        if line.startswith(b'content-length')
    )
    while len(body) < length:
        body += connection.recv(65536)
    if b'name_label' not in body:
        raise SystemExit(body.decode())
    return len(head) + 4 + length


def rate(url: str, kind: str, callers: int, seconds: float) -> float:
    """Return how many calls are answered in a second."""
    session = XenAPI.Session(url, ignore_ssl=True)
    session.xenapi.login_with_password('root', lab.PASSWORD, '1.0', 'bench')
    (host,) = session.xenapi.host.get_all()
    path, body = body_of(kind, session.handle, host)
    request = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    results = PROCESSES.Queue()
    workers = [
        PROCESSES.Process(target=hammer, args=(url, request, seconds, results))
        for _ in range(callers)
    ]
    for worker in workers:
        worker.start()
    total = sum(float(results.get()) for _ in workers)
    for worker in workers:
        worker.join()
    session('close')()
    return total


def rates(seconds: float, callers: collections.abc.Iterable[int]) -> None:
    """Print calls per second."""
    print('host.get_record over kept connections, calls per second')
    with lab.running('--hosts', '1', '--http-port', '8080') as running:
        https = running.hosts[0].url
        http = https.replace('https:', 'http:').replace(
            f":{lab.PORT}", ':8080'
        )
        for url in (http, https):
            for kind in ('json', 'xml'):
                for number in callers:
                    found = rate(url, kind, number, seconds)
                    scheme = url.partition(':')[0]
                    print(
                        f"  {scheme:5} {kind:4} {number} caller(s)"
                        f" {found:8.0f}",
                        flush=True,
                    )


def big_pool(path: pathlib.Path) -> None:
    """Describe a pool of 64 hosts with 50 guests each."""
    names = [f"xen{number:02}" for number in range(1, MEMBERS + 1)]
    guests = [
        {
            'name': f"guest {number} of {name}",
            'host': name,
            'power_state': 'Running',
            'disks': [{'sr': 'nfs', 'size_gib': 8}],
            'networks': ['guests'],
        }
        for name in names
        for number in range(GUESTS)
    ]
    pool = {
        'hosts': names,
        'srs': [{'name': 'nfs', 'type': 'nfs', 'shared': True}],
        'networks': [{'name': 'guests'}],
        'vms': guests,
    }
    path.write_text(yaml.safe_dump({'pools': [pool]}))


def peak(process: typing.Any) -> float:
    """Return how many MB a process ever held at once."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (x for x in status.splitlines() if x.startswith('VmHWM:'))
    return int(line.split()[1]) / 1000


def sizes() -> None:
    """Print what memory many hosts take, and how long they take to start."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / 'big.yaml'
        big_pool(path)
        began = time.monotonic()
        with lab.running('--topology', str(path)) as running:
            ready = time.monotonic() - began
            session = XenAPI.Session(running.hosts[0].url, ignore_ssl=True)
            session.xenapi.login_with_password(
                'root', lab.PASSWORD, '1.0', 'bench'
            )
            getattr(session.xenapi.event, 'from')(['*'], '', 30.0)
            session('close')()
            print(
                f"{MEMBERS} hosts x {GUESTS} guests, everything read:"
                f" {peak(running.process):.0f} MB, ready in {ready:.1f} s"
            )
    began = time.monotonic()
    with lab.running('--hosts', str(ALONE)) as running:
        ready = time.monotonic() - began
        print(
            f"{ALONE} stand-alone hosts: {peak(running.process):.0f} MB,"
            f" ready in {ready:.1f} s"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='a few seconds')
    quick = parser.parse_args().quick
    print(f"{os.cpu_count()} processors, shared with the callers")
    rates(1.0 if quick else 5.0, (1,) if quick else (1, 2))
    if not quick:
        sizes()


if __name__ == '__main__':
    main()
