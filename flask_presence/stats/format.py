"""Formats numbers for the stats page and for the commands' tables.

Rule: the page's script, `stats.js`, formats the same numbers in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

UNKNOWN: Final = "\N{EN DASH}"
CHART_SIZE: Final = (149, 32)
"""Width and height of a chart, in units of its `viewBox`."""
MEMBER_COLUMNS: Final = ("id", "name", "clientId", "joinedAt", "updatedAt")
"""Keys of a member that are not part of its details."""


def chart_points(history: Sequence[float]) -> str:
    """The `points` of an SVG polyline. The highest value touches the top of the chart."""
    width, height = CHART_SIZE
    top = max(*history, 1.0)
    step = width / (len(history) - 1)
    return " ".join(f"{index * step:g},{height - value / top * height:.1f}" for index, value in enumerate(history))


def count(number: float) -> str:
    """A whole number, with thin spaces: `12 345`."""
    return f"{int(number):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rate(number: float | None) -> str:
    """A number per second, with one decimal if it is below ten. A dash if it is unknown."""
    if number is None:
        return UNKNOWN
    return _fixed(number, 1) if 0 < number < 9.95 else count(float(_fixed(number, 0)))


def size(number: float) -> str:
    """A number of bytes, as `B`, `kB`, `MB` or `GB`."""
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{_fixed(number, 1 if number < 9.95 and unit != 'B' else 0)} {unit}"
        number /= 1000
    return f"{_fixed(number, 1)} GB"


def duration(seconds: float | None) -> str:
    """A time in seconds, as `s` or `ms`. A dash if it is unknown."""
    if seconds is None:
        return UNKNOWN
    if seconds >= 0.9995:
        return f"{_fixed(seconds, 1)} s"
    return f"{_fixed(seconds * 1000, 1 if 0 < seconds < 0.00995 else 0)} ms"


def details(member: dict[str, object], columns: Iterable[str] = MEMBER_COLUMNS) -> dict[str, object]:
    """The keys of a member's payload that have no column of their own."""
    return {key: value for key, value in member.items() if key not in columns}


def _fixed(number: float, digits: int) -> str:
    """Like JavaScript's `toFixed`, which rounds halves up, unlike Python's `format`."""
    return f"{Decimal(number).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"
