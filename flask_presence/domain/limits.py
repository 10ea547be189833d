"""How much one connection may send: a token bucket, and when patience ends.

Law: time is an argument, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 10.0
"""Seconds over which refused frames are counted."""


class RateLimit:
    """A bucket of `burst` tokens, refilled with `rate` a second; a frame takes one.

    One instance serves one connection. `exhausted` becomes true once more than 100 frames (or twice
    the burst, if that is more) were refused within 10 seconds.
    """

    __slots__ = ("_burst", "_rate", "_refused", "_since", "_stamp", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._stamp = now
        self._refused = 0
        self._since = now

    def admit(self, now: float) -> bool:
        """Whether a frame that arrives at `now` is within the limit."""
        tokens = self._tokens + (now - self._stamp) * self._rate
        self._stamp = now
        if tokens > self._burst:
            tokens = self._burst
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return True
        self._tokens = tokens
        if now - self._since > PATIENCE:
            self._since, self._refused = now, 0
        self._refused += 1
        return False

    @property
    def exhausted(self) -> bool:
        return self._refused > max(100, 2 * self._burst)
