"""Grace periods: users stay listed for a while after their last connection is lost.

Rule: sans IO; times are by Redis's clock. A grace period is noted before the connection is taken out of its channel, so
that some worker ends it, whichever worker is killed in between.
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
"""The maximum number of grace periods ended in one round trip."""
TAKEN_FOR: Final = 3000
"""Milliseconds that one worker has to end grace periods before the next may try."""


def grace_id(channel: str, user: str, client_id: str) -> str:
    """Identifies the grace period that began when a user's connection was lost; `user` is escaped, as in entries."""
    return "\0".join((escape(channel), user, client_id))


class Graces:
    """The grace periods under one prefix."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def begin(self, channel: ChannelName, client_id: str, user: User, seconds: float) -> Operation[tuple[str, str]]:
        """Note that a grace period begins. Returns its id and its end, in ms."""
        grace = grace_id(channel, escape(user.id), client_id)
        names = (self._keys.graces, self._keys.grace_owners)
        (end,) = yield Call("begin_grace", names, (grace, str(int(seconds * 1000)), encode_owner(user)))
        return grace, end.decode()

    def note(self, grace: str, end: str, owner: User | None) -> list[Call]:
        """The calls that note a grace period and, if it is known, the user of its connection. If a later end is noted
        already, it stays."""
        return [
            Call("ZADD", (self._keys.graces,), ("GT", end, grace)),
            Call("HSETNX" if owner is None else "HSET", (self._keys.grace_owners,), (grace, encode_owner(owner))),
        ]

    def note_all(
        self,
        channel: ChannelName,
        clients: Iterable[tuple[bytes, bytes]],
        end: str,
        owners: Mapping[str, User | None],
    ) -> list[Call]:
        """The same for several clients of a channel, each with its user as in entries."""
        return [
            call
            for client, user in clients
            for call in self.note(grace_id(channel, user.decode(), client.decode()), end, owners.get(client.decode()))
        ]

    def end_due(self, now: int) -> Operation[list[MemberLeft]]:
        """End the grace periods that are over at `now`, in ms, except those that another worker is ending. Returns the
        events that the application must hear."""
        keys, events = (self._keys.graces,), list[MemberLeft]()
        if not (yield Call("ZRANGEBYSCORE", keys, ("-inf", str(now), "LIMIT", "0", "1"))):
            return events  # cheaper than the script, which is seldom needed
        due = [b""] * BATCH
        while len(due) == BATCH:
            due = yield Call("take_graces", keys, (str(now), str(BATCH), str(now + TAKEN_FOR)))
            events += yield from self._end(due, str(now))
        return events

    def end_matching(
        self, user_id: str | None, client_id: str | None, channel: str | None = None
    ) -> Operation[list[MemberLeft]]:
        """End the grace periods of a user, of a lost connection, and in a channel (`None` matches any) now. Returns the
        events that the application must hear."""
        return (yield from self.end_all_matching([(user_id, client_id, channel)]))

    def end_all_matching(
        self, wanted: Iterable[tuple[str | None, str | None, str | None]]
    ) -> Operation[list[MemberLeft]]:
        """The same for several of these, each a user, a lost connection, and a channel."""
        patterns = {tuple(part if part is None else escape(part) for part in (c, u, i)) for u, i, c in wanted}
        if not patterns:
            return []
        found = yield Call("ZRANGE", (self._keys.graces,), ("0", "-1"))

        def is_wanted(grace: bytes) -> bool:
            channel, user, client = grace.decode().split("\0")
            choices = ((c, u, i) for c in (channel, None) for u in (user, None) for i in (client, None))
            return any(choice in patterns for choice in choices)

        return (yield from self._end([grace for grace in found if is_wanted(grace)], ""))

    def channels(self) -> Operation[set[str]]:
        """The channels, escaped, in which there are grace periods."""
        found = yield Call("ZRANGE", (self._keys.graces,), ("0", "-1"))
        return {grace.decode().partition("\0")[0] for grace in found}

    def _end(self, graces: list[bytes], by: str) -> Operation[list[MemberLeft]]:
        """End these grace periods, if their time is over by `by`, in ms ('': in any case)."""
        keys, events = self._keys, list[MemberLeft]()
        if not graces:
            return events
        parts = [grace.decode().split("\0") for grace in graces]
        channels = [ChannelName(unescape(name)) for name, _, _ in parts]
        owners = yield Call("HMGET", (keys.grace_owners,), tuple(graces))
        replies = yield [
            Call("end_grace", keys.channel(channel), (keys.topic(channel), "0", user, by))
            for channel, (_, user, _) in zip(channels, parts, strict=True)
        ]
        ends = {grace: end for grace, (_, end, _) in zip(graces, replies, strict=True)}
        over = tuple(grace for grace, end in ends.items() if not end)
        if over:
            yield [Call("ZREM", (keys.graces,), over), Call("HDEL", (keys.grace_owners,), over)]
        yield [Call("ZADD", (keys.graces,), (end, grace)) for grace, end in ends.items() if end]
        for channel, (_, _, client), (entry, _, reason), owner in zip(channels, parts, replies, owners, strict=True):
            if entry:
                document = parse_entry(entry).document
                user, why = decode_owner(owner or b"") or document.user, reason.decode() or None
                events.append(MemberLeft(client, user, channel, document.member(), why))
        return events
