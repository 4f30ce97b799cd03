# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How Python says that a peer took a connection away.

Which exception it is depends on the version of Python and of OpenSSL, and on
which side was faster: a program that is told to expect one of them works on
one machine. ``RemoteDisconnected`` is a ``ConnectionError``. A refused
connection is one, too: whoever tells the two apart asks for
``ConnectionRefusedError`` first.
"""

from __future__ import annotations

import http.client
import ssl

BROKEN_OFF = (
    ConnectionError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    http.client.IncompleteRead,
)
"""Every exception of a connection that ended before the whole answer came."""
