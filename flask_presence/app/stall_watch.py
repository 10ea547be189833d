"""Watches calls of the app's functions on gevent, where they share one thread with the event loop.

Rule: gevent cannot interrupt a function that computes, or that waits in C code, but the log can name it. Functions that
run asyncio take turns, because a thread can run only one asyncio event loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from ..domain.callables import runs_asyncio
from ..loops.gevent_loop import GeventLoop, has_hub
from .log_throttle import LogThrottle

STALL: Final = 0.25
"""Seconds for which a call must block the event loop to be logged."""


@cache
def _asyncio_turn() -> threading.Lock:
    """Held while asyncio runs. Created when it is first needed, because gevent may patch locks until then."""
    return threading.Lock()


class StallWatch:
    """Watches calls. `find_loop` returns the event loop of this process, if there is one."""

    def __init__(self, find_loop: Callable[[], object]) -> None:
        self._find_loop = find_loop
        self._log_throttle = LogThrottle()

    @contextmanager
    def calling(self, function: Callable[..., object], name: str) -> Iterator[None]:
        """Watch a call of `function` in the `with` block, after waiting for its turn if it runs asyncio.

        `name` is for the log: "guard app.team".
        """
        if has_hub() and runs_asyncio(function):
            with _asyncio_turn(), self._watch(name):
                yield
        else:
            with self._watch(name):
                yield

    @contextmanager
    def _watch(self, name: str) -> Iterator[None]:
        """Log a warning if the `with` block takes `STALL` or longer and the event loop runs no callback meanwhile."""
        loop = self._find_loop()
        if not isinstance(loop, GeventLoop):
            yield
            return
        loop_has_run = False

        def note_run() -> None:
            nonlocal loop_has_run
            loop_has_run = True

        loop.soon(note_run)
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            if seconds >= STALL and not loop_has_run:
                self._log_throttle.log(
                    name,
                    logging.WARNING,
                    "%s blocked this worker's event loop for %.1f s: it computes, or it waits in code that gevent "
                    "cannot switch away from, like a database driver in C (sqlite3, mysqlclient, psycopg2). Use a "
                    "driver that works with gevent, or a thread: gevent.get_hub().threadpool.apply(function)",
                    name,
                    seconds,
                )
