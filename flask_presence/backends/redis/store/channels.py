"""What happens to a channel in Redis: joins, leaves, updates, messages, snapshots and heals.

Rule: sans IO. Outcomes and errors are those of `domain.roster.Roster`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeVar

from ....domain.channels import Channel, ChannelName
from ....domain.errors import BackendUnavailable, JoinFailed, NotFound, NotMember, UpdateFailed
from ....domain.events import Reason
from ....domain.history import Position
from ....domain.members import NOTHING_OWNED, Member, OwnedInfo, User, info_size
from ....domain.roster import Change, Joiner, full_message
from .calls import CHUNK, NOWHERE, Call, Lost, Operation, Placed, Refused, pairs, position_of
from .entries import Entry, Listing, Merged, encode, merged_document, new_document, parse_entry
from .grace import Graces
from .keys import Keys, escape, unescape

T = TypeVar("T")

WHOLE: Final = 500
"""The maximum number of members that Redis returns in one step. Longer lists are read in slices."""
SLICE: Final = 200
"""About how many members are read at a time from a longer list, so that neither Redis nor the loop stands still."""
MAX_TRIES: Final = 20
"""How often an operation is tried while others change the same member."""


@dataclass(frozen=True, slots=True)
class Entered:
    """A join: what it changed, the entry of the user who joined, and the list after it, if that was wanted."""

    change: Change | None
    entry: Entry | None
    entries: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A channel at one place in its order. `created_at` is `None` if nobody is in it. `listed` counts its members.

    If the list was `sliced`, reading it took a while. It then has everybody who has been a member since that place, and
    may have changes that came later.
    """

    created_at: datetime | None
    connections: int
    listed: int
    entries: dict[str, Entry]
    sliced: bool = False

    def members(self) -> Iterator[Member]:
        """In order of joining. Each is decoded when it is asked for, because there may be many."""
        return (entry.member for entry in sorted(self.entries.values(), key=lambda entry: entry.place))

    def channel(self, name: str, members: Iterable[Member]) -> Channel | None:
        """What the application sees, given the members; `None` if nobody is in it."""
        if self.created_at is None:
            return None
        channel = ChannelName(name)
        listed = channel.type == "presence"
        count = self.listed if listed else self.connections
        return Channel(channel, channel.type, count, self.created_at, tuple(members) if listed else None)


@dataclass(frozen=True, slots=True)
class Healed:
    """The channel after a heal; `None` if its list was not wanted. `left` are the users who left because their
    connections were gone, by client id. `writes_lost`: Redis has lost changes of the channel that the worker knows."""

    snapshot: Snapshot | None
    left: Mapping[str, Change]
    writes_lost: bool


@dataclass(frozen=True, slots=True)
class LiveConnection:
    """A connection of this worker in a channel, and its user's entry, if the channel lists users."""

    client_id: str
    user: str = ""
    entry: Entry | None = None


class Departure(NamedTuple):
    """How a connection leaves a channel: its user, if the channel lists users; the user's grace period, in seconds; and
    why, if that is known."""

    user: User | None = None
    grace: float = 0
    reason: Reason | Literal[""] = ""


class ChannelOperations:
    """The operations of one worker. `max_info` bounds a member's merged `userInfo`, in bytes of JSON, and
    `max_members` the members of a presence channel (`None`: no limit).

    In all of them, `known` is the newest place in the channel's order that the caller has seen.
    """

    def __init__(self, keys: Keys, graces: Graces, worker_id: str, max_info: int, max_members: int | None) -> None:
        self._keys = keys
        self._graces = graces
        self._worker_id = worker_id
        self._max_info = max_info
        self._max_members = max_members

    def join(self, joiner: Joiner, known: Position = NOWHERE, *, with_list: bool = True) -> Operation[Placed[Entered]]:
        """Like `Roster.join`. A list of more than `WHOLE` members is not returned."""
        channel, client_id, user, now, owned = *joiner[:3], joiner.now, joiner.owned
        listed, info = channel.type == "presence", joiner.info or {}
        if listed and user is None:
            raise JoinFailed("A presence channel needs a user")
        new = new_document(user, client_id, info, owned or NOTHING_OWNED, now) if listed and user is not None else None
        user_key = escape(user.id) if listed and user is not None else ""
        first = (self._keys.topic(channel), str(known.epoch), self._worker_id, client_id, user_key, now.isoformat())
        too_large = new is not None and info_size(new.info) > self._max_info
        as_new = b"" if too_large else encode(new)
        last = (str(WHOLE if with_list else 0), "" if self._max_members is None else str(self._max_members))
        has_nothing = not (info or (owned is not None and owned.info))
        version, merged = "-" if has_nothing else "", Merged(None, visible=False)
        for _ in range(MAX_TRIES):
            arguments = (*first, as_new, version, encode(merged.document), *last)
            (*_, reply) = yield self._indexed(channel, "join", arguments)
            if reply[0] == b"full":
                raise JoinFailed(full_message(self._max_members or 0))
            if reply[0] == b"large":
                raise JoinFailed(self._too_large)
            if reply[0] == b"ok":
                kind, entry = reply[3].decode(), parse_entry(reply[4]) if listed else None
                visible = kind == "joined" or (kind == "updated" and merged.visible)
                change = Change(kind, entry.member) if visible and entry else None
                return Placed(position_of(reply[1:]), Entered(change, entry, _entries(reply[5])))
            entry = parse_entry(reply[1])
            version = str(entry.version)
            merged = merged_document(entry.document, info, owned, now, self._max_info, JoinFailed)
        raise BackendUnavailable("too many clients are changing the same member")

    def leave(
        self,
        channel: ChannelName,
        client_id: str,
        departure: Departure = Departure(),  # noqa: B008 (immutable)
        known: Position = NOWHERE,
    ) -> Operation[Placed[Change | None]]:
        """Like `Roster.leave`. The user gets the departure's grace period, unless Redis has no memory left to note
        it."""
        user, seconds, reason = departure
        grace_end, again = "", list[Call]()
        if seconds and user is not None:
            try:
                grace, grace_end = yield from self._graces.begin(channel, client_id, user, seconds)
                # Once more after the leave, because somebody may end the grace period before the leave begins it.
                again = self._graces.note(grace, grace_end, user)
            except Refused:
                grace_end = ""
        keys = (*self._keys.channel(channel), self._keys.own(channel, self._worker_id))
        leave = Call("leave", keys, (self._keys.topic(channel), str(known.epoch), client_id, grace_end, reason))
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
        owned: OwnedInfo | None = None,
        is_member: bool = False,
    ) -> Operation[Placed[tuple[Entry, Change | None]]]:
        """Like `Roster.update`. Raises `Lost` if the connection `is_member`, as the caller knows, and Redis
        does not know it."""
        has_nothing = owned is not None and not (info or owned.info)
        version, merged = "-" if has_nothing else "", Merged(None, visible=False)
        exclude = client_id if owned is None else ""  # the client did not ask for a change of owned info
        reserve_for = "" if owned is None else secrets.token_urlsafe(6)  # or the server's change might never win
        for _ in range(MAX_TRIES):
            arguments = (
                *(self._keys.topic(channel), str(known.epoch), client_id, version, encode(merged.document)),
                *(exclude, reserve_for),
            )
            reply = yield Call("update", self._keys.channel(channel), arguments)
            outcome = reply[0].decode()
            if is_member and outcome.startswith("not_"):
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
        raise BackendUnavailable("too many clients are changing the same member")

    def publish(
        self, channel: str, message: bytes, exclude: str | None, known: Position = NOWHERE
    ) -> Operation[Placed[int]]:
        """Send a message to all connections in the channel except `exclude`. Returns how many.

        Raises `Lost`, and sends nothing, if Redis has lost the channel in which `known` was a position.
        """
        arguments = (self._keys.topic(channel), str(known.epoch), exclude or "", message)
        reply = yield Call("publish", self._keys.channel(channel), arguments)
        if len(reply) == 1:
            raise Lost
        return Placed(position_of(reply), int(reply[2]))

    def snapshot(self, channel: str) -> Operation[Placed[Snapshot]]:
        """The channel as it is."""
        for _ in range(MAX_TRIES):
            try:
                read = yield from self._read(channel)
            except Lost:
                continue
            assert read.value is not None, "the list is wanted"
            return Placed(read.position, read.value)
        raise BackendUnavailable("Redis keeps losing its data")

    def connections_of(self, channel: str) -> Operation[dict[str, int]]:
        """How many connections each member has, by user id; 0 during a grace period."""
        _, members, connections, *_ = self._keys.channel(channel)
        users, connected = yield [Call("HKEYS", (members,)), Call("HVALS", (connections,))]
        counts = {user.decode(): 0 for user in users}
        for value in connected:
            user = value.partition(b"\0")[0].decode()
            if user in counts:
                counts[user] += 1
        return {unescape(user): count for user, count in counts.items()}

    def unindex(self, channel: str) -> Operation[None]:
        """Take the channel off the list of the worker's channels, if the worker has no connections in it."""
        names = (self._keys.own(channel, self._worker_id), self._keys.worker_channels(self._worker_id))
        yield Call("unindex", names, (channel,))

    def heal(
        self,
        channel: ChannelName,
        live_connections: Callable[[], list[LiveConnection]],
        possible: Callable[[], Container[str]],
        leaving: Container[str],
        departures: Mapping[str, Departure],
        known: Position,
        now: datetime,
        wants_list: Callable[[Position], bool] = lambda _: True,
        progressed: Callable[[], object] = lambda: None,
    ) -> Operation[Placed[Healed]]:
        """Make Redis list exactly the worker's connections in `channel`. Returns the channel after that.

        `live_connections` are in the channel for certain; `possible` are these and those that are joining. Both are
        asked for again after each step, because connections come and go meanwhile. Those that are `leaving` are taken
        out by operations of their own. `departures` tells how connections left, as far as that is known. A long list is
        read only if it `wants_list`, given the channel's position. `progressed` is called after each step.
        """
        left: dict[str, Change] = {}
        writes_lost = False
        for _ in range(MAX_TRIES):
            is_older, stored = yield from self._restore_all(channel, live_connections, possible, known, now, progressed)
            writes_lost = writes_lost or is_older
            present = possible()  # once for all, because it may be large
            for client in [client.decode() for client in stored if client.decode() not in present]:
                if client not in possible() and client not in leaving:
                    try:
                        placed = yield from self.leave(channel, client, departures.get(client, Departure()), known)
                    except (NotFound, NotMember):
                        continue
                    finally:
                        progressed()
                    if placed.value is not None:
                        left[client] = placed.value
            try:
                read = yield from self._read(channel, wants_list, progressed)
            except Lost:
                continue
            return Placed(read.position, Healed(read.value, left, writes_lost))
        raise BackendUnavailable("Redis keeps losing its data")

    def position(self, channel: str) -> Operation[Placed[int]]:
        """Where the channel stands, and how many connections the worker has in it."""
        names = (*self._keys.channel(channel), self._keys.own(channel, self._worker_id))
        reply = yield Call("position", names)
        return Placed(position_of(reply), int(reply[2]))

    def _read(
        self,
        channel: str,
        wants_list: Callable[[Position], bool] = lambda _: True,
        progressed: Callable[[], object] = lambda: None,
    ) -> Operation[Placed[Snapshot | None]]:
        """The channel; `None` if its list is long and not wanted. Raises `Lost` if Redis loses it meanwhile."""
        reply = yield Call("snapshot", self._keys.channel(channel), (str(WHOLE),))
        position, created_at = position_of(reply), datetime.fromisoformat(reply[2].decode()) if reply[2] else None
        connections, listed, flat = int(reply[3]), int(reply[4]), reply[5]
        if flat is not None:
            return Placed(position, Snapshot(created_at, connections, listed, _entries(flat)))
        if not wants_list(position):
            return Placed(position, None)
        entries = yield from self._scan(channel, progressed)
        # Without the data of that epoch the last slices are empty, and no event says so.
        state, *_ = self._keys.channel(channel)
        epoch = yield Call("HGET", (state,), ("e",))
        if int(epoch or 0) != position.epoch:
            raise Lost
        return Placed(position, Snapshot(created_at, connections, listed, entries, sliced=True))

    def _scan(self, channel: str, progressed: Callable[[], object]) -> Operation[dict[str, Entry]]:
        """The entries of a long list, in order of joining."""
        _, members, *_ = self._keys.channel(channel)
        versions: dict[bytes, int] = {}
        listing, cursor = Listing(), b"0"
        while True:
            cursor, flat = yield Call("HSCAN", (members,), (cursor, "COUNT", str(SLICE)))
            found = []
            for user, value in pairs(flat):
                entry = parse_entry(value)
                if versions.get(user, -1) < entry.version:  # HSCAN may return a member twice
                    versions[user] = entry.version
                    found.append((user.decode(), entry))
            listing.add(found)
            progressed()
            if cursor == b"0":
                break
        while listing.merge():
            yield Call("PING", ())  # so that others get their turn
        return listing.entries()

    def _restore_all(
        self,
        channel: ChannelName,
        live_connections: Callable[[], list[LiveConnection]],
        possible: Callable[[], Container[str]],
        known: Position,
        now: datetime,
        progressed: Callable[[], object],
    ) -> Operation[tuple[bool, list[bytes]]]:
        """Bring back the worker's connections. Returns whether Redis has lost changes of the channel that the worker
        knows, and the connections of the worker that Redis then has."""
        live = live_connections()
        stored: list[bytes] = []
        writes_lost = False
        for at in range(0, max(1, len(live)), CHUNK):
            still = possible()
            back = [connection for connection in live[at : at + CHUNK] if connection.client_id in still]
            is_last = at + CHUNK >= len(live)
            (*_, (is_older, *stored)) = yield self._restore(channel, back, known, now, with_stored=is_last)
            writes_lost = writes_lost or is_older == 1
            progressed()
        return writes_lost, stored

    def _restore(
        self,
        channel: ChannelName,
        connections: list[LiveConnection],
        known: Position,
        now: datetime,
        *,
        with_stored: bool,
    ) -> list[Call]:
        arguments: list[str | bytes] = [self._keys.topic(channel), str(known.epoch), str(known.number)]
        arguments += [now.isoformat(), self._worker_id, "1" if with_stored else ""]
        for connection in connections:
            place, document = (
                ("", b"") if connection.entry is None else (str(connection.entry.place), connection.entry.raw)
            )
            arguments += [connection.client_id, connection.user, place, document]
        return self._indexed(channel, "restore", tuple(arguments))

    def _indexed(self, channel: ChannelName, script: str, arguments: tuple[str | bytes, ...]) -> list[Call]:
        """The call of a script that adds connections of the worker to `channel`, after calls that record where these
        are, so that other workers find them if the worker dies. The records are written every time, because Redis may
        just have lost them, and the worker may be killed at any moment."""
        return [
            Call("SADD", (self._keys.workers,), (self._worker_id,)),
            Call("SADD", (self._keys.worker_channels(self._worker_id),), (channel,)),
            Call(script, (*self._keys.channel(channel), self._keys.own(channel, self._worker_id)), arguments),
        ]

    @property
    def _too_large(self) -> str:
        return f"The member's merged userInfo would be more than {self._max_info} bytes of JSON"


def _entries(flat: list[bytes]) -> dict[str, Entry]:
    return {user.decode(): parse_entry(entry) for user, entry in pairs(flat)}
