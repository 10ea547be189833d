"""How numbers look, on the page and in the commands' tables.

Rule: the page's script formats the same numbers in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

UNKNOWN: Final = "\N{EN DASH}"
CHART: Final = (149, 32)
"""Width and height of a chart, in its own units."""


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
