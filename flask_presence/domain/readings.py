"""Readings: what each process has counted and measures now, and how readings make up the numbers of the service.

Rule: only this module decides how readings are combined. Readings can be stored as JSON. Callers pass the time.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from .meter import Counts, Meter, add, subtract

SLOT: Final = 2.0
"""The length of a time slot, in seconds. Messages are counted by slot."""
SLOTS: Final = 150
"""How many slots are kept."""
RECORDED_AFTER: Final = 1.5
"""Seconds after the end of a slot by which every process has recorded what it counted in it."""
BUSY_SLOTS: Final = 5
"""How many slots a channel's rate is averaged over."""
BUSIEST: Final = 500
"""How many channels a reading has rates of, at most."""
SLOWEST: Final = 10
"""How many blocked connections a reading names, at most."""

ZERO_COUNTS: Final[Counts] = Meter().counts()
"""All counts, each of them 0."""

Slots = Mapping[int, tuple[int, int]]
"""Messages received and sent, by the number of the slot since the epoch."""


class Blocked(msgspec.Struct, frozen=True):
    """A connection whose socket is full, so that `waiting` bytes cannot be sent yet."""

    client_id: str
    user_id: str | None
    waiting: int


class Backlog(msgspec.Struct, frozen=True):
    """What is still to be sent, over all connections.

    `waiting` is the number of bytes in total, and `most` the largest number for one blocked connection. `blocked` is
    the number of blocked connections, and `slowest` are those among them for which the most bytes wait.
    """

    waiting: int = 0
    most: int = 0
    blocked: int = 0
    slowest: tuple[Blocked, ...] = ()

    def __add__(self, other: Backlog) -> Backlog:
        slowest = heapq.nlargest(SLOWEST, (*self.slowest, *other.slowest), key=lambda one: one.waiting)
        waiting, blocked = self.waiting + other.waiting, self.blocked + other.blocked
        return Backlog(waiting, max(self.most, other.most), blocked, tuple(slowest))


class Reading(msgspec.Struct, frozen=True):
    """What one process has counted (`counts`, and messages by time slot), and what it measures now.

    `busy` are the events per second in its busiest channels. `lag` is the longest delay of its event loop in the last
    10 to 20 seconds, in seconds.
    """

    counts: dict[str, float] = {}
    slots: dict[int, tuple[int, int]] = {}
    busy: dict[str, float] = {}
    outbox: Backlog = Backlog()
    lag: float = 0.0

    def since(self, earlier: Reading) -> Reading:
        """This reading, without what `earlier` has counted."""
        slots = {
            slot: (received - earlier.slots.get(slot, (0, 0))[0], sent - earlier.slots.get(slot, (0, 0))[1])
            for slot, (received, sent) in self.slots.items()
        }
        return msgspec.structs.replace(self, counts=subtract(self.counts, earlier.counts), slots=slots)


@dataclass(frozen=True)
class Survey:
    """All readings of the service at one moment.

    `readings` are those of the processes that are alive, `dead` those of processes that may be dead: only what these
    have counted matters. `absorbed` and `absorbed_slots` are the counts of processes that were removed. `unavailable`
    are the labels of the shards whose part is missing, because they do not answer.
    """

    readings: tuple[Reading, ...]
    absorbed: Counts
    absorbed_slots: Slots
    dead: tuple[Reading, ...] = ()
    unavailable: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, float]:
        """The counts of the whole service, since it began."""
        return add(ZERO_COUNTS, self.absorbed, *(reading.counts for reading in (*self.readings, *self.dead)))

    @property
    def outbox(self) -> Backlog:
        """What is still to be sent, over all processes."""
        return sum((reading.outbox for reading in self.readings), Backlog())

    @property
    def lag(self) -> float:
        """The longest delay of an event loop, in seconds."""
        return max((reading.lag for reading in self.readings), default=0.0)

    @property
    def busy(self) -> dict[str, float]:
        """Events per second by channel. The highest rate counts, because every process with a connection in a channel
        hears all of its events."""
        busy: dict[str, float] = {}
        for reading in self.readings:
            for channel, rate in reading.busy.items():
                busy[channel] = max(rate, busy.get(channel, 0.0))
        return busy

    def rates(self, now: float) -> tuple[list[float], list[float]]:
        """Messages received and sent per second, for each of the last `SLOTS` complete slots, oldest first. `now` in
        epoch seconds."""
        newest = math.floor((now - RECORDED_AFTER) / SLOT) - 1
        received_rates, sent_rates = [0.0] * SLOTS, [0.0] * SLOTS
        for slots in (self.absorbed_slots, *(reading.slots for reading in (*self.readings, *self.dead))):
            for slot, (received, sent) in slots.items():
                at = slot - newest + SLOTS - 1
                if 0 <= at < SLOTS:
                    received_rates[at] += received / SLOT
                    sent_rates[at] += sent / SLOT
        return received_rates, sent_rates


class Traffic:
    """Counts the messages that a process receives and sends, by time slot."""

    def __init__(self) -> None:
        self._totals = (0, 0)
        self.slots: dict[int, tuple[int, int]] = {}

    def record(self, now: float, received: int, sent: int) -> None:
        """Record how many messages there have been in total, at `now`, in epoch seconds."""
        slot = math.floor(now / SLOT)
        before, self._totals = self._totals, (received, sent)
        new = (received - before[0], sent - before[1])
        if any(new):
            already = self.slots.get(slot, (0, 0))
            self.slots[slot] = (already[0] + new[0], already[1] + new[1])
        while self.slots and (oldest := next(iter(self.slots))) <= slot - SLOTS - 2:
            del self.slots[oldest]


class BusyChannels:
    """Measures events per second by channel, averaged over the last complete slots.

    `current` are the events of the current slot, by channel. Whoever sees an event counts it there.
    """

    def __init__(self) -> None:
        self.current: dict[str, int] = {}
        self._slot = 0
        self._past: list[dict[str, int]] = []
        self._sums: dict[str, int] = {}

    def advance(self, now: float) -> None:
        """End the current slot if it is over at `now`, in epoch seconds. Must be called more than once per slot."""
        slot = math.floor(now / SLOT)
        if slot == self._slot:
            return
        passed = min(slot - self._slot, BUSY_SLOTS + 1) if self._slot else 1
        self._slot = slot
        done, self.current = self.current, {}
        for channel, count in done.items():
            self._sums[channel] = self._sums.get(channel, 0) + count
        self._past += [done, *({} for _ in range(passed - 1))]
        while len(self._past) > BUSY_SLOTS:
            self._forget(self._past.pop(0))

    def _forget(self, counts: dict[str, int]) -> None:
        for channel, count in counts.items():
            self._sums[channel] -= count
            if not self._sums[channel]:
                del self._sums[channel]

    def rates(self) -> dict[str, float]:
        """The rates of the busiest channels, the busiest first."""
        busiest = heapq.nlargest(BUSIEST, self._sums.items(), key=lambda item: item[1])
        return {channel: round(count / (BUSY_SLOTS * SLOT), 1) for channel, count in busiest}


class WorstLag:
    """Remembers the longest delay of the event loop over the last 10 to 20 seconds."""

    PERIOD: Final = 10.0

    def __init__(self) -> None:
        self._since = 0.0
        self._previous = 0.0
        self._current = 0.0

    def record(self, now: float, seconds: float) -> None:
        """Record a delay of `seconds` at `now`, in epoch seconds."""
        if now - self._since >= self.PERIOD:
            self._since, self._previous, self._current = now, self._current, 0.0
        self._current = max(self._current, seconds)

    @property
    def worst(self) -> float:
        """The longest delay of that time, in seconds."""
        return max(self._previous, self._current)
