"""What the workers have counted, kept where every process can ask for it.

Rule: sans IO. While a worker is known, its counts are its own; in the step in which it is forgotten, they become the
service's. So everything is counted exactly once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from ....domain.errors import BackendUnavailable
from ....domain.meter import Counts
from ....domain.readings import SLOT, SLOTS, Reading, Survey
from .calls import Call, Operation, pairs
from .keys import Keys

KEPT_FOR: Final = 86400
"""Seconds for which the counts are kept after the last worker has ended."""

_decode: Final = msgspec.json.Decoder(Reading).decode


class WorkerCounts:
    """The counts under one prefix."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def record(self, worker_id: str, reading: Reading) -> Operation[bool]:
        """Store a worker's reading in place of its last one. Returns whether it was stored; it is not if the worker is
        being removed, because its last reading has been absorbed."""
        keys = self._keys
        names = (keys.worker_counts, keys.absorbed_counts, keys.absorbed_traffic, keys.workers, keys.claims)
        # Most counts are 0, and are the larger part of what every worker sends with each heartbeat.
        counts = {name: count for name, count in reading.counts.items() if count}
        text = msgspec.json.encode(msgspec.structs.replace(reading, counts=counts))
        stored: int = yield Call("record_counts", names, (worker_id, text, str(KEPT_FOR)))
        return bool(stored)

    def add(self, counts: Counts) -> list[Call]:
        """The calls that count what happened to connections whose own worker could not count it."""
        key = self._keys.absorbed_counts
        calls = [Call("HINCRBY", (key,), (name, str(int(number)))) for name, number in counts.items()]
        return [*calls, Call("EXPIRE", (key,), (str(KEPT_FOR),))] if calls else []

    def absorb(self) -> Call:
        """The call that adds the counts of forgotten workers to the service's own."""
        keys = self._keys
        oldest = math.floor(time.time() / SLOT) - SLOTS - 2
        names = (keys.worker_counts, keys.workers, keys.absorbed_counts, keys.absorbed_traffic)
        return Call("absorb_counts", names, (str(oldest), str(KEPT_FOR)))

    def read(self, known_since: int = 0) -> Operation[Survey]:
        """All counts at one moment.

        Raises `BackendUnavailable` if the data did not begin at `known_since`, in ms (0: not known): then Redis has
        lost its data, and the other workers have not recorded their counts again yet.
        """
        keys = self._keys
        names = (keys.worker_counts, keys.leases, keys.absorbed_counts, keys.absorbed_traffic, keys.data_since)
        alive, recorded, counts, traffic, data_since = yield Call("read_counts", names, ())
        if known_since and int(data_since or 0) != known_since:
            raise BackendUnavailable("Redis has lost its data, and the workers are restoring it")
        readings = {name: _decode(text) for name, text in pairs(recorded)}
        living = tuple(reading for name, reading in readings.items() if name in alive)
        dead = tuple(reading for name, reading in readings.items() if name not in alive)
        absorbed = {name.decode(): float(number) for name, number in pairs(counts)}
        return Survey(living, absorbed, _by_slot({name.decode(): int(number) for name, number in pairs(traffic)}), dead)


def _by_slot(numbers: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """Messages received and sent, by time slot."""
    slots = {name.partition(" ")[0] for name in numbers}
    return {int(slot): (numbers.get(f"{slot} in", 0), numbers.get(f"{slot} out", 0)) for slot in slots}
