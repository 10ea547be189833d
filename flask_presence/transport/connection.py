"""One WebSocket connection: frames come in to a receiver, frames go out through an outbox.

Rule: everything runs in the event loop and nothing blocks. Per readable event there is one `recv`; per loop iteration
one `send` of everything that waits; the rest is sent when the socket is writable. Control frames go through the outbox
too, so nothing is ever written into the middle of another frame.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

from ..domain.meter import Meter
from ..loops.base import WOULD_BLOCK, Loop
from . import codec
from .outbox import Limits, Outbox

log = logging.getLogger("flask_presence")

Ending = str
"""Why a connection ended, in the receiver's words: `closed`, `lost`, `slow`, or what `close` was given."""

RECEIVE_SIZE: Final = 16384
CHOKE_SIZE: Final = 65536
"""Bytes of unread answers above which a connection is no longer read from."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a peer may take to answer a close frame."""
SLOW_CLOSE_TIMEOUT: Final = 10.0
"""The same for a peer that is closed because it is too slow."""

_PING: Final = codec.encode_frame(b"", codec.PING)
_TCP_CLOSED: Final = (7, 8)
"""TCP_CLOSE and TCP_CLOSE_WAIT of Linux's `tcp_states.h`."""
_RESET: Final = struct.pack("ii", 1, 0)


class Group(Protocol):
    """What a connection needs of the `ConnectionGroup` that it is in; see there."""

    loop: Loop
    limits: Limits
    meter: Meter
    tick: float
    connections: set[Connection]

    def settle_for(self, connection: Connection) -> None: ...
    def mark_dirty(self, connection: Connection) -> None: ...
    def report_later(self, connection: Connection) -> None: ...


class FrameReceiver(Protocol):
    """What messages go to: a session. `id` and `user_id` name it in logs and on pages."""

    id: str

    @property
    def user_id(self) -> str | None: ...

    def proceed(self) -> None:
        """Go on with messages that have waited because there were too many answers to send."""

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """Handle a whole message. The UTF-8 of a text has been checked; that of a binary message has not."""

    def admit(self) -> bool:
        """Whether the rate limit allows an answer to a ping."""

    def closed(self, code: int, reason: Any) -> None:
        """Note that the connection has ended. Called once, before the peer has received a close frame."""


class Connection(Outbox):
    """A non-blocking socket after the handshake, and the frames that wait for it.

    `on_gone` is called when the socket is no longer needed. `sock`, `state` and `receiver` are shared, like the fields
    of `Outbox`.
    """

    __slots__ = (
        "_deadline",
        "_decoder",
        "_ending",
        "_group",
        "_on_gone",
        "_paused",
        "_pinged_at",
        "_reader",
        "_seen_at",
        "_writer",
        "receiver",
        "sock",
        "state",
    )

    def __init__(
        self, group: Group, sock: socket.socket, receiver: FrameReceiver, on_gone: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._group = group
        self.sock = sock
        self.receiver = receiver
        self._on_gone = on_gone
        self._decoder = codec.Decoder(group.limits.max_message_size)
        self._paused = False
        self.state: Literal["open", "closing", "gone"] = "open"
        self._ending: tuple[int, Ending] | None = None  # to be reported
        self._seen_at = time.monotonic()
        self._pinged_at = 0.0
        self._deadline = 0.0
        self._writer: Any = None
        self._reader: Any = group.loop.readable(sock.fileno(), self._on_readable)

    def start(self) -> None:
        """Start reading. Called in the loop."""
        self._group.connections.add(self)
        self._reader.start()

    def send(self, frame: bytes) -> None:
        group = self._group
        group.settle_for(self)
        if self.state != "open":
            return
        self.frames.append(frame)
        self.backlog += len(frame)
        if not self.dirty:
            self.dirty = True
            group.mark_dirty(self)
        if self.backlog - self.own_bytes > group.limits.max_outbox:
            self.overflow()

    def send_rest(self, frames: Sequence[bytes], size: int, sent: int) -> None:
        """Like `send`, for several frames of `size` bytes together, of which the socket has taken the first `sent`."""
        if self.state != "open":
            return
        self.frames.extend(frames)
        self.backlog += size
        self.forget(sent)
        if not self.dirty:
            self.dirty = True
            self._group.mark_dirty(self)
        if self.backlog - self.own_bytes > self._group.limits.max_outbox:
            self.overflow()

    def answer(self, frame: bytes) -> None:
        if self.state != "open":
            return
        self.own_bytes += len(frame)
        if self.own_bytes > CHOKE_SIZE:
            self.congested = True
        self.send(frame)
        if self._choked:
            self._reader.stop()

    def drained(self) -> None:
        self._group.loop.soon(self.receiver.proceed)

    def close(self, code: int, text: str, reason: Ending) -> None:
        self._group.settle_for(self)
        if self.state == "open":
            goodbye = codec.encode_close(code, text)
            self._end(code, reason)
            self._say_goodbye(goodbye, CLOSE_TIMEOUT)
            self.report()

    def pause(self) -> None:
        self._paused = True
        if self.state == "open":
            self._reader.stop()

    def resume(self) -> None:
        self._paused = False
        if self.state == "open" and not self._choked:
            self._reader.start()

    @property
    def _choked(self) -> bool:
        return self.writing and self.own_bytes > CHOKE_SIZE

    def report(self) -> None:
        """Tell the receiver that the connection has ended, unless it knows."""
        if self._ending is not None:
            (code, reason), self._ending = self._ending, None
            self.receiver.closed(code, reason)

    def check(self, now: float) -> None:
        """Send the ping, or end the connection, if that is due at `now`."""
        limits, tick = self._group.limits, self._group.tick
        if self.state == "closing":
            if now >= self._deadline:
                self.reset()
        elif self._paused:
            self._seen_at = now  # while it is not read from, its pongs are not seen
            if self._peer_has_closed():
                self._lose()
        elif self._pinged_at > self._seen_at:
            if now - self._pinged_at >= limits.ping_timeout:
                self._lose()
        elif now - self._seen_at >= limits.ping_interval - 2 * tick:
            self._pinged_at = now
            self.send(_PING)

    def _peer_has_closed(self) -> bool:
        """Whether the peer has closed its side. The close may be queued behind data that has not been read."""
        if self.sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
            return False
        try:
            return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _TCP_CLOSED
        except OSError:
            return True

    def _on_readable(self) -> None:
        if self.state == "gone":
            return
        try:
            self._read()
        except Exception:
            self._group.loop.spawn(log.exception, "a connection failed while it was read from")
            self.close(1011, "Internal error", "closed")

    def _read(self) -> None:
        try:
            data = self.sock.recv(RECEIVE_SIZE)
        except WOULD_BLOCK:
            return
        except OSError:
            data = b""
        if self.state == "closing":
            if not data:
                self._dispose()
            return
        if not data:
            self._lose()
            return
        self._seen_at = time.monotonic()
        self._group.meter.bytes_received += len(data)
        for opcode, payload in self._decoder.feed(data):
            self._take(opcode, payload)
            if self.state != "open":
                return
        failure = self._decoder.failure
        if failure is not None:
            self.close(failure.code, failure.reason, "closed")
        elif isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            self._group.loop.soon(self._on_readable)  # decrypted already, so the socket will not become readable

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == codec.TEXT:
            self.receiver.receive(payload, is_text=True)
        elif opcode == codec.BINARY:
            self.receiver.receive(payload, is_text=False)
        elif opcode == codec.PING:
            if self.receiver.admit():
                self.answer(codec.encode_frame(payload, codec.PONG))
        elif opcode == codec.PONG:
            self.receiver.admit()
        else:
            self._end(codec.parse_close(payload)[0], "closed")
            self._say_goodbye(codec.encode_frame(payload[:2], codec.CLOSE), CLOSE_TIMEOUT)
            self.report()

    def write(self) -> None:
        while self.frames:
            data = self.next_data()
            try:
                sent = self.sock.send(data)
            except WOULD_BLOCK:
                sent = 0
            except OSError:
                self._lose(later=True)
                return
            self._group.meter.bytes_sent += sent
            self.forget(sent)
            if sent < len(data):
                self._set_writing(True)
                return
        self._set_writing(False)
        if self.state == "closing":
            self._shut_down()

    def _set_writing(self, writing: bool) -> None:
        if writing == self.writing:
            return
        self.writing = writing
        if writing:
            if self._writer is None:
                self._writer = self._group.loop.writable(self.sock.fileno(), self._on_writable)
            self._writer.start()
            if self._choked:
                self._reader.stop()
        else:
            self._writer.close()
            self._writer = None
            if self.state == "open" and not self._paused:
                self._reader.start()

    def _on_writable(self) -> None:
        if self.state == "gone":
            return
        try:
            before = self.backlog
            self.write()
            if self.backlog < before:
                self._seen_at = time.monotonic()
        except Exception:
            self._group.loop.spawn(log.exception, "a connection failed while it was written to")
            self._lose()

    def overflow(self) -> None:
        """Close the connection because too much waits, unless the socket takes it now."""
        if not self.writing:
            self.write()
        if self.state == "open" and self.backlog - self.own_bytes > self._group.limits.max_outbox:
            self._end(1013, "slow")
            self._say_goodbye(codec.encode_close(1013, "Too slow"), SLOW_CLOSE_TIMEOUT)
            self._group.report_later(self)

    def _end(self, code: int, reason: Ending) -> None:
        self.state = "closing"
        self._ending = (code, reason)

    def _say_goodbye(self, close_frame: bytes, timeout: float) -> None:
        """Send the close frame last. To a slow peer, send it instead of all frames not yet begun."""
        if self.writing and timeout == SLOW_CLOSE_TIMEOUT:
            del self.frames[1 if self.half_sent else 0 :]
        self.frames.append(close_frame)
        self.backlog = sum(map(len, self.frames))
        self._deadline = time.monotonic() + timeout
        self._reader.start()
        if not self.writing:
            self.write()

    def _shut_down(self) -> None:
        """Send no more after the close frame. What the peer still sends is discarded."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._dispose()

    def _lose(self, *, later: bool = False) -> None:
        """End the connection: the peer is gone without a close frame."""
        if self.state == "open":
            self._end(codec.ABNORMAL, "lost")
        self._dispose()
        if not later:
            self.report()

    def forked(self) -> None:
        """See `ConnectionGroup.forked`. The peer must not notice."""
        self.state = "gone"
        self._ending = None
        self._group.loop.soon(self._let_go)

    def _let_go(self) -> None:
        for watch in (self._reader, self._writer):
            if watch is not None:
                watch.close()
        self.sock.close()

    def end(self) -> None:
        """End the connection now. If the socket has taken the close frame, there is no reset, which would discard what
        is still on its way."""
        if self.state == "closing" and not self.frames:
            self._dispose()
        else:
            self.reset()

    def reset(self) -> None:
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            log.debug("the socket was gone before it could be reset")
        self._dispose()

    def _dispose(self) -> None:
        if self.state == "gone":
            return
        self.state = "gone"
        if self._ending is not None:
            self._group.report_later(self)
        self.frames.clear()
        self.backlog = self.own_bytes = 0
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._group.connections.discard(self)
        if self._on_gone is None:
            self.sock.close()
            return
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # its owner must not write an HTTP response into it
        except OSError:
            log.debug("the socket was shut down already")
        self._on_gone()
