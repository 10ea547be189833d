"""What the stats page shows and where it links to, before its script runs and without it.

Rule: the page's state is its URL. Parameters that are not the page's own stay in every link, because they may be what
lets the visitor in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from werkzeug.datastructures import MultiDict

from ..stats.format import CHART_SIZE, chart_points, count, details, duration, rate, size
from ..stats.query import ChannelQuery, InvalidQuery, MemberQuery, read_channel_query

LIMIT: Final = 50
"""Channels, or members, that are shown at once."""
OWN: Final = ("search", "type", "sort", "offset", "channel", "members")
"""What the page has to say in its query string: the channel that is shown, and the offset of its members."""
TAKEN: Final = ("prefix", "limit", "include")
DEFAULT_SORT: Final = "-memberCount"

CLOSE_CODES: Final = {
    "1000": "said goodbye",
    "1001": "went away, or was told that the server stops",
    "1002": "broke the WebSocket protocol",
    "1003": "sent what is not accepted",
    "1005": "closed without a code",
    "1006": "lost without a goodbye",
    "1007": "sent invalid UTF-8",
    "1008": "kept sending over the rate limit",
    "1009": "sent a message that is too large",
    "1011": "an internal error, or the client missed a pong",
    "1012": "told that the server restarts",
    "1013": "read too slowly",
    "4401": "its token ended or was revoked",
    "4403": "was disconnected by the app",
}


@dataclass(frozen=True)
class View:
    """What to show: which channels, and which one of them with its members."""

    channels: ChannelQuery
    channel: str
    members: MemberQuery
    others: tuple[tuple[str, str], ...]

    def query(self, **changes: object) -> list[tuple[str, str]]:
        """The query string of the page with some of it changed, as pairs; what is empty or usual is left out."""
        asked = self.channels
        own: dict[str, object] = {
            "search": asked.search,
            "type": asked.type or "",
            "sort": "" if asked.sort == DEFAULT_SORT else asked.sort,
            "offset": asked.offset or "",
            "channel": self.channel,
            "members": self.members.offset or "",
        } | changes
        return [*self.others, *((name, str(value)) for name, value in own.items() if value not in ("", 0))]

    def at_end_of(self, total: int) -> View:
        """With the last page of so many channels."""
        return replace(self, channels=replace(self.channels, offset=(total - 1) // LIMIT * LIMIT))

    def sorted_by(self, name: str) -> str:
        """The order that a click on a column's head asks for: numbers and times largest first, then the other way."""
        first, second = (name, f"-{name}") if name in ("name", "type") else (f"-{name}", name)
        return second if self.channels.sort == first else first

    def direction(self, name: str) -> str:
        """For `aria-sort`."""
        order = self.channels.sort
        return "none" if order.removeprefix("-") != name else "descending" if order.startswith("-") else "ascending"


def read_view(arguments: MultiDict[str, str]) -> View:
    """From a query string. `InvalidQuery` for what cannot be shown."""
    known = {name: arguments[name] for name in ("search", "type", "sort", "offset") if arguments.get(name)}
    query = read_channel_query({"sort": DEFAULT_SORT, **known})
    taken = [name for name in TAKEN if name in arguments]
    if taken:
        raise InvalidQuery(f"{taken[0]} means something to the JSON API that the page asks, and cannot stand here")
    members = arguments.get("members", "")
    if members and not (members.isascii() and members.isdigit() and len(members) < 10):
        raise InvalidQuery(f"members must be the number of those to leave out, not {members[:50]!r}")
    others = tuple((name, value) for name, value in arguments.items(multi=True) if name not in OWN)
    return View(
        replace(query, limit=LIMIT, with_rate=True),
        arguments.get("channel", ""),
        MemberQuery(int(members or 0), LIMIT, with_connections=True),
        others,
    )


HELPERS: Final = {
    **{function.__name__: function for function in (chart_points, count, rate, size, duration, details)},
    "CHART_SIZE": CHART_SIZE,
    "DEFAULT_SORT": DEFAULT_SORT,
    "OWN": OWN,
    "CLOSE_CODES": CLOSE_CODES,
}
"""What the page's template uses."""
