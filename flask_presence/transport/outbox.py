"""The frames that wait for one socket.

Rule: frames leave in the order in which they came, and a frame that is half sent is finished first. The fields are
shared: the connection and its group read and write them, because the hot path cannot afford calls; nothing else
touches them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FLUSH_SIZE: Final = 262144
"""Frames are joined for a socket until they have this many bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    max_message_size: int = 65536
    max_outbox: int = 1048576
    ping_interval: float = 25
    ping_timeout: float = 10


class Outbox:
    """`frames`, their size `backlog`, and how many of these bytes are, at most, answers (`own_bytes`).

    `congested`: there were too many answers, so requests wait until all of them are sent.

    `half_sent`: the first of `frames` is the rest of a frame. `dirty`: the group flushes it before the loop waits
    again. `writing`: the socket is full, and the loop watches for when it is writable.
    """

    __slots__ = ("backlog", "congested", "dirty", "frames", "half_sent", "own_bytes", "writing")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.backlog = 0
        self.own_bytes = 0
        self.congested = False
        self.half_sent = False
        self.dirty = False
        self.writing = False

    def next_data(self) -> bytes:
        """The bytes to give to the socket next."""
        frames = self.frames
        if len(frames) == 1:
            return frames[0]
        if self.backlog <= FLUSH_SIZE:
            return b"".join(frames)
        size = count = 0
        while size < FLUSH_SIZE and count < len(frames):
            size += len(frames[count])
            count += 1
        return b"".join(frames[:count])

    def drained(self) -> None:
        """Requests that waited may go on: all answers are sent."""
        raise NotImplementedError

    def forget(self, sent: int) -> None:
        """Drop the first `sent` bytes, which the socket has taken."""
        if not sent:
            return
        self.backlog -= sent
        if not self.backlog:
            self.frames.clear()
            self.own_bytes = 0
            self.half_sent = False
            if self.congested:
                self.congested = False
                self.drained()
            return
        self.own_bytes = min(self.own_bytes, self.backlog)
        frames, whole = self.frames, 0
        while sent >= len(frames[whole]):
            sent -= len(frames[whole])
            whole += 1
        del frames[:whole]
        if sent:
            frames[0] = frames[0][sent:]
            self.half_sent = True
        elif whole:
            self.half_sent = False
