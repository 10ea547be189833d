"""What is asked for in a query string: which channels or members, in which order, how many.

Law: what cannot be meant is refused with a sentence that says what can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..domain.channels import Channel, ChannelType, channel_type

MAX_LIMIT: Final = 1000
Row = tuple[Channel, float | None]
_ORDERS: Final[dict[str, Callable[[Row], Any]]] = {
    "name": lambda row: row[0].name,
    "type": lambda row: row[0].type,
    "memberCount": lambda row: row[0].member_count,
    "createdAt": lambda row: row[0].created_at,
    "rate": lambda row: row[1] or 0.0,
}
SORTS: Final = (*_ORDERS, *(f"-{name}" for name in _ORDERS))


class SortKey(NamedTuple):
    """By what, and whether the largest come first."""

    of: Callable[[Row], Any]
    descending: bool


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
    def sort(self) -> tuple[SortKey, ...]:
        """What ties are broken by comes after."""
        name = self.order.removeprefix("-")
        keys = (SortKey(_ORDERS[name], self.order.startswith("-")),)
        return keys if name == "createdAt" else (*keys, SortKey(_ORDERS["name"], False))

    @property
    def needs_rates(self) -> bool:
        return self.with_rate or self.order.endswith("rate")


@dataclass(frozen=True, slots=True)
class MemberQuery:
    """Which members of a channel. `limit` is `None` where all are wanted."""

    offset: int = 0
    limit: int | None = None
    with_connections: bool = False


def read_channel_query(arguments: Mapping[str, str]) -> ChannelQuery:
    """From `type`, `prefix`, `search`, `sort`, `offset`, `limit` and `include=rate`; `ValueError` for a bad one."""
    order = arguments.get("sort") or "createdAt"
    if order not in SORTS:
        raise ValueError(f"sort must be one of {', '.join(SORTS)}, not {order!r}")
    return ChannelQuery(
        type=channel_type(arguments["type"]) if arguments.get("type") else None,
        prefix=arguments.get("prefix"),
        search=arguments.get("search", "").strip(),
        order=order,
        offset=_number(arguments, "offset", 0) or 0,
        limit=_number(arguments, "limit", 1),
        with_rate=_included(arguments, "rate"),
    )


def read_member_query(arguments: Mapping[str, str]) -> MemberQuery:
    """From `offset`, `limit` and `include=connections`; `ValueError` for a bad one."""
    return MemberQuery(
        offset=_number(arguments, "offset", 0) or 0,
        limit=_number(arguments, "limit", 1),
        with_connections=_included(arguments, "connections"),
    )


def _number(arguments: Mapping[str, str], name: str, least: int) -> int | None:
    text = arguments.get(name)
    if not text:
        return None
    most = MAX_LIMIT if name == "limit" else 10**9
    if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most or len(text) > 12:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {text[:50]!r}")
    return int(text)


def _included(arguments: Mapping[str, str], name: str) -> bool:
    given = arguments.get("include")
    if given and given != name:
        raise ValueError(f"include must be {name!r}, not {given[:50]!r}")
    return bool(given)
