"""Users, members of presence channels, and how a `userInfo` becomes part of a member.

Law: what the server knows wins. Nothing that a client writes can set or shadow its fields, the name and avatar of a
user of whom it has them, or what a guard owns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from .errors import InvalidRequest
from .frozen import freeze
from .text import sendable
from .timestamps import isoformat

RESERVED_KEYS: Final = frozenset({"id", "clientId", "joinedAt", "updatedAt", "__proto__"})
"""Keys of a `userInfo` that only the server sets; a client's are dropped."""

NOTHING: Final[Mapping[str, Any]] = freeze({})

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

    `client_id` and `joined_at` are those of the connection with which the user came. `info` is the merged `userInfo`,
    owned keys included, a `name` or `avatar` that is no string left out, read-only. Times are aware `datetime`s.
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
    if depth(info) > MAX_DEPTH:
        raise InvalidRequest(f"userInfo must not nest deeper than {MAX_DEPTH} levels")
    if info_size(info) > max_bytes:
        raise InvalidRequest(f"userInfo must be at most {max_bytes} bytes of JSON")
    return {key: value for key, value in info.items() if key not in RESERVED_KEYS}


def info_size(info: Mapping[str, Any]) -> int:
    """Bytes of compact JSON."""
    return len(_encode(dict(info)))


class OwnedInfo(NamedTuple):
    """The keys of a member that a guard's verdict owns; keys that are `None` are absent for good.

    `asked_at` is when the guard was asked, and `heard_at` when its verdict arrived, in any unit, on the one clock by
    which the verdicts about a member are compared. 0 stands for a time that is not known.
    """

    info: Mapping[str, Any] = NOTHING
    asked_at: float = 0
    heard_at: float = 0

    def is_outdated_by(self, other_asked_at: float) -> bool:
        """Whether a verdict that was asked for at that time is newer. A time that has not come yet is a clock's
        error."""
        return 0 < self.asked_at < other_asked_at <= self.heard_at


NOTHING_OWNED: Final = OwnedInfo()
"""The verdict of a guard that owns nothing."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a member consists of, and who decides each part.

    `user` is the user of the first connection, `said` the merged `userInfo` of the user's clients, `owned` the keys
    that the guard owns. `owned_at` is when the verdict was asked for that counts; one that finds nothing owned, and
    leaves it so, does not change it.
    """

    user: User
    said: Mapping[str, Any]
    owned: Mapping[str, Any]
    owned_at: float = 0

    @classmethod
    def of(cls, user: User, given: Mapping[str, Any], verdict: OwnedInfo) -> Profile:
        """The profile of a user who joins."""
        return cls(user, NOTHING, NOTHING, verdict.asked_at).merged(given, verdict)

    def merged(self, given: Mapping[str, Any], verdict: OwnedInfo | None = None) -> Profile:
        """With a client's `userInfo` merged in and, if a guard was asked, its owned info in place of the present one.

        The merge is shallow: given keys replace, other keys stay, `None` removes. Keys that a client cannot set are
        dropped; what it had said under a key that becomes owned is gone for good. The newest verdict counts: one that
        was asked for before the present one changes nothing.
        """
        owned, owned_at = self.owned, self.owned_at
        if verdict is not None and not verdict.is_outdated_by(owned_at):
            if owned or verdict.info:
                owned_at = verdict.asked_at
            owned = verdict.info
        said = {key: value for key, value in self.said.items() if key not in owned}
        for key, value in self.sayable(given, owned).items():
            if value is None:
                said.pop(key, None)
            else:
                said[key] = value
        return Profile(self.user, said, owned, owned_at)

    def sayable(self, given: Mapping[str, Any], owned: Mapping[str, Any]) -> Mapping[str, Any]:
        """What of a client's `userInfo` is the client's to say."""
        return {key: value for key, value in without_known(given, self.user).items() if key not in owned}

    def looks_like(self, other: Profile) -> bool:
        """Whether others see the same. Equality is that of the JSON, in which `0` is not `false`."""
        return _canonical(self._shown) == _canonical(other._shown)

    def member(self, client_id: str, joined_at: datetime, updated_at: datetime | None = None) -> Member:
        """The member that the user is with this."""
        name, avatar, info = self._shown
        return Member(self.user.id, client_id, joined_at, name, avatar, freeze(info), updated_at)

    @property
    def _shown(self) -> tuple[str, str | None, dict[str, Any]]:
        said, owned = self.said, self.owned
        info = {**said, **owned} if owned else said
        name = owned["name"] if "name" in owned else _first(self.user.name, said.get("name"))
        avatar = owned["avatar"] if "avatar" in owned else _first(self.user.avatar, said.get("avatar"))
        kept = {
            key: value
            for key, value in info.items()
            if value is not None and (key not in ("name", "avatar") or isinstance(value, str))
        }
        return ANONYMOUS_NAME if name is None else name, avatar, kept


def without_known(info: Mapping[str, Any], user: User | None) -> dict[str, Any]:
    """A client's `userInfo` without the name and the avatar of a user of whom the server knows them."""
    known = {"name": user and user.name, "avatar": user and user.avatar}
    return {key: value for key, value in info.items() if known.get(key) is None}


def check_owned(owned: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a guard may own of what it has given, and the keys that it may not."""
    kept = {
        key: value
        for key, value in owned.items()
        if key not in RESERVED_KEYS and (key not in ("name", "avatar") or value is None or isinstance(value, str))
    }
    return kept, [key for key in owned if key not in kept]


def _first(*texts: Any) -> str | None:
    return next((text for text in texts if isinstance(text, str)), None)


def depth(value: Any) -> int:
    """Levels of lists and mappings inside one another."""
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
