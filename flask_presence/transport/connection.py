"""One WebSocket connection: what comes in goes to a handler, what goes out waits in an outbox.

Law: everything runs in the event loop and nothing blocks: one `recv` per readable event, one `send` of
all that waits per loop iteration, the rest when the socket is writable. Control frames go through the
outbox too, so nothing is ever written inside another frame.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

from . import codec
from .group import FLUSH_SIZE, Endpoint

log = logging.getLogger("flask_presence")

Ending = str
"""Why a connection ended, in the words of its handler: `closed`, `lost`, `slow`, or what `close` was told."""

RECEIVE_SIZE: Final = 16384
CHOKE_SIZE: Final = 65536
"""Bytes of unread answers above which a connection is no longer read from."""
CLOSE_PATIENCE: Final = 5.0
SLOW_PATIENCE: Final = 10.0

_WOULD_BLOCK: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_PING: Final = codec.encode_frame(b"", codec.PING)
_TCP_CLOSED: Final = (7, 8)
"""TCP_CLOSE and TCP_CLOSE_WAIT of Linux's `tcp_states.h`."""
_RESET: Final = struct.pack("ii", 1, 0)


class Handler(Protocol):
    """Who a connection belongs to: `id` and `user_id` name it to people."""

    id: str

    @property
    def user_id(self) -> str | None: ...

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """A whole message. The UTF-8 of a text has been checked, that of a binary message has not."""

    def admit(self) -> bool:
        """Whether a ping may be answered."""

    def closed(self, code: int, reason: Any) -> None:
        """The connection has ended, once, before any goodbye has reached the peer."""


class Connection:
    """A socket after the handshake, non-blocking, and the frames that wait for it.

    `on_gone` is called when the socket is no longer needed.
    """

    __slots__ = (
        "_backlog",
        "_deadline",
        "_dirty",
        "_ending",
        "_endpoint",
        "_frames",
        "_half_sent",
        "_handler",
        "_in",
        "_on_gone",
        "_own",
        "_paused",
        "_pinged",
        "_reader",
        "_seen",
        "_sock",
        "_state",
        "_writer",
        "_writing",
    )

    def __init__(
        self, endpoint: Endpoint, sock: socket.socket, handler: Handler, on_gone: Callable[[], None] | None = None
    ) -> None:
        self._endpoint = endpoint
        self._sock = sock
        self._handler = handler
        self._on_gone = on_gone
        self._in = codec.Decoder(endpoint.limits.max_message_size)
        self._frames: list[bytes] = []
        self._backlog = 0  # bytes in _frames
        self._own = 0  # how many of them, at the most, are answers
        self._half_sent = False  # the first of _frames is the rest of a frame that is under way
        self._dirty = False
        self._paused = False
        self._state: Literal["open", "closing", "gone"] = "open"
        self._ending: tuple[int, Ending] | None = None  # to be reported
        self._seen = time.monotonic()
        self._pinged = 0.0
        self._deadline = 0.0
        self._writer: Any = None
        self._writing = False
        self._reader: Any = endpoint.loop.readable(sock.fileno(), self._on_readable)

    def start(self) -> None:
        """Begin to read. Called in the loop."""
        self._endpoint.connections.add(self)
        self._reader.start()

    def send(self, frame: bytes) -> None:
        endpoint = self._endpoint
        endpoint.settle_for(self)
        if self._state != "open":
            return
        self._frames.append(frame)
        self._backlog += len(frame)
        if not self._dirty:
            self._dirty = True
            endpoint.mark_dirty(self)
        if self._backlog - self._own > endpoint.limits.max_outbox:
            self._overflow()

    def send_rest(self, frames: Sequence[bytes], size: int, sent: int) -> None:
        """`send` for several at once: `size` bytes, the first `sent` of which the socket has taken already."""
        if self._state != "open":
            return
        self._frames.extend(frames)
        self._backlog += size
        self._forget(sent)
        if not self._dirty:
            self._dirty = True
            self._endpoint.mark_dirty(self)
        if self._backlog - self._own > self._endpoint.limits.max_outbox:
            self._overflow()

    def answer(self, frame: bytes) -> None:
        if self._state != "open":
            return
        self._own += len(frame)
        self.send(frame)
        if self._choked:
            self._reader.stop()

    def close(self, code: int, text: str, reason: Ending) -> None:
        self._endpoint.settle_for(self)
        if self._state == "open":
            goodbye = codec.encode_close(code, text)
            self._end(code, reason)
            self._say_goodbye(goodbye, CLOSE_PATIENCE)
            self.report()

    def pause(self) -> None:
        self._paused = True
        if self._state == "open":
            self._reader.stop()

    def resume(self) -> None:
        self._paused = False
        if self._state == "open" and not self._choked:
            self._reader.start()

    @property
    def _choked(self) -> bool:
        return self._writing and self._own > CHOKE_SIZE

    def report(self) -> None:
        """Tell the handler of the end, if it has not been told."""
        if self._ending is not None:
            (code, reason), self._ending = self._ending, None
            self._handler.closed(code, reason)

    def check(self, now: float) -> None:
        """What time does to a connection: pings, and the end of patience."""
        limits, tick = self._endpoint.limits, self._endpoint.tick
        if self._state == "closing":
            if now >= self._deadline:
                self.reset()
        elif self._paused:
            self._seen = now  # nobody has looked whether it answered
            if self._peer_has_closed():
                self._lose()
        elif self._pinged > self._seen:
            if now - self._pinged >= limits.ping_timeout:
                self._lose()
        elif now - self._seen >= limits.ping_interval - 2 * tick:
            self._pinged = now
            self.send(_PING)

    def _peer_has_closed(self) -> bool:
        """Whether the peer's end-of-file has arrived, behind whatever has not been read."""
        if self._sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
            return False
        try:
            return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _TCP_CLOSED
        except OSError:
            return True

    def _on_readable(self) -> None:
        if self._state == "gone":
            return
        try:
            self._read()
        except Exception:
            self._endpoint.loop.spawn(log.exception, "a connection failed while it was read from")
            self.close(1011, "Internal error", "closed")

    def _read(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_SIZE)
        except _WOULD_BLOCK:
            return
        except OSError:
            data = b""
        if self._state == "closing":
            if not data:
                self._dispose()
            return
        if not data:
            self._lose()
            return
        self._seen = time.monotonic()
        self._endpoint.meter.bytes_received += len(data)
        for opcode, payload in self._in.feed(data):
            self._take(opcode, payload)
            if self._state != "open":
                return
        failure = self._in.failure
        if failure is not None:
            self.close(failure.code, failure.reason, "closed")
        elif isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            self._endpoint.loop.soon(self._on_readable)  # decrypted already: the socket will not say so

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == codec.TEXT:
            self._handler.receive(payload, is_text=True)
        elif opcode == codec.BINARY:
            self._handler.receive(payload, is_text=False)
        elif opcode == codec.PING:
            if self._handler.admit():
                self.answer(codec.encode_frame(payload, codec.PONG))
        elif opcode == codec.PONG:
            self._handler.admit()
        else:
            self._end(codec.parse_close(payload)[0], "closed")
            self._say_goodbye(codec.encode_frame(payload[:2], codec.CLOSE), CLOSE_PATIENCE)
            self.report()

    def _write(self) -> None:
        while self._frames:
            data = self._next_data()
            try:
                sent = self._sock.send(data)
            except _WOULD_BLOCK:
                sent = 0
            except OSError:
                self._lose(later=True)
                return
            self._endpoint.meter.bytes_sent += sent
            self._forget(sent)
            if sent < len(data):
                self._set_writing(True)
                return
        self._set_writing(False)
        if self._state == "closing":
            self._shut_down()

    def _next_data(self) -> bytes:
        frames = self._frames
        if len(frames) == 1:
            return frames[0]
        if self._backlog <= FLUSH_SIZE:
            return b"".join(frames)
        size = count = 0
        while size < FLUSH_SIZE and count < len(frames):
            size += len(frames[count])
            count += 1
        return b"".join(frames[:count])

    def _forget(self, sent: int) -> None:
        """Drop the first `sent` bytes of what waits."""
        if not sent:
            return
        self._backlog -= sent
        if not self._backlog:
            self._frames.clear()
            self._own = 0
            self._half_sent = False
            return
        self._own = min(self._own, self._backlog)
        frames, whole = self._frames, 0
        while sent >= len(frames[whole]):
            sent -= len(frames[whole])
            whole += 1
        del frames[:whole]
        if sent:
            frames[0] = frames[0][sent:]
            self._half_sent = True
        elif whole:
            self._half_sent = False

    def _set_writing(self, writing: bool) -> None:
        if writing == self._writing:
            return
        self._writing = writing
        if writing:
            if self._writer is None:
                self._writer = self._endpoint.loop.writable(self._sock.fileno(), self._on_writable)
            self._writer.start()
            if self._choked:
                self._reader.stop()
        else:
            self._writer.close()
            self._writer = None
            if self._state == "open" and not self._paused:
                self._reader.start()

    def _on_writable(self) -> None:
        if self._state == "gone":
            return
        try:
            before = self._backlog
            self._write()
            if self._backlog < before:
                self._seen = time.monotonic()
        except Exception:
            self._endpoint.loop.spawn(log.exception, "a connection failed while it was written to")
            self._lose()

    def _overflow(self) -> None:
        """Too much waits: give the socket a last chance, then give the peer up."""
        if not self._writing:
            self._write()
        if self._state == "open" and self._backlog - self._own > self._endpoint.limits.max_outbox:
            self._end(1013, "slow")
            self._say_goodbye(codec.encode_close(1013, "Too slow"), SLOW_PATIENCE)
            self._endpoint.report_later(self)

    def _end(self, code: int, reason: Ending) -> None:
        self._state = "closing"
        self._ending = (code, reason)

    def _say_goodbye(self, close_frame: bytes, patience: float) -> None:
        """The close frame last; where the peer has been slow, instead of all that has not begun."""
        if self._writing and patience == SLOW_PATIENCE:
            del self._frames[1 if self._half_sent else 0 :]
        self._frames.append(close_frame)
        self._backlog = sum(map(len, self._frames))
        self._deadline = time.monotonic() + patience
        self._reader.start()
        if not self._writing:
            self._write()

    def _shut_down(self) -> None:
        """The goodbye is on its way: no more from here, and what still comes is discarded."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._dispose()

    def _lose(self, *, later: bool = False) -> None:
        """The peer has gone without a word."""
        if self._state == "open":
            self._end(codec.ABNORMAL, "lost")
        self._dispose()
        if not later:
            self.report()

    def forked(self) -> None:
        """See `Endpoint.forked`. The peer must not notice."""
        self._state = "gone"
        self._ending = None
        self._endpoint.loop.soon(self._let_go)

    def _let_go(self) -> None:
        for watch in (self._reader, self._writer):
            if watch is not None:
                watch.close()
        self._sock.close()

    def reset(self) -> None:
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            log.debug("the socket was gone before it could be reset")
        self._dispose()

    def _dispose(self) -> None:
        if self._state == "gone":
            return
        self._state = "gone"
        if self._ending is not None:
            self._endpoint.report_later(self)
        self._frames.clear()
        self._backlog = self._own = 0
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._endpoint.connections.discard(self)
        if self._on_gone is None:
            self._sock.close()
            return
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # its owner must not write an HTTP response into it
        except OSError:
            log.debug("the socket was shut down already")
        self._on_gone()
