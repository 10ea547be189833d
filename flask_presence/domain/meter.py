"""The counters of a process: numbers that only grow, and that can be added up over all processes.

Rule: all counters and their labels are fixed here, so clients cannot add any. No label is a channel, a user or an
address. Counting costs one addition, and nothing here reads a clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from .channels import CHANNEL_TYPES
from .errors import ERROR_CODES

Counts = Mapping[str, float]
"""Numbers by `name`, or by `name|label`."""

GuardOutcome = Literal["allowed", "denied", "failed"]
GUARD_OUTCOMES: Final[tuple[GuardOutcome, ...]] = ("allowed", "denied", "failed")
OTHER: Final = "other"
CLOSE_CODES: Final = (
    *(1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4401, 4403),
    *(4009, 4100, 4200),  # of Pusher's clients
)
"""The close codes that are counted one by one. A peer may send any code from 1000 to 4999; others are `OTHER`."""
REFUSALS: Final = (400, 401, 403, 426, 503)
"""The HTTP statuses with which an upgrade is refused."""
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of a histogram's buckets, in seconds. One more bucket is for everything above."""


class Histogram:
    """Counts durations, in seconds, by bucket. `total` is their sum."""

    __slots__ = ("buckets", "total")

    def __init__(self, buckets: Iterable[float] = (), total: float = 0.0) -> None:
        self.buckets = list(buckets) or [0.0] * (len(BOUNDS) + 1)
        self.total = total

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> float:
        return sum(self.buckets)


class Meter:
    """The counts of one process, for its own connections, since the process began.

    `received` counts messages from clients, and `published` those among them that were sent to a channel. `answers`
    counts messages to a single connection: answers, and what the server tells it. `deliveries` counts messages to
    everyone in a channel, or to a user, once for each connection. `slow` counts connections that were closed because
    they did not read. Bytes are those of WebSocket frames.
    """

    __slots__ = (
        *("answers", "bytes_received", "bytes_sent", "closed", "deliveries", "errors", "guards", "joins", "lag"),
        *("leaves", "opened", "published", "received", "refused", "slow"),
    )

    def __init__(self) -> None:
        self.opened = self.slow = 0
        self.received = self.answers = self.deliveries = self.published = 0
        self.bytes_received = self.bytes_sent = 0
        self.joins: dict[str, int] = dict.fromkeys(CHANNEL_TYPES, 0)
        self.leaves: dict[str, int] = dict.fromkeys(CHANNEL_TYPES, 0)
        self.closed: dict[str, int] = dict.fromkeys((*map(str, CLOSE_CODES), OTHER), 0)
        self.errors: dict[str, int] = dict.fromkeys(ERROR_CODES, 0)
        self.refused: dict[str, int] = dict.fromkeys((*map(str, REFUSALS), OTHER), 0)
        self.guards: dict[GuardOutcome, Histogram] = {outcome: Histogram() for outcome in GUARD_OUTCOMES}
        self.lag = Histogram()

    @property
    def sent(self) -> int:
        """How many messages were sent to clients."""
        return self.answers + self.deliveries

    def count_close(self, code: int) -> None:
        """Count a connection that ended with `code`."""
        _count(self.closed, str(code))

    def count_refusal(self, status: int) -> None:
        """Count an upgrade that was refused with the HTTP `status`."""
        _count(self.refused, str(status))

    def counts(self) -> dict[str, float]:
        """All counts as they are now."""
        plain = ("opened", "received", "answers", "deliveries", "published", "bytes_received", "bytes_sent", "slow")
        counts: dict[str, float] = {name: getattr(self, name) for name in plain}
        for name in ("joins", "leaves", "closed", "errors", "refused"):
            counts.update((f"{name}|{label}", count) for label, count in getattr(self, name).items())
        for outcome, histogram in self.guards.items():
            counts.update(_flatten(f"guards|{outcome}", histogram))
        counts.update(_flatten("lag", self.lag))
        return counts


def add(*summands: Counts) -> dict[str, float]:
    """The sum of several counts, name by name."""
    total: dict[str, float] = {}
    for counts in summands:
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total


def subtract(counts: Counts, earlier: Counts) -> dict[str, float]:
    """What was counted after `earlier`."""
    return {name: count - earlier.get(name, 0) for name, count in counts.items()}


def by_label(counts: Counts, name: str) -> dict[str, float]:
    """The counts of `name`, by label."""
    start = f"{name}|"
    return {key.removeprefix(start): count for key, count in counts.items() if key.startswith(start)}


def histogram(counts: Counts, name: str) -> Histogram:
    """The histogram in `counts` that has this name."""
    return Histogram((counts.get(f"{name}|{at}", 0) for at in range(len(BOUNDS) + 1)), counts.get(f"{name}|sum", 0))


def _count(counts: dict[str, int], label: str) -> None:
    counts[label if label in counts else OTHER] += 1


def _flatten(name: str, histogram: Histogram) -> dict[str, float]:
    return {f"{name}|sum": histogram.total} | {f"{name}|{at}": count for at, count in enumerate(histogram.buckets)}
