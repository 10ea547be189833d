"""The time of one service.

Rule: what a client sees, and what ends by itself, goes by this clock, so that a test can let time pass without waiting.
Two kinds of member events carry the real time: those that come through Redis, and those of a grace period that
`disconnect`, `remove` or `recheck` ends.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone


class Clock:
    """The time of day and the monotonic time. `ahead` says by how many seconds they are ahead of the real time."""

    __slots__ = ("_ahead", "ahead")

    def __init__(self) -> None:
        self.ahead = 0.0
        self._ahead = timedelta()

    def utc_now(self) -> datetime:
        """An aware `datetime` in UTC."""
        return datetime.now(timezone.utc) + self._ahead

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic() + self.ahead

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self.ahead += seconds
        self._ahead = timedelta(seconds=self.ahead)
