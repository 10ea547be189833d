"""The time of one service.

Rule: what a client sees, and what ends by itself, goes by this clock, so that a test can let time pass without waiting.
Two things keep their own time: what Redis times, and how verdicts of guards are ordered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone


class Clock:
    """The time of day and the monotonic time. `ahead` says by how many seconds they are ahead of the real time.

    `utc_now` returns an aware `datetime` in UTC, `epoch` seconds since 1970, and `monotonic` seconds since an arbitrary
    moment. They are attributes because the hot path calls them: until `advance`, they are the functions of the standard
    library.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.utc_now: Callable[[], datetime] = _utc_now
        self.epoch: Callable[[], float] = time.time
        self.monotonic: Callable[[], float] = time.monotonic

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self.ahead += seconds
        self.utc_now = lambda: _utc_now() + timedelta(seconds=self.ahead)
        self.epoch = lambda: time.time() + self.ahead
        self.monotonic = lambda: time.monotonic() + self.ahead


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)
