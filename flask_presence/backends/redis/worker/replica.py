"""One process's copy of one channel, kept by what Redis publishes.

Law: sans IO. Every event is taken in once and in order, or the copy is stale until a snapshot comes; what waits for
a place in the order happens in the very step in which the copy has reached it. Who is in the channel by a
connection of this very process has not left it, whatever is published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from ....domain.errors import BackendUnavailable
from ....domain.events import Reason
from ....loops.pending import Pending, raising
from ..store.calls import NOWHERE, Position
from ..store.entries import Entry, parse_entry
from ..store.events import Event


class News(NamedTuple):
    """What those who hear the channel must be told: a change of the list (`entry`), or a message."""

    kind: Literal["joined", "updated", "left", "message"]
    client: str
    entry: Entry | None = None
    message: bytes = b""
    reason: Reason | None = None


class Replica:
    """The list of one channel at one place in its order.

    `stale`: something was missed, or nothing is known yet. `losses` counts how often: a snapshot that was asked for
    before the last of them is of no use. `doubtful`: somebody was said to have left of whom `is_here` knows that they
    have not. `keeps`: somebody is listed whom the last snapshot did not have. `tell` is called for every piece of
    news, in order.
    """

    def __init__(self, tell: Callable[[News], object], is_here: Callable[[str], bool]) -> None:
        self.position = NOWHERE
        self.stale = True
        self.losses = 0
        self.doubtful = False
        self.keeps = False
        self._tell = tell
        self._is_here = is_here
        self._paused = 0
        self._expected = NOWHERE
        self._entries: dict[str, Entry] = {}
        self._in_order = True
        self._early: list[Event] = []
        self._waiters: list[tuple[Position, Pending[None]]] = []

    @property
    def entries(self) -> Mapping[str, Entry]:
        """By user, in order of joining."""
        if not self._in_order:
            self._entries = dict(sorted(self._entries.items(), key=lambda item: item[1].place))
            self._in_order = True
        return self._entries

    def hear(self, event: Event) -> None:
        """Take an event in, or keep it for the snapshot, or the answer, that must come first."""
        if not self.stale and not self._paused:
            self._advance(event)
        elif event.position > (self._early[-1].position if self._early else self.position):
            self._early.append(event)

    def pause(self) -> None:
        """An answer is on its way that stands at a place of its own: take nothing in before it."""
        self._paused += 1

    def resume(self) -> None:
        """It is here; the last `resume` for as many `pause` counts."""
        self._paused -= 1
        if not self._paused and not self.stale:
            self._take_early()

    def load(self, position: Position, entries: Mapping[str, Entry], *, keep: bool = False) -> None:
        """Stand where a snapshot stands: the difference is news, and so is every message that was heard meanwhile.

        With `keep`, members who are missing stay listed: others may still be bringing them back.
        """
        missing = [user for user in self._entries if user not in entries]
        self.keeps = keep and bool(missing)
        for user in missing:
            if not keep:
                self._remove(user, "")
        for user, entry in sorted(entries.items(), key=lambda item: item[1].place):
            self._put(user, entry, "")
        early, self._early = self._early, []
        for event in early:
            if event.position > position:
                self._early.append(event)
            elif event.kind == "message":
                self._tell(News("message", event.client, message=event.body))
        self.position, self.stale, self._in_order = position, False, False
        self._wake()
        if not self._paused:
            self._take_early()

    def lose(self) -> None:
        """Events may have been missed: nothing counts until the next snapshot."""
        self.stale = True
        self.losses += 1

    def reach(self, position: Position) -> Pending[None]:
        """Settled as soon as the copy stands at `position` or after it; `BackendUnavailable` if it never does."""
        pending: Pending[None] = Pending()
        if self._reached(position):
            pending.settle(_nothing)
        else:
            self._waiters.append((position, pending))
        return pending

    def expect(self, position: Position) -> None:
        """It is known that there is an event at `position`."""
        self._expected = max(self._expected, position)

    def give_up(self, problem: BackendUnavailable) -> None:
        """Nobody need wait any longer."""
        self._expected = NOWHERE
        waiters, self._waiters = self._waiters, []
        for _, pending in waiters:
            pending.settle(raising(problem))

    @property
    def awaited(self) -> bool:
        """Whether there is a place that is known of, and has not been reached."""
        return bool(self._waiters) or self.position < self._expected

    def _take_early(self) -> None:
        early, self._early = self._early, []
        for event in early:
            self.hear(event)

    def _advance(self, event: Event) -> None:
        epoch, number = event.position
        if event.position <= self.position:
            return  # a snapshot had it already
        if epoch > self.position.epoch or number > self.position.number + 1:
            self.stale = True
            self._early = [event]
            return
        self.position = event.position
        self._take(event)
        if self._waiters:
            self._wake()

    def _take(self, event: Event) -> None:
        if event.kind == "message":
            self._tell(News("message", event.client, message=event.body))
        elif event.kind == "left":
            self._remove(event.user, event.client, event.body, event.reason)
        else:
            self._put(event.user, parse_entry(event.body), event.client)

    def _put(self, user: str, entry: Entry, client: str) -> None:
        known = self._entries.get(user)
        self._entries[user] = entry
        if known is None:
            self._in_order = self._in_order and entry.place == entry.version
            self._tell(News("joined", client, entry))
        elif known.raw != entry.raw and known.member.json != entry.member.json:
            self._tell(News("updated", client, entry))

    def _remove(self, user: str, client: str, last: bytes | None = None, reason: Reason | None = None) -> None:
        if user not in self._entries:
            return
        if self._is_here(user):
            self.doubtful = True
            return
        known = self._entries.pop(user)
        self._tell(News("left", client, known if last is None else parse_entry(last), reason=reason))

    def _reached(self, position: Position) -> bool:
        return not self.stale and self.position >= position

    def _wake(self) -> None:
        ready = [pending for position, pending in self._waiters if self._reached(position)]
        self._waiters = [(position, pending) for position, pending in self._waiters if not self._reached(position)]
        for pending in ready:
            pending.settle(_nothing)


def _nothing() -> None:
    return None
