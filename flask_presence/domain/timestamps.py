"""Times as the server sends them: ISO 8601, in UTC, with milliseconds and `Z`."""

from __future__ import annotations

from datetime import datetime, timezone


def isoformat(moment: datetime) -> str:
    """An aware `datetime` as text like `2024-01-15T10:30:00.000Z`. Raises `ValueError` if it is naive."""
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone cannot be sent")
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def parse_isoformat(text: str) -> datetime:
    """The aware `datetime` that `isoformat` has turned into `text`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def from_epoch(seconds: float) -> datetime:
    """The aware `datetime`, in UTC, that is `seconds` after the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc)
