"""Whether this process may believe what it knows of Redis.

Law: fails closed. Who has not been heard for so long that others may think it dead does not act before it has been
heard again; while Redis is away every attempt is refused at once, but for the heartbeat.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Final

from ....domain.errors import BackendUnavailable
from ..client.client import ConnectionRefused

BACKOFF: Final = (0.1, 1.0)
"""Seconds before the next heartbeat while Redis is away, at first and at the most; each a little different."""

log = logging.getLogger("flask_presence")


class Link:
    """Redis, as far as this process knows. `fence`: seconds after the last heartbeat after which it does not act."""

    def __init__(self, fence: float) -> None:
        self._fence = fence
        self._beat_at = time.monotonic()
        self._problem: BackendUnavailable | None = None
        self._failures = 0
        self._retry_at = 0.0

    @property
    def up(self) -> bool:
        return self._problem is None

    def check(self) -> None:
        """`BackendUnavailable` where nothing should be attempted."""
        if isinstance(self._problem, ConnectionRefused):
            raise type(self._problem)(str(self._problem))
        if self._problem is not None:
            raise BackendUnavailable(str(self._problem))
        if time.monotonic() - self._beat_at > self._fence:
            raise BackendUnavailable("this process has not been heard for so long that others may think it dead")

    def may_retry(self, now: float) -> bool:
        """Whether it is time for another heartbeat, while Redis is away."""
        return now >= self._retry_at

    def beaten(self, sent: float) -> bool:
        """A heartbeat that was sent at `sent` has been answered well; whether Redis had been away."""
        self._beat_at = sent
        was_away, self._problem, self._failures = self._problem is not None, None, 0
        if was_away:
            log.warning("Redis is back")
        return was_away

    def failed(self, problem: BackendUnavailable) -> None:
        if type(problem) is not type(self._problem):
            if isinstance(problem, ConnectionRefused):
                log.error("%s. Sockets stay open, joins and messages fail until that is corrected", problem)
            else:
                log.warning("Redis is away; sockets stay open, joins and messages fail until it is back: %s", problem)
        self._problem = problem
        self._retry_at = time.monotonic() + min(BACKOFF[0] * 2**self._failures, BACKOFF[1]) * random.uniform(0.5, 1)  # noqa: S311
        self._failures = min(self._failures + 1, 10)
