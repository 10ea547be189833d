"""The users that signers name, and members as Pusher's clients see them.

Rule: a signer says who a user is; what a guard owns of a member beats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from ..members import MAX_DEPTH, NO_INFO, Member, OwnedInfo, Profile, User, depth, info_size
from .names import came_by_pusher

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


def info_of(member: Member) -> dict[str, Any]:
    """A member's `user_info`: what was signed, if the member came by Pusher; else `{id, name, avatar?, …userInfo}`."""
    if came_by_pusher(member.client_id):
        return {**member.info, **member.hidden}
    fields: dict[str, Any] = {"id": member.id, "name": member.name}
    if member.avatar is not None:
        fields["avatar"] = member.avatar
    return fields | {key: value for key, value in member.info.items() if key not in ("name", "avatar")}


def info_to_sign(user: User, info: Mapping[str, Any], owned: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The `user_info` of a user of the app, `{id, name, avatar?, …info, …owned}`. `info` is what the page may decide.
    What a guard owns wins; its keys that are `None` are absent."""
    member = Profile.of(user, info, OwnedInfo(owned)).member("", now)
    return {key: value for key, value in info_of(member).items() if owned.get(key, value) is not None}


def _read(text: str) -> dict[str, Any] | None:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _signed(user_id: Any, info: Any) -> SignedUser | None:
    if not isinstance(user_id, str) or not user_id or not (info is None or isinstance(info, dict)):
        return None
    return SignedUser(user_id, info or NO_INFO)
