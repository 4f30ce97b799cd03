# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Certificates for the simulated machines, and the authority behind them.

The libraries that make certificates are only imported when one is needed.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import ssl
import threading
import typing

CA_CERTIFICATE, CA_KEY = 'ca.pem', 'ca-key.pem'


class Accepted(ssl.SSLSocket):
    """TLS over a connection that was accepted, whether it still stands.

    While it is made, Python asks for the peer's name, and leaves the socket
    open when the caller has hung up by then: that is for the handshake to
    find out.
    """

    def getpeername(self) -> str:
        """Return no name, and raise nothing."""
        return ''


class Authority:
    """A certificate authority of the simulator's own.

    :param state_dir: where it and the certificates are kept from one run to
        the next; None: new ones for each run.
    """

    def __init__(self, state_dir: str | os.PathLike[str] | None) -> None:
        self._dir = None if state_dir is None else pathlib.Path(state_dir)
        self._lock = threading.Lock()
        self._ca: typing.Any = None
        self._pem: dict[str, bytes] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    def ca_pem(self) -> bytes:
        """Return the authority's certificate, for clients to trust."""
        with self._lock:
            found: bytes = self._authority().cert_pem.bytes()
            return found

    def certificate(self, address: str, name: str) -> bytes:
        """Return the certificate of a machine (PEM)."""
        with self._lock:
            whole = self._machine_pem(address, name)
        start = whole.index(b'-----BEGIN CERTIFICATE')
        end = whole.index(b'-----END CERTIFICATE-----', start)
        return whole[start:end] + b'-----END CERTIFICATE-----\n'

    def fingerprint(self, address: str, name: str) -> str:
        """Return the SHA-256 of a machine's certificate: ``AB:CD:...``."""
        der = ssl.PEM_cert_to_DER_cert(
            self.certificate(address, name).decode()
        )
        digest = hashlib.sha256(der).hexdigest().upper()
        return ':'.join(digest[i : i + 2] for i in range(0, len(digest), 2))

    def context(self, address: str, name: str) -> ssl.SSLContext:
        """Return the context that a machine's TLS sockets use."""
        with self._lock:
            context = self._contexts.get(address)
            if context is None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.sslsocket_class = Accepted
                self._load(context, self._machine_pem(address, name))
                self._contexts[address] = context
            return context

    def _load(self, context: ssl.SSLContext, pem: bytes) -> None:
        trustme = _trustme()
        blob = trustme.Blob(pem)
        with blob.tempfile() as path:
            context.load_cert_chain(path)

    def _authority(self) -> typing.Any:
        if self._ca is None:
            self._ca = self._stored_authority() or self._new_authority()
        return self._ca

    def _stored_authority(self) -> typing.Any:
        if self._dir is None:
            return None
        certificate = self._dir / CA_CERTIFICATE
        key = self._dir / CA_KEY
        if not (certificate.exists() and key.exists()):
            return None
        return _trustme().CA.from_pem(
            certificate.read_bytes(), key.read_bytes()
        )

    def _new_authority(self) -> typing.Any:
        made = _trustme().CA(organization_name='xenpool simulator')
        if self._dir is not None:
            self._dir.mkdir(parents=True, exist_ok=True)
            _write(self._dir / CA_CERTIFICATE, made.cert_pem.bytes())
            _write(self._dir / CA_KEY, made.private_key_pem.bytes())
        return made

    def _machine_pem(self, address: str, name: str) -> bytes:
        """Return key and certificates of a machine, in one."""
        pem = self._pem.get(address)
        if pem is None:
            path = None if self._dir is None else self._dir / f'{address}.pem'
            if path is not None and path.exists():
                pem = path.read_bytes()
            else:
                leaf = self._authority().issue_cert(
                    address, name, common_name=name
                )
                pem = leaf.private_key_and_cert_chain_pem.bytes()
                if path is not None:
                    _write(path, pem)
            self._pem[address] = pem
        return pem


def _trustme() -> typing.Any:
    """Import what makes certificates, or say how to install it."""
    try:
        import trustme
    except ImportError as error:
        raise RuntimeError(
            'serving HTTPS needs the package trustme: install '
            'xenpool-driver[simulator]'
        ) from error
    return trustme


def _write(path: pathlib.Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, 'wb') as file:
        file.write(content)
