"""What is done to a channel, as scripts to call and what to make of their answers.

Rule: sans IO. Outcomes and errors are those of `domain.roster.Roster`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeVar

from ....domain.channels import Channel, ChannelName
from ....domain.errors import BackendUnavailable, JoinFailed, NotFound, NotMember, UpdateFailed
from ....domain.events import Reason
from ....domain.members import NOTHING, Member, User, info_size
from ....domain.roster import Change
from .calls import CHUNK, NOWHERE, Call, Lost, Operation, Placed, Position, Refused, pairs, position_of
from .entries import Entry, Merged, encode, encode_owner, merged_document, new_document, parse_entry
from .grace import hold_notes, hold_place
from .keys import Keys, escape, unescape

T = TypeVar("T")

MAX_TRIES: Final = 20
"""How often somebody else may be faster at changing the same member."""


@dataclass(frozen=True, slots=True)
class Entered:
    """A join: what it changed, and the list after it where that was wanted. `entry` is the joiner's."""

    change: Change | None
    entry: Entry | None
    entries: Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A channel at one place in its order; `created_at` is `None` where nobody is in it."""

    created_at: datetime | None
    connections: int
    listed: int
    entries: Mapping[str, Entry]

    @property
    def members(self) -> tuple[Member, ...]:
        """In order of joining."""
        return tuple(entry.member for entry in sorted(self.entries.values(), key=lambda entry: entry.place))

    def channel(self, name: str) -> Channel | None:
        """What the server's own code is told; `None` where nobody is in it."""
        if self.created_at is None:
            return None
        channel = ChannelName(name)
        listed = channel.type == "presence"
        count = self.listed if listed else self.connections
        return Channel(channel, channel.type, count, self.created_at, self.members if listed else None)


@dataclass(frozen=True, slots=True)
class Healed:
    """The list after a heal, and what became of the users of connections that Redis should not have known of."""

    entries: Mapping[str, Entry]
    left: Mapping[str, Change]


@dataclass(frozen=True, slots=True)
class Holder:
    """A connection of this node in a channel, and the entry of its user (where users are listed)."""

    client_id: str
    user: str = ""
    entry: Entry | None = None


class Gone(NamedTuple):
    """How a connection left a channel: whose it was, where users are listed, for how many seconds they are held, and
    why ('': not known)."""

    user: User | None = None
    hold: float = 0
    reason: Reason | Literal[""] = ""


class Operations:
    """The operations of one node under one prefix. `max_info` bounds a member's merged `userInfo`, in bytes.

    `known` is the newest place in the channel's order that the caller has seen.
    """

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
        *,
        owned: Mapping[str, Any] = NOTHING,
        with_list: bool = True,
    ) -> Operation[Placed[Entered]]:
        """As `Roster.join`."""
        listed = channel.type == "presence"
        if listed and user is None:
            raise JoinFailed("A presence channel needs a user")
        new = new_document(user, client_id, info or {}, owned, now) if listed and user is not None else None
        too_large = new is not None and info_size(new.info) > self._max_info
        whose = escape(user.id) if listed and user is not None else ""
        version, merged = "" if info or owned else "-", Merged(None, visible=False)
        for _ in range(MAX_TRIES):
            (*_, reply) = yield self._indexed(
                channel,
                "join",
                (
                    *(self._keys.topic(channel), str(known.epoch), self._node, client_id, whose, now.isoformat()),
                    *(b"" if too_large else encode(new), version, encode(merged.document), "1" if with_list else ""),
                ),
            )
            if reply[0] == b"large":
                raise JoinFailed(self._too_large)
            if reply[0] == b"ok":
                kind, entry = reply[3].decode(), parse_entry(reply[4]) if listed else None
                visible = kind == "joined" or (kind == "updated" and merged.visible)
                change = Change(kind, entry.member) if visible and entry else None
                return Placed(position_of(reply[1:]), Entered(change, entry, _entries(reply[5])))
            entry = parse_entry(reply[1])
            version = str(entry.version)
            merged = merged_document(entry.document, info or {}, owned, now, self._max_info, JoinFailed)
        raise BackendUnavailable("too many are changing the same member")

    def leave(
        self,
        channel: ChannelName,
        client_id: str,
        gone: Gone = Gone(),  # noqa: B008 (immutable)
        known: Position = NOWHERE,
    ) -> Operation[Placed[Change | None]]:
        """As `Roster.leave`; the user is held, unless Redis has no room to write that down."""
        user, hold, reason = gone
        until, again = "", list[Call]()
        if hold and user is not None:
            place, names = hold_place(channel, escape(user.id), client_id), (self._keys.holds, self._keys.holders)
            try:
                (end,) = yield Call("hold", names, (place, str(int(hold * 1000)), encode_owner(user)))
                until = end.decode()
                # Once more behind it: somebody may let the user go before the hold has begun.
                again = hold_notes(self._keys, place, until, user)
            except Refused:
                until = ""
        keys = (*self._keys.channel(channel), self._keys.own(channel, self._node))
        leave = Call("leave", keys, (self._keys.topic(channel), str(known.epoch), client_id, until, reason))
        reply, *_ = yield [leave, *again]
        if reply[0] == b"not_found":
            raise NotFound
        if reply[0] == b"not_member":
            raise NotMember
        change = Change("left", parse_entry(reply[3]).member, reason or None) if reply[3] else None
        return Placed(position_of(reply[1:]), change)

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        known: Position = NOWHERE,
        *,
        owned: Mapping[str, Any] | None = None,
        sure: bool = False,
    ) -> Operation[Placed[tuple[Entry, Change | None]]]:
        """As `Roster.update`; `Lost` where the caller is `sure` that the connection is in the channel."""
        version, merged = "", Merged(None, visible=False)
        for _ in range(MAX_TRIES):
            but = client_id if owned is None else ""  # who asked for nothing hears of it like the others
            arguments = (self._keys.topic(channel), str(known.epoch), client_id, version, encode(merged.document), but)
            reply = yield Call("update", self._keys.channel(channel), arguments)
            outcome = reply[0].decode()
            if sure and outcome.startswith("not_"):
                raise Lost
            if outcome == "not_found":
                raise UpdateFailed("Channel not found")
            if channel.type != "presence":
                raise UpdateFailed("Not a presence channel")
            if outcome != "ok" and outcome != "merge":
                raise UpdateFailed("Not a member of this channel")
            entry = parse_entry(reply[3] if outcome == "ok" else reply[1])
            if outcome == "ok":
                change = Change("updated", entry.member) if reply[4] and merged.visible else None
                return Placed(position_of(reply[1:]), (entry, change))
            version = str(entry.version)
            merged = merged_document(entry.document, info, owned, now, self._max_info, UpdateFailed)
        raise BackendUnavailable("too many are changing the same member")

    def publish(
        self, channel: str, message: bytes, exclude: str | None, known: Position = NOWHERE
    ) -> Operation[Placed[int]]:
        """Send a message to all connections in the channel but `exclude`; how many they are.

        `Lost` where the channel is not the one in whose order `known` is; then nothing is sent.
        """
        arguments = (self._keys.topic(channel), str(known.epoch), exclude or "", message)
        reply = yield Call("publish", self._keys.channel(channel), arguments)
        if len(reply) == 1:
            raise Lost
        return Placed(position_of(reply), int(reply[2]))

    def snapshot(self, channel: str) -> Operation[Placed[Snapshot]]:
        """The channel as it is."""
        reply = yield Call("snapshot", self._keys.channel(channel))
        created_at = datetime.fromisoformat(reply[2].decode()) if reply[2] else None
        return Placed(position_of(reply), Snapshot(created_at, int(reply[3]), int(reply[4]), _entries(reply[5])))

    def connections_of(self, channel: str) -> Operation[dict[str, int]]:
        """How many connections each member has, by user id; 0 for one who is held."""
        _, members, connections, *_ = self._keys.channel(channel)
        listed, whose = yield [Call("HKEYS", (members,)), Call("HVALS", (connections,))]
        counts = {user.decode(): 0 for user in listed}
        for value in whose:
            user = value.partition(b"\0")[0].decode()
            if user in counts:
                counts[user] += 1
        return {unescape(user): count for user, count in counts.items()}

    def entered(self) -> Operation[list[str]]:
        """The channels in which the node may have connections."""
        return [name.decode() for name in (yield Call("SMEMBERS", (self._keys.index(self._node),)))]

    def exit(self, channel: str) -> Operation[None]:
        """Write down that the node has no connections in `channel`, if it has none."""
        yield Call("exit", (self._keys.own(channel, self._node), self._keys.index(self._node)), (channel,))

    def heal(
        self,
        channel: ChannelName,
        holders: Callable[[], list[Holder]],
        expected: Callable[[], Container[str]],
        gone: Mapping[str, Gone],
        known: Position,
        now: datetime,
    ) -> Operation[Placed[Healed]]:
        """Make Redis know of the node's connections in `channel` again, and of no others; the channel after that.

        `holders` are in it for sure, `expected` are these and those who are just coming. They are asked for again
        after each step, as connections come and go meanwhile. `gone` are those of whom it is known how they left.
        """
        mine = holders()
        noted: list[bytes] = []
        for at in range(0, max(1, len(mine)), CHUNK):
            still = expected()
            back = [holder for holder in mine[at : at + CHUNK] if holder.client_id in still]
            (*_, noted) = yield self._restore(channel, back, known, now)
        left: dict[str, Change] = {}
        for client in noted:
            if client.decode() not in expected():
                how = gone.get(client.decode(), Gone())
                try:
                    placed = yield from self.leave(channel, client.decode(), how, known)
                except (NotFound, NotMember):
                    continue
                if placed.value is not None:
                    left[client.decode()] = placed.value
        snapshot = yield from self.snapshot(channel)
        return Placed(snapshot.position, Healed(snapshot.value.entries, left))

    def look(self, channel: str) -> Operation[Placed[int]]:
        """Where the channel stands, and how many connections the node has in it."""
        reply = yield Call("look", (*self._keys.channel(channel), self._keys.own(channel, self._node)))
        return Placed(position_of(reply), int(reply[2]))

    def _restore(self, channel: ChannelName, holders: list[Holder], known: Position, now: datetime) -> list[Call]:
        arguments: list[str | bytes] = [self._keys.topic(channel), str(known.epoch), str(known.number)]
        arguments += [now.isoformat(), self._node]
        for holder in holders:
            place, document = ("", b"") if holder.entry is None else (str(holder.entry.place), holder.entry.raw)
            arguments += [holder.client_id, holder.user, place, document]
        return self._indexed(channel, "restore", tuple(arguments))

    def _indexed(self, channel: ChannelName, script: str, arguments: tuple[str | bytes, ...]) -> list[Call]:
        """A script that gives the node connections in `channel`, after what reapers need to find these by. That is
        written anew each time, as Redis may have lost it a moment ago, and the node be killed in the next."""
        return [
            Call("SADD", (self._keys.nodes,), (self._node,)),
            Call("SADD", (self._keys.index(self._node),), (channel,)),
            Call(script, (*self._keys.channel(channel), self._keys.own(channel, self._node)), arguments),
        ]

    @property
    def _too_large(self) -> str:
        return f"The member's merged userInfo would be more than {self._max_info} bytes of JSON"


def _entries(flat: list[bytes]) -> dict[str, Entry]:
    return {user.decode(): parse_entry(entry) for user, entry in pairs(flat)}
