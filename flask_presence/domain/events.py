"""What the application can listen to with `@presence.on(...)` and the signals.

Law: plain values; `client_id` and `user` are those of the connection that the event is about.
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
    """`client_id` of the connection, and its `user` (`None` for an anonymous one)."""

    name: ClassVar[str]
    client_id: str
    user: User | None


@dataclass(frozen=True)
class ClientConnected(Event):
    """A socket was opened."""

    name = "client.connected"


@dataclass(frozen=True)
class ClientDisconnected(Event):
    """A socket is gone, and every channel of it left. `code` is the WebSocket close code."""

    name = "client.disconnected"
    code: int
    reason: Reason


@dataclass(frozen=True)
class ChannelJoined(Event):
    """A connection came into a channel."""

    name = "channel.joined"
    channel: ChannelName
    type: ChannelType


@dataclass(frozen=True)
class ChannelLeft(Event):
    """A connection left a channel, by request or because it ended."""

    name = "channel.left"
    channel: ChannelName
    type: ChannelType
    reason: Reason


@dataclass(frozen=True)
class MemberJoined(Event):
    """A user came into a presence channel, with the first of their connections."""

    name = "member.joined"
    channel: ChannelName
    member: Member


@dataclass(frozen=True)
class MemberUpdated(Event):
    """A member's metadata changed."""

    name = "member.updated"
    channel: ChannelName
    member: Member


@dataclass(frozen=True)
class MemberLeft(Event):
    """A user left a presence channel, with the last of their connections. `reason` is how that one left, `None` where
    it is not known."""

    name = "member.left"
    channel: ChannelName
    member: Member
    reason: Reason | None = None


@dataclass(frozen=True)
class MessageSent(Event):
    """A client sent a message to a channel; `data` is decoded when it is asked for."""

    name = "message"
    channel: ChannelName
    event: str
    raw: bytes

    @property
    def data(self) -> Any:
        """The message's data as Python values; a number beyond a double is infinite.

        `ValueError` for an integer of more digits than Python reads.
        """
        return decode_data(self.raw)


def decode_data(raw: bytes) -> Any:
    """See `MessageSent.data`."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.ValidationError:
        return json.loads(raw)


def check_event_name(name: str) -> None:
    """`ValueError` for an event that does not exist, `TypeError` for a function in the place of its name."""
    if callable(name):
        raise TypeError("a handler needs the name of an event: write @presence.on('member.joined'), not @presence.on")
    if name not in EVENT_NAMES:
        raise ValueError(f"{name!r} is no event; expected one of {', '.join(EVENT_NAMES)}")


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
