"""What is done to a channel, as scripts to call and what to make of their answers.

Law: sans IO. An operation yields calls, is sent their replies, and returns what has happened; whoever drives it
may do so at once or in a pipeline. Outcomes and errors are those of `domain.roster.Roster`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ...domain.channels import ChannelName
from ...domain.errors import BackendUnavailable, JoinFailed, NotFound, NotMember, UpdateFailed
from ...domain.members import User, info_size
from ...domain.roster import Change, Joined, Updated
from .documents import Entry, encode, merged_document, new_document, parse_entry
from .keys import Keys, escape

T = TypeVar("T")

MAX_TRIES: Final = 20
"""How often somebody else may be faster at changing the same member."""


class Position(NamedTuple):
    """A place in a channel's order. Epochs grow; within one, every event has the next number."""

    epoch: int
    number: int


NOWHERE: Final = Position(0, 0)


class Call(NamedTuple):
    """A script, by its name, with its keys and arguments."""

    script: str
    keys: tuple[str, ...]
    arguments: tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """What has happened, and after which event of the channel."""

    position: Position
    value: T


Operation = Generator[Call, list[Any], T]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A channel at one place in its order; `entries` in order of joining."""

    created_at: datetime | None
    connections: int
    entries: tuple[Entry, ...]


class Operations:
    """The operations of one node under one prefix. `max_info` bounds a member's merged `userInfo`, in bytes."""

    def __init__(self, keys: Keys, node: str, max_info: int) -> None:
        self._keys = keys
        self._node = node
        self._max_info = max_info

    def join(
        self,
        channel: ChannelName,
        client_id: str,
        user: User | None,
        info: Mapping[str, Any] | None,
        now: datetime,
        known: Position = NOWHERE,
    ) -> Operation[Placed[Joined]]:
        """As `Roster.join`."""
        listed = channel.type == "presence"
        if listed and user is None:
            raise JoinFailed("A presence channel needs a user")
        new = new_document(user, client_id, info or {}, now) if listed and user is not None else None
        too_large = new is not None and info_size(new.info) > self._max_info
        whose = escape(user.id) if listed and user is not None else ""
        version, merged = ("", None) if info else ("-", None)
        for _ in range(MAX_TRIES):
            reply = yield Call(
                "join",
                (*self._keys.channel(channel), self._keys.own(channel, self._node)),
                (
                    *(self._keys.topic(channel), str(known.epoch), self._node, client_id, whose, now.isoformat()),
                    *(b"" if too_large else encode(new), version, encode(merged)),
                ),
            )
            if reply[0] == b"large":
                raise JoinFailed(self._too_large)
            if reply[0] == b"ok":
                return self._joined(reply, listed)
            entry = parse_entry(reply[1])
            version = str(entry.version)
            merged = merged_document(entry.document, info or {}, now, self._max_info, JoinFailed)
        raise BackendUnavailable("too many are changing the same member")

    def leave(
        self, channel: ChannelName, client_id: str, held_until: datetime | None = None, known: Position = NOWHERE
    ) -> Operation[Placed[Change | None]]:
        """As `Roster.leave`."""
        keys = (*self._keys.channel(channel), self._keys.own(channel, self._node))
        until = held_until.isoformat() if held_until else ""
        reply = yield Call("leave", keys, (self._keys.topic(channel), str(known.epoch), client_id, until))
        if reply[0] == b"not_found":
            raise NotFound
        if reply[0] == b"not_member":
            raise NotMember
        return _left(reply)

    def release(
        self, channel: ChannelName, user_id: str, known: Position = NOWHERE
    ) -> Operation[Placed[Change | None]]:
        """As `Roster.release`."""
        arguments = (self._keys.topic(channel), str(known.epoch), escape(user_id))
        return _left((yield Call("release", self._keys.channel(channel), arguments)))

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        known: Position = NOWHERE,
    ) -> Operation[Placed[Updated]]:
        """As `Roster.update`."""
        version, merged = "", None
        for _ in range(MAX_TRIES):
            arguments = (self._keys.topic(channel), str(known.epoch), client_id, version, encode(merged))
            reply = yield Call("update", self._keys.channel(channel), arguments)
            outcome = reply[0].decode()
            if outcome == "not_found":
                raise UpdateFailed("Channel not found")
            if channel.type != "presence":
                raise UpdateFailed("Not a presence channel")
            if outcome != "ok" and outcome != "merge":
                raise UpdateFailed("Not a member of this channel")
            entry = parse_entry(reply[3] if outcome == "ok" else reply[1])
            if outcome == "ok":
                member = entry.member
                return Placed(_position(reply[1:]), Updated(member, Change("updated", member) if reply[4] else None))
            version = str(entry.version)
            merged = merged_document(entry.document, info, now, self._max_info, UpdateFailed)
        raise BackendUnavailable("too many are changing the same member")

    def publish(
        self, channel: str, message: bytes, exclude: str | None, known: Position = NOWHERE
    ) -> Operation[Placed[int]]:
        """Send a message to all connections in the channel but `exclude`; how many they are."""
        arguments = (self._keys.topic(channel), str(known.epoch), exclude or "", message)
        reply = yield Call("publish", self._keys.channel(channel), arguments)
        return Placed(_position(reply), int(reply[2]))

    def snapshot(self, channel: str) -> Operation[Placed[Snapshot]]:
        """The channel as it is; `created_at` is `None` where nobody is in it."""
        reply = yield Call("snapshot", self._keys.channel(channel), ())
        created_at = datetime.fromisoformat(reply[2].decode()) if reply[2] else None
        return Placed(_position(reply), Snapshot(created_at, int(reply[3]), _in_order(reply[4])))

    @property
    def _too_large(self) -> str:
        return f"The member's merged userInfo would be more than {self._max_info} bytes of JSON"

    def _joined(self, reply: list[Any], listed: bool) -> Placed[Joined]:
        fresh, kind = bool(reply[3]), reply[4].decode()
        if not listed:
            return Placed(_position(reply[1:]), Joined(fresh))
        me = parse_entry(reply[5]).member
        members = tuple(entry.member for entry in _in_order(reply[6]))
        change = Change(kind, me) if kind else None
        return Placed(_position(reply[1:]), Joined(fresh, change, members, me))


def _left(reply: list[Any]) -> Placed[Change | None]:
    change = Change("left", parse_entry(reply[3]).member) if reply[3] else None
    return Placed(_position(reply[1:]), change)


def _position(reply: list[Any]) -> Position:
    return Position(int(reply[0] or 0), int(reply[1]))


def _in_order(values: list[bytes]) -> tuple[Entry, ...]:
    return tuple(sorted(map(parse_entry, values), key=lambda entry: entry.place))
