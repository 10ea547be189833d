"""What one process counts and measures of its own connections.

Law: counting costs an addition; whatever takes longer is done when a slot ends, or when somebody looks.
"""

from __future__ import annotations

from ..domain.meter import Meter
from ..domain.readings import Backlog, Busy, Lag, Reading, Traffic


class Instruments:
    """Owner of the process's counts (`meter`), and of what was lately."""

    def __init__(self) -> None:
        self.meter = Meter()
        self._traffic = Traffic()
        self._busy = Busy()
        self._lag = Lag()

    def delivered(self, channel: str, count: int) -> None:
        """Something was sent to so many connections in `channel`."""
        self.meter.deliveries += count
        current = self._busy.current
        current[channel] = current.get(channel, 0) + 1

    def lagged(self, now: float, seconds: float) -> None:
        """The loop came to something that many seconds after it was due; `now` in epoch seconds."""
        self.meter.lag.observe(seconds)
        self._lag.note(now, seconds)

    def tick(self, now: float) -> None:
        """It is `now`, in epoch seconds; called a few times a second."""
        self._traffic.note(now, self.meter.received, self.meter.sent)
        self._busy.turn(now)

    def read(self, outbox: Backlog) -> Reading:
        """All of it, with what waits for the connections."""
        return Reading(self.meter.counts(), dict(self._traffic.slots), self._busy.rates(), outbox, self._lag.worst)
