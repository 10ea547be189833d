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
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from .gunicorn import find_worker
from .process import Process

LOOK_EVERY: Final = 0.1
"""Seconds between two looks whether gunicorn has told its worker to end."""
LISTENER_CLOSES: Final = 1.2
"""Seconds within which a gunicorn worker that is to end has closed its listener."""
CLIENTS_PER_SECOND: Final = 100
FINISH_TIMEOUT: Final = 2.0
"""Seconds that peers have to answer the close frame, and handlers to finish."""

log = logging.getLogger("flask_presence")


class Shutdown:
    """How one app's connections in this process end."""

    def __init__(self, process: Process, drain_seconds: float) -> None:
        self._process = process
        self._drain_seconds = drain_seconds
        self._worker: Any = None
        self._looked_in: int | None = None
        self._prepared_in: int | None = None
        self._lock = threading.Lock()
        self._started = False
        self._done = False
        self._in_a_hurry = False
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether the connections are about to end."""
        if self._looked_in != os.getpid():
            self._looked_in, self._worker = os.getpid(), find_worker()
        return self._begun or (self._worker is not None and not self._worker.alive)

    def prepare(self) -> None:
        """At the first socket of a process, after any fork: see to it that its end is not missed.

        gunicorn says so in the worker's `alive`, also where signals cannot be chained (in threads) and where there is
        none (`--max-requests`, `--reload`); elsewhere the exit of the interpreter says it.
        """
        if self._prepared_in == os.getpid():
            return
        self._prepared_in = os.getpid()
        atexit.register(self._at_exit)
        if self.begun or self._worker is None:
            return
        try:
            self._chain(signal.SIGQUIT, self._on_quit)
            self._chain(signal.SIGINT, self._on_quit)
        except ValueError:
            log.debug("this worker serves in threads, so a quick stop takes as long as any other")
        self._process.spawn(self._wait_for_the_end)

    def drain(self, delay: float) -> None:
        """After `delay` seconds say goodbye; blocks until done, whoever began it."""
        self._begun = True
        process = self._process
        with self._lock:
            first, self._started = not self._started, True
        if not first:
            while not self._done:
                process.sleep(0.02)
            return
        try:
            if not self._in_a_hurry:
                process.sleep(delay)
            count = process.connections
            spread = 0.0 if self._in_a_hurry else min(self._drain_seconds, count / CLIENTS_PER_SECOND)
            process.goodbye(spread, FINISH_TIMEOUT)
        finally:
            self._done = True

    def _wait_for_the_end(self) -> None:
        pid = os.getpid()
        while not self.begun:
            self._process.sleep(LOOK_EVERY)
        if os.getpid() == pid:
            self.drain(LISTENER_CLOSES)

    def _chain(self, number: signal.Signals, ours: Callable[[], None]) -> None:
        previous = signal.getsignal(number)

        def handler(received: int, frame: FrameType | None) -> Any:
            ours()
            if callable(previous):
                return previous(received, frame)
            return None

        if callable(previous):
            signal.signal(number, handler)

    def _on_quit(self) -> None:
        self._begun = self._in_a_hurry = True

    def _at_exit(self) -> None:
        if self._prepared_in == os.getpid():
            self._in_a_hurry |= self._worker is None
            self.drain(0)
