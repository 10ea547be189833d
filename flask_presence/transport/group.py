"""The connections of a process that share an event loop, and what is done for all of them at once.

Law: a broadcast touches each outbox once, every outbox is flushed once per loop iteration, and one timer
looks after everybody. An endpoint is a friend of its connections: the hot path reaches into them.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..domain.meter import Meter
from ..domain.readings import SLOWEST, Blocked, Outbox
from ..loops.gevent_loop import EventLoop

if TYPE_CHECKING:
    from .connection import Connection


FLUSH_SIZE: Final = 262144
"""Bytes that are given to a socket at once, at the most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    max_message_size: int = 65536
    max_outbox: int = 1048576
    ping_interval: float = 25
    ping_timeout: float = 10


@dataclass(slots=True)
class _Broadcast:
    """What goes to all `connections` but `skipped`; `size` is the sum of the frames' sizes."""

    connections: Sequence[Connection]
    skipped: Connection | None
    frames: list[bytes]
    size: int


class Endpoint:
    """The connections that share an event loop: flushed together, looked after by one timer.

    `meter` is told of their bytes.
    """

    def __init__(self, loop: EventLoop, limits: Limits, meter: Meter | None = None) -> None:
        self.loop = loop
        self.limits = limits
        self.tick = max(0.02, min(1.0, limits.ping_interval / 4, limits.ping_timeout / 4))
        self.connections: set[Connection] = set()
        self.meter = meter or Meter()
        self._dirty: list[Connection] = []
        self._broadcast: _Broadcast | None = None
        self._together = min(FLUSH_SIZE, limits.max_outbox)
        self._reports: list[Connection] = []
        self._scheduled = False
        loop.every(self.tick, self._look_after)

    def reset_all(self) -> None:
        """End what is still there without another word."""
        for connection in list(self.connections):
            connection.reset()

    def forked(self) -> None:
        """This process is a child of the one that has the connections: let go of its copies of their sockets, once the
        loop watches for itself, if it goes on here at all."""
        connections, self.connections = self.connections, set()
        for connection in connections:
            connection.forked()
        self._dirty, self._broadcast, self._reports = [], None, []

    def outbox(self) -> Outbox:
        """What waits for the connections. Who is blocked is named by the `id` and `user_id` of their handler."""
        waiting = 0
        blocked: list[Connection] = []
        for connection in self.connections:
            if connection._frames:
                waiting += connection._backlog
                if connection._writing:
                    blocked.append(connection)
        slowest = heapq.nlargest(SLOWEST, blocked, key=lambda connection: connection._backlog)
        named = (Blocked(one._handler.id, one._handler.user_id, one._backlog) for one in slowest)
        return Outbox(waiting, slowest[0]._backlog if slowest else 0, len(blocked), tuple(named))

    def send_all(self, connections: Sequence[Connection], frame: bytes, skipped: Connection | None) -> None:
        """`Connection.send` to each but `skipped`, without a call for each. The sequence must not change.

        What goes to the same sequence in one loop iteration is put together once, and goes to the sockets
        without a stop in the outboxes. Whatever else is sent to one of them meanwhile first calls `settle`.
        """
        waiting, size = self._broadcast, len(frame)
        if waiting is None and not self._dirty:
            self._broadcast = _Broadcast(connections, skipped, [frame], size)
        elif (
            waiting is not None
            and waiting.connections is connections
            and waiting.skipped is skipped
            and waiting.size + size <= self._together
        ):
            waiting.frames.append(frame)
            waiting.size += size
        else:
            self.settle()
            self._put(_Broadcast(connections, skipped, [frame], size))
        self._schedule()

    def settle(self) -> None:
        """Put the broadcast that waits into the outboxes, so that what comes after it comes after it."""
        if self._broadcast is not None:
            broadcast, self._broadcast = self._broadcast, None
            self._put(broadcast)

    def settle_for(self, connection: Connection) -> None:
        """`settle`, unless the broadcast that waits does not concern `connection`."""
        if self._broadcast is not None and self._broadcast.skipped is not connection:
            self.settle()

    def _put(self, broadcast: _Broadcast) -> None:
        frames, size, skipped = broadcast.frames, broadcast.size, broadcast.skipped
        limit, dirty = self.limits.max_outbox, self._dirty
        for connection in broadcast.connections:
            if connection is skipped or connection._state != "open":
                continue
            connection._frames.extend(frames)
            connection._backlog += size
            if not connection._dirty:
                connection._dirty = True
                dirty.append(connection)
            if connection._backlog - connection._own > limit:
                connection._overflow()

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
        if self._broadcast is not None:
            broadcast, self._broadcast = self._broadcast, None
            self._send_broadcast(broadcast)
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection._dirty = False
            if connection._writing:
                continue
            frames = connection._frames
            if len(frames) == 1 and connection._state == "open":
                # Most often one answer waits and the socket takes it: here without another call.
                try:
                    sent = connection._sock.send(frames[0])
                except OSError:
                    sent = 0  # full, or broken: the next attempt will tell
                self.meter.bytes_sent += sent
                if sent == connection._backlog:
                    frames.clear()
                    connection._backlog = connection._own = 0
                    connection._half_sent = False
                    continue
                connection._forget(sent)
            connection._write()
        reports, self._reports = self._reports, []
        for connection in reports:
            connection.report()

    def _send_broadcast(self, broadcast: _Broadcast) -> None:
        frames, size, skipped = broadcast.frames, broadcast.size, broadcast.skipped
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        total = 0
        for connection in broadcast.connections:
            if connection is skipped or connection._state != "open":
                continue
            sent = 0
            if not connection._frames:
                try:
                    sent = connection._sock.send(data)
                except OSError:
                    sent = 0  # full, or broken: the next attempt will tell
                total += sent
            if sent != size:
                connection.send_rest(frames, size, sent)
        self.meter.bytes_sent += total

    def _look_after(self) -> None:
        now = time.monotonic()
        for connection in list(self.connections):
            connection.check(now)
