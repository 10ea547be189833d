"""An event loop without a thread or a server, for tests.

Rule: nothing runs until `settle` is called, and then in the thread that calls it, until nothing is left to do.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from .base import Callback, Source

T = TypeVar("T")

MAX_WAIT: Final = 1.0
"""Seconds for which `settle` waits for an event that is on its way."""


class InlineLoop:
    """An event loop that runs what is left to do when `settle` is called."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._sources: list[Source] = []
        self._watches: list[InlineWatch] = []
        self._timers: list[_Timer] = []

    def run(self, function: Callable[[], T]) -> T:
        return function()

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        self._waiting.append(lambda: function(*arguments))

    def soon(self, callback: Callback) -> None:
        self.spawn(callback)

    def sleep(self, seconds: float) -> None:
        """Run what is left to do instead of waiting, because nothing else can happen meanwhile."""
        if seconds:
            self.settle()

    def add_source(self, source: Source) -> None:
        self._sources.append(source)

    def every(self, seconds: float, callback: Callback) -> None:
        self._timers.append(_Timer(time.monotonic() + seconds, callback, seconds))

    def later(self, seconds: float, callback: Callback) -> None:
        self._timers.append(_Timer(time.monotonic() + seconds, callback, None))

    def readable(self, fd: int, callback: Callback) -> InlineWatch:
        return InlineWatch(self._watches, fd, select.POLLIN, callback)

    def writable(self, fd: int, callback: Callback) -> InlineWatch:
        return InlineWatch(self._watches, fd, select.POLLOUT, callback)

    def settle(self) -> None:
        """Run all spawned functions, including those that they spawn, and handle events, until nothing is left."""
        while True:
            while self._waiting:
                self._waiting.popleft()()
            self._sources = [source for source in self._sources if not source.ended]
            now = time.monotonic()
            for source in self._sources:
                source.tick(now)
            self._fire_timers(now)
            if self._poll(0) or self._waiting:
                continue
            # Do not wait while spawned functions are left: what a source waits for may depend on them.
            is_behind = any(source.is_behind for source in self._sources)
            if not is_behind or not (self._poll(MAX_WAIT) or self._waiting or self._is_due()):
                return

    def _poll(self, seconds: float) -> bool:
        """Handle what the watches see within so many seconds, or before a timer is due. Returns whether there was
        anything."""
        if self._timers:
            seconds = max(0.0, min(seconds, min(timer.due for timer in self._timers) - time.monotonic()))
        poll = select.poll()
        fds: dict[int, int] = {}
        for watch in self._watches:
            fds[watch.fd] = fds.get(watch.fd, 0) | watch.event
        for fd, events in fds.items():
            poll.register(fd, events)
        ready = dict(poll.poll(1000 * seconds))
        for watch in list(self._watches):
            if ready.get(watch.fd, 0) & (watch.event | select.POLLHUP | select.POLLERR) and watch in self._watches:
                watch.callback()
        return bool(ready)

    def _is_due(self) -> bool:
        now = time.monotonic()
        return any(timer.due <= now for timer in self._timers)

    def _fire_timers(self, now: float) -> None:
        due = [timer for timer in self._timers if timer.due <= now]
        for timer in due:
            if timer.interval is None:
                self._timers.remove(timer)
            else:
                timer.due = now + timer.interval
            timer.callback()


class InlineWatch:
    """Interest in one file descriptor, polled by `settle`."""

    def __init__(self, watches: list[InlineWatch], fd: int, event: int, callback: Callback) -> None:
        self.fd = fd
        self.event = event
        self.callback = callback
        self._watches = watches

    def start(self) -> None:
        if self not in self._watches:
            self._watches.append(self)

    def stop(self) -> None:
        if self in self._watches:
            self._watches.remove(self)

    def close(self) -> None:
        self.stop()


@dataclass
class _Timer:
    """Calls `callback` at `due`, in seconds of the monotonic clock; again after each `interval`, if it has one."""

    due: float
    callback: Callback
    interval: float | None
