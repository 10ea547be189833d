"""The end of a process: refuse what is new, say goodbye to everybody, then let it go.

Law: nobody is told to reconnect while this process still accepts connections, and the process is held until
everybody has been told. gunicorn believes a worker idle once its sockets have been taken over, and would end
it within a second.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .service import Service

LISTENER_CLOSES: Final = 1.2
"""Seconds after SIGTERM within which a gunicorn worker has closed its listener."""
CLIENTS_PER_SECOND: Final = 100
PATIENCE: Final = 2.0
"""Seconds that peers have to answer the goodbye, and handlers to finish."""

log = logging.getLogger("flask_presence")


class Shutdown:
    """How one app's connections in this process end. `begun` once they are about to."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._prepared_in: int | None = None
        self._lock = threading.Lock()
        self._started = False
        self._done = False
        self._in_a_hurry = False
        self.begun = False

    def prepare(self) -> None:
        """At the first socket of a process, after any fork: be told when the process ends.

        Only a gunicorn worker is held for it; its signal handlers are called as before.
        """
        if self._prepared_in == os.getpid():
            return
        self._prepared_in = os.getpid()
        if not _is_gunicorn_worker():
            return
        atexit.register(self._at_exit)
        try:
            self._chain(signal.SIGTERM, self._on_term)
            self._chain(signal.SIGQUIT, self._on_quit)
            self._chain(signal.SIGINT, self._on_quit)
        except ValueError:
            log.debug("this worker serves in threads, where signals cannot be chained: goodbyes are said at exit only")

    def drain(self, delay: float) -> None:
        """After `delay` seconds say goodbye; blocks until done, whoever began it."""
        self.begun = True
        service = self._service
        with self._lock:
            first, self._started = not self._started, True
        if not first:
            while not self._done:
                service.sleep(0.02)
            return
        try:
            if delay:
                service.sleep(delay)
            count = len(service.hub.sessions)
            spread = 0.0 if self._in_a_hurry else min(service.settings.drain, count / CLIENTS_PER_SECOND)
            service.goodbye(spread, PATIENCE)
        finally:
            self._done = True

    def _chain(self, number: signal.Signals, ours: Callable[[], None]) -> None:
        previous = signal.getsignal(number)

        def handler(received: int, frame: FrameType | None) -> Any:
            ours()
            if callable(previous):
                return previous(received, frame)
            return None

        if callable(previous):
            signal.signal(number, handler)

    def _on_term(self) -> None:
        self.begun = True
        loop = self._service.hub.current_loop
        if loop is not None:
            loop.spawn(self.drain, LISTENER_CLOSES)

    def _on_quit(self) -> None:
        self.begun = self._in_a_hurry = True

    def _at_exit(self) -> None:
        if self._prepared_in == os.getpid():
            self.drain(0)


def _is_gunicorn_worker() -> bool:
    return "gunicorn.workers.base" in sys.modules and "gunicorn.arbiter" in sys.modules
