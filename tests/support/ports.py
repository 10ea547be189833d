"""Ports for servers that are started again on the port that they had."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress


def free_port() -> int:
    """A free port below those that the kernel gives to connections and to port 0, which it might give to somebody else
    while a server restarts. It is chosen at random, so that tests that run at the same time do not get the same one."""
    while True:
        port = 11_000 + secrets.randbelow(20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
