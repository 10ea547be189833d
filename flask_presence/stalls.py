"""The app's functions that keep gevent's event loop, and with it everybody, from going on.

Law: gevent changes over to others where a function waits for what gevent knows. What waits in C, or computes, cannot
be interrupted, but it can be named.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .complaints import Complaints
from .transport.loops import GeventLoop

STALL: Final = 0.25
"""Seconds from which on it is worth a line in the log."""


class StallWatch:
    """Watches calls. `loop` gives the event loop of this process, if it has one."""

    def __init__(self, loop: Callable[[], object]) -> None:
        self._loop = loop
        self._complaints = Complaints()

    @contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Log it if the loop could not make a single turn in a long `with` block. `what` it is: "guard app.team"."""
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
