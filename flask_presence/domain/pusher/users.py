"""The users that signers name.

Rule: a signer says who a user is, and what a signer says is checked before anything of it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from ..members import MAX_DEPTH, NO_INFO, OwnedInfo, Profile, User, depth, info_size
from ..text import is_sendable

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class SignedUser:
    """A user as a signer describes them. `info` is the `user_info`, whose keys may be any."""

    id: str
    info: Mapping[str, Any] = field(default_factory=lambda: NO_INFO)

    @property
    def user(self) -> User:
        """The user for guards and handlers, with the name and the avatar that the signer gives."""
        texts = {key: self.info[key] for key in ("name", "avatar") if isinstance(self.info.get(key), str)}
        return User(self.id, **texts)

    @property
    def member_user(self) -> User:
        """The user for a member list. The name and the avatar are in `info`, where a later signature may change
        them."""
        return User(self.id)

    def check(self, max_bytes: int) -> str | None:
        """Why the info is too large for a member, or `None`."""
        if depth(self.info) > MAX_DEPTH:
            return f"user_info must not nest deeper than {MAX_DEPTH} levels"
        if info_size(self.info) > max_bytes:
            return f"user_info must be at most {max_bytes} bytes of JSON"
        return None


def read_channel_data(text: str) -> SignedUser | None:
    """Read `channel_data`: `user_id`, a string that is not empty or a whole number, and `user_info`, an object or
    nothing. `None` if it is something else."""
    fields = _read(text)
    if fields is None:
        return None
    user_id = fields.get("user_id")
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        user_id = str(user_id)
    return _signed(user_id, fields.get("user_info"))


def read_user_data(text: str) -> SignedUser | None:
    """Read the `user_data` of a sign-in: `id`, a string that is not empty, and perhaps `user_info`. `None` if it is
    something else."""
    fields = _read(text)
    return None if fields is None else _signed(fields.get("id"), fields.get("user_info"))


def info_to_sign(user: User, info: Mapping[str, Any], owned: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The `user_info` of a user of the app, `{id, name, avatar?, …info, …owned}`. `info` is what the page may decide.
    What a guard owns wins; its keys that are `None` are absent."""
    member = Profile.of(user, info, OwnedInfo(owned)).member("", now)
    return {key: value for key, value in member.user_info.items() if owned.get(key, value) is not None}


def _read(text: str) -> dict[str, Any] | None:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _signed(user_id: Any, info: Any) -> SignedUser | None:
    is_id = isinstance(user_id, str) and user_id != "" and is_sendable(user_id)
    return SignedUser(user_id, info or NO_INFO) if is_id and (info is None or isinstance(info, dict)) else None
