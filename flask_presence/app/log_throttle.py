"""Log lines that may come often: the first is written, the next are counted.

Law: whoever can cause a log line can cause many; none of them may fill the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

INTERVAL: Final = 60.0
"""Seconds between two lines of the same kind."""
MAX_KINDS: Final = 1000

log = logging.getLogger("flask_presence")


class Complaints:
    """What has been complained of lately, by kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def complain(
        self, kind: str, level: int, text: str, *arguments: object, problem: BaseException | None = None
    ) -> None:
        """Log `text`, with the traceback of `problem`, unless one of this `kind` was logged a minute ago; the
        next line says how many were not."""
        now = time.monotonic()
        with self._lock:
            last, silent = self._kinds.get(kind, (-INTERVAL, 0))
            if now - last < INTERVAL:
                self._kinds[kind] = last, silent + 1
                return
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            self._kinds[kind] = now, 0
        if silent:
            text, arguments = f"{text} (and %d more like this since the last line)", (*arguments, silent)
        log.log(level, text, *arguments, exc_info=problem)
