"""The connections of a process that share an event loop, and what is done for all of them at once.

Rule: a broadcast touches each outbox once, every outbox is flushed once per loop iteration, and one timer looks after
all connections.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..domain.meter import Meter
from ..domain.readings import SLOWEST, Backlog, Blocked
from ..loops.base import Loop
from .connection import Connection
from .outbox import FLUSH_SIZE, Limits


@dataclass(slots=True)
class _Broadcast:
    """Frames for all `connections` except `skipped`; `size` is their size in bytes."""

    connections: Sequence[Connection]
    skipped: Connection | None
    frames: list[bytes]
    size: int


class ConnectionGroup:
    """Flushes its connections together and looks after them with one timer. `meter` counts their bytes."""

    def __init__(self, loop: Loop, limits: Limits, meter: Meter | None = None) -> None:
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

    def end_all(self) -> None:
        """End every connection now, without another close frame."""
        for connection in list(self.connections):
            connection.end()

    def forked(self) -> None:
        """Let go of this process's copies of the sockets: they belong to the process that it was forked from."""
        connections, self.connections = self.connections, set()
        for connection in connections:
            connection.forked()
        self._dirty, self._broadcast, self._reports = [], None, []

    def backlog(self) -> Backlog:
        """What is still to be sent, and which connections are blocked."""
        waiting = 0
        blocked: list[Connection] = []
        for connection in self.connections:
            if connection.frames:
                waiting += connection.backlog
                if connection.writing:
                    blocked.append(connection)
        slowest = heapq.nlargest(SLOWEST, blocked, key=lambda connection: connection.backlog)
        named = (Blocked(one.receiver.id, one.receiver.user_id, one.backlog) for one in slowest)
        return Backlog(waiting, slowest[0].backlog if slowest else 0, len(blocked), tuple(named))

    def send_all(self, connections: Sequence[Connection], frame: bytes, skipped: Connection | None) -> None:
        """Like `Connection.send` for each of them except `skipped`, without a call for each. The sequence must never
        change.

        Everything that goes to the same sequence in one loop iteration is joined once, and goes to the sockets without
        passing the outboxes. Anything else that is sent to one of them meanwhile calls `settle` first.
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
        """Put the waiting broadcast into the outboxes, so that order is kept."""
        if self._broadcast is not None:
            broadcast, self._broadcast = self._broadcast, None
            self._put(broadcast)

    def settle_for(self, connection: Connection) -> None:
        """`settle`, unless the waiting broadcast skips `connection`."""
        if self._broadcast is not None and self._broadcast.skipped is not connection:
            self.settle()

    def _put(self, broadcast: _Broadcast) -> None:
        frames, size, skipped = broadcast.frames, broadcast.size, broadcast.skipped
        limit, dirty = self.limits.max_outbox, self._dirty
        for connection in broadcast.connections:
            if connection is skipped or connection.state != "open":
                continue
            connection.frames.extend(frames)
            connection.backlog += size
            if not connection.dirty:
                connection.dirty = True
                dirty.append(connection)
            if connection.backlog - connection.own_bytes > limit:
                connection.overflow()

    def mark_dirty(self, connection: Connection) -> None:
        """Flush the connection before the loop waits again."""
        self._dirty.append(connection)
        self._schedule()

    def report_later(self, connection: Connection) -> None:
        """Tell the connection's receiver in the next flush that the connection has ended."""
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
            connection.dirty = False
            if connection.writing:
                continue
            frames = connection.frames
            if len(frames) == 1 and connection.state == "open":
                # The common case, one answer that the socket takes at once, without another call.
                try:
                    sent = connection.sock.send(frames[0])
                except OSError:
                    sent = 0  # full or broken: the next attempt shows which
                self.meter.bytes_sent += sent
                if sent == connection.backlog and not connection.congested:
                    frames.clear()
                    connection.backlog = connection.own_bytes = 0
                    connection.half_sent = False
                    continue
                connection.forget(sent)
            connection.write()
        reports, self._reports = self._reports, []
        for connection in reports:
            connection.report()

    def _send_broadcast(self, broadcast: _Broadcast) -> None:
        frames, size, skipped = broadcast.frames, broadcast.size, broadcast.skipped
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        total = 0
        for connection in broadcast.connections:
            if connection is skipped or connection.state != "open":
                continue
            sent = 0
            if not connection.frames:
                try:
                    sent = connection.sock.send(data)
                except OSError:
                    sent = 0  # full or broken: the next attempt shows which
                total += sent
            if sent != size:
                connection.send_rest(frames, size, sent)
        self.meter.bytes_sent += total

    def _look_after(self) -> None:
        now = time.monotonic()
        for connection in list(self.connections):
            connection.check(now)
