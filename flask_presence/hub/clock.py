"""The time, as the hub writes it into messages and passes it to the backend."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """An aware `datetime` in UTC."""
    return datetime.now(timezone.utc)
