"""The events that Redis publishes of a channel.

Rule: every event has its own place in the channel's order.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from ....domain.events import Reason
from ....domain.history import KeptMessage, Position


class Event(NamedTuple):
    """A change of the member list, or a message. `client` is the connection that does not get it.

    `kind` is `joined`, `updated`, `left`, `message`, or `cleared`: the kept messages are forgotten. `body` is the
    member's entry, or the message's frame. `reason` says how the last connection left, if the user has left. In a
    message that is kept, `user` is the number of the kept message before it.
    """

    kind: str
    position: Position
    client: str
    user: str
    reason: Reason | None
    body: bytes

    @property
    def kept(self) -> KeptMessage:
        """The message, if it is one that is kept."""
        return KeptMessage(self.position.number, int(self.user), self.body)


def parse_event(data: bytes) -> Event:
    kind, epoch, number, client, user, reason, body = data.split(b"\0", 6)
    position, why = Position(int(epoch), int(number)), cast("Reason | None", reason.decode() or None)
    return Event(kind.decode(), position, client.decode(), user.decode(), why, body)
