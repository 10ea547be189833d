"""The connections of a process that share an event loop, and what is done for all of them at once.

Law: a broadcast touches each outbox once, every outbox is flushed once per loop iteration, and one timer
looks after everybody. An endpoint is a friend of its connections: the hot path reaches into them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .loops import EventLoop

if TYPE_CHECKING:
    from .connection import Connection


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    max_message_size: int = 65536
    max_outbox: int = 1048576
    ping_interval: float = 25
    ping_timeout: float = 10


class Endpoint:
    """The connections that share an event loop: flushed together, looked after by one timer.

    `overflowed` counts the connections that were closed because they read too slowly.
    """

    def __init__(self, loop: EventLoop, limits: Limits) -> None:
        self.loop = loop
        self.limits = limits
        self.tick = max(0.02, min(1.0, limits.ping_interval / 4, limits.ping_timeout / 4))
        self.connections: set[Connection] = set()
        self.overflowed = 0
        self._dirty: list[Connection] = []
        self._reports: list[Connection] = []
        self._scheduled = False
        loop.every(self.tick, self._look_after)

    def reset_all(self) -> None:
        """End what is still there without another word."""
        for connection in list(self.connections):
            connection.reset()

    def send_all(self, connections: Iterable[Connection], frame: bytes, skipped: Connection | None) -> None:
        """`Connection.send` to each but `skipped`: the hot path of a broadcast, without a call for each."""
        size, limit, dirty = len(frame), self.limits.max_outbox, self._dirty
        for connection in connections:
            if connection is skipped or connection._state != "open":
                continue
            connection._frames.append(frame)
            connection._backlog += size
            if not connection._dirty:
                connection._dirty = True
                dirty.append(connection)
            if connection._backlog - connection._own > limit:
                connection._overflow()
        self._schedule()

    def mark_dirty(self, connection: Connection) -> None:
        """Have the connection flushed before the loop waits again."""
        self._dirty.append(connection)
        self._schedule()

    def report_later(self, connection: Connection) -> None:
        """Tell the connection's handler of its end, outside of whatever is going on."""
        self._reports.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection._dirty = False
            if connection._writing:
                continue
            frames = connection._frames
            if len(frames) == 1:
                # Most often one frame waits and the socket takes it: here without another call.
                try:
                    sent = connection._sock.send(frames[0])
                except OSError:
                    sent = -1
                if sent == connection._backlog and connection._state == "open":
                    frames.clear()
                    connection._backlog = connection._own = 0
                    connection._half_sent = False
                    continue
                if sent > 0:
                    connection._forget(sent)
            connection._write()
        reports, self._reports = self._reports, []
        for connection in reports:
            connection.report()

    def _look_after(self) -> None:
        now = time.monotonic()
        for connection in list(self.connections):
            connection.check(now)
