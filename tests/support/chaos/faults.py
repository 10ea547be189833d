"""What a fault is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

LEASE = 2.0
"""That of the workers, in seconds: some faults last longer."""


class Fault(NamedTuple):
    """`cause` does the harm, with a source of random numbers; it may take a while. The fault may last for so many
    seconds longer."""

    cause: Callable[[random.Random], object]
    lasts: float = 0.0
