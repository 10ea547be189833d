"""The clock of Redis as this worker knows it, by which all workers order the verdicts of guards.

Rule: sans IO. The clock never goes back: if a better sample shows that it was fast, it stands still until the time has
caught up. So the verdicts of one worker keep their order, and those of two workers do so as far as the samples are
exact.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from ....domain.errors import BackendUnavailable
from ....loops.pending import Pending, raising

SAMPLES: Final = 10
"""How many samples are considered. The one with the fastest answer is the most exact."""
SEGMENTS: Final = 50
"""How many changes of the clock are remembered, for moments in the past."""


class _Segment(NamedTuple):
    """From the moment `since` on, the clock is `offset` ms ahead of the monotonic clock, but shows at least `floor`."""

    since: float
    offset: float
    floor: float

    def at(self, moment: float) -> float:
        return max(self.floor, moment * 1000 + self.offset)


class RedisClock:
    """Estimates the time in Redis. `known` is settled once there is a sample."""

    def __init__(self) -> None:
        self.known: Pending[None] = Pending()
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)  # (round trip, offset)
        self._segments: deque[_Segment] = deque(maxlen=SEGMENTS)

    def at(self, moment: float) -> int:
        """The time in Redis, in ms, at a moment of the monotonic clock, in seconds; 0 if it is not known."""
        for segment in reversed(self._segments):
            if moment >= segment.since:
                return int(segment.at(moment))
        return int(self._segments[0].at(moment)) if self._segments else 0

    def sample(self, sent_at: float, received_at: float, time: float) -> None:
        """Note that Redis has answered, between two moments, that its time is `time`, in ms."""
        self._samples.append((received_at - sent_at, time - (sent_at + received_at) * 500))
        _, offset = min(self._samples)
        if not self._segments:
            self._segments.append(_Segment(received_at, offset, 0))
        elif offset != self._segments[-1].offset:
            self._segments.append(_Segment(received_at, offset, self._segments[-1].at(received_at)))
        if not self.known.settled:
            self.known.settle(lambda: None)

    def give_up(self, problem: BackendUnavailable) -> None:
        """Fail whatever waits until the time is known."""
        if not self.known.settled:
            waiting, self.known = self.known, Pending()
            waiting.settle(raising(problem))

    def clear(self) -> None:
        """Forget the samples: it may be another Redis."""
        self._samples.clear()
        self._segments.clear()
