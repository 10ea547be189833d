"""A pool of connections to Redis.

Rule: `take` returns a working connection, as far as that can be known without asking Redis. It is not one that Redis
has closed, or that was idle for so long that a firewall may have dropped it.
"""

from __future__ import annotations

import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ....domain.errors import BackendUnavailable
from .address import Address


class Pool:
    """The connections of one process and, if gevent has patched sockets, of one thread. Created after any fork.

    `prepare` is called with every connection after it is made.
    """

    def __init__(self, address: Address, prepare: Callable[[Any], object]) -> None:
        self._address = address
        self._prepare = prepare
        self._permits = threading.BoundedSemaphore(address.max_connections)
        self._free: list[tuple[Any, float]] = []
        self._poll = _original_poll()

    def take(self) -> Any:
        """Take a connection, which must be given back. Blocks while all are taken.

        Raises `BackendUnavailable` if that takes too long, and redis-py's errors if Redis cannot be reached.
        """
        if not self._permits.acquire(timeout=self._address.pool_timeout):
            raise BackendUnavailable(f"all {self._address.max_connections} connections to Redis are busy")
        try:
            connection, since = self._free.pop() if self._free else (self._address.connection(), 0.0)
            if since and not self._is_usable(connection, since):
                connection.disconnect()
            if connection._sock is None:  # noqa: SLF001 (as below)
                connection.connect()
                self._prepare(connection)
        except BaseException:
            self._permits.release()
            raise
        return connection

    def give_back(self, connection: Any) -> None:
        """Give a connection back. It must be disconnected, or all its replies must have been read."""
        self._free.append((connection, time.monotonic()))
        self._permits.release()

    def close(self) -> None:
        """Close the connections that are not in use."""
        free, self._free = self._free, []
        for connection, _ in free:
            connection.disconnect()

    def _is_usable(self, connection: Any, since: float) -> bool:
        """Whether a connection that has been idle `since` a monotonic time may be used again."""
        is_fresh = time.monotonic() - since < self._address.max_idle
        return is_fresh and not self._address.is_outdated(connection) and not self._has_ended(connection)

    def _has_ended(self, connection: Any) -> bool:
        """Whether an idle connection has something to read: its end, or data that no command has asked for."""
        sock = connection._sock  # noqa: SLF001 (redis-py's own check would wait)
        if sock is None:
            return False
        poll = self._poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _original_poll() -> Any:
    """`select.poll` without gevent's patch, which would switch to other greenlets and report too much on libuv."""
    monkey = sys.modules.get("gevent.monkey")
    return select.poll if monkey is None else monkey.get_original("select", "poll")
