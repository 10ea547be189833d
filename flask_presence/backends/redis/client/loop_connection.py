"""A connection to Redis that the event loop drives: commands go out at once, and replies are handled as they arrive.

Rule: nothing blocks. redis-py makes the connection, which knows about TLS, users and passwords; from then on only the
loop uses its socket. Per readable event there is one `recv`.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import hiredis
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLost

from ....loops.base import WOULD_BLOCK, Loop
from ....loops.gevent_loop import is_gevent_socket

RECEIVE_SIZE: Final = 65536

_NOT_THE_OWNER: Final = ("READONLY", "MOVED", "CLUSTERDOWN")

log = logging.getLogger("flask_presence")


class WrongServer(ResponseError):
    """The server is a replica, or another one has the keys."""


class LoopConnection:
    """Everything is called in the loop. `connection` is redis-py's, connected and without unread replies.

    `received` is called with the replies that have arrived together, in order; Redis's errors are among them as
    redis-py's exceptions. `lost` is called once, if Redis or `received` ends the connection: not after `close`.
    `heard_at` is when something arrived last, in seconds of the monotonic clock.
    """

    __slots__ = (
        "_connection",
        "_is_open",
        "_is_tls",
        "_loop",
        "_lost",
        "_reader",
        "_received",
        "_replies",
        "_sock",
        "_unsent",
        "_writer",
        "heard_at",
    )

    def __init__(
        self,
        connection: Any,
        loop: Loop,
        received: Callable[[list[Any]], object],
        lost: Callable[[Exception], object],
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._received = received
        self._lost = lost
        sock = connection._sock  # noqa: SLF001 (redis-py has no public name for it)
        sock.setblocking(False)
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        # gevent's own socket is several times slower, and needed only to wait.
        self._sock = sock._sock if is_gevent_socket(sock) and not self._is_tls else sock  # noqa: SLF001
        self._replies = hiredis.Reader(protocolError=ConnectionLost, replyError=_reply_error)
        self._unsent = b""
        self._is_open = True
        self.heard_at = time.monotonic()
        self._writer = loop.writable(self._sock.fileno(), self._write_rest)
        self._reader = loop.readable(self._sock.fileno(), self.read)
        self._reader.start()

    def send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Send commands, each its name and arguments. What the socket does not take now is sent when it can be."""
        data = b"".join([hiredis.pack_command(command) for command in commands])
        if self._unsent:
            self._unsent += data
        else:
            self._write(data)

    def read(self) -> None:
        """Handle what has arrived, if anything has."""
        if not self._is_open:
            return
        try:
            data = self._sock.recv(RECEIVE_SIZE)
        except WOULD_BLOCK:
            return
        except OSError as problem:
            self._lose(problem)
            return
        if not data:
            self._lose(ConnectionLost("Redis has closed the connection"))
            return
        self.heard_at = time.monotonic()
        try:
            self._handle(data)
        except Exception as problem:
            if not isinstance(problem, RedisError):
                log.exception("a reply of Redis could not be handled")
            self._lose(problem)
            return
        if self._is_open and self._is_tls and self._sock.pending():
            self._loop.soon(self.read)  # decrypted already, so the socket will not become readable

    @property
    def raw(self) -> Any:
        """redis-py's connection."""
        return self._connection

    def close(self) -> None:
        """Close the connection, if it is open. Sends nothing to Redis in a process that was forked."""
        if self._is_open:
            self._is_open = False
            self._reader.close()
            self._writer.close()
            self._connection.disconnect()

    def _handle(self, data: bytes) -> None:
        self._replies.feed(data)
        replies = []
        while (reply := self._replies.gets()) is not False:
            if isinstance(reply, (AuthenticationError, WrongServer)):
                raise reply  # a new connection may be allowed more, or find the right server
            replies.append(reply)
        if replies:
            self._received(replies)

    def _write_rest(self) -> None:
        data, self._unsent = self._unsent, b""
        self._writer.stop()
        self._write(data)

    def _write(self, data: bytes) -> None:
        if not self._is_open:
            return
        try:
            sent = self._sock.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError as problem:
            self._loop.soon(partial(self._lose, problem))  # not now: the sender is not prepared for a call of `lost`
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._writer.start()

    def _lose(self, problem: Exception) -> None:
        if self._is_open:
            self.close()
            self._lost(problem)


def _reply_error(text: str) -> RedisError:
    """The exception for an error that Redis answers with. Its text is whole, unlike that of redis-py's own parser."""
    if text.startswith("NOAUTH"):
        return AuthenticationError(text)
    if text.startswith(_NOT_THE_OWNER):
        return WrongServer(text)
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)
