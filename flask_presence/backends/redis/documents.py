"""A member as it is kept in Redis: JSON from which the wire shape, and any later merge, can be made.

Law: merging is the domain's, here as everywhere; the scripts see bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from ...domain.errors import RequestError
from ...domain.members import Member, User, info_size, make_member, merge_info


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user in a presence channel: who, with which connection and when they came, and what is said of them."""

    id: str
    client_id: str
    joined_at: datetime
    info: dict[str, Any]
    name: str | None = None
    email: str | None = None
    avatar: str | None = None
    updated_at: datetime | None = None

    @property
    def user(self) -> User:
        return User(self.id, name=self.name, email=self.email, avatar=self.avatar)

    def member(self) -> Member:
        return make_member(self.user, self.client_id, self.joined_at, self.info, self.updated_at)


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


def new_document(user: User, client_id: str, info: Mapping[str, Any], now: datetime) -> Document:
    """Of a user who comes."""
    merged, _ = merge_info({}, info)
    return Document(user.id, client_id, now, merged, user.name, user.email, user.avatar)


def merged_document(
    old: Document, info: Mapping[str, Any], now: datetime, max_info: int, error: type[RequestError]
) -> Document | None:
    """`old` with `info` merged, or `None` where that changes nothing; `error` where it would be too large."""
    merged, changed = merge_info(old.info, info)
    if not changed:
        return None
    if info_size(merged) > max_info:
        raise error(f"The member's merged userInfo would be more than {max_info} bytes of JSON")
    return msgspec.structs.replace(old, info=merged, updated_at=now)


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
    """For a script; empty for none."""
    return msgspec.json.encode(document) if document is not None else b""
