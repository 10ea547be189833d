"""What the app's code gives to be sent, as JSON.

Law: encoded like Flask's own, by the app's provider; what clients could not parse is refused before anything is sent.
"""

from __future__ import annotations

from typing import Any

from flask import Flask
from msgspec import Raw

from ..domain import wire
from ..domain.channels import Channel, Stats
from ..domain.members import Member, User


def encode_json(app: Flask, value: Any) -> Raw:
    """`value` as Flask's JSON has it, this package's own values in the guide's shapes. Raises `TypeError`."""
    try:
        return wire.check_json(app.json.dumps(_plain(value)))
    except (ValueError, RecursionError) as problem:
        raise TypeError(f"this cannot be sent as JSON: {problem}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, (Channel, Member, Stats, User)):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
