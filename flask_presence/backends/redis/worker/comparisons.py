"""Whose turn it is to be compared with Redis, among this worker's copies.

Rule: the copies take turns, at an even pace: the more there are, the rarer each one's turn. Callers pass the time, in
seconds of the monotonic clock.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Final

SHORTEST: Final = 30.0
"""Seconds between two comparisons of a copy, if the worker has few."""
LONGEST: Final = 300.0
"""The same, if the worker has so many that it would exceed `RATE`."""
RATE: Final = 20.0
"""Comparisons per second, unless there are so many copies that `LONGEST` requires more."""
SOON_AFTER: Final = 1.5
"""Seconds until the first comparison after Redis was down. A few copies are all compared within as many again."""
MAX_LATE: Final = 1.0
"""Seconds by which turns may be late and still all be taken, so that a process that stood still does not take hundreds
at once."""


class Comparisons:
    """The channels whose copies are compared, in the order of their turns."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, None] = OrderedDict()
        self._next_at = 0.0
        self._soon = 0  # how many of the next turns come soon

    def add(self, channel: str, now: float) -> None:
        self._turns[channel] = None
        if len(self._turns) == 1:
            self._next_at = now + self._pause * random.uniform(0.5, 1.5)  # noqa: S311

    def remove(self, channel: str) -> None:
        del self._turns[channel]

    def due(self, now: float) -> list[str]:
        """The channels whose turn has come since the last call."""
        found = []
        self._next_at = max(self._next_at, now - MAX_LATE)
        while self._turns and self._next_at <= now:
            channel = next(iter(self._turns))
            self._turns.move_to_end(channel)
            found.append(channel)
            self._next_at += self._pause
            self._soon = max(0, self._soon - 1)
        return found

    def begin_soon(self, now: float) -> None:
        """Give every channel a turn soon, because Redis was down."""
        self._soon = len(self._turns)
        self._next_at = now + SOON_AFTER + self._pause * random.random()  # noqa: S311 (workers differ)

    @property
    def _pause(self) -> float:
        """Seconds between two turns."""
        count = max(1, len(self._turns))
        all_within = SOON_AFTER if self._soon else SHORTEST
        return min(max(all_within / count, 1 / RATE), LONGEST / count)
