"""The rate limit of one connection: a token bucket, which also tells when too many frames were refused.

Rule: callers pass the time, in seconds of the monotonic clock.
"""

from __future__ import annotations

from typing import Final

REFUSAL_WINDOW: Final = 10.0
"""Seconds over which refused frames are counted."""


class RateLimit:
    """A bucket that holds `burst` tokens and gets `rate` new ones a second. A frame takes one token, or more if it asks
    for much."""

    __slots__ = ("_burst", "_rate", "_refilled_at", "_refused", "_tokens", "_window_start")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._refilled_at = now
        self._refused = 0
        self._window_start = now

    def admit(self, now: float, cost: int = 1) -> bool:
        """Take the tokens for a frame that arrives at `now`. Returns whether there were enough: a frame that costs more
        than `burst` needs a full bucket."""
        tokens = self._tokens + (now - self._refilled_at) * self._rate
        self._refilled_at = now
        if tokens > self._burst:
            tokens = self._burst
        if tokens >= cost or tokens == self._burst:
            self._tokens = tokens - cost
            return True
        self._tokens = tokens
        if now - self._window_start > REFUSAL_WINDOW:
            self._window_start, self._refused = now, 0
        self._refused += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether more than 100 frames, or twice the burst if that is more, were refused within 10 seconds."""
        return self._refused > max(100, 2 * self._burst)
