"""Channel names, their types, and what is known about a channel.

Law: the name alone decides the type, by an exact, case-sensitive prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol, get_args

from .errors import InvalidRequest
from .members import Member
from .timestamps import isoformat

ChannelType = Literal["public", "private", "presence"]
CHANNEL_TYPES: Final[tuple[ChannelType, ...]] = get_args(ChannelType)

MAX_NAME_LENGTH: Final = 200
_VALID_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]{1,200}")


class ChannelName(str):
    """A channel's name: a `str` that knows its `type` and `topic`.

    `type` is `"presence"` for `presence-…`, `"private"` for `private-…`, else `"public"`; `topic` is
    the name without its `private-` or `presence-` prefix (one prefix only).
    """

    __slots__ = ()

    @classmethod
    def parse(cls, name: str) -> ChannelName:
        """`name` as a channel name; `InvalidRequest` unless it is 1 to 200 characters without white
        space and control characters."""
        if not _VALID_NAME.fullmatch(name):
            raise InvalidRequest(
                f"channel must be a string of 1 to {MAX_NAME_LENGTH} characters"
                " without white space and control characters"
            )
        return cls(name)

    @property
    def type(self) -> ChannelType:
        if self.startswith("presence-"):
            return "presence"
        if self.startswith("private-"):
            return "private"
        return "public"

    @property
    def topic(self) -> str:
        if self.type == "public":
            return str(self)
        return str(self).split("-", 1)[1]


def matches(name: ChannelName, kind: ChannelType | None, prefix: str | None) -> bool:
    """Whether a channel is of a type, and its name begins so; `None` stands for any."""
    return name.startswith(prefix or "") and kind in (None, name.type)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that somebody is in, at the moment of asking.

    `member_count` counts users in a presence channel and connections in the others. `members` is in
    order of joining, and `None` where the channel announces none or where they were not asked for.
    """

    name: ChannelName
    type: ChannelType
    member_count: int
    created_at: datetime
    members: tuple[Member, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """`{name, type, memberCount, createdAt, members?}`."""
        shape: dict[str, Any] = {
            "name": str(self.name),
            "type": self.type,
            "memberCount": self.member_count,
            "createdAt": isoformat(self.created_at),
        }
        if self.members is not None:
            shape["members"] = [member.to_dict() for member in self.members]
        return shape


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts over the whole service.

    `total_members` is the sum of the channels' member counts; `connections` are all open sockets,
    whether or not they have joined a channel.
    """

    channels: int
    total_members: int
    by_type: Mapping[str, int]
    connections: int

    def to_dict(self) -> dict[str, Any]:
        """`{channels, totalMembers, byType: {public, private, presence}, connections}`."""
        return {
            "channels": self.channels,
            "totalMembers": self.total_members,
            "byType": dict(self.by_type),
            "connections": self.connections,
        }


class Counted(Protocol):
    """What can be counted as a channel."""

    @property
    def type(self) -> ChannelType: ...

    @property
    def member_count(self) -> int: ...


def count_channels(channels: Iterable[Counted]) -> tuple[int, dict[str, int]]:
    """The sum of the channels' member counts, and the number of channels by type."""
    total = 0
    by_type: dict[str, int] = dict.fromkeys(CHANNEL_TYPES, 0)
    for channel in channels:
        total += channel.member_count
        by_type[channel.type] += 1
    return total, by_type


def channel_type(value: str) -> ChannelType:
    """`value` as a channel type; `ValueError` with the valid ones otherwise."""
    if value not in CHANNEL_TYPES:
        raise ValueError(f"{value!r} is no channel type; expected one of {', '.join(CHANNEL_TYPES)}")
    return value
