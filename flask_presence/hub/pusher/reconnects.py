"""Connections that have to come back with new signatures, because permissions may have changed.

Rule: no signature outlives a recheck that concerns it, whether it has been used or not. Many connections are closed a
few at a time, because each of them leaves its channels, and others must not wait for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from ...domain.errors import Unauthorized
from ..clock import Clock
from ..offload import Offload
from ..session import Session
from .dialect import COME_BACK
from .refusals import refused
from .session import PusherSession
from .stale_signatures import StaleSignatures

CLOSES_AT_ONCE: Final = 20
"""How many connections are closed in one step of the loop."""
CLOSE_EVERY: Final = 0.05
"""Seconds between two such steps."""
PERMISSIONS_CHANGED: Final = "Permissions may have changed"


class Reconnects:
    """Closes connections after rechecks, and refuses signatures that are older."""

    def __init__(self, offload: Offload, clock: Clock) -> None:
        self._offload = offload
        self._clock = clock
        self._stale = StaleSignatures()
        self._closing: deque[PusherSession] = deque()

    def recheck(self, sessions: Iterable[Session], user_id: str | None, channel: str | None) -> None:
        """Close those among `sessions` that a signer has let in. The other arguments are those of the recheck."""
        self._stale.recheck(user_id, channel, self._clock.monotonic())
        is_under_way = bool(self._closing)
        self._closing.extend(one for one in sessions if isinstance(one, PusherSession) and one.rests_on_signature)
        if not is_under_way:
            self._close_some()

    def check_age(self, session: PusherSession, user_id: str | None, channel: str | None) -> None:
        """Raise `Refused` if a signature that the session presents may be too old, see `StaleSignatures`."""
        if self._stale.may_be_stale(session.opened_at, user_id, channel):
            raise refused(COME_BACK, PERMISSIONS_CHANGED, Unauthorized, close=True)

    def _close_some(self) -> None:
        for _ in range(min(CLOSES_AT_ONCE, len(self._closing))):
            self._closing.popleft().close(COME_BACK, PERMISSIONS_CHANGED, "expired")
        if self._closing:
            self._offload.loop.later(CLOSE_EVERY, self._close_some)
