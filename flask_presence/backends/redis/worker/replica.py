"""One worker's copy of one channel, kept up to date by the events that Redis publishes.

Rule: sans IO. Every event is applied once and in order, or the copy is behind until a snapshot is loaded. Whatever
waits for a place in the order happens in the very step in which the copy reaches it. A user with a connection here has
not left, whatever is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, Literal, NamedTuple, TypeVar

from msgspec import Raw

from ....domain.errors import BackendUnavailable
from ....domain.events import Reason
from ....domain.history import KeptMessage, Position, Tail
from ....domain.members import Member
from ....loops.pending import Pending, raising
from ..store.calls import NOWHERE, Placed
from ..store.entries import Entry, ListJson, parse_entry
from ..store.events import Event
from .health import Health

T = TypeVar("T")

_OF_MEMBERS: Final = ("joined", "updated", "left")


class ReplicaEvent(NamedTuple):
    """What the connections in the channel must be told: a change to the list (`member`), or a message."""

    kind: Literal["joined", "updated", "left", "message"]
    client: str
    member: Member | None = None
    message: bytes = b""
    reason: Reason | None = None


class Replica:
    """The member list of one channel at one place in its order.

    `tell` is called for every event, in order. `is_here` says whether a user has a connection to this worker in the
    channel. If the channel keeps messages, `tail` has the newest of them.
    """

    def __init__(
        self, tell: Callable[[ReplicaEvent], object], is_here: Callable[[str], bool], tail: Tail | None = None
    ) -> None:
        self.tail = tail
        self.position = NOWHERE
        self.health = Health()
        self._tell = tell
        self._is_here = is_here
        self._paused = 0
        self._expected = NOWHERE
        self._entries: dict[str, Entry] = {}
        self._in_order = True
        self._early: list[Event] = []
        self._waiting: list[tuple[Position, int, Pending[None]]] = []  # a heap; the number breaks ties
        self._waited = 0
        self._waking = False
        self._list = ListJson()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """By user, in order of joining."""
        if not self._in_order:
            self._entries = dict(sorted(self._entries.items(), key=lambda item: item[1].place))
            self._in_order = True
        return self._entries

    def list_json(self) -> Raw:
        """The list as JSON. While others wait for their places it is kept, because they will probably need it too."""
        known = self._list.get(self.entries.values())
        if not self._waiting and not self._waking:
            self._list.forget()
        return known

    def hear(self, event: Event) -> None:
        """Apply an event now, or after the snapshot or the reply that has to be handled first."""
        if self.health.is_current and not self._paused:
            self._advance(event)
        elif event.position > (self._early[-1].position if self._early else self.position):
            self._early.append(event)

    def pause(self) -> None:
        """Apply no events: a reply is on its way that has its own place in the order."""
        self._paused += 1

    def resume(self) -> None:
        """Undo one `pause`, because its reply has been handled. Once all are undone, apply events again."""
        self._paused -= 1
        if not self._paused and self.health.is_current:
            self._take_early()

    def load(
        self,
        position: Position,
        entries: dict[str, Entry],
        *,
        keep: bool = False,
        missed: Sequence[KeptMessage] | None = None,
        sliced: bool = False,
    ) -> None:
        """Move to the position of a snapshot. What differs is told, and so are the messages that were heard meanwhile,
        and the kept messages that were `missed`; `None` if that is not known.

        With `keep`, members who are missing from the snapshot stay listed, because other workers may still be
        restoring them; but not those whose leave was heard meanwhile. See `Snapshot` for `sliced`. The caller gives
        `entries` away.
        """
        old = self.position
        self._in_order = sliced
        self._list.forget()
        if sliced:
            position = self._apply_early(position, entries)
        self._replace(entries, absent=self._left_early(position) if keep else None)
        missing = keep and len(self._entries) > len(entries)
        early, self._early = self._early, []
        heard = {event.position: event for event in early if event.position <= position}
        self._early = [event for event in early if event.position > position]
        for message in missed or ():
            place = Position(position.epoch, message.number)
            if old < place <= position and place not in heard:
                heard[place] = Event("message", place, "", str(message.previous), None, message.frame)
        for _, event in sorted(heard.items()):
            if event.kind in ("message", "cleared"):
                self._take(event)
        if self.tail is not None and missed is None:
            self.tail.start(position.number)
        self.position = position
        self.health.loaded(lists_missing=missing)
        self._wake()
        if not self._paused:
            self._take_early()

    def reach(self, position: Position) -> Pending[None]:
        """Settled as soon as the copy is at `position` or beyond. Its outcome is `BackendUnavailable` if that never
        happens."""
        pending: Pending[None] = Pending()
        if self._reached(position):
            pending.settle(_nothing)
        else:
            self._waited += 1
            heappush(self._waiting, (position, self._waited, pending))
        return pending

    def at_its_place(self, placed: Placed[T]) -> Pending[T]:
        """The value of an outcome, settled when the copy reaches its place. See `reach`."""
        return self.reach(placed.position).map(lambda _: placed.value)

    def expect(self, position: Position) -> None:
        """Note that there is an event at `position`."""
        self._expected = max(self._expected, position)

    def give_up(self, problem: BackendUnavailable) -> None:
        """Fail whatever waits for a place in the order."""
        self._expected = NOWHERE
        waiters, self._waiting = self._waiting, []
        for *_, pending in sorted(waiters):
            pending.settle(raising(problem))

    @property
    def awaited(self) -> bool:
        """Whether the copy has yet to reach a place that is known to exist."""
        return bool(self._waiting) or self.position < self._expected

    def _apply_early(self, position: Position, entries: dict[str, Entry]) -> Position:
        """Change a list that was read in slices since `position` to the list at the last event that has arrived, and
        return that position: the events since then say what the slices lack."""
        for event in self._early:
            if event.position <= position:
                continue
            if event.position != (position.epoch, position.number + 1):
                break  # something was missed, which will be noticed
            position = event.position
            known = entries.get(event.user) if event.kind in _OF_MEMBERS else None
            if known is not None and known.version > position.number:
                continue  # the slice was read after this event
            if event.kind == "left":
                entries.pop(event.user, None)
            elif event.kind in _OF_MEMBERS:
                self._in_order = self._in_order and known is not None
                entries[event.user] = parse_entry(event.body)
        return position

    def _left_early(self, position: Position) -> set[str]:
        """The users who have left, by the events up to `position` that have arrived."""
        events = [event for event in self._early if event.position <= position and event.kind in _OF_MEMBERS]
        last = {event.user: event.kind for event in events}
        return {user for user, kind in last.items() if kind == "left"}

    def _replace(self, entries: dict[str, Entry], *, absent: set[str] | None) -> None:
        """Change the list to `entries`. Of the other members only those who are `absent` are removed; all, if that is
        `None`. What differs is told."""
        if self.position == NOWHERE:  # so nobody here knows of any list
            self._entries = entries
            return
        for user in [user for user in self._entries if user not in entries]:
            if absent is None or user in absent:
                self._remove(user, "")
        self._in_order = False
        known = self._entries
        changed = [(user, entry) for user, entry in entries.items() if user not in known or known[user] != entry]
        for user, entry in sorted(changed, key=lambda item: item[1].place):
            self._put(user, entry, "")

    def _take_early(self) -> None:
        early, self._early = self._early, []
        for event in early:
            self.hear(event)

    def _advance(self, event: Event) -> None:
        epoch, number = event.position
        if event.position <= self.position:
            return  # it was part of a snapshot
        if epoch > self.position.epoch or number > self.position.number + 1:
            self.health.fall_behind()
            self._early = [event]
            return
        self.position = event.position
        self._take(event)
        if self._waiting:
            self._wake()

    def _take(self, event: Event) -> None:
        if event.kind == "message":
            if self.tail is not None and event.user:
                self.tail.add(event.kept, time.monotonic())
            self._tell(ReplicaEvent("message", event.client, message=event.body))
        elif event.kind == "cleared":
            if self.tail is not None:
                self.tail.start(event.position.number)
        elif event.kind == "left":
            self._remove(event.user, event.client, event.body, event.reason)
        else:
            self._put(event.user, parse_entry(event.body), event.client)

    def _put(self, user: str, entry: Entry, client: str) -> None:
        known = self._entries.get(user)
        self._entries[user] = entry
        if known is None:
            self._in_order = self._in_order and entry.place == entry.version
            member = entry.shown()
            if self._in_order:
                self._list.append(entry)
            else:
                self._list.forget()
            self._tell(ReplicaEvent("joined", client, member))
        elif known.raw != entry.raw:
            member = entry.shown()
            self._list.forget()
            if known.json != member.json:
                self._tell(ReplicaEvent("updated", client, member))

    def _remove(self, user: str, client: str, last: bytes | None = None, reason: Reason | None = None) -> None:
        if user not in self._entries:
            return
        if self._is_here(user):
            self.health.contradict()
            return
        known = self._entries.pop(user)
        self._list.forget()
        entry = known if last is None else parse_entry(last)
        self._tell(ReplicaEvent("left", client, entry.member, reason=reason))

    def _reached(self, position: Position) -> bool:
        return self.health.is_current and self.position >= position

    def _wake(self) -> None:
        waiting, ready = self._waiting, list[Pending[None]]()
        while waiting and self._reached(waiting[0][0]):
            ready.append(heappop(waiting)[2])
        self._waking = True
        for pending in ready:
            pending.settle(_nothing)
        self._waking = False
        if not waiting:
            self._list.forget()


def _nothing() -> None:
    return None
