"""How long to wait before the next attempt to reach Redis.

Rule: each failure in a row doubles the delay, up to a limit. Delays are shortened at random, so that workers do not all
come back at one moment.
"""

from __future__ import annotations

import random


class Backoff:
    """The delays after failures in a row, in seconds: `first`, and at most `longest`."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._delay = first

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt has failed."""
        return self._delay > self._first

    def failed(self) -> float:
        """Note a failure. Returns the seconds to wait, which are shortened at random."""
        delay = min(self._delay, self._longest)
        self._delay = 2 * delay
        return delay * random.uniform(0.5, 1)  # noqa: S311

    def succeeded(self) -> None:
        """Begin with the first delay again."""
        self._delay = self._first
