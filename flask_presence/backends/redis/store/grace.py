"""Graces: users who stay listed for a while after their last connection is lost.

Rule: sans IO; time is that of Redis. A grace is written down before the connection is taken out of its channel, so that
some worker ends it, whoever is killed in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ....domain.channels import ChannelName
from ....domain.events import MemberLeft
from ....domain.members import User
from .calls import Call, Operation
from .entries import decode_owner, encode_owner, parse_entry
from .keys import Keys, escape, unescape

BATCH: Final = 200
"""Most graces that are ended in one round trip."""


def hold_place(channel: str, whose: str, client_id: str) -> str:
    """What stands for a user's hold after the loss of a connection; `whose` as entries know the user."""
    return "\0".join((escape(channel), whose, client_id))


def hold_notes(keys: Keys, place: str, until: str, owner: User | None) -> list[Call]:
    """Write down that a user is held until then, or later where that is noted already; and whose the connection was,
    where that is known."""
    return [
        Call("ZADD", (keys.holds,), ("GT", until, place)),
        Call("HSETNX" if owner is None else "HSET", (keys.holders,), (place, encode_owner(owner))),
    ]


class Graces:
    """The graces under one prefix."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def end_due(self, now: int) -> Operation[list[MemberLeft]]:
        """End the holds whose time is over at `now`, in ms; what the application should hear of it."""
        events: list[MemberLeft] = []
        due = [b""] * BATCH
        while len(due) == BATCH:
            due = yield Call("ZRANGEBYSCORE", (self._keys.holds,), ("-inf", str(now), "LIMIT", "0", str(BATCH)))
            events += yield from self._release(due, str(now))
        return events

    def end_matching(
        self, user_id: str | None, client_id: str | None, name: str | None = None
    ) -> Operation[list[MemberLeft]]:
        """End the holds of a user, after a lost connection, and in a channel (`None` stands for any), at once."""
        wanted = [value if value is None else escape(value) for value in (name, user_id, client_id)]
        held = yield Call("ZRANGE", (self._keys.holds,), ("0", "-1"))
        mine = [
            place
            for place in held
            if all(want in (None, part) for want, part in zip(wanted, place.decode().split("\0"), strict=True))
        ]
        return (yield from self._release(mine, ""))

    def channels(self) -> Operation[set[str]]:
        """The channels, as they are escaped, in which somebody is held."""
        return {place.decode().partition("\0")[0] for place in (yield Call("ZRANGE", (self._keys.holds,), ("0", "-1")))}

    def notes(
        self,
        channel: ChannelName,
        users: Iterable[tuple[bytes, bytes]],
        until: str,
        owners: Mapping[str, User | None],
    ) -> list[Call]:
        """`hold_notes` of clients and their users, as entries know these."""
        return [
            call
            for client, user in users
            for call in hold_notes(
                self._keys,
                hold_place(channel, user.decode(), client.decode()),
                until,
                owners.get(client.decode()),
            )
        ]

    def _release(self, places: list[bytes], until: str) -> Operation[list[MemberLeft]]:
        """End these holds, if they end at `until`, in ms (empty: in any case)."""
        keys, events = self._keys, list[MemberLeft]()
        if not places:
            return events
        parts = [place.decode().split("\0") for place in places]
        channels = [ChannelName(unescape(name)) for name, _, _ in parts]
        owners = yield Call("HMGET", (keys.holders,), tuple(places))
        released = yield [
            Call("release", keys.channel(channel), (keys.topic(channel), "0", user, until))
            for channel, (_, user, _) in zip(channels, parts, strict=True)
        ]
        ends = {place: end for place, (_, end, _) in zip(places, released, strict=True)}
        over = tuple(place for place, end in ends.items() if not end)
        if over:
            yield [Call("ZREM", (keys.holds,), over), Call("HDEL", (keys.holders,), over)]
        yield [Call("ZADD", (keys.holds,), (end, place)) for place, end in ends.items() if end]
        for channel, (_, _, client), (entry, _, reason), owner in zip(channels, parts, released, owners, strict=True):
            if entry:
                document = parse_entry(entry).document
                user, why = decode_owner(owner or b"") or document.user, reason.decode() or None
                events.append(MemberLeft(client, user, channel, document.member(), why))
        return events
