"""The circuit breaker: it refuses work while Redis is down, or while this worker's lease may have ended.

Rule: fails closed. A worker whose heartbeat has been late for so long that others may consider it dead does nothing
until Redis has answered a heartbeat again. While Redis is down, everything but the heartbeat fails at once.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from ....domain.errors import BackendUnavailable, OutcomeUnknown
from ..client.backoff import Backoff
from ..client.client import ConnectionRefused
from ..store.layout import OtherLayout

BACKOFF: Final = (0.1, 1.0)
"""Seconds before the next heartbeat while Redis is down: the first time, and at most."""
PERMANENT: Final = (ConnectionRefused, OtherLayout)
"""Problems that do not end by themselves."""

log = logging.getLogger("flask_presence")


class CircuitBreaker:
    """What this worker knows about Redis, which the log calls `name`. It refuses work `fence` seconds after the last
    answered heartbeat."""

    def __init__(self, fence: float, name: str = "Redis") -> None:
        self._fence = fence
        self._name = name
        self._heartbeat_at = time.monotonic()
        self._problem: BackendUnavailable | None = None
        self._backoff = Backoff(*BACKOFF)
        self._retry_at = 0.0
        self._was_up = False

    @property
    def is_up(self) -> bool:
        """Whether Redis answers, as far as is known."""
        return self._problem is None

    def check(self) -> None:
        """Raise `BackendUnavailable` if nothing should be attempted."""
        if self._problem is not None:
            raise _kind(self._problem)(str(self._problem))
        if time.monotonic() - self._heartbeat_at > self._fence:
            raise BackendUnavailable("this worker's heartbeat is so late that others may consider it dead")

    def may_retry(self, now: float) -> bool:
        """Whether the next heartbeat is due, while Redis is down."""
        return now >= self._retry_at

    def succeeded(self, sent_at: float) -> bool:
        """Note that Redis has answered the heartbeat sent at `sent_at`. Returns whether it had been down."""
        self._heartbeat_at, self._was_up = sent_at, True
        was_down, self._problem = self._problem is not None, None
        self._backoff.succeeded()
        if was_down:
            log.warning("%s is back", self._name)
        return was_down

    def failed(self, problem: BackendUnavailable) -> None:
        """Note that Redis did not answer, or refused the connection."""
        # The code that asks whether a new worker may have connections logs why not.
        is_other = self._problem is None or _kind(problem) is not _kind(self._problem)
        is_news = is_other and (self._was_up or not isinstance(problem, OtherLayout))
        if is_news:
            if isinstance(problem, PERMANENT):
                text = "%s%s. WebSockets stay open, joins and messages fail until that is corrected"
                log.error(text, "" if self._name == "Redis" else f"{self._name}: ", problem)
            else:
                log.warning(
                    "%s is down; WebSockets stay open, joins and messages fail until it is back: %s",
                    self._name,
                    problem,
                )
        self._problem = problem
        self._retry_at = time.monotonic() + self._backoff.failed()


def _kind(problem: BackendUnavailable) -> type[BackendUnavailable]:
    """What the log and later errors tell apart. A lost connection and one that cannot be made are the same."""
    return BackendUnavailable if isinstance(problem, OutcomeUnknown) else type(problem)
