"""Users, members of presence channels, and how a `userInfo` becomes part of a member.

Law: the server's fields win. Nothing that a client writes can set or shadow them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import msgspec

from .errors import InvalidRequest
from .frozen import freeze
from .text import sendable
from .timestamps import isoformat

RESERVED_KEYS: Final = frozenset({"id", "clientId", "joinedAt", "updatedAt", "__proto__"})
"""Keys of a `userInfo` that only the server sets; a client's are dropped."""

ANONYMOUS_NAME: Final = "Anonymous"
MAX_DEPTH: Final = 64

_encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class User:
    """Who a connection belongs to.

    `claims` are those of the token, or what a `user_loader` gave; read-only. An `id` that is an `int` or a `UUID`, as
    databases give them, becomes a string; `TypeError` for anything else, and for an empty one. `name`, `email` and
    `avatar` are strings or `None`; `TypeError` for anything else.
    """

    id: str
    name: str | None = None
    email: str | None = None
    avatar: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if isinstance(self.id, (int, UUID)) and not isinstance(self.id, bool):
            object.__setattr__(self, "id", str(self.id))
        if not isinstance(self.id, str) or not self.id:
            raise TypeError(
                f"User.id must be a string that is not empty, or an int or UUID, not {self.id!r}; try str()"
            )
        for name in ("id", "name", "email", "avatar"):
            text = getattr(self, name)
            if isinstance(text, str):
                object.__setattr__(self, name, sendable(text))
            elif text is not None:
                raise TypeError(f"User.{name} must be a string or None, not {text!r}")
        object.__setattr__(self, "claims", freeze(self.claims))

    def to_dict(self) -> dict[str, Any]:
        """`{id, name?, email?, avatar?}`; the claims stay on the server."""
        shape = {"id": self.id, "name": self.name, "email": self.email, "avatar": self.avatar}
        return {key: value for key, value in shape.items() if value is not None}


@dataclass(frozen=True)
class Member:
    """A user in a presence channel.

    `client_id` and `joined_at` are those of the connection with which the user came. `info` is the
    merged `userInfo`, read-only. Times are aware `datetime`s.
    """

    id: str
    client_id: str
    joined_at: datetime
    name: str
    avatar: str | None
    info: Mapping[str, Any] = field(hash=False)
    updated_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """`{id, clientId, joinedAt, name, avatar?, …info, updatedAt?}`."""
        shape: dict[str, Any] = {
            "id": self.id,
            "clientId": self.client_id,
            "joinedAt": isoformat(self.joined_at),
            "name": self.name,
        }
        if self.avatar is not None:
            shape["avatar"] = self.avatar
        shape.update((k, v) for k, v in self.info.items() if k not in ("name", "avatar"))
        if self.updated_at is not None:
            shape["updatedAt"] = isoformat(self.updated_at)
        return shape

    @cached_property
    def json(self) -> msgspec.Raw:
        """`to_dict()` as JSON, encoded once however many snapshots it stands in."""
        return msgspec.Raw(_encode(self.to_dict()))


def check_info(info: Mapping[str, Any], max_bytes: int) -> dict[str, Any]:
    """A client's `userInfo` without the reserved keys.

    Raises `InvalidRequest` where it is more than `max_bytes` of (compact) JSON, or nests so deep that
    encoding it again could fail.
    """
    if _depth(info) > MAX_DEPTH:
        raise InvalidRequest(f"userInfo must not nest deeper than {MAX_DEPTH} levels")
    if info_size(info) > max_bytes:
        raise InvalidRequest(f"userInfo must be at most {max_bytes} bytes of JSON")
    return {key: value for key, value in info.items() if key not in RESERVED_KEYS}


def info_size(info: Mapping[str, Any]) -> int:
    """Bytes of compact JSON."""
    return len(_encode(dict(info)))


def merge_info(old: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """`old` with `given` merged in, and whether that changed anything.

    Shallow: given keys replace, other keys stay, `None` removes. Equality is that of the JSON, in
    which `0` is not `false`.
    """
    merged = dict(old)
    for key, value in given.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged, _canonical(merged) != _canonical(dict(old))


def make_member(
    user: User,
    client_id: str,
    joined_at: datetime,
    info: Mapping[str, Any],
    updated_at: datetime | None = None,
) -> Member:
    """The member that `user` is with the merged `info`: name and avatar fall back to the user's."""
    names = (info.get("name"), user.name, user.email)
    avatars = (info.get("avatar"), user.avatar)
    return Member(
        id=user.id,
        client_id=client_id,
        joined_at=joined_at,
        name=next((name for name in names if isinstance(name, str)), ANONYMOUS_NAME),
        avatar=next((avatar for avatar in avatars if isinstance(avatar, str)), None),
        info=freeze(info),
        updated_at=updated_at,
    )


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, (Mapping, list))
        ]
    return deepest
