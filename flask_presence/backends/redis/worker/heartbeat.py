"""The heartbeat: it renews this worker's lease, removes dead workers, and ends grace periods that are over.

Rule: every worker does this for all others; there is no leader.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ....domain.errors import BackendUnavailable
from ....domain.events import Event
from ....domain.members import User
from ....domain.readings import Reading
from ....loops.pending import Outcome, Pending
from ...base import Listener
from ..client.pipeline import Pipeline
from ..store import control
from ..store.calls import Operation
from ..store.layout import WHOLE, OtherLayout, Shard
from ..store.store import Store
from ..store.workers import HeartbeatReply
from .breaker import CircuitBreaker
from .neighbours import Neighbours
from .redis_clock import RedisClock
from .worker_id import host_of, new_worker_id

MAX_INTERVAL: Final = 1.0
"""The longest time between two heartbeats, in seconds; a fifth of the lease, if that is less."""
COMPARE_EVERY: Final = 30.0
"""Seconds between two comparisons of the number of open connections with Redis."""
UNHEARD_LEASES: Final = 3
"""How many leases before its removal a dead worker may have stopped carrying out control messages."""


class Heartbeat:
    """Keeps this worker alive in Redis, and Redis informed of its open connections and counts.

    In the loop, it calls `restart` when Redis does not know the worker any longer, so that everything has to be stored
    again; `restart` returns the channels in which the worker may have had connections. It calls `returned` when Redis
    was down and is back, and `failed` when it is down.

    `worker_id` changes if others have considered the worker dead, because they may still be removing it. `answered` is
    settled when the first heartbeat has been answered, or has failed. `refusal` is why Redis refuses this worker, if
    workers that are alive have another layout.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        breaker: CircuitBreaker,
        listener: Listener,
        lease: float,
        restart: Callable[[], list[str]],
        returned: Callable[[], object],
        failed: Callable[[BackendUnavailable], object],
        shard: Shard = WHOLE,
    ) -> None:
        self.worker_id = new_worker_id()
        self.answered: Pending[None] = Pending()
        self.refusal: OtherLayout | None = None
        self._shard = shard
        self._store = store
        self._pipeline = pipeline
        self._breaker = breaker
        self._listener = listener
        self._lease = lease
        self._restart = restart
        self._returned = returned
        self._failed = failed
        self._interval = heartbeat_interval(lease)
        self._clients: dict[str, User | None] = {}
        self._guests: dict[str, User | None] = {}
        self._clients_in_doubt = False
        self._compare_at = time.monotonic() + COMPARE_EVERY
        self._data_since = 0
        self._is_first = True
        self._under_way = False
        self._removing = False
        self._neighbours = Neighbours(store.workers)
        self._due_at = 0.0
        self._trusted_at = time.monotonic() + lease
        self.clock = RedisClock()
        self._recorded = self._counted_before = Reading()

    @property
    def data_since(self) -> int:
        """When the data in Redis began, in ms, at the last heartbeat; 0 before the first."""
        return self._data_since

    def user_of(self, client_id: str) -> User | None:
        return self._clients.get(client_id) or self._guests.get(client_id)

    def opened(self, client_id: str, user: User | None) -> None:
        self._clients[client_id] = user
        self._tell(self._store.workers.add_connections(self.worker_id, {client_id: user}))
        self.guest_closed(client_id)

    def closed(self, client_id: str) -> None:
        user = self._clients.pop(client_id, None)
        self._tell(self._store.workers.remove_connection(self.worker_id, client_id, user))

    def guest_opened(self, client_id: str, user: User | None) -> None:
        """Note that a connection with its home in another shard is about to join a channel here, or has another user
        now."""
        self._guests[client_id] = user
        self._tell(self._store.workers.add_guests(self.worker_id, {client_id: user}))

    def guest_closed(self, client_id: str) -> None:
        """Note that a connection is no guest any longer."""
        if client_id in self._guests:
            del self._guests[client_id]
            self._tell(self._store.workers.remove_guests(self.worker_id, [client_id]))

    def beat(self) -> None:
        """Renew the lease; then see which workers are dead."""
        self._under_way = True
        worker_id = self.worker_id
        operation = self._store.workers.heartbeat(worker_id, host_of(worker_id), first=self._is_first)
        self._pipeline.run(operation).when(partial(self._answered, time.monotonic()))

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock."""
        due = now >= self._due_at if self._breaker.is_up else self._breaker.may_retry(now)
        if due and not self._under_way:
            self.beat()

    def compare_soon(self) -> None:
        """Compare at the next heartbeat: Redis may have lost some of the open connections, but probably has not."""
        self._compare_at = 0.0

    def store_soon(self) -> None:
        """Store all open connections again at the next heartbeat: Redis may have older data than it has had."""
        self._clients_in_doubt = True

    def store_connections(self) -> None:
        """Store all open connections again: Redis may not know them."""
        self._clients_in_doubt = False
        self._tell(self._store.workers.set_connections(self.worker_id, self._clients))
        if self._shard is not WHOLE:
            self._tell(self._store.workers.set_guests(self.worker_id, self._guests))

    def end(self) -> Pending[None]:
        """Remove this worker from Redis. If Redis carries out its commands after that, other workers clean up."""
        self.record()
        return self._pipeline.run(self._store.dead_workers.remove(self.worker_id)).map(lambda _: None)

    def record(self) -> Pending[None]:
        """Record what has been counted here, unless another shard has that. Settled when others can read it, or if
        Redis is down."""
        if not self._breaker.is_up or not self._shard.records:
            done: Pending[None] = Pending()
            done.settle(lambda: None)
            return done
        reading, worker_id = self._reading(), self.worker_id

        def recorded(outcome: Outcome[bool]) -> None:
            try:
                was_stored = outcome()
            except BackendUnavailable:
                return  # the next heartbeat records it
            if was_stored and worker_id == self.worker_id:
                self._recorded = reading

        return self._pipeline.run(self._store.counts.record(worker_id, reading)).then(recorded)

    def _reading(self) -> Reading:
        """What has been counted here under the current worker id."""
        return self._listener.reading().since(self._counted_before)

    def _tell(self, operation: Operation[None]) -> None:
        """Change what Redis knows of the open connections. If that fails, all are stored again later."""

        def check(outcome: Outcome[None]) -> None:
            try:
                outcome()
            except BackendUnavailable:
                self._clients_in_doubt = True

        if self._breaker.is_up:
            self._pipeline.run(operation).when(check)
        else:
            self._clients_in_doubt = True

    def _answered(self, sent_at: float, outcome: Outcome[HeartbeatReply]) -> None:
        self._under_way = False
        try:
            reply = outcome()
        except BackendUnavailable as problem:
            self.clock.give_up(problem)
            if self._breaker.is_up:
                self._failed(problem)
            self._settle_answered()
            return
        self.refusal = self._shard.conflict(reply.last_start) if reply.lease == "refused" else None
        if self.refusal is not None:
            self.clock.give_up(self.refusal)
            self._failed(self.refusal)
        self._settle_answered()
        if self.refusal is not None:
            return
        was_first, self._is_first = self._is_first, False
        self._neighbours.note(reply, first=was_first)
        data_lost = self._data_since not in (0, reply.data_since)
        self._data_since = reply.data_since
        if data_lost:
            self.clock.clear()
        self.clock.sample(sent_at, time.monotonic(), reply.now)
        if reply.lease == "lost":
            self._start_again(new_id=not data_lost)
            return
        was_down = self._breaker.succeeded(sent_at)
        if was_down:
            self._returned()
        self._due_at = sent_at + self._interval
        # After an outage the others may be late too, even if Redis has carried out a heartbeat that was given up here.
        if reply.lease == "late" or was_first or was_down:
            self._trusted_at = time.monotonic() + self._lease
        if self._clients_in_doubt:
            self.store_connections()
        elif time.monotonic() >= self._compare_at:
            self._compare_at = time.monotonic() + COMPARE_EVERY
            counting = self._store.workers.count_connections_of(self.worker_id)
            self._pipeline.run(counting).when(partial(self._compare, (len(self._clients), len(self._guests))))
        self.record()
        if not self._removing:
            self._removing = True
            self._pipeline.run(self._remove_dead(reply.now)).when(self._removed)

    def _settle_answered(self) -> None:
        if not self.answered.settled:
            self.answered.settle(lambda: None)

    def _compare(self, expected: tuple[int, int], outcome: Outcome[tuple[int, int]]) -> None:
        """Store the connections again if Redis has a different number of them: late commands or an old copy of its data
        may have changed it."""
        try:
            self._clients_in_doubt |= outcome() != expected
        except BackendUnavailable:
            return  # there will be another comparison

    def _start_again(self, *, new_id: bool) -> None:
        old_id = self.worker_id
        if new_id:
            self.worker_id = new_worker_id()
            not_recorded = self._reading().since(self._recorded)
            self._counted_before = self._listener.reading().since(not_recorded)
        self._recorded = Reading()
        self._is_first = True
        self.beat()
        self.store_connections()
        channels = self._restart()
        if new_id:
            self._pipeline.run(self._store.dead_workers.leave_to_others(old_id, channels))

    def _remove_dead(self, now: int) -> Operation[list[Event]]:
        """Remove dead workers. If this worker has just started or resumed, it spares those that only their expired
        lease makes seem dead: they may be late for the same reason."""
        after = 0 if time.monotonic() >= self._trusted_at else None
        gone = yield from self._neighbours.gone()
        return (yield from remove_dead(self._store, now, gone, after=after))

    def _removed(self, outcome: Outcome[list[Event]]) -> None:
        self._removing = False
        try:
            events = outcome()
        except BackendUnavailable:
            return  # the next heartbeat goes on
        for event in events:
            self._listener.notify(event)


def remove_dead(store: Store, now: int, gone: Sequence[str] = (), *, after: float | None) -> Operation[list[Event]]:
    """Remove the dead workers, and end the grace periods that are over at `now`, in ms, and those that the dead workers
    would have ended. `gone`: workers that are dead for certain; `after`: see `DeadWorkers.claim`. Returns the events
    that the application must hear."""
    events: list[Event] = []
    removed_any = False
    while (dead := (yield from store.dead_workers.claim(gone, after=after))) is not None:
        events += yield from store.dead_workers.remove(dead)
        removed_any = True
    if removed_any:
        recent = yield from control.sent_since(store.keys, now - int(UNHEARD_LEASES * store.lease * 1000))
        events += yield from store.graces.end_all_matching(control.ended_graces(recent))
    events += yield from store.graces.end_due(now)
    return events


def heartbeat_interval(lease: float) -> float:
    """Seconds between two heartbeats."""
    return min(MAX_INTERVAL, lease / 5)
