"""One HTTP POST, with the standard library.

Rule: it ends in time, whatever the other side does. It follows no redirect, and reads only the beginning of a body.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

MAX_BODY: Final = 65536
"""Bytes of a response's body that are read, so that the other side can finish."""


def post(url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> int:
    """Send `body` to an `http` or `https` URL. Returns the status. Blocks for up to `timeout` seconds, after the name
    has been resolved.

    Raises `OSError`, such as `TimeoutError`, or `HTTPException`, if there is no answer that is HTTP.
    """
    parts = urlsplit(url)
    deadline = time.monotonic() + timeout
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connect(parts.netloc, timeout=timeout)
    connection.response_class = partial(_TimedResponse, deadline)  # type: ignore[assignment]
    try:
        connection.connect()
        connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {**headers, "Connection": "close"})
        response = connection.getresponse()
        with response, suppress(OSError, HTTPException):  # the status is known
            response.read(MAX_BODY)
        return response.status
    finally:
        connection.close()


class _TimedResponse(HTTPResponse):
    """A response that must have arrived by `deadline`, in seconds of the monotonic clock."""

    def __init__(self, deadline: float, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_TimedReader(self.fp, sock, deadline))


class _TimedReader(io.RawIOBase):
    """Reads from a socket until `deadline`. `file` keeps the socket open, and is closed with this."""

    def __init__(self, file: io.BufferedIOBase, sock: socket.socket, deadline: float) -> None:
        self._file = file
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
