"""Counts and measures what one process does for its own connections.

Rule: counting costs one addition. Whatever takes longer is done when a time slot ends, or when a reading is asked for.
"""

from __future__ import annotations

from ..domain.meter import Meter
from ..domain.readings import Backlog, BusyChannels, Reading, Traffic, WorstLag


class Instruments:
    """Owns the counters of this process (`meter`), and what it has measured lately."""

    def __init__(self) -> None:
        self.meter = Meter()
        self._traffic = Traffic()
        self._busy = BusyChannels()
        self._lag = WorstLag()

    def delivered(self, channel: str, count: int) -> None:
        """Count a message or an event that was sent to `count` connections in `channel`."""
        self.meter.deliveries += count
        current = self._busy.current
        current[channel] = current.get(channel, 0) + 1

    def lagged(self, now: float, seconds: float) -> None:
        """Record that the event loop ran something `seconds` after it was due. `now` in epoch seconds."""
        self.meter.lag.observe(seconds)
        self._lag.record(now, seconds)

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in epoch seconds. Called a few times a second."""
        self._traffic.record(now, self.meter.received, self.meter.sent)
        self._busy.advance(now)

    def read(self, outbox: Backlog) -> Reading:
        """The reading of this process. `outbox` is what is still to be sent."""
        return Reading(self.meter.counts(), dict(self._traffic.slots), self._busy.rates(), outbox, self._lag.worst)
