"""A member as it is kept in Redis: JSON from which the wire shape, and any later merge, can be made.

Law: merging is the domain's, here as everywhere; the scripts see bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from ....domain.errors import RequestError
from ....domain.members import Member, OwnedInfo, Profile, User
from ....domain.roster import check_size


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user in a presence channel: who, with which connection and when they came, what their clients have said, and
    what a guard owns."""

    id: str
    client_id: str
    joined_at: datetime
    info: dict[str, Any]
    name: str | None = None
    avatar: str | None = None
    updated_at: datetime | None = None
    owned: dict[str, Any] = {}
    owned_at: int = 0

    @property
    def user(self) -> User:
        return User(self.id, name=self.name, avatar=self.avatar)

    @property
    def profile(self) -> Profile:
        return Profile(self.user, self.info, self.owned, self.owned_at)

    def member(self) -> Member:
        return self.profile.member(self.client_id, self.joined_at, self.updated_at)


@dataclass(frozen=True)
class Entry:
    """A member in a channel's list: the numbers of their last change and of their coming, and the document.

    Read when it is asked for, and then once, as a list may be long and few of it new.
    """

    version: int
    place: int
    raw: bytes

    @cached_property
    def document(self) -> Document:
        return _decode(self.raw)

    @cached_property
    def member(self) -> Member:
        return self.document.member()


_decode = msgspec.json.Decoder(Document).decode


def parse_entry(value: bytes) -> Entry:
    version, place, raw = value.split(b"\0", 2)
    return Entry(int(version), int(place), raw)


def new_document(user: User, client_id: str, info: Mapping[str, Any], owned: OwnedInfo, now: datetime) -> Document:
    """The document of a user who joins."""
    document = Document(user.id, client_id, now, {}, user.name, user.avatar)
    return _with_profile(document, Profile.of(user, info, owned))


def _with_profile(document: Document, profile: Profile) -> Document:
    info, owned, owned_at = dict(profile.client_info), dict(profile.owned), int(profile.owned_at)
    return msgspec.structs.replace(document, info=info, owned=owned, owned_at=owned_at)


class Merged(NamedTuple):
    """The changed document (`None`: it stays as it is), and whether others see a difference."""

    document: Document | None
    visible: bool


def merged_document(
    old: Document,
    info: Mapping[str, Any],
    owned: OwnedInfo | None,
    now: datetime,
    max_info: int,
    error: type[RequestError],
) -> Merged:
    """`old` with `info` and `owned` merged in, see `Profile.merged`. Raises `error` if it would be too large."""
    before = old.profile
    after = before.merged(info, owned)
    if info:
        check_size(after, max_info, error)
    visible = not after.looks_like(before)
    if not visible and after == before:
        return Merged(None, visible=False)
    new = _with_profile(old, after)
    return Merged(msgspec.structs.replace(new, updated_at=now) if visible else new, visible)


class _Owner(msgspec.Struct, omit_defaults=True):
    """Whose a connection is, for what is heard of it when its process is gone."""

    id: str
    name: str | None = None
    email: str | None = None
    avatar: str | None = None
    claims: dict[str, Any] = {}


def encode_owner(user: User | None) -> bytes:
    """For `decode_owner`; claims that are no JSON are left out. Empty for an anonymous connection."""
    if user is None:
        return b""
    try:
        return msgspec.json.encode(_Owner(user.id, user.name, user.email, user.avatar, dict(user.claims)))
    except (TypeError, ValueError, RecursionError):
        return msgspec.json.encode(_Owner(user.id, user.name, user.email, user.avatar))


def decode_owner(noted: bytes) -> User | None:
    if not noted:
        return None
    owner = msgspec.json.decode(noted, type=_Owner)
    return User(owner.id, owner.name, owner.email, owner.avatar, owner.claims)


def encode(document: Document | None) -> bytes:
    """For a script; empty for none. A space in front shows the scripts that something is owned."""
    if document is None:
        return b""
    return (b" " if document.owned else b"") + msgspec.json.encode(document)
