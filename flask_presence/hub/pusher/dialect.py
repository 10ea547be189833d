"""How Pusher's clients hear what happens, and the codes with which they are refused and closed.

Rule: from 4000 to 4099 a client stays away, from 4100 to 4199 it comes back after about a second, and from 4200 to 4299
at once (Pusher Channels protocol, "Error codes").
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ...domain.channels import ChannelName
from ...domain.errors import RequestError
from ...domain.members import User
from ...domain.pusher import wire
from ...domain.roster import Change
from ..dialects import Farewell

NOT_AUTHORIZED: Final = 4009
COME_BACK_LATER: Final = 4100
COME_BACK: Final = 4200
BAD_REQUEST: Final = 4300
EVENT_REFUSED: Final = 4301

NO_REASON: Final = "Closed by the server"
"""What a client hears if the app gives no reason."""

_CLOSE_CODES: Final = {4403: NOT_AUTHORIZED, 4401: NOT_AUTHORIZED, 1001: COME_BACK, 1008: COME_BACK_LATER}
"""What replaces native close codes."""


class PusherDialect:
    """See `Dialect`. `activity_timeout` is after how many seconds of silence a client pings."""

    def __init__(self, activity_timeout: int) -> None:
        self._activity_timeout = activity_timeout

    def connected(self, client_id: str, user: User | None, now: datetime) -> bytes:
        return wire.connection_established(client_id, self._activity_timeout)

    def channel_frame(self, channel: str, payload: bytes) -> bytes:
        return wire.channel_frame(channel, payload)

    def member_event(self, channel: ChannelName, change: Change, now: datetime) -> bytes:
        return wire.member_event(channel, change)

    def user_frame(self, user_id: str, payload: bytes) -> bytes:
        return wire.user_frame(user_id, payload)

    def removed(self, channel: ChannelName, why: RequestError) -> bytes:
        return wire.subscription_error(str(channel), "Removed", why.message, 403)

    def farewell(self, code: int, text: str) -> Farewell:
        """Some clients heed only the frame, and others only the code. A code below 4000 is said by the close alone."""
        code = _CLOSE_CODES.get(code, code)
        return Farewell(code, wire.error(code, text or NO_REASON) if code >= NOT_AUTHORIZED else None)
