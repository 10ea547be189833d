"""What the rest of the package needs from an event loop.

Rule: whatever belongs to a loop (connections, sessions, watchers, timers) is touched in that loop only. Code in other
threads and greenlets comes in through `run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
Callback = Callable[[], object]


class Loop(Protocol):
    """An event loop: it runs callbacks one after another. `run`, `spawn` and `attend` may be called from any thread."""

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` in the loop and return what it returns, or raise what it raises."""

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call `function`, which may block, off the loop: in a greenlet or thread of its own."""

    def sleep(self, seconds: float) -> None:
        """Wait off the loop."""

    def soon(self, callback: Callback) -> None:
        """Call `callback` in the loop's next iteration."""

    def attend(self, source: Source) -> None:
        """Run `source.listen` off the loop, in a greenlet or thread of its own, until the source ends."""


class SocketLoop(Loop, Protocol):
    """An event loop that also watches sockets and keeps timers."""

    def every(self, seconds: float, callback: Callback) -> None:
        """Call `callback` in the loop again and again, at this interval."""

    def readable(self, fd: int, callback: Callback) -> Watch:
        """A watch that calls `callback` whenever `fd` can be read, once it is started."""

    def writable(self, fd: int, callback: Callback) -> Watch:
        """A watch that calls `callback` whenever `fd` can be written to, once it is started."""


class Watch(Protocol):
    """Interest in one file descriptor."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Source(Protocol):
    """Something outside the process that events come from, such as a subscription."""

    @property
    def ended(self) -> bool:
        """Whether no more events will come."""

    def listen(self) -> None:
        """Receive events and handle them in the loop, until the source ends. Blocks."""

    def catch_up(self, *, wait: bool) -> bool:
        """Handle the events that have arrived. With `wait`, give events that are known to be on their way a moment to
        arrive. Returns whether there were any."""


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
