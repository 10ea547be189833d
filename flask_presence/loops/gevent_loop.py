"""Event loops: gevent's hub, or a thread with a selector.

Law: one owner per loop. Watchers, timers and everything that they call run in the loop, one after
another; other threads come in through `run`.
"""

from __future__ import annotations

import logging
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..backends import Source

if TYPE_CHECKING:
    import gevent.hub

T = TypeVar("T")
Callback = Callable[[], object]

log = logging.getLogger("flask_presence")


class Watch(Protocol):
    """Interest in one file descriptor."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class EventLoop(Protocol):
    """What a `Connection` needs. `run` and `spawn` may be called from any thread; `sleep` waits without
    holding the loop up, and is not called in it."""

    def run(self, function: Callable[[], T]) -> T: ...
    def spawn(self, function: Callable[..., object], *arguments: Any) -> None: ...
    def attend(self, source: Source) -> None: ...
    def sleep(self, seconds: float) -> None: ...
    def soon(self, callback: Callback) -> None: ...
    def every(self, seconds: float, callback: Callback) -> None: ...
    def readable(self, fd: int, callback: Callback) -> Watch: ...
    def writable(self, fd: int, callback: Callback) -> Watch: ...


class GeventWatch:
    """An io watcher of libev or libuv; `close` frees it."""

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
    """The hub of the thread that it is made in. A blocking function gets a greenlet."""

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
        call = _Call(function)
        done = self._new_lock()
        done.acquire()
        call.then = done.release
        self._loop.run_callback_threadsafe(call.make)
        done.acquire()
        return call.result()

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        self.run(lambda: self._gevent.spawn(function, *arguments))

    def attend(self, source: Source) -> None:
        self.spawn(source.listen)

    def sleep(self, seconds: float) -> None:
        self._gevent.sleep(seconds)

    def soon(self, callback: Callback) -> None:
        self._loop.run_callback(callback)

    def every(self, seconds: float, callback: Callback) -> None:
        self._loop.timer(seconds, seconds, ref=False).start(callback)

    def readable(self, fd: int, callback: Callback) -> GeventWatch:
        return GeventWatch(self._loop.io(fd, 1), callback)

    def writable(self, fd: int, callback: Callback) -> GeventWatch:
        return GeventWatch(self._loop.io(fd, 2), callback)


class ThreadLoop:
    """A daemon thread with a selector, for servers with a thread per connection."""

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
        call = _Call(function)
        done = threading.Event()
        call.then = done.set
        self.soon(call.make)
        done.wait()
        return call.result()

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        threading.Thread(target=function, args=arguments, name="flask_presence worker", daemon=True).start()

    def attend(self, source: Source) -> None:
        self.spawn(source.listen)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def soon(self, callback: Callback) -> None:
        self._callbacks.append(callback)
        if threading.current_thread() is not self._thread:
            try:
                self._wake.send(b"\0")
            except BlockingIOError:
                return  # the loop has a wake-up waiting already

    def every(self, seconds: float, callback: Callback) -> None:
        self._timers.append(_Timer(seconds, callback))

    def readable(self, fd: int, callback: Callback) -> SelectorWatch:
        return SelectorWatch(self._selector, fd, selectors.EVENT_READ, callback)

    def writable(self, fd: int, callback: Callback) -> SelectorWatch:
        return SelectorWatch(self._selector, fd, selectors.EVENT_WRITE, callback)

    def _serve(self) -> None:
        while True:
            for key, events in self._selector.select(self._patience()):
                if key.fileobj is self._wake_up:
                    self._wake_up.recv(4096)
                    continue
                for event, callback in list(key.data.items()):
                    if events & event:
                        self._call(callback)
            now = time.monotonic()
            for timer in self._timers:
                if timer.due <= now:
                    timer.due = now + timer.seconds
                    self._call(timer.callback)
            for _ in range(len(self._callbacks)):
                self._call(self._callbacks.popleft())

    def _patience(self) -> float | None:
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
    """One direction of one file descriptor in a selector that others may share it in."""

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
    __slots__ = ("callback", "due", "seconds")

    def __init__(self, seconds: float, callback: Callback) -> None:
        self.seconds = seconds
        self.callback = callback
        self.due = time.monotonic() + seconds


class _Call(Generic[T]):
    """A function call that another thread makes, and what came of it. `then` is called after it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T
        self._problem: BaseException | None = None
        self.then: Callback = lambda: None

    def make(self) -> None:
        try:
            self._value = self._function()
        except BaseException as problem:
            self._problem = problem
        self.then()

    def result(self) -> T:
        if self._problem is not None:
            raise self._problem
        return self._value


def is_gevent_socket(sock: object) -> bool:
    """Whether `sock` belongs to gevent, so that its hub must drive it."""
    module = sys.modules.get("gevent.socket")
    return module is not None and isinstance(sock, module.socket)


def has_hub() -> bool:
    """Whether this thread belongs to a gevent hub."""
    local = sys.modules.get("gevent._hub_local")
    return local is not None and local.get_hub_if_exists() is not None


def sleep_beside(seconds: float) -> None:
    """Wait without holding up the gevent hub of this thread, if it has one."""
    if has_hub():
        sys.modules["gevent"].sleep(seconds)
    else:
        time.sleep(seconds)
