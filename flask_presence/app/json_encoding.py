"""Encodes the values that an app sends as JSON.

Rule: the app's own JSON provider encodes them, like Flask's responses. JSON that clients could not parse raises before
anything is sent.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flask import Flask
from msgspec import Raw

from ..domain import wire
from ..domain.channels import Channel, Stats
from ..domain.members import Member, User


def encode_json(app: Flask, value: Any) -> Raw:
    """Encode `value` like Flask, and values of this package by their `to_dict`. Raises `TypeError` if that fails."""
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
    if _holds_own_value(value):  # Flask would send all fields of a `User` in it, and the claims are among them
        return {name: _plain(inner) for name, inner in _fields(value).items()}
    return value


def _holds_own_value(value: Any) -> bool:
    """Whether a dataclass, or what is in it, is a value of this package."""
    if isinstance(value, (Channel, Member, Stats, User)):
        return True
    if isinstance(value, (dict, list, tuple)):
        return any(map(_holds_own_value, value.values() if isinstance(value, dict) else value))
    return any(map(_holds_own_value, _fields(value).values()))


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass instance; of anything else, none."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return {}
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
