"""Users, members of presence channels, and how a client's `userInfo` is merged into a member.

Rule: what the server knows wins. A client cannot set the reserved keys, the keys that a guard owns, or the name and
avatar of a user if the server knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from .errors import InvalidRequest
from .frozen import freeze
from .pusher.names import came_by_pusher
from .text import is_sendable, sendable
from .timestamps import isoformat

RESERVED_KEYS: Final = frozenset({"id", "clientId", "joinedAt", "updatedAt", "__proto__"})
"""Keys that only the server sets. They are dropped from a client's `userInfo`."""

_PERHAPS_HIDDEN: Final = RESERVED_KEYS | {"name", "avatar"}
"""The keys of a signed info that native clients may not see; of `name` and `avatar`, only what is not a string."""

NO_INFO: Final[Mapping[str, Any]] = freeze({})

ANONYMOUS_NAME: Final = "Anonymous"
MAX_DEPTH: Final = 64
"""How deep a `userInfo` may nest."""

_encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="sorted").encode


UserId = str | int | UUID
"""A user's id as an app may give it. It becomes a string."""


@dataclass(frozen=True, slots=True, init=False)
class User:
    """The user that a connection belongs to. Immutable.

    `id` is a non-empty string; an `int` or a `UUID` becomes a string. `name`, `email` and `avatar` are strings or
    `None`. `claims` is a read-only mapping: the claims of the token, or what the `user_loader` put there. Raises
    `TypeError` if a field has another type, and if `id` is empty or has lone surrogates, which cannot be sent.
    """

    id: str
    name: str | None = None
    email: str | None = None
    avatar: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __init__(
        self,
        id: UserId,
        name: str | None = None,
        email: str | None = None,
        avatar: str | None = None,
        claims: Mapping[str, Any] = NO_INFO,
    ) -> None:
        object.__setattr__(self, "id", _text_id(id))
        for field_name, text in (("name", name), ("email", email), ("avatar", avatar)):
            if text is not None and not isinstance(text, str):
                raise TypeError(f"User.{field_name} must be a string or None, not {text!r}")
            object.__setattr__(self, field_name, text and sendable(text))
        if not isinstance(claims, Mapping):
            raise TypeError(f"User.claims must be a mapping, not {claims!r:.200}")
        object.__setattr__(self, "claims", freeze(claims))

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: `{id, name?, email?, avatar?}`. The claims stay on the server."""
        fields = {"id": self.id, "name": self.name, "email": self.email, "avatar": self.avatar}
        return {key: value for key, value in fields.items() if value is not None}


class _Encoded:
    """Slots for what a `Member` is as JSON, which are no fields of it."""

    __slots__ = ("_json", "_keyed_info")

    _json: msgspec.Raw
    _keyed_info: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Member(_Encoded):
    """A user in a presence channel. Immutable.

    `client_id` and `joined_at` are those of the user's first connection. `info` is the merged `userInfo`, owned keys
    included, as a read-only mapping; a `name` or `avatar` that is not a string is left out. `joined_at` and
    `updated_at` are aware `datetime`s; `updated_at` is `None` until the member changes. `hidden` has the keys that only
    Pusher's clients see, because a signer may set them and native clients may not.
    """

    id: str
    client_id: str
    joined_at: datetime
    name: str
    avatar: str | None
    info: Mapping[str, Any] = field(hash=False)
    updated_at: datetime | None = None
    hidden: Mapping[str, Any] = field(default_factory=lambda: NO_INFO, hash=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: `{id, clientId, joinedAt, name, avatar?, …info, updatedAt?}`."""
        fields: dict[str, Any] = {
            "id": self.id,
            "clientId": self.client_id,
            "joinedAt": isoformat(self.joined_at),
            "name": self.name,
        }
        if self.avatar is not None:
            fields["avatar"] = self.avatar
        fields.update((k, v) for k, v in self.info.items() if k not in ("name", "avatar"))
        if self.updated_at is not None:
            fields["updatedAt"] = isoformat(self.updated_at)
        return fields

    @property
    def json(self) -> msgspec.Raw:
        """`to_dict()` as JSON. It is encoded once, however many frames it goes into."""
        try:
            return self._json
        except AttributeError:
            encoded = msgspec.Raw(_encode(self.to_dict()))
            object.__setattr__(self, "_json", encoded)
            return encoded

    @property
    def user_info(self) -> dict[str, Any]:
        """What Pusher's clients see: what was signed, if the member came by Pusher; otherwise
        `{id, name, avatar?, …info}`."""
        if came_by_pusher(self.client_id):
            return {**self.info, **self.hidden}
        fields: dict[str, Any] = {"id": self.id, "name": self.name}
        if self.avatar is not None:
            fields["avatar"] = self.avatar
        return fields | {key: value for key, value in self.info.items() if key not in ("name", "avatar")}

    @property
    def keyed_info(self) -> msgspec.Raw:
        """`"id":user_info`, a pair of a JSON object. It is encoded once, like `json`."""
        try:
            return self._keyed_info
        except AttributeError:
            encoded = msgspec.Raw(_encode(self.id) + b":" + _encode(self.user_info))
            object.__setattr__(self, "_keyed_info", encoded)
            return encoded


def _text_id(user_id: UserId) -> str:
    text = str(user_id) if isinstance(user_id, (int, UUID)) and not isinstance(user_id, bool) else user_id
    if not isinstance(text, str) or not text:
        raise TypeError(f"User.id must be a non-empty string, an int or a UUID, not {text!r}; convert it with str()")
    if not is_sendable(text):  # replaced, it would be the id of somebody else
        raise TypeError(f"User.id must have no lone surrogates, unlike {text!r}")
    return text


def check_info(info: Mapping[str, Any], max_bytes: int) -> dict[str, Any]:
    """A client's `userInfo` without the reserved keys.

    Raises `InvalidRequest` if it is more than `max_bytes` of compact JSON, or nests deeper than `MAX_DEPTH`, because
    encoding it again could then fail.
    """
    if depth(info) > MAX_DEPTH:
        raise InvalidRequest(f"userInfo must not nest deeper than {MAX_DEPTH} levels")
    if info_size(info) > max_bytes:
        raise InvalidRequest(f"userInfo must be at most {max_bytes} bytes of JSON")
    return {key: value for key, value in info.items() if key not in RESERVED_KEYS}


def client_info(info: Mapping[str, Any], user: User | None, max_bytes: int) -> dict[str, Any]:
    """The part of a `userInfo` that a client of `user` may decide. Raises like `check_info`."""
    return without_user_fields(check_info(info, max_bytes), user)


def info_size(info: Mapping[str, Any]) -> int:
    """The size of `info` as compact JSON, in bytes."""
    return len(_encode(dict(info)))


class OwnedInfo(NamedTuple):
    """The keys of a member that a guard's verdict owns. A key that is `None` is absent, and no client can set it.

    `asked_at` is when the guard was asked, and `answered_at` when it answered. Any unit will do, if all verdicts about
    a member use the same clock. 0 means that the time is not known.
    """

    info: Mapping[str, Any] = NO_INFO
    asked_at: float = 0
    answered_at: float = 0

    def is_outdated_by(self, other_asked_at: float) -> bool:
        """Whether a verdict that was asked for at `other_asked_at` is newer. A time after `answered_at` does not count,
        because another worker's clock must be wrong."""
        return 0 < self.asked_at < other_asked_at <= self.answered_at


NOTHING_OWNED: Final = OwnedInfo()
"""The verdict of a guard that owns nothing."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a member is made of: the parts that the user, the clients and the guard decide.

    `user` is the user as the first connection knows them. `client_info` is the merged `userInfo` of the user's clients.
    `owned` are the keys that the guard owns. `owned_at` is when the guard was asked for the verdict that counts; a
    verdict that finds nothing owned, and owns nothing, does not change it.
    """

    user: User
    client_info: Mapping[str, Any]
    owned: Mapping[str, Any]
    owned_at: float = 0

    @classmethod
    def of(cls, user: User, info: Mapping[str, Any], verdict: OwnedInfo) -> Profile:
        """The profile of a user who joins with `info`, a client's `userInfo`."""
        return cls(user, NO_INFO, NO_INFO, verdict.asked_at).merged(info, verdict)

    def merged(self, info: Mapping[str, Any], verdict: OwnedInfo | None = None) -> Profile:
        """The profile after a client's `userInfo` is merged in and, if a guard was asked, its verdict is applied.

        The merge is shallow: keys of `info` replace, other keys stay, and `None` removes a key. Keys that a client
        cannot set are dropped. If a key becomes owned, the client's value for it is lost for good. The newest verdict
        counts: one that was asked for before the current one changes nothing.
        """
        owned, owned_at = self.owned, self.owned_at
        if verdict is not None and not verdict.is_outdated_by(owned_at):
            if owned or verdict.info:
                owned_at = verdict.asked_at
            owned = verdict.info
        merged = {key: value for key, value in self.client_info.items() if key not in owned}
        for key, value in without_user_fields(info, self.user).items():
            if key in owned:
                continue
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = value
        return Profile(self.user, merged or NO_INFO, owned, owned_at)

    def looks_like(self, other: Profile, *, hidden: bool = False) -> bool:
        """Whether other clients see no difference; with `hidden`, Pusher's clients do not either. Values are compared
        as JSON, in which `0` is not `false`."""
        if hidden and _canonical(self._hidden) != _canonical(other._hidden):
            return False
        return _canonical(self._visible) == _canonical(other._visible)

    def member(self, client_id: str, joined_at: datetime, updated_at: datetime | None = None) -> Member:
        """The member with this profile."""
        name, avatar, info = self._visible
        is_seen = came_by_pusher(client_id) and not self.client_info.keys().isdisjoint(_PERHAPS_HIDDEN)
        hidden = freeze(self._hidden) if is_seen else NO_INFO
        return Member(self.user.id, client_id, joined_at, name, avatar, freeze(info), updated_at, hidden)

    @property
    def _visible(self) -> tuple[str, str | None, dict[str, Any]]:
        """What other clients see: the name, the avatar, and the merged `userInfo`."""
        theirs, owned = self.client_info, self.owned
        info = {**theirs, **owned} if owned else theirs
        name = owned["name"] if "name" in owned else _first_text(self.user.name, theirs.get("name"))
        avatar = owned["avatar"] if "avatar" in owned else _first_text(self.user.avatar, theirs.get("avatar"))
        visible = {key: value for key, value in info.items() if _is_shown(key, value)}
        return ANONYMOUS_NAME if name is None else name, avatar, visible

    @property
    def _hidden(self) -> dict[str, Any]:
        """What a signer has set, and native clients do not see."""
        return {
            key: value
            for key, value in self.client_info.items()
            if value is not None and key not in self.owned and not _is_shown(key, value)
        }


def guard_info(info: Mapping[str, Any], user: User | None) -> dict[str, Any]:
    """The part of a member's merged `userInfo` that a guard sees: without reserved keys, which a signer may have set,
    and without `name` and `avatar`, as far as the server knows these of the user."""
    known = without_user_fields(info, user)
    return {key: value for key, value in known.items() if key not in RESERVED_KEYS}


def _is_shown(key: str, value: Any) -> bool:
    """Whether native clients see this key of a merged `userInfo`."""
    if value is None or key in RESERVED_KEYS:
        return False
    return key not in ("name", "avatar") or isinstance(value, str)


def without_user_fields(info: Mapping[str, Any], user: User | None) -> dict[str, Any]:
    """A client's `userInfo` without `name` and `avatar`, as far as the server knows these of the user."""
    known = {"name": user and user.name, "avatar": user and user.avatar}
    return {key: value for key, value in info.items() if known.get(key) is None}


def split_owned(info: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Split the `userInfo` of a guard's answer into what the guard may own, and the keys that it may not own."""
    owned = {
        key: value
        for key, value in info.items()
        if key not in RESERVED_KEYS and (key not in ("name", "avatar") or value is None or isinstance(value, str))
    }
    return owned, [key for key in info if key not in owned]


def _first_text(*texts: Any) -> str | None:
    return next((text for text in texts if isinstance(text, str)), None)


def depth(value: Any) -> int:
    """How many levels of lists and mappings are nested in `value`, itself included."""
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
