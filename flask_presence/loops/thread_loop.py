"""A thread with a selector as the event loop, for servers that give each connection a thread.

Rule: the thread is a daemon, so it never keeps a process alive.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .base import Callback, CrossThreadCall, Source

T = TypeVar("T")

log = logging.getLogger("flask_presence")


class ThreadLoop:
    """An event loop in a thread of its own, which starts at once. `spawn` runs functions in threads."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._callbacks: deque[Callback] = deque()
        self._timers: list[_Timer] = []
        self._wake_up, self._wake = socket.socketpair()
        self._wake_up.setblocking(False)
        self._wake.setblocking(False)
        self._selector.register(self._wake_up, selectors.EVENT_READ, {})
        self._thread = threading.Thread(target=self._serve, name="flask_presence", daemon=True)
        self._thread.start()

    def run(self, function: Callable[[], T]) -> T:
        if threading.current_thread() is self._thread:
            return function()
        call = CrossThreadCall(function)
        done = threading.Event()
        call.then = done.set
        self.soon(call.make)
        done.wait()
        return call.result()

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        threading.Thread(target=function, args=arguments, name="flask_presence worker", daemon=True).start()

    def add_source(self, source: Source) -> None:
        """Do nothing: the thread runs all the time."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def soon(self, callback: Callback) -> None:
        self._callbacks.append(callback)
        if threading.current_thread() is not self._thread:
            try:
                self._wake.send(b"\0")
            except BlockingIOError:
                return  # the loop is about to wake up already

    def every(self, seconds: float, callback: Callback) -> None:
        self._timers.append(_Timer(seconds, callback, repeats=True))

    def later(self, seconds: float, callback: Callback) -> None:
        self._timers.append(_Timer(seconds, callback, repeats=False))

    def readable(self, fd: int, callback: Callback) -> SelectorWatch:
        return SelectorWatch(self._selector, fd, selectors.EVENT_READ, callback)

    def writable(self, fd: int, callback: Callback) -> SelectorWatch:
        return SelectorWatch(self._selector, fd, selectors.EVENT_WRITE, callback)

    def _serve(self) -> None:
        while True:
            for key, events in self._selector.select(self._timeout()):
                if key.fileobj is self._wake_up:
                    self._wake_up.recv(4096)
                    continue
                for event, callback in list(key.data.items()):
                    if events & event:
                        self._call(callback)
            now = time.monotonic()
            for timer in list(self._timers):
                if timer.due <= now:
                    timer.due = now + timer.seconds
                    if not timer.repeats:
                        self._timers.remove(timer)
                    self._call(timer.callback)
            for _ in range(len(self._callbacks)):
                self._call(self._callbacks.popleft())

    def _timeout(self) -> float | None:
        if self._callbacks:
            return 0
        if not self._timers:
            return None
        return max(0.0, min(timer.due for timer in self._timers) - time.monotonic())

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            log.exception("a callback of the event loop failed")


class SelectorWatch:
    """Watches one direction of one file descriptor. Two watches may share a descriptor, which a selector holds once."""

    __slots__ = ("_callback", "_event", "_fd", "_selector")

    def __init__(self, selector: selectors.BaseSelector, fd: int, event: int, callback: Callback) -> None:
        self._selector = selector
        self._fd = fd
        self._event = event
        self._callback = callback

    def start(self) -> None:
        callbacks = self._registered()
        if callbacks:
            callbacks[self._event] = self._callback
            self._selector.modify(self._fd, sum(callbacks), callbacks)
        else:
            self._selector.register(self._fd, self._event, {self._event: self._callback})

    def stop(self) -> None:
        callbacks = self._registered()
        if callbacks is None or callbacks.pop(self._event, None) is None:
            return
        if callbacks:
            self._selector.modify(self._fd, sum(callbacks), callbacks)
        else:
            self._selector.unregister(self._fd)

    def close(self) -> None:
        self.stop()

    def _registered(self) -> dict[int, Callback] | None:
        key = self._selector.get_map().get(self._fd)
        return key.data if key is not None else None


class _Timer:
    """Calls `callback` after so many seconds, and again if it `repeats`. `due` is in seconds of the monotonic clock."""

    __slots__ = ("callback", "due", "repeats", "seconds")

    def __init__(self, seconds: float, callback: Callback, *, repeats: bool) -> None:
        self.seconds = seconds
        self.callback = callback
        self.repeats = repeats
        self.due = time.monotonic() + seconds
