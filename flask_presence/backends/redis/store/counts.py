"""What the processes have counted, kept where all can ask for it.

Law: sans IO. A node's counts are its own while it is known, and the service's from the step in which it is forgotten:
counted once, always.
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

KEPT: Final = 86400
"""Seconds for which the counts of a service are kept in which no process lives."""

_decode: Final = msgspec.json.Decoder(Reading).decode


class Readings:
    """The readings of the nodes under one prefix."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def post(self, node: str, reading: Reading) -> Operation[bool]:
        """Have the others know what `node` has counted; whether they do, as they do not want to of one they bury."""
        keys = self._keys
        names = (keys.readings, keys.counts, keys.slots, keys.nodes, keys.claims)
        taken: int = yield Call("post", names, (node, msgspec.json.encode(reading), str(KEPT)))
        return bool(taken)

    def add(self, counts: Counts) -> list[Call]:
        """Count what happened to connections whose own process could not."""
        key = self._keys.counts
        calls = [Call("HINCRBY", (key,), (name, str(int(number)))) for name, number in counts.items()]
        return [*calls, Call("EXPIRE", (key,), (str(KEPT),))] if calls else []

    def fold(self) -> Call:
        """Keep what those have counted that are no nodes any more."""
        keys = self._keys
        oldest = math.floor(time.time() / SLOT) - SLOTS - 2
        return Call("fold", (keys.readings, keys.nodes, keys.counts, keys.slots), (str(oldest), str(KEPT)))

    def survey(self, known_birth: int = 0) -> Operation[Survey]:
        """All of it, at one moment. `BackendUnavailable` where the data are not those of the caller's last heartbeat:
        what the others had counted is not there yet."""
        keys = self._keys
        names = (keys.readings, keys.leases, keys.counts, keys.slots, keys.birth)
        alive, posted, counts, slots, birth = yield Call("survey", names, ())
        if known_birth and int(birth or 0) != known_birth:
            raise BackendUnavailable("Redis has lost its data, and is being told again")
        readings = {name: _decode(text) for name, text in pairs(posted)}
        living = tuple(reading for name, reading in readings.items() if name in alive)
        dead = tuple(reading for name, reading in readings.items() if name not in alive)
        departed = {name.decode(): float(number) for name, number in pairs(counts)}
        return Survey(living, departed, _by_slot({name.decode(): int(number) for name, number in pairs(slots)}), dead)


def _by_slot(numbers: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    slots = {name.partition(" ")[0] for name in numbers}
    return {int(slot): (numbers.get(f"{slot} in", 0), numbers.get(f"{slot} out", 0)) for slot in slots}
