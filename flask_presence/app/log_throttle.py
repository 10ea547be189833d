"""Limits how often log lines of one kind are written, because clients can cause them.

Rule: the first line is written, and the next ones are only counted for a while. No client can fill the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

INTERVAL: Final = 60.0
"""Seconds between two lines of the same kind."""
MAX_KINDS: Final = 1000
"""How many kinds are remembered. Beyond that, all are forgotten."""

log = logging.getLogger("flask_presence")


class LogThrottle:
    """Writes at most one log line of each kind per minute. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def log(self, kind: str, level: int, text: str, *arguments: object, problem: BaseException | None = None) -> None:
        """Log `text`, with the traceback of `problem`, unless a line of this `kind` was logged less than a minute ago.

        The next line of the kind says how many were left out.
        """
        now = time.monotonic()
        with self._lock:
            logged_at, left_out = self._kinds.get(kind, (-INTERVAL, 0))
            if now - logged_at < INTERVAL:
                self._kinds[kind] = logged_at, left_out + 1
                return
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            self._kinds[kind] = now, 0
        if left_out:
            text, arguments = f"{text} (and %d more like this since the last line)", (*arguments, left_out)
        log.log(level, text, *arguments, exc_info=problem)
