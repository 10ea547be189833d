"""The roster: which connections are in which channel, and who is listed as a member.

Rule: an operation returns what it changed, and has changed nothing if it raises. A snapshot with all later changes
applied equals the roster. Nothing here does IO or reads a clock: callers pass `now`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from .channels import Channel, ChannelName, ChannelType, count_channels, matches
from .errors import JoinFailed, NotFound, NotMember, RequestError, UpdateFailed
from .events import Reason
from .history import NO_REPLAY, Replay, Replayed
from .members import NOTHING_OWNED, Member, OwnedInfo, Profile, User, info_size
from .pusher.names import came_by_pusher


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation did to a member list: a member joined, was updated, or left.

    `member` is the member after the change; if it left, its last state. `reason` is why its last connection left, if
    the member left and this is known.
    """

    kind: Literal["joined", "updated", "left"]
    member: Member
    reason: Reason | None = None


class Joiner(NamedTuple):
    """A connection that joins a channel. `info` is the part of its `userInfo` that a client may decide. `owned` is the
    guard's verdict, which replaces an earlier one; `None` if no guard was asked. `replay` says which earlier messages
    it asks for."""

    channel: ChannelName
    client_id: str
    user: User | None
    info: Mapping[str, Any] | None
    now: datetime
    owned: OwnedInfo | None = NOTHING_OWNED
    replay: Replay = NO_REPLAY


class Listed(Protocol):
    """A member, or what stands for one in a list that is only sent."""

    @property
    def json(self) -> msgspec.Raw:
        """The member as native clients see it."""

    @property
    def keyed_info(self) -> msgspec.Raw:
        """The member's id and what Pusher's clients see of them, as a pair of a JSON object."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The outcome of a join.

    `is_new` says whether the connection was not in the channel before. `change` is what others must be told. In a
    presence channel, `members` are all members after the join, in order of joining, and `me` is the one who joined. If
    the channel keeps messages, `replayed` is what the connection wanted to hear of them. `list_json` is the list as
    JSON, if it is known already.
    """

    is_new: bool
    change: Change | None = None
    members: Sequence[Listed] | None = None
    me: Listed | None = None
    replayed: Replayed | None = None
    list_json: msgspec.Raw | None = None


@dataclass(frozen=True, slots=True)
class Updated:
    """The outcome of an update: the member after it, and the change, if others see one."""

    member: Member
    change: Change | None


@dataclass(slots=True)
class _Entry:
    """A user in the list of a presence channel. If `in_grace`, the user stays listed without a connection."""

    profile: Profile
    member: Member
    connections: int = 0  # how many the user has in the channel
    in_grace: bool = False
    reason: Reason | None = None  # why the last connection left


@dataclass(slots=True)
class _ChannelState:
    """The connections in one channel and, in a presence channel, the list of its users."""

    name: ChannelName
    created_at: datetime
    connections: dict[str, str | None] = field(default_factory=dict)  # client id -> user id
    entries: dict[str, _Entry] = field(default_factory=dict)  # by user id, in order of joining
    type: ChannelType = "public"
    description: Channel | None = None  # cached, because long lists of channels are asked for often

    def __post_init__(self) -> None:
        self.type = self.name.type

    @property
    def member_count(self) -> int:
        return len(self.entries) if self.type == "presence" else len(self.connections)

    def describe(self) -> Channel:
        """The channel, without its members."""
        count = self.member_count
        if self.description is None or self.description.member_count != count:
            self.description = Channel(self.name, self.type, count, self.created_at)
        return self.description

    def members(self) -> tuple[Member, ...]:
        return tuple(entry.member for entry in self.entries.values())


class Roster:
    """The channels, the connections in them, and the members of the presence channels.

    `max_info` bounds a member's merged `userInfo`, in bytes of JSON. `max_members` bounds the members of a presence
    channel (`None`: no limit).
    """

    def __init__(self, max_info: int, max_members: int | None = None) -> None:
        self._max_info = max_info
        self._max_members = max_members
        self._channels: dict[str, _ChannelState] = {}

    def join(self, joiner: Joiner) -> Joined:
        """Put a connection into a channel. Joining again merges its `info` and changes nothing else. Raises
        `JoinFailed` if the merged `info` would be too large, or if there is no room for another member."""
        channel, client_id, user, now = joiner.channel, joiner.client_id, joiner.user, joiner.now
        state = self._channels.get(channel) or _ChannelState(channel, now)
        is_new = client_id not in state.connections
        if channel.type != "presence":
            self._channels[channel] = state
            state.connections[client_id] = user.id if user else None
            return Joined(is_new)
        if user is None:
            raise JoinFailed("A presence channel needs a user")
        change = self._list(state, user, joiner)
        self._channels[channel] = state
        entry = state.entries[user.id]
        entry.connections += state.connections.get(client_id) != user.id
        state.connections[client_id] = user.id
        entry.in_grace = False
        return Joined(is_new, change, state.members(), entry.member)

    def leave(
        self, channel: ChannelName, client_id: str, *, grace: bool = False, reason: Reason | None = None
    ) -> Change | None:
        """Take a connection out of `channel`. Returns the change, if the user is no longer listed.

        If this was the user's last connection, `grace` keeps the user listed until `end_grace`. Raises `NotFound` if
        there is no such channel, and `NotMember` if this connection is not in it.
        """
        state = self._channels.get(channel)
        if state is None:
            raise NotFound
        if client_id not in state.connections:
            raise NotMember
        user_id = state.connections.pop(client_id)
        if channel.type != "presence" or user_id is None:
            self._forget_if_empty(state)
            return None
        entry = state.entries[user_id]
        entry.connections -= 1
        entry.in_grace = entry.in_grace or (grace and not entry.connections)
        entry.reason = reason
        return self._drop_if_gone(state, entry)

    def end_grace(self, channel: ChannelName, user_id: str) -> Change | None:
        """End a user's grace period, if there is one. Returns the change, if the user is no longer listed."""
        state = self._channels.get(channel)
        entry = state.entries.get(user_id) if state else None
        if state is None or entry is None:
            return None
        entry.in_grace = False
        return self._drop_if_gone(state, entry)

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: OwnedInfo | None = None,
    ) -> Updated:
        """Merge `info` into the member that the connection belongs to.

        `owned` is the guard's verdict, if it was asked again; it replaces the earlier one. Raises `UpdateFailed` if
        there is no such channel, if it is not a presence channel, if the connection is not in it, or if the merged
        `info` would be too large.
        """
        state = self._channels.get(channel)
        if state is None:
            raise UpdateFailed("Channel not found")
        if channel.type != "presence":
            raise UpdateFailed("Not a presence channel")
        user_id = state.connections.get(client_id)
        if user_id is None:
            raise UpdateFailed("Not a member of this channel")
        entry = state.entries[user_id]
        change = self._merge(entry, info, owned, now, UpdateFailed)
        return Updated(entry.member, change)

    def profile(self, channel: str, client_id: str) -> Profile | None:
        """The profile of a connection's user in a presence channel. `None` if the connection is not in the channel, or
        if the channel is not a presence channel."""
        state = self._channels.get(channel)
        user_id = state.connections.get(client_id) if state is not None else None
        entry = state.entries.get(user_id) if state is not None and user_id is not None else None
        return None if entry is None else entry.profile

    def get(self, name: str) -> Channel | None:
        """The channel with its members, or `None` if nobody is in it."""
        state = self._channels.get(name)
        if state is None:
            return None
        return replace(state.describe(), members=state.members() if state.type == "presence" else None)

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> Iterator[Channel]:
        """The channels of a type with names that begin with `prefix` (`None`: any), oldest first, without members."""
        for state in self._channels.values():
            if matches(state.name, kind, prefix):
                yield state.describe()

    def members(self, name: str) -> tuple[Member, ...]:
        """The members in order of joining. Empty if the channel is unknown, public or private."""
        state = self._channels.get(name)
        return state.members() if state else ()

    def connections_of(self, name: str) -> dict[str, int]:
        """How many connections each member of a presence channel has, by user id; 0 during a grace period."""
        state = self._channels.get(name)
        return {user_id: entry.connections for user_id, entry in state.entries.items()} if state else {}

    def counts(self) -> tuple[int, dict[str, int]]:
        """Returns the sum of the channels' member counts, and the number of channels by type."""
        return count_channels(self._channels.values())

    def _drop_if_gone(self, state: _ChannelState, entry: _Entry) -> Change | None:
        """Take a user off the list if the user has neither a connection nor a grace period."""
        if entry.connections or entry.in_grace:
            return None
        del state.entries[entry.member.id]
        self._forget_if_empty(state)
        return Change("left", entry.member, entry.reason)

    def _forget_if_empty(self, state: _ChannelState) -> None:
        if not state.connections and not state.entries:
            del self._channels[state.name]

    def _list(self, state: _ChannelState, user: User, joiner: Joiner) -> Change | None:
        """List the user who joins or, if the user is listed already, merge the `info` into that entry."""
        entry, info = state.entries.get(user.id), joiner.info or {}
        if entry is not None:
            return self._merge(entry, info, joiner.owned, joiner.now, JoinFailed)
        if self._max_members is not None and len(state.entries) >= self._max_members:
            raise JoinFailed(full_message(self._max_members))
        profile = Profile.of(user, info, joiner.owned or NOTHING_OWNED)
        check_size(profile, self._max_info, JoinFailed)
        member = profile.member(joiner.client_id, joiner.now)
        assert member.json, "the member can be encoded"  # if not, this raises before anything has changed
        state.entries[user.id] = _Entry(profile, member)
        return Change("joined", member)

    def _merge(
        self,
        entry: _Entry,
        info: Mapping[str, Any],
        owned: OwnedInfo | None,
        now: datetime,
        error: type[RequestError],
    ) -> Change | None:
        old, profile = entry.member, entry.profile.merged(info, owned)
        if info:
            check_size(profile, self._max_info, error)
        looks_same = profile.looks_like(entry.profile, hidden=came_by_pusher(old.client_id))
        entry.profile = profile
        if looks_same:
            return None
        entry.member = profile.member(old.client_id, old.joined_at, now)
        return Change("updated", entry.member)


def full_message(max_members: int) -> str:
    """The message for a user who cannot join because the presence channel is full."""
    return f"The channel is full: it has {max_members} members, which is the maximum"


def check_size(profile: Profile, max_info: int, error: type[RequestError]) -> None:
    """Raise `error` if the `userInfo` of the user's clients is more than `max_info` bytes of JSON."""
    if info_size(profile.client_info) > max_info:
        raise error(f"The member's merged userInfo would be more than {max_info} bytes of JSON")
