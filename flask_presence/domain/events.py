"""The events that an app hears through `@presence.on(...)` and the signals.

Rule: plain values. `client_id` and `user` are those of the connection that caused the event.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import msgspec

from .channels import ChannelName, ChannelType
from .members import Member, User

Reason = Literal[
    "left", "closed", "lost", "slow", "expired", "disconnected", "denied", "removed", "shutdown", "worker_lost"
]


@dataclass(frozen=True)
class Event:
    """`client_id` is the connection's id. `user` is `None` if the connection is anonymous."""

    name: ClassVar[str]
    client_id: str
    user: User | None


@dataclass(frozen=True)
class ClientConnected(Event):
    """A connection has opened."""

    name = "client.connected"


@dataclass(frozen=True)
class ClientDisconnected(Event):
    """A connection has ended and has left all its channels. `code` is the WebSocket close code."""

    name = "client.disconnected"
    code: int
    reason: Reason


@dataclass(frozen=True)
class ChannelJoined(Event):
    """A connection has joined a channel."""

    name = "channel.joined"
    channel: ChannelName
    type: ChannelType


@dataclass(frozen=True)
class ChannelLeft(Event):
    """A connection has left a channel: by request, because it was removed, or because it ended."""

    name = "channel.left"
    channel: ChannelName
    type: ChannelType
    reason: Reason


@dataclass(frozen=True)
class MemberJoined(Event):
    """A user has joined a presence channel with a first connection."""

    name = "member.joined"
    channel: ChannelName
    member: Member


@dataclass(frozen=True)
class MemberUpdated(Event):
    """A member of a presence channel has changed."""

    name = "member.updated"
    channel: ChannelName
    member: Member


@dataclass(frozen=True)
class MemberLeft(Event):
    """A user has left a presence channel: their last connection has left, or their grace period has ended.

    `reason` is why that connection left, or `None` if that is not known.
    """

    name = "member.left"
    channel: ChannelName
    member: Member
    reason: Reason | None = None


@dataclass(frozen=True)
class MessageSent(Event):
    """A client has sent a message to a channel. `raw` is the data as JSON."""

    name = "message"
    channel: ChannelName
    event: str
    raw: bytes

    @property
    def data(self) -> Any:
        """The message's data, decoded at each access. A number that is too large for a double is infinite.

        Raises `ValueError` if an integer has more digits than Python reads.
        """
        return decode_data(self.raw)


def decode_data(raw: bytes) -> Any:
    """See `MessageSent.data`."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.ValidationError:
        return json.loads(raw)


def check_event_name(name: str) -> None:
    """Raise `ValueError` if there is no such event, and `TypeError` if a function was passed instead of the name."""
    if callable(name):
        raise TypeError("a handler needs the name of an event: write @presence.on('member.joined'), not @presence.on")
    if name not in EVENT_NAMES:
        raise ValueError(f"{name!r} is not an event; expected one of {', '.join(EVENT_NAMES)}")


EVENT_NAMES: Final[tuple[str, ...]] = (
    ClientConnected.name,
    ClientDisconnected.name,
    ChannelJoined.name,
    ChannelLeft.name,
    MemberJoined.name,
    MemberUpdated.name,
    MemberLeft.name,
    MessageSent.name,
)
