"""The dialects: how the connections of each protocol hear what happens in a channel.

Rule: a frame is rendered once for each dialect that is present, however many connections hear it. What backends carry
are native frames.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

from ..domain import wire
from ..domain.channels import ChannelName
from ..domain.errors import RequestError
from ..domain.members import User
from ..domain.roster import Change


class Farewell(NamedTuple):
    """How a connection is closed: with a close code, and perhaps a last frame, as JSON."""

    code: int
    frame: bytes | None = None


class Dialect(Protocol):
    """The frames of one protocol, as JSON. A `payload` is a native frame's."""

    def connected(self, client_id: str, user: User | None, now: datetime) -> bytes:
        """The greeting of a new connection."""

    def channel_frame(self, channel: str, payload: bytes) -> bytes:
        """A message, or a broadcast of the server, to a channel."""

    def member_event(self, channel: ChannelName, change: Change, now: datetime) -> bytes:
        """A change to a member list."""

    def user_frame(self, user_id: str, payload: bytes) -> bytes:
        """A message to a user."""

    def removed(self, channel: ChannelName, why: RequestError) -> bytes:
        """That the server has taken the connection out of a channel."""

    def farewell(self, code: int, text: str) -> Farewell:
        """How to close a connection that a native one would be closed with `code` for."""


class NativeDialect:
    """The protocol of this package."""

    def connected(self, client_id: str, user: User | None, now: datetime) -> bytes:
        return wire.connected(client_id, user, now)

    def channel_frame(self, channel: str, payload: bytes) -> bytes:
        return payload

    def member_event(self, channel: ChannelName, change: Change, now: datetime) -> bytes:
        return wire.member_event(channel, change, now)

    def user_frame(self, user_id: str, payload: bytes) -> bytes:
        return payload

    def removed(self, channel: ChannelName, why: RequestError) -> bytes:
        return wire.removed(str(channel), why.code, why.message)

    def farewell(self, code: int, text: str) -> Farewell:
        return Farewell(code)


NATIVE = NativeDialect()
