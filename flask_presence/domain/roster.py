"""Who is in which channel.

Law: nothing here does IO or knows the time (callers pass `now`); every change returns what changed; an
operation that raises has changed nothing. Replaying the changes over a snapshot gives the roster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from .channels import Channel, ChannelName, ChannelType, count_channels, matches
from .errors import JoinFailed, NotFound, NotMember, RequestError, UpdateFailed
from .events import Reason
from .members import NOTHING_OWNED, Member, OwnedInfo, Profile, User, info_size


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation did to a member list: `member` joined, was updated, or left (its last state).

    `reason` is how the last connection of who has left went, where that is known.
    """

    kind: Literal["joined", "updated", "left"]
    member: Member
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """The outcome of a join.

    `members` (in order of joining) and `me` for presence channels, as they are after it; `change` is
    what the others must hear; `fresh` is whether the connection was not in the channel before.
    """

    fresh: bool
    change: Change | None = None
    members: tuple[Member, ...] | None = None
    me: Member | None = None


@dataclass(frozen=True, slots=True)
class Updated:
    """The outcome of an update: the member as it is now, and the change where there was one."""

    member: Member
    change: Change | None


@dataclass(slots=True)
class _Presence:
    """A listed user. Who is `held` stays listed without a connection, until they come back or are released."""

    profile: Profile
    member: Member
    connections: set[str]
    held: bool = False
    reason: Reason | None = None  # of the connection that went last


@dataclass(slots=True)
class _Room:
    name: ChannelName
    created_at: datetime
    connections: dict[str, str | None] = field(default_factory=dict)  # client id -> user id
    present: dict[str, _Presence] = field(default_factory=dict)  # user id -> who, in order of joining
    type: ChannelType = "public"
    described: Channel | None = None  # as it was lately, since many ask for long lists of channels

    def __post_init__(self) -> None:
        self.type = self.name.type

    @property
    def member_count(self) -> int:
        return len(self.present) if self.type == "presence" else len(self.connections)

    def describe(self) -> Channel:
        """Without its members."""
        count = self.member_count
        if self.described is None or self.described.member_count != count:
            self.described = Channel(self.name, self.type, count, self.created_at)
        return self.described

    def members(self) -> tuple[Member, ...]:
        return tuple(entry.member for entry in self.present.values())


class Roster:
    """The channels, the connections in them, and the members of the presence channels.

    `max_info` bounds a member's merged `userInfo`, in bytes of JSON.
    """

    def __init__(self, max_info: int) -> None:
        self._max_info = max_info
        self._rooms: dict[str, _Room] = {}

    def join(
        self,
        channel: ChannelName,
        client_id: str,
        user: User | None,
        info: Mapping[str, Any] | None,
        now: datetime,
        owned: OwnedInfo = NOTHING_OWNED,
    ) -> Joined:
        """Put a connection into `channel`; joining again merges `info` and changes nothing else.

        `owned` is what the guard has given, in place of what it gave before. Raises `JoinFailed` where the merged
        `info` would be too large.
        """
        room = self._rooms.get(channel) or _Room(channel, now)
        fresh = client_id not in room.connections
        if channel.type != "presence":
            self._rooms[channel] = room
            room.connections[client_id] = user.id if user else None
            return Joined(fresh)
        if user is None:
            raise JoinFailed("A presence channel needs a user")
        change = self._enter(room, client_id, user, info or {}, now, owned)
        self._rooms[channel] = room
        room.connections[client_id] = user.id
        me = room.present[user.id]
        me.connections.add(client_id)
        me.held = False
        return Joined(fresh, change, room.members(), me.member)

    def leave(
        self, channel: ChannelName, client_id: str, *, hold: bool = False, reason: Reason | None = None
    ) -> Change | None:
        """Take a connection out; the change where it was its user's last, unless the user is to be held (who
        has another connection needs no hold).

        Raises `NotFound` for a channel that nobody is in, `NotMember` where the connection is not in it.
        """
        room = self._rooms.get(channel)
        if room is None:
            raise NotFound
        if client_id not in room.connections:
            raise NotMember
        user_id = room.connections.pop(client_id)
        if channel.type != "presence" or user_id is None:
            self._forget_if_empty(room)
            return None
        entry = room.present[user_id]
        entry.connections.discard(client_id)
        entry.held = entry.held or (hold and not entry.connections)
        entry.reason = reason
        return self._drop(room, entry)

    def release(self, channel: ChannelName, user_id: str) -> Change | None:
        """Hold a user no longer; the change where that was all that kept them in `channel`."""
        room = self._rooms.get(channel)
        entry = room.present.get(user_id) if room else None
        if room is None or entry is None:
            return None
        entry.held = False
        return self._drop(room, entry)

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: OwnedInfo | None = None,
    ) -> Updated:
        """Merge `info` into the member that the connection belongs to. `owned` is what its guard, asked again, gives
        in place of what was given before.

        Raises `UpdateFailed`: no such channel, not a presence channel, not in it, or too large.
        """
        room = self._rooms.get(channel)
        if room is None:
            raise UpdateFailed("Channel not found")
        if channel.type != "presence":
            raise UpdateFailed("Not a presence channel")
        user_id = room.connections.get(client_id)
        if user_id is None:
            raise UpdateFailed("Not a member of this channel")
        entry = room.present[user_id]
        change = self._merge(entry, info, owned, now, UpdateFailed)
        return Updated(entry.member, change)

    def profile(self, channel: str, client_id: str) -> Profile | None:
        """What is said of the user of a connection in a presence channel; `None` where it is in none."""
        room = self._rooms.get(channel)
        user_id = room.connections.get(client_id) if room is not None else None
        entry = room.present.get(user_id) if room is not None and user_id is not None else None
        return None if entry is None else entry.profile

    def get(self, name: str) -> Channel | None:
        """The channel with its members, or `None` where nobody is in it."""
        room = self._rooms.get(name)
        if room is None:
            return None
        return replace(room.describe(), members=room.members() if room.type == "presence" else None)

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> Iterator[Channel]:
        """The channels of that type, with names that begin so; oldest first, without their members."""
        for room in self._rooms.values():
            if matches(room.name, kind, prefix):
                yield room.describe()

    def members(self, name: str) -> tuple[Member, ...]:
        """In order of joining; empty for an unknown, public or private channel."""
        room = self._rooms.get(name)
        return room.members() if room else ()

    def connections_of(self, name: str) -> dict[str, int]:
        """How many connections each member has in a presence channel, by user id; 0 for one who is held."""
        room = self._rooms.get(name)
        return {user_id: len(entry.connections) for user_id, entry in room.present.items()} if room else {}

    def counts(self) -> tuple[int, dict[str, int]]:
        """The sum of the channels' member counts, and the number of channels by type."""
        return count_channels(self._rooms.values())

    def _drop(self, room: _Room, entry: _Presence) -> Change | None:
        if entry.connections or entry.held:
            return None
        del room.present[entry.member.id]
        self._forget_if_empty(room)
        return Change("left", entry.member, entry.reason)

    def _forget_if_empty(self, room: _Room) -> None:
        if not room.connections and not room.present:
            del self._rooms[room.name]

    def _enter(
        self,
        room: _Room,
        client_id: str,
        user: User,
        info: Mapping[str, Any],
        now: datetime,
        owned: OwnedInfo,
    ) -> Change | None:
        entry = room.present.get(user.id)
        if entry is not None:
            return self._merge(entry, info, owned, now, JoinFailed)
        profile = Profile.of(user, info, owned)
        check_size(profile, self._max_info, JoinFailed)
        member = profile.member(client_id, now)
        assert member.json, "a member that cannot be encoded must not be let in"
        room.present[user.id] = _Presence(profile, member, set())
        return Change("joined", member)

    def _merge(
        self,
        entry: _Presence,
        info: Mapping[str, Any],
        owned: OwnedInfo | None,
        now: datetime,
        error: type[RequestError],
    ) -> Change | None:
        old, profile = entry.member, entry.profile.merged(info, owned)
        if info:
            check_size(profile, self._max_info, error)
        same = profile.looks_like(entry.profile)
        entry.profile = profile
        if same:
            return None
        entry.member = profile.member(old.client_id, old.joined_at, now)
        return Change("updated", entry.member)


def check_size(profile: Profile, max_info: int, error: type[RequestError]) -> None:
    """Raise `error` where what the user's clients have said is more than `max_info` bytes of JSON."""
    if info_size(profile.said) > max_info:
        raise error(f"The member's merged userInfo would be more than {max_info} bytes of JSON")
