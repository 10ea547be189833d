"""The connections to Redis that take turns.

Law: who takes one gets one that works, as far as that can be known without asking Redis: none that was idle for so
long that something between may have forgotten it, and none that the other side has closed.
"""

from __future__ import annotations

import select
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ....domain.errors import BackendUnavailable
from .address import Address


class Pool:
    """The connections of one process and, if gevent has patched sockets, of one thread. Created after any fork.

    `prepare` is called with every new connection.
    """

    def __init__(self, address: Address, prepare: Callable[[Any], object]) -> None:
        self._address = address
        self._prepare = prepare
        self._places = threading.BoundedSemaphore(address.max_connections)
        self._free: list[tuple[Any, float]] = []
        self._all: weakref.WeakSet[Any] = weakref.WeakSet()
        self._poll = _original_poll()

    def take(self) -> Any:
        """A connection that is connected; `give_back` must follow. Raises `BackendUnavailable` where all are taken for
        too long, and what redis-py raises where Redis cannot be reached."""
        if not self._places.acquire(timeout=self._address.pool_timeout):
            raise BackendUnavailable(f"all {self._address.max_connections} connections to Redis are busy")
        try:
            connection, since = self._free.pop() if self._free else (self._new(), 0.0)
            if since and (time.monotonic() - since >= self._address.max_idle or self._has_ended(connection)):
                connection.disconnect()
            if connection._sock is None:  # noqa: SLF001 (as below)
                connection.connect()
                self._prepare(connection)
        except BaseException:
            self._places.release()
            raise
        return connection

    def give_back(self, connection: Any) -> None:
        """All that was asked for on it has been read, or it has been disconnected."""
        self._free.append((connection, time.monotonic()))
        self._places.release()

    def close(self) -> None:
        free, self._free = self._free, []
        for connection, _ in free:
            connection.disconnect()

    def forked(self) -> None:
        """Close this process's copies of the connections, those too that are in use in the parent."""
        for connection in list(self._all):
            connection.disconnect()  # says nothing to Redis in another process than the one that connected

    def _new(self) -> Any:
        connection = self._address.connection()
        self._all.add(connection)
        return connection

    def _has_ended(self, connection: Any) -> bool:
        """Whether there is something to read, where nothing has been asked: an end, or what nobody can place."""
        sock = connection._sock  # noqa: SLF001 (redis-py has no other way to the socket that asks it nothing)
        if sock is None:
            return False
        poll = self._poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _original_poll() -> Any:
    """`select.poll`, which does not wait here: gevent's changes over to others, and reports too much with libuv."""
    monkey = sys.modules.get("gevent.monkey")
    return select.poll if monkey is None else monkey.get_original("select", "poll")
