"""Times as they leave the server: ISO 8601, UTC, three millisecond digits, `Z`."""

from __future__ import annotations

from datetime import datetime, timezone


def isoformat(moment: datetime) -> str:
    """`2024-01-15T10:30:00.000Z` for an aware `moment`; `ValueError` for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone has no place on the wire")
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def from_epoch(seconds: float) -> datetime:
    """The aware time that is `seconds` after the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc)
