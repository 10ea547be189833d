"""One process's copy of one channel, kept by what Redis publishes.

Law: sans IO. Every event is taken in once and in order, or the copy is stale until a snapshot comes; what waits for
a place in the order happens in the very step in which the copy has reached it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .documents import Entry, parse_entry
from .operations import NOWHERE, Position

Waiter = Callable[[], object]


class Event(NamedTuple):
    """What was published of a channel; `client` must not hear of it. `body` is an entry, or a message's frame."""

    kind: str
    position: Position
    client: str
    body: bytes


def parse_event(data: bytes) -> Event:
    kind, epoch, number, client, _, body = data.split(b"\0", 5)
    return Event(kind.decode(), Position(int(epoch), int(number)), client.decode(), body)


class News(NamedTuple):
    """What those who hear the channel must be told: a change of the list (`entry`), or a message."""

    kind: str
    client: str
    entry: Entry | None = None
    message: bytes = b""


class Replica:
    """The list of one channel at one place in its order. `stale`: something was missed, or nothing is known yet.

    `tell` is called for every piece of news, in order.
    """

    def __init__(self, tell: Callable[[News], object]) -> None:
        self.position = NOWHERE
        self.stale = True
        self._tell = tell
        self._entries: dict[str, Entry] = {}
        self._early: list[Event] = []
        self._waiters: list[tuple[Position, Waiter]] = []

    @property
    def entries(self) -> tuple[Entry, ...]:
        """In order of joining."""
        return tuple(sorted(self._entries.values(), key=lambda entry: entry.place))

    def hear(self, event: Event) -> None:
        """Take an event in, or keep it for the snapshot that must come first."""
        if self.stale:
            self._early.append(event)
            return
        epoch, number = event.position
        if epoch < self.position.epoch or (epoch == self.position.epoch and number <= self.position.number):
            return  # a snapshot had it already
        if epoch > self.position.epoch or number > self.position.number + 1:
            self.stale = True
            self._early = [event]
            return
        self.position = event.position
        self._take(event)
        self._wake()

    def load(self, position: Position, entries: tuple[Entry, ...], keep: frozenset[str] = frozenset()) -> None:
        """Stand where a snapshot stands: the difference is news, and so is what was published since.

        Users in `keep` who are missing stay listed: others may still be bringing them back. A snapshot that is
        older than the copy is none.
        """
        if position < self.position and not self.stale:
            return
        there = {entry.document.id: entry for entry in entries}
        for user_id, entry in list(self._entries.items()):
            if user_id not in there and user_id not in keep:
                del self._entries[user_id]
                self._tell(News("left", "", entry))
        for user_id, entry in there.items():
            self._put(user_id, entry, "")
        self.position, self.stale = position, False
        early, self._early = self._early, []
        for event in early:
            self.hear(event)
        self._wake()

    def lose(self) -> None:
        """Events may have been missed: nothing counts until the next snapshot."""
        self.stale = True

    def at(self, position: Position, waiter: Waiter) -> None:
        """Call `waiter` as soon as the copy stands at `position` or after it; now, if it does."""
        if self._reached(position):
            waiter()
        else:
            self._waiters.append((position, waiter))

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for a place that has not been reached."""
        return bool(self._waiters)

    def _take(self, event: Event) -> None:
        if event.kind == "message":
            self._tell(News("message", event.client, message=event.body))
            return
        entry = parse_entry(event.body)
        user_id = entry.document.id
        if event.kind != "left":
            self._put(user_id, entry, event.client)
        elif self._entries.pop(user_id, None) is not None:
            self._tell(News("left", event.client, entry))

    def _put(self, user_id: str, entry: Entry, client: str) -> None:
        known = self._entries.get(user_id)
        self._entries[user_id] = entry
        if known is None:
            self._tell(News("joined", client, entry))
        elif known.document != entry.document:
            self._tell(News("updated", client, entry))

    def _reached(self, position: Position) -> bool:
        return not self.stale and self.position >= position

    def _wake(self) -> None:
        ready = [waiter for position, waiter in self._waiters if self._reached(position)]
        self._waiters = [(position, waiter) for position, waiter in self._waiters if not self._reached(position)]
        for waiter in ready:
            waiter()
