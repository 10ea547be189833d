"""An event loop without a thread or a server, for tests.

Rule: nothing runs until `settle` is called, and then in the thread that calls it, until nothing is left to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .base import Source

T = TypeVar("T")


class InlineLoop:
    """An event loop that runs what is left to do when `settle` is called."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._sources: list[Source] = []

    def run(self, function: Callable[[], T]) -> T:
        return function()

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        self._waiting.append(lambda: function(*arguments))

    def soon(self, callback: Callable[[], object]) -> None:
        self.spawn(callback)

    def sleep(self, seconds: float) -> None:
        """Run what has been spawned instead of waiting, because nothing else can happen meanwhile."""
        if seconds:
            self.settle()

    def attend(self, source: Source) -> None:
        self._sources.append(source)

    def settle(self) -> None:
        """Run all spawned functions, including those that they spawn, and handle the sources' events, until nothing is
        left."""
        self._sources = [source for source in self._sources if not source.ended]
        while True:
            while self._waiting:
                self._waiting.popleft()()
            # Do not wait while spawned functions are left: what a source waits for may depend on them.
            if self._catch_up(wait=False) or self._waiting:
                continue
            if not self._catch_up(wait=True) and not self._waiting:
                return

    def _catch_up(self, *, wait: bool) -> bool:
        return any(source.catch_up(wait=wait) for source in self._sources)
