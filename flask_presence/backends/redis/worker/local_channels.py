"""The channels that this process has connections in, or had until a moment ago, and how their copies heal.

Law: a copy that missed something, or is in doubt, is healed by telling Redis who is here, then asking who is there.
Members who never left cause no news by that.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import Final, TypeVar

from ....domain.channels import ChannelName
from ....domain.errors import BackendUnavailable
from ....domain.events import MemberLeft
from ....loops.pending import Outcome, Pending
from ...base import Listener
from ..client.pipeline import Pipeline
from ..client.subscriber import Subscriber
from ..store.calls import NOWHERE, Placed, Position
from ..store.channels import Gone, Healed, Operations
from ..store.entries import Entry
from ..store.events import parse_event
from ..store.keys import Keys
from .local_channel import Room

log = logging.getLogger("flask_presence")

T = TypeVar("T")

SLICE: Final = 1000
"""Rooms that are looked after at a time, so that many do not hold up the loop."""
LINGER: Final = 15.0
"""Seconds for which an empty room keeps hearing its channel: reloading a page is cheap."""
LAG: Final = 0.5
"""Seconds after which an answer no longer waits for its event, but for a snapshot."""
PATIENCE: Final = 3.0
"""Seconds after which it does not wait any longer."""
LOOK_EVERY: Final = 30.0
"""Seconds between two comparisons with Redis."""
LOOK_SOON: Final = (1.5, 3.0)
"""Seconds, from and to, after which it is compared when Redis has been away."""


class Rooms:
    """Owner of the rooms. `keep`: seconds after a loss of data for which others may still bring members back."""

    def __init__(
        self,
        keys: Keys,
        operations: Callable[[], Operations],
        pipeline: Pipeline,
        subscriber: Subscriber,
        listener: Listener,
        keep: float,
    ) -> None:
        self._keys = keys
        self._operations = operations
        self._pipeline = pipeline
        self._subscriber = subscriber
        self._listener = listener
        self._keep = keep
        self._rooms: dict[str, Room] = {}
        self._by_topic: dict[str, Room] = {}
        self._look_at: dict[str, float] = {}
        self._search_at = time.monotonic() + LOOK_EVERY
        self._keep_until = 0.0
        self._round: Iterator[Room] = iter(())

    def __iter__(self) -> Iterator[Room]:
        return iter(list(self._rooms.values()))

    def get(self, name: str) -> Room | None:
        return self._rooms.get(name)

    def enter(self, channel: ChannelName) -> Room:
        """The room of a channel that a connection is about to come into."""
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = Room(channel, self._listener)
            topic = self._keys.topic(channel)
            self._by_topic[topic] = room
            self._subscriber.want(topic)
            self._look_at[channel] = time.monotonic() + LOOK_EVERY * random.uniform(0.5, 1.5)  # noqa: S311
        return room

    def subscribed(self, room: Room) -> Pending[None]:
        """Settled when the room's events are heard."""
        return self._subscriber.want(self._keys.topic(room.name))

    def hear(self, topic: str, data: bytes) -> None:
        room = self._by_topic.get(topic)
        if room is not None:
            room.replica.hear(parse_event(data))
            if room.replica.stale or room.replica.doubtful:
                self.heal(room)

    def lost(self) -> None:
        """Events may have been missed, of any channel."""
        for room in self:
            room.replica.lose()
            self.heal(room)
        self._search_at = 0.0

    def give_up(self, problem: BackendUnavailable) -> None:
        """Whoever waits for Redis waits in vain."""
        for room in self:
            room.replica.give_up(problem)

    def look_soon(self) -> None:
        """Redis was away, and what was given up may yet happen there: compare before long."""
        now = time.monotonic()
        self._look_at = {name: now + random.uniform(*LOOK_SOON) for name in self._look_at}  # noqa: S311

    def heal_all(self) -> None:
        """Redis may have lost everything."""
        for room in self:
            self.heal(room)

    def heal(self, room: Room) -> Pending[None]:
        """Have Redis know who is here, and the copy who is there; `BackendUnavailable` where that could not be."""
        if room.healing is None:
            room.healing = Pending()
            self.subscribed(room).when(partial(self._begin_healing, room))
        else:
            room.heal_again = True
        return room.healing

    def load(self, room: Room, position: Position, entries: Mapping[str, Entry], losses: int) -> None:
        """Have the copy stand where a snapshot stands, unless events were missed after it was asked for, when there
        had been `losses`. Where Redis has lost data, whoever is missing in it is kept for a while."""
        replica, now = room.replica, time.monotonic()
        if losses != replica.losses:
            return
        if replica.position != NOWHERE and position.epoch > replica.position.epoch:
            self._keep_until = max(self._keep_until, now + self._keep)
        replica.load(position, entries, keep=now < self._keep_until)

    def place(self, room: Room, pending: Pending[Placed[T]]) -> Pending[T]:
        """An outcome, as soon as the room's copy stands where it belongs in the channel's order."""
        return pending.map(lambda placed: room.replica.reach(placed.position).map(lambda _: placed.value))

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock; for some rooms at a time, if there are many."""
        if now >= self._search_at:
            self._search_at = now + LOOK_EVERY
            self._search()
        seen = 0
        for room in islice(self._round, SLICE):
            seen += 1
            if self._rooms.get(room.name) is room:
                self._look_after(room, now)
        if seen < SLICE:
            self._round = iter(self)

    def _look_after(self, room: Room, now: float) -> None:
        self._hurry(room, now)
        if room.healing is not None:
            return
        if room.replica.keeps and now >= self._keep_until:
            room.replica.lose()  # whoever has not been brought back by now is not there
            room.dirty = True
        if room.dirty:
            self.heal(room)
        elif not room.is_empty:
            room.empty_since = None
        elif room.empty_since is None:
            room.empty_since = now
        elif now - room.empty_since >= LINGER:
            self._close(room)
            return
        if now >= self._look_at[room.name] and not room.replica.stale:
            self._look_at[room.name] = now + LOOK_EVERY
            self._look(room)

    def _search(self) -> None:
        """Open the rooms of channels that were closed here long ago, where Redis says that this node is in them: late
        commands and old copies of its data do that. They heal, and close again."""

        def found(outcome: Outcome[list[str]]) -> None:
            try:
                names = outcome()
            except BackendUnavailable:
                return  # there will be another search
            for name in names:
                if name not in self._rooms:
                    self.enter(ChannelName(name)).dirty = True

        self._pipeline.run(self._operations().entered()).when(found)

    def leave_all(self) -> None:
        """The node ends."""
        for room in self:
            self._close(room)

    def _hurry(self, room: Room, now: float) -> None:
        deaf = room.has_comers and not self.subscribed(room).settled
        waiting = deaf or room.replica.awaited or room.healing is not None
        if not waiting:
            room.waiting_since = None
        elif room.waiting_since is None or room.waiting_at != room.replica.position:
            room.waiting_since, room.waiting_at = now, room.replica.position
        elif now - room.waiting_since > PATIENCE:
            room.waiting_since = None
            problem = BackendUnavailable("what Redis publishes does not arrive")
            room.replica.give_up(problem)
            self._subscriber.give_up(problem)
            self._subscriber.reset()
        elif now - room.waiting_since > LAG and not room.replica.stale and room.replica.awaited:
            room.replica.lose()
            self.heal(room)

    def _begin_healing(self, room: Room, subscribed: Outcome[None]) -> None:
        try:
            subscribed()
        except BackendUnavailable as problem:
            self._end_healing(room, problem)
            return
        room.heal_again = room.dirty = room.replica.doubtful = False
        unheard = dict(room.left_unheard)
        operation = self._operations().heal(
            room.name, room.holders, room.expected, unheard, room.replica.position, datetime.now(timezone.utc)
        )
        healed = partial(self._healed, room, unheard, room.replica.losses)
        self._pipeline.run(operation, room.replica).when(healed)

    def _healed(self, room: Room, unheard: Mapping[str, Gone], losses: int, outcome: Outcome[Placed[Healed]]) -> None:
        try:
            placed = outcome()
        except Exception as problem:
            if not isinstance(problem, BackendUnavailable):
                log.exception("a channel could not be compared with Redis")
            self._end_healing(room, problem)
            return
        if room.replica.stale or placed.position.epoch != room.replica.position.epoch:
            self.load(room, placed.position, placed.value.entries, losses)
        for client_id, change in placed.value.left.items():
            user = unheard[client_id].user if client_id in unheard else None
            self._listener.notify(MemberLeft(client_id, user, room.name, change.member, change.reason))
        for client_id in unheard:
            room.left_unheard.pop(client_id, None)
        self._end_healing(room, None)
        if room.heal_again or room.replica.stale or room.replica.doubtful:
            self.heal(room)

    def _end_healing(self, room: Room, problem: Exception | None) -> None:
        healing, room.healing = room.healing, None
        if problem is not None:
            room.dirty = True
        if healing is not None:
            healing.settle(partial(_outcome, problem))

    def _look(self, room: Room) -> None:
        before = room.replica.position
        self._pipeline.run(self._operations().look(room.name)).when(partial(self._compare, room, before))

    def _compare(self, room: Room, before: tuple[int, int], outcome: Outcome[Placed[int]]) -> None:
        try:
            position, count = outcome().position, outcome().value
        except BackendUnavailable:
            return  # there will be another look
        settled = room.is_empty or not (room.leaving or room.expected() != {h.client_id for h in room.holders()})
        if position < before or (settled and count != room.count):
            room.replica.lose()
            self.heal(room)
        elif position > room.replica.position:
            # What is published comes on another connection, so it may still be on its way.
            room.replica.expect(position)

    def _close(self, room: Room) -> None:
        topic = self._keys.topic(room.name)
        del self._rooms[room.name], self._by_topic[topic], self._look_at[room.name]
        self._subscriber.drop(topic)
        self._pipeline.run(self._operations().exit(room.name))


def _outcome(problem: Exception | None) -> None:
    if problem is not None:
        raise problem
