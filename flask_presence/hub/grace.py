"""Users whose connection was lost without a close, and who may come back without having left.

Law: who is held is listed and counted until the end of the grace; it ends once, by a new connection, by
`disconnect`, or by time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..backends.pending import then
from ..domain.channels import ChannelName

if TYPE_CHECKING:
    from .hub import Hub
    from .session import Session


class GraceWatch:
    """The lost sessions by channel and user, each until when; the last one lost counts."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lost: dict[tuple[ChannelName, str], tuple[float, Session]] = {}

    def hold(self, session: Session, channel: ChannelName) -> None:
        """Keep the session's user in `channel`, if it has one, for as long as the policy says."""
        if session.user is not None:
            until = self._hub.now().timestamp() + self._hub.policy.grace_abrupt
            self._lost[channel, session.user.id] = until, session

    def look_after(self, now: float) -> None:
        """Let go of those whose grace is over at `now`, in epoch seconds."""
        self._release(lambda until, _: now >= until)

    def end(self, user_id: str | None, client_id: str | None) -> None:
        """Let go of a user, or of a lost connection's user, at once."""
        self._release(lambda _, session: session.matches(user_id, client_id))

    def _release(self, is_over: Callable[[float, Session], bool]) -> None:
        hub = self._hub
        over = [(place, session) for place, (until, session) in self._lost.items() if is_over(until, session)]
        for (channel, user_id), session in over:
            del self._lost[channel, user_id]
            then(hub.backend.release(channel, user_id, hub.now()), partial(hub.emit_outcome, session, channel))
