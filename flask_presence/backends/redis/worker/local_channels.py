"""The channels in which this worker has connections, or had until a moment ago, and how their copies heal.

Rule: a copy that is behind or in doubt is healed: the worker tells Redis who is here, then asks who is in the channel.
A heal causes no events for members who never left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import Final

from ....domain.channels import ChannelName
from ....domain.errors import BackendUnavailable
from ....domain.events import MemberLeft
from ....domain.history import HistoryRules, KeptMessage, Position, messages_after
from ....loops.pending import Outcome, Pending
from ...base import Listener
from ..client.pipeline import Pipeline
from ..client.subscriber import Subscriber
from ..store.calls import NOWHERE, Operation, Placed
from ..store.channels import ChannelOperations, Departure, Healed
from ..store.entries import Entry
from ..store.events import parse_event
from ..store.store import Store
from .comparisons import Comparisons
from .local_channel import LocalChannel

log = logging.getLogger("flask_presence")

SLICE: Final = 1000
"""The maximum number of channels looked after in one tick, so that many do not hold up the loop."""
LINGER: Final = 15.0
"""Seconds for which an empty channel stays subscribed, so that reloading a page is cheap."""
MAX_LAG: Final = 0.5
"""Seconds after which an outcome no longer waits for its event, but for a snapshot."""
WAIT_TIMEOUT: Final = 3.0
"""Seconds after which an outcome that still waits fails."""
SEARCH_EVERY: Final = 30.0
"""Seconds between two searches for channels that are closed here, but in which Redis lists this worker."""


class LocalChannels:
    """Owns the local channels. `operations` returns those of the worker's current id, and `history` says which channels
    keep messages. `writes_lost` is called when Redis has lost the latest changes of a channel, for instance because it
    came back with an old copy of its data.

    After a loss of data, and if Redis may have come back with older data, members that other workers may still restore
    stay listed for `keep` seconds.
    """

    def __init__(
        self,
        store: Store,
        worker_id: Callable[[], str],
        operations: Callable[[], ChannelOperations],
        pipeline: Pipeline,
        subscriber: Subscriber,
        listener: Listener,
        history: HistoryRules,
        keep: float,
        writes_lost: Callable[[], object],
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._operations = operations
        self._pipeline = pipeline
        self._subscriber = subscriber
        self._listener = listener
        self._history = history
        self._keep = keep
        self._writes_lost = writes_lost
        self._channels: dict[str, LocalChannel] = {}
        self._by_topic: dict[str, LocalChannel] = {}
        self._comparisons = Comparisons()
        self._search_at = time.monotonic() + SEARCH_EVERY
        self._keep_until = 0.0
        self._round: Iterator[LocalChannel] = iter(())

    def __iter__(self) -> Iterator[LocalChannel]:
        return iter(list(self._channels.values()))

    def get(self, name: str) -> LocalChannel | None:
        return self._channels.get(name)

    def open(self, name: ChannelName) -> LocalChannel:
        """The local channel, which is new if there was none: a connection is about to join."""
        local = self._channels.get(name)
        if local is None:
            local = self._channels[name] = LocalChannel(name, self._listener, self._history.find(name))
            topic = self._store.keys.topic(name)
            self._by_topic[topic] = local
            self._subscriber.subscribe(topic)
            self._comparisons.add(name, time.monotonic())
        return local

    def subscribed(self, local: LocalChannel) -> Pending[None]:
        """Settled when the channel's events are heard here."""
        return self._subscriber.subscribe(self._store.keys.topic(local.name))

    def hear(self, topic: str, data: bytes) -> None:
        """Apply an event that was published."""
        local = self._by_topic.get(topic)
        if local is not None:
            local.replica.hear(parse_event(data))
            if local.health.needs_heal_now:
                self.heal(local)

    def lost(self) -> None:
        """Heal every channel, because its events may have been missed."""
        for local in self:
            local.health.lose()
            self.heal(local)
        self._search_at = 0.0

    def give_up(self, problem: BackendUnavailable) -> None:
        """Fail everything that waits for an event."""
        for local in self:
            local.replica.give_up(problem)

    def compare_soon(self) -> None:
        """Compare every copy soon: Redis was down, and may still carry out commands that were given up."""
        self._comparisons.begin_soon(time.monotonic())

    def heal_all(self) -> None:
        """Heal every channel, because Redis may have lost everything."""
        for local in self:
            self.heal(local)

    def heal(self, local: LocalChannel) -> Pending[None]:
        """Tell Redis who is here, and the copy who is in the channel. `BackendUnavailable` if that fails."""
        must_start, healing = local.health.request_heal()
        if must_start:
            self.subscribed(local).when(partial(self._start_healing, local))
        return healing

    def load(
        self,
        local: LocalChannel,
        position: Position,
        entries: dict[str, Entry],
        losses: int,
        missed: Sequence[KeptMessage] | None = None,
        *,
        sliced: bool = False,
    ) -> None:
        """Load a snapshot into the copy, unless events have been missed since it was requested: `losses` is the copy's
        number of losses at that time. If Redis has lost data, members who are missing from the snapshot stay listed for
        a while. If the channel keeps messages, `missed` are those since the copy's position; `None` if they are lost,
        so that the connections here have to recover by themselves."""
        replica, now = local.replica, time.monotonic()
        if losses != local.health.losses:
            return
        if replica.position != NOWHERE and position.epoch > replica.position.epoch:
            self.data_may_be_older()
        if replica.tail is not None and missed is None and replica.position != NOWHERE and local.count:
            self._listener.give_up_channel(local.name)
        replica.load(position, entries, keep=now < self._keep_until, missed=missed, sliced=sliced)

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock, for up to `SLICE` channels at a time."""
        if now >= self._search_at:
            self._search_at = now + SEARCH_EVERY
            self._search()
        for name in self._comparisons.due(now):
            self._channels[name].compare_due = True
        seen = 0
        for local in islice(self._round, SLICE):
            seen += 1
            if self._channels.get(local.name) is local:
                self._look_after(local, now)
        if seen < SLICE:
            self._round = iter(self)

    def without_grace(self, user_id: str | None, client_id: str | None, channel: str | None) -> list[Pending[None]]:
        """Let connections that left without Redis having confirmed it have no grace period: those of a user, with a
        client id, and in a channel (`None` matches any). Returns the heals under way, which may still begin one."""
        chosen = [local for local in self if channel in (None, local.name)]
        for local in chosen:
            local.without_grace(user_id, client_id)
        return [local.health.healing for local in chosen if local.health.healing is not None]

    def data_may_be_older(self) -> None:
        """Note that the data of Redis may be older than what it has published."""
        self._keep_until = max(self._keep_until, time.monotonic() + self._keep)

    def close_all(self) -> None:
        """Close every channel, because the worker ends."""
        for local in self:
            self._close(local)

    def _look_after(self, local: LocalChannel, now: float) -> None:
        self._check_waiting(local, now)
        health = local.health
        if health.healing is not None:
            return
        if health.lists_missing and now >= self._keep_until:
            health.lose()  # members whom nobody has restored by now are gone
            health.doubt()
        if health.in_doubt:
            self.heal(local)
        elif not local.is_empty:
            local.empty_since = None
        elif local.empty_since is None:
            local.empty_since = now
        elif now - local.empty_since >= LINGER:
            self._close(local)
            return
        if local.compare_due and health.is_current:
            local.compare_due = False
            comparing = self._pipeline.run(self._operations().position(local.name))
            comparing.when(partial(self._compare, local, local.replica.position))

    def _search(self) -> None:
        """Open the channels that are closed here, but in which Redis still lists this worker, because of late commands
        or an old copy of its data. They heal, and close again."""

        def found(outcome: Outcome[list[str]]) -> None:
            try:
                names = outcome()
            except BackendUnavailable:
                return  # there will be another search
            for name in names:
                if name not in self._channels:
                    self.open(ChannelName(name)).health.doubt()

        self._pipeline.run(self._store.workers.channels_of(self._worker_id())).when(found)

    def _check_waiting(self, local: LocalChannel, now: float) -> None:
        """See to it that nothing waits for ever for an event or a subscription."""
        unsubscribed = local.has_joining and not self.subscribed(local).settled
        waiting = unsubscribed or local.replica.awaited or local.health.healing is not None
        if not waiting:
            local.waiting_since = None
        elif local.waiting_since is None or local.waiting_at != local.progress:
            local.waiting_since, local.waiting_at = now, local.progress
        elif now - local.waiting_since > WAIT_TIMEOUT:
            local.waiting_since = None
            problem = BackendUnavailable("what Redis publishes does not arrive")
            local.replica.give_up(problem)
            self._subscriber.give_up(problem)
            self._subscriber.reset()
        elif now - local.waiting_since > MAX_LAG and local.health.is_current and local.replica.awaited:
            local.health.lose()
            self.heal(local)

    def _start_healing(self, local: LocalChannel, subscribed: Outcome[None]) -> None:
        try:
            subscribed()
        except BackendUnavailable as problem:
            self._end_healing(local, problem)
            return
        local.health.heal_starts()
        unconfirmed = dict(local.unconfirmed)
        operation = self._heal(local, unconfirmed, local.replica.position)
        healed = partial(self._healed, local, unconfirmed, local.health.losses)
        self._pipeline.run(operation, local.replica).when(healed)

    def _heal(
        self, local: LocalChannel, unconfirmed: Mapping[str, Departure], known: Position
    ) -> Operation[tuple[Placed[Healed], list[KeptMessage] | None]]:
        """The heal of a channel, and the kept messages after `known`; `None` if they are not all there."""
        placed = yield from self._operations().heal(
            *(local.name, local.live_connections, local.possible, local.leaving, unconfirmed, known),
            datetime.now(timezone.utc),
            wants_list=local.wants_list,
            progressed=local.heal_progressed,
        )
        if local.retention is None:
            return placed, None
        extract = yield from self._store.history.extract(local.name, after=known.number)
        is_same = known.epoch == placed.position.epoch == extract.position.epoch
        return placed, messages_after(extract, known.number) if is_same else None

    def _healed(
        self,
        local: LocalChannel,
        unconfirmed: Mapping[str, Departure],
        losses: int,
        outcome: Outcome[tuple[Placed[Healed], list[KeptMessage] | None]],
    ) -> None:
        try:
            placed, missed = outcome()
        except Exception as problem:
            if not isinstance(problem, BackendUnavailable):
                log.exception("a channel could not be compared with Redis")
            self._end_healing(local, problem)
            return
        snapshot = placed.value.snapshot
        if snapshot is not None and local.wants_list(placed.position):
            self.load(local, placed.position, snapshot.entries, losses, missed, sliced=snapshot.sliced)
        if placed.value.writes_lost:
            self._writes_lost()
        for client_id, change in placed.value.left.items():
            user = unconfirmed[client_id].user if client_id in unconfirmed else None
            self._listener.notify(MemberLeft(client_id, user, local.name, change.member, change.reason))
        for client_id in unconfirmed:
            local.unconfirmed.pop(client_id, None)
        self._end_healing(local, None)

    def _end_healing(self, local: LocalChannel, problem: Exception | None) -> None:
        if local.health.heal_ends(problem):
            self.heal(local)

    def _compare(self, local: LocalChannel, before: Position, outcome: Outcome[Placed[int]]) -> None:
        try:
            position, count = outcome().position, outcome().value
        except BackendUnavailable:
            return  # there will be another comparison
        if position < before or (local.is_settled and count != local.count):
            local.health.lose()
            self.heal(local)
        elif position > local.replica.position:
            # Events come on another connection, so it may still be on its way.
            local.replica.expect(position)

    def _close(self, local: LocalChannel) -> None:
        topic = self._store.keys.topic(local.name)
        del self._channels[local.name], self._by_topic[topic]
        self._comparisons.remove(local.name)
        self._subscriber.unsubscribe(topic)
        self._pipeline.run(self._operations().unindex(local.name))
