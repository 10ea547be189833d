"""What the processes of a service are doing: a reading of each, and all of them together.

Law: values that can be kept elsewhere as JSON; callers pass `now`. What counts as a number of the whole service is
decided here, and nowhere else.
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
"""Seconds for which messages are counted together."""
SLOTS: Final = 150
LATE: Final = 1.5
"""Seconds after the end of a slot until every process has said what it counted in it."""
BUSY_SLOTS: Final = 5
"""Slots over which the rate of a channel is a mean."""
BUSIEST: Final = 500
"""Channels whose rate a process tells the others."""
SLOWEST: Final = 10

NOTHING: Final[Counts] = Meter().counts()
"""Every count, at nought."""

Slots = Mapping[int, tuple[int, int]]
"""Messages in and out, by the number of the slot."""


class Blocked(msgspec.Struct, frozen=True):
    """A connection whose socket takes nothing more for now, and the bytes that wait for it."""

    client_id: str
    user_id: str | None
    waiting: int


class Backlog(msgspec.Struct, frozen=True):
    """What waits for connections: bytes for all, `most` for one that is blocked, how many are, and the worst."""

    waiting: int = 0
    most: int = 0
    blocked: int = 0
    slowest: tuple[Blocked, ...] = ()

    def __add__(self, other: Backlog) -> Backlog:
        slowest = heapq.nlargest(SLOWEST, (*self.slowest, *other.slowest), key=lambda one: one.waiting)
        waiting, blocked = self.waiting + other.waiting, self.blocked + other.blocked
        return Backlog(waiting, max(self.most, other.most), blocked, tuple(slowest))


class Reading(msgspec.Struct, frozen=True):
    """One process: what it has counted (`counts`, and messages by slot), and how it is now.

    `busy`: events a second of the busiest channels that it hears. `lag`: seconds that its event loop was late at the
    worst, a moment ago.
    """

    counts: dict[str, float] = {}
    slots: dict[int, tuple[int, int]] = {}
    busy: dict[str, float] = {}
    outbox: Backlog = Backlog()
    lag: float = 0.0

    def since(self, earlier: Reading) -> Reading:
        """This reading without what `earlier` had counted already."""
        slots = {
            slot: (came - earlier.slots.get(slot, (0, 0))[0], went - earlier.slots.get(slot, (0, 0))[1])
            for slot, (came, went) in self.slots.items()
        }
        return msgspec.structs.replace(self, counts=subtract(self.counts, earlier.counts), slots=slots)


@dataclass(frozen=True)
class Survey:
    """The processes that are alive (`readings`), what those had counted that are gone for good (`departed`), and those
    that may be dead, and count for what they have counted alone."""

    readings: tuple[Reading, ...]
    departed: Counts
    departed_slots: Slots
    dead: tuple[Reading, ...] = ()

    @property
    def counts(self) -> dict[str, float]:
        """Of the whole service, since its beginning."""
        return add(NOTHING, self.departed, *(reading.counts for reading in (*self.readings, *self.dead)))

    @property
    def outbox(self) -> Backlog:
        return sum((reading.outbox for reading in self.readings), Backlog())

    @property
    def lag(self) -> float:
        """The worst."""
        return max((reading.lag for reading in self.readings), default=0.0)

    @property
    def busy(self) -> dict[str, float]:
        """Events a second by channel. Every process that has somebody in a channel hears all of it."""
        busy: dict[str, float] = {}
        for reading in self.readings:
            for channel, rate in reading.busy.items():
                busy[channel] = max(rate, busy.get(channel, 0.0))
        return busy

    def rates(self, now: float) -> tuple[list[float], list[float]]:
        """Messages in and out a second, over the last `SLOTS` slots that are complete, oldest first; `now` in epoch
        seconds."""
        newest = math.floor((now - LATE) / SLOT) - 1
        came, went = [0.0] * SLOTS, [0.0] * SLOTS
        for slots in (self.departed_slots, *(reading.slots for reading in (*self.readings, *self.dead))):
            for slot, (received, sent) in slots.items():
                at = slot - newest + SLOTS - 1
                if 0 <= at < SLOTS:
                    came[at] += received / SLOT
                    went[at] += sent / SLOT
        return came, went


class Traffic:
    """Messages in and out of a process, slot by slot."""

    def __init__(self) -> None:
        self._seen = (0, 0)
        self.slots: dict[int, tuple[int, int]] = {}

    def note(self, now: float, received: int, sent: int) -> None:
        """So many in all by `now`, in epoch seconds."""
        slot = math.floor(now / SLOT)
        before, self._seen = self._seen, (received, sent)
        new = (received - before[0], sent - before[1])
        if any(new):
            came, went = self.slots.get(slot, (0, 0))
            self.slots[slot] = (came + new[0], went + new[1])
        while self.slots and (oldest := next(iter(self.slots))) <= slot - SLOTS - 2:
            del self.slots[oldest]


class Busy:
    """Events a second by channel, a mean over the last complete slots."""

    def __init__(self) -> None:
        self.current: dict[str, int] = {}
        self._slot = 0
        self._past: list[dict[str, int]] = []
        self._sums: dict[str, int] = {}

    def turn(self, now: float) -> None:
        """It is `now`, in epoch seconds; called more than once a slot."""
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
        """Of the busiest channels, those first."""
        busiest = heapq.nlargest(BUSIEST, self._sums.items(), key=lambda item: item[1])
        return {channel: round(count / (BUSY_SLOTS * SLOT), 1) for channel, count in busiest}


class Lag:
    """The worst of a moment: how late the event loop was, in seconds, over the last ten or twenty of them."""

    PERIOD: Final = 10.0

    def __init__(self) -> None:
        self._since = 0.0
        self._before = 0.0
        self._worst = 0.0

    def note(self, now: float, seconds: float) -> None:
        if now - self._since >= self.PERIOD:
            self._since, self._before, self._worst = now, self._worst, 0.0
        self._worst = max(self._worst, seconds)

    @property
    def worst(self) -> float:
        return max(self._before, self._worst)
