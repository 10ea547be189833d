"""The state of the stats page: which channels it lists, which channel is open, and where its links lead.

Rule: the page's state is in its URL. Every link keeps parameters that are not the page's own, because they may be what
grants access.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from werkzeug.datastructures import MultiDict

from ..stats.format import CHART_SIZE, chart_points, count, details, duration, rate, size
from ..stats.query import ChannelQuery, InvalidQuery, MemberQuery, read_channel_query

PAGE_SIZE: Final = 50
"""How many channels, or members, a page of a list has."""
PAGE_PARAMETERS: Final = ("search", "type", "sort", "offset", "channel", "members")
"""The page's own parameters. `channel` is the open channel, and `members` the offset in its list of members."""
API_PARAMETERS: Final = ("prefix", "limit", "include")
"""Parameters of the JSON API that the page must not have, because its script passes foreign parameters on."""
DEFAULT_SORT: Final = "-memberCount"

CLOSE_CODES: Final = {
    "1000": "the client closed",
    "1001": "the client went away, or the server stopped",
    "1002": "WebSocket protocol error",
    "1003": "the client sent unsupported data",
    "1005": "closed without a code",
    "1006": "lost without a close",
    "1007": "the client sent invalid UTF-8",
    "1008": "the client exceeded the rate limit",
    "1009": "the client sent too large a message",
    "1011": "internal error, or no pong reached the client",
    "1012": "the server restarted",
    "1013": "the client read too slowly",
    "4401": "the token or the login ended",
    "4403": "the app disconnected the client",
}


@dataclass(frozen=True)
class PageState:
    """The list of channels, and the open channel with its members. `channel_name` is `""` if no channel is open."""

    channel_query: ChannelQuery
    channel_name: str
    member_query: MemberQuery
    foreign_parameters: tuple[tuple[str, str], ...]

    def parameters(self, **changes: object) -> list[tuple[str, str]]:
        """The page's query string with these changes, as pairs. Empty and default values are left out."""
        query = self.channel_query
        own: dict[str, object] = {
            "search": query.search,
            "type": query.type or "",
            "sort": "" if query.sort == DEFAULT_SORT else query.sort,
            "offset": query.offset or "",
            "channel": self.channel_name,
            "members": self.member_query.offset or "",
        } | changes
        return [*self.foreign_parameters, *((name, str(value)) for name, value in own.items() if value not in ("", 0))]

    def on_last_page(self, total: int) -> PageState:
        """The same state, with the last page of a list of `total` channels."""
        return replace(self, channel_query=replace(self.channel_query, offset=(total - 1) // PAGE_SIZE * PAGE_SIZE))

    def next_sort(self, name: str) -> str:
        """The sort that a click on a column's head asks for. Numbers and times begin with the largest, and a second
        click reverses the order."""
        first, second = (name, f"-{name}") if name in ("name", "type") else (f"-{name}", name)
        return second if self.channel_query.sort == first else first

    def sort_direction(self, name: str) -> str:
        """The value of a column's `aria-sort`."""
        sort = self.channel_query.sort
        return "none" if sort.removeprefix("-") != name else "descending" if sort.startswith("-") else "ascending"


def read_page_state(arguments: MultiDict[str, str]) -> PageState:
    """Read a query string. Raises `InvalidQuery`."""
    list_arguments = {name: arguments[name] for name in ("search", "type", "sort", "offset") if arguments.get(name)}
    query = read_channel_query({"sort": DEFAULT_SORT, **list_arguments})
    reserved = [name for name in API_PARAMETERS if name in arguments]
    if reserved:
        raise InvalidQuery(f"{reserved[0]} is a parameter of the JSON API, and the page must not have it")
    members = arguments.get("members", "")
    if members and not (members.isascii() and members.isdigit() and len(members) < 10):
        raise InvalidQuery(f"members must be an offset in the list of members, not {members[:50]!r}")
    foreign = tuple((name, value) for name, value in arguments.items(multi=True) if name not in PAGE_PARAMETERS)
    return PageState(
        replace(query, limit=PAGE_SIZE, with_rate=True),
        arguments.get("channel", ""),
        MemberQuery(int(members or 0), PAGE_SIZE, with_connections=True),
        foreign,
    )


HELPERS: Final = {
    **{function.__name__: function for function in (chart_points, count, rate, size, duration, details)},
    "CHART_SIZE": CHART_SIZE,
    "DEFAULT_SORT": DEFAULT_SORT,
    "PAGE_PARAMETERS": PAGE_PARAMETERS,
    "CLOSE_CODES": CLOSE_CODES,
}
"""Functions and constants that the page's template uses."""
