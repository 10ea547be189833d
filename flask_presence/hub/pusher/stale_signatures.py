"""Signatures that were made before permissions changed, and have not been used yet.

Rule: a signature has no date, so it counts as made when the connection was opened that it is for. If a recheck has
concerned its user or its channel since then, a new connection has to ask its signer again.
"""

from __future__ import annotations

from typing import Final

MAX_RECHECKS: Final = 10_000
"""How many rechecks are remembered. Of connections that are older than the others, no signature counts."""


class StaleSignatures:
    """Remembers rechecks. All times are in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._rechecked_at: dict[tuple[str | None, str | None], float] = {}  # by user and channel, the earliest first
        self._in_channel: dict[str, float] = {}  # the same for any single user
        self._forgotten_until = 0.0

    def recheck(self, user_id: str | None, channel: str | None, now: float) -> None:
        """Note a recheck of a user, a channel, or a user in a channel (`None`: all)."""
        concerned = (user_id, channel)
        self._rechecked_at.pop(concerned, None)
        self._rechecked_at[concerned] = now
        if user_id is not None and channel is not None:
            self._in_channel[channel] = now
        if len(self._rechecked_at) > MAX_RECHECKS:
            oldest = next(iter(self._rechecked_at))
            self._forgotten_until = self._rechecked_at.pop(oldest)
            if oldest[1] is not None and self._in_channel.get(oldest[1], now) <= self._forgotten_until:
                del self._in_channel[oldest[1]]

    def may_be_stale(self, opened_at: float, user_id: str | None, channel: str | None) -> bool:
        """Whether a signature may be older than a recheck that concerns it. `channel` is `None` for a sign-in. Nobody
        knows the user (`None`) of a signature for a private channel, so a recheck of any user in the channel counts."""
        if not self._rechecked_at:
            return False
        concerned = ((user_id, channel), (user_id, None), (None, channel), (None, None))
        found = {self._rechecked_at.get(key, 0.0) for key in concerned}
        if user_id is None and channel is not None:
            found.add(self._in_channel.get(channel, 0.0))
        return opened_at <= max(*found, self._forgotten_until)
