"""The query strings of the JSON API and of the stats page: which channels or members, in which order, how many.

Rule: a bad value raises `InvalidQuery`, with a sentence that names the valid ones.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from ..domain.channels import Channel, ChannelName, ChannelType, channel_type
from ..domain.errors import InvalidRequest
from ..domain.history import DEFAULT_LIMIT, Position, parse_position

MAX_LIMIT: Final = 1000
MAX_OFFSET: Final = 10**9
_DIGITS: Final = re.compile("([0-9]+)")
Rates = Mapping[str, float]
"""Events per second, by channel name."""
SortKey = Callable[[Channel], Any]


def natural_order(channel: Channel) -> tuple[list[str | int], str]:
    """A sort key that puts `news-2` before `news-10`."""
    parts = _DIGITS.split(channel.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], channel.name


_TEXT_KEYS: Final[dict[str, SortKey]] = {
    "name": natural_order,
    "type": lambda channel: (channel.type, natural_order(channel)),
}
_NUMBER_KEYS: Final[dict[str, Callable[[Rates], Callable[[Channel], float]]]] = {
    "memberCount": lambda _: attrgetter("member_count"),
    "createdAt": lambda _: lambda channel: channel.created_at.timestamp(),
    "rate": lambda rates: lambda channel: rates.get(channel.name, 0.0),
}
_NAMES: Final = (*_TEXT_KEYS, *_NUMBER_KEYS)
SORTS: Final = (*_NAMES, *(f"-{name}" for name in _NAMES))
DEFAULT_SORT: Final = "createdAt"


class InvalidQuery(ValueError):
    """A query string has a bad value. The text names the valid ones."""


@dataclass(frozen=True, slots=True)
class ChannelQuery:
    """Which channels. `limit` is `None` for all of them."""

    type: ChannelType | None = None
    prefix: str | None = None
    search: str = ""
    sort: str = DEFAULT_SORT
    offset: int = 0
    limit: int | None = None
    with_rate: bool = False

    @property
    def needs_rates(self) -> bool:
        return self.with_rate or self.sort.endswith("rate")

    def select(self, channels: Sequence[Channel], rates: Rates) -> list[Channel]:
        """The channels of one page, sorted. Channels with equal numbers are sorted by name."""
        name, descending = self.sort.removeprefix("-"), self.sort.startswith("-")
        number = _NUMBER_KEYS[name](rates) if name in _NUMBER_KEYS else None
        sign = -1 if descending else 1
        key: SortKey = (
            _TEXT_KEYS[name] if number is None else lambda channel: (sign * number(channel), natural_order(channel))
        )
        reverse = descending and number is None
        if self.limit is None:
            return sorted(channels, key=key, reverse=reverse)[self.offset :]
        take = heapq.nlargest if reverse else heapq.nsmallest
        return take(self.offset + self.limit, channels, key=key)[self.offset :]


@dataclass(frozen=True, slots=True)
class MemberQuery:
    """Which members of a channel. `limit` is `None` for all of them."""

    offset: int = 0
    limit: int | None = None
    with_connections: bool = False


def read_channel_query(arguments: Mapping[str, str]) -> ChannelQuery:
    """Read `type`, `prefix`, `search`, `sort`, `offset`, `limit` and `include=rate`. Raises `InvalidQuery`."""
    sort = arguments.get("sort") or DEFAULT_SORT
    if sort not in SORTS:
        raise InvalidQuery(f"sort must be one of {', '.join(SORTS)}, not {sort!r}")
    return ChannelQuery(
        type=_type(arguments.get("type")),
        prefix=arguments.get("prefix"),
        search=arguments.get("search", "").strip(),
        sort=sort,
        offset=_number(arguments, "offset", 0, MAX_OFFSET) or 0,
        limit=_number(arguments, "limit", 1, MAX_LIMIT),
        with_rate=_includes(arguments, "rate"),
    )


def read_member_query(arguments: Mapping[str, str]) -> MemberQuery:
    """Read `offset`, `limit` and `include=connections`. Raises `InvalidQuery`."""
    return MemberQuery(
        offset=_number(arguments, "offset", 0, MAX_OFFSET) or 0,
        limit=_number(arguments, "limit", 1, MAX_LIMIT),
        with_connections=_includes(arguments, "connections"),
    )


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which of the messages that a channel keeps."""

    channel: str
    limit: int = DEFAULT_LIMIT
    before: Position | None = None


def read_history_query(arguments: Mapping[str, str]) -> HistoryQuery:
    """Read `channel`, `limit` and `before`. Raises `InvalidQuery`."""
    try:
        channel = ChannelName.parse(arguments.get("channel", ""))
    except InvalidRequest as problem:
        raise InvalidQuery(problem.message) from None
    text = arguments.get("before")
    before = parse_position(text) if text else None
    if text and before is None:
        raise InvalidQuery(f"before must be the id of a message, not {text[:50]!r}")
    return HistoryQuery(str(channel), _number(arguments, "limit", 1, MAX_LIMIT) or DEFAULT_LIMIT, before)


def _type(text: str | None) -> ChannelType | None:
    try:
        return channel_type(text) if text else None
    except ValueError as problem:
        raise InvalidQuery(str(problem)) from None


def _number(arguments: Mapping[str, str], name: str, minimum: int, maximum: int) -> int | None:
    text = arguments.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not minimum <= int(text) <= maximum:
        raise InvalidQuery(f"{name} must be a whole number from {minimum} to {maximum}, not {text[:50]!r}")
    return int(text)


def _includes(arguments: Mapping[str, str], name: str) -> bool:
    include = arguments.get("include")
    if include and include != name:
        raise InvalidQuery(f"include must be {name!r}, not {include[:50]!r}")
    return bool(include)
