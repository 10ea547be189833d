"""The index of the channels that keep messages, so that what they keep can be added up.

Rule: sans IO. The index may have channels that keep nothing any longer, until their messages would have expired. It
lacks one that keeps something only if Redis has lost the index, and for `RENEW_EVERY` seconds at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ....domain.history import Retention
from .calls import Call, Operation
from .keys import Keys

RENEW_EVERY: Final = 60.0
"""Seconds after which this process notes again a channel in which it goes on publishing."""


class HistoryIndex:
    """The channels under one prefix, and which of them this process has noted of late. `clock` in seconds."""

    def __init__(self, keys: Keys, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock
        self._noted: set[str] = set()
        self._forget_at = clock() + RENEW_EVERY

    def note(self, channel: str, retention: Retention) -> Call | None:
        """The call that notes that a message is kept in a channel; `None` if a recent one covers it. `noted` follows if
        it succeeds."""
        now = self._clock()
        if now >= self._forget_at:
            self._noted.clear()  # all at once, so that this remembers no more channels than are in use
            self._forget_at = now + RENEW_EVERY
        if channel in self._noted:
            return None
        seconds = math.ceil(retention.seconds + 2 * RENEW_EVERY)  # messages that this note covers come later
        return Call("index_history", (self._keys.histories,), (channel, str(seconds)))

    def noted(self, channel: str) -> None:
        """Remember that a channel is in the index."""
        self._noted.add(channel)

    def channels(self) -> Operation[list[str]]:
        """The channels that may keep messages."""
        return [name.decode() for name in (yield Call("ZRANGE", (self._keys.histories,), ("0", "-1")))]
