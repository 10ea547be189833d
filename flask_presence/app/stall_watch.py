"""Calls of the app's functions, which share one thread where gevent serves.

Law: gevent changes over to others where a function waits for what gevent knows. What waits in C, or computes, cannot
be interrupted, but it can be named; what has asyncio run in the thread waits for its turn, as a thread has one such
loop.
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
from .log_throttle import Complaints

STALL: Final = 0.25
"""Seconds from which on it is worth a line in the log."""


@cache
def _asyncio_turn() -> threading.Lock:
    """Made when it is first needed, by when gevent has patched locks, if it does."""
    return threading.Lock()


class StallWatch:
    """Watches calls. `loop` gives the event loop of this process, if it has one."""

    def __init__(self, loop: Callable[[], object]) -> None:
        self._loop = loop
        self._complaints = Complaints()

    @contextmanager
    def calling(self, function: Callable[..., object], what: str) -> Iterator[None]:
        """For a call of `function`: in its turn, and watched. `what` it is, for the log: "guard app.team"."""
        if has_hub() and runs_asyncio(function):
            with _asyncio_turn(), self._watch(what):
                yield
        else:
            with self._watch(what):
                yield

    @contextmanager
    def _watch(self, what: str) -> Iterator[None]:
        """Log it if the loop could not make a single turn in a long `with` block."""
        loop = self._loop()
        if not isinstance(loop, GeventLoop):
            yield
            return
        turned = False

        def turn() -> None:
            nonlocal turned
            turned = True

        loop.soon(turn)
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            if seconds >= STALL and not turned:
                self._complaints.complain(
                    what,
                    logging.WARNING,
                    "%s held everybody up for %.1f s: it waits where gevent cannot let others go on, as in a database "
                    "driver in C (sqlite3, mysqlclient, psycopg2), or it computes. Use a driver that gevent knows, or "
                    "let a thread wait: gevent.get_hub().threadpool.apply(function)",
                    what,
                    seconds,
                )
