"""Entries: the members of a channel as Redis stores them.

Rule: only `domain.members` merges. For the Lua scripts, a member is opaque bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from ....domain.errors import RequestError
from ....domain.members import Member, OwnedInfo, Profile, User
from ....domain.pusher.names import came_by_pusher
from ....domain.roster import check_size


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member as JSON. The fields are stored in Redis, so their names must not change.

    `info` is the merged `userInfo` of the user's clients, `owned` the keys that the guard owns. `owned_at` is in ms, by
    the clock of Redis. The others are those of `Member`.
    """

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


class Entry(msgspec.Struct, gc=False, eq=False):
    """A member in a channel's list.

    `version` and `place` are the numbers of the events in which the member last changed, and joined. `raw` is the
    document. Of what is decoded only the JSON is kept, because a list may be long: the garbage collector would stop the
    process for as long as it takes to look at millions of small objects.
    """

    version: int
    place: int
    raw: bytes
    _json: msgspec.Raw | None = None
    _keyed_info: msgspec.Raw | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self.version, self.place, self.raw) == (other.version, other.place, other.raw)

    __hash__ = None  # type: ignore[assignment]

    @property
    def document(self) -> Document:
        return _decode(self.raw)

    @property
    def member(self) -> Member:
        """The member, decoded anew each time."""
        return self.document.member()

    def shown(self) -> Member:
        """The member, whose JSON is needed now, and kept for lists."""
        member = self.member
        self._json = member.json
        return member

    @property
    def json(self) -> msgspec.Raw:
        """The member as clients see it."""
        if self._json is None:
            self._json = self.member.json
        return self._json

    @property
    def keyed_info(self) -> msgspec.Raw:
        """The member as Pusher's clients see it, see `Member.keyed_info`."""
        if self._keyed_info is None:
            self._keyed_info = self.member.keyed_info
        return self._keyed_info


class Listing:
    """Puts the entries of a long list in order, slice by slice, so that no step takes long.

    It is a merge sort that merges its runs as they come: there are few at any time, each much longer than the next.
    """

    def __init__(self) -> None:
        self._runs: list[list[tuple[int, str, Entry]]] = []

    def add(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """Add a slice. Of several entries of a user, the last one counts."""
        run = sorted(((entry.place, user, entry) for user, entry in entries), key=_place)
        for _, _, entry in run:
            assert entry.json, "the member can be encoded"  # now, because it would take long for all at once
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            self.merge()

    def merge(self) -> bool:
        """Take one of the last steps, after all slices have been added. Returns whether there was one left."""
        if len(self._runs) < 2:
            return False
        later = self._runs.pop()
        self._runs[-1] += later
        self._runs[-1].sort(key=_place)  # Timsort finds the two runs, and merges them
        return True

    def entries(self) -> dict[str, Entry]:
        """All entries, by user, in order of joining."""
        while self.merge():
            continue
        entries: dict[str, Entry] = {}
        for run in self._runs:
            for _, user, entry in run:
                entries.pop(user, None)  # an earlier entry, of a member who has left and joined again since
                entries[user] = entry
        return entries


class ListJson:
    """The JSON of a list that grows, so that each of many who join at once needs not encode all of it again."""

    __slots__ = ("_text", "_whole")

    def __init__(self) -> None:
        self._text: bytearray | None = None  # without the closing bracket
        self._whole: msgspec.Raw | None = None

    def get(self, entries: Collection[Entry]) -> msgspec.Raw:
        """The list as JSON; `entries` are all of it, for the first time."""
        if self._text is None:
            self._text = bytearray(b"[" + b",".join([entry.json for entry in entries]))
        if self._whole is None:
            self._whole = msgspec.Raw(b"".join((self._text, b"]")))
        return self._whole

    def append(self, entry: Entry) -> None:
        """Add an entry at the end, if the list is known."""
        if self._text is not None:
            self._text += b"," if len(self._text) > 1 else b""
            self._text += entry.json
            self._whole = None

    def forget(self) -> None:
        """Forget the list: it has changed in another way, or is not needed for now."""
        self._text = self._whole = None


_place = itemgetter(0)
_decode = msgspec.json.Decoder(Document).decode


def parse_entry(value: bytes) -> Entry:
    """Read an entry as Redis stores it."""
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
    """The document after a merge, or `None` if nothing has changed, and whether other clients see a difference."""

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
    """Merge `info` and `owned` into a document, like `Profile.merged`. Raises `error` if it would be too large."""
    before = old.profile
    after = before.merged(info, owned)
    if info:
        check_size(after, max_info, error)
    visible = not after.looks_like(before, hidden=came_by_pusher(old.client_id))
    if not visible and after == before:
        return Merged(None, visible=False)
    new = _with_profile(old, after)
    return Merged(msgspec.structs.replace(new, updated_at=now) if visible else new, visible)


class _Owner(msgspec.Struct, omit_defaults=True):
    """The user of a connection, for the events that another worker raises if the connection's own worker has died."""

    id: str
    name: str | None = None
    email: str | None = None
    avatar: str | None = None
    claims: dict[str, Any] = {}


def encode_owner(user: User | None) -> bytes:
    """Encode the user of a connection. If the claims are not JSON, they are left out. Empty for an anonymous
    connection."""
    if user is None:
        return b""
    try:
        return msgspec.json.encode(_Owner(user.id, user.name, user.email, user.avatar, dict(user.claims)))
    except (TypeError, ValueError, RecursionError):
        return msgspec.json.encode(_Owner(user.id, user.name, user.email, user.avatar))


def decode_owner(encoded: bytes) -> User | None:
    """Decode what `encode_owner` has encoded."""
    if not encoded:
        return None
    owner = msgspec.json.decode(encoded, type=_Owner)
    return User(owner.id, owner.name, owner.email, owner.avatar, owner.claims)


def encode(document: Document | None) -> bytes:
    """Encode a document for a script; `None` is empty. A leading space tells scripts that a guard owns keys in it."""
    if document is None:
        return b""
    return (b" " if document.owned else b"") + msgspec.json.encode(document)
