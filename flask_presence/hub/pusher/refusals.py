"""How requests of Pusher's clients are refused: with `pusher:error`, with `pusher:subscription_error`, or by a close.

Rule: a refusal says what to do, and counts as the native error that it corresponds to.
"""

from __future__ import annotations

from ...domain.errors import Forbidden, JoinFailed, RequestError
from ...domain.pusher import wire


class Refused(Exception):
    """A request is refused with a frame, as JSON; with `close`, a code and a text, the connection ends instead.
    `counts_as` is the native error that the metrics count."""

    def __init__(self, frame: bytes, counts_as: type[RequestError], close: tuple[int, str] | None = None) -> None:
        self.frame = frame
        self.counts_as = counts_as
        self.close = close
        super().__init__(frame)


def refused(code: int, text: str, counts_as: type[RequestError], *, close: bool = False) -> Refused:
    return Refused(wire.error(code, text), counts_as, (code, text) if close else None)


def not_subscribed(
    channel: str, text: str, status: int, kind: str = "AuthError", counts_as: type[RequestError] = Forbidden
) -> Refused:
    return Refused(wire.subscription_error(channel, kind, text, status), counts_as)


def limit_reached(channel: str, text: str) -> Refused:
    return not_subscribed(channel, text, 422, "LimitReached", JoinFailed)
