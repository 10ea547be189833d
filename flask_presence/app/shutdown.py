"""Shuts down: refuses new connections, closes the open ones over a few seconds, and then lets the process end.

Rule: clients are told to reconnect only after this process accepts no more connections, and the process does not end
before all of them have been told. gunicorn sees no work in a worker whose sockets have been taken over, and would end
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

POLL_INTERVAL: Final = 0.1
"""Seconds between two checks whether gunicorn has told its worker to end."""
LISTENER_CLOSE_DELAY: Final = 1.2
"""Seconds within which a gunicorn worker closes its listener after it was told to end."""
CLIENTS_PER_SECOND: Final = 100
"""How many clients are told to reconnect per second, unless `PRESENCE_DRAIN` demands more."""
FINISH_TIMEOUT: Final = 2.0
"""Seconds for peers to answer the close frame, and for handlers to finish."""

log = logging.getLogger("flask_presence")


class Shutdown:
    """The shutdown of one app's connections in this process. `drain_seconds` is the longest time to spread it over."""

    def __init__(self, process: Process, drain_seconds: float) -> None:
        self._process = process
        self._drain_seconds = drain_seconds
        self._worker: Any = None
        self._worker_found_in: int | None = None  # a process id, because a fork inherits all of this
        self._prepared_in: int | None = None
        self._lock = threading.Lock()
        self._is_draining = False
        self._is_done = False
        self._is_quick = False
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether the process is shutting down."""
        if self._worker_found_in != os.getpid():
            self._worker_found_in, self._worker = os.getpid(), find_worker()
        return self._begun or (self._worker is not None and not self._worker.alive)

    def prepare(self) -> None:
        """Watch for the end of this process. Called at each new connection; the first call in a process does it.

        gunicorn clears the worker's `alive`, even if there is no signal (`--max-requests`, `--reload`), or if signals
        cannot be handled here (in threads). Other servers end the interpreter.
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
            log.debug("this worker handles requests in threads, so a quick shutdown takes as long as a graceful one")
        self._process.spawn(self._drain_when_begun)

    def drain(self, delay: float) -> None:
        """Close all connections after `delay` seconds. Blocks until that is done, even if another call has begun it."""
        self._begun = True
        process = self._process
        with self._lock:
            is_first, self._is_draining = not self._is_draining, True
        if not is_first:
            while not self._is_done:
                process.sleep(0.02)
            return
        try:
            if not self._is_quick:
                process.sleep(delay)
            count = process.connections
            spread = 0.0 if self._is_quick else min(self._drain_seconds, count / CLIENTS_PER_SECOND)
            process.goodbye(spread, FINISH_TIMEOUT)
        finally:
            self._is_done = True

    def _drain_when_begun(self) -> None:
        pid = os.getpid()
        while not self.begun:
            self._process.sleep(POLL_INTERVAL)
        if os.getpid() == pid:
            self.drain(LISTENER_CLOSE_DELAY)

    def _chain(self, number: signal.Signals, first: Callable[[], None]) -> None:
        """Call `first` before the signal's current handler."""
        previous = signal.getsignal(number)

        def handler(received: int, frame: FrameType | None) -> Any:
            first()
            if callable(previous):
                return previous(received, frame)
            return None

        if callable(previous):
            signal.signal(number, handler)

    def _on_quit(self) -> None:
        self._begun = self._is_quick = True

    def _at_exit(self) -> None:
        if self._prepared_in == os.getpid():
            self._is_quick |= self._worker is None
            self.drain(0)
