"""What the stats page shows at first, before and without its script: where it links to, and how numbers look.

Law: the page's state is its URL. What else stands in the query string stays in every link, since it may be what lets
the visitor in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from werkzeug.datastructures import MultiDict

from ..stats.query import ChannelQuery, InvalidQuery, MemberQuery, read_channel_query

LIMIT: Final = 50
"""Channels, or members, that are shown at once."""
OWN: Final = ("search", "type", "sort", "offset", "channel", "members")
"""What the page has to say in its query string: the channel that is shown, and the offset of its members."""
TAKEN: Final = ("prefix", "limit", "include")
DEFAULT_ORDER: Final = "-memberCount"
UNKNOWN: Final = "\N{EN DASH}"
CHART: Final = (149, 32)
"""Width and height of a chart, in its own units."""

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
            "sort": "" if asked.order == DEFAULT_ORDER else asked.order,
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
        return second if self.channels.order == first else first

    def direction(self, name: str) -> str:
        """For `aria-sort`."""
        order = self.channels.order
        return "none" if order.removeprefix("-") != name else "descending" if order.startswith("-") else "ascending"


def read_view(arguments: MultiDict[str, str]) -> View:
    """From a query string. `InvalidQuery` for what cannot be shown."""
    known = {name: arguments[name] for name in ("search", "type", "sort", "offset") if arguments.get(name)}
    query = read_channel_query({"sort": DEFAULT_ORDER, **known})
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


def points(history: Sequence[float]) -> str:
    """A chart's line, for SVG's `points`: the highest value touches the top."""
    width, height = CHART
    top = max(*history, 1.0)
    step = width / (len(history) - 1)
    return " ".join(f"{at * step:g},{height - value / top * height:.1f}" for at, value in enumerate(history))


def count(number: float) -> str:
    """`12 345`, with thin spaces."""
    return f"{int(number):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rate(number: float | None) -> str:
    """Per second: one digit where that matters; a dash where it is not known."""
    if number is None:
        return UNKNOWN
    return fixed(number, 1) if 0 < number < 9.95 else count(float(fixed(number, 0)))


def size(number: float) -> str:
    """Bytes, in the largest unit of which there is one."""
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{fixed(number, 1 if number < 9.95 and unit != 'B' else 0)} {unit}"
        number /= 1000
    return f"{fixed(number, 1)} GB"


def duration(seconds: float | None) -> str:
    """Seconds, in milliseconds where they are few; a dash where there is none."""
    if seconds is None:
        return UNKNOWN
    if seconds >= 0.9995:
        return f"{fixed(seconds, 1)} s"
    return f"{fixed(seconds * 1000, 1 if 0 < seconds < 0.00995 else 0)} ms"


def fixed(number: float, digits: int) -> str:
    """As JavaScript's `toFixed`, which rounds halves up: the script shows the same."""
    return f"{Decimal(number).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"


def details(
    member: dict[str, object], hidden: Iterable[str] = ("id", "name", "clientId", "joinedAt", "updatedAt")
) -> dict[str, object]:
    """What a member says of itself, beside what has a column of its own."""
    return {key: value for key, value in member.items() if key not in hidden}


HELPERS: Final = {
    **{function.__name__: function for function in (points, count, rate, size, duration, details)},
    "CHART": CHART,
    "DEFAULT_ORDER": DEFAULT_ORDER,
    "OWN": OWN,
    "CLOSE_CODES": CLOSE_CODES,
}
"""What the page's template uses."""
