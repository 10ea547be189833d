"""What is asked for in a query string: which channels or members, in which order, how many.

Law: what cannot be meant is refused with a sentence that says what can.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from ..domain.channels import Channel, ChannelType, channel_type

MAX_LIMIT: Final = 1000
_DIGITS: Final = re.compile("([0-9]+)")
Rates = Mapping[str, float]
Key = Callable[[Channel], Any]


def natural(channel: Channel) -> tuple[list[str | int], str]:
    """How people order names: `news-2` before `news-10`."""
    parts = _DIGITS.split(channel.name)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], channel.name


_BY_TEXT: Final[dict[str, Key]] = {"name": natural, "type": lambda channel: (channel.type, natural(channel))}
_BY_NUMBER: Final[dict[str, Callable[[Rates], Callable[[Channel], float]]]] = {
    "memberCount": lambda _: attrgetter("member_count"),
    "createdAt": lambda _: lambda channel: channel.created_at.timestamp(),
    "rate": lambda rates: lambda channel: rates.get(channel.name, 0.0),
}
_NAMES: Final = (*_BY_TEXT, *_BY_NUMBER)
SORTS: Final = (*_NAMES, *(f"-{name}" for name in _NAMES))


class InvalidQuery(ValueError):
    """Something in a query string cannot be meant; the text says what could be."""


@dataclass(frozen=True, slots=True)
class ChannelQuery:
    """Which channels. `limit` is `None` where all are wanted."""

    type: ChannelType | None = None
    prefix: str | None = None
    search: str = ""
    order: str = "createdAt"
    offset: int = 0
    limit: int | None = None
    with_rate: bool = False

    @property
    def needs_rates(self) -> bool:
        return self.with_rate or self.order.endswith("rate")

    def part(self, channels: Sequence[Channel], rates: Rates) -> list[Channel]:
        """Those on the page that is asked for, in order; numbers that are the same are ordered by name."""
        name, descending = self.order.removeprefix("-"), self.order.startswith("-")
        number = _BY_NUMBER[name](rates) if name in _BY_NUMBER else None
        sign = -1 if descending else 1
        key: Key = _BY_TEXT[name] if number is None else lambda channel: (sign * number(channel), natural(channel))
        backwards = descending and number is None
        if self.limit is None:
            return sorted(channels, key=key, reverse=backwards)[self.offset :]
        pick = heapq.nlargest if backwards else heapq.nsmallest
        return pick(self.offset + self.limit, channels, key=key)[self.offset :]


@dataclass(frozen=True, slots=True)
class MemberQuery:
    """Which members of a channel. `limit` is `None` where all are wanted."""

    offset: int = 0
    limit: int | None = None
    with_connections: bool = False


def read_channel_query(arguments: Mapping[str, str]) -> ChannelQuery:
    """From `type`, `prefix`, `search`, `sort`, `offset`, `limit` and `include=rate`; `InvalidQuery` for a bad one."""
    order = arguments.get("sort") or "createdAt"
    if order not in SORTS:
        raise InvalidQuery(f"sort must be one of {', '.join(SORTS)}, not {order!r}")
    return ChannelQuery(
        type=_type(arguments.get("type")),
        prefix=arguments.get("prefix"),
        search=arguments.get("search", "").strip(),
        order=order,
        offset=_number(arguments, "offset", 0) or 0,
        limit=_number(arguments, "limit", 1),
        with_rate=_included(arguments, "rate"),
    )


def read_member_query(arguments: Mapping[str, str]) -> MemberQuery:
    """From `offset`, `limit` and `include=connections`; `InvalidQuery` for a bad one."""
    return MemberQuery(
        offset=_number(arguments, "offset", 0) or 0,
        limit=_number(arguments, "limit", 1),
        with_connections=_included(arguments, "connections"),
    )


def _type(text: str | None) -> ChannelType | None:
    try:
        return channel_type(text) if text else None
    except ValueError as problem:
        raise InvalidQuery(str(problem)) from None


def _number(arguments: Mapping[str, str], name: str, least: int) -> int | None:
    text = arguments.get(name)
    if not text:
        return None
    most = MAX_LIMIT if name == "limit" else 10**9
    if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most or len(text) > 12:
        raise InvalidQuery(f"{name} must be a whole number from {least} to {most}, not {text[:50]!r}")
    return int(text)


def _included(arguments: Mapping[str, str], name: str) -> bool:
    given = arguments.get("include")
    if given and given != name:
        raise InvalidQuery(f"include must be {name!r}, not {given[:50]!r}")
    return bool(given)
