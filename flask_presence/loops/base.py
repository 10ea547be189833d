"""What the rest of the package needs from an event loop.

Rule: whatever belongs to a loop (connections, sessions, watchers, timers) is touched in that loop only. Code in other
threads and greenlets comes in through `run`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

T = TypeVar("T")
Callback = Callable[[], object]

WOULD_BLOCK: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a non-blocking socket raises if it has to wait: nothing has been read or written."""


class Loop(Protocol):
    """An event loop: it runs callbacks one after another, watches sockets and keeps timers. `run` and `spawn` may be
    called from any thread, everything else in the loop only."""

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` in the loop and return what it returns, or raise what it raises."""

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call `function`, which may block, off the loop: in a greenlet or thread of its own."""

    def sleep(self, seconds: float) -> None:
        """Wait off the loop."""

    def soon(self, callback: Callback) -> None:
        """Call `callback` in the loop's next iteration."""

    def later(self, seconds: float, callback: Callback) -> None:
        """Call `callback` in the loop once, after so many seconds."""

    def every(self, seconds: float, callback: Callback) -> None:
        """Call `callback` in the loop again and again, at this interval."""

    def readable(self, fd: int, callback: Callback) -> Watch:
        """A watch that calls `callback` whenever `fd` can be read, once it is started."""

    def writable(self, fd: int, callback: Callback) -> Watch:
        """A watch that calls `callback` whenever `fd` can be written to, once it is started."""

    def add_source(self, source: Source) -> None:
        """Add something that has events, if the loop has to wait for them by itself."""


class Watch(Protocol):
    """Interest in one file descriptor."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Source(Protocol):
    """Something whose events come from outside the process."""

    @property
    def ended(self) -> bool:
        """Whether no more events will come."""

    @property
    def is_behind(self) -> bool:
        """Whether events are known to be on their way."""

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock."""


class CrossThreadCall(Generic[T]):
    """A call that one thread asks another to make. `then` is called afterwards, in the thread that made it."""

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
        """What the function returned. Raises what it raised."""
        if self._problem is not None:
            raise self._problem
        return self._value
