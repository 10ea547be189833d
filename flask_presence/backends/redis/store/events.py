"""What Redis publishes of a channel.

Rule: every event has its place in the channel's order.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from ....domain.events import Reason
from .calls import Position


class Event(NamedTuple):
    """What was published of a channel; `client` must not hear of it. `reason` is how the last connection of a user who
    has left went; `body` is an entry, or a message's frame."""

    kind: str
    position: Position
    client: str
    user: str
    reason: Reason | None
    body: bytes


def parse_event(data: bytes) -> Event:
    kind, epoch, number, client, user, reason, body = data.split(b"\0", 6)
    position, why = Position(int(epoch), int(number)), cast("Reason | None", reason.decode() or None)
    return Event(kind.decode(), position, client.decode(), user.decode(), why, body)
