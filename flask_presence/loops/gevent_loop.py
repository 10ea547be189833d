"""gevent's hub as an event loop, and functions that find out about gevent without importing it.

Rule: gevent is imported only if it drives the server already.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .base import Callback, CrossThreadCall, Source

if TYPE_CHECKING:
    import gevent.hub

T = TypeVar("T")


class GeventWatch:
    """An IO watcher of libev or libuv. `close` frees it."""

    __slots__ = ("_callback", "_watcher")

    def __init__(self, watcher: Any, callback: Callback) -> None:
        self._watcher = watcher
        self._callback = callback

    def start(self) -> None:
        if not self._watcher.active:
            self._watcher.start(self._callback)

    def stop(self) -> None:
        self._watcher.stop()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()


class GeventLoop:
    """The hub of the thread in which this is created. `spawn` runs functions in greenlets."""

    def __init__(self) -> None:
        import gevent
        from gevent.monkey import get_original

        self._gevent = gevent
        self._hub: gevent.hub.Hub = gevent.get_hub()
        self._loop: Any = self._hub.loop
        self._thread_id: Callable[[], int] = get_original("_thread", "get_ident")
        self._new_lock: Callable[[], Any] = get_original("_thread", "allocate_lock")
        self._owner = self._thread_id()

    def run(self, function: Callable[[], T]) -> T:
        if self._thread_id() == self._owner:
            return function()
        call = CrossThreadCall(function)
        done = self._new_lock()
        done.acquire()
        call.then = done.release
        self._loop.run_callback_threadsafe(call.make)
        done.acquire()
        return call.result()

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        self.run(lambda: self._gevent.spawn(function, *arguments))

    def add_source(self, source: Source) -> None:
        """Do nothing: the hub runs all the time."""

    def sleep(self, seconds: float) -> None:
        self._gevent.sleep(seconds)

    def soon(self, callback: Callback) -> None:
        self._loop.run_callback(callback)

    def every(self, seconds: float, callback: Callback) -> None:
        self._loop.timer(seconds, seconds, ref=False).start(callback)

    def later(self, seconds: float, callback: Callback) -> None:
        timer = self._loop.timer(seconds, ref=False)

        def fire() -> None:
            timer.close()
            callback()

        timer.start(fire)

    def readable(self, fd: int, callback: Callback) -> GeventWatch:
        return GeventWatch(self._loop.io(fd, 1), callback)

    def writable(self, fd: int, callback: Callback) -> GeventWatch:
        return GeventWatch(self._loop.io(fd, 2), callback)


def is_gevent_socket(sock: object) -> bool:
    """Whether `sock` belongs to gevent, so that its hub must drive it."""
    module = sys.modules.get("gevent.socket")
    return module is not None and isinstance(sock, module.socket)


def has_hub() -> bool:
    """Whether this thread belongs to a gevent hub."""
    local = sys.modules.get("gevent._hub_local")
    return local is not None and local.get_hub_if_exists() is not None


def sleep_off_loop(seconds: float) -> None:
    """Wait without holding up the gevent hub of this thread, if it has one."""
    if has_hub():
        sys.modules["gevent"].sleep(seconds)
    else:
        time.sleep(seconds)


def call_off_hub(function: Callable[[], T]) -> T:
    """Call a function that waits in sockets, off the loop. If gevent serves this thread but has not patched sockets,
    this calls it in a thread of gevent's pool, because it would hold up the hub."""
    if not has_hub() or sys.modules["gevent.monkey"].is_module_patched("socket"):
        return function()
    answer: T = sys.modules["gevent"].get_hub().threadpool.apply(function)
    return answer
