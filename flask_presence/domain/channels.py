"""Channel names and types, and the values that describe channels to the app.

Rule: the name alone decides a channel's type, by an exact, case-sensitive prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

from .errors import InvalidRequest
from .members import Member
from .timestamps import isoformat

ChannelType = Literal["public", "private", "presence"]
CHANNEL_TYPES: Final[tuple[ChannelType, ...]] = get_args(ChannelType)

MAX_NAME_LENGTH: Final = 200
_VALID_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]{1,200}")


class ChannelName(str):
    """A channel's name: a `str` that knows its `type` and `topic`.

    `type` is `"presence"` for `presence-…`, `"private"` for `private-…`, and `"public"` for every other name. `topic`
    is the name without its `private-` or `presence-` prefix (one prefix only).
    """

    __slots__ = ()

    @classmethod
    def parse(cls, name: str) -> ChannelName:
        """`name` as a channel name. Raises `InvalidRequest` if it is not 1 to 200 characters long, or has white space
        or control characters."""
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
    """Whether a channel has the type `kind` and a name that begins with `prefix`. `None` matches any."""
    return name.startswith(prefix or "") and kind in (None, name.type)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that somebody is in, as it was when it was read. Immutable.

    `member_count` counts users in a presence channel, and connections in other channels. `created_at` is an aware
    `datetime`. `members` is a tuple in order of joining; it is `None` if the channel is not a presence channel, and in
    lists of channels.
    """

    name: ChannelName
    type: ChannelType
    member_count: int
    created_at: datetime
    members: tuple[Member, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: `{name, type, memberCount, createdAt, members?}`."""
        fields: dict[str, Any] = {
            "name": str(self.name),
            "type": self.type,
            "memberCount": self.member_count,
            "createdAt": isoformat(self.created_at),
        }
        if self.members is not None:
            fields["members"] = [member.to_dict() for member in self.members]
        return fields


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts over the whole service, on all workers. Immutable.

    `channels` is the number of channels, and `by_type` the number of each type. `total_members` is the sum of the
    channels' member counts. `connections` is the number of open WebSockets, whether or not they have joined a channel.
    `unavailable` are the labels of the shards that do not answer, so that theirs are not counted.
    """

    channels: int
    total_members: int
    by_type: Mapping[str, int]
    connections: int
    unavailable: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: `{channels, totalMembers, byType: {public, private, presence}, connections, unavailable?}`."""
        counts = {
            "channels": self.channels,
            "totalMembers": self.total_members,
            "byType": dict(self.by_type),
            "connections": self.connections,
        }
        return counts | ({"unavailable": list(self.unavailable)} if self.unavailable else {})


class ChannelList(list[Channel]):
    """Channels. `unavailable` are the labels of the shards that do not answer, so that theirs are not listed."""

    def __init__(self, channels: Iterable[Channel] = (), unavailable: tuple[str, ...] = ()) -> None:
        super().__init__(channels)
        self.unavailable = unavailable


class ChannelCounts(NamedTuple):
    """The sum of channels' member counts, and the number of channels by type. `unavailable` as in `ChannelList`."""

    members: int
    by_type: dict[str, int]
    unavailable: tuple[str, ...] = ()


class Counted(Protocol):
    """What `count_channels` needs of a channel."""

    @property
    def type(self) -> ChannelType: ...

    @property
    def member_count(self) -> int: ...


def count_channels(channels: Iterable[Counted]) -> tuple[int, dict[str, int]]:
    """Returns the sum of the channels' member counts, and the number of channels by type."""
    total = 0
    by_type: dict[str, int] = dict.fromkeys(CHANNEL_TYPES, 0)
    for channel in channels:
        total += channel.member_count
        by_type[channel.type] += 1
    return total, by_type


def channel_type(value: str) -> ChannelType:
    """`value` as a channel type. Raises `ValueError`, which names the valid types."""
    if value not in CHANNEL_TYPES:
        raise ValueError(f"{value!r} is not a channel type; expected one of {', '.join(CHANNEL_TYPES)}")
    return value
